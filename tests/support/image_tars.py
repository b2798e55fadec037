"""Tars as ``docker save`` writes them, without Docker."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}


def image_tar(path: Path, *, images: int = 1, config: object = CONFIG, oci: bool = False, mode: str = "w") -> Path:
    """Write a tar with so many images; ``oci``: as newer Dockers do, with an index."""
    content = json.dumps(config).encode()
    name = f"blobs/sha256/{hashlib.sha256(content).hexdigest()}" if oci else "0123.json"
    files = {
        name: content,
        "manifest.json": json.dumps([{"Config": name, "RepoTags": ["a:1"], "Layers": []}] * images).encode(),
    }
    if oci:
        files["index.json"] = json.dumps({"manifests": [{"digest": "sha256:" + "cd" * 32}]}).encode()
    return tar_of(path, files, mode=mode)


def tar_of(path: Path, files: dict[str, bytes], *, mode: str = "w") -> Path:
    """Write a tar with these files."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
