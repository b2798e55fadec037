"""Who may take a turn: rank, budget, what to watch, and what a turn's three states are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.rollout.slots import Holding, Take, TurnState, WaitBehind, Waiting, WatchSlots, decide, line, turns


def waiting(*instances: str) -> tuple[Waiting, ...]:
    """A queue in order of arrival; the create revisions are 100, 101, ..."""
    return tuple(
        Waiting(instance=name, key=f"queue/{name}", create_revision=100 + place, mod_revision=100 + place)
        for place, name in enumerate(instances)
    )


def holding(**numbers: int) -> tuple[Holding, ...]:
    """Slots by their owners: ``holding(a=0)``."""
    return tuple(Holding(number=number, instance=name, create_revision=50 + number) for name, number in numbers.items())


def test_the_first_in_line_takes_the_lowest_free_slot() -> None:
    assert Take(number=1, absent=(1,)) == decide("b", waiting("b", "c"), holding(a=0, d=2), slots=4)


def test_the_order_is_that_of_the_create_revisions_not_of_the_names() -> None:
    assert WaitBehind(instance="z", key="queue/z", rank=1) == decide("a", reversed(waiting("z", "a")), (), slots=1)


def test_everybody_but_the_first_watches_only_the_one_before_it() -> None:
    assert WaitBehind(instance="c", key="queue/c", rank=2) == decide("d", waiting("b", "c", "d"), (), slots=3)


def test_the_first_in_line_watches_the_slots_when_the_budget_is_spent() -> None:
    assert WatchSlots() == decide("b", waiting("a", "b"), holding(a=0), slots=1)


def test_who_holds_a_turn_is_not_in_line_although_its_key_is_in_the_queue() -> None:
    """With two slots the second instance takes at once: it doesn't wait for the holder before it."""
    assert Take(number=1, absent=(1,)) == decide("b", waiting("a", "b"), holding(a=0), slots=2)


def test_a_dirty_turn_counts_although_its_owner_is_gone() -> None:
    assert WatchSlots() == decide("b", waiting("b"), holding(dead=0), slots=1)


def test_a_slot_beyond_the_reduced_budget_counts() -> None:
    assert WatchSlots() == decide("b", waiting("b"), holding(a=2), slots=1)


def test_beside_a_surplus_slot_no_other_free_number_may_have_been_taken_meanwhile() -> None:
    """Two free numbers, one free turn: comparing the own number alone would let two in."""
    assert Take(number=0, absent=(0, 1)) == decide("b", waiting("b"), holding(a=7), slots=2)


def test_no_slots_let_nobody_in() -> None:
    assert WatchSlots() == decide("b", waiting("b"), (), slots=0)


@pytest.mark.parametrize("instance", ["a", "nobody"])
def test_asking_for_an_instance_that_is_not_in_line_is_a_mistake_of_the_caller(instance: str) -> None:
    with pytest.raises(ValueError, match=f"{instance} isn't in line"):
        decide(instance, waiting("a", "b"), holding(a=0), slots=1)


def test_a_turn_is_free_held_or_dirty() -> None:
    """Held while its owner's key in the queue lives, dirty without; surplus ones are shown as long as they exist."""
    shown = turns(waiting("alive", "b"), holding(alive=0, dead=1, late=5), slots=3)

    assert shown == (
        TurnState(number=0, state="held", instance="alive", create_revision=50),
        TurnState(number=1, state="dirty", instance="dead", create_revision=51),
        TurnState(number=2, state="free"),
        TurnState(number=5, state="dirty", instance="late", create_revision=55, surplus=True),
    )


NAMES = ("a", "b", "c", "d", "e")


@given(
    queue=st.permutations(NAMES).flatmap(lambda order: st.integers(0, 5).map(lambda count: order[:count])),
    owners=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 6), max_size=5),
    slots=st.integers(0, 5),
)
def test_exactly_the_first_in_line_may_take_and_only_within_the_budget(
    queue: list[str], owners: dict[str, int], slots: int
) -> None:
    held = tuple(
        Holding(number=number, instance=name, create_revision=50 + number)
        for number, name in {number: name for name, number in owners.items()}.items()
    )
    keys = waiting(*queue)
    in_line = [name for name in queue if name not in {turn.instance for turn in held}]

    decisions = [decide(name, keys, held, slots) for name in in_line]

    assert [each.instance for each in line(keys, held)] == in_line
    for rank, decision in enumerate(decisions):
        if rank:
            assert decision == WaitBehind(instance=in_line[rank - 1], key=f"queue/{in_line[rank - 1]}", rank=rank)
        elif len(held) < slots:
            taken = {turn.number for turn in held}
            assert isinstance(decision, Take)
            assert decision.number == min(number for number in range(slots) if number not in taken)
            assert not taken & set(decision.absent)
        else:
            assert decision == WatchSlots()
