"""One scenario under load: what failed, and which promises broke, judged by nothing that the product says of itself.

Two loads send requests through both balancers all the time, and each one that fails is kept with its time. Everything
that etcd goes through is kept, too, and handed to the auditor of the kill matrix.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from outrider.demo.load import Failure, LoadGenerator
from outrider.etcd.seam import KeyChanged
from outrider.model.documents import Slot, decode
from tests.chaos.auditor import BLOCK, TURNS, Rules, audit
from tests.chaos.fixture import History
from tests.scenarios.apps import APPS, HOST, App
from tests.scenarios.machine import Machine
from tests.scenarios.site import Site

RATE_PER_S = 20.0
REQUEST_S = 20.0
KEPT = 100_000
"""Every request that fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """Requests through one balancer that were sent in this time may fail: Unix time, and why."""

    app: App
    since: float
    until: float
    why: str


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of a scenario.

    Attributes:
        problems: Empty when it held.
        notes: What it met, for the table: states and times.
        failed: App -> requests that failed; ``unexcused`` those that nothing explains.
    """

    scenario: str
    seconds: float = 0.0
    requests: int = 0
    revisions: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    unexcused: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def unexplained(app: App, failures: Iterable[Failure], excuses: Sequence[Excuse]) -> list[Failure]:
    """Those of an app's failed requests that were sent when none may fail."""
    times = [(one.since, one.until) for one in excuses if one.app is app]
    return [one for one in failures if not any(since <= one.started_at <= until for since, until in times)]


class Run:
    """What a scenario may ask for and say. Made by ``play``."""

    def __init__(self, site: Site, scenario: str) -> None:
        self.site, self.result = site, Result(scenario=scenario)
        self._excuses: list[Excuse] = []
        self._failures: list[tuple[App, Failure]] = []
        self._leaves: set[str] = set()
        self._lost: dict[str, int] = {}
        self._restored = False
        self._loads: dict[App, LoadGenerator] = {}
        self._history = History(site.cluster)
        self._instances = {app: site.instances(app) for app in APPS}

    def note(self, words: str) -> None:
        """For the table."""
        self.result.notes.append(words)

    def expect(self, holds: bool, words: str) -> None:
        """A fact that the scenario is about."""
        if not holds:
            self.result.problems.append(words)

    def leaves(self, machine: Machine) -> None:
        """Its instances may be out of the balancer under a turn: an operator, or its shutdown, drains them."""
        self._leaves |= {self.site.instance(app, machine.name) for app in APPS}

    def reached(self, app: App, version: str) -> set[str]:
        """Instances that had a turn for a version so far."""
        prefix = self.site.keys.slots(app.scope)
        slots = [
            decode(Slot, change.key, change.entry.value)
            for change in tuple(self._history.changes)
            if change.key.startswith(prefix) and change.entry is not None
        ]
        return {slot.instance for slot in slots if slot.release == version}

    @contextmanager
    def losing(self, machine: Machine) -> Iterator[None]:
        """It loses its power here: until the balancers' health checks have seen that, requests may fail."""
        since, revision = time.time(), self.site.cluster.list(TURNS).revision
        yield
        for app in APPS:
            until = time.time() + app.health_s
            self._excuses.append(Excuse(app=app, since=since, until=until, why=f"{machine.name} is lost"))
            self._lost[self.site.instance(app, machine.name)] = revision

    @contextmanager
    def without_load(self, app: App) -> Iterator[None]:
        """Send nothing through the app's balancer meanwhile: an operator restarts it."""
        self._end_load(app)
        yield
        self._begin_load(app)

    def begin(self) -> None:
        for app in APPS:
            self._begin_load(app)

    def end(self) -> Result:
        """End loads and history, and judge."""
        for app in APPS:
            self._end_load(app)
        self.close_history()
        for app in APPS:
            mine = [failure for each, failure in self._failures if each is app]
            self.result.failed[app.name] = len(mine)
            left = unexplained(app, mine, self._excuses)
            self.result.unexcused += len(left)
            for one in left[:5]:
                at = time.strftime("%H:%M:%S", time.localtime(one.started_at))
                self.result.problems.append(
                    f"{app.balancer}: a {one.method} failed at {at} after {one.took_s} s: {one.kind} {one.text}"
                )
            if len(left) > 5:
                self.result.problems.append(f"{app.balancer}: {len(left)} requests failed in all")
        return self.result

    def close_history(self) -> None:
        """Judge what etcd went through so far: it is about to be replaced, or all is over."""
        if self._history.lost:
            self.result.problems.append("the watch lost revisions: the history has a hole")
        changes, before = self._history.end(), self._history.before
        self.result.revisions += len({change.revision for change in changes})
        for app in APPS:
            self.result.problems += [f"{app.name}: {line}" for line in self._audit(app, before, changes)]

    def open_history(self, *, restored: bool = False) -> None:
        """Keep what etcd goes through from now on.

        Args:
            restored: etcd has just been set back: addresses in it are dead, and each instance may put its own right.
        """
        self._history, self._restored = History(self.site.cluster), restored

    def _audit(self, app: App, before: dict[str, bytes], changes: tuple[KeyChanged, ...]) -> list[str]:
        others = tuple(f"{prefix}{other.name}/" for other in APPS if other is not app for prefix in (TURNS, BLOCK))
        mine = [change for change in changes if not change.key.startswith(others)]
        known = {key: value for key, value in before.items() if not key.startswith(others)}
        staying = tuple(name for name in self._instances[app] if name not in self._lost)
        rules = Rules(
            slots=1,
            starts_first=True,
            instances=staying,
            leaves=frozenset(self._leaves & set(staying)),
            apps_die=self._restored,
        )
        found = audit(known, mine, rules)
        for name, revision in self._lost.items():
            if name in self._instances[app]:
                until = [change for change in mine if change.revision <= revision]
                alone = Rules(slots=1, starts_first=True, instances=(name,))
                # what it left of a turn is what the scenario is about
                found += [line for line in audit(known, until, alone) if not line.startswith("in the end")]
        return found

    def _begin_load(self, app: App) -> None:
        url = self.site.web_url(app)
        load = LoadGenerator(url, HOST, RATE_PER_S, timeout_s=REQUEST_S, kept_failures=KEPT)
        self._loads[app] = load.start()

    def _end_load(self, app: App) -> None:
        load = self._loads.pop(app, None)
        if load is None:
            return
        figures = load.stop()
        self.result.requests += figures.requests
        self._failures += [(app, failure) for failure in figures.examples]
        if len(figures.examples) != figures.failed:
            self.result.problems.append(f"{app.name}: {figures.failed} requests failed, {len(figures.examples)} known")


def play(site: Site, name: str, scenario: Callable[[Run], None]) -> Result:
    """Run a scenario on a site that is at rest, under load; return what became of it."""
    began = time.monotonic()
    run = Run(site, name)
    run.begin()
    try:
        scenario(run)
        # a request that was sent a moment ago shows its end
        threading.Event().wait(1.0)
    except Exception as error:  # noqa: BLE001 - it is the scenario's result, and the next one gets a new site
        run.result.problems.append(f"{type(error).__name__}: {error}")
    finally:
        result = run.end()
        result.seconds = round(time.monotonic() - began, 1)
    return result
