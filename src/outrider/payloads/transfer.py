"""One payload's way from a server to ``<sha256>.part``: several addresses, resumed, with one deadline for all."""

import contextlib
import errno
import io
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import requests
import urllib3

from outrider.config.sections import DownloadSettings
from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.omaha import FailureCode
from outrider.failpoints import failpoint, with_current_effect
from outrider.files import (
    clear_file,
    free_bytes,
    is_file,
    make_folder,
    open_file,
    read_file,
    wanted_bytes,
)

Progress = Callable[[int, int], None]
"""Called with (bytes on disk, bytes in all)."""

_PROGRESS_EVERY_S = 0.5
_CHUNK_BYTES = 64 * 1024
_ROOM_EVERY_BYTES = 1024**2
"""How often it is looked whether others have taken the room meanwhile."""


_NETWORK_TROUBLE = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


class PayloadError(DriverError):
    """A payload that isn't there. ``error_code`` is what the update service is told (omaha.md, ActionExitCode)."""

    kind = "payload"
    # no verdict on the release, also where it is a Refused: another server, or another try, may have the right bytes
    evidence: Evidence = "unknown"
    error_code: ClassVar[FailureCode] = FailureCode.ERROR


class TransferFailed(PayloadError):
    """No server gave all of it; what came is kept and resumed."""

    evidence: Evidence = "network"
    error_code = FailureCode.TRANSFER


class Cancelled(TransferFailed):
    """``cancel`` was called; what came is kept and resumed."""


class HashMismatch(PayloadError, Refused):
    """The right number of other bytes; they are deleted."""

    error_code = FailureCode.HASH_MISMATCH


class SizeMismatch(PayloadError, Refused):
    """Longer or shorter than announced, or longer than this machine takes; nothing of it is kept."""

    error_code = FailureCode.SIZE_MISMATCH


class WriteFailed(PayloadError):
    """This machine can't store it."""

    error_code = FailureCode.WRITE


