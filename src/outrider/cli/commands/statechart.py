"""``outrider statechart``: check a statechart, draw it, verify it against the promises."""

import sys
from pathlib import Path

import click

from outrider.cli.commands.statechart_draw import draw
from outrider.cli.commands.verify import verify_chart
from outrider.cli.main import Group
from outrider.statechart import load_chart_file


def read_part(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, int]:
    """``2/5`` as the second of five parts: (1, 5)."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise click.BadParameter(f"{text!r}: write K/N, for example 2/5 for the second of five parts")
    return int(number) - 1, int(parts)


@click.group(cls=Group)
def statechart() -> None:
    """Check, draw and verify the statechart of the sidekick."""


@statechart.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Load FILE and report the first problem in it. Default: the shipped chart.

    Leaves with 0 when the chart is sound and with 1 when it is not.
    """
    chart = load_chart_file(file)
    click.echo(f"{chart.source}: ok, {len(chart.states)} states, {len(chart.transitions)} transitions")


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
@click.option(
    "--part",
    callback=read_part,
    default="1/1",
    show_default=True,
    metavar="K/N",
    help="The K-th of N parts of the bounds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(file: Path | None, bounds: str, jobs: int, part: tuple[int, int], as_json: bool) -> None:
    """Check FILE exhaustively against the promises. Default: the shipped chart.

    Leaves with 0 when all of them hold, and with 1 and the shortest story found when one doesn't.
    """
    if not verify_chart(load_chart_file(file), bounds, jobs=jobs, as_json=as_json, part=part):
        sys.exit(1)


statechart.add_command(draw)
