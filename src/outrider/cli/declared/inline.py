"""A payload of a few short texts that stand in the declaration itself, packed the same way every time."""

import io
import tarfile
from collections.abc import Mapping


def pack(files: Mapping[str, str]) -> bytes:
    """A tar of ``files``, path -> text: the same bytes for the same texts. What begins with ``#!`` is executable."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            content = files[name].encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def problem_of(name: str) -> str:
    """Why a file can't be called so; empty when it can."""
    parts = name.split("/")
    if not name or not all(parts) or any(part in (".", "..") for part in parts) or len(name.encode()) > 99:
        return "a file's name is a path inside the payload, such as bin/server, of at most 99 bytes"
    return ""
