"""Watching for updates and running a program for each: updatectl's ``watch``, with an end that counts.

Rules:
- The program runs for an update that the service grants, and for nothing else: not for "no update", not for an error.
- Exit code 0 means that the version runs now. Anything else is reported as a failure and the version is not advanced
  over: the program runs again after a pause that doubles each time, or at once when another version is offered.
- Reports go out in order and are kept until the service has taken them; no check overtakes them.
"""

import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from outrider.core import versions
from outrider.core.errors import OutriderError, Refused, Throttled
from outrider.core.omaha import (
    FailureCode,
    NoUpdate,
    Offer,
    OmahaEvent,
    Report,
    downloaded,
    downloading,
    failed,
    installed,
    running,
)
from outrider.omaha_client import Upstream

PREFIX = "UPDATE_SERVICE_"
TROUBLE_MAX_S = 60.0
"""While the service is away, checks become rarer up to this; its interval counts when that is longer."""
JITTER = 0.1
"""Waits are up to this part longer, so that many machines don't ask in the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """What to watch and what to run.

    Attributes:
        app_id: As the operator wrote it; the program sees it without braces.
        version: What runs at the start, ``0.0.0`` for nothing.
        interval_s: Between two checks.
        program: File and arguments.
        time_limit_s: The program is ended after so long, which counts as a failure; None for no limit.
        grace_s: Between SIGTERM and SIGKILL for the program.
        retry_min_s, retry_max_s: Pause after a first failure, and the longest one.
    """

    app_id: str
    version: str = versions.NOTHING
    interval_s: float = 1.0
    program: tuple[str, ...]
    time_limit_s: float | None = None
    grace_s: float = 10.0
    retry_min_s: float = 10.0
    retry_max_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    version: str
    times: int
    due: float


class Watcher:
    """Asks, runs, reports; ``run`` in one thread, ``wake`` and ``stop`` from any other."""

    def __init__(
        self,
        upstream: Upstream,
        settings: WatchSettings,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch with ``upstream``; ``tell`` gets one line for a person at everything that changes."""
        self._upstream, self._settings, self._tell, self._clock = upstream, settings, tell, clock
        self._version, self._before = settings.version, ""
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._pending: list[Report] = []
        self._failure: _Failure | None = None
        self._troubles, self._answered = 0, False
        self._last_told = ""
        self._program = _Program(settings)

    def run(self) -> None:
        """Watch until ``stop``.

        Raises:
            Refused: the first answer ever says that app or request are wrong; later such answers are only told.
        """
        while not self._stopping.is_set():
            wait_s = self._round()
            self._woken.wait(wait_s * random.uniform(1, 1 + JITTER))  # noqa: S311
            self._woken.clear()
        self._deliver()

    def wake(self) -> None:
        """Check now."""
        self._woken.set()

    def stop(self) -> None:
        """End ``run``; the program, when it runs, is ended first."""
        self._stopping.set()
        self._program.end()
        self._woken.set()

    def _round(self) -> float:
        """Ask once and do what is to be done; returns the seconds until the next time."""
        if not self._deliver():
            return self._trouble_s()
        update = str(uuid.uuid4())
        try:
            answer = self._upstream.check(version=self._version, previous_version=self._before, update=update)
        except Throttled as error:
            self._say(f"update check: {error}")
            return max(self._settings.interval_s, error.retry_after_s)
        except OutriderError as error:
            if isinstance(error, Refused) and not self._answered:
                raise
            self._say(f"warning: update check failed: {error}")
            return self._trouble_s()
        self._answered, self._troubles, self._before = True, 0, ""
        match answer:
            case NoUpdate(reason=reason, poll_interval_s=poll_interval_s):
                self._say(f"no update: {reason or 'no reason given'}")
                return max(self._settings.interval_s, poll_interval_s or 0)
            case Offer():
                return self._take(answer, update)

    def _take(self, offer: Offer, update: str) -> float:
        if offer.version == self._version:
            return self._settings.interval_s
        before = self._failure
        if before is not None and before.version == offer.version and (left_s := before.due - self._clock()) > 0:
            return left_s
        old = self._version
        self._say(f"{old} -> {offer.version}: running {self._settings.program[0]}")
        self._report(update, old, downloading(previous_version=old, next_version=offer.version))
        problem = self._program.run(environment(self._settings.app_id, old, offer))
        if self._stopping.is_set():
            # Ended by us: neither done nor failed. The next start asks anew.
            self._say(f"stopped during the update to {offer.version}")
            return 0.0
        if problem:
            return self._failed(offer.version, problem, update)
        self._say(f"{old} -> {offer.version}: done")
        self._report(update, old, downloaded(previous_version=old, next_version=offer.version))
        self._report(update, old, installed(previous_version=old, next_version=offer.version))
        self._version, self._before, self._failure = offer.version, old, None
        self._report(update, offer.version, running(previous_version=old))
        # At once: there may be more on the way, a floor passed for example.
        return 0.0

    def _failed(self, version: str, problem: str, update: str) -> float:
        times = 1 + (self._failure.times if self._failure is not None and self._failure.version == version else 0)
        pause_s: float = min(self._settings.retry_max_s, self._settings.retry_min_s * 2.0 ** min(times - 1, 30))
        self._failure = _Failure(version=version, times=times, due=self._clock() + pause_s)
        self._say(f"{self._version} -> {version}: {problem}; again in {pause_s:g} s")
        failure = failed(FailureCode.PROGRAM, previous_version=self._version, next_version=version)
        self._report(update, self._version, failure)
        return pause_s

    def _report(self, update: str, version: str, event: OmahaEvent) -> None:
        report = Report(
            update=update,
            request_id=f"{update}/{event.code}",
            at=datetime.now(UTC),
            version=version,
            event=event,
        )
        self._pending.append(report)
        self._deliver()

    def _deliver(self) -> bool:
        """Send what waits, oldest first; tells whether nothing waits any more."""
        while self._pending:
            try:
                self._upstream.send(self._pending[0])
            except Refused as error:
                self._say(f"warning: report {self._pending[0].event.code} refused: {error}")
            except OutriderError as error:
                self._say(f"warning: report {self._pending[0].event.code} waits: {error}")
                return False
            self._pending.pop(0)
        return True

    def _trouble_s(self) -> float:
        self._troubles += 1
        longest = max(TROUBLE_MAX_S, self._settings.interval_s)
        return float(min(longest, self._settings.interval_s * 2 ** min(self._troubles, 30)))

    def _say(self, text: str) -> None:
        """The same line twice running is news only once."""
        if text != self._last_told:
            self._tell(text)
        self._last_told = text


