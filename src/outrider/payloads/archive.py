"""Unpacks a payload's tar so that nothing lands outside its folder, whatever the archive says; or only looks at it.

One pass, no seeking back. Regular files and folders are written first and symbolic links last, when all of them are
known: nothing can be written through a link of the archive, and a relative link is followed through all the others
before it is made. An absolute link (a Python environment has one, to its interpreter) is made as it is.
File names are bytes: no locale changes them. ``tarfile`` only reads here; we write. Its data filter is not used: Python
3.11.2 (Debian 12) has none, and where there is one, it is not enough (CVE-2024-12718, CVE-2025-4517). Files get the
same permissions as with the filter.
"""

import gzip
import lzma
import os
import posixpath
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from outrider.core.blame import seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.images import MAX_DESCRIPTOR_BYTES, is_descriptor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_UNPACKED_BYTES = 16 * 1024**3
MAX_MEMBERS = 200_000
# Long names and pax headers are read into memory in one piece, before any of our checks.
_MAX_HEADER_BYTES = 1024**2
_MAX_NAME_BYTES = 255  # NAME_MAX of every file system in use
_BLOCK_BYTES = 4096  # what file systems give out at least, also for a link or a folder
_SHOWN = 5
_MAX_SHOWN = 400
_MAX_LINKS_FOLLOWED = 40  # the kernel's own limit, path_resolution(7)


def unpack(
    payload: Path,
    into: Path,
    *,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
    room_bytes: int | None = None,
    room_files: int | None = None,
) -> None:
    """Unpack ``payload`` (tar, plain or with gzip, xz, zstd) as the folder ``into``, which appears whole or not at all.

    Dropped are owners, the set-uid, set-gid and sticky bits, and write permission for group and others. What a killed
    run left behind is removed first.

    Args:
        room_bytes, room_files: What may be used of the disk. What needs more is refused before anything is written: a
            full disk would stop the journal too. None: don't ask.

    Raises:
        Refused: not such a tar, unsafe (the line names the member), or too big: the release's fault.
        DriverError: this machine can't (no room, disk full, no permission), or it is the descriptor of an image, which
            no fault of the release brought to a machine that only unpacks.
    """
    partial = into.with_name(into.name + ".partial")
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        with payload.open("rb") as source:
            if is_descriptor(source.read(MAX_DESCRIPTOR_BYTES)):
                raise DriverError(
                    f"{payload.name}: describes a container image, and this machine's runtime unpacks archives; serve"
                    " this group an archive",
                    evidence="unfit",
                )
            source.seek(0)
            if room_bytes is not None:
                plan = _Plan(max_bytes=max_bytes, max_members=max_members)
                _walk(payload.name, source, plan, lambda archive, member: None)
                _check_room(payload.name, plan, into, room_bytes, room_files)
                source.seek(0)
            _unpack(payload.name, source, partial, _Plan(max_bytes=max_bytes, max_members=max_members))
        partial.rename(into)
    except OSError as error:
        _remove(partial)
        raise DriverError(
            f"{payload.name}: can't unpack to {into}: {error.strerror or error}", evidence=seen_in(error.errno)
        ) from error
    except BaseException:
        _remove(partial)
        raise


def inspect(
    payload: Path, *, program: str = "", max_bytes: int = MAX_UNPACKED_BYTES, max_members: int = MAX_MEMBERS
) -> bool:
    """Look at ``payload`` as ``unpack`` would, without writing anything.

    Args:
        program: A file that must be in it and be executable; empty: any file will do.

    Returns:
        False when it isn't an archive at all, as far as one can see: it may be meant for others than sidekicks.

    Raises:
        Refused: no sidekick could run it; the line says why.
        OSError: it can't be read.
    """
    with payload.open("rb") as source:
        if is_descriptor(source.read(MAX_DESCRIPTOR_BYTES)):
            return False
        source.seek(0)
        plan = _Plan(max_bytes=max_bytes, max_members=max_members)
        try:
            _walk(payload.name, source, plan, lambda archive, member: None)
        except _NoTar:
            return False
        plan.check_program(payload.name, program)
    return True


