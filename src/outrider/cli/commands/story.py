"""``outrider story``: the history of a sidekick, read from its journal."""

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from outrider.cli.options import json_option
from outrider.cli.output import echo_json
from outrider.core.chart.model import Chart
from outrider.core.errors import NotFound
from outrider.core.sidekick.words import why
from outrider.statechart import load_sidekick_chart
from outrider.story import Line, Story, StoryError, read_lines, render, replay, tell
from outrider.story.lines import know


@click.command()
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--update", metavar="ID", help="Update with this id; the beginning of the id is enough.")
@click.option("--all", "every", is_flag=True, help="Every update in the journal, oldest first.")
@click.option("--check", is_flag=True, help="Only replay the journal against the chart; print no story.")
@json_option
def story(journal: Path, update: str | None, every: bool, check: bool, as_json: bool) -> None:
    """Show the last update in JOURNAL: what happened, why, and how long each state took.

    JOURNAL is a journal.jsonl, or the state_dir with it; a running sidekick is not disturbed. With --check it leaves
    with 1 at the first step that the statechart doesn't have.
    """
    if sum((update is not None, every, check)) > 1:
        raise click.UsageError("--update, --all and --check exclude each other: give one of them")
    chart = load_sidekick_chart()
    lines = read_lines(journal)
    if not lines:
        raise StoryError(f"{journal}: the journal has no step yet")
    source = lines[-1].location.rpartition(":")[0]
    if check:
        _check(lines, chart, source, as_json=as_json)
        return
    chosen = _chosen(tell(lines, chart), source, update, every)
    if as_json:
        echo_json([msgspec.to_builtins(one) | {"took_s": one.took_s} for one in chosen])
        return
    if not chosen:
        click.echo(f"{source}: no update yet; {_where(lines[-1], chart)}")
    for number, one in enumerate(chosen):
        if number:
            click.echo("")
        for text in render(one):
            click.echo(text)


def _check(lines: Sequence[Line], chart: Chart, source: str, *, as_json: bool) -> None:
    found = replay(lines, chart)
    if as_json:
        echo_json({"journal": source} | msgspec.to_builtins(found))
        return
    given = f" after step {found.after}" if found.after else ""
    click.echo(f"{source}: {found.steps} steps{given}, all in the chart")


def _chosen(stories: tuple[Story, ...], source: str, update: str | None, every: bool) -> tuple[Story, ...]:
    if update is None:
        return stories if every else stories[-1:]
    chosen = tuple(one for one in stories if one.update.startswith(update.lower()))
    if not chosen:
        known = ", ".join(one.update[:8] for one in stories[-10:]) or "none at all"
        raise NotFound(f"{source}: no update {update!r}; the journal has {known}")
    return chosen


def _where(line: Line, chart: Chart) -> str:
    state = line.record.target
    words = why(know(line).memory, chart.states[state].why) if state in chart.states else ""
    return f"now {state}" + (f": {words}" if words else "")
