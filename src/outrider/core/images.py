"""References to container images: ``coreos/example:1.0.0``, ``registry:5000/a/b@sha256:...``, and what we keep of them.

Source: the grammar of github.com/distribution/reference (``reference.go``, ``regexp.go``, ``normalize.go``).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from outrider.core.errors import ConfigError

PayloadKind = Literal["archive", "image", "image-tar"]
"""What a payload is: an archive to unpack, the descriptor of a container image, or the image itself (`docker save`)."""

MAX_NAME = 255
DESCRIPTOR_NAME = "image.json"
TAR_NAME = "image.tar"
MAX_DESCRIPTOR_BYTES = 64 * 1024
"""A reference has at most 1000 characters, and a platform about 250."""
MAX_PLATFORMS = 64
DOCKER_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
"""What `docker login` without a registry writes into its file."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlatform:
    """One platform's part of an image.

    Attributes:
        platform: ``linux/amd64``, ``linux/arm/v7``.
        manifest: Digest of its manifest.
        config: Digest of its configuration: the id of the image in Docker's classic store.
        size_bytes: Of its layers as they are sent; 0: unknown.
    """

    platform: str
    manifest: str
    config: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDescriptor:
    """What to pull, and what it must be.

    Attributes:
        digest: Of the index, or of the manifest when there is no index; empty while the tag is not resolved.
        platforms: Empty when the registry was not asked.
    """

    reference: ImageReference
    digest: str = ""
    platforms: tuple[ImagePlatform, ...] = ()

    @property
    def pull_name(self) -> str:
        """The reference by digest alone. There is a digest."""
        return f"{self.reference.name}@{self.digest}"

    @property
    def ids(self) -> frozenset[str]:
        """What a local image may be called that is this one, in any of Docker's image stores."""
        found = (digest for one in self.platforms for digest in (one.manifest, one.config))
        return frozenset((self.digest, *found))


def registry_of(name: str) -> tuple[str, str]:
    """Registry and repository of an image's name, as Docker completes it.

    ``coreos/example`` is ``docker.io`` and ``coreos/example``, ``busybox`` is ``docker.io`` and ``library/busybox``.
    """
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        if first in ("index.docker.io", DOCKER_HUB):
            return DOCKER_HUB, rest if "/" in rest else f"library/{rest}"
        return first, rest
    return DOCKER_HUB, name if slash else f"library/{name}"


def credentials_for(registry: str, content: bytes) -> Mapping[str, str] | None:
    """What a file like Docker's ``config.json`` has for a registry.

    Args:
        registry: Host, with a port if it has one.
        content: Of the file: ``{"auths": {"registry:5000": {"auth": "BASE64"}}}``.

    Returns:
        ``username`` and ``password``, or ``identitytoken``; None when the file has nothing for it.

    Raises:
        ConfigError: not such a file, or the credentials are in a helper program.
    """
    try:
        found = json.loads(content)
        auths: dict[str, Any] = found.get("auths", {})
        if not isinstance(auths, dict):
            raise TypeError("auths is no object")
        helpers = {**found.get("credHelpers", {}), **({"": 1} if found.get("credsStore") else {})}
        keys = (registry, f"https://{registry}", f"http://{registry}", *((_HUB_KEY,) if registry == DOCKER_HUB else ()))
        entry: Any = next((auths[key] for key in keys if key in auths), None)
        if not entry and (registry in helpers or "" in helpers):
            raise ConfigError(
                f"the credentials for {registry} are in a helper program, which is not asked; write them into auths"
            )
        if not entry:
            return None
        if entry.get("identitytoken"):
            return {"identitytoken": str(entry["identitytoken"])}
        if entry.get("auth"):
            user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        else:
            user, colon, password = entry["username"], ":", entry["password"]
        if not colon or not isinstance(user, str) or not isinstance(password, str):
            raise ValueError("no colon")
    except (ValueError, binascii.Error, KeyError, AttributeError, TypeError) as error:
        raise ConfigError('not a file like Docker\'s config.json: {"auths": {REGISTRY: {"auth": ...}}}') from error
    return {"username": user, "password": password}


def kind_of(file_name: str) -> PayloadKind:
    """What a payload is, by the name of its file in the offer: our service calls what is an image ``image.*``."""
    name = file_name.rpartition("/")[2]
    if name == DESCRIPTOR_NAME:
        return "image"
    return "image-tar" if name == TAR_NAME else "archive"


def is_descriptor(head: bytes) -> bool:
    """Tell whether a file is a descriptor, whatever its name. ``head``: its first ``MAX_DESCRIPTOR_BYTES``."""
    if not head.startswith(b"{"):
        return False
    try:
        facts = json.loads(head)
    except ValueError:
        return False
    return isinstance(facts, dict) and isinstance(facts.get("image"), str)


def describe_image(reference: ImageReference, digest: str = "", platforms: tuple[ImagePlatform, ...] = ()) -> bytes:
    """The payload of a package that is an image: what to pull, as JSON.

    The bytes for the same facts never change, because packages have their digest.

    Args:
        digest: As the registry gave it; empty: the reference's own.
    """
    facts: dict[str, object] = {"digest": digest or reference.digest or None, "image": str(reference)}
    if platforms:
        facts["platforms"] = [
            {"config": one.config, "manifest": one.manifest, "platform": one.platform, "size_bytes": one.size_bytes}
            for one in platforms
        ]
    return json.dumps(facts, separators=(",", ":"), sort_keys=True).encode("ascii") + b"\n"


def read_descriptor(content: bytes) -> ImageDescriptor:
    """Read what ``describe_image`` has written.

    Raises:
        ConfigError: it is something else.
    """
    try:
        facts = json.loads(content)
        digest = facts["digest"] or ""
        platforms = tuple(
            ImagePlatform(
                platform=str(one["platform"]),
                manifest=checked_digest(one["manifest"]),
                config=checked_digest(one["config"]),
                size_bytes=int(one["size_bytes"]),
            )
            for one in facts.get("platforms", ())
        )
        return ImageDescriptor(
            reference=parse_image(facts["image"]), digest=checked_digest(digest) if digest else "", platforms=platforms
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not the descriptor of a container image: {error}") from error


def checked_digest(text: str) -> str:
    """A digest of an image.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(_DIGEST, text):
        raise ConfigError(f"digest {text[:200]!r}: write sha256: and 64 hex digits")
    return text
