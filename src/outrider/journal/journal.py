"""The journal: every step is on disk before its effects touch the world.

One line a step: the CRC-32 of the rest in eight hex digits, a blank, JSON. The last good line is the whole truth about
where this sidekick is (state, memory, open requests); the lines before it are its story. A line that was torn by a
crash or a full disk was never acted upon, so it is dropped on opening.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from loguru import logger

from outrider.core.blame import seen_in
from outrider.core.errors import OutriderError
from outrider.failpoints import failpoint
from outrider.files import clear_file, is_file, make_folder, open_file, set_aside, sync_folder
from outrider.journal.reserve import NAME as RESERVE
from outrider.journal.reserve import make as make_reserve
from outrider.journal.reserve import spend as spend_reserve

SCHEMA = 1
ROTATE_BYTES = 4 * 1024 * 1024
"""One older file is kept beside the current one: some thousand steps, weeks of an ordinary instance's life."""
BLOCK_BYTES = 64 * 1024
"""How much of a journal is read at once, from its end."""


class JournalError(OutriderError):
    """The journal can't be read or written."""

    kind = "journal"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it is kept.

    Attributes:
        number: Counts up by one; never restarts.
        event: The event's fields and its ``name``.
        effects: Name, request number and fields of each effect of the step.
        machine: The machine's snapshot after the step.
        memory: The memory after the step.
        seen: The highest revision of etcd that was seen or written before the step; 0: an older outrider wrote it.
    """

    schema: int = SCHEMA
    number: int
    at: datetime
    event: dict[str, Any]
    source: str
    target: str
    refused: tuple[str, ...] = ()
    effects: tuple[dict[str, Any], ...] = ()
    machine: dict[str, Any]
    memory: dict[str, Any]
    seen: int = 0


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Record)


def _line(record: Record) -> bytes:
    body = _ENCODER.encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> Record | None:
    crc, _, body = line.partition(b" ")
    if len(crc) != 8 or not body or b"%08x" % zlib.crc32(body) != crc:
        return None
    try:
        return _DECODER.decode(body)
    except msgspec.DecodeError:
        return None


def read(path: Path) -> list[Record]:
    """Read all records of one journal file, oldest first; a torn last line is left out.

    Raises:
        JournalError: the file can't be read, or a line in its middle is damaged (named by number).
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    records = []
    complete, _rest = lines[:-1], lines[-1]
    for number, line in enumerate(complete, start=1):
        record = _parse(line)
        if record is None:
            if number == len(complete):
                break
            raise JournalError(f"{path}:{number}: damaged line; move the file away to start without it")
        records.append(record)
    return records


