"""``outrider activity``: the event log, read directly from etcd, so it works while the service is down."""

import queue
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json, echo_table
from outrider.core.errors import ConfigError
from outrider.etcd.seam import Cluster, EtcdAddress, KeyChanged, WatchEvent
from outrider.model.activity import SEVERITIES, Activity, Severity
from outrider.model.damage import read_or_none
from outrider.model.keys import Keys
from outrider.service.history.activity_log import read_activity
from outrider.service.store.context import StoreContext
from outrider.service.store.store import utc_now

HEADER = ("AT", "SEVERITY", "GROUP", "INSTANCE", "WHAT")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.option("--app-id", "app", help="Only this app.")
@click.option("--group-id", "group", help="Only this group.")
@click.option("--instance", help="Only this instance.")
@click.option(
    "--severity", type=click.Choice(SEVERITIES), default="success", show_default=True, help="Least severity to show."
)
@click.option("--since", help="Only records since then: 30m, 12h, 3d, or a date and time in RFC 3339.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Largest number of records."
)
@click.option("--follow", is_flag=True, help="Print new records until Ctrl-C.")
@etcd_options
@json_option
def activity(
    app: str | None,
    group: str | None,
    instance: str | None,
    severity: Severity,
    since: str | None,
    limit: int,
    follow: bool,
    etcd: EtcdAddress,
    prefix: str,
    as_json: bool,
) -> None:
    """Show events, oldest first: releases, rollouts, failures, and what operators did."""
    wanted = {"app": app, "group": group, "instance": instance}
    cluster = open_cluster(etcd)
    try:
        context = StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now)
        revision = cluster.list(f"{context.keys.prefix}/activity-seen").revision
        found = read_activity(context, **wanted, least=severity, since=_since(since, context.now()))
        records = [record for _, record in reversed(found[:limit])]
        if as_json and not follow:
            echo_json([msgspec.to_builtins(record) for record in records])
        elif follow:
            _follow(cluster, context, records, wanted, severity, revision, as_json=as_json)
        else:
            echo_table(HEADER, [_row(record) for record in records])
    except KeyboardInterrupt:
        return
    finally:
        cluster.close()


def _follow(
    cluster: Cluster,
    context: StoreContext,
    records: list[Activity],
    wanted: dict[str, str | None],
    least: Severity,
    revision: int,
    *,
    as_json: bool,
) -> None:
    inbox: queue.SimpleQueue[Activity] = queue.SimpleQueue()

    def note(event: WatchEvent) -> None:
        if isinstance(event, KeyChanged) and event.entry is not None:
            found = read_or_none(Activity, event.entry.key, event.entry.value)
            if found is not None:
                inbox.put(found)

    for record in records:
        _print(record, as_json)
    watch = cluster.watch(f"{context.keys.prefix}/activity/", revision + 1, note)
    try:
        while True:
            record = inbox.get()
            matches = all(want in (None, getattr(record, name)) for name, want in wanted.items())
            if matches and SEVERITIES.index(record.severity) >= SEVERITIES.index(least):
                _print(record, as_json)
    finally:
        watch.close()


def _print(record: Activity, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(record).decode())
    else:
        click.echo("  ".join(str(cell) for cell in _row(record) if cell))


def _row(record: Activity) -> tuple[Any, ...]:
    return (f"{record.at:%Y-%m-%dT%H:%M:%SZ}", record.severity, record.group, record.instance, record.text)


def _since(text: str | None, now: datetime) -> datetime | None:
    """Read an age or a time.

    Raises:
        ConfigError: neither.
    """
    if text is None:
        return None
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return now - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since {text!r}: write 30m, 12h, 3d, or a time like 2026-11-25T12:00:00Z") from None
    return at if at.tzinfo is not None else at.astimezone()
