"""Unpacks a payload's tar so that nothing lands outside its folder, whatever the archive says.

One pass, no seeking back. Regular files and folders are written first and symbolic links last, when all of them are
known: nothing can be written through a link of the archive, and a link is followed through all the others before it is
made. ``tarfile`` only reads here; we write. Its data filter is not used: Python 3.11.2 (Debian 12) has none, and where
there is one, it is not enough (CVE-2024-12718, CVE-2025-4517). Files get the same permissions as with the filter.
"""

import errno
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from outrider.core.errors import DriverError, Refused
from outrider.core.images import is_descriptor

MAX_UNPACKED_BYTES = 16 * 1024**3
MAX_MEMBERS = 200_000
# Long names and pax headers are read into memory in one piece, before any of our checks.
_MAX_HEADER_BYTES = 1024**2
_MAX_DESCRIPTOR_BYTES = 4096  # a reference has at most 1000 characters
_MAX_LINKS_FOLLOWED = 40  # the kernel's own limit, path_resolution(7)


def unpack(
    payload: Path,
    into: Path,
    *,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
    room_bytes: int | None = None,
) -> None:
    """Unpack ``payload`` (tar, plain or with gzip or xz) as the folder ``into``, which appears whole or not at all.

    Dropped are owners, the set-uid, set-gid and sticky bits, and write permission for group and others. What a killed
    run left behind is removed first.

    Args:
        room_bytes: Give up before more than this is written: a full disk would stop the journal too. None: don't ask.

    Raises:
        Refused: not such a tar, unsafe (the line names the member), or too big: the release's fault.
        DriverError: this machine can't (no room, disk full, no permission), or it is the descriptor of an image, which
            no fault of the release brought to a machine that only unpacks.
    """
    partial = into.with_name(into.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with payload.open("rb") as source:
            if is_descriptor(source.read(_MAX_DESCRIPTOR_BYTES)):
                raise DriverError(
                    f"{payload.name}: describes a container image, and this machine's runtime unpacks archives; serve"
                    " this group an archive"
                )
            source.seek(0)
            _unpack(payload.name, source, partial, _Plan(max_bytes=max_bytes, max_members=max_members), room_bytes)
        partial.rename(into)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            raise Refused(f"{payload.name}: holds a name that this machine can't store: {error.strerror}") from error
        raise DriverError(f"{payload.name}: can't unpack to {into}: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _unpack(name: str, source: IO[bytes], folder: Path, plan: "_Plan", room_bytes: int | None) -> None:
    try:
        stream = _decompressed(source)
        guarded = cast(IO[bytes], _Forward(stream))
        with tarfile.open(fileobj=guarded, mode="r:") as archive:
            while (member := archive.next()) is not None:
                plan.add(member)
                if room_bytes is not None and plan.size_bytes > room_bytes:
                    raise DriverError(f"{name}: no room to unpack it to {folder}: {room_bytes} bytes are free there")
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers every header
                if not member.issym():
                    _write(archive, member, folder)
        plan.check_links()
        for path, target in plan.targets.items():
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    except _Unsafe as problem:
        raise Refused(f"{name}: {problem}") from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as problem:
        raise Refused(f"{name}: damaged: {problem}") from problem
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as problem:
        # tarfile leaks the last three from headers with impossible numbers, or with headers inside headers.
        raise Refused(f"{name}: not a tar file (plain, gzip or xz), or damaged: {problem}") from problem
    if not plan.kinds:
        raise Refused(f"{name}: the archive is empty")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write a file, folder or hard link that the plan has taken: no part of its path is a symbolic link."""
    path = folder / _inside(member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.islnk():
        os.link(folder / _inside(member.linkname), path, follow_symlinks=False)
        return
    content = archive.extractfile(member)
    assert content is not None, "a regular file has content"
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), _granted(member.mode))
    os.utime(path, (member.mtime, member.mtime))


def _granted(mode: int) -> int:
    """The permissions of a file that asks for ``mode``: its owner reads and writes, nobody else writes.

    Source: ``data_filter`` in Python's Lib/tarfile.py.
    """
    return (mode & 0o755 if mode & 0o100 else mode & 0o644) | 0o600


def _decompressed(source: IO[bytes]) -> IO[bytes]:
    magic = source.read(6)
    source.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=source))
    if magic == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.LZMAFile(source))
    if magic.startswith((b"\x28\xb5\x2f\xfd", b"BZh", b"PK\x03\x04")):
        raise _Unsafe("not a tar file that can be read here; pack it as tar, tar.gz or tar.xz")
    return source


class _Unsafe(Exception):
    """The archive is not to be unpacked; ``str()`` says which member and why."""


class _Forward:
    """A stream that is only read forwards, in pieces of bounded size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._position = stream, 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise _Unsafe(f"holds a header of {size} bytes; at most {_MAX_HEADER_BYTES} are read")
        content = self._stream.read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise _Unsafe("refers back to an earlier part of itself")
        while self._position < position:
            if not self.read(min(position - self._position, 64 * 1024)):
                break
        return self._position


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What the archive makes, path by path; refuses what must not be made.

    Attributes:
        kinds: Normalised path -> ``file``, ``dir`` or ``link``, in the order of the archive; folders that are only
            implied count as well.
        targets: Path of a symbolic link -> what it says.
    """

    max_bytes: int
    max_members: int
    size_bytes: int = 0
    members: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    def add(self, member: tarfile.TarInfo) -> None:
        """Take one member into the plan, before it is written.

        Raises:
            _Unsafe: absolute or climbing names, devices, sparse files, names that are used twice or lie below a link,
                hard links to anything but an earlier file, too many members or too many bytes.
        """
        self.members += 1
        if self.members > self.max_members:
            raise _Unsafe(f"holds more than {self.max_members} members")
        path = _inside(member.name)
        if member.issparse():
            raise _Unsafe(f"{member.name!r} is a sparse file; pack it without --sparse")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _Unsafe(f"{member.name!r} is a device or a pipe; only files, folders and links are unpacked")
        if member.islnk() and self.kinds.get(_inside(member.linkname)) != "file":
            raise _Unsafe(f"{member.name!r} is a hard link to {member.linkname!r}, which is no earlier file in it")
        self._place(member, path)
        if member.size < 0:
            raise _Unsafe(f"{member.name!r} has a negative size")
        if member.isreg():
            self.size_bytes += member.size
            if self.size_bytes > self.max_bytes:
                raise _Unsafe(f"unpacks to more than {self.max_bytes} bytes")
        elif member.issym():
            self.targets[path] = member.linkname

    def _place(self, member: tarfile.TarInfo, path: str) -> None:
        kind = "dir" if member.isdir() else "link" if member.issym() else "file"
        known = self.kinds.get(path)
        if known is not None and not (kind == known == "dir"):
            raise _Unsafe(f"{member.name!r} appears twice")
        parent = posixpath.dirname(path)
        while parent and self.kinds.get(parent) != "dir":
            if parent in self.kinds:
                what = "a link" if self.kinds[parent] == "link" else "a file"
                raise _Unsafe(f"{member.name!r} lies below {parent!r}, which is {what}")
            self.kinds[parent] = "dir"
            parent = posixpath.dirname(parent)
        if path:
            self.kinds[path] = kind
        elif kind != "dir":
            raise _Unsafe(f"{member.name!r} is not the name of a file")

    def check_links(self) -> None:
        """Follow every symbolic link through all others.

        Raises:
            _Unsafe: one leads out of the folder at any step, is absolute, or runs in a circle.
        """
        for path, target in self.targets.items():
            try:
                self._follow(path)
            except ValueError as problem:
                raise _Unsafe(f"{path!r} is a link to {target!r}, which {problem}") from None

    def _follow(self, path: str) -> None:
        reached: list[str] = []
        ahead = path.split("/")[::-1]
        followed = 0
        while ahead:
            step = ahead.pop()
            if step in ("", "."):
                continue
            if step == "..":
                if not reached:
                    raise ValueError("leads out of the archive")
                reached.pop()
                continue
            reached.append(step)
            target = self.targets.get("/".join(reached))
            if target is None:
                continue
            followed += 1
            if followed > _MAX_LINKS_FOLLOWED:
                raise ValueError("runs in a circle")
            if target.startswith("/"):
                raise ValueError("is absolute")
            reached.pop()
            ahead.extend(target.split("/")[::-1])


def _inside(name: str) -> str:
    """``name`` without empty and ``.`` parts; empty for the folder itself."""
    if name.startswith("/"):
        raise _Unsafe(f"{name!r} is absolute")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _Unsafe(f"{name!r} climbs out with '..'")
    return "/".join(parts)