def _remove(folder: Path) -> None:
    """Remove what an earlier run left, or this one: a folder, or whatever else stands in its place."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


_Take = Callable[[tarfile.TarFile, tarfile.TarInfo], None]
"""What is done with a member that the plan has taken."""


class _NoTar(Refused):
    """Nothing in it looks like a tar."""


def _check_room(name: str, plan: "_Plan", folder: Path, room_bytes: int, room_files: int | None) -> None:
    needed = plan.disk_bytes
    if needed > room_bytes:
        raise DriverError(
            f"{name}: no room to unpack it to {folder}: it needs {needed} bytes and {max(0, room_bytes)} may be used"
            " there; make room on that disk",
            evidence="disk-full",
        )
    if room_files is not None and len(plan.kinds) > room_files:
        raise DriverError(
            f"{name}: no room to unpack it to {folder}: it has {len(plan.kinds)} files and folders, and {room_files}"
            " inodes are free there; remove files on that disk",
            evidence="disk-full",
        )


def _unpack(name: str, source: IO[bytes], folder: Path, plan: "_Plan") -> None:
    root = os.fsencode(folder)

    def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if not member.issym():
            _write(archive, member, root)

    _walk(name, source, plan, take)
    for path, target in plan.targets.items():
        link = os.path.join(root, _bytes(path))
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(_bytes(target), link)


def _walk(name: str, source: IO[bytes], plan: "_Plan", take: _Take) -> None:
    """Hand every member to the plan, then to ``take``."""
    try:
        stream = _decompressed(source)
        guarded = cast(IO[bytes], _Forward(stream))
        # UTF-8 with escapes: every name comes back as the bytes that it was, whatever this machine's locale is
        with tarfile.open(fileobj=guarded, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                plan.add(member)
                take(archive, member)
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers every header
        plan.check_links()
    except _Unsafe as problem:
        raise Refused(f"{name}: {_shown(str(problem))}") from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstd.ZstdError, EOFError) as problem:
        raise Refused(f"{name}: damaged: {problem}") from problem
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as problem:
        # tarfile leaks the last three from headers with impossible numbers, or with headers inside headers.
        kind = Refused if plan.members else _NoTar
        raise kind(f"{name}: not a tar file (plain, gzip, xz or zstd), or damaged: {problem}") from problem
    if not plan.kinds:
        raise Refused(f"{name}: the archive is empty")


def _shown(problem: str) -> str:
    """Names are the archive's own, and each may have thousands of characters: the middle goes."""
    if len(problem) <= _MAX_SHOWN:
        return problem
    return f"{problem[: _MAX_SHOWN // 2]}...{problem[-_MAX_SHOWN // 2 :]}"


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, root: bytes) -> None:
    """Write a file, folder or hard link that the plan has taken: no part of its path is a symbolic link."""
    path = os.path.join(root, _bytes(_inside(member.name)))
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if member.islnk():
        os.link(os.path.join(root, _bytes(_inside(member.linkname))), path, follow_symlinks=False)
        return
    content = archive.extractfile(member)
    assert content is not None, "a regular file has content"
    with content, open(path, "xb") as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), _granted(member.mode))
    os.utime(path, (member.mtime, member.mtime))


def _bytes(name: str) -> bytes:
    """A name of the archive as the file system gets it."""
    return name.encode("utf-8", "surrogateescape")


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
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(IO[bytes], zstd.ZstdFile(source))
    for begin, what in _OTHERS.items():
        if magic.startswith(begin):
            raise _Unsafe(f"is {what}, which is not supported; pack it as tar, tar.gz, tar.xz or tar.zst")
    return source


_OTHERS = {b"BZh": "compressed with bzip2", b"PK\x03\x04": "a zip file", b"PK\x05\x06": "a zip file"}
"""How files begin that people take for payloads."""


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
        modes: Path of a regular file -> its permissions in the archive.
    """

    max_bytes: int
    max_members: int
    size_bytes: int = 0
    disk_bytes: int = 0
    members: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

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
        if any(len(_bytes(part)) > _MAX_NAME_BYTES for part in path.split("/")):
            raise _Unsafe(
                f"{member.name!r} has a part of more than {_MAX_NAME_BYTES} bytes, which no file system stores"
            )
        if member.issparse():
            raise _Unsafe(f"{member.name!r} is a sparse file; pack it without --sparse")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _Unsafe(f"{member.name!r} is a device or a pipe; only files, folders and links are unpacked")
        if member.islnk() and self.kinds.get(_inside(member.linkname)) != "file":
            raise _Unsafe(f"{member.name!r} is a hard link to {member.linkname!r}, which is no earlier file in it")
        self._place(member, path)
        if member.size < 0:
            raise _Unsafe(f"{member.name!r} has a negative size")
        self.disk_bytes += -(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES if member.isreg() else _BLOCK_BYTES
        if member.isreg():
            self.size_bytes += member.size
            self.modes[path] = member.mode
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

    def check_program(self, name: str, program: str) -> None:
        """See whether there is something to run.

        Raises:
            Refused: no file at all, or ``program`` isn't there or isn't executable.
        """
        if not self.modes and not self.targets:
            raise Refused(f"{name}: holds no file, so there is nothing to run")
        path = _inside(program.removeprefix("./")) if program else ""
        if not path or path in self.targets or (self.kinds.get(path) == "file" and self.modes.get(path, 0o100) & 0o111):
            return
        if self.kinds.get(path) == "file":
            raise Refused(f"{name}: its program {program!r} has no x bit; set it before packing: chmod +x")
        files = ", ".join(sorted(self.modes)[:_SHOWN])
        raise Refused(f"{name}: has no program {program!r}; it has {files}")

    def check_links(self) -> None:
        """Follow every symbolic link through all others.

        Raises:
            _Unsafe: one leads out of the folder at any step by ``..``, or runs in a circle. Whose way goes over an
                absolute link leads out as that one says.
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
                return
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
