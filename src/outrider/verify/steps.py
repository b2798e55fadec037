"""The chart's steps, each taken once by the real machine and looked up from then on.

What tells two states of a sidekick apart here is less than what its journal holds: no time, no texts, counters only as
far as a guard can tell their values apart, request numbers and timer generations counted from 1 again after each step.
A fence is two bits: does it hold the create revision that the slot key has *now*, and the same of the queue key. A
revision never comes back, so a bit that is lost is lost forever.

The new release is a new version, or (``NEW_ENVIRONMENT``) the same payload with another environment. The chart then
sees what it sees in a fleet; but effects, and ids of workloads, name it ``NEW`` here, so that the world is the same.

The update under way is called ``NOW``. When it ends, its workload becomes the last one of its version (``BEFORE``),
and what was the last one until then becomes one of the older ones, which nobody needs to tell apart any more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from outrider.core.chart.hierarchy import Hierarchy, Move
from outrider.core.chart.machine import Machine, Perform
from outrider.core.chart.model import Chart, Transition
from outrider.core.chart.step import ArmedTimer, Outstanding, Snapshot
from outrider.core.errors import ChartError
from outrider.core.omaha import FailureCode
from outrider.core.release import ReleaseId
from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import Effect
from outrider.core.sidekick.guards import MAX_ATTEMPTS, MAX_RESTARTS, has_analysis
from outrider.core.sidekick.memory import AfterUndecided, Fault, Installed, Memory, Release, Strategy, Turn
from outrider.core.sidekick.remember import LOST_LEASE
from outrider.core.sidekick.rules import make_rules

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "1.0.0", "2.0.0"
NOW, BEFORE, OLDER = "u1", "u0", "ux"
"""Ids of the update under way, of the last one that ended (with the same version), and of any before that."""

DRAIN = "drain"
"""The id of a drain, and of its turn."""

INSTANCE = "web"
TURN = Turn(scope="turns/app/g", number=0, slot_revision=1, waiter_revision=1, update=NOW)
SHA = {OLD: "1" * 64, NEW: "2" * 64}
NEW_ENVIRONMENT = Release(
    version=OLD, urls=("http://x/p",), sha256=SHA[OLD], size_bytes=1, environment=2, environment_digest="e" * 64
)
"""The old version with another environment, in the place of ``NEW``."""


def version_of(workload: str) -> str:
    """The version of a workload, by its id or its address."""
    return workload.rsplit("-", 2)[-2]


def id_of(url: str) -> str:
    """The workload that answers at an address."""
    return url.removeprefix("http://").rpartition(":")[0]


def address(workload_id: str, last: str) -> str:
    """Where a workload answers that is started afresh, and answered at ``last`` before: never there again."""
    return f"http://{workload_id}:{2 if last.endswith(':1') else 1}"


def aged(text: str, version: str) -> str:
    """An id or address once the update to ``version`` is over."""
    if text == NOW:
        return BEFORE
    return text.replace(f"-{version}-{BEFORE}", f"-{version}-{OLDER}").replace(
        f"-{version}-{NOW}", f"-{version}-{BEFORE}"
    )


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
        ended: The version of the update that ended with it: whatever but the brain is still to be ``aged``.
        given: What of the memory that is left out here made it take this step and no other; empty as a rule.
        problem: The chart did what it mustn't; empty as a rule.
    """

    brain: int
    performs: tuple[tuple[int, int], ...] = ()
    requests: Mapping[int, int]
    ended: str = ""
    given: str = ""
    problem: str = ""


class _Watched(Hierarchy):
    """Notes which transitions are taken."""

    def __init__(self, chart: Chart) -> None:
        super().__init__(chart)
        self.taken: dict[int, Transition] = {}

    def fire(self, move: Move, event: str) -> bool:
        fired = super().fire(move, event)
        if move.taken is not None:
            self.taken[id(move.taken)] = move.taken
        return fired


