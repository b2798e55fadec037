"""Rollouts in real time under load, one after the other, with faults at random: what must hold after each, and always.

It fails on: a breach of P1 or P3 at any etcd revision, a bad release on more instances than there are turns, somebody
not home in time, a key or file left behind, a request that failed without a fault that explains it, a step that the
chart doesn't have, and a process that grows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from outrider.core.errors import OutriderError
from outrider.demo.fleet import APP_ID, GROUP, HOST
from outrider.demo.load import Failure, LoadFigures, LoadGenerator
from outrider.model.keys import group_scope
from outrider.statechart import load_sidekick_chart
from outrider.story import lines_of, replay
from tests.soak.faults import Excuse, Faults
from tests.soak.fixture import Kind, SecuredSoakFixture, SoakFixture
from tests.soak.gauges import LIMITS, Life, on_disk, outgrown

INSTANCES = ("web-a", "web-b", "web-c", "web-d", "web-e")
SPARED = ("web-a", "web-b")
"""Never killed, so that their sidekicks live long enough to tell whether they grow. Stopped and cut off they are."""
SLOTS = 2
RATE_PER_S = 40.0
FAULTS_S = 10.0
HOME_S = 300.0
"""From the last fault's end to everybody's rest: several deadlines of the chart, on a machine that has other work."""
LOOK_S = 0.1
SAMPLE_S = 1.0
KINDS: tuple[Kind, ...] = ("good", "good", "good", "unhealthy", "souring", "refused")
KEPT_FAILURES = 2000
NO_SERVICE_KILLS = 0.4
"""The last part of the run in which the service is left alive, to see whether it grows."""


class SoakFailed(Exception):
    """Something that must hold doesn't; the text says what."""


@dataclass(slots=True)
class Tally:
    """What a soak did."""

    rollouts: int = 0
    breaches: list[str] = field(default_factory=list)
    figures: LoadFigures = field(default_factory=LoadFigures)
    excused: int = 0


