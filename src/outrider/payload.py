"""Payloads on disk: downloads that resume, then the proof that what arrived is what was announced.

``<sha256>.part`` grows while downloading, ``<sha256>.etag`` says which server's version it is part of, and
``<sha256>.payload`` exists only once size and digest were checked and the file was fsynced. The digest decides what is
right; ETags only save a download that would fail in the end.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar

import requests
import urllib3

from outrider.config import DownloadSettings
from outrider.core.errors import DriverError, Refused
from outrider.edges import carried, crossing

Progress = Callable[[int, int], None]
"""Called with (bytes on disk, bytes in all)."""

_PROGRESS_EVERY_S = 0.5
_CHUNK_BYTES = 64 * 1024


_NETWORK_TROUBLE = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


class PayloadError(DriverError):
    """A payload that isn't there. ``error_code`` is what the update service is told (omaha.md, ActionExitCode)."""

    kind = "payload"
    error_code: ClassVar[int] = 1


class TransferFailed(PayloadError):
    """No server gave all of it; what came is kept and resumed."""

    error_code = 9


class Cancelled(TransferFailed):
    """``cancel`` was called; what came is kept and resumed."""


class HashMismatch(PayloadError, Refused):
    """The right number of other bytes; they are deleted."""

    error_code = 10


class SizeMismatch(PayloadError, Refused):
    """Longer or shorter than announced, or longer than this machine takes; nothing of it is kept."""

    error_code = 11


class WriteFailed(PayloadError):
    """This machine can't store it."""

    error_code = 14


