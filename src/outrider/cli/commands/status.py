"""``outrider status`` and ``outrider why``: the state of a fleet, read directly from etcd."""

import threading
from collections.abc import Callable
from typing import Any

import click
import msgspec

from outrider.cli.addressing import from_context, instance_address, split
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json, echo_table
from outrider.cli.signals import stopped_by_signals
from outrider.core.errors import NotFound
from outrider.etcd.seam import Cluster, EtcdAddress, WatchEvent
from outrider.model.documents import App, Presence, Undo
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
ALL_HEADER = ("APP", "GROUP", "TARGET", "INSTANCES", "ROLLOUT")
REFRESH_S = 5.0
"""Seconds. The table shows ages, so it is printed again after this time even if nothing changes."""


@click.command()
@click.argument("address", metavar="[APP[/GROUP]]", required=False)
@click.option("--group", help="Only this group.")
@click.option("--watch", is_flag=True, help="Print again whenever something changes, until Ctrl-C.")
@etcd_options
@json_option
def status(address: str | None, group: str | None, watch: bool, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Show the instances of APP: their state, what they wait for, and which of them hold a turn.

    Without APP: all apps with their groups, a line each.
    """
    app, group = _addressed(address, group)
    cluster = open_cluster(etcd)
    try:
        context = StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now)

        def show() -> None:
            if app is None:
                _print_all(context, as_json=as_json)
            else:
                _print(context, app, group, as_json=as_json)
            for problem in unready(context):
                click.echo(f"warning: {problem}", err=True)

        if watch:
            _follow(cluster, context, app, show)
        else:
            show()
    finally:
        cluster.close()


def _addressed(address: str | None, group: str | None) -> tuple[str | None, str | None]:
    """App and group that were asked for, or that the context has; None: all."""
    if address is None:
        app = from_context("app")
        return app, group or (from_context("group") if app is not None else None)
    app, *rest = split(address, 2)
    if rest and group and rest[0] != group:
        raise click.UsageError(f"--group says {group!r}, and the address says {rest[0]!r}")
    return app, rest[0] if rest else group


@click.command()
@instance_address
@etcd_options
@json_option
def why(app: str, name: str, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Explain the state of INSTANCE of APP and what it waits for."""
    instance = name
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


def _follow(cluster: Cluster, context: StoreContext, app: str | None, show: Callable[[], None]) -> None:
    app_id = app_id_of(app) if app is not None else None
    changed = threading.Event()

    def note(event: WatchEvent) -> None:
        changed.set()

    keys = context.keys
    prefixes: tuple[str, ...] = (
        keys.all_presences(),
        keys.apps(),
        keys.all_blocks(),
        keys.all_group_turns(),
        keys.all_shared_turns(),
    )
    if app_id is not None:
        prefixes = (
            keys.presences(app_id),
            keys.groups(app_id),
            keys.blocks(app_id),
            keys.app_turns(app_id),
            keys.all_shared_turns(),
        )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        changed.set()

    revision = cluster.list(prefixes[0]).revision
    watches = [cluster.watch(prefix, revision + 1, note) for prefix in prefixes]
    try:
        # not by KeyboardInterrupt: raised in the middle of a call to etcd it leaves a lock of gRPC held for good
        with stopped_by_signals(stop):
            while not stopped.is_set():
                changed.clear()
                click.clear()
                show()
                if not stopped.is_set():
                    changed.wait(REFRESH_S)
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


def _print_all(context: StoreContext, *, as_json: bool) -> None:
    """All apps and groups, a line each; apps that no service knows, too, as long as their sidekicks live."""
    keys = context.keys
    names = {app.id: app.label for app in context.children(App, keys.apps())}
    living = {one.app for one in context.all_below(Presence, keys.all_presences())}
    found = [each for app in sorted({*names, *living}) for each in _overviews(context, app)]
    if as_json:
        echo_json([_as_json(overview) for overview in found])
        return
    echo_table(ALL_HEADER, [(names.get(one.app) or one.app, *_group_row(one)) for one in found])
    if not found:
        click.echo("no app has a group yet; `outrider app create` and `outrider group create` make them", err=True)


def _overviews(context: StoreContext, app: str) -> tuple[GroupOverview, ...]:
    try:
        return read_overviews(context, app)
    except NotFound:  # it went meanwhile
        return ()


def _group_row(overview: GroupOverview) -> tuple[object, ...]:
    """A group in a line: ``web  2.4.0  3 of 3  running  ...``."""
    if overview.problem:
        return (overview.name, "", "", overview.problem)
    target = overview.target.version or ""
    alive = overview.alive.values()
    on_target = sum(one.version == target and one.serving for one in alive)
    instances = f"{sum(one.serving for one in alive)} of {len(overview.instances)} serve"
    if target and on_target < len(overview.instances):
        instances += f", {on_target} with {target}"
    paused = "paused" if overview.target.paused else ""
    blocked = f"blocked by {overview.block.instance}: {overview.block.why}" if overview.block is not None else ""
    rollout = overview.rollout if overview.snapshot is not None and overview.snapshot.has_begun else ""
    crashed = f"{count(len(overview.crashes), 'sidekick')} crashed" if overview.crashes else ""
    news = "; ".join(filter(None, (paused, blocked, rollout, *overview.unable, crashed)))
    return (overview.name, target, instances, news)


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
