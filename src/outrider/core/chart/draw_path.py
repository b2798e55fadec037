"""The success path as one straight line down, and everything that can go wrong to its side.

Two columns of states stand left and right of a channel of lanes. The left one holds the path, the right one all other
states, each below the name of the state that it lies in (whose frame is drawn in both columns when it has states in
both). A transition begins in a row of its own beside its state; its words stand on its line, followed by the name of
the state it leads to. All lines to one state meet in one lane. Rows, gaps and lanes are reserved before anything is
placed: words can't meet other words, lines or edges, and nothing depends on the machine on which it is drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from outrider.core.chart.draw import filled, label_of
from outrider.core.chart.draw_dot import PAPER
from outrider.core.chart.draw_lanes import Net, assign_lanes
from outrider.core.chart.draw_plan import Plan, around, lands
from outrider.core.chart.draw_sheet import (
    LINE,
    MAIN,
    MARK,
    MARK_PAPER,
    SIZE,
    Dot,
    Frame,
    Marks,
    Sheet,
    Text,
    Wire,
    text_width,
    wrap,
)
from outrider.core.chart.model import Chart, Transition
from outrider.core.chart.success import path_begin, success_path
from outrider.core.errors import ChartError

MARGIN = 16
INSET = 10
"""From the frame of a state to the frame of one in it."""

BOX = 190
LABEL = 210
"""Widths of a box, and of the place beside it for words."""

FAR = 18
"""Room at the other side of a box, for the arrow with which the chart starts."""

LANE = 10
SNAP = 8
"""Lines from the left run at multiples of this, those from the right half-way between: they never run on each other."""

TITLE = 14
"""Font size of the names of states."""

INK = "#202124"
GREY = "#5f6368"
NOTHING_WRONG = "what happens when nothing goes wrong"
COLORS = ("#c5221f", "#1967d2", "#9334e6", "#9e5600", "#00796b", "#c2185b", "#3949ab", "#5d4037", "#016fb1", "#6a1b9a")
"""Of the lines, one lane after the other; words in them can be read on all of ``PAPER``."""


NO_MARKS = Marks()


def lay_out_path(chart: Chart, title: str, marks: Marks = NO_MARKS, *, line: str = NOTHING_WRONG) -> Sheet:
    """Place the whole of ``chart`` around its success path.

    Args:
        line: What the green line is.

    Raises:
        ChartError: it declares no success path, or guards split it (``prune`` the chart first).
    """
    steps = success_path(chart)
    if not steps:
        raise ChartError(chart.source, None, 'no success path: mark its transitions with o:success="true"')
    plan = Plan(chart, (path_begin(chart), *(lands(chart, way.target or "") for way in steps)), steps, marks)
    left, right = _Column(plan, plan.path, mirrored=False), _Column(plan, plan.others, mirrored=True)
    # The columns' own widths are known before anything is placed; with lanes between them it can only get wider.
    heading = _heading(plan, title, line, left.right + 28 + right.right)
    left.y = right.y = heading[-1].y + LINE
    for column in (left, right):
        column.lay_out()
    nets = tuple(_nets(plan, left, right))
    lanes = assign_lanes(nets)
    colors = {target: COLORS[lane % len(COLORS)] for target, lane in lanes.items()}
    first = left.right + 14
    right.move(first + max(lanes.values(), default=0) * LANE + 14)
    wires, dots = [*left.wires, *right.wires], [*left.dots, *right.dots]
    for net in nets:
        x = first + lanes[net.target] * LANE
        color = colors[net.target]
        wires.append(Wire(points=((x, net.top), (x, net.bottom)), color=color))
        for pin in (*left.pins, *right.pins):
            if pin.target == net.target:
                points = ((x, pin.y), (pin.x, pin.y)) if pin.enters else ((pin.x, pin.y), (x, pin.y))
                wires.append(Wire(points=points, color=color, heads=pin.enters))
                if net.top < pin.y < net.bottom:
                    dots.append(Dot(x=x, y=pin.y, radius=3, color=color))
    return Sheet(
        title=title,
        width=right.right + MARGIN,
        height=max(left.y, right.y) + MARGIN,
        frames=(*left.frames, *right.frames),
        wires=tuple(wires),
        dots=tuple(dots),
        texts=(
            *heading,
            *(replace(text, color=colors.get(text.to, text.color)) for text in (*left.texts, *right.texts)),
        ),
    )


def _heading(plan: Plan, title: str, line: str, width: int) -> list[Text]:
    path = plan.path
    words = (
        f"Green: {line}, from {path[0]} to {path[-1]}. Every other line leads "
        "to the state whose name and colour it bears. A transition is taken when its event comes and what stands in "
        "[brackets] holds; for the same event, those with brackets are asked first. Again: left and entered anew."
    )
    room, y = width - 2 * MARGIN, MARGIN
    texts = [
        Text(x=MARGIN, y=(y := y + 20), words=line, size=17, bold=True) for line in wrap(title, room, 17, bold=True)
    ]
    y += 4
    texts += [Text(x=MARGIN, y=(y := y + LINE), words=line, color=GREY) for line in wrap(words, room)]
    legend = wrap(plan.marks.legend, room, bold=True)
    return texts + [Text(x=MARGIN, y=(y := y + LINE), words=line, bold=True, color=MARK) for line in legend]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pin:
    """Where a line leaves or reaches (``enters``) a column."""

    target: str
    x: int
    y: int
    enters: bool = False


def _nets(plan: Plan, left: "_Column", right: "_Column") -> Iterator[Net]:
    for target in plan.entered:
        sides = [tuple(pin.y for pin in column.pins if pin.target == target) for column in (left, right)]
        yield Net(target=target, left=sides[0], right=sides[1])


@dataclass(slots=True)
class _Column:
    """Places one column from the top down. ``mirrored``: words left of the boxes, else right of them."""

    plan: Plan
    names: tuple[str, ...]
    mirrored: bool
    y: int = 0
    left: int = MARGIN
    frames: list[Frame] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    pins: list[_Pin] = field(default_factory=list)
    headed: set[str] = field(default_factory=set)

    @property
    def depth(self) -> int:
        """Frames around the innermost box."""
        return max((len(around(name)) for name in self.names), default=0)

    @property
    def right(self) -> int:
        """Where the column ends."""
        return self.left + 2 * self.depth * INSET + BOX + LABEL + FAR

    @property
    def box_x(self) -> int:
        """The left edge of every box."""
        return self.left + self.depth * INSET + (LABEL if self.mirrored else FAR)

    @property
    def words_x(self) -> int:
        """Where the words beside the boxes begin."""
        return self.box_x - LABEL + 8 if self.mirrored else self.box_x + BOX + 8

    @property
    def axis(self) -> int:
        """The middle of every box."""
        return self.box_x + BOX // 2

    def lay_out(self) -> None:
        """Place everything but the lanes."""
        open_frames: list[tuple[str, int]] = []
        last = ""
        for name in (*self.names, ""):
            holders = around(name)
            while open_frames and (
                len(open_frames) > len(holders) or open_frames[-1][0] != holders[len(open_frames) - 1]
            ):
                self._close(*open_frames.pop(), depth=len(open_frames))
            if not name:
                break
            if last:
                self._gap(last, name)
            for state in holders[len(open_frames) :]:
                open_frames.append((state, self.y))
                self._head(state)
            self._leaf(name)
            if (last, name) in self.plan.links:
                box = {frame.id: frame for frame in self.frames}
                self._link(box[last], box[name])
            last = name

    def _close(self, state: str, top: int, depth: int) -> None:
        self.y += INSET
        frame = Frame(
            id=state,
            kind="compound",
            x=self.left + depth * INSET,
            y=top,
            width=self.right - self.left - 2 * depth * INSET,
            height=self.y - top,
            fill=self._paper(state),
        )
        place = next((n for n, inner in enumerate(self.frames) if inner.y > top), len(self.frames))
        self.frames.insert(place, frame)  # behind what lies in it

    def _head(self, state: str) -> None:
        """The name of a state with an inside, and what leads away from all that lies in it."""
        both = any(state in around(name) for name in self.plan.path) and self.mirrored
        title = f"{state}, off the path" if both else state
        self.y = self._title(title, self.words_x, self.y, LABEL - 18) + 6
        if both or state in self.headed:
            return
        self.headed.add(state)
        stays, rows = self.plan.inside.get(state, []), self.plan.rows_of(state)
        if stays or rows:
            lead = [Text(x=0, y=0, words=line, color=GREY) for line in wrap(f"in any state of {state}:", LABEL - 18)]
            self.y = self._words([lead], self.words_x, self.y)
            self.y = self._words([self._said("stays on ", way, LABEL - 18) for way in stays], self.words_x, self.y)
            for target, ways in rows:
                x = self.words_x + LABEL - 12 if self.mirrored else self.words_x - 4
                self.dots.append(Dot(x=x, y=self._row(target, ways, x), radius=3, color=GREY))
            self.y += 6

    def _leaf(self, name: str) -> None:
        chart, top, main = self.plan.chart, self.y, name in self.plan.path
        edge = self.box_x if self.mirrored else self.box_x + BOX
        if name in self.plan.entered:
            y = self._snap(top + 12)
            self.pins.append(_Pin(target=name, x=edge, y=y, enters=True))
            self.y = y + 4
        for target, ways in self.plan.rows_of(name):
            self._row(target, ways, edge)
        state = chart.states.get(name)
        x, width = self.box_x + 10, BOX - 20
        y = self._title(name.rpartition(".")[2], x, top + 2, width)
        marked = self.plan.marks.notes.get(name, ())
        said = [wrap(words, width, bold=True) for words in marked]
        y = self._words([[Text(x=0, y=0, words=line, bold=True, color=MARK) for line in lines] for lines in said], x, y)
        note = "history" if state is None else filled(state.why)
        y = self._words([[Text(x=0, y=0, words=line, color=GREY) for line in wrap(note, width)]], x, y)
        for way in self.plan.inside.get(name, ()):
            y = self._words([self._said("stays on " if way.target is None else "again on ", way, width)], x, y + 3)
        self.y = max(self.y + 4, y + 8)
        fill = MARK_PAPER if marked else "white" if "." in name else self._paper(name)
        kind = "history" if state is None else "state"
        self.frames.append(
            Frame(id=name, kind=kind, x=self.box_x, y=top, width=BOX, height=self.y - top, fill=fill, main=main)
        )
        if name == chart.entry_leaf(chart.initial):
            self._start(edge, top + 15)

    def _start(self, edge: int, y: int) -> None:
        """The dot in which the chart starts, at the far side of its first box."""
        far = self.box_x + BOX if edge == self.box_x else self.box_x
        dot = far + FAR if far > self.box_x else far - FAR
        self.wires.append(Wire(points=((dot, y), (far, y)), color=INK, heads=True))
        self.dots.append(Dot(x=dot, y=y, radius=4, color=INK))

    def _gap(self, last: str, name: str) -> None:
        """Between two boxes; with a line and its words when one leads straight to the other."""
        ends = self.plan.links.get((last, name))
        if ends is None:
            self.y += 14
            return
        width = LABEL - 20 if self.mirrored else LABEL + BOX // 2 - 30
        lead = "" if ends[0] == last else f"in any state of {ends[0]}: "
        said = [self._said(lead, way, width, bold=way.success) for way in self.plan.bundles[ends]]
        wide = max(text.x + text_width(text.words, text.size, text.bold) for lines in said for text in lines)
        x = self.axis - 10 - int(wide + 1) if self.mirrored else self.axis + 12
        self.y = max(self._words(said, x, self.y + 6) + 8, self.y + 28)

    def _link(self, above: Frame, below: Frame) -> None:
        """The line straight down from one box to the next."""
        points = ((self.axis, above.y + above.height), (self.axis, below.y))
        main = not self.mirrored
        self.wires.append(Wire(points=points, color=MAIN if main else GREY, heads=True, main=main))

    def _row(self, target: str, ways: list[Transition], edge: int) -> int:
        """Words on a line that leads from ``edge`` to the channel; gives the line's height."""
        width = LABEL - 18
        said = [self._said("", way, width) for way in ways]
        name = f"→ {self.plan.short(target)}"
        last = said[-1][-1]
        room = last.x + text_width(last.words, SIZE, last.bold) + 8
        fits = room + text_width(name, SIZE, bold=True) <= width
        if not fits:
            said.append([Text(x=0, y=0, words=line, bold=True, to=target) for line in wrap(name, width, bold=True)])
        bottom = self._words(said, self.words_x, self.y + 2)
        if fits:
            self.texts.append(Text(x=self.words_x + int(room), y=bottom - 3, words=name, bold=True, to=target))
        y = self._snap(bottom + 1)
        self.pins.append(_Pin(target=target, x=edge, y=y))
        self.y = y + 2
        return y

    def _said(self, lead: str, way: Transition, width: int, bold: bool = False) -> list[Text]:
        """What a transition listens to, in lines that are not placed yet; all but the first are set in."""
        taken = self.plan.is_taken(way)
        bold, color = bold or taken, MARK if taken else INK
        lines = wrap(f"{lead}{label_of(way)}", width - 10, bold=bold)
        return [
            Text(x=10 if place else 0, y=0, words=words, bold=bold, color=color, way=None if place else way)
            for place, words in enumerate(lines)
        ]

    def _title(self, words: str, x: int, y: int, width: int) -> int:
        """The name of a state; gives the height at which it ends."""
        for line in wrap(words, width, TITLE, bold=True):
            y += TITLE + 4
            self.texts.append(Text(x=x, y=y, words=line, size=TITLE, bold=True))
        return y + 4

    def _words(self, blocks: list[list[Text]], x: int, y: int) -> int:
        """Place lines below ``y``; gives the height at which the last one ends."""
        for text in (text for block in blocks for text in block):
            y += LINE
            self.texts.append(replace(text, x=x + text.x, y=y - 3))
        return y

    def _snap(self, y: int) -> int:
        """The first height from ``y`` at which a line of this column may run."""
        return y + (SNAP // 2 * self.mirrored - y) % SNAP

    def _paper(self, name: str) -> str:
        tops = [top.id for top in self.plan.chart.tops]
        return PAPER[tops.index(name.partition(".")[0]) % len(PAPER)]

    def move(self, x: int) -> None:
        """Set the whole column to the right."""
        by = x - self.left
        self.left = x
        self.frames = [replace(frame, x=frame.x + by) for frame in self.frames]
        self.texts = [replace(text, x=text.x + by) for text in self.texts]
        self.wires = [replace(wire, points=tuple((px + by, py) for px, py in wire.points)) for wire in self.wires]
        self.dots = [replace(dot, x=dot.x + by) for dot in self.dots]
        self.pins = [replace(pin, x=pin.x + by) for pin in self.pins]
