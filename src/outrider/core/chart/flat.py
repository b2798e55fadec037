"""A chart without its abstract states: each of their children has their transitions itself, after its own.

It does the same as the chart it was made from. Pictures are drawn from it, because a picture shows states that one
can be in.
"""

from collections.abc import Iterator
from dataclasses import replace

from outrider.core.chart.model import Chart, State, Transition


def flattened(chart: Chart) -> Chart:
    """``chart`` with the transitions of abstract states written out. Ids and lines stay as they are."""
    if not any(state.abstract for state in chart.states.values()):
        return chart
    return replace(
        chart,
        initial=_first_concrete(chart, chart.initial),
        states={state.id: _flat(chart, state) for state in chart.states.values() if not state.abstract},
    )


def _flat(chart: Chart, state: State) -> State:
    inherited: list[Transition] = []
    parent = state.parent
    while parent and chart.states[parent].abstract:
        # The children of an abstract state leave nothing else when they go to each other: internal means the same here.
        inherited += [replace(way, source=state.id, internal=False) for way in chart.states[parent].transitions]
        parent = chart.states[parent].parent
    return replace(
        state,
        parent=parent,
        initial=_first_concrete(chart, state.initial) if state.initial else "",
        children=tuple(_concrete(chart, state.children)),
        transitions=tuple(_landing(chart, way) for way in (*state.transitions, *inherited)),
    )


def _landing(chart: Chart, way: Transition) -> Transition:
    """Whoever enters an abstract state comes to be in its first child."""
    if way.target is None or way.target in chart.histories:
        return way
    return replace(way, target=_first_concrete(chart, way.target))


def _first_concrete(chart: Chart, state: str) -> str:
    while chart.states[state].abstract:
        state = chart.states[state].initial
    return state


def _concrete(chart: Chart, children: tuple[str, ...]) -> Iterator[str]:
    for child in children:
        if chart.states[child].abstract:
            yield from _concrete(chart, chart.states[child].children)
        else:
            yield child