class PayloadStore:
    """The payloads in one folder. One download runs at a time; any thread may cancel it."""

    def __init__(self, folder: Path, settings: DownloadSettings, *, verify: bool | str = True) -> None:
        """Keep payloads in ``folder``, which is made when it is needed.

        ``verify`` is what proves a TLS server: the machine's authorities, a PEM file of others, or nothing (False).
        """
        self._folder, self._settings, self._verify = folder, settings, verify
        self._lock = threading.Lock()
        self._transfer: _Transfer | None = None

    def fetch(
        self, version: str, urls: Sequence[str], size_bytes: int, sha256: str, on_progress: Progress | None = None
    ) -> Path:
        """``download`` and ``verify`` in one; bytes that prove wrong are fetched once more from every url, from zero.

        Raises:
            PayloadError: as ``download`` and ``verify``.
        """
        resumed = self._part(sha256).exists()
        path = self.download(version, urls, size_bytes, sha256, on_progress)
        try:
            return self.verify(path, size_bytes, sha256)
        except HashMismatch as error:
            wrong = error
        # The wrong bytes may be another server's, or from before: the first url has had its chance only if it
        # delivered all of them.
        for url in urls if resumed else urls[1:]:
            try:
                path = self.download(version, (url,), size_bytes, sha256, on_progress)
                return self.verify(path, size_bytes, sha256)
            except (HashMismatch, SizeMismatch):
                continue
        raise wrong

    def download(
        self, version: str, urls: Sequence[str], size_bytes: int, sha256: str, on_progress: Progress | None = None
    ) -> Path:
        """All ``size_bytes`` of the payload on disk, not yet proved; at once when they are there already.

        Args:
            version: For error lines.
            urls: Tried in turn, each once. Proxies are taken from the environment as usual.
            sha256: 64 lower-case hex digits.
            on_progress: Called from another thread, at most every half second, and at the end.

        Returns:
            The path to hand to ``verify``.

        Raises:
            TransferFailed: no url delivered, or ``download.deadline_s`` is over. ``Cancelled`` after ``cancel``.
            SizeMismatch: more than ``download.max_bytes``, or the last server has something longer or shorter.
            WriteFailed: disk full or not writable.
        """
        if self._final(sha256).exists():
            return self._final(sha256)
        if size_bytes > self._settings.max_bytes:
            raise SizeMismatch(f"{version}: {size_bytes} bytes; download.max_bytes is {self._settings.max_bytes}")
        transfer = _Transfer(version, tuple(urls), size_bytes, self._part(sha256), self._settings, on_progress)
        transfer.verify = self._verify
        with self._lock:
            assert self._transfer is None, "one download at a time"
            self._transfer = transfer
        try:
            transfer.run()
        finally:
            with self._lock:
                self._transfer = None
        return self._part(sha256)

    def verify(self, path: Path, size_bytes: int, sha256: str) -> Path:
        """The payload under its final name, once its size and SHA-256 are what they should be and it is fsynced.

        Raises:
            SizeMismatch, HashMismatch: the file is deleted.
            WriteFailed: it can't be read, synced or renamed.
        """
        try:
            with path.open("rb") as file:
                found_bytes = os.fstat(file.fileno()).st_size
                found = hashlib.file_digest(file, "sha256").hexdigest() if found_bytes == size_bytes else ""
                with crossing("payload.sync"):
                    os.fsync(file.fileno())
            if found != sha256:
                with crossing("payload.prune"):
                    path.unlink()
                    self._part(sha256).with_suffix(".etag").unlink(missing_ok=True)
                if found_bytes != size_bytes:
                    raise SizeMismatch(f"{path.name}: {found_bytes} bytes instead of {size_bytes}")
                raise HashMismatch(f"{path.name}: SHA-256 is {found} instead of {sha256}")
            final = self._final(sha256)
            with crossing("payload.rename"):
                path.rename(final)
                self._part(sha256).with_suffix(".etag").unlink(missing_ok=True)
                _sync_folder(self._folder)
        except OSError as error:
            raise WriteFailed(f"{path}: can't verify: {error.strerror or error}") from error
        return final

    def cancel(self) -> None:
        """End the running download, if any, with ``Cancelled``; nothing is written after this returns."""
        with self._lock:
            transfer = self._transfer
        if transfer is not None:
            transfer.end(Cancelled(f"{transfer.version}: download cancelled"))

    def find(self, sha256: str) -> Path | None:
        """The verified payload, None when it isn't here."""
        path = self._final(sha256)
        return path if path.exists() else None

    def discard(self, sha256: str) -> None:
        """Delete the payload and what was downloaded of it."""
        for path in (self._final(sha256), self._part(sha256), self._part(sha256).with_suffix(".etag")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def prune(self, needed: Collection[str]) -> None:
        """Delete all but the newest ``download.keep_versions`` payloads; those of ``needed`` (SHA-256s) stay anyhow.

        Of what was begun and never finished only the newest stays, for a download that goes on where it was cut off.
        What can't be deleted stays: it is tried again the next time.
        """
        spare = max(0, self._settings.keep_versions - len(set(needed)))
        payloads = [path for path in self._newest_first("*.payload") if path.stem not in needed]
        parts = self._newest_first("*.part")
        kept = {path.stem for path in parts[:1]}
        etags = [path for path in self._newest_first("*.etag") if path.stem not in kept]
        for path in (*payloads[spare:], *parts[1:], *etags):
            with contextlib.suppress(OSError), crossing("payload.prune"):
                path.unlink()

    def _newest_first(self, pattern: str) -> list[Path]:
        found: list[tuple[float, Path]] = []
        for path in self._folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _part(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 {sha256!r}")
        return self._folder / f"{sha256}.part"

    def _final(self, sha256: str) -> Path:
        return self._part(sha256).with_suffix(".payload")


class _Transfer:
    """One download.

    The requests run on a thread that is left behind when time is up: neither a resolver nor a connect can be
    interrupted. The lock makes sure that it writes nothing any more from then on; it ends at its next answer.
    """

    def __init__(
        self,
        version: str,
        urls: Sequence[str],
        size_bytes: int,
        part: Path,
        settings: DownloadSettings,
        on_progress: Progress | None,
    ) -> None:
        self.version = version
        self._urls, self._size_bytes, self._part, self._settings = urls, size_bytes, part, settings
        self._etag = part.with_suffix(".etag")
        self._on_progress = on_progress
        self.verify: bool | str = True
        self._progress_due = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._outcome: BaseException | None = None

    def run(self) -> None:
        """Return when all bytes are there, else raise."""
        threading.Thread(target=carried(self._work), name="download", daemon=True).start()
        limit_s = self._settings.deadline_s
        try:
            if not self._over.wait(limit_s):
                got = f"{self._have()} of {self._size_bytes} bytes"
                self.end(TransferFailed(f"{self.version}: {got} after {limit_s:g} s (download.deadline_s)"))
        except BaseException as interruption:
            self.end(interruption)
            raise
        if self._outcome is not None:
            raise self._outcome

    def end(self, outcome: BaseException | None) -> None:
        """Set the outcome, unless there is one; nothing is written once this has returned."""
        with self._lock:
            if not self._over.is_set():
                self._outcome = outcome
                self._over.set()

    def _work(self) -> None:
        outcome: BaseException | None = TransferFailed(f"{self.version}: no url to download from")
        try:
            for url in self._urls:
                outcome = self._try(url)
                if outcome is None or isinstance(outcome, WriteFailed) or self._over.is_set():
                    break
        except BaseException as bug:  # noqa: BLE001 - it belongs to the thread that waits in run()
            outcome = bug
        self.end(outcome)

    def _try(self, url: str) -> PayloadError | None:
        """What went wrong with this url; None when all bytes are there."""
        try:
            self._from(url, resume=True)
        except PayloadError as error:
            return error
        except (*_NETWORK_TROUBLE, ValueError) as error:
            failed = TransferFailed(f"{self.version}: {url}: {_plain(error)}")
            failed.__cause__ = error
            return failed
        except OSError as error:
            return _write_failed(self._part, error)
        return None

    def _from(self, url: str, *, resume: bool) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        have = self._have() if resume else 0
        if have == self._size_bytes:
            return
        if have > self._size_bytes:
            have = 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "outrider"}
        if have:
            headers["Range"] = f"bytes={have}-"
            etag = self._known_etag(url)
            if etag:
                headers["If-Range"] = etag
        with crossing("payload.fetch"):
            asked = requests.get(
                url, headers=headers, stream=True, timeout=self._settings.timeout_s, verify=self.verify
            )
        with asked as response:
            if response.status_code == 416 and have:
                start = None
            elif response.status_code == 206 and have:
                start = _range_start(response.headers.get("Content-Range", ""))
            elif response.status_code == 200:
                start = 0
            else:
                reason = f"{response.status_code} {response.reason or ''}".strip()
                raise TransferFailed(f"{self.version}: {url}: {reason}")
            if start in (0, have):
                self._receive(url, response, start)
                return
        # It doesn't have the rest of what we have (416), or answered another range than we asked for.
        self._from(url, resume=False)

    def _receive(self, url: str, response: requests.Response, start: int) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != self._size_bytes:
            raise SizeMismatch(f"{self.version}: {url}: has {start + int(length)} bytes instead of {self._size_bytes}")
        have = start
        # Unbuffered, so that closing the file after cancel has nothing left to write.
        with self._open(url, response.headers.get("ETag", ""), start) as file:
            # Undecoded: a server that labels a tar.gz as an encoding must not make us unpack it.
            while chunk := response.raw.read(min(_CHUNK_BYTES, self._size_bytes - have + 1), decode_content=False):
                have += len(chunk)
                if have > self._size_bytes:
                    self._keep(file, None)
                    raise SizeMismatch(f"{self.version}: {url}: has more than {self._size_bytes} bytes")
                self._keep(file, chunk)
                self._tell(have)
        if have < self._size_bytes:
            raise TransferFailed(f"{self.version}: {url}: ended after {have} of {self._size_bytes} bytes")
        self._tell(have, always=True)

    def _open(self, url: str, etag: str, start: int) -> io.FileIO:
        with self._lock:
            self._check_going_on()
            # A weak one must not be used with If-Range (RFC 9110, 13.1.5).
            strong = etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else ""
            self._etag.write_text(f"{url}\n{strong}")
            self._part.touch()
            file = self._part.open("r+b", buffering=0)
            file.truncate(start)
            file.seek(start)
            return file

    def _keep(self, file: io.FileIO, chunk: bytes | None) -> None:
        """Write the chunk, or drop what is there already when there is None."""
        with self._lock:
            self._check_going_on()
            with crossing("payload.keep"):
                if chunk is None:
                    file.truncate(0)
                view = memoryview(chunk or b"")
                while view:
                    view = view[file.write(view) :]

    def _check_going_on(self) -> None:
        if self._over.is_set():
            raise Cancelled(f"{self.version}: download cancelled")

    def _tell(self, have: int, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (always or now >= self._progress_due):
            self._progress_due = now + _PROGRESS_EVERY_S
            with self._lock:
                if not self._over.is_set():
                    self._on_progress(have, self._size_bytes)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _known_etag(self, url: str) -> str:
        """The strong ETag under which this very url gave the first part."""
        noted = self._etag.read_text().split("\n") if self._etag.exists() else []
        return noted[1] if len(noted) == 2 and noted[0] == url else ""


def _range_start(content_range: str) -> int | None:
    matched = re.match(r"bytes (\d+)-", content_range)
    return int(matched[1]) if matched else None


def _write_failed(path: Path, error: OSError) -> WriteFailed:
    reason = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    failed = WriteFailed(f"{path.parent}: {reason}")
    failed.__cause__ = error
    return failed


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(error: Exception) -> str:
    """A few words for what requests says in many."""
    text = str(error)
    for phrase in ("Connection refused", "Connection reset", "Name or service not known", "No route to host"):
        if phrase in text:
            return phrase.lower()
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if "IncompleteRead" in text or "RemoteDisconnected" in text:
        return "connection closed before the end"
    return text
