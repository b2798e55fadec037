"""``outrider statechart``: check a statechart, draw it, verify it against the promises."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import click

from outrider.cli.commands.verify import verify_chart
from outrider.cli.main import Group
from outrider.cli.output import fail
from outrider.core.chart.draw import Picture, overview, sketch, to_table, whole, zoomed
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_mermaid import to_mermaid
from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart, load_chart
from outrider.core.sidekick.guards import decided_by
from outrider.core.sidekick.memory import Strategy
from outrider.core.sidekick.rules import VOCABULARY
from outrider.statechart import find_sidekick_chart, read_chart_file, render_picture

VIEWS: Mapping[str, Callable[[Chart], Picture]] = {"whole": whole, "overview": overview, "sketch": sketch}


@click.group(cls=Group)
def statechart() -> None:
    """Check, draw and verify the statechart of the sidekick."""


@statechart.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Load FILE and report the first problem in it. Default: the shipped chart.

    Leaves with 0 when the chart is sound and with 1 when it is not.
    """
    chart = _load(file)
    click.echo(f"{chart.source}: ok, {len(chart.states)} states, {len(chart.transitions)} transitions")


@statechart.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mermaid", "dot", "svg", "png", "table"]),
    default="mermaid",
    show_default=True,
    help="svg and png need outrider[diagrams].",
)
@click.option(
    "--view",
    default=None,
    metavar="VIEW",
    help="whole, overview (the main road), sketch (without labels), the id of a state to see from the inside, or path: "
    "everything beside a straight line of what happens when nothing goes wrong, as svg only.  [default: path for the "
    "svg of one strategy, whole otherwise]",
)
@click.option(
    "--strategy", type=click.Choice(get_args(Strategy)), help="Only the states and transitions that it can reach."
)
@click.option("--sideways", is_flag=True, help="From left to right instead of from the top down.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write here instead of to stdout.")
def draw(
    file: Path | None, kind: str, view: str | None, strategy: Strategy | None, sideways: bool, output: Path | None
) -> None:
    """Draw FILE. Default: the shipped chart."""
    if kind == "png" and output is None and sys.stdout.isatty():
        fail("a terminal can't show a png: add --output FILE, or redirect the output to a file")
    chart = _load(file)
    if strategy is not None:
        chart = prune(flattened(chart), decided_by(strategy))
    if view is None:
        view = "path" if strategy is not None and kind == "svg" and not sideways else "whole"
    title = f"{chart.name}: {strategy}" if strategy is not None else chart.name
    drawing = _draw_path(chart, title, kind, sideways) if view == "path" else _draw(chart, kind, view, sideways)
    if output is None:
        click.echo(drawing, nl=False)
        return
    try:
        output.write_bytes(drawing)
    except OSError as error:
        fail(f"--output {output}: {error.strerror}")


@statechart.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--bounds",
    type=click.Choice(["small", "usual", "large"]),
    default="usual",
    show_default=True,
    help="How many faults to allow: small takes about two minutes, usual five, large an hour or more.",
)
@click.option("--quick", "bounds", flag_value="small", help="The same as --bounds small.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Number of processes. Default: one per processor.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(file: Path | None, bounds: str, jobs: int, as_json: bool) -> None:
    """Check FILE exhaustively against the promises. Default: the shipped chart.

    Leaves with 0 when all of them hold, and with 1 and the shortest story found when one doesn't.
    """
    if not verify_chart(_load(file), bounds, jobs=jobs, as_json=as_json):
        sys.exit(1)


def _load(file: Path | None) -> Chart:
    path = file or find_sidekick_chart()
    return load_chart(read_chart_file(path), path.name, VOCABULARY)


def _draw(chart: Chart, kind: str, view: str, sideways: bool) -> bytes:
    if kind == "table":
        return to_table(chart).encode()
    picture = _look(chart, view)
    if kind == "mermaid":
        return to_mermaid(picture, sideways).encode()
    dot = to_dot(picture, sideways)
    return dot.encode() if kind == "dot" else render_picture(dot, kind)


def _draw_path(chart: Chart, title: str, kind: str, sideways: bool) -> bytes:
    if kind != "svg" or sideways:
        fail("--view path is drawn as svg and from the top down: use --format svg without --sideways")
    return to_svg(lay_out_path(chart, title)).encode()


def _look(chart: Chart, view: str) -> Picture:
    if view in VIEWS:
        return VIEWS[view](chart)
    chart = flattened(chart)
    if view not in chart.states:
        known = ", ".join([*VIEWS, "path", *(state.id for state in chart.tops)])
        fail(f"--view {view}: no such view or state; known: {known}")
    return zoomed(chart, view)
