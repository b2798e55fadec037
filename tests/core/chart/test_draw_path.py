"""The picture of one strategy can be read: measured on its places, not looked at."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import get_args

import pytest
from click.testing import CliRunner
from lxml import etree

from outrider.cli.main import main
from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_sheet import LINE, Frame, Sheet, Wire, text_width, wrap
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart, load_chart
from outrider.core.chart.success import success_path
from outrider.core.errors import ChartError
from outrider.core.sidekick.guards import decided_by
from outrider.core.sidekick.memory import Strategy
from outrider.statechart import load_sidekick_chart
from tests.core.chart.test_draw import SMALL
from tests.support.charts import load
from tests.support.oracle import ChartMaker

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MARKED = SMALL.replace('cond="is_new and !may_go" target="b"', 'cond="is_new and !may_go" target="b" o:success="true"')
LONG = f"""
<state id="a" o:why="{"unbreakable" * 9}" o:resting="true">
  <transition event="go" target="{"b" * 60}" o:success="true"/>
  <transition event="back" cond="is_new" target="{"c" * 60}"/>
  <transition event="lock.lost error.disk error.net answer progress tick tock late" target="{"c" * 60}"/>
</state>
<state id="{"b" * 60}" o:why="x" o:resting="true"><transition event="back" target="{"c" * 60}"/></state>
<state id="{"c" * 60}" o:why="x" o:resting="true"><transition event="*" target="a"/></state>"""


def with_path(chart: Chart) -> Chart:
    """``chart`` with a success path from its beginning, along the first way of each leaf, to where that comes back."""
    leaf, seen = chart.entry_leaf(chart.initial), set[str]()
    states = dict(chart.states)
    while leaf not in seen:
        seen.add(leaf)
        for place, way in enumerate(states[leaf].transitions):
            if way.target is not None and way.target in chart.states and chart.entry_leaf(way.target) not in seen:
                ways = list(states[leaf].transitions)
                ways[place] = replace(way, success=True)
                states[leaf] = replace(states[leaf], transitions=tuple(ways))
                leaf = chart.entry_leaf(way.target)
                break
    return replace(chart, states=states)


@cache
def chart_of(name: str) -> Chart:
    """One of ``CHARTS``: made when a test needs it, not when one is collected."""
    if name in STRATEGIES:
        return replace(prune(flattened(load_sidekick_chart()), decided_by(name)), source=name)
    if name == "marked":
        return load(MARKED)
    if name == "long":
        return replace(load(LONG), source="long")
    made = ChartMaker(int(name.removeprefix("random-")))
    chart = flattened(with_path(load_chart(made.source, f"{name}.scxml", made.vocabulary)))
    assert success_path(chart)
    return chart


CHARTS = (*STRATEGIES, "marked", "long", *(f"random-{seed}" for seed in range(4)))
every_chart = pytest.mark.parametrize("chart", CHARTS, indirect=True)


@pytest.fixture
def chart(request: pytest.FixtureRequest) -> Chart:
    return chart_of(request.param)


def segments(wires: tuple[Wire, ...]) -> Iterator[tuple[Wire, tuple[int, int], tuple[int, int]]]:
    for wire in wires:
        for one, other in pairwise(wire.points):
            yield wire, min(one, other), max(one, other)


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def edges(frame: Frame) -> tuple[float, float, float, float]:
    return frame.x, frame.y, frame.x + frame.width, frame.y + frame.height


def troubles(sheet: Sheet) -> list[str]:
    """Everything that makes ``sheet`` hard to read."""
    found = []
    areas = [(text, text.area) for text in sheet.texts]
    lines = [(one[0] - 0.5, one[1] - 0.5, other[0] + 0.5, other[1] + 0.5) for _, one, other in segments(sheet.wires)]
    for (text, area), (other_text, other_area) in combinations(areas, 2):
        if overlap(area, other_area):
            found.append(f"{text.words!r} lies on {other_text.words!r}")
    for text, area in areas:
        left, top, right, bottom = area
        if left < 0 or top < 0 or right > sheet.width or bottom > sheet.height:
            found.append(f"{text.words!r} sticks out of the sheet")
        for frame in sheet.frames:
            x1, y1, x2, y2 = edges(frame)
            inside = x1 <= left and right <= x2 and y1 <= top and bottom <= y2
            if overlap(area, edges(frame)) and not inside:
                found.append(f"{text.words!r} crosses the edge of {frame.id}")
        found += [f"a line runs through {text.words!r}" for line in lines if overlap(area, line)]
    for one_frame, other_frame in combinations(sheet.frames, 2):
        a, b = edges(one_frame), edges(other_frame)
        nested = (a[0] <= b[0] and a[1] <= b[1] and b[2] <= a[2] and b[3] <= a[3]) or (
            b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]
        )
        if overlap(a, b) and not nested:
            found.append(f"{one_frame.id} and {other_frame.id} cross")
    for one_wire, other_wire in combinations(segments(sheet.wires), 2):
        (first, a1, a2), (second, b1, b2) = one_wire, other_wire
        for along, across in ((0, 1), (1, 0)):
            same = a1[across] == a2[across] == b1[across] == b2[across]
            if same and a1[along] < b2[along] and b1[along] < a2[along]:
                found.append(f"{first.points} and {second.points} run on each other")
    return found


@every_chart
def test_no_words_lie_on_words_lines_or_edges(chart: Chart) -> None:
    sheet = lay_out_path(chart, "title")

    assert [] == troubles(sheet)
    assert all(text.size >= 12 for text in sheet.texts), "readable at 100 %"


def test_the_measure_finds_what_it_should() -> None:
    sheet = lay_out_path(load(MARKED), "title")
    box = next(frame for frame in sheet.frames if frame.kind == "state")
    wire = next(wire for wire in sheet.wires if len({y for _, y in wire.points}) == 1)
    label = next(text for text in sheet.texts if text.way is not None)

    for text, wanted in (
        (replace(label, y=label.y + LINE // 2), "lies on"),
        (replace(label, x=box.x - 8, y=box.y + box.height - 4), "crosses the edge of"),
        (replace(label, x=sheet.width - 5), "sticks out"),
        (replace(label, x=wire.points[0][0] - 5, y=wire.points[0][1] + 3), "a line runs through"),
    ):
        assert any(wanted in trouble for trouble in troubles(replace(sheet, texts=(*sheet.texts, text)))), wanted
    twin = replace(wire, points=((wire.points[0][0] + 1, wire.points[0][1]), wire.points[1]))
    assert any("run on each other" in trouble for trouble in troubles(replace(sheet, wires=(*sheet.wires, twin))))


@every_chart
def test_the_success_path_is_one_straight_line(chart: Chart) -> None:
    sheet = lay_out_path(chart, "title")

    boxes = {frame.id: frame for frame in sheet.frames if frame.kind == "state"}
    steps = success_path(chart)
    path = [boxes[chart.entry_leaf(way.target or "")] for way in steps]
    path = [boxes[chart.entry_leaf(steps[0].source)], *path]
    assert 1 == len({frame.x + frame.width // 2 for frame in path})
    assert [frame for frame in boxes.values() if frame.main] == path
    axis = path[0].x + path[0].width // 2
    arrows = [wire.points for wire in sheet.wires if wire.main]
    assert [((axis, one.y + one.height), (axis, other.y)) for one, other in pairwise(path)] == arrows
    assert all(one.y + one.height < other.y for one, other in pairwise(path))
    aside = [frame for frame in boxes.values() if not frame.main]
    assert all(frame.x > path[0].x + path[0].width for frame in aside), "all else stands to its side"


@every_chart
def test_every_state_has_a_box_and_every_transition_stands_there_once(chart: Chart) -> None:
    sheet = lay_out_path(chart, "title")

    shown = Counter(text.way for text in sheet.texts if text.way is not None)
    assert Counter(chart.transitions) == shown
    for text in sheet.texts:
        if text.way is not None:
            assert text.words.removeprefix("again on ").removeprefix("stays on ").startswith(text.way.written[0])
    boxes = [frame.id for frame in sheet.frames if frame.kind != "compound"]
    assert sorted([*(leaf.id for leaf in chart.leaves), *chart.histories]) == sorted(boxes)
    for frame in sheet.frames:
        if frame.kind == "compound":
            inside = [box for box in sheet.frames if box.kind != "compound" and overlap(edges(box), edges(frame))]
            assert inside
            assert all(chart.within(box.id, frame.id) for box in inside)


@every_chart
def test_the_line_below_a_label_leads_to_the_state_that_it_names(chart: Chart) -> None:
    sheet = lay_out_path(chart, "title")
    boxes = {frame.id: frame for frame in sheet.frames if frame.kind != "compound"}
    flat = [wire for wire in sheet.wires if wire.points[0][1] == wire.points[-1][1]]
    upright = [wire for wire in sheet.wires if wire.points[0][0] == wire.points[-1][0] and not wire.heads]

    names = [text for text in sheet.texts if text.to]

    for text in names:
        below = [wire for wire in flat if text.y < wire.points[0][1] and spans(wire, text.x)]
        row = min(below or flat, key=lambda wire: wire.points[0][1])
        lane = row.points[-1][0]
        assert row.points[0][1] - text.y < 4 * LINE
        ends = [
            wire
            for wire in flat
            for bus in upright
            if wire.heads
            and wire.points[0][0] == lane == bus.points[0][0]
            and bus.points[0][1] <= wire.points[0][1] <= bus.points[1][1]
            and bus.points[0][1] <= row.points[0][1] <= bus.points[1][1]
        ]
        assert 1 == len(ends), f"{text.words} leads to one arrowhead"
        box, (x, y) = boxes[text.to], ends[0].points[-1]
        assert x in (box.x, box.x + box.width)
        assert box.y < y < box.y + box.height
        assert text.color == row.color == ends[0].color
    straight = sum(len({x for x, _ in wire.points}) == 1 and wire.heads for wire in sheet.wires)
    assert straight + len(names) >= len(leading(chart)), "what doesn't go straight down is named"


def leading(chart: Chart) -> set[tuple[str, str]]:
    """From where to where its transitions lead, those aside that come back to their own state."""
    ends = ((way.source, way.target) for way in chart.transitions if way.target is not None)
    landed = ((one, two if two in chart.histories else chart.entry_leaf(two)) for one, two in ends)
    return {(one, two) for one, two in landed if one != two}


def spans(wire: Wire, x: int) -> bool:
    ends = sorted(point[0] for point in wire.points)
    return ends[0] <= x <= ends[1]


def test_a_word_without_room_is_broken_and_an_unknown_character_is_wide() -> None:
    lines = wrap(f"a {'m' * 30} b", 100)

    assert f"a{'m' * 30}b" == "".join(lines)
    assert all(text_width(line) <= 100 for line in lines)
    assert text_width("字") >= text_width("W")
    assert text_width("W", bold=True) > text_width("W")


# --- one strategy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_success_path_is_what_the_chart_says_of_the_strategy(strategy: Strategy) -> None:
    chart = load_sidekick_chart()
    (said,) = (part for part in chart.states["swapping"].doc.split(".") if part.strip().startswith(strategy))

    path = [chart.entry_leaf(way.target or "") for way in success_path(prune(flattened(chart), decided_by(strategy)))]

    swap = [leaf.removeprefix("swapping.") for leaf in path if leaf.startswith("swapping.")]
    assert said.partition(":")[2].replace(" ", "").split(",") == swap
    assert ("checking", "reporting") == (path[0], path[-1])


def test_pruning_keeps_what_a_strategy_can_reach() -> None:
    chart = load("""
