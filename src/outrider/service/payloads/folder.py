"""Payload files that the service stores: addressed by their content, written once, never changed.

A file arrives under a temporary name, is synced to disk and only then renamed to its digest. So a file with a digest's
name has that content, even after a crash. Several service processes may share one folder.
"""

import base64
import errno
import hashlib
import os
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from outrider.core.errors import ConfigError, DriverError, NotFound, Refused
from outrider.service.store.packages import Payload

CHUNK_BYTES = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
STALE_S = 24 * 3600.0
"""No upload takes longer than a day; an older temporary file is left over from a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A payload on this service's disk. ``sha1`` is base64, ``sha256`` 64 hex digits."""

    sha256: str
    sha1: str
    size_bytes: int
    path: Path


class Upload:
    """A file during its upload: ``write`` its bytes, then ``finish``; without ``finish``, the block removes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "incoming" / f"{uuid.uuid4().hex}.part"
        self._sha1, self._sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
        self._size_bytes = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Upload":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        except OSError as error:
            raise _disk_error(self._path, error) from error
        return self

    def write(self, chunk: bytes) -> None:
        """Write the next bytes.

        Raises:
            DriverError: the disk is full or broken.
        """
        assert self._file is not None
        self._sha1.update(chunk)
        self._sha256.update(chunk)
        self._size_bytes += len(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _disk_error(self._path, error) from error

    def finish(self) -> StoredFile:
        """Sync the file and give it its final name.

        Raises:
            ConfigError: the file is empty.
            DriverError: the disk is full or broken.
        """
        assert self._file is not None
        if not self._size_bytes:
            raise ConfigError("the payload is empty and could not be installed; upload a file with content")
        sha256 = self._sha256.hexdigest()
        path = _path_of(self._folder, sha256)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(path)
            for folder in (path.parent, path.parent.parent):
                _sync_folder(folder)
        except OSError as error:
            raise _disk_error(self._path, error) from error
        sha1 = base64.b64encode(self._sha1.digest()).decode("ascii")
        return StoredFile(sha256=sha256, sha1=sha1, size_bytes=self._size_bytes, path=path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadFolder:
    """The payload files below one folder."""

    folder: Path

    def prepare(self) -> None:
        """Create the folder and remove the remains of uploads older than a day.

        Raises:
            ConfigError: it cannot be created or written.
        """
        incoming = self.folder / "incoming"
        try:
            incoming.mkdir(parents=True, exist_ok=True)
            for leftover in incoming.glob("*.part"):
                if time.time() - leftover.stat().st_mtime > STALE_S:
                    leftover.unlink(missing_ok=True)
            probe = incoming / f"{uuid.uuid4().hex}.part"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"payload folder {self.folder}: {error.strerror}; name a writable folder (--payload-dir)"
            ) from error

    def receive(self) -> Upload:
        """Begin an upload."""
        return Upload(self.folder)

    def find(self, sha256: str) -> Path | None:
        """The path of the file with that digest (64 hex digits); None when it is not stored here."""
        path = _path_of(self.folder, sha256)
        return path if path.is_file() else None

    def sha1_of(self, sha256: str) -> str:
        """SHA-1 of the file with that digest, in base64; empty when it is not stored here, or damaged."""
        try:
            return self.describe(sha256, "").sha1
        except (NotFound, Refused):
            return ""

    def store(self, content: bytes) -> StoredFile:
        """Store a small file from memory.

        Raises:
            DriverError: the disk is full or broken.
        """
        with self.receive() as arriving:
            arriving.write(content)
            return arriving.finish()

    def describe(self, sha256: str, name: str) -> Payload:
        """Read a stored file again and describe it, with the digests of the bytes on this disk.

        Raises:
            NotFound: it is not stored here.
            Refused: its content does not match its name.
        """
        path = self.find(sha256)
        if path is None:
            raise NotFound(f"no stored payload {sha256}; upload the file first")
        sha1, proof, size_bytes = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                sha1.update(chunk)
                proof.update(chunk)
                size_bytes += len(chunk)
        if proof.hexdigest() != sha256:
            raise Refused(
                f"stored payload {sha256}: damaged, its SHA-256 is {proof.hexdigest()}; upload the file again"
            )
        return Payload(
            size_bytes=size_bytes, sha256=sha256, sha1=base64.b64encode(sha1.digest()).decode("ascii"), name=name
        )


def _path_of(folder: Path, sha256: str) -> Path:
    assert _DIGEST.fullmatch(sha256), "a digest is checked where it comes in"
    return folder / "sha256" / sha256[:2] / sha256


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(path: Path, error: OSError) -> DriverError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DriverError(f"{path.parent}: no space left for the payload; free some space and upload it again")
    return DriverError(f"{path.parent}: {error.strerror or error}")
