"""The pictures show what the chart says, in formats that mean the same, with the same bytes everywhere."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from io import StringIO
from pathlib import Path

import pytest
from lxml import etree

import outrider.statechart
from outrider.core.chart.draw import Box, Picture, label_of, overview, sketch, to_table, whole, zoomed
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_mermaid import to_mermaid
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart, load_chart
from outrider.core.errors import ChartError
from outrider.statechart import load_sidekick_chart, render_picture
from tests.support.charts import load
from tests.support.oracle import ChartMaker

SMALL = """
<state id="a" o:why="waits for a turn" o:safe="true" o:resting="true">
  <o:doc>The beginning.</o:doc>
  <transition event="go" cond="is_new and !may_go" target="b"/>
  <transition event="tick" target="b.last"><send type="effect" event="cross"/><raise event="tock"/></transition>
  <transition event="error.*"/>
</state>
<state id="b" initial="b.one">
  <onexit><send type="effect" event="leave.b"/></onexit>
  <transition event="late" target="b.two" type="internal"/>
  <state id="b.one" o:why="x" o:resting="true">
    <transition event="back" cond="is_old" target="a"/>
    <transition event="lock.lost" target="a"/>
  </state>
  <state id="b.two" o:why="{queue} is long">
    <onentry><send event="late" id="wait" delay="30s"/></onentry>
    <onexit><cancel sendid="wait"/></onexit>
    <transition event="answer progress" target="b.end"/>
  </state>
  <final id="b.end"/>
  <history id="b.last" type="deep"><transition target="b.two"/></history>
</state>"""


def pictures(chart: Chart) -> list[Picture]:
    inside = [zoomed(chart, top.id) for top in flattened(chart).tops if top.children]
    return [whole(chart), overview(chart), sketch(chart), *inside]


@cache
def chart_of(name: str) -> Chart:
    """One of ``CHARTS``: made when a test needs it, not when one is collected."""
    if name == "sidekick":
        return load_sidekick_chart()
    if name == "small":
        return load(SMALL)
    made = ChartMaker(int(name.removeprefix("random-")))
    return load_chart(made.source, f"{name}.scxml", made.vocabulary)


CHARTS = ("sidekick", "small", *(f"random-{seed}" for seed in range(5)))


@pytest.fixture
def chart(request: pytest.FixtureRequest) -> Chart:
    return chart_of(request.param)


def every_box(boxes: tuple[Box, ...]) -> list[Box]:
    return [found for box in boxes for found in (box, *every_box(box.children))]


@pytest.mark.parametrize("chart", CHARTS, indirect=True)
def test_the_whole_shows_every_state_and_everything_that_leads_somewhere(chart: Chart) -> None:
    picture, chart = whole(chart), flattened(chart)

    assert [*chart.states, *chart.histories] == sorted(
        [box.id for box in every_box(picture.boxes)], key=[*chart.states, *chart.histories].index
    )
    shown = {(arrow.source, arrow.target): arrow.lines for arrow in picture.arrows}
    assert len(picture.arrows) == len(shown), "one arrow from one box to another"
    for way in chart.transitions:
        if way.target is not None:
            assert label_of(way) in shown[way.source, way.target]
    lines = sum(len(arrow.lines) for arrow in picture.arrows)
    assert lines <= sum(way.target is not None for way in chart.transitions)


def test_the_overview_shows_every_state_and_labels_the_main_road() -> None:
    picture = overview(load(SMALL))

    assert ["a", "b", "b.one", "b.two", "b.end", "b.last"] == [box.id for box in every_box(picture.boxes)]
    labels = {(arrow.source, arrow.target): arrow.lines for arrow in picture.arrows if arrow.main}
    assert {
        ("a", "b"): ("go [is_new, !may_go]",),
        ("b.one", "a"): ("back [is_old]",),
        ("b.two", "b.end"): ("answer",),
    } == labels
    assert not any(arrow.lines for arrow in sketch(load(SMALL)).arrows)


def test_a_zoom_shows_the_inside_and_only_names_what_it_leads_to() -> None:
    picture = zoomed(load(SMALL), "b")

    assert [("b", "state"), ("a", "outside")] == [(box.id, box.kind) for box in picture.boxes]
    assert {"b", "b.one", "b.two"} == {arrow.source for arrow in picture.arrows}
    with pytest.raises(KeyError):
        zoomed(load(SMALL), "c")


def test_the_table_has_a_row_for_everything_that_happens() -> None:
    table = to_table(load(SMALL))

    assert table.startswith(
        "### a\n\nStatus: waits for a turn.\nThe beginning.\nIt is a safe point to pause.\nIt may wait forever.\n"
    )
    assert "Status: *queue* is long.\n" in table
    for row in (
        "| `go` | `is_new` and `!may_go` | `b` |  |",
        "| `tick` |  | `b.last` | `cross`, raises `tock` |",
        "| `error.*` |  | stays |  |",
        "| `late` |  | `b.two` (inside) |  |",
        "| on entry |  |  | `late` after 30s |",
        "| on exit |  |  | cancels `wait` |",
        "| `answer`, `progress` |  | `b.end` |  |",
    ):
        assert f"\n{row}\n" in table
    assert "### b.last\n\ndeep history of `b`; at first `b.two`." in table


# --- Mermaid: a state belongs to the composite that mentions it last ------------------------------------------------


@pytest.mark.parametrize("chart", CHARTS, indirect=True)
def test_mermaid_mentions_a_state_only_where_it_lies_until_all_are_declared(chart: Chart) -> None:
    for picture in pictures(chart):
        parents, around = {}, [""]
        mentions: list[tuple[str, str]] = []
        for line in to_mermaid(picture).splitlines()[2:]:
            if declared := re.fullmatch(r' *state "[^"]*" as (\w+)( \{)?', line):
                assert declared[1] not in parents, "declared once"
                parents[declared[1]] = around[-1]
                around += [declared[1]] if declared[2] else []
            elif line.strip() == "}":
                around.pop()
            else:
                arrow = re.fullmatch(r" *(\S+) --> ([^\s:]+)(: \S.*)?", line)
                assert arrow, line
                mentions += [(around[-1], end) for end in (arrow[1], arrow[2]) if end != "[*]"]
        assert len(parents) == len(every_box(picture.boxes))
        for where, name in mentions:
            assert name in parents
            assert where in ("", parents[name]), f"{name} would be pulled into {where}"


def test_mermaid_writes_the_small_chart_like_this() -> None:
    expected = """\
