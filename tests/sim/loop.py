"""The sidekick's real loop in simulated time, with a journal in memory."""

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from outrider.core.chart.machine import Hierarchy, Perform, StartTimer, Step
from outrider.core.sidekick.events import AnyEvent
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.rules import make_rules
from outrider.journal.journal import Journal, Record
from outrider.sd_notify import Notifier
from outrider.sidekick.loop import SPREAD_TIMERS, Sidekick
from outrider.statechart import load_sidekick_chart

if TYPE_CHECKING:
    from tests.sim.life import Life

CHART = load_sidekick_chart()
HIERARCHY = Hierarchy(CHART)
RULES = make_rules({"probe": 20.0, "soak": 5.0, "drain": 20.0}, retry_min_s=2.0, retry_max_s=60.0)


class Asleep(Exception):
    """Nothing is due; the loop would sleep."""

    def __init__(self, for_s: float) -> None:
        self.for_s = for_s
        super().__init__(for_s)


class Inbox:
    """What the loop needs of its queue; instead of waiting it says for how long."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()

    def put(self, event: Any) -> None:
        self._events.append(event)

    def get(self, timeout: float) -> Any:
        if self._events:
            return self._events.popleft()
        raise Asleep(timeout)


@dataclass(slots=True)
class Kept:
    """A journal in memory: the newest step only, encoded when somebody reads it."""

    number: int = 0
    at: datetime | None = None
    event: Any = None
    step: Step | None = None
    machine: Any = None
    memory: Memory | None = None

    def record(self) -> Record:
        """The newest step as it would be read from a disk."""
        assert self.step is not None
        assert self.at is not None
        return Record(
            number=self.number,
            at=self.at,
            event=plain(self.event) if self.event is not None else {"name": self.step.event_name},
            source=self.step.source,
            target=self.step.target,
            refused=self.step.refused,
            effects=tuple(
                plain(action.effect) | {"request": action.request}
                for action in self.step.actions
                if isinstance(action, Perform)
            ),
            machine=msgspec.to_builtins(self.machine),
            memory=msgspec.to_builtins(self.memory),
        )


def plain(value: Any) -> dict[str, Any]:
    """Fields and name of an event or effect, as the loop writes them."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {"name": value.name} | fields


class SimLoop(Sidekick):
    """The loop, woken by appointments."""

    def __init__(self, life: "Life", journal: Journal, memory: Memory) -> None:
        self._life = life
        super().__init__(
            CHART,
            RULES,
            memory,
            journal,
            nouns=life.submits,
            show=lambda presence: None,
            consumed=life.announcements.consumed,
            notifier=Notifier(),
            clock=life.unsuspended_s,
            hierarchy=HIERARCHY,
        )
        self._inbox = cast(Any, Inbox())
        self._waking = life.at(0.0, lambda: None)

    @property
    def machine(self) -> Any:
        return self._machine

    def begin(self) -> None:
        """As ``run`` begins."""
        if self._begin():
            self.work()

    def work(self) -> None:
        """Take one event after the other until it would sleep."""
        self._waking.call_off()
        try:
            while not self._life.dead:
                event = self._next()
                assert event is not None
                if not self._settle(cast(AnyEvent, event), self._machine.step(cast(AnyEvent, event))):
                    return
        except Asleep as asleep:
            if self._timers:
                self._waking = self._life.at(asleep.for_s + 1e-6, self.work)  # never no time at all, by rounding

    def _settle(self, event: AnyEvent | None, step: Step) -> bool:
        goes_on = super()._settle(event, step)
        if goes_on and not step.dropped:
            self._life.fleet.acted(self._life.member, step)
        return goes_on

    def _write(self, event: AnyEvent | None, step: Step) -> bool:
        self._life.member.wrote(event, step, self._machine)
        self._life.fleet.journalled(self._life.member, event, step)
        return not self._life.dead

    def _arm(self, timer: StartTimer) -> None:
        """As the loop does, with the fleet's chance."""
        spread = self._life.fleet.random.uniform(1.0, 1.2) if timer.id in SPREAD_TIMERS else 1.0
        super()._arm(replace(timer, id="", delay_s=timer.delay_s * spread))

    def _log(self, step: Step) -> None:
        """The simulator prints what breaks, not what happens."""

    def _present(self) -> None:
        """Nobody decides by presence."""
