"""``outrider status`` and ``outrider why``: the state of a fleet, from etcd, or from the update service without it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import click
import msgspec

from outrider.cli.addressing import from_context, split
from outrider.cli.names import complete_address
from outrider.cli.options import (
    etcd_options,
    is_named,
    json_option,
    open_cluster,
    selector_option,
    service_options,
)
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.cli.signals import stopped_by_signals
from outrider.core.errors import DriverError, NotFound, OutriderError, Unknown
from outrider.etcd.seam import Cluster, EtcdAddress, Unreachable, WatchEvent
from outrider.model.keys import Keys
from outrider.service.history.stories import GroupStory, GroupThen, fleet_at, parse_moment, read_story
from outrider.service.operations.readiness import unready
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.explain_groups import explain_groups
from outrider.service.rollouts.status import read_status
from outrider.service.store.context import StoreContext, app_id_of
from outrider.service.store.store import utc_now

HEADER = ("GROUP", "INSTANCE", "LABELS", "STATE", "VERSION", "WANTED", "SINCE", "WHY")
THEN_HEADER = ("GROUP", "INSTANCE", "STATE", "VERSION", "WANTED", "SINCE", "TURN", "WHY")
ALL_HEADER = ("APP", "GROUP", "TARGET", "INSTANCES", "ROLLOUT")
REFRESH_S = 5.0
"""Seconds. The table shows ages, so it is printed again after this time even if nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is shown of a group: its cells in both tables, its line, its facts."""

    line: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str
    facts: Any


class Source(Protocol):
    """Where the state of the fleet is read."""

    def status(self, app: str | None, group: str | None, selector: str) -> tuple[list[Found], list[str]]:
        """The groups, with the instances that the selector selects, and warnings about the service."""
        ...

    def why(self, app: str, instance: str) -> Sequence[str]:
        """Why the instance is as it is, a line each."""
        ...

    def why_groups(self, app: str, group: str | None) -> list[Json]:
        """Why the group, or each group of the app, is as it is: app, group, reasons."""
        ...

    def story(self, app: str, group: str, *, instance: str, rollout: str) -> GroupStory:
        """The story of a rollout, whole or of one instance."""
        ...

    def then(self, app: str, group: str | None, at: str) -> Sequence[GroupThen]:
        """The groups as they were at a revision, at a time, or so long ago."""
        ...

    def follow(self, app: str | None, show: Callable[[], None]) -> None:
        """Call ``show`` whenever something has changed, until a signal ends it."""
        ...


@click.command()
@click.argument("address", metavar="[APP[/GROUP]]", required=False, shell_complete=complete_address(2))
@click.option("--group", help="Only this group.")
@selector_option
@click.option("--watch", is_flag=True, help="Print again whenever something changes, until Ctrl-C.")
@click.option("--at", metavar="WHEN", help="As it was at a revision of etcd, a time, or so long ago: 30m, 12h, 3d.")
@service_options
@etcd_options
@json_option
def status(
    address: str | None,
    group: str | None,
    selector: str,
    watch: bool,
    at: str | None,
    service: ServiceClient,
    etcd: EtcdAddress,
    prefix: str,
    as_json: bool,
) -> None:
    """Show the instances of APP: their state, what they wait for, and which of them hold a turn.

    Without APP: all apps with their groups, a line each. It is read from etcd; where no etcd is named, or none answers,
    from the update service. With --at: the instances of APP as they were, from the history that the service records.
    """
    app, group = _addressed(address, group)
    if at is not None:
        if app is None:
            raise click.UsageError("--at needs an app: write APP or APP/GROUP")
        if watch or selector:
            raise click.UsageError("--at goes neither with --watch nor with --selector")
        ask(etcd, prefix, service, lambda source: _print_then(source.then(app, group, at), as_json=as_json))
        return

    def tell(source: Source) -> None:
        def show() -> None:
            found, warnings = source.status(app, group, selector)
            _print(app, found, as_json=as_json)
            for problem in warnings:
                click.echo(f"warning: {problem}", err=True)

        if watch:
            source.follow(app, show)
        else:
            show()

    ask(etcd, prefix, service, tell)


def _print_then(found: Sequence[GroupThen], *, as_json: bool) -> None:
    if as_json:
        echo_json(msgspec.to_builtins(found))
        return
    rows = [
        (
            *(one.group, each.instance, each.state, each.version, each.wanted, f"{each.since:%Y-%m-%d %H:%M:%S}"),
            *("" if each.turn is None else f"slot {each.turn}", each.why),
        )
        for one in found
        for each in one.instances
    ]
    echo_table(THEN_HEADER, rows, dropped_when_empty="TURN")
    for one in found:
        click.echo("")
        seen = f"; last step at revision {one.revision}, {one.at:%Y-%m-%d %H:%M:%S} UTC" if one.at is not None else ""
        click.echo(f"group {one.group}: target: {one.target or 'none'}{seen}")
        for note in one.notes:
            click.echo(f"  {note}")


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
@click.argument("address", metavar="[APP[/GROUP[/INSTANCE]]]", nargs=-1, shell_complete=complete_address(3))
@service_options
@etcd_options
@json_option
def why(address: tuple[str, ...], service: ServiceClient, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Explain what an instance, a group or all groups of APP wait for, and what ends it.

    APP INSTANCE and APP/INSTANCE name an instance, too. It is read from etcd; where no etcd is named, or none answers,
    from the update service.
    """
    asked = _asked(address)

    def tell(source: Source) -> None:
        for number, (app, group, instance) in enumerate(asked, start=1):
            try:
                _tell_why(source, app, group, instance, as_json=as_json)
                return
            except NotFound:
                if number == len(asked):
                    raise

    ask(etcd, prefix, service, tell)


