"""The way that one update took through the statechart, read from a journal, to be marked in a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from outrider.core.chart.flat import flattened
from outrider.core.chart.model import Chart, Transition
from outrider.core.sidekick.rules import INTERNAL
from outrider.story.facts import version_of
from outrider.story.lines import Known, Line, StoryError, know
from outrider.story.telling import updates


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One stay in a leaf.

    Attributes:
        seconds: How long; None in the last one, which may still last, and where the journal lacks its beginning.
    """

    state: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The way of one update.

    Attributes:
        version: Label of what it was to bring.
        stays: In order, from the state before the update's first step.
        taken: The leaf that was left and the transition's line in the chart.
    """

    update: str
    instance: str
    version: str
    stays: tuple[Stay, ...]
    taken: frozenset[tuple[str, int]]


def last_path(lines: Sequence[Line], chart: Chart) -> Path:
    """The way of the last update in the journal.

    Raises:
        StoryError: it has no update, or a state that ``chart`` hasn't.
    """
    known = [know(line) for line in lines]
    spans = list(updates(known))
    if not spans:
        source = lines[0].location.rpartition(":")[0] if lines else "the journal"
        raise StoryError(f"{source}: no update in it yet, so there is no path to draw")
    begin, end = spans[-1]
    steps = [one for one in known[begin : end + 1] if one.event is not None and one.record.source]
    for one in steps:
        for state in (one.record.source, one.record.target):
            if state not in chart.states:
                raise StoryError(f"{one.line.location}: state {state!r} is not in {chart.source}")
    first = known[begin].memory
    flat = flattened(chart)
    return Path(
        update=first.update,
        instance=first.instance,
        version=version_of(first.candidate or first.running),
        stays=tuple(_stays(known, steps)),
        taken=frozenset(pair for one in steps for pair in _taken(flat, one)),
    )


def _stays(known: Sequence[Known], steps: Sequence[Known]) -> Iterator[Stay]:
    entered = next(
        (one.record.at for one in reversed(known[: known.index(steps[0])]) if one.record.source != one.record.target),
        None,
    )
    for one in steps:
        if one.record.source == one.record.target:
            continue
        yield Stay(
            state=one.record.source,
            seconds=None if entered is None else (one.record.at - entered).total_seconds(),
        )
        entered = one.record.at
    yield Stay(state=steps[-1].record.target, seconds=None)


def _taken(chart: Chart, one: Known) -> Iterator[tuple[str, int]]:
    """What the step took: the first transition that no guard refused, and what an event that it raised took then.

    A journal of an older outrider lacks the guards that came later: what can't have led to the step's end isn't it.
    """
    assert one.event is not None, "only steps with an event are asked for"
    leaf, target, refused = one.record.source, one.record.target, frozenset(one.record.refused)
    for way in _open(chart, leaf, frozenset({one.event.name}), refused):
        landed = _lands(chart, way)
        if landed is None or landed == target:
            yield leaf, way.line
            return
        raised = (then for then in _open(chart, landed, frozenset(INTERNAL), refused) if _lands(chart, then) == target)
        then = next(raised, None)
        if then is not None:
            yield leaf, way.line
            yield landed, then.line
            return


def _open(chart: Chart, leaf: str, events: frozenset[str], refused: frozenset[str]) -> Iterator[Transition]:
    """What may be taken in ``leaf``, in the order in which it is asked."""
    for state in chart.chain(leaf):
        for way in state.transitions:
            if events & set(way.events) and not any(one.text in refused for one in way.conditions):
                yield way


def _lands(chart: Chart, way: Transition) -> str | None:
    """The leaf in which it ends; None when it stays, or ends where it was before (a history)."""
    return chart.entry_leaf(way.target) if way.target is not None and way.target in chart.states else None