def read_backwards(path: Path) -> Iterator[Record]:
    """The same records, the newest first, without having more than one of them in memory.

    A journal may have megabytes, and its records as objects take ten times that. What is written after the first step
    isn't read, and a journal that is rotated meanwhile is read on.

    Raises:
        JournalError: as ``read``, without the number of the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines_backwards(file)):
                record = _parse(line) if number else None  # what stands behind the last newline was torn
                if record is not None:
                    yield record
                elif number > 1:
                    raise JournalError(f"{path}: damaged line; move the file away to start without it")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error


def _lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """From the end to the beginning; the first one is what stands behind the last newline, mostly nothing."""
    at, rest = file.seek(0, os.SEEK_END), b""
    while at:
        size = min(BLOCK_BYTES, at)
        at = file.seek(at - size)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest


def _last_good(data: bytes) -> tuple[int, Record | None]:
    """The last good record, and where it ends; 0 and None without one.

    A line without its end was torn. One that has its end and is damaged wasn't synced: nobody acted on it. So it may be
    the last; what stands before it may be damaged only where a disk has lost what it had kept.
    """
    end = data.rfind(b"\n") + 1
    for _ in range(2):
        begin = data.rfind(b"\n", 0, max(0, end - 1)) + 1
        last = _parse(data[begin : end - 1]) if end else None
        if last is not None:
            return end, last
        end = begin
    return 0, None


class Journal:
    """Appends steps durably. One process at a time: the file is locked while it is open."""

    def __init__(self, folder: Path, *, reserve_bytes: int = 0) -> None:
        """Open or create ``folder/journal.jsonl`` and find the last good record.

        What stands there and isn't a journal (empty, zeros, another program's file, a folder, a link) is set aside
        with one line, and a new journal begins.

        Args:
            reserve_bytes: Room that is kept for the journal and the outbox; see ``reserve``.

        Raises:
            JournalError: no permission, another sidekick holds it, or it was written by another outrider.
        """
        self.path = folder / "journal.jsonl"
        self._reserve_bytes = reserve_bytes
        self.lost = ""
        """Why nothing is known of an earlier life that there was; empty when the journal is whole, or the first."""
        try:
            make_folder(folder)
            if os.path.lexists(self.path) and not is_file(self.path):
                self._lose("is not a file", self.path)
            self._fd = open_file(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        _lock(self._fd, self.path)
        try:
            self.last, self._size = self._recover()
            self._keep_reserve()
        except OSError as error:
            self.close()
            raise JournalError(f"{self.path}: {error.strerror}") from error
        except JournalError:
            self.close()
            raise

    def _recover(self) -> tuple[Record | None, int]:
        data = self._content()
        end, last = _last_good(data)
        if last is None and data:
            self.close()
            self._lose("holds no record of a sidekick" if data.strip(b"\0") else "holds nothing but zeros", self.path)
            self._fd = open_file(self.path, os.O_RDWR | os.O_CREAT)
            _lock(self._fd, self.path)
            end = 0
        elif last is None and self._was_used():
            self.lost = f"{self.path}: is empty"
            logger.bind(path=str(self.path), what="is empty").error("journal is empty: what runs is looked for")
        if last is not None and last.schema != SCHEMA:
            raise JournalError(f"{self.path}: schema {last.schema}, this outrider reads {SCHEMA}")
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)
        return last, end

    def _content(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        with open(self._fd, "rb", closefd=False) as file:
            return file.read()

    def _was_used(self) -> bool:
        """Whether this instance has run before: it left something beside its journal."""
        return any((self.path.parent / name).exists() for name in ("workloads", "journal.1.jsonl"))

    def _lose(self, what: str, path: Path) -> None:
        """Nothing of it was acted upon that could be known from it: keep it for a person, and go on without it."""
        aside = set_aside(path)
        self.lost = f"{path}: {what}"
        logger.bind(path=str(path), what=what, aside=str(aside)).error("journal set aside: what runs is looked for")

    def _keep_reserve(self) -> None:
        if self._reserve_bytes and not make_reserve(self.path.parent, self._reserve_bytes):
            logger.bind(path=str(self.path.parent)).warning("disk nearly full: no room for the reserve")

    def append(self, record: Record) -> None:
        """Write one record and return when it is on disk. On a full disk the reserve gives the room.

        Raises:
            JournalError: the disk is full or broken; nothing of the record is left in the file.
        """
        line = _line(record)
        try:
            self._write(line)
        except OSError as error:
            try:
                if not self._make_room(error):
                    raise
                self._write(line)
            except OSError as again:
                raise JournalError(f"{self.path}: {again.strerror}") from again
        self._size += len(line)
        self.last = record
        if self._size > ROTATE_BYTES:
            # the record is on disk: a full one puts this off to the next
            with contextlib.suppress(OSError), failpoint("journal.rotate"):
                self._rotate(line)
        if self._reserve_bytes and not is_file(self.path.parent / RESERVE):
            make_reserve(self.path.parent, self._reserve_bytes)

    def _make_room(self, error: OSError) -> bool:
        """The reserve first; then the older journal, which only people read."""
        if spend_reserve(self.path.parent, error):
            return True
        older = self.path.with_suffix(".1.jsonl")
        if seen_in(error.errno) != "disk-full" or not is_file(older):
            return False
        with contextlib.suppress(OSError):
            older.unlink()
            logger.bind(path=str(older)).error("disk full: the older journal was removed to make room")
            return True
        return False

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            with failpoint("journal.write"):
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            with failpoint("journal.sync"):
                os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise

    def _rotate(self, line: bytes) -> None:
        """Begin a new file with the last record; the rename decides, so a crash leaves either the old or the new."""
        fresh = self.path.with_suffix(".new")
        clear_file(fresh)
        fd = open_file(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
            os.fsync(fd)
            _lock(fd, fresh)
            older = self.path.with_suffix(".1.jsonl")
            clear_file(older)
            os.link(self.path, older)
            fresh.replace(self.path)
        except OSError:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, len(line)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(fd: int, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise JournalError(f"{path}: another sidekick runs with this state_dir") from None