def _asked(address: tuple[str, ...]) -> list[tuple[str, str | None, str | None]]:
    """What an address may mean, as app, group and instance; the first that there is counts."""
    if len(address) == 2 and not any("/" in word for word in address):
        return [(address[0], None, address[1])]
    if len(address) > 1:
        raise click.UsageError(f"{' '.join(address)!r} is no address: write APP, APP/GROUP or APP/GROUP/INSTANCE")
    context = from_context("app")
    if not address:
        if context is None:
            raise click.UsageError("why what? Write APP, APP/GROUP, APP/GROUP/INSTANCE or APP INSTANCE")
        return [(context, from_context("group"), None)]
    app, *rest = split(address[0], 3)
    if len(rest) == 2:
        return [(app, rest[0], rest[1])]
    if rest:
        return [(app, None, rest[0]), (app, rest[0], None)]
    if context is None or context == app:
        return [(app, None, None)]
    return [(context, None, app), (app, None, None)]


def _tell_why(source: Source, app: str, group: str | None, instance: str | None, *, as_json: bool) -> None:
    if instance is not None:
        reasons = source.why(app, instance)
        told = [reasons]
        facts: Any = {"instance": instance, "reasons": reasons}
    else:
        found = source.why_groups(app, group)
        told = [one["reasons"] for one in found]
        facts = {"groups": found}
    if as_json:
        echo_json(facts)
        return
    if not told:
        click.echo(f"app {app} has no group; `outrider group create` makes one")
    for head, *rest in told:
        click.echo(head)
        for line in rest:
            click.echo(f"  {line}")


def ask(etcd: EtcdAddress, prefix: str, service: ServiceClient, tell: Callable[[Source], None]) -> None:
    """Ask etcd. Ask the service when no etcd is named and a service is, or when no node of etcd answers.

    Raises:
        Unknown: neither answers; the line names both.
    """
    if not is_named("etcd") and is_named("server"):
        tell(_Service(service))
        return
    cluster = open_cluster(etcd)
    try:
        tell(_Etcd(cluster, prefix))
        return
    except Unreachable as error:
        away = error
    finally:
        cluster.close()
    try:
        tell(_Service(service, note=f"{away}; asked the update service {service.server} instead"))
    except DriverError as error:
        raise Unknown(f"{away}; and {error}; check --etcd (OUTRIDER_ETCD) and --server") from error


