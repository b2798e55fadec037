"""Packages that are container images: their payload is a small descriptor that names the image to pull.

The descriptor has a size and digests like any file, so every Omaha client can verify it; the runtime reads its content.
"""

from pathlib import Path

from outrider.core.images import DESCRIPTOR_NAME, describe_image, parse_image
from outrider.model.documents import Package
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.store.packages import Payload


def image_payload(payloads: PayloadFolder, text: str) -> Payload:
    """Store the descriptor of an image.

    Raises:
        ConfigError: ``text`` is not a reference with tag or digest.
        DriverError: the disk is full or broken.
    """
    reference = parse_image(text)
    stored = payloads.store(describe_image(reference))
    return Payload(
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        sha1=stored.sha1,
        name=DESCRIPTOR_NAME,
        image=str(reference),
    )


def image_notes(package: Package) -> list[str]:
    """Notes for a person about a package's image."""
    if not package.image or parse_image(package.image).digest:
        return []
    return [f"{package.image}: its tag can move to another image; pin the image by digest (NAME@sha256:...)"]


def restored_descriptor(payloads: PayloadFolder, package: Package) -> Path | None:
    """Write an image's descriptor again when its file is missing (the folder of another process, or a lost disk)."""
    if not package.image:
        return None
    stored = payloads.store(describe_image(parse_image(package.image)))
    return stored.path if stored.sha256 == package.sha256 else None
