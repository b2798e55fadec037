"""``outrider lock``: who may swap now, who waits, and an operator's way to end a turn whose owner won't come back."""

import getpass
import socket
from datetime import UTC, datetime

import click

from outrider.cli.common import Group, echo_json, echo_table, etcd_options, json_option, open_cluster
from outrider.cluster.documents import Target, Waiter, decode
from outrider.cluster.keys import Keys, check_part
from outrider.cluster.seam import Cluster, EtcdAddress
from outrider.cluster.turns import Scope, free_turn, read_scope
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.slots import TurnState, line, turns

HEADER = ("SLOT", "STATE", "INSTANCE", "RELEASE", "UPDATE", "SINCE")
QUEUE_HEADER = ("PLACE", "INSTANCE", "RELEASE", "SINCE")


@click.group(cls=Group)
def lock() -> None:
    """Turns: permission to swap, one of a scope's slots."""


@lock.command()
@click.argument("scope")
@etcd_options
@json_option
def show(scope: str, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Show the turns of SCOPE and who waits for one, next one first.

    SCOPE is APP.GROUP unless the sidekicks are configured with another. A turn is free, held, or dirty: its sidekick
    died or is cut off in mid-swap, and nobody may take it until it is back or an operator releases it.
    """
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        seen, slots = read_scope(cluster, keys, scope), budget(cluster, keys, scope)
    finally:
        cluster.close()
    states = turns(seen.waiting, seen.holding, slots or 0)
    queue = [
        {"place": place, "instance": each.instance, **_waiter(seen, each.instance)}
        for place, each in enumerate(line(seen.waiting, seen.holding))
    ]
    if as_json:
        echo_json(
            {"scope": scope, "slots": slots, "turns": [_turn(seen, each, slots) for each in states], "queue": queue}
        )
        return
    if states:
        echo_table(HEADER, [_row(_turn(seen, each, slots)) for each in states])
    else:
        click.echo("no turn is taken; how many slots there are is unknown: no group has this scope")
    if queue:
        click.echo()
        echo_table(QUEUE_HEADER, [tuple(each.values()) for each in queue])


@lock.command()
@click.argument("scope")
@click.option("--slot", "number", required=True, type=click.IntRange(min=0), help="Number of the slot.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@etcd_options
def release(scope: str, number: int, yes: bool, etcd: EtcdAddress, prefix: str) -> None:
    """End a turn of SCOPE that isn't free, so that the next instance in line may swap.

    The turn's owner can't write to shared state any more. Make sure first that its instance serves, or that you can do
    without it: the next one may leave the balancer at once. Who did it is recorded for 30 days.
    """
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        seen = read_scope(cluster, keys, scope)
        if number not in seen.slots:
            taken = ", ".join(map(str, seen.slots)) or "none"
            raise NotFound(f"slot {number} of {scope} is free, nothing to release; taken: {taken}")
        slot = seen.slots[number].slot
        held = slot.instance in seen.queue
        click.echo(
            f"slot {number} of {scope}: {'held' if held else 'dirty'}, {slot.instance} swaps to {slot.release} since"
            f" {_time(slot.since)} (update {slot.update})",
            err=True,
        )
        if held:
            click.echo(
                f"its sidekick is alive and in mid-swap: it will be shut out; {slot.instance} may be out", err=True
            )
        if not yes:
            click.confirm("End this turn and let the next instance swap?", abort=True, err=True)
        free_turn(cluster, keys, scope, seen, number, who=operator(), at=datetime.now(UTC))
    finally:
        cluster.close()
    click.echo(f"slot {number} of {scope} is free")


def budget(cluster: Cluster, keys: Keys, scope: str) -> int | None:
    """Return how many slots the group of ``scope`` (APP.GROUP) has, None when no group's target says so."""
    check_part("scope", scope)
    pieces = scope.split(".")
    for split in range(1, len(pieces)):
        app, group = ".".join(pieces[:split]), ".".join(pieces[split:])
        try:
            key = keys.target(app, group)
        except ConfigError:
            continue  # a name can't begin with a dot: it isn't split here
        if (entry := cluster.get(key)) is not None:
            return decode(Target, key, entry.value).slots
    return None


def operator() -> str:
    """Return ``user@machine`` of whoever types, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _turn(seen: Scope, state: TurnState, slots: int | None) -> dict[str, object]:
    slot = seen.slots[state.number].slot if state.number in seen.slots else None
    return {
        "slot": state.number,
        "state": state.state,
        "surplus": state.surplus and slots is not None,
        "instance": slot and slot.instance,
        "release": slot and slot.release,
        "update": slot and slot.update,
        "since": slot and _time(slot.since),
    }


def _row(turn: dict[str, object]) -> tuple[object, ...]:
    state = f"{turn['state']} (surplus)" if turn["surplus"] else turn["state"]
    return (turn["slot"], state, turn["instance"], turn["release"], turn["update"], turn["since"])


def _waiter(seen: Scope, instance: str) -> dict[str, object]:
    entry = seen.queue[instance]
    try:
        waiter = decode(Waiter, entry.key, entry.value)
    except Conflict:  # of another outrider: where it stands is known all the same
        return {"release": None, "since": None}
    return {"release": waiter.release, "since": _time(waiter.since)}


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
