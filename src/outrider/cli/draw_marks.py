"""What a drawing of the statechart marks: where the instances of a group are, or the way that one update took."""

from pathlib import Path

import click

from outrider.cli.addressing import split
from outrider.cli.commands.status import Source, ask
from outrider.cli.output import fail
from outrider.cli.rest_client import ServiceClient
from outrider.core.chart.draw_sheet import Marks
from outrider.core.chart.model import Chart
from outrider.etcd.seam import EtcdAddress
from outrider.story import StoryError, read_lines
from outrider.story.path import last_path
from outrider.story.telling import duration

NAMED = 3
"""As many instances are named in a box; the rest are a number."""


def live_marks(chart: Chart, address: str, etcd: EtcdAddress, prefix: str, service: ServiceClient) -> Marks:
    """The number of instances in each state, and who they are while they are few."""
    app, *rest = split(address, 2)
    if len(rest) != 1:
        raise click.UsageError(f"--live {address}: name an app and a group: APP/GROUP")
    found: list[Marks] = []

    def tell(source: Source) -> None:
        groups, _ = source.status(app, rest[0], "")
        where: dict[str, list[str]] = {}
        away = []
        for one in (one for group in groups for one in group.facts["instances"]):
            if one["alive"] is None:
                away.append(one["instance"])
            else:
                where.setdefault(one["alive"]["state"], []).append(one["instance"])
        found.append(marks_of(chart, address, where, away))

    ask(etcd, prefix, service, tell)
    return found[-1]


def marks_of(chart: Chart, address: str, where: dict[str, list[str]], away: list[str]) -> Marks:
    """Marks for instances by state; a state that an instance of another version has, and we haven't, is told."""
    unknown = {state: names for state, names in where.items() if state not in chart.states}
    total = sum(map(len, where.values()))
    legend = f"Marked: where the {_count(total)} of {address} that {'is' if total == 1 else 'are'} connected stand now."
    if away:
        legend += f" Not connected: {', '.join(away[:NAMED])}{_more(away)}."
    for state, names in unknown.items():
        legend += f" In {state}, which this chart doesn't have: {', '.join(names[:NAMED])}{_more(names)}."
    return Marks(
        legend=legend,
        notes={
            state: (f"{_count(len(names))}: {', '.join(names[:NAMED])}{_more(names)}",)
            for state, names in where.items()
            if state not in unknown
        },
    )


def path_marks(chart: Chart, journal: Path) -> Marks:
    """The steps of the last update in ``journal``, numbered, with how long each stay lasted."""
    lines = read_lines(journal)
    if not lines:
        fail(f"{journal}: the journal has no step yet")
    try:
        path = last_path(lines, chart)
    except StoryError as error:
        fail(str(error))
    notes: dict[str, tuple[str, ...]] = {}
    for number, stay in enumerate(path.stays, start=1):
        lasted = f", {duration(stay.seconds)}" if stay.seconds is not None else ""
        notes[stay.state] = (*notes.get(stay.state, ()), f"step {number}{lasted}")
    legend = f"Marked: the way of the update of {path.instance} to {path.version} ({path.update[:8]}), step by step."
    return Marks(legend=legend, notes=notes, taken=path.taken)


def _count(number: int) -> str:
    return f"{number} instance{'' if number == 1 else 's'}"


def _more(names: list[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
