"""Who may take a turn, decided from values alone (design section 5; promise P1).

A scope has a *queue* (one key per instance, under its lease) and *slots* (one key per turn, without a lease). The
rules, each of which the proof in ``docs/decisions/0003-turns-and-fences.md`` needs:

1. Who holds a slot doesn't wait, although its key stays in the queue: there it is the lease-bound half of the fence.
2. Waiting instances stand in the order of the create revisions of their keys. Only rank 0 may take.
3. Every slot key counts against the budget: held or dirty, and also with a number beyond ``slots`` (they were reduced).
4. Rank 0 watches the slots when none is free; everybody else watches only the one before it.

An instance that a disruption budget holds (``budgets.py``) stays in its place and lets those behind it pass. The
budgets are kept by the transaction that takes a turn, as the slots are: the order is for fairness alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One key of the queue.

    Attributes:
        key: Where it is stored: what the one behind it watches.
        create_revision: Its place in the order; it changes when the key is deleted and written anew.
        mod_revision: Changes when its instance takes a turn, for taking writes the key once more.
    """

    instance: str
    key: str
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One slot key. ``update`` is the id of the update it was taken for, in its owner's journal."""

    number: int
    instance: str
    create_revision: int
    update: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Take slot ``number``, provided that none of the slots ``absent`` (``number`` among them) exists by then."""

    number: int
    absent: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitBehind:
    """Watch the key of ``instance`` and look again when it changes. ``rank`` is our own: 1 or more."""

    instance: str
    key: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSlots:
    """We are next and the budget is spent: watch the slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A budget holds us: watch the scope. ``why``: for a person; ``rank``: our own among all who wait."""

    why: str
    rank: int


TurnWord = Literal["free", "held", "dirty"]
Decision = Take | WaitBehind | WatchSlots | Held


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnState:
    """One turn of the scope.

    Attributes:
        state: ``free``: no slot key. ``held``: its owner's key in the queue lives. ``dirty``: it doesn't.
        instance: Its owner, None when free.
        create_revision: Of the slot key, 0 when free.
        surplus: The number is beyond ``slots``: it counts, but is not taken again.
    """

    number: int
    state: TurnWord
    instance: str | None = None
    create_revision: int = 0
    surplus: bool = False


def line(waiting: Iterable[Waiting], holding: Iterable[Holding]) -> tuple[Waiting, ...]:
    """Return the instances that wait for a turn, the next one first."""
    holders = {turn.instance for turn in holding}
    return tuple(sorted((each for each in waiting if each.instance not in holders), key=lambda w: w.create_revision))


def decide(
    instance: str,
    waiting: Iterable[Waiting],
    holding: Iterable[Holding],
    slots: int,
    held: Mapping[str, str] = MappingProxyType({}),
) -> Decision:
    """Tell ``instance`` what to do next.

    Args:
        instance: Who asks; its key must be in the queue and it must not hold a slot.
        waiting: All keys of the queue, in any order.
        holding: All slot keys, in any order.
        slots: How many turns may be held or dirty at once.
        held: Instances that can't take a turn now because of a disruption budget -> why.

    Raises:
        ValueError: ``instance`` isn't in line.
    """
    holding = tuple(holding)
    queue = line(waiting, holding)
    rank = next((place for place, each in enumerate(queue) if each.instance == instance), None)
    if rank is None:
        raise ValueError(f"{instance} isn't in line: it has no key in the queue or holds a turn already")
    if instance in held:
        return Held(why=held[instance], rank=rank)
    before = [each for each in queue[:rank] if each.instance not in held]
    if before:
        ahead = before[-1]
        return WaitBehind(instance=ahead.instance, key=ahead.key, rank=rank)
    if len(holding) >= slots:
        return WatchSlots()
    taken = {turn.number for turn in holding}
    free = tuple(number for number in range(slots) if number not in taken)
    # Without surplus slots the numbers alone keep the budget: two takers can't create the same key. With surplus ones
    # there are more free numbers than free turns, so nobody else may have taken any of them meanwhile.
    surplus = any(number >= slots for number in taken)
    return Take(number=free[0], absent=free if surplus else free[:1])


def turns(waiting: Iterable[Waiting], holding: Iterable[Holding], slots: int) -> tuple[TurnState, ...]:
    """Return the state of every turn below ``slots`` and of the surplus ones that still exist, by number."""
    alive = {each.instance for each in waiting}
    taken = {turn.number: turn for turn in holding}
    states = []
    for number in sorted({*range(slots), *taken}):
        turn = taken.get(number)
        if turn is None:
            states.append(TurnState(number=number, state="free"))
        else:
            states.append(
                TurnState(
                    number=number,
                    state="held" if turn.instance in alive else "dirty",
                    instance=turn.instance,
                    create_revision=turn.create_revision,
                    surplus=number >= slots,
                )
            )
    return tuple(states)
