"""``outrider lock``: the turns and queues of all scopes, and a command that frees a turn of a crashed sidekick."""

import functools
import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import click

from outrider.cli.addressing import split
from outrider.cli.main import Group
from outrider.cli.names import complete_address
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.rollout.slots import TurnState, line, turns
from outrider.etcd.seam import Cluster, EtcdAddress
from outrider.model.damage import read_or_none, readable
from outrider.model.documents import Contender, Presence, Target, Waiter, decode
from outrider.model.keys import Keys, check_part, group_scope, shared_scope
from outrider.service.store.context import app_id_of
from outrider.turns.budgets import read_budgets, taken_budgets
from outrider.turns.turns import Scope, free_turn, read_contenders, read_scope

F = TypeVar("F", bound=Callable[..., Any])

HEADER = ("SLOT", "STATE", "INSTANCE", "RELEASE", "UPDATE", "SINCE")
QUEUE_HEADER = ("PLACE", "INSTANCE", "RELEASE", "SINCE", "HELD BY")
BUDGET_HEADER = ("BUDGET", "OUT")
LIST_HEADER = ("APP", "GROUP", "SCOPE", "HELD", "DIRTY", "WAITING")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Named:
    """A scope as an operator names it.

    Attributes:
        shared: Name of a shared scope; empty for a group's own.
        app, group: Empty for a shared scope.
    """

    shared: str = ""
    app: str = ""
    group: str = ""

    @property
    def scope(self) -> str:
        """Where its keys are.

        Raises:
            ConfigError: it can't be a part of a key.
        """
        return shared_scope(self.shared) if self.shared else group_scope(self.app, self.group)

    def __str__(self) -> str:
        return f"scope {self.shared}" if self.shared else f"{self.app} {self.group}"


def _of_group(app: str, group: str) -> Named:
    return Named(app=app_id_of(app), group=check_part("group", group))


def scope_options(command: F) -> F:
    """Add the ways to name a scope: ``APP/GROUP``, ``APP GROUP`` and ``--scope NAME``. It gets ``named``."""

    @functools.wraps(command)
    def with_scope(*arguments: Any, app: str | None, group: str | None, scope: str | None, **options: Any) -> Any:
        if scope is not None:
            if app is not None:
                raise ConfigError(f"--scope {scope} and {app!r} exclude each other: leave out one of them")
            named = Named(shared=check_part("scope", scope))
        elif app is None:
            raise ConfigError("give APP/GROUP, or --scope NAME; `outrider lock list` shows all scopes in use")
        elif group is None and len(parts := split(app, 2)) == 2:
            named = _of_group(*parts)
        elif group is None:
            raise ConfigError(
                f"app {app!r}: the group is missing, write {app}/GROUP; for a shared scope write --scope {app}"
            )
        else:
            named = _of_group(app, group)
        return command(*arguments, named=named, **options)

    decorated: Any = with_scope
    for add in (
        click.option("--scope", metavar="NAME", help="Shared scope, as in the setting [lock] scope."),
        click.argument("group", metavar="", required=False),
        click.argument("app", metavar="[APP/GROUP]", required=False, shell_complete=complete_address(2)),
    ):
        decorated = add(decorated)
    return cast(F, decorated)


@click.group(cls=Group)
def lock() -> None:
    """View and free turns. A turn is the permission to swap; each scope has a number of slots for turns.

    A group has its own scope, unless its sidekicks name another one.
    """


