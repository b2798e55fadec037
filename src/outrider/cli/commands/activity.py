"""``outrider activity``: the event log, read directly from etcd, so it works while the service is down."""

import queue
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

from outrider.cli.addressing import app_option, group_option
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json, echo_table
from outrider.core.errors import ConfigError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Cluster, EtcdAddress, KeyChanged, Resynced, WatchEvent
from outrider.model.activity import SEVERITIES, Activity, Severity
from outrider.model.damage import readable
from outrider.model.keys import Keys
from outrider.service.history.activity_log import read_activity
from outrider.service.store.context import StoreContext, app_id_of
from outrider.service.store.store import utc_now

HEADER = ("AT", "SEVERITY", "GROUP", "INSTANCE", "WHAT")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@app_option("Only this app.", needed=False)
@group_option("Only this group.", needed=False)
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
    app_id: str | None,
    group_id: str | None,
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
    wanted = {"app": app_id, "group": group_id, "instance": instance}
    cluster = open_cluster(etcd)
    try:
        context = StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now)
        revision = cluster.list(f"{context.keys.prefix}/activity-seen").revision
        found = read_activity(context, **wanted, least=severity, since=_since(since, context.now()))
        records = [record for _, record in reversed(found[:limit])]
        if as_json and not follow:
            echo_json([msgspec.to_builtins(record) for record in records])
        elif follow:
            for record in records:
                _print(record, as_json)
            if app_id is not None:
                wanted["app"] = app_id_of(app_id)
            unprinted = Unprinted(entry.key for entry, _ in found)
            _follow(cluster, context.keys, unprinted, wanted, severity, revision, as_json)
        else:
            echo_table(HEADER, [_row(record) for record in records])
    except KeyboardInterrupt:
        return
    finally:
        cluster.close()


def _follow(
    cluster: Cluster,
    keys: Keys,
    unprinted: "Unprinted",
    wanted: dict[str, str | None],
    least: Severity,
    revision: int,
    as_json: bool,
) -> None:
    inbox: queue.SimpleQueue[Activity] = queue.SimpleQueue()

    def note(event: WatchEvent) -> None:
        for record in unprinted.of(event):
            inbox.put(record)

    watch = cluster.watch(f"{keys.prefix}/activity/", revision + 1, note)
    epoch = EpochWatch(cluster, keys, lambda why: watch.look_again())
    epoch.start()
    try:
        while True:
            record = inbox.get()
            matches = all(want in (None, getattr(record, name)) for name, want in wanted.items())
            if matches and SEVERITIES.index(record.severity) >= SEVERITIES.index(least):
                _print(record, as_json)
    finally:
        epoch.close()
        watch.close()


class Unprinted:
    """What of the log was not printed yet, also when changes were compacted away or etcd was restored.

    Args:
        printed: Keys of the records that were read before.
    """

    def __init__(self, printed: Iterable[str]) -> None:
        self._printed = set(printed)

    def of(self, event: WatchEvent) -> list[Activity]:
        """The records that ``event`` brings, in the order in which they were written."""
        match event:
            case KeyChanged(entry=None):
                self._printed.discard(event.key)
                return []
            case KeyChanged(entry=entry):
                entries = [entry] if entry is not None else []
            case Resynced(listing=listing):
                self._printed &= {entry.key for entry in listing.entries}
                entries = sorted(listing.entries, key=lambda entry: (entry.create_revision, entry.key))
        new = [entry for entry in entries if entry.key not in self._printed]
        self._printed |= {entry.key for entry in new}
        return [record for _, record in readable(Activity, new)]


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
