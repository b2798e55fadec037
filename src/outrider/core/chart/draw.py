"""Pictures of a chart, drawn from the file and not from the running machine.

A ``Picture`` is what all formats have in common: boxes in boxes, and at most one arrow from one box to another, with
everything that leads along it as its label. There are three views: the whole chart, one top state with what leads out
of it, and an overview in which only the main road is labelled. Order comes from the document alone, so that the same
chart gives the same bytes on every machine.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from outrider.core.chart.flat import flattened
from outrider.core.chart.model import Chart, Condition, RaiseEvent, SendEffect, State, Transition

_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A state, a history, or (``outside``) a state that is only pointed at.

    Attributes:
        note: What a leaf waits for.
        children: Empty for everything that is drawn without an inside.
        marks: What the drawing shows there besides the chart.
        initial: The child that is entered first.
    """

    id: str
    label: str
    kind: str
    note: str = ""
    children: tuple["Box", ...] = ()
    initial: str = ""
    resting: bool = False
    top: int = 0
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """Everything that leads from one box to another.

    Attributes:
        main: On the main road: what the first transition of a state listens to.
        lines: One for each transition: ``event [guards]``.
    """

    source: str
    target: str
    lines: tuple[str, ...]
    main: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawing before it has a format."""

    name: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    initial: str = ""


def whole(chart: Chart) -> Picture:
    """Every state and every transition that leads somewhere; those that stay are in the table only."""
    chart = flattened(chart)
    arrows = _Arrows(chart)
    for transition in chart.transitions:
        if transition.target is not None:
            arrows.add(transition.source, transition.target, transition)
    boxes = tuple(_box(chart, top) for top in chart.tops)
    return Picture(name=chart.name, boxes=boxes, arrows=arrows.all(), initial=chart.initial)


def zoomed(chart: Chart, top: str) -> Picture:
    """One top state from the inside, with the states elsewhere that it leads to.

    Raises:
        KeyError: the chart has no such state.
    """
    chart = flattened(chart)
    state = chart.states[top]
    arrows = _Arrows(chart)
    outside: dict[str, None] = {}
    for transition in chart.transitions:
        if transition.target is None or not chart.within(transition.source, top):
            continue
        if not chart.within(transition.target, top):
            outside[transition.target] = None
        arrows.add(transition.source, transition.target, transition)
    known = [*chart.states, *chart.histories]
    far = (Box(id=one, label=one, kind="outside", top=_top(chart, one)) for one in sorted(outside, key=known.index))
    return Picture(name=f"{chart.name}: {top}", boxes=(_box(chart, state), *far), arrows=arrows.all())


def overview(chart: Chart) -> Picture:
    """The main road with its labels; what else leads from one top state to another as one bare arrow between the two.

    The main road is read from the document: the first transition of a leaf that leads elsewhere, with its
    alternatives (the same event under other guards). Where it leads into another top state, it ends at its border. A
    state apart from it is shown with the first way that leads there.
    """
    chart = flattened(chart)
    arrows, others = _Arrows(chart, short=True), _Arrows(chart, short=True)
    shown: set[tuple[str, str]] = set()
    for leaf in chart.leaves:
        for way in main_road(leaf):
            assert way.target is not None
            near = _top_id(way.target) == _top_id(leaf.id)
            arrows.add(leaf.id, way.target if near else _top_id(way.target), way, main=True)
            if not way.conditions:
                shown.add((_top_id(leaf.id), _top_id(way.target)))
    reached = {target for _, target in arrows.found} | {state.initial for state in chart.states.values()}
    for way in chart.transitions:
        if way.target not in reached and way.source != way.target and _top_id(way.source) == _top_id(way.target or ""):
            others.add(way.source, way.target or "", way, main=False)  # a state apart: show the first way to it
            reached.add(way.target or "")
        ends = (_top_id(way.source), _top_id(way.target or way.source))
        if ends[0] != ends[1] and ends not in shown and ends not in arrows.found:
            others.add(*ends, way, main=False)
    return Picture(
        name=chart.name,
        boxes=tuple(_box(chart, top, notes=False) for top in chart.tops),
        arrows=(*arrows.all(), *(replace(arrow, lines=()) for arrow in others.all())),
        initial=chart.initial,
    )


def sketch(chart: Chart) -> Picture:
    """The overview without any labels: small enough for a front page."""
    picture = overview(chart)
    return replace(picture, arrows=tuple(replace(arrow, lines=()) for arrow in picture.arrows))


def marked(picture: Picture, notes: Mapping[str, tuple[str, ...]]) -> Picture:
    """``picture`` with notes in its boxes, by their ids."""

    def with_marks(box: Box) -> Box:
        return replace(box, marks=tuple(notes.get(box.id, ())), children=tuple(map(with_marks, box.children)))

    return replace(picture, boxes=tuple(map(with_marks, picture.boxes)))


def main_road(state: State) -> tuple[Transition, ...]:
    """The first transition of a leaf that leads elsewhere, and its alternatives."""
    if state.children:
        return ()
    away = [way for way in state.transitions if way.target not in (None, state.id)]
    return tuple(way for way in away if way.written[0] == away[0].written[0])


def label_of(transition: Transition) -> str:
    """``event other.event [guard, !other]``."""
    guards = ", ".join(condition.text for condition in transition.conditions)
    return " ".join(transition.written) + (f" [{guards}]" if guards else "")


def to_table(chart: Chart) -> str:
    """All of the chart as a Markdown table per state, in document order."""
    parts = []
    for state in chart.states.values():
        facts = [f"Status: {filled(state.why, '*')}"] if state.why else []
        facts += _SENTENCE_END.split(state.doc) if state.doc else []
        facts += ["It is a safe point to pause"] if state.safe else []
        facts += ["It may wait forever"] if state.resting else []
        facts += ["It is the end"] if state.final else []
        if state.abstract:
            children = ", ".join(f"`{child}`" for child in state.children)
            facts += [f"It holds what {children} answer alike"]
        elif state.initial:
            facts += [f"It begins in `{state.initial}`"]
        if state.parent and chart.states[state.parent].abstract:
            facts += [f"What it does not answer itself, `{state.parent}` answers"]
        parts.append(f"### {state.id}\n\n" + "".join(f"{fact.rstrip('.')}.\n" for fact in facts))
        rows = [("on entry", "", "", _does(state.onentry))] if state.onentry else []
        rows += [
            (_events(way), _conditions(way.conditions), _goes(way), _does(way.content)) for way in state.transitions
        ]
        rows += [("on exit", "", "", _does(state.onexit))] if state.onexit else []
        if rows:
            lines = ["| event | if | goes to | does |", "|---|---|---|---|"]
            parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")
    for history in chart.histories.values():
        kind = "deep" if history.deep else "shallow"
        parts.append(f"### {history.id}\n\n{kind} history of `{history.parent}`; at first `{history.default}`.\n")
    return "\n".join(parts)


def _events(transition: Transition) -> str:
    return ", ".join(f"`{event}`" for event in transition.written)


def _conditions(conditions: Iterable[Condition]) -> str:
    return " and ".join(f"`{condition.text}`" for condition in conditions)


def _goes(transition: Transition) -> str:
    if transition.target is None:
        return "stays"
    return f"`{transition.target}`" + (" (inside)" if transition.internal else "")


def _does(content: Iterable[object]) -> str:
    words = []
    for item in content:
        match item:
            case RaiseEvent(event=event):
                words.append(f"raises `{event}`")
            case SendEffect(effect=effect):
                words.append(f"`{effect}`")
            case _:
                words.append(_timer_words(item))
    return ", ".join(words)


def _timer_words(item: object) -> str:
    delay, event, timer, fixed = (getattr(item, name, "") for name in ("delay", "event", "timer", "fixed"))
    after = f"{delay} (fixed: {fixed})" if fixed else delay
    return f"`{event}` after {after}" if event else f"cancels `{timer}`"


def _box(chart: Chart, state: State, notes: bool = True) -> Box:
    inside = [_box(chart, chart.states[child], notes) for child in state.children]
    for history in chart.histories.values():
        if history.parent == state.id:
            label = "H*" if history.deep else "H"
            inside.append(Box(id=history.id, label=label, kind="history", top=_top(chart, state.id)))
    return Box(
        id=state.id,
        label=state.name,
        kind="final" if state.final else "state",
        note=filled(state.why) if notes else "",
        children=tuple(inside),
        initial=state.initial,
        resting=state.resting,
        top=_top(chart, state.id),
    )


def filled(why: str, mark: str = "") -> str:
    """``o:why`` names facts in braces, which a running sidekick fills in; here their names stand for them."""
    return re.sub(r"\{(\w+)\}", rf"{mark}\1{mark}", re.sub(r"(?<=[\w}])\{", " {", why))


def _top_id(state: str) -> str:
    return state.partition(".")[0]


def _top(chart: Chart, state: str) -> int:
    """Which of the top states it lies in, counted in document order."""
    return [top.id for top in chart.tops].index(_top_id(state))


@dataclass(slots=True)
class _Arrows:
    """Merges what leads the same way."""

    chart: Chart
    short: bool = False
    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    main: set[tuple[str, str]] = field(default_factory=set)

    def add(self, source: str, target: str, transition: Transition, main: bool | None = None) -> None:
        lines = self.found.setdefault((source, target), [])
        if main or (main is None and transition in main_road(self.chart.states[transition.source])):
            self.main.add((source, target))
        label = label_of(transition)
        if self.short:
            # The first event stands for its like; guards are named only where they decide between two arrows.
            event, guards = transition.written[0], label[len(" ".join(transition.written)) :]
            label = event if any(line.partition(" ")[0] == event for line in lines) else event + guards
            lines[:] = [line for line in lines if line.partition(" ")[0] != event]
        if label not in lines:
            lines.append(label)

    def all(self) -> tuple[Arrow, ...]:
        return tuple(
            Arrow(source=source, target=target, lines=tuple(lines), main=(source, target) in self.main)
            for (source, target), lines in self.found.items()
        )
