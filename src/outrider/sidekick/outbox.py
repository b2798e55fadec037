"""The outbox: reports on disk until the update service has them (promise P9).

Rules: ``put`` returns when the report would survive a power cut; one thread delivers them in order, each at least once,
for as long as it takes; a report that the service refuses forever is set aside, never dropped without a word. This
is the one place outside the chart that retries: a report must not change a verdict, so no state may wait for it.

On disk: one file per report, ``SEQUENCE-DIGEST.json``, written under another name, synced, then renamed. What is
refused lies in ``refused/``.
"""

import contextlib
import hashlib
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from loguru import logger

from outrider.core.errors import ConfigError, DriverError, OutriderError, Refused, Throttled
from outrider.core.omaha import Report, is_progress
from outrider.failpoints import failpoint, for_same_instance
from outrider.files import clear_file, is_file, make_folder, open_file, read_file, sync_folder
from outrider.journal.reserve import spend as spend_reserve
from outrider.pool import ElasticPool, Rounds

MAX_PENDING = 10_000
"""A sidekick writes about five reports per update: years of updates against a service that never answers."""
MAX_REFUSED = 1_000
_SUFFIX = ".json"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueuedReport:
    report: Report
    path: Path


def retry_delay_s(failures: int, error: OutriderError, *, least_s: float, most_s: float, spread: float) -> float:
    """Seconds until the next try after ``failures`` in a row, the last with ``error``.

    Doubles from ``least_s`` to ``most_s``, less up to half of it by ``spread`` (0 to 1), so that a fleet doesn't come
    back in step; what the service itself asked for is never undercut, and the spread is added to it.
    """
    # 2**32 times any delay is beyond every limit; without the bound the power would outgrow a float in time.
    full_s = min(most_s, least_s * 2.0 ** min(failures - 1, 32))
    if isinstance(error, Throttled):
        return max(full_s, error.retry_after_s + least_s * spread)
    return full_s * (1 - spread / 2)


