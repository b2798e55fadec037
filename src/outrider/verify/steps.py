"""The chart's steps, each taken once by the real machine and looked up from then on.

What tells two states of a sidekick apart here is less than what its journal holds: no time, no texts, counters only as
far as a guard can tell their values apart, request numbers and timer generations counted from 1 again after each step.
A fence is two bits: does it hold the create revision that the slot key has *now*, and the same of the queue key. A
revision never comes back, so a bit that is lost is lost for ever.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from outrider.core import events as ev
from outrider.core.chart_model import Chart
from outrider.core.effects import Effect
from outrider.core.errors import ChartError
from outrider.core.guards import MAX_ATTEMPTS, MAX_RESTARTS
from outrider.core.hierarchy import Hierarchy
from outrider.core.machine import Machine, Perform
from outrider.core.memory import Blame, Fault, Installed, Memory, Release, Strategy, Turn
from outrider.core.rules import make_rules
from outrider.core.step import ArmedTimer, Outstanding, Snapshot

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "1.0.0", "2.0.0"
NOW, BEFORE = "u1", "u0"
"""Ids of the update under way, and of any that ended before."""

INSTANCE = "web"
TURN = Turn(scope="app.g", number=0, slot_revision=1, waiter_revision=1, update=NOW)
SHA = {OLD: "1" * 64, NEW: "2" * 64}


def url_of(workload_id: str) -> str:
    """Where a workload answers: the same after every restart."""
    return f"http://{workload_id}"


def version_of(workload: str) -> str:
    """The version of a workload, by its id or its address."""
    return workload.rsplit("-", 2)[-2]


def aged(workload: str) -> str:
    """The id (or address) once its update is over."""
    return workload.removesuffix(NOW) + BEFORE if workload.endswith(f"-{NOW}") else workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """Where a sidekick's machine is, and what it remembers."""

    memory: Memory
    snapshot: Snapshot

    @property
    def leaf(self) -> str:
        return self.snapshot.state


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One step.

    Attributes:
        brain: Number of the brain after it.
        performs: Effects to be done: their numbers, each with its request (0: nobody waits for an answer).
        requests: Old request number -> new one, for those that are still waited for.
        ended: The update under way ended with it: what is called ``NOW`` is ``BEFORE`` from here on.
        problem: The chart did what the code forbids; empty as a rule.
    """

    brain: int
    performs: tuple[tuple[int, int], ...] = ()
    requests: Mapping[int, int]
    ended: bool = False
    problem: str = ""


class Steps:
    """All steps of one chart under one strategy. Brains and effects are known by small numbers."""

    def __init__(self, chart: Chart, strategy: Strategy, hierarchy: Hierarchy | None = None) -> None:
        self.chart = chart
        self.strategy = strategy
        self.brains: list[Brain] = []
        self.effects: list[Effect] = []
        self._hierarchy = hierarchy or Hierarchy(chart)
        self._rules = make_rules({})
        self._brain_numbers: dict[tuple[object, ...], int] = {}
        self._effect_numbers: dict[Effect, int] = {}
        self._taken: dict[tuple[int, object, str], Taken] = {}
        self._stale: dict[tuple[int, bool], int] = {}
        self._stale_effects: dict[tuple[int, bool], int] = {}
        self._aged_effects: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many different steps were taken."""
        return len(self._taken)

    def start(self) -> Taken:
        """The first step of an instance that serves ``OLD``."""
        release = Release(version=OLD, urls=("http://x/p",), sha256=SHA[OLD], size_bytes=1)
        first = f"{INSTANCE}-{OLD}-{BEFORE}"
        memory = Memory(
            instance=INSTANCE, app="app", group="g", scope="app.g", strategy=self.strategy, at=EPOCH,
            running=Installed(release=release, workload_id=first, url=url_of(first)), wanted=NEW, target_revision=5,
        )  # fmt: skip
        machine = Machine(self.chart, self._rules, memory, hierarchy=self._hierarchy)
        return self._result(machine, machine.start().actions, {}, ended=False)

    def take(self, brain: int, key: object, make: Callable[[], Any], patch: str = "") -> Taken:
        """The step that an event leads to.

        Args:
            key: What tells the event from others; ``make`` builds it the first time.
            patch: ``restarts`` or ``attempts``: let this be the one too many.
        """
        index = (brain, key, patch)
        found = self._taken.get(index)
        if found is None:
            found = self._taken[index] = self._take(self.brains[brain], make(), patch)
        return found

    def _take(self, brain: Brain, event: Any, patch: str) -> Taken:
        memory = brain.memory
        if patch == "restarts":
            memory = replace(memory, restarts=MAX_RESTARTS)
        elif patch == "attempts":
            memory = replace(memory, attempts=MAX_ATTEMPTS)
        machine = Machine.restore(self.chart, self._rules, memory, brain.snapshot, hierarchy=self._hierarchy)
        try:
            step = machine.step(event)
        except (AssertionError, ChartError) as error:
            number = self._brain(brain.memory, brain.snapshot)
            return Taken(brain=number, requests={}, problem=f"{event.name} in {brain.leaf}: {error}")
        ended = bool(memory.update) and not machine.memory.update
        return self._result(
            machine, step.actions, {one.request: one.request for one in brain.snapshot.outstanding}, ended=ended
        )

    def stale(self, brain: int, slot: bool) -> int:
        """The brain once the queue key (or, with ``slot``, the slot key) it knows isn't there any more."""
        index = (brain, slot)
        found = self._stale.get(index)
        if found is None:
            known = self.brains[brain]
            memory = replace(known.memory, turn=_stale(known.memory.turn, slot))
            found = self._stale[index] = self._brain(memory, known.snapshot)
        return found

    def stale_effect(self, effect: int, slot: bool) -> int:
        """The same for an effect under way."""
        index = (effect, slot)
        found = self._stale_effects.get(index)
        if found is None:
            known: Any = self.effects[effect]
            if hasattr(known, "turn"):
                known = replace(known, turn=_stale(known.turn, slot))
            found = self._stale_effects[index] = self._effect(known)
        return found

    def aged_effect(self, effect: int) -> int:
        """An effect under way once its update is over."""
        found = self._aged_effects.get(effect)
        if found is None:
            known: Any = self.effects[effect]
            changes = {field.name: _age(getattr(known, field.name)) for field in fields(known)}
            found = self._aged_effects[effect] = self._effect(replace(known, **changes))
        return found

    def _result(self, machine: Machine[Memory], actions: Any, before: Mapping[int, int], *, ended: bool) -> Taken:
        snapshot = machine.snapshot()
        numbers = {one.request: place for place, one in enumerate(snapshot.outstanding, 1)}
        memory = machine.memory
        if ended:
            memory = replace(
                memory, turn=_age(memory.turn), **{name: _age(getattr(memory, name)) for name in _INSTALLED}
            )  # fmt: skip
        performs = tuple(
            (self._effect(_plain(action.effect)), numbers.get(action.request or 0, 0))
            for action in actions
            if isinstance(action, Perform)
        )
        if ended:
            performs = tuple((self.aged_effect(effect), request) for effect, request in performs)
        return Taken(
            brain=self._brain(memory, snapshot),
            performs=performs,
            requests={old: numbers[old] for old in before if old in numbers},
            ended=ended,
        )

    def _brain(self, memory: Memory, snapshot: Snapshot) -> int:
        memory = _normal(memory)
        outstanding = tuple(
            Outstanding(request=place, effect_name=one.effect_name, state=one.state)
            for place, one in enumerate(snapshot.outstanding, 1)
        )
        timers = tuple(
            ArmedTimer(id=one.id, generation=place, event=one.event, delay_s=0.0, state=one.state)
            for place, one in enumerate(sorted(snapshot.timers, key=lambda timer: timer.id), 1)
        )
        key = (snapshot.state, outstanding, timers, *(_hashable(getattr(memory, name)) for name in _MEMORY))
        number = self._brain_numbers.get(key)
        if number is None:
            number = self._brain_numbers[key] = len(self.brains)
            plain = Snapshot(
                state=snapshot.state, history={}, outstanding=outstanding, timers=timers,
                next_request=100, next_generation=100,
            )  # fmt: skip
            self.brains.append(Brain(memory=memory, snapshot=plain))
        return number

    def _effect(self, effect: Effect) -> int:
        number = self._effect_numbers.get(effect)
        if number is None:
            number = self._effect_numbers[effect] = len(self.effects)
            self.effects.append(effect)
        return number