class Soak:
    """One soak on one fixture."""

    def __init__(
        self, folder: Path, seed: int, minutes: float, tell: Callable[[str], None], *, secured: bool = False
    ) -> None:
        self._random, self._tell = Random(f"soak {seed}"), tell
        self._seconds = minutes * 60.0
        self.fixture = (SecuredSoakFixture if secured else SoakFixture)(folder, INSTANCES)
        self._faults = Faults(self.fixture, self._random, SPARED)
        self._lives: dict[int, Life] = {}
        self._sampled_s = 0.0
        self._began_s = time.monotonic()
        self._good = "1.0.0"
        self._version = 0
        self._load: LoadGenerator | None = None
        self._judged = 0
        self.tally = Tally()

    def run(self) -> Tally:
        """From an empty folder to the tally; ends all that it began.

        Raises:
            SoakFailed: it can't go on; what was found before is in ``tally``.
        """
        try:
            self._bring_up()
            while time.monotonic() - self._began_s < self._seconds:
                self._roll_out()
            self._finish()
        finally:
            self._faults.end_all()
            if self._load is not None:
                self.tally.figures = self._load.stop()
                self._judge_requests()
            if hasattr(self.fixture, "history"):
                self.fixture.history.close()
            self.fixture.stop()
        return self.tally

    def _bring_up(self) -> None:
        fixture = self.fixture
        fixture.start()
        fixture.remember_commands()
        fixture.watch(SLOTS)
        fixture.create(slots=SLOTS)
        for instance in fixture.instances:
            fixture.start_sidekick(instance)
        self._until("all instances on 1.0.0", lambda: fixture.all_on("1.0.0"))
        self._load = LoadGenerator(f"{fixture.traefik.web_url}/", HOST, RATE_PER_S, kept_failures=KEPT_FAILURES).start()
        self._began_s = time.monotonic()

    def _roll_out(self) -> None:
        self._version += 1
        version = f"1.{self._version}.0"
        kind = self._random.choice(KINDS)
        began_s, wanted = time.monotonic(), self._good
        may_kill_service = time.monotonic() - self._began_s < self._seconds * (1 - NO_SERVICE_KILLS)
        self.fixture.release(version, kind)
        begun: list[str] = []
        plan = sorted(self._random.uniform(0.0, FAULTS_S) for _ in range(self._random.choice((0, 1, 1, 2, 3, 5))))
        published_s = time.monotonic()
        for due_s in plan:
            self._live_until(published_s + due_s)
            if what := self._faults.begin_one(may_kill_service=may_kill_service):
                begun.append(what)
        if kind == "good":
            wanted = version
        self._until(f"{version} ({kind})", lambda: self._is_over(version, kind, wanted))
        self._good = wanted
        self.tally.rollouts += 1
        problems = self._check_left() + self._check_release(version, kind)
        self.tally.breaches += problems
        excused = self._judge_requests()
        failed = self._load.snapshot().failed if self._load is not None else 0
        self._tell(
            f"{time.monotonic() - self._began_s:6.1f} s  {version} {kind:9} {time.monotonic() - began_s:5.1f} s"
            f"  failed {failed} (explained {excused})  {'; '.join(begun) or 'no fault'}"
        )
        for problem in problems:
            self._tell(f"          BREACH {problem}")

    def _is_over(self, version: str, kind: Kind, wanted: str) -> bool:
        if self._faults.open:
            return False
        presences = self.fixture.presences()
        if len(presences) != len(INSTANCES) or self._turn_keys():
            return False
        if any(
            one.version != wanted or one.state not in ("idle.waiting", "idle.deferred") for one in presences.values()
        ):
            return False
        return (version in self.fixture.blocked()) == (kind != "good")

    def _turn_keys(self) -> list[str]:
        keys = self.fixture.keys
        return [entry.key for entry in self.fixture.cluster.list(keys.turns(group_scope(APP_ID, GROUP))).entries]

    # --- looking ----------------------------------------------------------------------------------------------------

    def _live_until(self, when_s: float) -> None:
        while time.monotonic() < when_s:
            self._look()
            time.sleep(LOOK_S)

    def _until(self, what: str, fact: Callable[[], bool]) -> None:
        """Look until the fact holds; etcd being away isn't an answer."""
        deadline_s = time.monotonic() + HOME_S
        while True:
            self._look()
            if self._faults.open and any(not undo.what.startswith("app") for undo in self._faults.open):
                deadline_s = time.monotonic() + HOME_S
            try:
                if fact():
                    return
            except OutriderError:
                pass
            if time.monotonic() > deadline_s:
                raise SoakFailed(f"{what}: not within {HOME_S:.0f} s of the last fault: {self._where()}")
            time.sleep(LOOK_S)

    def _where(self) -> str:
        try:
            told = [
                f"{one.instance} {one.state} {one.version} ({one.why})" for one in self.fixture.presences().values()
            ]
            return (
                f"{'; '.join(told)}; turns {self._turn_keys()}; blocked {self.fixture.blocked()};"
                f" open {self._faults.open}"
            )
        except OutriderError as error:
            return str(error)

    def _look(self) -> None:
        """Undo faults that are due, sample the processes, and see that nobody has died."""
        self._faults.look()
        now_s = time.monotonic()
        if now_s - self._sampled_s < SAMPLE_S:
            return
        self._sampled_s = now_s
        programs = [*self.fixture.sidekicks.values(), self.fixture.service]
        down = {undo.what for undo in self._faults.open}
        for program in programs:
            name = program.name.replace("sidekick-", "sidekick ")
            if program.ended is not None and name not in down:
                raise SoakFailed(f"{program.name} ended by itself with {program.ended}, see {program.log}")
            self._lives.setdefault(program.pid, Life(program.name, program.pid)).sample(now_s)

    # --- judging ----------------------------------------------------------------------------------------------------

    def _check_left(self) -> list[str]:
        """Keys, workloads and files that a rollout leaves behind; waits a little for what is on its way."""
        deadline_s = time.monotonic() + 30.0
        while True:
            try:
                found = self._left()
            except OutriderError as error:
                found = [str(error)]
            if not found or time.monotonic() > deadline_s:
                break
            self._look()
            time.sleep(LOOK_S)
        history = self.fixture.history
        new, self._judged = history.breaches[self._judged :], len(history.breaches)
        return found + new

    def _left(self) -> list[str]:
        fixture, found = self.fixture, []
        entries = fixture.cluster.list(fixture.keys.prefix + "/").entries
        for part in ("/turns/", "/shared-turns/", "/commands/", "/grants/"):
            found += [f"left behind: {entry.key}" for entry in entries if part in entry.key]
        # Nobody takes a wake-up away, or a ticket that etcd wrote late: they end with their leases.
        for part in ("/wakeups/", "/tickets/"):
            found += [f"without a lease: {entry.key}" for entry in entries if part in entry.key and not entry.lease]
        for instance in fixture.instances:
            running = fixture.running(instance)
            if len(running) != 1:
                found.append(f"{instance}: {len(running)} workloads run: {', '.join(running)}")
            held = on_disk(fixture.state_dir(instance))
            found += [f"{instance}: {held[what]} {what}" for what, most in LIMITS.items() if held[what] > most]
        return found

    def _check_release(self, version: str, kind: Kind) -> list[str]:
        """P5, and that every step of every journal is one of the chart's."""
        found = []
        reached = self.fixture.history.reached(version) - self._gave_up(version)
        if kind != "good" and len(reached) > SLOTS:
            found.append(f"P5: {version} is bad and reached {sorted(reached)}")
        return found

    def _gave_up(self, version: str) -> set[str]:
        """Instances whose turn for ``version`` was given up for a reason that isn't the release's (decision 0008)."""
        found = set()
        for instance in INSTANCES:
            for record in self.fixture.records(instance):
                candidate, fault = record.memory.get("candidate"), record.memory.get("fault")
                if not candidate or not fault or record.target != "reporting":
                    continue
                if candidate["release"]["version"] == version and fault["blame"] != "release":
                    found.add(instance)
        return found

    def _judge_requests(self) -> int:
        """How many failed requests a fault explains; the others are breaches."""
        figures = self._load.snapshot() if self._load is not None else LoadFigures()
        unexplained = [one for one in figures.examples if not self._is_excused(one)]
        excused = len(figures.examples) - len(unexplained)
        known = {breach for breach in self.tally.breaches if breach.startswith("request")}
        for one in unexplained:
            line = f"request at {one.started_at:.3f} ({one.method}, {one.took_s:.1f} s): {one.kind}: {one.text[:100]}"
            if line not in known:
                self.tally.breaches.append(line)
                self._tell(f"          BREACH {line}")
        if figures.failed > KEPT_FAILURES:
            raise SoakFailed(f"{figures.failed} requests failed, too many to tell why")
        self.tally.excused = excused
        return excused

    def _is_excused(self, failure: Failure) -> bool:
        return any(excuse.covers(failure.started_at, failure.took_s) for excuse in self._excuses())

    def _excuses(self) -> list[Excuse]:
        return self._faults.excuses

    def _finish(self) -> None:
        """Replay the journals, and see whether anything has grown."""
        if isinstance(self.fixture, SecuredSoakFixture):
            refused = self.fixture.refusals()
            self.tally.breaches += [
                f"{log}: etcd permitted less than is needed: {line}" for log, line in refused.items()
            ]
        chart = load_sidekick_chart()
        for instance in INSTANCES:
            try:
                replay(lines_of(self.fixture.records(instance)), chart)
            except OutriderError as error:
                self.tally.breaches.append(f"{instance}: {error}")
        for life in self._lives.values():
            self.tally.breaches += life.complaints()
        self.tally.breaches += outgrown(life for life in self._lives.values() if life.name.startswith("sidekick"))

    def summary(self) -> list[str]:
        """The last words, line by line."""
        tally, figures = self.tally, self.tally.figures
        lines = [
            f"{tally.rollouts} rollouts, {len(self._faults.begun)} faults, {figures.requests} requests,"
            f" {figures.failed} failed, of which {tally.excused} explained by a fault",
            f"etcd revisions judged:"
            f" {dict(self.fixture.history.revisions) if hasattr(self.fixture, 'history') else {}}",
        ]
        longest = sorted(self._lives.values(), key=lambda life: -len(life.samples))
        lines += [life.summary() for life in longest[:6]]
        return lines