class Steps:
    """All steps of one chart under one strategy. Brains and effects are known by small numbers.

    Attributes:
        new: The release that is rolled out.
    """

    def __init__(self, chart: Chart, strategy: Strategy, *, environment: bool = False) -> None:
        """``environment``: what is rolled out is a new environment, and no new version."""
        self.chart = chart
        self.strategy = strategy
        self.new = NEW_ENVIRONMENT if environment else replace(NEW_ENVIRONMENT, version=NEW, sha256=SHA[NEW],
                                                               environment=0, environment_digest="")  # fmt: skip
        self.brains: list[Brain] = []
        self.effects: list[Effect] = []
        self._hierarchy = _Watched(chart)
        rules = make_rules({})
        self._rules = replace(rules, internal={**rules.internal, ev.UpdateFailed.name: self._failed})
        self._is_judged_twice = False
        self._brain_numbers: dict[tuple[object, ...], int] = {}
        self._effect_numbers: dict[Effect, int] = {}
        self._taken: dict[tuple[int, object], tuple[Taken, ...]] = {}
        self._stale: dict[tuple[int, bool], int] = {}
        self._stale_effects: dict[tuple[int, bool], int] = {}
        self._aged_effects: dict[tuple[int, str], int] = {}

    @property
    def count(self) -> int:
        """How many different steps were taken."""
        return len(self._taken)

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The transitions of the chart that were taken in any of them."""
        return tuple(self._hierarchy.taken.values())

    def start(self, *, fresh: bool = False, analysis: AfterUndecided = "") -> Taken:
        """The first step of an instance that serves ``OLD``, or (``fresh``) of one that serves nothing yet."""
        release = Release(version=OLD, urls=("http://x/p",), sha256=SHA[OLD], size_bytes=1)
        first = f"{INSTANCE}-{OLD}-{BEFORE}"
        memory = Memory(
            instance=INSTANCE, app="app", group="g", scope="turns/app/g", strategy=self.strategy, at=EPOCH,
            running=None if fresh else Installed(release=release, workload_id=first, url=address(first, "")),
            wanted=self.new.label, target_revision=5, analysis=analysis,
        )  # fmt: skip
        self._machine = Machine(self.chart, self._rules, memory, hierarchy=self._hierarchy)
        return self._result(self._machine.start().actions, {})

    def name_of(self, release: Release | ReleaseId) -> str:
        """``OLD`` or ``NEW``."""
        return NEW if release.label == self.new.label else release.version

    def target(self, name: str | None, *, paused: bool) -> ev.TargetChanged:
        """The event that the group's target is ``OLD``, ``NEW`` or nothing now."""
        if name == NEW:
            label = "" if self.new.id.is_plain else self.new.label
            return ev.TargetChanged(
                at=EPOCH, version=self.new.version, release=label, paused=paused, slots=1, revision=5
            )  # fmt: skip
        return ev.TargetChanged(at=EPOCH, version=name, paused=paused, slots=1, revision=5)

    def take(self, brain: int, key: object, make: Callable[[], Any]) -> tuple[Taken, ...]:
        """The steps that an event may lead to: several where a counter decides, for counters are left out here.

        Args:
            key: What tells the event from others; ``make`` builds it the first time.
        """
        index = (brain, key)
        found = self._taken.get(index)
        if found is None:
            event = make()
            found = self._taken[index] = tuple(self._take_all(self.brains[brain], event))
        return found

    def _take_all(self, brain: Brain, event: Any) -> Iterator[Taken]:
        yield self._take(brain, event, brain.memory)
        for guard, given, counted in _COUNTERS:
            heard = (one for state in self.chart.chain(brain.leaf) for one in state.transitions)
            if any(event.name in one.events and guard in (asked.guard for asked in one.conditions) for one in heard):
                yield replace(self._take(brain, event, replace(brain.memory, **counted)), given=given)

    def _take(self, brain: Brain, event: Any, memory: Memory) -> Taken:
        machine = self._machine
        machine.resume(memory, brain.snapshot)
        self._is_judged_twice = False
        try:
            step = machine.step(event)
        except (AssertionError, ChartError) as error:
            problem = f"the chart asks for what can't be: {event.name} in {brain.leaf}: {error}"
            return Taken(brain=self._brain(brain.memory, brain.snapshot), requests={}, problem=problem)
        over = memory.update and not machine.memory.update
        known = machine.memory.running if memory.candidate is None else memory.candidate
        ended = version_of(known.workload_id) if over and known is not None else ""
        before = {one.request: one.request for one in brain.snapshot.outstanding}
        asked = [action.effect for action in step.actions if isinstance(action, Perform)]
        problem = "an update gets its verdict twice" if self._is_judged_twice else _broken_rule(machine.memory, asked)
        problem = problem or _unproved(memory, machine.memory, event)
        return self._result(step.actions, before, ended=ended, problem=problem)

    def _failed(self, memory: Memory) -> ev.UpdateFailed:
        self._is_judged_twice = bool(memory.update) and memory.fault is not None
        return ev.UpdateFailed(at=memory.at)

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

    def aged_effect(self, effect: int, version: str) -> int:
        """An effect under way once the update to ``version`` is over."""
        index = (effect, version)
        found = self._aged_effects.get(index)
        if found is None:
            known: Any = self.effects[effect]
            changes = {field.name: _age(getattr(known, field.name), version) for field in fields(known)}
            found = self._aged_effects[index] = self._effect(replace(known, **changes))
        return found

    def _result(self, actions: Any, before: Mapping[int, int], *, ended: str = "", problem: str = "") -> Taken:
        snapshot = self._machine.snapshot()
        numbers = {one.request: queue_position for queue_position, one in enumerate(snapshot.outstanding, 1)}
        memory = self._machine.memory
        if ended:
            memory = replace(memory, **{name: _age(getattr(memory, name), ended) for name in _NAMING})
        memory = replace(memory, **{name: self._named(getattr(memory, name)) for name in _INSTALLED})
        performs = tuple(
            (self._effect(self._named(_plain(action.effect))), numbers.get(action.request or 0, 0))
            for action in actions
            if isinstance(action, Perform)
        )
        return Taken(
            brain=self._brain(memory, snapshot),
            performs=performs,
            requests={old: numbers[old] for old in before if old in numbers},
            ended=ended,
            problem=problem,
        )

    def _named(self, value: Any) -> Any:
        """The same with the name ``NEW`` for a release that is a new environment: an effect, or what it holds."""
        if self.new.version == NEW:
            return value
        match value:
            case Installed():
                if value.release.label != self.new.label:
                    return value
                return replace(value, workload_id=value.workload_id.replace(f"-{OLD}-", f"-{NEW}-"))
            case Effect():
                known: Any = value
                changes = {one.name: self._told(getattr(known, one.name)) for one in fields(known)}
                named = getattr(known, "release", None)
                if "version" in changes and isinstance(named, Release | ReleaseId) and self.name_of(named) == NEW:
                    changes["version"] = NEW
                return replace(known, **changes)
            case _:
                return value

    def _told(self, value: Any) -> Any:
        match value:
            case Release():
                return replace(value, version=self.name_of(value))
            case Installed():
                return replace(self._named(value), release=self._told(value.release))
            case tuple():
                return tuple(self._told(one) for one in value)
            case str():
                return NEW if value == self.new.label else value
            case _:
                return value

    def _brain(self, memory: Memory, snapshot: Snapshot) -> int:
        memory = _normal(memory)
        outstanding = tuple(
            Outstanding(request=queue_position, effect_name=one.effect_name, state=one.state)
            for queue_position, one in enumerate(snapshot.outstanding, 1)
        )
        timers = tuple(
            ArmedTimer(id=one.id, generation=queue_position, event=one.event, delay_s=0.0, state=one.state)
            for queue_position, one in enumerate(sorted(snapshot.timers, key=lambda timer: timer.id), 1)
        )
        recorded = frozenset(memory.recorded.items())
        key = (snapshot.state, outstanding, timers, frozenset(memory.blocked), recorded, _PLAIN(memory))
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


