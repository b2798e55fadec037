"""References to container images: ``coreos/example:1.0.0``, ``registry:5000/a/b@sha256:...``, and what we keep of them.

Source: the grammar of github.com/distribution/reference (``reference.go``, ``regexp.go``).
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from outrider.core.errors import ConfigError

PayloadKind = Literal["archive", "image"]
"""What a payload is: an archive to unpack, or the reference of a container image."""

MAX_NAME = 255
DESCRIPTOR_NAME = "image.json"
DESCRIPTOR_MEDIA_TYPE = "application/vnd.outrider.image+json"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    rf"(?:@(?P<digest>{_DIGEST}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """Where an image is, and which one.

    Attributes:
        name: With the registry when there is one.
        tag: Empty without one. A registry may point it at another image tomorrow.
        digest: ``sha256:`` with 64 hex digits; empty without one. It names one image forever.
    """

    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """The reference as it is written."""
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_image(text: str) -> ImageReference:
    """Read a reference.

    Raises:
        ConfigError: it isn't one, or has neither tag nor digest: what is released must say which image it is.
    """
    # The longest reference has a name, a tag of 128 and a SHA-512; a longer text isn't worth matching.
    match = _REFERENCE.fullmatch(text) if len(text) <= 1000 else None
    if match is None or len(match["name"]) > MAX_NAME:
        raise ConfigError(
            f"image {text[:300]!r}: write NAME:TAG or NAME@sha256:DIGEST, for example coreos/example:1.0.0"
        )
    reference = ImageReference(name=match["name"], tag=match["tag"] or "", digest=match["digest"] or "")
    if not reference.tag and not reference.digest:
        raise ConfigError(f"image {text!r}: has neither tag nor digest; say which one, for example {text}:1.0.0")
    return reference


def kind_of(file_name: str) -> PayloadKind:
    """What a payload is, by the name of its file in the offer: an image when it is a descriptor's, else an archive."""
    return "image" if file_name.rpartition("/")[2] == DESCRIPTOR_NAME else "archive"


def is_descriptor(head: bytes) -> bool:
    """Tell whether a file's first bytes are a descriptor, whatever its name. ``head``: all of it, or at least 4 KiB."""
    if not head.startswith(b"{"):
        return False
    try:
        facts = json.loads(head)
    except ValueError:
        return False
    return isinstance(facts, dict) and isinstance(facts.get("image"), str)


def describe_image(reference: ImageReference) -> bytes:
    """The payload of a package that is an image: what to pull, as JSON.

    The bytes for one reference never change, because packages have their digest.
    """
    facts = {"digest": reference.digest or None, "image": str(reference)}
    return json.dumps(facts, separators=(",", ":"), sort_keys=True).encode("ascii") + b"\n"
