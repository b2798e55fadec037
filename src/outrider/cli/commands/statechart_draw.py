"""``outrider statechart draw``: the statechart as a picture, in the formats that slides, wikis and tools take."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import click

from outrider.cli.draw_marks import live_marks, path_marks
from outrider.cli.options import etcd_options, service_options
from outrider.cli.output import fail
from outrider.cli.rest_client import ServiceClient
from outrider.core.chart.draw import Picture, marked, overview, sketch, to_table, whole, zoomed
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_html import Glossary, to_html
from outrider.core.chart.draw_inside import only_inside
from outrider.core.chart.draw_mermaid import all_boxes, to_mermaid
from outrider.core.chart.draw_path import NO_MARKS, NOTHING_WRONG, lay_out_path
from outrider.core.chart.draw_placed import ENGINE, to_placed_dot
from outrider.core.chart.draw_plantuml import to_plantuml
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_scxml import to_scxml
from outrider.core.chart.draw_sheet import Marks, Sheet
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.draw_theme import Theme
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart
from outrider.core.errors import ChartError
from outrider.core.sidekick.glossary import effect_words, event_words, guard_words
from outrider.core.sidekick.guards import decided_by
from outrider.core.sidekick.memory import Strategy
from outrider.etcd.seam import EtcdAddress
from outrider.statechart import load_chart_file, render_picture

VIEWS: Mapping[str, Callable[[Chart], Picture]] = {"whole": whole, "overview": overview, "sketch": sketch}
PLACED = ("svg", "png", "html")
"""Formats in which we place everything ourselves."""

GLOSSARY = Glossary(event=event_words, guard=guard_words, effect=effect_words)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mermaid", "dot", "plantuml", "scxml", "svg", "png", "html", "table"]),
    default="mermaid",
    show_default=True,
    help="html explains each state and transition on hover. png, and the svg of a view with curved lines, need "
    "outrider[diagrams].",
)
@click.option(
    "--view",
    default=None,
    metavar="VIEW",
    help="whole, overview (the main road), sketch (without labels), the id of a state to see from the inside, or path: "
    "everything beside a straight line of what happens when nothing goes wrong.  [default: path for the svg, png and "
    "html of one strategy, whole otherwise]",
)
@click.option(
    "--strategy", type=click.Choice(get_args(Strategy)), help="Only the states and transitions that it can reach."
)
@click.option("--theme", type=click.Choice(get_args(Theme)), default="light", show_default=True, help="Of the paper.")
@click.option("--sideways", is_flag=True, help="From left to right instead of from the top down.")
@click.option("--live", metavar="APP/GROUP", help="Mark where the instances of this group are now, with their number.")
@click.option(
    "--path",
    "journal",
    type=click.Path(path_type=Path),
    metavar="JOURNAL",
    help="Mark the way that the last update in this journal took, a journal.jsonl or the state_dir with it.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write here instead of to stdout.")
@service_options
@etcd_options
def draw(
    file: Path | None,
    kind: str,
    view: str | None,
    strategy: Strategy | None,
    theme: Theme,
    sideways: bool,
    live: str | None,
    journal: Path | None,
    output: Path | None,
    service: ServiceClient,
    etcd: EtcdAddress,
    prefix: str,
) -> None:
    """Draw FILE. Default: the shipped chart.

    With --live, the instances are read from etcd; where no etcd is named, or none answers, from the update service.
    """
    if kind == "png" and output is None and sys.stdout.isatty():
        fail("a terminal can't show a png: add --output FILE, or redirect the output to a file")
    if live is not None and journal is not None:
        raise click.UsageError("--live and --path exclude each other: give one of them")
    if (live is not None or journal is not None) and kind in ("scxml", "table"):
        fail(f"--format {kind} is the chart alone: --live and --path need another format")
    chart = load_chart_file(file)
    marks = NO_MARKS
    if live is not None:
        marks = live_marks(chart, live, etcd, prefix, service)
    if journal is not None:
        marks = path_marks(chart, journal)
    name = chart.name
    if strategy is not None:
        chart = prune(flattened(chart), decided_by(strategy))
        name = f"{chart.name}: {strategy}"
    drawing = _draw(chart, name, kind, view, marks, theme, sideways=sideways, one=strategy is not None)
    if output is None:
        click.echo(drawing, nl=False)
        return
    try:
        output.write_bytes(drawing)
    except OSError as error:
        fail(f"--output {output}: {error.strerror}")


def _draw(
    chart: Chart, name: str, kind: str, view: str | None, marks: Marks, theme: Theme, *, sideways: bool, one: bool
) -> bytes:
    if kind in ("table", "scxml"):
        return (to_table(chart) if kind == "table" else to_scxml(chart)).encode()
    placed = kind in PLACED and not sideways and (one or kind == "html")
    view = view or ("path" if placed else "whole")
    if view == "path" and (kind not in PLACED or sideways):
        fail(f"--view path is drawn as {', '.join(PLACED)} and from the top down: use --format svg without --sideways")
    if view == "path":
        return _placed(chart, _told(_path_of(chart, name, marks, one=one), marks), kind, theme)
    if placed and view not in VIEWS:
        part = only_inside(flattened(chart), _state(chart, view))
        on_path = any(way.success for way in chart.transitions if chart.within(way.source, view))
        line = NOTHING_WRONG if on_path else "what comes first in each state"
        return _placed(part, _told(lay_out_path(part, f"{name}, {view}", marks, line=line), marks), kind, theme)
    if kind == "html":
        fail(f"--view {view} has no html: leave --view out, or name a state, with --strategy")
    picture = VIEWS[view](chart) if view in VIEWS else zoomed(flattened(chart), _state(chart, view))
    picture = marked(picture, marks.notes)
    _tell_lost(marks, {box.id for box in all_boxes(picture.boxes)})
    match kind:
        case "mermaid":
            return to_mermaid(picture, sideways, theme).encode()
        case "plantuml":
            return to_plantuml(picture, sideways, theme).encode()
    dot = to_dot(picture, sideways, theme)
    return dot.encode() if kind == "dot" else render_picture(dot, kind)


def _path_of(chart: Chart, name: str, marks: Marks, *, one: bool) -> Sheet:
    try:
        return lay_out_path(chart, name, marks)
    except ChartError as error:
        if one:
            raise
        fail(f"{error}; choose one with --strategy {' or '.join(get_args(Strategy))}")


def _placed(chart: Chart, sheet: Sheet, kind: str, theme: Theme) -> bytes:
    match kind:
        case "svg":
            return to_svg(sheet, theme).encode()
        case "html":
            return to_html(chart, sheet, GLOSSARY, theme).encode()
    return render_picture(to_placed_dot(sheet, theme), kind, ENGINE)


def _told(sheet: Sheet, marks: Marks) -> Sheet:
    _tell_lost(marks, {frame.id for frame in sheet.frames})
    return sheet


def _tell_lost(marks: Marks, shown: set[str]) -> None:
    """Warn of marks that stand in no box of the drawing."""
    lost = sorted(set(marks.notes) - shown)
    if lost:
        click.echo(f"warning: marked, but not in this drawing: {', '.join(lost)}", err=True)


def _state(chart: Chart, view: str) -> str:
    chart = flattened(chart)
    if view not in chart.states:
        known = ", ".join([*VIEWS, "path", *(state.id for state in chart.tops)])
        fail(f"--view {view}: no such view or state; known: {known}")
    return view