class _Etcd:
    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster = cluster
        self._context = StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now)

    def status(self, app: str | None, group: str | None, selector: str) -> tuple[list[Found], list[str]]:
        groups = read_status(self._context, app, group, selector=selector)
        found = [Found(line=one.line, rows=one.rows, summary=one.summary, facts=one.facts) for one in groups]
        return found, list(unready(self._context))

    def why(self, app: str, instance: str) -> Sequence[str]:
        return explain(self._context, app, instance)

    def why_groups(self, app: str, group: str | None) -> list[Json]:
        return [asdict(one) for one in explain_groups(self._context, app, group)]

    def story(self, app: str, group: str, *, instance: str, rollout: str) -> GroupStory:
        return read_story(self._context, app, group, instance=instance, rollout=rollout)

    def then(self, app: str, group: str | None, at: str) -> Sequence[GroupThen]:
        return fleet_at(self._context, app, group, parse_moment(at, self._context.now()))

    def follow(self, app: str | None, show: Callable[[], None]) -> None:
        app_id = app_id_of(app) if app is not None else None
        changed = threading.Event()

        def note(event: WatchEvent) -> None:
            changed.set()

        keys = self._context.keys
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
        revision = self._cluster.list(prefixes[0]).revision
        watches = [self._cluster.watch(prefix, revision + 1, note) for prefix in prefixes]
        try:
            _until_stopped(changed, show)
        finally:
            for one in watches:
                one.close()


class _Service:
    def __init__(self, service: ServiceClient, *, note: str = "") -> None:
        """``note``: said before the first answer, because what follows is as old as that."""
        self._service, self._note = service, note

    def _get(self, *path: str, **options: str | None) -> Json:
        try:
            answer = self._service.get(*path, **options)
        except DriverError:  # it doesn't answer either
            raise
        except OutriderError:
            self._say_note()
            raise
        self._say_note()
        return answer

    def _say_note(self) -> None:
        if self._note:
            click.echo(f"note: {self._note}", err=True)
            self._note = ""

    def status(self, app: str | None, group: str | None, selector: str) -> tuple[list[Found], list[str]]:
        answer = self._get("status", app=app, group=group, selector=selector or None)
        found = [
            Found(line=one["line"], rows=one["rows"], summary=one["summary"], facts=one["facts"])
            for one in answer["groups"]
        ]
        return found, answer["warnings"]

    def why(self, app: str, instance: str) -> Sequence[str]:
        reasons: list[str] = self._get("apps", app, "instances", instance, "why")["reasons"]
        return reasons

    def why_groups(self, app: str, group: str | None) -> list[Json]:
        groups: list[Json] = self._get("apps", app, "why", group=group)["groups"]
        return groups

    def story(self, app: str, group: str, *, instance: str, rollout: str) -> GroupStory:
        lines: list[Json] = []
        after: str | None = None
        while True:
            page = self._get(
                *("apps", app, "groups", group, "story"),
                instance=instance or None,
                rollout=rollout or None,
                after=after,
                limit="1000",
            )
            lines += page.pop("items")
            after = page.pop("next")
            if not after:
                return msgspec.convert(page | {"lines": lines}, type=GroupStory)

    def then(self, app: str, group: str | None, at: str) -> Sequence[GroupThen]:
        groups = self._get("apps", app, "status", at=at, group=group)["groups"]
        return msgspec.convert(groups, type=list[GroupThen])

    def follow(self, app: str | None, show: Callable[[], None]) -> None:
        def show_or_say() -> None:
            try:
                show()
            except DriverError as error:  # it is asked again
                click.echo(f"note: {error}", err=True)

        _until_stopped(threading.Event(), show_or_say)


def _until_stopped(changed: threading.Event, show: Callable[[], None]) -> None:
    """Clear the screen and show, at a change and every ``REFRESH_S``."""
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        changed.set()

    # not by KeyboardInterrupt: raised in the middle of a call to etcd it leaves a lock of gRPC held for good
    with stopped_by_signals(stop):
        while not stopped.is_set():
            changed.clear()
            click.clear()
            show()
            if not stopped.is_set():
                changed.wait(REFRESH_S)


def _print(app: str | None, found: Sequence[Found], *, as_json: bool) -> None:
    if as_json:
        echo_json([one.facts for one in found])
        return
    if app is None:
        echo_table(ALL_HEADER, [one.line for one in found])
        if not found:
            click.echo("no app has a group yet; `outrider apply` makes them from a file", err=True)
        return
    echo_table(HEADER, [row for one in found for row in one.rows], dropped_when_empty="LABELS")
    for one in found:
        click.echo("")
        click.echo(one.summary)
