"""``outrider status`` and ``outrider why``: the state of a fleet, read directly from etcd."""

import threading
from collections.abc import Callable
from typing import Any

import click
import msgspec

from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json, echo_table
from outrider.etcd.seam import Cluster, EtcdAddress, WatchEvent
from outrider.model.documents import Undo
from outrider.model.keys import Keys
from outrider.service.operations.readiness import unready
from outrider.service.rollouts.explain import (
    GroupOverview,
    ago,
    count,
    current_reason,
    describe_crash,
    describe_turn,
    explain,
    read_overviews,
)
from outrider.service.store.context import StoreContext, app_id_of
from outrider.service.store.store import utc_now

HEADER = ("GROUP", "INSTANCE", "STATE", "VERSION", "WANTED", "SINCE", "WHY")
REFRESH_S = 5.0
"""Seconds. The table shows ages, so it is printed again after this time even if nothing changes."""


@click.command()
@click.argument("app")
@click.option("--group", help="Only this group.")
@click.option("--watch", is_flag=True, help="Print again whenever something changes, until Ctrl-C.")
@etcd_options
@json_option
def status(app: str, group: str | None, watch: bool, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Show the instances of APP: their state, what they wait for, and which of them hold a turn."""
    cluster = open_cluster(etcd)
    try:
        context = StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now)

        def show() -> None:
            _print(context, app, group, as_json=as_json)
            for problem in unready(context):
                click.echo(f"warning: {problem}", err=True)

        if watch:
            _follow(cluster, context, app, show)
        else:
            show()
    finally:
        cluster.close()


@click.command()
@click.argument("app")
@click.argument("instance")
@etcd_options
@json_option
def why(app: str, instance: str, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Explain the state of INSTANCE of APP and what it waits for."""
    cluster = open_cluster(etcd)
    try:
        lines = explain(StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now), app, instance)
    finally:
        cluster.close()
    if as_json:
        echo_json({"instance": instance, "reasons": lines})
        return
    head, *rest = lines
    click.echo(head)
    for line in rest:
        click.echo(f"  {line}")


def _follow(cluster: Cluster, context: StoreContext, app: str, show: Callable[[], None]) -> None:
    app_id = app_id_of(app)
    changed = threading.Event()

    def note(event: WatchEvent) -> None:
        changed.set()

    prefixes = (
        context.keys.presences(app_id),
        context.keys.groups(app_id),
        context.keys.blocks(app_id),
        context.keys.app_turns(app_id),
        context.keys.all_shared_turns(),
    )
    revision = cluster.list(prefixes[0]).revision
    watches = [cluster.watch(prefix, revision + 1, note) for prefix in prefixes]
    try:
        while True:
            changed.clear()
            click.clear()
            show()
            changed.wait(REFRESH_S)
    except KeyboardInterrupt:
        return
    finally:
        for one in watches:
            one.close()


def _print(context: StoreContext, app: str, group: str | None, *, as_json: bool) -> None:
    overviews = read_overviews(context, app, group)
    if as_json:
        echo_json([_as_json(overview) for overview in overviews])
        return
    echo_table(HEADER, [_row(context, overview, name) for overview in overviews for name in overview.instances])
    for overview in overviews:
        click.echo("")
        click.echo(_summary(overview))


def _row(context: StoreContext, overview: GroupOverview, name: str) -> tuple[object, ...]:
    presence, now = overview.alive.get(name), context.now()
    crash = overview.crashes.get(name)
    crashed = [describe_crash(crash, now)] if crash is not None else []
    if presence is not None:
        since = ago(presence.since, now)
        why = current_reason(overview, name) or presence.why
        reasons = "; ".join(filter(None, (why, presence.notice, *crashed)))
        return (overview.name, name, presence.state, presence.version, presence.wanted, since, reasons)
    row = overview.rows.get(name)
    if row is None:
        strange = overview.strangers_of(name)
        what = strange or ("sidekick offline",)
        return (overview.name, name, "(refused)" if strange else "(unknown)", "", "", "", "; ".join([*what, *crashed]))
    away = "; ".join([f"sidekick offline; last check-in {ago(row.last_seen, now)} ago", *crashed])
    return (overview.name, name, f"({row.status})", row.version, row.granted_version, "", away)


def _summary(overview: GroupOverview) -> str:
    if overview.problem:
        return f"group {overview.name}: {overview.problem}"
    version = overview.target.version or "none"
    marks = [f"group {overview.name}: target: {version}"]
    if overview.target.paused:
        marks.append("paused")
    if overview.group is not None and overview.group.undo is not None:
        marks.append(_pin(overview.group.undo))
    if overview.block is not None:
        marks.append(f"{version} blocked by {overview.block.instance}: {overview.block.why}")
    for scope in overview.scopes:
        taken = [describe_turn(scope, turn) for turn in scope.turns if turn.state != "free"]
        marks += taken or [f"all {count(scope.slots, 'turn')}{scope.where} free"]
        if scope.queue:
            marks.append(f"waiting for a turn: {', '.join(scope.queue)}")
    if overview.snapshot is not None and overview.snapshot.has_begun:
        marks.insert(1, overview.rollout)
    else:  # without a rollout of our service, the sidekicks tell it alone
        marks[1:1] = overview.unable
    return "; ".join(marks)


def _pin(undo: Undo) -> str:
    """What `rollout undo` did, and what ends it."""
    left = f" from {undo.abandoned}" if undo.abandoned else ""
    by, why = (f" by {undo.by}" if undo.by else ""), (f" ({undo.why})" if undo.why else "")
    return f"pinned to {undo.version}: taken back{left}{by}{why}, until `rollout follow` or the next `channel update`"


def _as_json(overview: GroupOverview) -> dict[str, Any]:
    return {
        "app": overview.app,
        "group": overview.name,
        "target": msgspec.to_builtins(overview.target),
        "pin": msgspec.to_builtins(None if overview.group is None else overview.group.undo),
        "blocks": msgspec.to_builtins(overview.block),
        "instances": [
            {
                "instance": name,
                "alive": msgspec.to_builtins(overview.alive.get(name)),
                "row": msgspec.to_builtins(overview.rows.get(name)),
                "strangers": [msgspec.to_builtins(one) for one in overview.strangers if one.instance == name],
                "crash": msgspec.to_builtins(overview.crashes.get(name)),
            }
            for name in overview.instances
        ],
        "scopes": [
            {
                "scope": scope.shared or None,
                "slots": scope.slots,
                "turns": [
                    {"number": turn.number, "state": turn.state, "instance": turn.instance} for turn in scope.turns
                ],
                "queue": list(scope.queue),
            }
            for scope in overview.scopes
        ],
        "rollout": overview.rollout,
        "problem": overview.problem or None,
        "deferred": [] if overview.snapshot is None else [one.instance for one in overview.snapshot.waiting],
    }