_COUNTERS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("may_fetch_again", "for the last time", {"attempts": MAX_ATTEMPTS}),
    ("is_crash_looping", "too many restarts", {"restarts": MAX_RESTARTS + 1, "trouble": None}),
    ("must_cool", "after failures", {"failures": 1}),
)
"""Guards that ask a counter; what it means when they say something else than with 0; how to make them."""

_INSTALLED = ("running", "candidate", "previous", "leftover")
_NAMING = ("running", "candidate", "previous", "leftover", "turn", "former_urls")
_PLAIN = attrgetter(*(field.name for field in fields(Memory) if field.name not in ("blocked", "recorded")))
"""All of a memory that can be hashed."""


def _plain(effect: Any) -> Any:
    """Without the texts that only people read."""
    return replace(effect, cause="") if hasattr(effect, "cause") else effect


def _stale(turn: Turn | None, slot: bool) -> Turn | None:
    if turn is None:
        return None
    return replace(turn, slot_revision=0, waiter_revision=0) if slot else replace(turn, waiter_revision=0)


def _age(value: Any, version: str) -> Any:
    match value:
        case Installed():
            return replace(value, workload_id=aged(value.workload_id, version), url=aged(value.url, version))
        case Turn():
            return replace(value, update=BEFORE)
        case str():
            return aged(value, version)
        case tuple():
            return tuple(_age(one, version) for one in value)
        case _:
            return value


