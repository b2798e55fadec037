"""Container images in a tar, as ``docker save`` writes them: which image is in it, by digests of what is really there.

``manifest.json`` names the configuration of each image; the digest of that file is the image's id in Docker's classic
store. Newer Dockers add an OCI ``index.json`` with the digest of the manifest, which is the id in the containerd store.

Source: github.com/moby/moby image/spec/spec.md (v1.2), github.com/opencontainers/image-spec image-layout.md.
"""

import gzip
import hashlib
import json
import lzma
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.core.errors import Refused
from outrider.core.images import checked_digest

_MAX_BYTES = 8 * 1024 * 1024
"""Of one JSON file in the tar: configurations of a few kilobytes are usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTar:
    """The image in a tar.

    Attributes:
        config: Digest of its configuration.
        manifests: Digests of its manifests; empty in the tars of older Dockers.
        platform: ``linux/amd64``.
        tags: What it was called where it was saved; loading sets them.
    """

    config: str
    manifests: tuple[str, ...]
    platform: str
    tags: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """What the image may be called once it is loaded."""
        return frozenset((self.config, *self.manifests))


def is_image_tar(path: Path) -> bool:
    """Tell whether a file is a tar with an image in it, sound or not.

    Raises:
        OSError: it can't be read.
    """
    try:
        with tarfile.open(path) as archive:
            return _names(archive).get("manifest.json") is not None and _is_list(archive)
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, ValueError):
        return False


def read_image_tar(path: Path) -> ImageTar:
    """Which image is in the tar at ``path``.

    Raises:
        Refused: not such a tar, or not exactly one image in it.
        OSError: it can't be read.
    """
    try:
        with tarfile.open(path) as archive:
            return _read(archive, path.name)
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise Refused(f"{path.name}: not a tar file as `docker save` writes it, or damaged: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path.name}: holds no container image as `docker save` writes it: {error}") from error


def _read(archive: tarfile.TarFile, name: str) -> ImageTar:
    names = _names(archive)
    if "manifest.json" not in names:
        raise Refused(f"{name}: holds no container image: it has no manifest.json; make it with `docker save`")
    images = _json(archive, names, "manifest.json")
    if len(images) != 1:
        raise Refused(f"{name}: holds {len(images)} images; save one image alone")
    content = _content(archive, names, images[0]["Config"])
    config = json.loads(content)
    manifests = _json(archive, names, "index.json")["manifests"] if "index.json" in names else ()
    variant = f"/{config['variant']}" if config.get("variant") else ""
    return ImageTar(
        config=f"sha256:{hashlib.sha256(content).hexdigest()}",
        manifests=tuple(checked_digest(one["digest"]) for one in manifests),
        platform=f"{config['os']}/{config['architecture']}{variant}",
        tags=tuple(str(tag) for tag in images[0].get("RepoTags") or ()),
    )


def _names(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    return {member.name.removeprefix("./"): member for member in archive if member.isfile()}


def _is_list(archive: tarfile.TarFile) -> bool:
    found = _json(archive, _names(archive), "manifest.json")
    return isinstance(found, list) and all(isinstance(one, dict) and "Config" in one for one in found)


def _json(archive: tarfile.TarFile, names: dict[str, tarfile.TarInfo], name: str) -> Any:
    return json.loads(_content(archive, names, name))


def _content(archive: tarfile.TarFile, names: dict[str, tarfile.TarInfo], name: str) -> bytes:
    member = names[name]
    if member.size > _MAX_BYTES:
        raise ValueError(f"{name} has {member.size} bytes; at most {_MAX_BYTES} are read")
    opened = archive.extractfile(member)
    assert opened is not None, "a regular file has content"
    with opened:
        return opened.read()
