"""Runs a chart without touching the world: one event in, one ``Step`` out.

A step runs to completion: the event is folded into the memory, a transition is looked for from the inside out, and
then come the events that the chart raised itself, before the next one from outside. What is to be done comes out as
actions in SCXML's order (exit, transition, entry), and this module performs none of them.

Answers and timers can arrive late, when the state that asked has long been left. Therefore every answered effect has
a request number and every timer a generation; what is no longer outstanding is dropped at the door, neither
remembered nor shown to the chart.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, assert_never

from outrider.core.chart.hierarchy import Hierarchy, Move
from outrider.core.chart.model import (
    DONE,
    CancelLater,
    Chart,
    Condition,
    Content,
    RaiseEvent,
    SendEffect,
    SendLater,
)
from outrider.core.chart.step import (
    Action,
    ArmedTimer,
    CancelTimer,
    Effect,
    Event,
    M,
    Outstanding,
    Perform,
    Rules,
    Snapshot,
    StartTimer,
    Step,
)
from outrider.core.errors import ChartError

__all__ = [
    "Action",
    "ArmedTimer",
    "CancelTimer",
    "Effect",
    "Event",
    "Hierarchy",
    "Machine",
    "Outstanding",
    "Perform",
    "Rules",
    "Snapshot",
    "StartTimer",
    "Step",
]

MICROSTEPS = 100
"""The most events that one event may make a chart raise. A sound chart raises two or three; more is a loop."""


@dataclass(slots=True, kw_only=True)
class _Work:
    """One step in the making."""

    actions: list[Action] = field(default_factory=list)
    refused: dict[str, None] = field(default_factory=dict)
    raised: deque[tuple[Event, int]] = field(default_factory=deque)


class Machine(Generic[M]):
    """One run of a chart. Not for two threads."""

    def __init__(self, chart: Chart, rules: Rules[M], memory: M, *, hierarchy: Hierarchy | None = None) -> None:
        """Be ready to start.

        Args:
            hierarchy: One built before for the same chart, to save the milliseconds of building it; machines that
                share one must have the same owner thread.

        Raises:
            ValueError: ``rules`` lacks a name that the chart uses.
        """
        self._hierarchy = hierarchy or Hierarchy(chart)
        _check_rules(chart, self._hierarchy.needed, rules)
        self._chart = chart
        self._rules = rules
        self._memory = memory
        self._remembering = frozenset(history.parent for history in chart.histories.values())
        self._leaf = ""
        self._history: dict[str, str] = {}
        self._outstanding: dict[int, Outstanding] = {}
        self._timers: dict[str, ArmedTimer] = {}
        self._next_request = 1
        self._next_generation = 1

    @classmethod
    def restore(
        cls, chart: Chart, rules: Rules[M], memory: M, snapshot: Snapshot, *, hierarchy: Hierarchy | None = None
    ) -> Self:
        """A machine that goes on where ``snapshot`` was taken. Nothing is entered, so nothing is done.

        Raises:
            ChartError: the snapshot was taken of another chart and names a state that this one hasn't got.
        """
        machine = cls(chart, rules, memory, hierarchy=hierarchy)
        machine.resume(memory, snapshot)
        return machine

    def resume(self, memory: M, snapshot: Snapshot) -> None:
        """Go on where ``snapshot`` was taken, whatever happened until now; else as ``restore``."""
        for leaf in (snapshot.state, *snapshot.history.values()):
            if leaf and (leaf not in self._chart.states or self._chart.states[leaf].children):
                raise ChartError(self._chart.source, None, f"can't go on in {leaf!r}: the chart has no such leaf state")
        self._memory = memory
        self._leaf = snapshot.state
        self._history = dict(snapshot.history)
        self._outstanding = {item.request: item for item in snapshot.outstanding}
        self._timers = {timer.id: timer for timer in snapshot.timers}
        self._next_request = snapshot.next_request
        self._next_generation = snapshot.next_generation

    @property
    def chart(self) -> Chart:
        """The chart that is run."""
        return self._chart

    @property
    def state(self) -> str:
        """The id of the leaf it is in; empty before the start."""
        return self._leaf

    @property
    def memory(self) -> M:
        """What the events so far add up to."""
        return self._memory

    def snapshot(self) -> Snapshot:
        """Where it is, between two steps."""
        return Snapshot(
            state=self._leaf,
            history=dict(self._history),
            outstanding=tuple(self._outstanding.values()),
            timers=tuple(self._timers.values()),
            next_request=self._next_request,
            next_generation=self._next_generation,
        )

    def start(self) -> Step:
        """Enter the initial states.

        Raises:
            ValueError: it was started before.
        """
        if self._leaf:
            raise ValueError(f"the machine is in {self._leaf!r} already")
        work = _Work()
        self._leaf = self._chart.entry_leaf(self._chart.initial)
        self._enter([state.id for state in self._chart.chain(self._leaf)][::-1], work)
        self._run_raised(work, "start")
        return self._step("start", "", work, handled=True)

    def step(self, event: Event) -> Step:
        """Let ``event`` happen, with everything that follows from it at once.

        Raises:
            ValueError: the machine wasn't started, or the chart doesn't know the event.
            ChartError: the chart raises events without end.
        """
        if not self._leaf:
            raise ValueError("the machine must be started first")
        if event.name not in self._chart.events:
            raise ValueError(f"{self._chart.source} knows no event {event.name!r}")
        dropped = self._admit(event)
        if dropped:
            return Step(event_name=event.name, source=self._leaf, target=self._leaf, dropped=dropped)
        work, source = _Work(), self._leaf
        handled = self._take(event, work)
        self._run_raised(work, event.name)
        return self._step(event.name, source, work, handled=handled)

    def _step(self, event_name: str, source: str, work: _Work, *, handled: bool) -> Step:
        return Step(
            event_name=event_name,
            source=source,
            target=self._leaf,
            actions=tuple(work.actions),
            refused=tuple(work.refused),
            handled=handled,
        )

    def _admit(self, event: Event) -> str:
        """Why ``event`` comes too late, or nothing: then its request or timer is used up."""
        if event.request is not None:
            if event.request not in self._outstanding:
                return f"request {event.request} is no longer outstanding"
            if event.final:
                del self._outstanding[event.request]
        if event.generation is not None:
            for timer in self._timers.values():
                if (timer.event, timer.generation) == (event.name, event.generation):
                    del self._timers[timer.id]
                    return ""
            return f"timer {self._timer_of(event.name)} generation {event.generation} was cancelled"
        return ""

    def _timer_of(self, event: str) -> str:
        sends = (item for _, item in self._chart.contents() if isinstance(item, SendLater))
        return next((send.timer for send in sends if send.event == event), event)

    def _run_raised(self, work: _Work, cause: str) -> None:
        names: list[str] = []
        while work.raised:
            event, line = work.raised.popleft()
            names.append(event.name)
            if len(names) > MICROSTEPS:
                last = ", ".join(names[-4:])
                problem = f"{cause!r} raises more than {MICROSTEPS} events; the last: {last}"
                raise ChartError(self._chart.source, line, problem)
            self._take(event, work)

    def _take(self, event: Event, work: _Work) -> bool:
        """One microstep."""
        self._memory = self._rules.remember(self._memory, event)

        def ask(condition: Condition) -> bool:
            if self._rules.guards[condition.guard](self._memory) == condition.wanted:
                return True
            work.refused[condition.text] = None
            return False

        move = Move(_leaf=self._leaf, ask=ask, history=self._history)
        self._hierarchy.fire(move, event.name)
        transition = move.taken
        if transition is None:
            return False
        owner = self._chart.owner(transition)
        self._leave(move.left, owner, work)
        self._leaf = move.leaf
        self._perform(transition.content, owner, work)
        self._enter(move.entered, work)
        return True

    def _leave(self, left: Iterable[str], owner: str, work: _Work) -> None:
        """Run exit content. What it starts belongs to ``owner``, where the transition leads: ``left`` are gone."""
        gone = set(left)
        for request in [item.request for item in self._outstanding.values() if item.state in gone]:
            del self._outstanding[request]
        for state in left:
            if state in self._remembering:
                self._history[state] = self._leaf
            self._perform(self._chart.states[state].onexit, owner, work)

    def _enter(self, entered: Iterable[str], work: _Work) -> None:
        for state in map(self._chart.states.__getitem__, entered):
            self._perform(state.onentry, state.id, work)
            done = f"{DONE}{state.parent}"
            if state.final and state.parent and done in self._rules.internal:
                work.raised.append((self._rules.internal[done](self._memory), state.line))

    def _perform(self, content: Iterable[Content], owner: str, work: _Work) -> None:
        for item in content:
            match item:
                case RaiseEvent():
                    work.raised.append((self._rules.internal[item.event](self._memory), item.line))
                case SendEffect():
                    effect = self._rules.effects[item.effect](self._memory)
                    work.actions.append(Perform(request=self._request(item.effect, owner), effect=effect))
                case SendLater():
                    work.actions.append(self._arm(item, owner))
                case CancelLater():
                    timer = self._timers.pop(item.timer, None)
                    if timer is not None:
                        work.actions.append(CancelTimer(id=timer.id, generation=timer.generation))
                case _:
                    assert_never(item)

    def _request(self, effect: str, owner: str) -> int | None:
        if effect not in self._rules.answered:
            return None
        request = self._next_request
        self._next_request += 1
        self._outstanding[request] = Outstanding(request=request, effect_name=effect, state=owner)
        return request

    def _arm(self, send: SendLater, owner: str) -> StartTimer:
        generation = self._next_generation
        self._next_generation += 1
        delay_s = self._rules.delays(self._memory, send.timer, send.delay_s)
        self._timers[send.timer] = ArmedTimer(
            id=send.timer, generation=generation, event=send.event, delay_s=delay_s, state=owner
        )
        return StartTimer(id=send.timer, generation=generation, event=send.event, delay_s=delay_s)


def _check_rules(chart: Chart, needed: Mapping[str, frozenset[str]], rules: Rules[M]) -> None:
    tables: Mapping[str, Iterable[str]] = {
        "guards": rules.guards,
        "effects": rules.effects,
        "internal": rules.internal,
    }
    for table, names in needed.items():
        missing = sorted(names.difference(tables[table]))
        if missing:
            raise ValueError(f"the rules of {chart.source} lack {table}: {', '.join(missing)}")