def _fits(memory: Memory) -> bool:
    return memory.candidate is None or memory.candidate.release.kind in memory.kinds


def _broken_rule(memory: Memory, asked: Sequence[object]) -> str:
    """What an update must never do, whatever else holds."""
    if any(isinstance(effect, do.DownloadRelease | do.AcquireLock) for effect in asked) and not _fits(memory):
        return "what the runtime can't run is fetched, or asks for a turn"
    if memory.update and memory.candidate is None and memory.fault is not None:
        return "an update is rolled back after its commit (design, section 3, rule 10)"
    return ""


def _unproved(before: Memory, after: Memory, event: Any) -> str:
    """No data never passes: an analysed release counts once its analysis has passed, or where undecided may pass."""
    candidate = before.candidate
    if candidate is None or not has_analysis(before) or after.candidate is not None or after.running is None:
        return ""
    if after.running.release.label != candidate.release.label or isinstance(event, ev.AnalysisPassed):
        return ""
    accepted = before.analysis == "pass" or before.accepted == candidate.release.label
    if isinstance(event, ev.AnalysisUndecided | ev.TimerExpired) and accepted:
        return ""
    return f"{candidate.release.label} is committed after {event.name}: no data never passes"


def _normal(memory: Memory) -> Memory:
    """Forget what no guard, nor any effect that counts here, can ask for any more."""
    trouble, fault = memory.fault or memory.trouble, memory.fault
    return replace(
        memory,
        at=EPOCH,
        queue_position=None,
        notice="",
        drain=replace(memory.drain, since=EPOCH) if memory.drain is not None else None,
        progress=0.0,
        sample="",
        deferred_reason="",
        given_up="",
        retry_after_s=0.0,
        poll_interval_s=0.0,
        command_revision=0,
        failures=0,
        attempts=0,
        restarts=0,
        trouble=_plain_fault(trouble) if trouble is not None and memory.candidate is not None else None,
        fault=_plain_fault(fault) if fault is not None and memory.update else None,
        blocked=dict.fromkeys(memory.blocked, ""),
        setback=replace(memory.setback, cause="") if memory.setback is not None and memory.setback.final else None,
    )


def _plain_fault(fault: Fault) -> Fault:
    """Who is to blame, whether it is nothing but a lost lease, and whether it is no verdict."""
    cause = LOST_LEASE if fault.cause.startswith(LOST_LEASE) else ""
    undecided = FailureCode.UNDECIDED  # ``remember`` asks for it
    code = undecided if fault.error_code == undecided else FailureCode.ROLLED_BACK
    return Fault(blame=fault.blame, cause=cause, error_code=code, lasts=fault.lasts)


def answer(kind: type[ev.Event], request: int, /, **facts: Any) -> tuple[object, Callable[[], Any]]:
    """An event with what tells it from others."""
    key = (kind, request, *facts.values())
    return key, lambda: kind(at=EPOCH, request=request or None, **facts)
