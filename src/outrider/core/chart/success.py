"""The success path of a chart: what happens, one after the other, when nothing goes wrong.

The chart declares it (``o:success="true"`` on transitions), and a chart whose path has a gap, a circle or a step that
is never reached is refused at load. Guards may split it, as a strategy does: then every answer they can give must lead
to the same end.
"""

from collections.abc import Iterator, Mapping
from itertools import product

from outrider.core.chart.model import Chart, Transition
from outrider.core.errors import ChartError

Problem = tuple[int, str]


def success_path(chart: Chart) -> tuple[Transition, ...]:
    """The steps of the success path, from its beginning to its end; empty when the chart declares none.

    Raises:
        ChartError: guards split the path. ``prune`` the chart by what they say first.
    """
    steps = []
    leaf = path_begin(chart)
    while ways := _ways_on(chart, leaf):
        if len(ways) > 1:
            guards = ", ".join(sorted({condition.guard for way in ways for condition in way.conditions}))
            problem = f"the success path splits at {leaf!r}, and a drawing needs one: decide {guards} by a strategy"
            raise ChartError(chart.source, ways[1].line, problem)
        steps.append(ways[0])
        leaf = _lands(chart, ways[0])
    return tuple(steps)


def path_begin(chart: Chart) -> str:
    """The leaf in which the success path begins; empty when the chart declares none."""
    begins = _begins(chart)
    return chart.entry_leaf(begins[0].source) if begins else ""


def success_problems(chart: Chart) -> Iterator[Problem]:
    """What is wrong with the success path that ``chart`` declares."""
    steps = [way for way in chart.transitions if way.success]
    for way in steps:
        if way.target is None or way.target in chart.histories:
            yield way.line, 'o:success="true" needs a target that is a state'
            return
    begins = _begins(chart)
    if steps and not begins:
        yield steps[0].line, "the success path goes round in a circle: it needs a state where it begins"
    if len({way.source for way in begins}) > 1:
        yield (
            begins[1].line,
            f"no step of the success path leads to {begins[1].source!r}; it begins in {begins[0].source!r}",
        )
    if len({way.source for way in begins}) == 1:
        yield from _broken(chart, steps)


def _broken(chart: Chart, steps: list[Transition]) -> Iterator[Problem]:
    """Walks the path for all answers of the guards that split it."""
    splits = [ways for leaf in chart.leaves if len(ways := _ways_on(chart, leaf.id)) > 1]
    guards = sorted({condition.guard for ways in splits for way in ways for condition in way.conditions})
    walked: set[Transition] = set()
    first_end = ""
    for answers in product((True, False), repeat=len(guards)):
        said = dict(zip(guards, answers, strict=True))
        leaf, seen = path_begin(chart), set[str]()
        while leaf not in seen:
            seen.add(leaf)
            ways = _ways_on(chart, leaf)
            way = ways[0] if len(ways) == 1 else next((way for way in ways if _holds(way, said)), None)
            if way is None:
                break
            walked.add(way)
            leaf = _lands(chart, way)
        else:
            yield chart.states[leaf].line, f"the success path goes round in a circle through {leaf!r}"
            return
        first_end = first_end or leaf
        if leaf != first_end:
            yield chart.states[leaf].line, f"the success path breaks off at {leaf!r}; it also ends at {first_end!r}"
            return
    for way in steps:
        if way not in walked:
            yield way.line, f"this step of the success path is never reached: nothing leads to {way.source!r} there"


def _begins(chart: Chart) -> list[Transition]:
    """Steps that no other step leads to, in document order."""
    steps = [way for way in chart.transitions if way.success]
    landed = {state.id for way in steps for state in chart.chain(_lands(chart, way))}
    return [way for way in steps if way.source not in landed]


def _ways_on(chart: Chart, leaf: str) -> list[Transition]:
    """The steps out of ``leaf``, in the order in which they are asked."""
    return [way for state in chart.chain(leaf) for way in state.transitions if way.success]


def _lands(chart: Chart, way: Transition) -> str:
    assert way.target is not None
    return chart.entry_leaf(way.target)


def _holds(way: Transition, said: Mapping[str, bool]) -> bool:
    return all(said[condition.guard] == condition.wanted for condition in way.conditions)
