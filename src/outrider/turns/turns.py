"""The queue and the slots of one scope as they are stored: read at one revision, and freed by an operator."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from outrider.core.errors import ConfigError, Conflict
from outrider.core.rollout.slots import Holding, Waiting
from outrider.etcd.seam import Cluster, CreatedAt, Delete, Entry, ModifiedAt, Op, Put
from outrider.failpoints import failpoint
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.damage import read_or_none
from outrider.model.documents import BudgetSlot, Contender, Slot, decode, encode
from outrider.model.keys import Keys

UNREADABLE = Slot(
    app="unreadable",
    group="unreadable",
    instance="unreadable-turn",
    release="unreadable",
    since=datetime(1970, 1, 1, tzinfo=UTC),
    update="",
)
"""Stands for a slot key whose value can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSlot:
    """One slot key with what it says."""

    number: int
    entry: Entry
    slot: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBudget:
    """One slot of a budget; ``slot``: None when its value can't be read, and then nobody knows whose it is."""

    entry: Entry
    slot: BudgetSlot | None

    @property
    def member(self) -> str:
        """Whose it is, by the name in the scope."""
        return UNREADABLE.member if self.slot is None else self.slot.member


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything below one scope as it was at ``revision``. Instances have their names of ``Contender.member`` here.

    Attributes:
        queue: Keys of the queue by instance: waiting ones and holders of turns.
        slots: Slot keys by number.
        budgets: Slots of budgets, by key.
    """

    revision: int
    queue: Mapping[str, Entry]
    slots: Mapping[int, StoredSlot]
    budgets: tuple[StoredBudget, ...] = ()

    @property
    def taken_budgets(self) -> tuple[StoredBudget, ...]:
        """Slots of budgets whose turns are there: one without its turn was left by somebody's hand, and counts not."""
        holders = {stored.slot.member for stored in self.slots.values()}
        if UNREADABLE.member in holders:
            return self.budgets
        return tuple(one for one in self.budgets if one.slot is None or one.member in holders)

    def budgets_of(self, instance: str) -> tuple[str, ...]:
        """Keys of the budget slots that came with the turn of ``instance``."""
        return tuple(one.entry.key for one in self.budgets if one.slot is not None and one.member == instance)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All keys."""
        return (
            *self.queue.values(),
            *(stored.entry for stored in self.slots.values()),
            *(stored.entry for stored in self.budgets),
        )

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        return tuple(
            Waiting(
                instance=instance,
                key=entry.key,
                create_revision=entry.create_revision,
                mod_revision=entry.mod_revision,
            )
            for instance, entry in self.queue.items()
        )

    @property
    def holding(self) -> tuple[Holding, ...]:
        return tuple(
            Holding(
                number=number,
                instance=stored.slot.member,
                create_revision=stored.entry.create_revision,
                update=stored.slot.update,
            )
            for number, stored in self.slots.items()
        )

    def slot_of(self, instance: str) -> StoredSlot | None:
        """The slot that ``instance`` holds, dirty or not; the lowest if it was given several by hand."""
        return next((stored for stored in self.slots.values() if stored.slot.member == instance), None)


def read_scope(cluster: Cluster, keys: Keys, scope: str) -> Scope:
    """Return the queue and the slots of ``scope``, in order of create revision and of number.

    A slot whose value can't be read is taken, by nobody whom we know: the other slots stay usable, and an operator can
    free it by its number.

    Raises:
        Conflict: a key among the slots that names no number and instance, or two keys of one slot. It might be a turn,
            so nobody may take one before a person has looked.
    """
    with failpoint("turn.read"):
        listing = cluster.list(keys.turns(scope))
    queue_prefix, slots_prefix, budgets_prefix = keys.queue(scope), keys.slots(scope), keys.budgets(scope)
    queue: list[Entry] = []
    budgets: list[StoredBudget] = []
    slots: list[StoredSlot] = []
    for entry in listing.entries:
        if entry.key.startswith(queue_prefix):
            queue.append(entry)
        elif entry.key.startswith(slots_prefix):
            slots.append(_stored_slot(entry, entry.key.removeprefix(slots_prefix)))
        elif entry.key.startswith(budgets_prefix):
            budgets.append(StoredBudget(entry=entry, slot=read_or_none(BudgetSlot, entry.key, entry.value)))
    queue.sort(key=lambda entry: entry.create_revision)
    slots.sort(key=lambda stored: stored.number)
    for one, other in pairwise(slots):
        if one.number == other.number:
            raise Conflict(f"{one.entry.key} and {other.entry.key}: two keys of one slot; remove the wrong one")
    return Scope(
        revision=listing.revision,
        queue={entry.key.removeprefix(queue_prefix): entry for entry in queue},
        slots={stored.number: stored for stored in slots},
        budgets=tuple(budgets),
    )


def _stored_slot(entry: Entry, rest: str) -> StoredSlot:
    number, _, member = rest.partition("/")
    if not (member and number.isascii() and number.isdigit() and number == str(int(number))):
        raise Conflict(f"{entry.key}: the key names no slot number and instance, and blocks the scope; remove it")
    slot = read_or_none(Slot, entry.key, entry.value)
    # only the instance in the key may write it: what it says of another counts for nothing
    return StoredSlot(
        number=int(number), entry=entry, slot=UNREADABLE if slot is None or slot.member != member else slot
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contenders:
    """The holders of turns and the waiting instances of several scopes.

    Attributes:
        known: Each as its key says; an instance that holds a turn stands here twice.
        strange: Keys that don't say whose they are, or lie in another scope than they say.
    """

    known: tuple[Contender, ...]
    strange: tuple[str, ...]


def read_contenders(cluster: Cluster, keys: Keys, prefix: str) -> Contenders:
    """Read the instances in the scopes below ``prefix`` (``Keys.all_group_turns``, ``Keys.all_shared_turns``)."""
    known, strange = [], []
    with failpoint("turn.read"):
        listing = cluster.list(prefix)
    for entry in listing.entries:
        try:
            contender = decode(Contender, entry.key, entry.value)
            is_there = entry.key.startswith(keys.turns(contender.scope))
        except (Conflict, ConfigError, ValueError):  # a name in it that can't be a part of a key
            is_there = False
        if is_there:
            known.append(contender)
        else:
            strange.append(entry.key)
    return Contenders(known=tuple(known), strange=tuple(strange))


def free_turn(cluster: Cluster, keys: Keys, scope: str, seen: Scope, number: int, *, who: str, at: datetime) -> None:
    """End a turn that isn't ours, as an operator, and leave a record of it; all in one transaction.

    The owner's key in the queue goes too: left alone it would make the owner, which doesn't wait, the first in line.

    Args:
        seen: What the operator was shown: the turn must still be the same, held or dirty as it was.
        number: A slot that exists in ``seen``.
        who: For the record.

    Raises:
        Conflict: the turn changed since it was read; nothing was done.
    """
    stored = seen.slots[number]
    owner = stored.slot
    waiter_key = keys.waiter(scope, owner.member)
    waiter = seen.queue.get(owner.member)
    where = f"scope {owner.shared_scope}" if owner.shared_scope else f"group {owner.group}"
    record = Activity(
        at=at,
        severity="warning",
        kind="turn-freed",
        app=owner.app,
        group=owner.group,
        instance=owner.instance,
        version=owner.release,
        text=f"turn {number} of {where} was taken from {owner.instance} by an operator",
        by=who,
        facts={"update": owner.update, "since": owner.since.isoformat()}
        | ({"scope": owner.shared_scope} if owner.shared_scope else {}),
    )
    lease = cluster.grant(ACTIVITY_KEPT_S)
    ops: list[Op] = [
        Delete(key=stored.entry.key),
        Put(
            key=activity_key(keys, record, stored.entry.create_revision),
            value=encode(record),
            lease=lease,
        ),
    ]
    ops += (Delete(key=key) for key in seen.budgets_of(owner.member))
    if waiter is not None:
        ops.append(Delete(key=waiter_key))
    done = cluster.txn(
        (
            CreatedAt(key=stored.entry.key, revision=stored.entry.create_revision),
            ModifiedAt(key=waiter_key, revision=waiter.mod_revision if waiter else 0),
        ),
        tuple(ops),
    )
    if not done.succeeded:
        cluster.revoke(lease)
        raise Conflict(
            f"turn {number} of {where} changed meanwhile, and nothing was done; look again with `outrider lock show`"
        )
