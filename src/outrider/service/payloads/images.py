"""Packages that are container images: their payload is a small descriptor that names the image to pull.

The descriptor has a size and digests like any file, so every Omaha client can verify it; the runtime reads its content.
"""

from dataclasses import replace
from pathlib import Path

from outrider.core.errors import ConfigError
from outrider.core.images import (
    DESCRIPTOR_NAME,
    ImagePlatform,
    ImageReference,
    checked_digest,
    describe_image,
    parse_image,
)
from outrider.model.documents import Package, Unresolved
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.registry import Registries, RegistryError
from outrider.service.store.packages import Payload


def image_payload(payloads: PayloadFolder, text: str, registries: Registries, digest: str = "") -> Payload:
    """Store the descriptor of an image, with its digest when the registry says it, or the caller.

    Args:
        text: The image's reference.
        digest: What it must be; empty: whatever the registry says of the reference.

    Raises:
        ConfigError: ``text`` is not a reference with tag or digest, or ``digest`` is none, or another one.
        DriverError: the disk is full or broken.
    """
    reference = parse_image(text)
    if digest and reference.digest and checked_digest(digest) != reference.digest:
        raise ConfigError(f"image {text}: its digest is another one than {digest}; leave one of them out")
    digest = checked_digest(digest) if digest else reference.digest
    unresolved, platforms = "", tuple[ImagePlatform, ...]()
    try:
        found = registries.resolve(replace(reference, digest=digest))
        digest, platforms = found.digest, found.platforms
    except RegistryError as error:
        unresolved = str(error)
    return _payload(payloads, reference, digest, platforms, "" if digest else unresolved)


def _payload(
    payloads: PayloadFolder,
    reference: ImageReference,
    digest: str,
    platforms: tuple[ImagePlatform, ...],
    unresolved: str,
) -> Payload:
    stored = payloads.store(describe_image(reference, digest, platforms))
    return Payload(
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        sha1=stored.sha1,
        name=DESCRIPTOR_NAME,
        image=str(reference),
        digest=digest,
        platforms=platforms,
        unresolved=unresolved,
    )


def image_notes(package: Package, unresolved: Unresolved | None = None) -> list[str]:
    """Notes for a person about a package's image."""
    if not package.is_unresolved:
        return []
    why = f" ({unresolved.why})" if unresolved is not None and unresolved.why else ""
    return [
        f"{package.image} has no digest yet{why}: sidekicks are not offered it until it has; the service asks again, or"
        " name it with `package resolve --digest`"
    ]


def restored_descriptor(payloads: PayloadFolder, package: Package) -> Path | None:
    """Write an image's descriptor again when its file is missing (the folder of another process, or a lost disk)."""
    if not package.image:
        return None
    stored = payloads.store(describe_image(parse_image(package.image), package.digest, package.platforms))
    return stored.path if stored.sha256 == package.sha256 else None
