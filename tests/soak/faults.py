"""What a soak does to its programs: each fault begins, is undone after a while, and may excuse failed requests."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from outrider.core.errors import OutriderError
from outrider.http import ask
from tests.soak.fixture import SoakFixture

MARGIN_S = 2.0
"""Requests that were under way, and Traefik's connections that break a moment later."""


@dataclass(slots=True)
class Excuse:
    """A time in which requests may fail, and why. ``until_s`` None: it lasts still."""

    why: str
    since_s: float
    until_s: float | None = None

    def covers(self, started_s: float, took_s: float) -> bool:
        """Whether a request (Unix time) was open at any moment of it."""
        until_s = time.time() if self.until_s is None else self.until_s
        return started_s <= until_s + MARGIN_S and started_s + took_s >= self.since_s - 0.1


@dataclass(slots=True)
class Undo:
    """What ends a fault; ``is_over`` says when."""

    what: str
    is_over: Callable[[], bool]
    do: Callable[[], None]


@dataclass(slots=True)
class Faults:
    """Begins faults and undoes them, by the caller's looks at the clock."""

    fixture: SoakFixture
    random: Random
    spared: tuple[str, ...]
    excuses: list[Excuse] = field(default_factory=list)
    open: list[Undo] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def begin_one(self, *, may_kill_service: bool) -> str:
        """Begin any fault that can begin now; says which."""
        choices: list[Callable[[], str]] = [
            self._kill_sidekick, self._kill_sidekick, self._stop_sidekick, self._stop_sidekick, self._kill_etcd,
            self._stop_etcd, self._stop_traefik, self._kill_app, self._stop_service,
        ]  # fmt: skip
        if may_kill_service:
            choices.append(self._kill_service)
        what = self.random.choice(choices)()
        if what:
            self.begun.append(what)
        return what

    def look(self) -> None:
        """Undo what is due."""
        for undo in list(self.open):
            if undo.is_over():
                self.open.remove(undo)
                undo.do()

    def end_all(self) -> None:
        """Undo everything that can be undone now."""
        for undo in list(self.open):
            if not undo.what.startswith("app"):
                self.open.remove(undo)
                undo.do()

    def _after(self, what: str, seconds: float, do: Callable[[], None]) -> None:
        due_s = time.monotonic() + seconds
        self.open.append(Undo(what, lambda: time.monotonic() >= due_s, do))

    def _busy(self, what: str) -> bool:
        return any(undo.what == what for undo in self.open)

    def _stop(self, what: str, pid: int, seconds: float, then: Callable[[], None] = lambda: None) -> str:
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                return
            then()

        self._after(what, seconds, go_on)
        return f"{what} stopped for {seconds:.1f} s"

    def _kill_sidekick(self) -> str:
        instance = self.random.choice([name for name in self.fixture.instances if name not in self.spared])
        if self._busy(f"sidekick {instance}"):
            return ""
        self.fixture.sidekicks[instance].kill()
        down_s = self.random.uniform(0.0, 4.0)
        self._after(f"sidekick {instance}", down_s, lambda: self.fixture.restart_sidekick(instance))
        return f"sidekick {instance} killed for {down_s:.1f} s"

    def _stop_sidekick(self) -> str:
        instance = self.random.choice(self.fixture.instances)
        what = f"sidekick {instance}"
        if self._busy(what):
            return ""
        return self._stop(what, self.fixture.sidekicks[instance].pid, self.random.uniform(0.5, 12.0))

    def _kill_etcd(self) -> str:
        if self._busy("etcd"):
            return ""
        self.fixture.etcd.kill()
        down_s = self.random.uniform(0.0, 6.0)
        self._after("etcd", down_s, self.fixture.restart_etcd)
        return f"etcd killed for {down_s:.1f} s"

    def _stop_etcd(self) -> str:
        if self._busy("etcd"):
            return ""
        return self._stop("etcd", self.fixture.etcd.pid, self.random.uniform(0.5, 10.0))

    def _kill_service(self) -> str:
        if self._busy("service"):
            return ""
        self.fixture.service.kill()
        down_s = self.random.uniform(0.0, 5.0)
        self._after("service", down_s, self.fixture.restart_service)
        return f"service killed for {down_s:.1f} s"

    def _stop_service(self) -> str:
        if self._busy("service"):
            return ""
        return self._stop("service", self.fixture.service.pid, self.random.uniform(0.5, 8.0))

    def _stop_traefik(self) -> str:
        if self._busy("traefik"):
            return ""
        excuse = Excuse("traefik stopped", time.time())
        self.excuses.append(excuse)

        def over() -> None:
            excuse.until_s = time.time()

        return self._stop("traefik", self.fixture.traefik.pid, self.random.uniform(0.5, 4.0), over)

    def _rests(self, instance: str) -> bool:
        """Its sidekick is at no update: told by etcd, and by nothing when that is away."""
        try:
            presence = self.fixture.presences().get(instance)
        except OutriderError:
            return False
        return presence is not None and presence.state.startswith("idle.")

    def _kill_app(self) -> str:
        """SIGKILL what the balancer sends to; excused until what its entry names answers again.

        Not while a release is proved there: an app that ends by itself then is a reason to block it.
        """
        instance = self.random.choice(self.fixture.instances)
        what = f"app of {instance}"
        url = self.fixture.history.entries().get(instance)
        pid = self.fixture.app_at(instance, url) if url is not None and self._rests(instance) else None
        if self._busy(what) or pid is None:
            return ""
        excuse = Excuse(f"{what} killed", time.time())
        self.excuses.append(excuse)
        os.kill(pid, signal.SIGKILL)
        answers = 0

        def serves() -> bool:
            nonlocal answers
            now_at = self.fixture.history.entries().get(instance)
            answer = ask(f"{now_at}/", timeout_s=1.0) if now_at is not None else None
            answers = answers + 1 if answer is not None and answer.status == 200 else 0
            return answers >= 2

        def over() -> None:
            excuse.until_s = time.time()

        self.open.append(Undo(what, serves, over))
        return f"{what} killed"
