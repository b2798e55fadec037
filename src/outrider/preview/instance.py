"""One instance in simulated time: the real chart, and a world around it where everything takes as long as it was drawn.

The world answers well, but for the troubles that the run is to show. A candidate does not prove healthy, or is found
bad while it is watched, or etcd is away.
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, assert_never, cast

from outrider.core.chart.hierarchy import Hierarchy
from outrider.core.chart.machine import CancelTimer, Machine, Perform, StartTimer
from outrider.core.chart.model import Chart
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import AnyEffect
from outrider.core.sidekick.memory import Installed, Memory, Release, Strategy, Turn
from outrider.core.sidekick.rules import make_rules
from outrider.preview.agenda import Appointment
from outrider.preview.lock import SCOPE
from outrider.preview.world import SUPPOSED, Failing, Surroundings, World, sha_of
from outrider.statechart import load_sidekick_chart

QUICK_S = 0.05
"""Of what is only a message: a transaction in etcd, a check-in."""
TIMEOUT_S = 3.0
"""After which a call to an etcd that is away has failed, as ``etcd.timeout_s`` has it."""
APP, GROUP = "app", "group"
RESTS = frozenset({"poll.due", "queue.expired", "ready.expired", "overdue.expired", "drained.expired"})
"""Timers that only repeat a question, or sound an alarm."""


@cache
def chart_and_hierarchy() -> tuple[Chart, Hierarchy]:
    """The chart that sidekicks run."""
    chart = load_sidekick_chart()
    return chart, Hierarchy(chart)


class SimInstance:
    """An instance with its sidekick.

    Attributes:
        world: What surrounds it.
    """

    def __init__(
        self,
        name: str,
        around: Surroundings,
        *,
        version: str,
        strategy: Strategy,
        steps_s: Mapping[str, float],
        failing: Failing = "",
        fails_after_s: float | None = None,
        probe_deadline_s: float = 60.0,
    ) -> None:
        """Let it rest, serving ``version``.

        Args:
            steps_s: Seconds of each step (``durations.Durations.draw``).
            fails_after_s: When it is found bad, from the begin of probing or soaking; None: at the deadline, or
                halfway.
        """
        self.name, self._around, self._steps_s = name, around, steps_s
        self._fails_after_s, self._probe_deadline_s = fails_after_s, probe_deadline_s
        chart, hierarchy = chart_and_hierarchy()
        url = f"http://{name}:1"
        memory = first_memory(name, version, strategy, url, around)
        self._machine = Machine(chart, make_rules({}), memory, hierarchy=hierarchy)
        self.world = World(name, around, url, failing)
        self._timers: dict[str, Appointment] = {}
        self._rest()

    @property
    def version(self) -> str:
        """What it runs, as its sidekick knows it."""
        running = self._machine.memory.running
        return running.release.version if running is not None else ""

    @property
    def rests(self) -> bool:
        """Its sidekick waits for news."""
        chart, _ = chart_and_hierarchy()
        return bool(chart.states[self._machine.state].resting)

    def hear(self, event: Any) -> None:
        """Let an event happen."""
        step = self._machine.step(event)
        for action in step.actions:
            match action:
                case StartTimer():
                    self._start_timer(action)
                case CancelTimer(id=id):
                    if (timer := self._timers.pop(id, None)) is not None:
                        timer.call_off()
                case Perform(effect=effect, request=request):
                    self._perform(cast(AnyEffect, effect), request)
                case _:
                    assert_never(action)

    def target(self, slots: int) -> None:
        """Hear of the group's target."""
        version = self._around.version
        self.hear(
            ev.TargetChanged(
                at=self._now,
                version=version,
                recorded={version: sha_of(version)},
                paused=False,
                slots=slots,
                revision=2,
            )
        )

    def wake(self) -> None:
        """Hear that the update service wants to be asked again."""
        self.hear(ev.WakeupReceived(at=self._now, why="resumed"))

    def recall(self) -> None:
        """Hear that its grant has ended."""
        self.hear(ev.GrantEnded(at=self._now))

    def told_blocks(self, blocked: Mapping[str, str]) -> None:
        """Hear which releases are blocked."""
        self.hear(ev.BlockChanged(at=self._now, versions=blocked))

    def let_fail(self, how: Failing) -> None:
        """Whatever it starts of the version from now on is bad."""
        self.world.failing = how

    def lost_lease(self) -> None:
        """The lease has ended."""
        self.hear(ev.LockLost(at=self._now))

    @property
    def _now(self) -> Any:
        return self._around.agenda.now

    def _rest(self) -> None:
        """Start the sidekick, and answer at once until it rests."""
        todo = list(self._machine.start().actions)
        for action in todo:
            if not isinstance(action, Perform) or action.request is None:
                continue
            event = self.world.answer(cast(AnyEffect, action.effect), action.request)
            if event is not None:
                todo.extend(self._machine.step(event).actions)
        self.world.is_announced = True
        assert self.rests, f"a sidekick without an update comes to rest, and is in {self._machine.state}"

    def _start_timer(self, timer: StartTimer) -> None:
        delay_s = self._steps_s.get(timer.id, timer.delay_s) if timer.id == "soak" else timer.delay_s

        def expired() -> None:
            self.hear(ev.TimerExpired(name=timer.event, at=self._now, generation=timer.generation))

        if (before := self._timers.get(timer.id)) is not None:
            before.call_off()
        self._timers[timer.id] = self._around.agenda.at(delay_s, expired, rests=timer.event in RESTS)

    def _perform(self, effect: AnyEffect, request: int | None) -> None:
        """Do it after the time that it takes."""
        agenda = self._around.agenda
        if isinstance(effect, do.AcquireLock):
            agenda.at(self._around.away_s() + QUICK_S, lambda: self._enqueue(effect, request))
            return
        if isinstance(effect, do.WatchProbe):
            if self.world.failing == "soaking" and effect.url in self.world.sick:
                soak_s = self._steps_s["soak"]
                after_s = soak_s / 2 if self._fails_after_s is None else self._fails_after_s
                agenda.at(after_s, lambda: self.hear(self._probe_failed(request)))
            return
        agenda.at(self._seconds(effect), lambda: self._done(effect, request))

    def _done(self, effect: AnyEffect, request: int | None) -> None:
        asks_etcd = effect.name.startswith(("lock.", "balancer.", "release.check"))
        if asks_etcd and self._around.away_s() and not isinstance(effect, do.DrainBalancer | do.UndrainBalancer):
            event = self._unanswered(effect, request)
            self._around.agenda.at(TIMEOUT_S, lambda: self.hear(event))
            return
        event = self.world.answer(effect, request)
        self._around.changed()
        if event is not None:
            self.hear(event)

    def _seconds(self, effect: AnyEffect) -> float:
        match effect:
            case do.DownloadRelease():
                return self._steps_s["prepare"]
            case do.StartProbe(url=url) if url in self.world.sick and self.world.failing == "probing":
                return self._probe_deadline_s if self._fails_after_s is None else self._fails_after_s
            case do.ConfirmProbe():
                return self._steps_s["probe.start"]
            case do.UndrainBalancer():
                return self._steps_s["balancer.drain"]
            case do.RevertWorkload():
                return self._steps_s.get("workload.replace", 1.0)
            case _:
                return self._steps_s.get(effect.name, QUICK_S)

    def _enqueue(self, effect: do.AcquireLock, request: int | None) -> None:
        if not any(one.request == request for one in self._machine.snapshot().outstanding):
            return  # it has changed its mind meanwhile

        def tell(turn: Turn | None) -> None:
            def told() -> None:
                if turn is None:
                    self.hear(ev.LockRefused(at=self._now, request=request, cause="no grant any more", recalled=True))
                else:
                    self.hear(ev.LockAcquired(at=self._now, request=request, turn=turn))

            if turn is not None:
                self._around.took_turn(self.name)
            self._around.agenda.at(QUICK_S, told)

        self._around.lock.enqueue(self.name, effect.update, tell, lambda: self._around.may_swap(self.name))

    def _probe_failed(self, request: int | None) -> ev.ProbeFailed:
        return ev.ProbeFailed(at=self._now, request=request, cause=SUPPOSED)

    def _unanswered(self, effect: AnyEffect, request: int | None) -> Any:
        at, cause = self._now + timedelta(seconds=TIMEOUT_S), "etcd is away"
        if isinstance(effect, do.CheckRelease):
            return ev.ReleaseFailed(at=at, request=request, cause=cause, error_code=FailureCode.ERROR)
        if effect.name.startswith("balancer."):
            return ev.BalancerFailed(at=at, request=request, cause=cause)
        return ev.LockFailed(at=at, request=request, cause=cause)


def first_memory(name: str, version: str, strategy: Strategy, url: str, around: Surroundings) -> Memory:
    """What the sidekick of an instance knows that runs ``version``."""
    release = Release(version=version, urls=("http://preview/p",), sha256=sha_of(version), size_bytes=1)
    running = Installed(release=release, workload_id=f"{name}-first", url=url)
    return Memory(
        instance=name, app=APP, group=GROUP, scope=SCOPE, strategy=strategy, at=around.agenda.now, running=running
    )