class _Program:
    """Runs the program, one at a time, in a process group of its own: what it started is ended with it."""

    def __init__(self, settings: WatchSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False

    def run(self, variables: dict[str, str]) -> str:
        """Run it to its end; returns what went wrong, empty when it left with 0."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        limit_s = self._settings.time_limit_s
        with self._lock:
            if self._over:
                return "stopped"
            try:
                self._process = subprocess.Popen(
                    self._settings.program,
                    env=inherited | variables,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                return f"can't run {self._settings.program[0]}: {error.strerror}"
        process, late = self._process, False
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            late = True
            self._kill(process)
            code = process.wait()
        if late:
            return f"didn't end within {limit_s:g} s"
        if code < 0:
            return f"ended by signal {-code} ({signal.strsignal(-code)})"
        return f"left with {code}" if code else ""

    def end(self) -> None:
        """End the program, if it runs, and start none any more."""
        with self._lock:
            self._over = True
            process = self._process
        if process is not None:
            self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                return
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            try:
                process.wait(self._settings.grace_s)
            except subprocess.TimeoutExpired:
                continue
            return


def environment(app_id: str, old: str, offer: Offer) -> dict[str, str]:
    """The program's variables; what isn't known is absent.

    The first four are updatectl's. ``OLD_VERSION`` is absent when nothing ran before.
    """
    known = {
        "VERSION": offer.version,
        "OLD_VERSION": "" if old == versions.NOTHING else old,
        "APP_ID": app_id.strip().removeprefix("{").removesuffix("}"),
        "URL": offer.urls()[0],
        "SHA256": offer.sha256,
        "SIZE": str(offer.package.size_bytes),
        "PACKAGE": offer.package.name,
    }
    return {PREFIX + name: value for name, value in known.items() if value}
