"""What works and is a risk: said at each start, and by ``config check``."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from outrider.config.sections import ServiceSettings, TrustSettings
from outrider.core.addresses import is_loopback, is_private
from outrider.core.client_tokens import masked


def cautions(service: ServiceSettings) -> Iterator[str]:
    """One line for each."""
    for url in service.urls:
        if urlsplit(url).scheme.lower() == "http" and not is_loopback(url):
            proofs = ", and check-ins there are not proved" if unproved(service) else ""
            yield (
                f"service.urls: {masked(url)!r} is plain http and leaves this machine: whoever is on the way can read"
                f" and change what it says{proofs}; use https (`outrider serve --tls-cert`)"
            )
    if unverified(service):
        yield f"service.allow_unverified: {unverified(service)}"


def trust_cautions(trust: TrustSettings) -> Iterator[str]:
    """One line for each."""
    if trust.is_on and trust.allow_unbound_minisign:
        yield (
            "trust.allow_unbound_minisign: signatures that name no app and version count, so an old payload, or that of"
            " another app with the same key, can be served as any version"
        )
    if trust.is_on and trust.allow_unbound_cosign:
        yield (
            "trust.allow_unbound_cosign: signatures that name no app and version count, so an old image, or that of"
            " another app with the same key, can be served as any version"
        )


def unverified(service: ServiceSettings) -> str:
    """What a person must know of a machine that runs whatever it is told; empty when it doesn't."""
    if service.kind == "outrider" or not service.allow_unverified:
        return ""
    plain = [url for url in service.urls if url.lower().startswith("http:")]
    return f"payloads are not verified: {masked(plain[0])} is plain http" if plain else ""


def unproved(service: ServiceSettings) -> str:
    """What a person must know of a machine whose check-ins can't be proved; empty when they can."""
    if service.kind != "outrider" or service.allow_plain_identity:
        return ""
    plain = [url for url in service.urls if not is_private(url)]
    if not plain:
        return ""
    return (
        f"check-ins at {masked(plain[0])} are not proved, because others could read the proof on the way; use https, or"
        " set service.allow_plain_identity"
    )