@lock.command(name="list")
@etcd_options
@json_option
def list_scopes(etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """List every scope in which an instance holds a turn or waits for one."""
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        found = [read_contenders(cluster, keys, family) for family in (keys.all_group_turns(), keys.all_shared_turns())]
        rows, problems = [], []
        for named in sorted({_named(one) for several in found for one in several.known}):
            try:
                rows.append(_counts(named, read_scope(cluster, keys, named.scope)))
            except Conflict as error:
                problems.append(f"{named}: {error}")
    finally:
        cluster.close()
    for key in (key for several in found for key in several.strange):
        problems.append(f"{key}: the key names no instance; remove it, or use the outrider version that wrote it")
    for problem in problems:
        click.echo(problem, err=True)
    if as_json:
        echo_json(rows)
        return
    echo_table(LIST_HEADER, [tuple(row.values()) for row in rows])


@lock.command()
@scope_options
@etcd_options
@json_option
def show(named: Named, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Show the turns of GROUP of APP, or of a scope, and the queue for them.

    A turn is free, held or dirty. A dirty turn was left behind by a sidekick that crashed or lost etcd during a swap,
    or a rollback could not start the version before: then the cause is shown. No instance can take a dirty turn until
    its sidekick has finished or an operator frees it.
    """
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        seen, slots = read_scope(cluster, keys, named.scope), budget(cluster, keys, named)
        if slots is None and not seen.slots and not seen.queue and not _is_in_use(cluster, keys, named):
            raise NotFound(f"{named}: no such scope; `outrider lock list` shows all scopes in use")
        stuck, held = _stuck(cluster, keys, seen), read_budgets(cluster, keys, seen).held
    finally:
        cluster.close()
    states = turns(seen.waiting, seen.holding, slots or 0)
    queue = [
        {"place": place, "instance": each.instance, **_waiter(seen, each.instance), "held": held.get(each.instance)}
        for place, each in enumerate(line(seen.waiting, seen.holding))
    ]
    if as_json:
        echo_json(
            {
                "app": named.app or None,
                "group": named.group or None,
                "scope": named.shared or None,
                "slots": slots,
                "turns": [_turn(seen, each, slots) | {"why": stuck.get(each.number)} for each in states],
                "queue": queue,
                "budgets": {name: list(members) for name, members in taken_budgets(seen).items()},
            }
        )
        return
    if states:
        echo_table(HEADER, [_row(_turn(seen, each, slots)) for each in states])
        for number, why in stuck.items():
            click.echo(f"slot {number} is dirty: {why}")
    else:
        click.echo(f"no turn is taken; the number of slots is unknown: no group has {_missing(named)}")
    if taken := taken_budgets(seen):
        click.echo()
        echo_table(BUDGET_HEADER, [(name, ", ".join(members)) for name, members in taken.items()])
    if queue:
        click.echo()
        echo_table(QUEUE_HEADER, [tuple(each.values()) for each in queue], dropped_when_empty="HELD BY")


@lock.command()
@scope_options
@click.option("--slot", "number", required=True, type=click.IntRange(min=0), help="Number of the slot.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@etcd_options
def release(named: Named, number: int, yes: bool, etcd: EtcdAddress, prefix: str) -> None:
    """Free a turn of GROUP of APP, or of a scope, so that the next instance in the queue may swap.

    The turn's owner can't change shared state any more. First make sure that its instance serves, or that you can do
    without it: the next instance may leave the balancer at once. The activity log records your name for 30 days.
    """
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        seen = read_scope(cluster, keys, named.scope)
        if number not in seen.slots:
            taken = ", ".join(map(str, seen.slots)) or "none"
            raise NotFound(f"slot {number} of {named} is free, so there is nothing to release; taken slots: {taken}")
        slot = seen.slots[number].slot
        held = slot.member in seen.queue
        click.echo(
            f"slot {number} of {named}: {'held' if held else 'dirty'}; {slot.member} swaps to {slot.release}"
            f" since {_time(slot.since)} (update {slot.update})",
            err=True,
        )
        if held:
            click.echo(
                f"the sidekick is alive and swapping; it will lose its turn, and {slot.member} may stay out of service",
                err=True,
            )
        confirm("End this turn and let the next instance swap?", yes=yes)
        free_turn(cluster, keys, named.scope, seen, number, who=operator(), at=datetime.now(UTC))
    finally:
        cluster.close()
    click.echo(f"slot {number} of {named} is free")


def budget(cluster: Cluster, keys: Keys, named: Named) -> int | None:
    """Return how many slots a scope has, None when no target of a group says so.

    Each instance in a shared scope goes by its own group's target: the highest number counts, and with it alone a turn
    beyond is one too many for all of them.
    """
    if named.shared:
        living = cluster.list(keys.all_presences()).entries
        alive = [presence for _, presence in readable(Presence, living)]
        standing = read_contenders(cluster, keys, keys.turns(named.scope)).known
        groups = {(one.app, one.group) for one in alive if one.shared_scope == named.shared}
        groups |= {(one.app, one.group) for one in standing}
    else:
        groups = {(named.app, named.group)}
    slots = []
    for app, group in sorted(groups):
        key = keys.target(app, group)
        if (entry := cluster.get(key)) is not None:
            target = read_or_none(Target, key, entry.value)
            slots += [] if target is None else [target.slots]
    return max(slots, default=None)


def _is_in_use(cluster: Cluster, keys: Keys, named: Named) -> bool:
    """Whether a living sidekick would take its turns there; with a foreign update service there is no target."""
    prefix = keys.all_presences() if named.shared else f"{keys.presences(named.app)}{named.group}/"
    return any(one.shared_scope == named.shared for _, one in readable(Presence, cluster.list(prefix).entries))


def operator() -> str:
    """Return ``user@machine`` of the operator, for the activity log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _named(contender: Contender) -> Named:
    if contender.shared_scope:
        return Named(shared=contender.shared_scope)
    return Named(app=contender.app, group=contender.group)


def _missing(named: Named) -> str:
    return "this scope" if named.shared else "this name; `outrider lock list` shows all scopes in use"


def _counts(named: Named, seen: Scope) -> dict[str, object]:
    states = [each.state for each in turns(seen.waiting, seen.holding, 0)]
    return {
        "app": named.app or None,
        "group": named.group or None,
        "scope": named.shared or None,
        "held": states.count("held"),
        "dirty": states.count("dirty"),
        "waiting": len(line(seen.waiting, seen.holding)),
    }


def _turn(seen: Scope, state: TurnState, slots: int | None) -> dict[str, object]:
    slot = seen.slots[state.number].slot if state.number in seen.slots else None
    return {
        "slot": state.number,
        "state": state.state,
        "surplus": state.surplus and slots is not None,
        "instance": slot and slot.member,
        "release": slot and slot.release,
        "update": slot and slot.update,
        "since": slot and _time(slot.since),
    }


def _row(turn: dict[str, object]) -> tuple[object, ...]:
    state = f"{turn['state']} (surplus)" if turn["surplus"] else turn["state"]
    return (turn["slot"], state, turn["instance"], turn["release"], turn["update"], turn["since"])


def _stuck(cluster: Cluster, keys: Keys, seen: Scope) -> dict[int, str]:
    """Slots of dirty turns whose sidekicks live -> what these wait for."""
    found = {}
    for number, stored in seen.slots.items():
        slot = stored.slot
        if slot.member not in seen.queue:
            key = keys.presence(slot.app, slot.group, slot.instance)
            if (entry := cluster.get(key)) is not None:
                alive = read_or_none(Presence, key, entry.value)
                found[number] = f"{slot.instance}: {alive.why if alive is not None else 'its presence is not readable'}"
    return found


def _waiter(seen: Scope, instance: str) -> dict[str, object]:
    entry = seen.queue[instance]
    try:
        waiter = decode(Waiter, entry.key, entry.value)
    except Conflict:  # of another outrider: where it stands is known all the same
        return {"release": None, "since": None}
    return {"release": waiter.release, "since": _time(waiter.since)}


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