class Outbox:
    """Takes reports and delivers them with a thread of its own, from now until ``close``.

    Args:
        folder: Made when absent; used by one outbox at a time.
        send: Delivers one report or raises an ``OutriderError``: ``Refused`` sets the report aside, any other is
            tried again.
        on_delivered: Called in the outbox's thread after each delivery.

    Raises:
        ConfigError: the folder can't be made or read.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[Report], None],
        *,
        on_delivered: Callable[[Report], None] | None = None,
        max_pending: int = MAX_PENDING,
        retry_min_s: float = 1.0,
        retry_max_s: float = 300.0,
        spread: Callable[[], float] = random.random,
        pool: ElasticPool | None = None,
    ) -> None:
        self._folder = folder
        self._send = send
        self._on_delivered = on_delivered
        self._max_pending = max_pending
        self._retry_min_s, self._retry_max_s, self._spread = retry_min_s, retry_max_s, spread
        self._changed = threading.Condition()
        self._waiting: list[_QueuedReport] = []
        self._under_way: _QueuedReport | None = None
        self._closed = False
        self._next = 1
        try:
            self._open()
        except OSError as error:
            raise ConfigError(f"outbox {folder}: {error.strerror}; give it a folder that it can write to") from error
        self._failures = 0
        self._rounds = Rounds(pool, for_same_instance(self._deliver), "outbox")
        self._rounds.ask()

    def put(self, report: Report) -> None:
        """Keep ``report`` and return once it is safely on disk; a report that is already waiting is not doubled.

        When the outbox is full, the oldest progress report goes, else the oldest of all; both are logged.

        Raises:
            DriverError: it can't be written, the disk is full for example.
            ValueError: the outbox is closed.
        """
        with self._changed:
            if self._closed:
                raise ValueError("put() on a closed outbox")
            if any(waiting.report.request_id == report.request_id for waiting in self._waiting):
                return
            while len(self._waiting) >= self._max_pending:
                self._drop_one()
            path = self._folder / _file_name(self._next, report)
            try:
                self._write(path, msgspec.json.encode(report))
            except OSError as error:
                raise DriverError(f"outbox {self._folder}: can't keep a report: {error.strerror}") from error
            self._next += 1
            self._waiting.append(_QueuedReport(report=report, path=path))
            self._changed.notify_all()
        self._rounds.ask()

    def _write(self, path: Path, content: bytes) -> None:
        try:
            _write_durably(path, content)
        except OSError as error:
            if not spend_reserve(self._folder.parent, error):
                raise
            _write_durably(path, content)

    def pending(self) -> int:
        """How many reports are not delivered yet."""
        with self._changed:
            return len(self._waiting)

    def flush(self, within_s: float) -> bool:
        """Wait until nothing is pending; False when ``within_s`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout=within_s)

    def close(self, within_s: float = 5.0) -> None:
        """Stop delivering; what is pending stays on disk. Safe to call twice.

        Waits at most ``within_s`` seconds for the delivery under way, which is repeated after the next start if it
        didn't end by then.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._rounds.close(within_s)

    def _deliver(self) -> float | None:
        """One report; returns when to go on."""
        waiting = self._take()
        if waiting is None:
            return None
        report = waiting.report
        log = logger.bind(update=report.update, request_id=report.request_id, event=report.event.code)
        try:
            with failpoint("outbox.send"):
                self._send(report)
        except Refused as error:
            log.bind(error_kind=error.kind, cause=str(error), retry=False).error("report refused forever")
            self._set_aside(waiting.path)
            self._forget(waiting)
        except OutriderError as error:
            self._failures += 1
            delay_s = retry_delay_s(
                self._failures, error, least_s=self._retry_min_s, most_s=self._retry_max_s, spread=self._spread()
            )
            log.bind(error_kind=error.kind, cause=str(error), retry=True, delay_s=round(delay_s, 3)).warning(
                "report not delivered"
            )
            with self._changed:
                self._under_way = None
            return self._rounds.hold(delay_s)
        except Exception:
            # A bug, ours or the callable's: whoever reads the log must see it, and nothing is lost on disk.
            log.exception("outbox died")
            raise
        else:
            log.debug("report delivered")
            self._remove(waiting.path)
            self._forget(waiting)
            if self._on_delivered is not None:
                self._on_delivered(report)
        self._failures = 0
        return 0.0

    def _take(self) -> _QueuedReport | None:
        with self._changed:
            self._under_way = None
            if self._closed or not self._waiting:
                return None
            self._under_way = self._waiting[0]
            return self._under_way

    def _forget(self, waiting: _QueuedReport) -> None:
        with self._changed:
            self._waiting = [other for other in self._waiting if other is not waiting]
            self._changed.notify_all()

    def _drop_one(self) -> None:
        droppable = [waiting for waiting in self._waiting if waiting is not self._under_way]
        if not droppable:
            raise DriverError(f"outbox {self._folder}: full: it holds only the report that is being delivered")
        victim = next((waiting for waiting in droppable if is_progress(waiting.report.event)), droppable[0])
        report = victim.report
        logger.bind(
            update=report.update, request_id=report.request_id, event=report.event.code, pending=len(self._waiting)
        ).error("report dropped, outbox full")
        self._remove(victim.path)
        self._waiting = [other for other in self._waiting if other is not victim]

    def _remove(self, path: Path) -> None:
        try:
            with failpoint("outbox.remove"):
                path.unlink(missing_ok=True)
        except OSError as error:
            # It is sent again after the next start, which P9 allows; stopping here would hold back all the others.
            logger.bind(path=str(path), cause=error.strerror).error("report can't be removed")

    def _set_aside(self, path: Path) -> None:
        refused = self._folder / "refused"
        try:
            make_folder(refused)
            path.replace(refused / path.name)
            kept = sorted(refused.glob(f"*{_SUFFIX}"), key=lambda one: one.lstat().st_mtime)
            for oldest in kept[:-MAX_REFUSED]:
                if is_file(oldest):
                    oldest.unlink(missing_ok=True)
        except OSError as error:
            logger.bind(path=str(path), cause=error.strerror).error("report can't be set aside")

    def _open(self) -> None:
        make_folder(self._folder)
        for leftover in self._folder.glob(f"*{_UNFINISHED}"):
            with contextlib.suppress(OSError):
                clear_file(leftover)
        # By number, not by text: a name longer than the padding would otherwise come too early.
        for path in sorted(self._folder.glob(f"*{_SUFFIX}"), key=_sequence):
            try:
                report = msgspec.json.decode(read_file(path), type=Report)
            except (msgspec.DecodeError, OSError) as error:  # garbage, or a folder or link in its place
                logger.bind(path=str(path), cause=str(error)).error("report unreadable, set aside")
                self._set_aside(path)
                continue
            self._waiting.append(_QueuedReport(report=report, path=path))
            self._next = max(self._next, _sequence(path) + 1)


def _file_name(sequence: int, report: Report) -> str:
    digest = hashlib.sha256(report.request_id.encode()).hexdigest()[:12]
    return f"{sequence:012d}-{digest}{_SUFFIX}"


def _sequence(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


def _write_durably(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        with failpoint("outbox.write"):
            clear_file(unfinished)
            with open(open_file(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    with failpoint("outbox.rename"):
        unfinished.replace(path)
        # The name itself is only safe once the folder is.
        sync_folder(path.parent)
