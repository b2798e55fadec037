"""The journal: every step is on disk before its effects touch the world.

One line a step: the CRC-32 of the rest in eight hex digits, a blank, JSON. The last good line is the whole truth about
where this sidekick is (state, memory, open requests); the lines before it are its story. A line that was torn by a
crash or a full disk was never acted upon, so it is dropped on opening.
"""

import contextlib
import os
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from outrider.core.errors import OutriderError
from outrider.failpoints import failpoint

SCHEMA = 1
ROTATE_BYTES = 4 * 1024 * 1024
"""One older file is kept beside the current one: some thousand steps, weeks of an ordinary instance's life."""


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


class Journal:
    """Appends steps durably. One process at a time: the file is locked while it is open."""

    def __init__(self, folder: Path) -> None:
        """Open or create ``folder/journal.jsonl`` and find the last good record.

        Raises:
            JournalError: no permission, another sidekick holds it, or only damaged records are left.
        """
        self.path = folder / "journal.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        _lock(self._fd, self.path)
        self.last, self._size = self._recover()

    def _recover(self) -> tuple[Record | None, int]:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        begin = data.rfind(b"\n", 0, max(0, end - 1)) + 1
        last = _parse(data[begin : end - 1]) if end else None
        if end and last is None:  # complete by its newline, yet damaged: its sync never returned, so nobody acted on it
            end = begin
            begin = data.rfind(b"\n", 0, max(0, end - 1)) + 1
            last = _parse(data[begin : end - 1]) if end else None
            if last is None and end:
                raise JournalError(
                    f"{self.path}: the last two records are damaged; look at the disk, then move it away"
                )
        if last is not None and last.schema != SCHEMA:
            raise JournalError(f"{self.path}: schema {last.schema}, this outrider reads {SCHEMA}")
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)
        return last, end

    def append(self, record: Record) -> None:
        """Write one record and return when it is on disk.

        Raises:
            JournalError: the disk is full or broken; nothing of the record is left in the file.
        """
        line = _line(record)
        try:
            written = 0
            with failpoint("journal.write"):
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            with failpoint("journal.sync"):
                os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size += len(line)
        self.last = record
        if self._size > ROTATE_BYTES:
            # the record is on disk: a full one puts this off to the next
            with contextlib.suppress(OSError), failpoint("journal.rotate"):
                self._rotate(line)

    def _rotate(self, line: bytes) -> None:
        """Begin a new file with the last record; the rename decides, so a crash leaves either the old or the new."""
        fresh = self.path.with_suffix(".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
            os.fsync(fd)
            _lock(fd, fresh)
            older = self.path.with_suffix(".1.jsonl")
            older.unlink(missing_ok=True)
            os.link(self.path, older)
            fresh.replace(self.path)
        except OSError:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, len(line)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def _lock(fd: int, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise JournalError(f"{path}: another sidekick runs with this state_dir") from None
