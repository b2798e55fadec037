"""``outrider group versions`` and ``group events``: what a group's instances reported, over time.

Counted from the instances' histories. The service keeps the last 50 events of each, so far back the numbers are whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click

from outrider.cli import addressing
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.cli.times import between, end_option, start_option

VERSIONS_HEADER = ("Version", "Timestamp", "Count")
EVENTS_HEADER = ("Version", "Type", "Result", "Timestamp", "Count")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        json_option,
        service_options,
        click.option(
            "--resolution",
            type=click.Choice(["60", "3600", "86400"]),
            default="60",
            show_default=True,
            help="Length of one period in seconds.",
        ),
        end_option("Only what was before"),
        start_option("Only what was since then"),
        addressing.group_option("ID of the group."),
        addressing.app_option("Application that the group belongs to."),
    ):
        command = option(command)
    return command


@click.command()
@_options
def versions(
    app_id: str,
    group_id: str,
    start: datetime | None,
    end: datetime | None,
    resolution: str,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Count the instances of a group by version and period."""
    seen = {
        (line["version"], _begin(line, resolution), name)
        for name, line in _lines(service, app_id, group_id, start, end)
    }
    counts = sorted(Counter((version, begin) for version, begin, _ in seen).items())
    if as_json:
        echo_json([{"version": version, "timestamp": begin, "count": n} for (version, begin), n in counts])
    else:
        echo_table(VERSIONS_HEADER, [(*key, number) for key, number in counts])


@click.command()
@_options
def events(
    app_id: str,
    group_id: str,
    start: datetime | None,
    end: datetime | None,
    resolution: str,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Count the events of a group's instances by version, type, result and period."""
    found = (
        (line["version"], *line["event"].split(":"), _begin(line, resolution))
        for _, line in _lines(service, app_id, group_id, start, end)
    )
    counts = sorted(Counter(found).items())
    if as_json:
        names = ("version", "type", "result", "timestamp")
        echo_json([dict(zip(names, key, strict=True)) | {"count": number} for key, number in counts])
    else:
        echo_table(EVENTS_HEADER, [(*key, number) for key, number in counts])


def _lines(
    service: ServiceClient, app_id: str, group_id: str, start: datetime | None, end: datetime | None
) -> Iterator[tuple[str, Json]]:
    service.get("apps", app_id, "groups", group_id)
    for row in service.get_all("apps", app_id, "instances", group=group_id):
        for line in row["history"]:
            if between(line["at"], start, end):
                yield row["id"], line


def _begin(line: Json, resolution: str) -> int:
    """Start of the line's period, in seconds since 1970."""
    at = int(datetime.fromisoformat(line["at"]).timestamp())
    return at - at % int(resolution)