class Transfer:
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
        self.certificate: str | None = None
        self.reserve_bytes = 0
        self._room_due = 0
        self._progress_due = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._outcome: BaseException | None = None

    def run(self) -> None:
        """Return when all bytes are there, else raise."""
        threading.Thread(target=with_current_effect(self._work), name="download", daemon=True).start()
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
            failed = TransferFailed(f"{self.version}: {url}: {_plain(error)}{through_proxy(url)}")
            failed.__cause__ = error
            return failed
        except OSError as error:
            self._give_room(error)
            return _write_failed(self._part, error)
        return None

    def _give_room(self, error: OSError) -> None:
        """On a full disk what was just written goes: everybody else on this machine needs the room more."""
        if seen_in(error.errno) == "disk-full":
            with self._lock, contextlib.suppress(OSError):
                for path in (self._part, self._etag):
                    if is_file(path):
                        path.unlink()

    def _check_room(self, missing_bytes: int) -> None:
        """See that so much can be written and the reserve stays.

        Raises:
            OSError: ``ENOSPC``.
        """
        free = free_bytes(self._part.parent)
        reserve = wanted_bytes(self._part.parent, self.reserve_bytes)
        if free < missing_bytes + reserve:
            raise OSError(
                errno.ENOSPC,
                f"no room for {self.version}: {missing_bytes} bytes to come, {free} free, {reserve} of them reserved",
            )

    def _from(self, url: str, *, resume: bool) -> None:
        make_folder(self._part.parent)
        for path in (self._part, self._etag):
            clear_file(path, keep=True)
        have = self._have() if resume else 0
        if have == self._size_bytes:
            return
        if have > self._size_bytes:
            have = 0
        self._check_room(self._size_bytes - self._have())
        headers = {"Accept-Encoding": "identity", "User-Agent": "outrider"}
        if have:
            headers["Range"] = f"bytes={have}-"
            etag = self._known_etag(url)
            if etag:
                headers["If-Range"] = etag
        with failpoint("payload.fetch"):
            asked = requests.get(
                url,
                headers=headers,
                stream=True,
                timeout=self._settings.timeout_s,
                verify=self.verify,
                cert=self.certificate,
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
                raise TransferFailed(f"{self.version}: {url}: {reason}{through_proxy(url)}")
            if start in (0, have):
                self._receive(url, response, start)
                return
        # It doesn't have the rest of what we have (416), or answered another range than we asked for.
        self._from(url, resume=False)

    def _receive(self, url: str, response: requests.Response, start: int) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != self._size_bytes:
            raise SizeMismatch(
                f"{self.version}: {url}: has {start + int(length)} bytes instead of {self._size_bytes}"
                f"{encoded(response)}{through_proxy(url)}"
            )
        have = start
        # Unbuffered, so that closing the file after cancel has nothing left to write.
        with self._open(url, response.headers.get("ETag", ""), start) as file:
            # Undecoded: a server that labels a tar.gz as an encoding must not make us unpack it.
            while chunk := response.raw.read(min(_CHUNK_BYTES, self._size_bytes - have + 1), decode_content=False):
                have += len(chunk)
                if have > self._size_bytes:
                    self._keep(file, None)
                    raise SizeMismatch(
                        f"{self.version}: {url}: has more than {self._size_bytes} bytes{encoded(response)}"
                    )
                if have >= self._room_due:
                    self._room_due = have + _ROOM_EVERY_BYTES
                    self._check_room(len(chunk))
                self._keep(file, chunk)
                self._tell(have)
        if have < self._size_bytes and (why := encoded(response)):
            with self._open(url, "", 0):
                pass  # what came is no part of the payload
            raise SizeMismatch(f"{self.version}: {url}: has {have} bytes instead of {self._size_bytes}{why}")
        if have < self._size_bytes:
            raise TransferFailed(f"{self.version}: {url}: ended after {have} of {self._size_bytes} bytes")
        self._tell(have, always=True)

    def _open(self, url: str, etag: str, start: int) -> io.FileIO:
        with self._lock:
            self._check_going_on()
            # A weak one must not be used with If-Range (RFC 9110, 13.1.5).
            strong = etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else ""
            with open(open_file(self._etag, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as noted:
                noted.write(f"{url}\n{strong}")
            file = open(open_file(self._part, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)  # noqa: SIM115 - returned
            file.truncate(start)
            file.seek(start)
            return file

    def _keep(self, file: io.FileIO, chunk: bytes | None) -> None:
        """Write the chunk, or drop what is there already when there is None."""
        with self._lock:
            self._check_going_on()
            with failpoint("payload.keep"):
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
        return self._part.stat().st_size if is_file(self._part) else 0

    def _known_etag(self, url: str) -> str:
        """The strong ETag under which this very url gave the first part."""
        noted = read_file(self._etag).decode(errors="replace").split("\n") if is_file(self._etag) else []
        return noted[1] if len(noted) == 2 and noted[0] == url else ""


def through_proxy(url: str) -> str:
    """What the environment does to a request for ``url``, in words to be added to an error; empty when nothing."""
    parts = urllib3.util.parse_url(url)
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url, no_proxy=None))
    if not proxy:
        return ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    name = next((name for name in names if os.environ.get(name)), "a proxy setting")
    where = urllib3.util.parse_url(proxy).netloc or "a proxy"
    return f"; {name} sends it through {where}: put {parts.host} into no_proxy if that is wrong"


def encoded(response: requests.Response) -> str:
    """What to say of a wrong size when the server, or a proxy, has compressed the payload; empty when it hasn't."""
    encoding = response.headers.get("Content-Encoding", "").strip()
    if encoding.lower() in ("", "identity"):
        return ""
    return (
        f"; it was sent with Content-Encoding {encoding[:20]} although 'identity' was asked for: switch compression of"
        " payloads off in that server, or in a proxy before it"
    )


def _range_start(content_range: str) -> int | None:
    matched = re.match(r"bytes (\d+)-", content_range)
    return int(matched[1]) if matched else None


def _write_failed(path: Path, error: OSError) -> WriteFailed:
    full = seen_in(error.errno) == "disk-full"
    reason = f"disk full: {error.strerror}; make room there" if full else error.strerror or str(error)
    failed = WriteFailed(f"{path.parent}: {reason}", evidence=seen_in(error.errno))
    failed.__cause__ = error
    return failed


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
