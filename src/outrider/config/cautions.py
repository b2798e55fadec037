"""What works and is a risk: said at each start, and by ``config check``."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from outrider.config.sections import ServiceSettings


def cautions(service: ServiceSettings) -> Iterator[str]:
    """One line for each."""
    for url in service.urls:
        if urlsplit(url).scheme.lower() == "http" and not is_loopback(url):
            yield (
                f"service.urls: {url!r} is plain http and leaves this machine: whoever is on the way can read and"
                " change what it says; use https (`outrider serve --tls-cert`)"
            )
    if unverified(service):
        yield f"service.allow_unverified: {unverified(service)}"


def unverified(service: ServiceSettings) -> str:
    """What a person must know of a machine that runs whatever it is told; empty when it doesn't."""
    if service.kind == "outrider" or not service.allow_unverified:
        return ""
    plain = [url for url in service.urls if url.lower().startswith("http:")]
    return f"payloads are not verified: {plain[0]} is plain http" if plain else ""


def is_loopback(url: str) -> bool:
    """Nothing of what is sent there leaves this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
