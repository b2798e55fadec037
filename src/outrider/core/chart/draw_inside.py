"""One state's inside as a chart of its own, to be laid out as the path is: what it leads to elsewhere has no inside.

Where the success path leads through the state, that is the line down. Elsewhere it is what comes first in the document:
the first transition of each leaf that leads to another leaf.
"""

from dataclasses import replace

from outrider.core.chart.draw import main_road
from outrider.core.chart.model import Chart, State

ELSEWHERE = "goes on there"
"""What a state says that is only pointed at."""


def only_inside(chart: Chart, top: str) -> Chart:
    """The part of ``chart`` that lies in ``top``, with the states elsewhere that it leads to.

    Args:
        chart: Flattened.

    Raises:
        KeyError: it has no such state.
    """
    state = chart.states[top]
    ways = [way for one in chart.states.values() if chart.within(one.id, top) for way in one.transitions]
    targets = [way.target for way in ways if way.target is not None]
    histories = {target: chart.histories[target] for target in targets if target in chart.histories}
    far = {chart.entry_leaf(target) for target in targets if target not in histories and not chart.within(target, top)}
    kept = {one.id for one in chart.states.values() if chart.within(one.id, top)}
    ends = {*far, top, *(history.parent for history in histories.values())}
    around = {one.id for end in ends for one in chart.chain(end)} - kept
    states = {
        one.id: one if one.id in kept else _bare(one, kept | around)
        for one in chart.states.values()
        if one.id in kept | around
    }
    part = replace(chart, initial=state.id, states=states, histories=histories)
    if not any(way.success for way in part.transitions):
        part = _with_road(part, chart.entry_leaf(top), kept)
    return part


def _bare(state: State, kept: set[str]) -> State:
    children = tuple(child for child in state.children if child in kept)
    initial = state.initial if state.initial in kept else next(iter(children), "")
    return replace(
        state, children=children, initial=initial, transitions=(), onentry=(), onexit=(),
        why="" if children else ELSEWHERE,
    )  # fmt: skip


def _with_road(chart: Chart, leaf: str, inside: set[str]) -> Chart:
    """``chart`` with its main road marked as a path, from ``leaf`` to where it leaves the state or comes back."""
    states, seen = dict(chart.states), {leaf}
    while leaf in inside:
        ways = [way for way in main_road(states[leaf]) if way.target in chart.states]
        step = next((way for way in ways if chart.entry_leaf(way.target or "") not in seen), None)
        if step is None:
            break
        states[leaf] = replace(
            states[leaf],
            transitions=tuple(replace(way, success=way is step) for way in states[leaf].transitions),
        )
        leaf = chart.entry_leaf(step.target or "")
        seen.add(leaf)
    return replace(chart, states=states)
