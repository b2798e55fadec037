"""Payloads on disk: downloads that resume, then the proof that what arrived is what was announced.

``<sha256>.part`` grows while downloading, ``<sha256>.etag`` says which server's version it is part of, and
``<sha256>.payload`` exists only once size and digest were checked and the file was fsynced. The digest decides what is
right; ETags only save a download that would fail in the end.
"""

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from outrider.config.sections import DownloadSettings
from outrider.core.blame import seen_in
from outrider.failpoints import failpoint
from outrider.files import clear_file, is_file, open_file, sync_folder
from outrider.payloads.transfer import Cancelled, HashMismatch, Progress, SizeMismatch, Transfer, WriteFailed


class PayloadStore:
    """The payloads in one folder. One download runs at a time; any thread may cancel it."""

    def __init__(
        self,
        folder: Path,
        settings: DownloadSettings,
        *,
        verify: bool | str = True,
        certificate: str | None = None,
        reserve_bytes: int = 0,
    ) -> None:
        """Keep payloads in ``folder``, which is made when it is needed.

        ``reserve_bytes`` of its disk stay free, whatever is downloaded.
        ``verify`` is what proves a TLS server: the machine's authorities, a PEM file of others, or nothing (False).
        ``certificate`` is the PEM file of our own certificate and key, for a server that asks for one.
        """
        self._certificate = certificate
        self._folder, self._settings, self._verify, self._reserve_bytes = folder, settings, verify, reserve_bytes
        self._lock = threading.Lock()
        self._transfer: Transfer | None = None

    def fetch(
        self, version: str, urls: Sequence[str], size_bytes: int, sha256: str, on_progress: Progress | None = None
    ) -> Path:
        """``download`` and ``verify`` in one; bytes that prove wrong are fetched once more from every url, from zero.

        Raises:
            PayloadError: as ``download`` and ``verify``.
        """
        resumed = is_file(self._part(sha256))
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
            WriteFailed: not writable, or there is no room for all of it beside the reserve: nothing is written then.
        """
        if (found := self.find(sha256)) is not None:
            return found
        if size_bytes > self._settings.max_bytes:
            raise SizeMismatch(f"{version}: {size_bytes} bytes; download.max_bytes is {self._settings.max_bytes}")
        transfer = Transfer(version, tuple(urls), size_bytes, self._part(sha256), self._settings, on_progress)
        transfer.verify, transfer.reserve_bytes = self._verify, self._reserve_bytes
        transfer.certificate = self._certificate
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
            with open(open_file(path, os.O_RDONLY), "rb") as file:
                found_bytes = os.fstat(file.fileno()).st_size
                found = hashlib.file_digest(file, "sha256").hexdigest() if found_bytes == size_bytes else ""
                with failpoint("payload.sync"):
                    os.fsync(file.fileno())
            if found != sha256:
                with failpoint("payload.prune"):
                    path.unlink()
                    self._part(sha256).with_suffix(".etag").unlink(missing_ok=True)
                if found_bytes != size_bytes:
                    raise SizeMismatch(f"{path.name}: {found_bytes} bytes instead of {size_bytes}")
                raise HashMismatch(f"{path.name}: SHA-256 is {found} instead of {sha256}")
            final = self._final(sha256)
            with failpoint("payload.rename"):
                clear_file(final, keep=True)
                path.rename(final)
                self._part(sha256).with_suffix(".etag").unlink(missing_ok=True)
                sync_folder(self._folder)
        except OSError as error:
            raise WriteFailed(
                f"{path}: can't verify: {error.strerror or error}", evidence=seen_in(error.errno)
            ) from error
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
        return path if is_file(path) else None

    def prune(self, needed: Collection[str]) -> None:
        """Delete all but the newest ``download.keep_versions`` payloads; those of ``needed`` (SHA-256s) stay
        regardless.

        Of what was begun and never finished only the newest stays, for a download that goes on where it was cut off.
        What can't be deleted stays: it is tried again the next time.
        """
        spare = max(0, self._settings.keep_versions - len(set(needed)))
        payloads = [path for path in self._newest_first("*.payload") if path.stem not in needed]
        parts = self._newest_first("*.part")
        kept = {path.stem for path in parts[:1]}
        etags = [path for path in self._newest_first("*.etag") if path.stem not in kept]
        for path in (*payloads[spare:], *parts[1:], *etags):
            with contextlib.suppress(OSError), failpoint("payload.prune"):
                path.unlink()

    def _newest_first(self, pattern: str) -> list[Path]:
        found: list[tuple[float, Path]] = []
        for path in self._folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.lstat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _part(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 {sha256!r}")
        return self._folder / f"{sha256}.part"

    def _final(self, sha256: str) -> Path:
        return self._part(sha256).with_suffix(".payload")
