"""Which states a chart leaves and enters: the one place that knows the ``transitions`` package.

``transitions``' hierarchical machine is used as the configuration engine and for nothing else: no queue, no timeouts,
no ``on_final`` (it bubbles to all ancestors), no ``on_enter_<state>`` magic, no registered model (registering adds
some hundred attributes named after events and states, which may clash). Its callbacks only append to the lists of a
``Move``, so that no exception can leave a transition half done. On the profile that ``load.py`` lets through this is
SCXML: ``tests/core/chart/test_oracle.py`` compares it with another engine on random charts.

What an event does hangs on the leaf, the histories and what the guards say, and on nothing else. So ``transitions`` is
asked once for each of these, half a millisecond of CPU, and from then on the move is looked up.

The nested machine keeps its scope in the machine object while it works: one ``Hierarchy`` has one owner thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transitions.extensions.nesting import HierarchicalMachine, NestedState

from outrider.core.chart.checks import remembered_child
from outrider.core.chart.model import DONE, Chart, Condition, History, RaiseEvent, SendEffect, State, Transition

LEAF = "_leaf"
"""The attribute of a ``Move`` that holds the state. No event may be called like it, and none can: they start a-z."""


_Key = tuple[Any, ...]
"""Leaf, event, and each parent with the leaf in which it was last left."""


@dataclass(slots=True, kw_only=True)
class Move:
    """What one event did to the configuration, and in which order.

    Attributes:
        ask: Asked for each condition that is come to.
        history: Parent -> leaf in which it was last left.
        left: States that were left, from the inside out.
        taken: The transition that was taken.
        entered: States that were entered, from the outside in.
    """

    _leaf: str
    ask: Callable[[Condition], bool]
    history: Mapping[str, str]
    left: list[str] = field(default_factory=list)
    taken: Transition | None = None
    entered: list[str] = field(default_factory=list)

    @property
    def leaf(self) -> str:
        """The leaf one is in."""
        return self._leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """A move that was made before; attributes as of ``Move``."""

    leaf: str
    left: tuple[str, ...]
    taken: Transition | None
    entered: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A condition that is asked next, and what follows from each of its answers that was given before."""

    condition: Condition
    answers: "dict[bool, _Question | _Moved]" = field(default_factory=dict)


class _DottedState(NestedState):
    # The default is "_": it would make a child "b" of a state called "a_b".
    separator = "."


class _DottedMachine(HierarchicalMachine):
    state_cls = _DottedState