stateDiagram-v2
  direction TB
  state "a" as a
  state "b" as b {
    state "one" as b_one
    state "two" as b_two
    state "end" as b_end
    b_end --> [*]
    state "H*" as b_last
    [*] --> b_one
    b_two --> b_end: answer progress
  }
  [*] --> a
  a --> b: go [is_new, !may_go]
  a --> b_last: tick
  b --> b_two: late
  b_one --> a: back [is_old]<br/>lock.lost
"""
    assert expected == to_mermaid(whole(load(SMALL)))


def test_ids_that_mermaid_would_confuse_stay_apart() -> None:
    rest = 'o:why="x" o:resting="true"'
    body = f"""
<state id="a-b" {rest}><transition event="go" target="a_b"/></state>
<state id="a_b" {rest}><transition event="go" target="a"/></state>
<state id="a" initial="a.b"><transition event="back" target="a-b"/><state id="a.b" {rest}/></state>"""
    chart = load(body, initial="a-b")

    names = re.findall(r"as (\w+)", to_mermaid(whole(chart)))

    assert 4 == len(set(names)) == len(names)


# --- Graphviz -------------------------------------------------------------------------------------------------------


def boxes_of(svg: bytes, kind: str) -> dict[str, tuple[float, float, float, float]]:
    """Bounding boxes (left, top, right, bottom) of the clusters or nodes in an SVG, by title."""
    found = {}
    for group in etree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if group.get("class") != kind:
            continue
        title = group.findtext("{http://www.w3.org/2000/svg}title") or ""
        paths = [shape.get("d") or shape.get("points") or "" for shape in group.iter()]
        numbers = [float(number) for path in paths for number in re.findall(r"-?[\d.]+", path)]
        if numbers:
            found[title] = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    return found


@pytest.mark.parametrize("chart", CHARTS[:4], indirect=True)
def test_every_state_is_drawn_inside_of_its_parents_box(chart: Chart) -> None:
    for picture, sideways in ((whole(chart), False), (sketch(chart), True)):
        svg = render_picture(to_dot(picture, sideways), "svg")
        clusters, nodes = boxes_of(svg, "cluster"), boxes_of(svg, "node")
        inside = 0
        for state in flattened(chart).states.values():
            box = clusters[f"cluster_{state.id}"] if state.children else nodes[state.id]
            if state.parent:
                left, top, right, bottom = clusters[f"cluster_{state.parent}"]
                assert left <= box[0] <= box[2] <= right, f"{state.id} sticks out of {state.parent}"
                assert top <= box[1] <= box[3] <= bottom, f"{state.id} sticks out of {state.parent}"
                inside += 1
        assert inside > 2


def test_a_png_is_drawn_without_a_system_package() -> None:
    assert render_picture(to_dot(whole(load(SMALL))), "png").startswith(b"\x89PNG\r\n")


def test_a_missing_renderer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.statechart.shutil.which", lambda *_, **__: None)

    with pytest.raises(ChartError, match=r"svg needs graphviz-pure: pip install 'outrider\[diagrams\]'"):
        render_picture("digraph {}", "svg")


def test_a_picture_that_the_renderer_refuses_is_an_error() -> None:
    with pytest.raises(ChartError, match="graphviz-pure failed with 1"):
        render_picture("digraph {", "svg")


# --- the same everywhere --------------------------------------------------------------------------------------------

DRAW_ALL = """
from outrider.core.chart.draw import *
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_mermaid import to_mermaid
from outrider.core.chart.flat import flattened
from outrider.statechart import load_sidekick_chart
chart = load_sidekick_chart()
tops = flattened(chart).tops
for picture in (whole(chart), overview(chart), sketch(chart), *(zoomed(chart, top.id) for top in tops)):
    print(to_dot(picture), to_dot(picture, True), to_mermaid(picture))