_INSTALLED = ("running", "candidate", "previous", "leftover")
_MEMORY = tuple(field.name for field in fields(Memory))


def _hashable(value: object) -> object:
    return frozenset(value) if isinstance(value, Mapping) else value


def _plain(effect: Any) -> Any:
    """Without the texts that only people read."""
    return replace(effect, cause="") if hasattr(effect, "cause") else effect


def _stale(turn: Turn | None, slot: bool) -> Turn | None:
    if turn is None:
        return None
    return replace(turn, slot_revision=0, waiter_revision=0) if slot else replace(turn, waiter_revision=0)


def _age(value: Any) -> Any:
    match value:
        case Installed():
            return replace(value, workload_id=aged(value.workload_id), url=aged(value.url))
        case Turn():
            return replace(value, update=BEFORE)
        case str():
            return BEFORE if value == NOW else aged(value)
        case tuple():
            return tuple(_age(one) for one in value)
        case _:
            return value


def _normal(memory: Memory) -> Memory:
    """Forget what no guard, nor any effect that counts here, can ask for any more."""
    under_way, undone = memory.candidate is not None, memory.fault is not None
    blame = memory.trouble.blame if memory.trouble is not None else "world"
    if memory.fault is not None:
        blame = "release" if memory.fault.blame == "release" else "world"
    return replace(
        memory,
        at=EPOCH,
        turn_held=False,
        place=None,
        progress=0.0,
        held_reason="",
        retry_after_s=0.0,
        poll_interval_s=0.0,
        command_revision=0,
        failures=min(memory.failures, 1) if memory.update else 0,
        attempts=0,
        restarts=MAX_RESTARTS + 1 if memory.restarts > MAX_RESTARTS and memory.update and not undone else 0,
        trouble=_FAULTS[blame] if under_way else None,
        fault=_FAULTS["release" if memory.fault.blame == "release" else "world"]
        if memory.fault is not None and memory.update
        else None,
        poisoned=dict.fromkeys(memory.poisoned, ""),
    )


_FAULTS: dict[Blame, Fault] = {
    blame: Fault(blame=blame, cause="", error_code=44) for blame in ("release", "world", "operator")
}


def answer(kind: type[ev.Event], request: int, **facts: Any) -> tuple[object, Callable[[], Any]]:
    """An event with what tells it from others."""
    key = (kind, request, *facts.values())
    return key, lambda: kind(at=EPOCH, request=request or None, **facts)
