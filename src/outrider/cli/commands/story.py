"""``outrider story``: what happened in a group's rollout, or in the life of one sidekick by its journal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, assert_never

import click
import msgspec

from outrider.cli.addressing import from_context, split
from outrider.cli.commands.status import ask
from outrider.cli.names import complete_address
from outrider.cli.options import etcd_options, json_option, service_options
from outrider.cli.output import echo_json
from outrider.cli.rest_client import ServiceClient
from outrider.core.chart.model import Chart
from outrider.core.errors import NotFound
from outrider.core.sidekick.words import why
from outrider.etcd.seam import EtcdAddress
from outrider.service.history.stories import GroupStory
from outrider.statechart import load_sidekick_chart
from outrider.story import Line, Story, StoryError, read_lines, render, replay, tell
from outrider.story.lines import know
from outrider.story.pictures import gantt, render_lines, sequence

FORMATS = ("text", "json", "mermaid", "gantt")
Format = Literal["text", "json", "mermaid", "gantt"]


@click.command()
@click.argument("what", metavar="[APP/GROUP[/INSTANCE]|JOURNAL]", required=False, shell_complete=complete_address(3))
@click.option("--rollout", default="", metavar="ID|VERSION", help="Of a group: this rollout; default: the last one.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Of a group: text, JSON, or a diagram of Mermaid (messages in sequence, or a Gantt chart).",
)
@click.option("--update", metavar="ID", help="Of a journal: the update with this id; its beginning is enough.")
@click.option("--all", "every", is_flag=True, help="Of a journal: every update in it, oldest first.")
@click.option("--check", is_flag=True, help="Of a journal: only replay it against the chart; print no story.")
@service_options
@etcd_options
@json_option
def story(
    what: str | None,
    rollout: str,
    form: Format,
    update: str | None,
    every: bool,
    check: bool,
    service: ServiceClient,
    etcd: EtcdAddress,
    prefix: str,
    as_json: bool,
) -> None:
    """Show what happened, why, and how long each state took: in a group's rollout, or in a JOURNAL on this machine.

    APP/GROUP: the last rollout, all instances merged in the order of etcd's revisions; steps of which etcd heard
    nothing stand between the revisions around them, and are marked. APP/GROUP/INSTANCE: one instance's part of it. It
    is read from etcd; where no etcd is named, or none answers, from the update service.

    JOURNAL is a journal.jsonl, or the state_dir with it: its last update. A running sidekick is not disturbed. With
    --check it leaves with 1 at the first step that the statechart doesn't have.
    """
    of_journal = update is not None or every or check
    if what is not None and (of_journal or _is_path(what)):
        if rollout or form in ("mermaid", "gantt"):
            raise click.UsageError("--rollout and diagrams are of a group: write APP/GROUP")
        _tell_journal(Path(what), update, every, check, as_json=as_json or form == "json")
        return
    if of_journal:
        raise click.UsageError("--update, --all and --check are of a journal: name it, or its folder")
    app, group, instance = _place(what)
    form = "json" if as_json else form
    ask(
        etcd,
        prefix,
        service,
        lambda source: _tell_group(source.story(app, group, instance=instance, rollout=rollout), form),
    )


def _is_path(what: str) -> bool:
    return what.endswith(".jsonl") or what.startswith(("/", "./", "../", "~")) or what == "." or Path(what).exists()


def _place(what: str | None) -> tuple[str, str, str]:
    """App, group and instance; the instance is empty when none is named."""
    if what is None:
        app, group = from_context("app"), from_context("group")
        if app is None or group is None:
            raise click.UsageError("story of what? Write APP/GROUP, APP/GROUP/INSTANCE, or a journal")
        return app, group, ""
    parts = split(what, 3)
    if len(parts) == 1:
        raise click.UsageError(f"{what!r}: no such file, and no address: write APP/GROUP or APP/GROUP/INSTANCE")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _tell_group(told: GroupStory, form: Format) -> None:
    of = f" on {told.instance}" if told.instance else ""
    rollout = f" ({told.rollout})" if told.rollout is not None else ""
    title = f"rollout of {told.version or 'nothing'} to {told.app}/{told.group}{of}{rollout}"
    match form:
        case "json":
            echo_json(msgspec.to_builtins(told))
        case "mermaid":
            click.echo("\n".join(sequence(told.lines, title)))
        case "gantt":
            click.echo("\n".join(gantt(told.lines, title)))
        case "text":
            began = f", {told.began:%Y-%m-%d} UTC" if told.began is not None else ""
            click.echo(f"{title}{began}")
            for text in (*render_lines(told.lines), *told.notes):
                click.echo(f"  {text}")
        case _:
            assert_never(form)


def _tell_journal(journal: Path, update: str | None, every: bool, check: bool, *, as_json: bool) -> None:
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