print(to_table(chart))
"""


def test_every_text_has_the_same_bytes_for_every_hash_seed() -> None:
    here = StringIO()
    with redirect_stdout(here):
        exec(DRAW_ALL, {})  # with the seed of this process, which is any
    drawn = {
        subprocess.run(
            [sys.executable, "-c", DRAW_ALL],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }

    assert {here.getvalue().encode()} == drawn
    assert len(here.getvalue()) > 10_000


# --- tools/diagrams.py ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run left: as of ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


render_once = cache(render_picture)


def run_diagrams(root: Path, *arguments: str) -> Ran:
    """Run the file as ``python tools/diagrams.py`` does, in this process; each picture is rendered once."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["diagrams.py", *arguments])
        patch.setattr(outrider.statechart, "render_picture", render_once)
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(root / "tools/diagrams.py"), run_name="__main__")
    code = left.value.code
    if isinstance(code, int):
        return Ran(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
    return Ran(returncode=1, stdout=out.getvalue(), stderr=f"{err.getvalue()}{code}\n")


def prepare(folder: Path) -> None:
    """Put tools/diagrams.py into ``folder``, beside a docs folder of its own."""
    root = Path(__file__).resolve().parents[3]
    (folder / "tools").mkdir()
    (folder / "docs/develop").mkdir(parents=True)
    for name in ("tools/diagrams.py", "pyproject.toml"):
        (folder / name).write_bytes((root / name).read_bytes())
    page = "# Page\n\nby hand\n\n<!-- chart:sidekick:begin -->\n<!-- chart:sidekick:end -->\n\nafter\n"
    (folder / "docs/develop/statechart.md").write_text(page)


@pytest.fixture
def diagrams(tmp_path: Path) -> Callable[..., Ran]:
    """Runs tools/diagrams.py on a docs folder of its own."""
    prepare(tmp_path)
    return partial(run_diagrams, tmp_path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all pictures as they should be."""
    folder = tmp_path_factory.mktemp("drawn")
    prepare(folder)
    assert 0 == run_diagrams(folder).returncode
    return folder


def test_diagrams_are_written_once_and_then_up_to_date(diagrams: Callable[..., Ran], tmp_path: Path) -> None:
    assert 1 == diagrams("--check").returncode
    assert not (tmp_path / "docs/statecharts").exists(), "--check changes nothing"

    assert 0 == diagrams().returncode

    assert (0, "") == ((checked := diagrams("--check")).returncode, checked.stdout)
    page = (tmp_path / "docs/develop/statechart.md").read_text()
    assert page.startswith("# Page\n\nby hand\n")
    assert page.endswith("<!-- chart:sidekick:end -->\n\nafter\n")
    assert "| `lock.lost` |" in page


STALE = {
    "docs/develop/statechart.md": (b"stateDiagram-v2", b"stateDiagram"),
    "docs/statecharts/sidekick.mmd": (b"-->", b"->"),
    "docs/statecharts/sidekick.svg": (b"idle", b"idles"),
    "docs/statecharts/sidekick-stop-first.svg": (b">draining<", b">drainin<"),
}


def test_a_stale_drawing_is_found_and_shown(drawn: Path, tmp_path: Path) -> None:
    """Each of four, while all the others are as they should be."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    for path, (was, becomes) in STALE.items():
        (tmp_path / path).write_bytes((drawn / path).read_bytes().replace(was, becomes, 1))

    checked = run_diagrams(tmp_path, "--check")

    assert 1 == checked.returncode
    assert set(STALE) == {name for name in map(str, files_of(drawn)) if name in checked.stdout}
    assert "run 'make diagrams'" in checked.stderr


def files_of(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.glob("docs/**/*")) if path.is_file()]


def test_a_page_without_markers_is_not_written_over(diagrams: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "docs/develop/statechart.md").write_text("# Page\n")

    written = diagrams()

    assert 1 == written.returncode
    assert "docs/develop/statechart.md: the markers" in written.stderr
    assert "# Page\n" == (tmp_path / "docs/develop/statechart.md").read_text()
