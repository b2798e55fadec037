"""Disruption budgets in etcd: read with the scope, and taken in the transaction that takes the turn.

A budget slot, ``{scope}/budgets/{label}={value}/slots/{n}/{member}``, comes with a turn and ends with it: they are
created and removed by the same transactions. So it is dirty when its turn is. The one that takes a turn compares that
nothing below the budgets it falls into is newer than what it has read. So of two that read the same, only one succeeds.
For a floor it compares the presences of as many others as must serve: one that ends or stops serving refuses the turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from outrider.core.rollout.budgets import Contending, Room
from outrider.etcd.seam import Cluster, Compare, Entry, ModifiedAt, NotNewer, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import BudgetSlot, Contender, Presence, Target, Waiter, encode
from outrider.model.keys import Keys
from outrider.turns.turns import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group whose instances wait in the scope.

    Attributes:
        target: Its target key, as it was read; None: it has none.
        alive: Presences of its sidekicks, by instance; only read where a floor counts them.
    """

    budgets_of: Target
    target: Entry | None
    alive: Mapping[str, tuple[Entry, Presence]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The budgets that count in a scope, as they were when the scope was read.

    Attributes:
        contending: Those in the queue, by their names in the scope.
    """

    scope: Scope
    groups: Mapping[tuple[str, str], Group]
    contending: Mapping[str, Contending]

    @property
    def held(self) -> dict[str, str]:
        """Instances that can't take a turn now because of a budget -> why."""
        return {name: why for name, one in self.contending.items() if (why := one.held)}

    @property
    def are_newer(self) -> bool:
        """A target changed after the scope was read, so what was taken under the one before may not be in it."""
        revisions = (group.target.mod_revision for group in self.groups.values() if group.target is not None)
        return max(revisions, default=0) > self.scope.revision

    @property
    def are_set(self) -> bool:
        """A group of the scope has budgets: any change may let anybody in the queue go on."""
        return any(one.budgets for one in self.contending.values())

    def has_floors(self, contender: Contender) -> bool:
        """What serves matters for it."""
        one = self.contending.get(contender.member)
        return one is not None and any(budget.min_serving for budget, _ in one.falls_into)

    def taking(
        self, keys: Keys, contender: Contender, *, number: int, update: str, since: datetime
    ) -> tuple[tuple[Compare, ...], tuple[Put, ...]]:
        """What the transaction that takes a turn compares and writes besides."""
        mine = self.groups[contender.app, contender.group]
        key = keys.target(contender.app, contender.group)
        compares: dict[str, Compare] = {
            key: ModifiedAt(key=key, revision=0 if mine.target is None else mine.target.mod_revision)
        }
        puts: list[Put] = []
        one = self.contending[contender.member]
        for budget, value in one.falls_into:
            prefix = keys.budget(contender.scope, budget.label, value)
            compares[prefix] = NotNewer(key=prefix, revision=self.scope.revision)
            taken = {
                stored.entry.key[len(prefix) :].partition("/")[0]
                for stored in self.scope.budgets
                if stored.entry.key.startswith(prefix)
            }
            place = next(free for free in range(len(taken) + 1) if str(free) not in taken)
            slot = BudgetSlot(
                app=contender.app,
                group=contender.group,
                instance=contender.instance,
                shared_scope=contender.shared_scope,
                label=budget.label,
                value=value,
                turn=number,
                update=update,
                since=since,
            )
            puts.append(Put(key=f"{prefix}{place}/{contender.member}", value=encode(slot)))
            if budget.min_serving and one.serves:
                serving = one.rooms[budget.label, value].serving
                for name in sorted(set(serving) - {contender.member})[: budget.min_serving]:
                    entry, _ = mine.alive[name]
                    compares[entry.key] = ModifiedAt(key=entry.key, revision=entry.mod_revision)
        return tuple(compares.values()), tuple(puts)


def read_budgets(cluster: Cluster, keys: Keys, scope: Scope) -> Budgets:
    """Read the budgets of all groups that wait in a scope, after the scope."""
    waiters = {
        name: waiter
        for name, entry in scope.queue.items()
        if (waiter := read_or_none(Waiter, entry.key, entry.value)) is not None
    }
    groups: dict[tuple[str, str], Group] = {}
    for one in waiters.values():
        if (one.app, one.group) not in groups:
            groups[one.app, one.group] = _read_group(cluster, keys, one)
    return Budgets(
        scope=scope,
        groups=groups,
        contending={
            name: _contending(keys, scope, name, one, groups[one.app, one.group]) for name, one in waiters.items()
        },
    )


def _read_group(cluster: Cluster, keys: Keys, one: Contender) -> Group:
    key = keys.target(one.app, one.group)
    with failpoint("turn.read"):
        entry = cluster.get(key)
    target = None if entry is None else read_or_none(Target, key, entry.value)
    target = target or Target(version=None)
    alive = {}
    if any(budget.min_serving for budget in target.budgets):
        with failpoint("turn.read"):
            listing = cluster.list(f"{keys.presences(one.app)}{one.group}/")
        for found in listing.entries:
            presence = read_or_none(Presence, found.key, found.value)
            if presence is not None:
                member = Contender(
                    app=one.app, group=one.group, instance=presence.instance, shared_scope=one.shared_scope
                ).member
                alive[member] = (found, presence)
    return Group(budgets_of=target, target=entry, alive=alive)


def _contending(keys: Keys, scope: Scope, name: str, waiter: Waiter, group: Group) -> Contending:
    budgets = group.budgets_of.budgets
    rooms = {
        (one.label, waiter.labels[one.label]): _room(keys, scope, waiter, group, one.label)
        for one in budgets
        if one.label in waiter.labels
    }
    mine = group.alive.get(name)
    serves = mine is None or mine[1].serving
    return Contending(instance=name, labels=waiter.labels, budgets=budgets, serves=serves, rooms=rooms)


def _room(keys: Keys, scope: Scope, waiter: Waiter, group: Group, label: str) -> Room:
    """The instances that are out with the same value; one whose turn is older than the budget counts, too."""
    value = waiter.labels[label]
    prefix = keys.budget(waiter.scope, label, value)
    out = {stored.member for stored in scope.taken_budgets if stored.entry.key.startswith(prefix)}
    for stored in scope.slots.values():
        slot = stored.slot
        if (slot.app, slot.group) == (waiter.app, waiter.group) and slot.labels.get(label) == value:
            out.add(slot.member)
    holders = {stored.slot.member for stored in scope.slots.values()}
    serving = {
        name
        for name, (_, presence) in group.alive.items()
        if presence.serving and presence.labels.get(label) == value and name not in holders
    }
    return Room(out=tuple(sorted(out)), serving=tuple(sorted(serving)))


def taken_budgets(scope: Scope) -> dict[str, tuple[str, ...]]:
    """The budget slots that are taken, for people: ``rack=3`` -> the instances, by their names in the scope."""
    found: dict[str, list[str]] = {}
    for stored in scope.taken_budgets:
        name = "unreadable" if stored.slot is None else f"{stored.slot.label}={stored.slot.value}"
        found.setdefault(name, []).append(stored.member)
    return {name: tuple(sorted(members)) for name, members in sorted(found.items())}
