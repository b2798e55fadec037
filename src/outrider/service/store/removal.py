"""Removing an instance for good: all its keys, one by one, and a marker in their place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from outrider.balancers.apisix import without_server
from outrider.core.errors import Conflict, Refused
from outrider.etcd.seam import Entry
from outrider.model.documents import Contender, Gone, Instance, Presence, Slot, WriteGuard, decode
from outrider.service.store.changes import Change
from outrider.service.store.context import StoreContext
from outrider.service.store.snapshot import read_snapshot
from outrider.turns.turns import StoredSlot, read_contenders, read_scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What is left of an instance in etcd.

    Attributes:
        row: None: it has never checked in.
        turns: The slots that it holds, with the scope of each.
        places: Its keys in queues, and the budget slots of its turns.
        guards: The write guards of its servers.
        entries: What balancers find of these servers.
        parts: Values in which they are one of many servers, without them.
        runs: Keys of what may still run there.
    """

    row: Instance | None
    turns: tuple[tuple[Contender, StoredSlot], ...]
    places: tuple[Entry, ...]
    guards: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    parts: tuple[tuple[str, bytes], ...] = ()
    runs: tuple[Entry, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that it was in."""
        named = [self.row.group] if self.row is not None else []
        named += [contender.group for contender, _ in self.turns]
        named += [owner.group for guard in self.guards if (owner := _guard_of(guard).owner) is not None]
        return tuple(dict.fromkeys(named))


def read_traces(context: StoreContext, change: Change, app_id: str, instance: str) -> Traces:
    """Read everything that an instance may have left; what is found is guarded."""
    keys = context.keys
    turns: list[tuple[Contender, StoredSlot]] = []
    places: list[Entry] = []
    for contender in _contenders(context, app_id, instance):
        scope = read_scope(context.cluster, keys, contender.scope)
        slot, place = scope.slot_of(contender.member), scope.queue.get(contender.member)
        if slot is not None:
            change.guard(Slot, slot.entry)
            turns.append((contender, slot))
            for stored in scope.budgets:
                if stored.slot is not None and stored.member == contender.member:
                    change.guard_unread(stored.entry)
                    places.append(stored.entry)
        if place is not None:
            change.guard_unread(place)
            places.append(place)
    guards = tuple(_guards_of(change.list(keys.all_servers()).entries, app_id, instance))
    entries: list[Entry] = []
    for guard in guards:
        change.guard_unread(guard)
        prefix = _guard_of(guard).prefix
        if len(prefix) > 1 and prefix.endswith("/") and not f"{keys.prefix}/".startswith(prefix):
            entries += change.list(prefix).entries
        elif len(prefix) > 1 and not prefix.endswith("/"):  # the entry is one key, and this is it
            entries += (entry for entry in change.list(prefix).entries if entry.key == prefix)
    for entry in entries:
        change.guard_unread(entry)
    parts = tuple(part for guard in guards if (part := _part(change, guard)) is not None)
    runs = tuple(entry for entry in change.list(keys.running(app_id)).entries if entry.key.split("/")[-2] == instance)
    for entry in runs:
        change.guard_unread(entry)
    return Traces(
        row=change.read_or_none(Instance, keys.instance(app_id, instance)),
        turns=tuple(turns),
        places=tuple(places),
        guards=guards,
        entries=tuple(entries),
        parts=parts,
        runs=runs,
    )


def remove(
    context: StoreContext, change: Change, app_id: str, instance: str, traces: Traces, *, by: str, machine_off: bool
) -> Gone:
    """Write the removal of a dead instance into ``change``.

    Raises:
        Conflict: its sidekick lives; or it holds a turn, and nobody has said that its machine is off.
    """
    keys = context.keys
    living = context.all_below(Presence, keys.presences(app_id))
    if any(presence.instance == instance for presence in living):
        raise Conflict(
            f"the sidekick of instance {instance!r} is running; stop it first, or use `outrider instance decommission"
            f" {app_id} {instance}`"
        )
    if traces.turns and not machine_off:
        contender, slot = traces.turns[0]
        where = f"--scope {contender.shared_scope}" if contender.shared_scope else f"{app_id} {contender.group}"
        raise Conflict(
            f"instance {instance!r} holds turn {slot.number + 1}, and may be serving still: switch its machine off and"
            f" repeat with --machine-off, or free the turn alone with `outrider lock release {where} --slot"
            f" {slot.number}`"
        )
    group = next(iter(traces.groups), "")
    for each in traces.groups:
        change.read(Presence, keys.presence(app_id, each, instance))  # compared as absent: it may come back just now
        snapshot = read_snapshot(context, change, app_id, each, checking=instance)
        if snapshot is not None:
            snapshot.end(instance, "withdrawn")
            snapshot.end_deferral(instance)
            snapshot.write()
    slots = (slot.entry for _, slot in traces.turns)
    for entry in (*traces.entries, *traces.guards, *traces.places, *traces.runs, *slots):
        change.delete(entry.key)
    for key, value in traces.parts:
        change.put_value(key, value)
    for contender, _ in traces.turns:
        change.delete(keys.ticket(contender.scope, contender.member))
    for key in (
        keys.command(app_id, instance),
        keys.wakeup(app_id, instance),
        keys.crash(app_id, instance),
        keys.admission(app_id, instance),
    ):
        if change.exists(key):
            change.delete(key)
    if change.exists(keys.instance(app_id, instance)):
        change.delete(keys.instance(app_id, instance))
    gone = Gone(app=app_id, group=group, instance=instance, how="deleted", by=by, at=context.now())
    change.exists(keys.gone(app_id, instance))
    change.put(keys.gone(app_id, instance), gone)
    return gone


def finish(context: StoreContext, change: Change, app_id: str, instance: str) -> None:
    """Remove what a decommissioned instance could not remove itself: what the service keeps of it."""
    keys = context.keys
    gone = change.read(Gone, keys.gone(app_id, instance))
    row = change.read_or_none(Instance, keys.instance(app_id, instance))
    if gone is None or row is None:
        return
    snapshot = read_snapshot(context, change, app_id, row.group, checking=instance)
    if snapshot is not None:
        snapshot.end(instance, "withdrawn")
        snapshot.end_deferral(instance)
        snapshot.write()
    for key in (keys.command(app_id, instance), keys.wakeup(app_id, instance), keys.crash(app_id, instance)):
        if change.exists(key):
            change.delete(key)
    change.delete(keys.instance(app_id, instance))


def _contenders(context: StoreContext, app_id: str, instance: str) -> tuple[Contender, ...]:
    """Where it holds a turn or waits for one."""
    keys = context.keys
    found: dict[str, Contender] = {}
    for prefix in (keys.app_turns(app_id), keys.all_shared_turns()):
        for one in read_contenders(context.cluster, keys, prefix).known:
            if (one.app, one.instance) == (app_id, instance):
                found[one.scope] = one
    return tuple(found.values())


def _guards_of(entries: Iterable[Entry], app_id: str, instance: str) -> Iterator[Entry]:
    for entry in entries:
        owner = _guard_of(entry).owner
        if owner is not None and (owner.app, owner.instance) == (app_id, instance):
            yield entry


def _part(change: Change, guard: Entry) -> tuple[str, bytes] | None:
    """The key of the value that a server shares with others, and the value without it; None when nothing is left."""
    key = _guard_of(guard).shared
    if not key or not change.exists(key):
        return None
    found = change.entry(key)
    assert found is not None
    try:
        value = without_server(key, found.value, guard.key.rpartition("/")[2])
    except Refused:  # nobody can say what is in it, and it is the operator's
        return None
    return None if value == found.value else (key, value)


def _guard_of(entry: Entry) -> WriteGuard:
    try:
        return decode(WriteGuard, entry.key, entry.value)
    except Conflict:  # another outrider's: nobody's
        return WriteGuard(url=None)
