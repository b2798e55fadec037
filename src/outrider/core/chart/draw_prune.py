"""A chart without what can't happen once some guards are known: the part of it that one strategy can reach."""

from collections.abc import Mapping
from dataclasses import replace

from outrider.core.chart.checks import reachable_leaves
from outrider.core.chart.model import Chart, Condition, State, Transition


def prune(chart: Chart, said: Mapping[str, bool]) -> Chart:
    """What is left of ``chart`` when guards always answer the same.

    Transitions that they refuse go. So do transitions behind one that is now always taken, and conditions that always
    hold. In the end every state and history goes to which nothing leads any more. It is for drawings: it isn't checked
    again.

    Args:
        said: Answers by name of guard; every other guard may say either.
    """
    leaves = frozenset(leaf.id for leaf in chart.leaves)
    while True:
        # A state that can't be reached may be the only one that leaves a transition of its parent to be taken.
        slim = _with_transitions(chart, _taken(chart, said, leaves), said)
        reached = reachable_leaves(slim)
        if reached == leaves:
            return _without_unreached(slim, leaves)
        leaves = reached


def _taken(chart: Chart, said: Mapping[str, bool], leaves: frozenset[str]) -> Mapping[Transition, set[str]]:
    """Every transition that some leaf can take, with the events for which it can."""
    found: dict[Transition, set[str]] = {}
    for leaf in sorted(leaves):
        asked: dict[str, list[frozenset[Condition]]] = {}
        for way in (way for state in chart.chain(leaf) for way in state.transitions):
            if any(said.get(condition.guard, condition.wanted) != condition.wanted for condition in way.conditions):
                continue
            conditions = frozenset(_open(way, said))
            for event in way.events:
                # Whenever this one could be taken, an earlier one that asks for no more than it already is.
                if not any(earlier <= conditions for earlier in asked.setdefault(event, [])):
                    found.setdefault(way, set()).add(event)
                asked[event].append(conditions)
    return found


def _open(way: Transition, said: Mapping[str, bool]) -> tuple[Condition, ...]:
    """The conditions that are still a question."""
    return tuple(condition for condition in way.conditions if condition.guard not in said)


def _with_transitions(chart: Chart, taken: Mapping[Transition, set[str]], said: Mapping[str, bool]) -> Chart:
    def left(way: Transition) -> Transition:
        events = tuple(event for event in way.events if event in taken[way])
        written = tuple(word for word in way.written if any(_matches(word, event) for event in events))
        return replace(way, written=written, events=events, conditions=_open(way, said))

    return replace(
        chart,
        states={
            state.id: replace(state, transitions=tuple(left(way) for way in state.transitions if taken.get(way)))
            for state in chart.states.values()
        },
    )


def _matches(descriptor: str, event: str) -> bool:
    """As in SCXML: a name, or what it begins with (``error.*``, ``*``)."""
    stem = descriptor.removesuffix("*").removesuffix(".")
    return not stem or event == stem or event.startswith(f"{stem}.")


def _without_unreached(chart: Chart, leaves: frozenset[str]) -> Chart:
    kept = {state.id for leaf in leaves for state in chart.chain(leaf)}
    entered = {way.target for state in chart.states.values() if state.id in kept for way in state.transitions}

    def left(state: State) -> State:
        # A state that is only entered through its children may have lost the one in which it would begin.
        initial = state.initial if state.initial in kept else ""
        return replace(state, initial=initial, children=tuple(child for child in state.children if child in kept))

    return replace(
        chart,
        states={state.id: left(state) for state in chart.states.values() if state.id in kept},
        histories={history.id: history for history in chart.histories.values() if history.id in entered},
    )