class Hierarchy:
    """The configuration engine of one chart; holds no state of a run, so that several machines may share it.

    Attributes:
        needed: What the chart names and rules must have, by table: ``guards``, ``effects``, ``internal``.
    """

    def __init__(self, chart: Chart) -> None:
        """Build it: some milliseconds."""
        self._chart = chart
        # An id leaves abstract states out; ``transitions`` knows a state by the whole path to it.
        self._paths = {state: chart.path(state) for state in chart.states}
        self._ids = {path: state for state, path in self._paths.items()}
        self._machine = _DottedMachine(
            model=None,
            states=[self._describe(top) for top in chart.tops],
            initial=None,
            queued=False,
            auto_transitions=False,
            ignore_invalid_triggers=True,
            send_event=True,
            model_attribute=LEAF,
        )
        for transition in chart.transitions:
            for event in transition.events:
                self._add(event, transition)
        self.needed = _needed(chart)
        self._known: dict[_Key, _Question | _Moved] = {}
        self._listeners = frozenset((item.source, event) for item in chart.transitions for event in item.events)

    def fire(self, move: Move, event: str) -> bool:
        """Let ``event`` happen at ``move.leaf`` and record in ``move`` what it does.

        Returns:
            Whether a transition was taken.
        """
        key = (move._leaf, event, *move.history.items())
        known = self._known.get(key)
        while isinstance(known, _Question):
            known = known.answers.get(move.ask(known.condition))
        if known is None:
            known = self._work_out(key, move, event)
        move._leaf, move.taken = known.leaf, known.taken
        move.left += known.left
        move.entered += known.entered
        return move.taken is not None

    def _work_out(self, key: _Key, move: Move, event: str) -> _Moved:
        """Let ``transitions`` make a move on a copy of ``move``, and keep it beside what was asked on the way."""
        asked: list[tuple[Condition, bool]] = []

        def ask(condition: Condition) -> bool:
            asked.append((condition, move.ask(condition)))
            return asked[-1][1]

        trial = Move(_leaf=self._paths[move._leaf], ask=ask, history=move.history)
        # An event that no active state listens to would be logged as a warning by transitions.
        if any((state.id, event) in self._listeners for state in self._chart.chain(move._leaf)):
            self._machine.trigger_event(trial, event)
        moved = _Moved(
            leaf=self._ids[trial._leaf], left=tuple(trial.left), taken=trial.taken, entered=tuple(trial.entered)
        )
        place: dict[Any, Any] = self._known
        step: object = key
        for condition, answer in asked:
            place = place.setdefault(step, _Question(condition=condition)).answers
            step = answer
        place[step] = moved
        return moved

    def _describe(self, state: State) -> dict[str, object]:
        return {
            "name": state.name,
            "initial": self._chart.states[state.initial].name if state.initial else None,
            "children": [self._describe(self._chart.states[child]) for child in state.children],
            "on_exit": [partial(_note_left, state.id)],
            "on_enter": [partial(_note_entered, state.id)],
        }

    def _add(self, event: str, transition: Transition) -> None:
        """Add it once; a transition to a history once for each state that may be remembered, and for the default."""
        history = self._chart.histories.get(transition.target or "")
        if history is None:
            self._add_one(event, transition, transition.target, None)
            return
        inside = [leaf.id for leaf in self._chart.leaves if self._chart.within(leaf.id, history.parent)]
        for remembered in dict.fromkeys(remembered_child(history, leaf) for leaf in inside):
            self._add_one(event, transition, remembered, partial(_remembers, history, remembered))
        self._add_one(event, transition, history.default, partial(_remembers, history, None))

    def _add_one(
        self, event: str, transition: Transition, target: str | None, recall: Callable[..., bool] | None
    ) -> None:
        # The memory is asked before the guards: of all copies of a transition only one comes to them.
        conditions: list[str | Callable[..., bool | None]] = [] if recall is None else [recall]
        conditions += [partial(_allows, condition) for condition in transition.conditions]
        after = partial(_note_taken, transition)
        source, to = self._paths[transition.source], None if target is None else self._paths[target]
        self._machine.add_transition(event, source, to, conditions=conditions, after=after)


def _needed(chart: Chart) -> Mapping[str, frozenset[str]]:
    contents = [item for _, item in chart.contents()]
    heard = {event for transition in chart.transitions for event in transition.events}
    raised = {item.event for item in contents if isinstance(item, RaiseEvent)}
    return {
        "guards": frozenset(condition.guard for way in chart.transitions for condition in way.conditions),
        "effects": frozenset(item.effect for item in contents if isinstance(item, SendEffect)),
        "internal": frozenset(raised | {event for event in heard if event.startswith(DONE)}),
    }


def _note_left(state: str, moment: Any) -> None:
    moment.model.left.append(state)


def _note_entered(state: str, moment: Any) -> None:
    moment.model.entered.append(state)


def _note_taken(transition: Transition, moment: Any) -> None:
    moment.model.taken = transition


def _allows(condition: Condition, moment: Any) -> bool:
    move: Move = moment.model
    return move.ask(condition)


def _remembers(history: History, state: str | None, moment: Any) -> bool:
    """Whether ``history`` leads to ``state`` now (None: nothing is remembered yet)."""
    move: Move = moment.model
    leaf = move.history.get(history.parent)
    return state == (None if leaf is None else remembered_child(history, leaf))