<state id="a" o:why="x" o:resting="true">
  <transition event="go" cond="is_new and is_old" target="b"/>
  <transition event="go answer" cond="is_old" target="c"/>
  <transition event="go answer" cond="is_old and may_go" target="d"/>
  <transition event="go" cond="!is_new" target="e"/>
  <transition event="*" target="f.one"/>
</state>
<state id="b" o:why="x" o:resting="true"><transition event="go" target="a"/></state>
<state id="c" o:why="x" o:resting="true"><transition event="go" target="a"/></state>
<state id="d" o:why="x" o:resting="true"><transition event="go" target="a"/></state>
<state id="e" o:why="x" o:resting="true"><transition event="go" target="f"/></state>
<state id="f" initial="f.two">
  <transition event="back" target="a"/>
  <transition event="late" target="d"/>
  <state id="f.one" o:why="x" o:resting="true"><transition event="go late" target="a"/></state>
  <state id="f.two" o:why="x" o:resting="true"><transition event="go" target="a"/></state>
</state>""")

    new = prune(chart, {"is_new": True})

    assert ["a", "b", "c", "f", "f.one"] == list(new.states), "d and e need the rest"
    assert [
        (("go",), ("is_old",), "b"),
        (("answer",), ("is_old",), "c"),
        (("*",), (), "f.one"),
    ] == [
        (way.written, tuple(condition.text for condition in way.conditions), way.target)
        for way in new.states["a"].transitions
    ]
    assert ("", ("f.one",)) == (new.states["f"].initial, new.states["f"].children)
    assert ["back"] == [" ".join(way.written) for way in new.states["f"].transitions]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_leaves_no_question_about_itself(strategy: Strategy) -> None:
    chart = flattened(load_sidekick_chart())

    pruned = prune(chart, decided_by(strategy))

    asked = {condition.guard for way in pruned.transitions for condition in way.conditions}
    assert not asked & set(decided_by(strategy))
    assert set(pruned.states) < set(chart.states)
    other = prune(chart, {name: not answer for name, answer in decided_by(strategy).items()})
    assert set(chart.states) == {*pruned.states, *other.states}, "each state belongs to a strategy"


def test_a_path_that_guards_split_is_not_drawn_as_one() -> None:
    with pytest.raises(ChartError, match=r"splits at 'swapping\.queueing', .* decide starts_first"):
        lay_out_path(load_sidekick_chart(), "both")
    with pytest.raises(ChartError, match="no success path: mark its transitions"):
        lay_out_path(load(SMALL), "none")


# --- SVG ------------------------------------------------------------------------------------------------------------


def test_the_svg_has_all_words_at_their_places_on_white_paper() -> None:
    sheet = lay_out_path(load(MARKED), "small & <sound>")

    svg = etree.fromstring(to_svg(sheet).encode())

    space = "{http://www.w3.org/2000/svg}"
    texts = [(node.text, node.get("x"), node.get("y")) for node in svg.iter(f"{space}text")]
    assert [(text.words, str(text.x), str(text.y)) for text in sheet.texts] == texts
    assert ("small & <sound>", str(sheet.width)) == (svg.findtext(f"{space}title"), svg.get("width"))
    paper = next(svg.iter(f"{space}rect"))
    assert ("white", str(sheet.width), str(sheet.height)) == (
        paper.get("fill"),
        paper.get("width"),
        paper.get("height"),
    )
    assert len(sheet.frames) + 1 == len(list(svg.iter(f"{space}rect")))
    assert len(sheet.wires) == len(list(svg.iter(f"{space}polyline")))
    assert sum(wire.heads for wire in sheet.wires) == len(list(svg.iter(f"{space}polygon")))


DRAW = """
from outrider.cli.main import main
for strategy in ("start-first", "stop-first"):
    main(["statechart", "draw", "--strategy", strategy, "--format", "svg"], standalone_mode=False)
"""


def test_the_svg_has_the_same_bytes_for_every_hash_seed() -> None:
    words = ("statechart", "draw", "--format", "svg", "--strategy")
    # with the seed of this process, which is any
    here = b"".join(CliRunner().invoke(main, [*words, strategy]).stdout_bytes for strategy in STRATEGIES)
    drawn = {
        subprocess.run(
            [sys.executable, "-c", DRAW], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0",)
    }

    assert {here} == drawn
    assert 2 == here.count(b"</svg>")


def test_words_have_the_color_of_their_line() -> None:
    sheet = lay_out_path(prune(flattened(load_sidekick_chart()), decided_by("start-first")), "title")

    names: dict[str, set[str]] = {}
    for text in sheet.texts:
        if text.to:
            names.setdefault(text.to, set()).add(text.color)

    assert all(1 == len(colors) for colors in names.values())
    assert len(set.union(*names.values())) > 5
