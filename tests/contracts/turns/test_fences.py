"""What a fence lets pass, and how a turn is ended: by its owner or by an operator (P2)."""

from dataclasses import replace
from functools import partial

import pytest

from outrider.core.errors import Conflict, Refused, Unknown
from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.keys import Keys
from outrider.turns.lock import fence
from outrider.turns.turns import free_turn, read_scope
from tests.contracts.turns.words import NOON, SCOPE, TTL_S, Start, free_by_hand


def test_a_write_with_the_fence_of_an_ended_lease_is_refused_for_ever(store: Cluster, keys: Keys, start: Start) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()
    write = (Put(key=f"{keys.prefix}/traffic", value=b"mine"),)
    assert store.txn(fence(keys, "a", turn), write).succeeded

    store.revoke(a.lease)

    assert not store.txn(fence(keys, "a", turn), write).succeeded
    again = a.lock.reclaim(turn, lease=store.grant(TTL_S))
    assert not store.txn(fence(keys, "a", turn), write).succeeded
    assert store.txn(fence(keys, "a", again), write).succeeded
    a.lock.release(again)
    assert not store.txn(fence(keys, "a", again), write).succeeded


def test_a_restarted_process_shuts_out_its_earlier_self_whose_lease_still_lives(
    store: Cluster, keys: Keys, start: Start
) -> None:
    earlier, later = start("a"), start("a")
    earlier.acquire("update-1")
    turn = earlier.turn()
    found = later.lock.find("update-1")
    assert found == turn

    again = later.lock.reclaim(found, lease=later.lease)

    write = (Put(key=f"{keys.prefix}/traffic", value=b"mine"),)
    assert not store.txn(fence(keys, "a", turn), write).succeeded
    assert store.txn(fence(keys, "a", again), write).succeeded
    with pytest.raises(Refused, match="reclaimed since"):
        earlier.lock.release(turn)


def test_a_dirty_turn_has_no_fence(store: Cluster, keys: Keys, start: Start) -> None:
    """Its comparison would be "my key is absent", which holds exactly while it must not."""
    a = start("a")
    a.acquire("update-1")
    a.turn()
    store.revoke(a.lease)

    found = a.lock.find("update-1")

    assert found is not None
    assert found.waiter_revision == 0
    with pytest.raises(Refused, match=r"turn 0 of turns/shop/web is dirty: reclaim it first"):
        fence(keys, "a", found)


def test_a_reclaim_under_a_lease_that_has_ended_may_be_tried_again(store: Cluster, start: Start) -> None:
    """It is not "no longer ours": the turn would stay dirty forever."""
    a = start("a")
    a.acquire()
    turn = a.turn()
    store.revoke(a.lease)

    with pytest.raises(Unknown, match="the lease has ended"):
        a.lock.reclaim(turn, lease=a.lease)

    assert a.lock.reclaim(turn, lease=store.grant(TTL_S)).slot_revision == turn.slot_revision


def test_a_turn_that_an_operator_ended_can_not_be_reclaimed(store: Cluster, keys: Keys, start: Start) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()
    store.revoke(a.lease)
    free_by_hand(store, keys, 0)

    with pytest.raises(Refused, match=r"slots/0/a: is free; our turn of update update-of-a has ended"):
        a.lock.reclaim(turn, lease=store.grant(TTL_S))


def test_a_reclaim_does_not_bring_back_a_turn_that_is_ended_while_it_is_under_way(
    store: Cluster, keys: Keys, start: Start
) -> None:
    """A key in the queue without a slot would be the first in line, with nobody waiting at it."""
    a = start("a")
    a.acquire()
    turn = a.turn()
    store.revoke(a.lease)
    a.client.before_txn = partial(free_by_hand, store, keys, 0)

    with pytest.raises(Refused, match="is free"):
        a.lock.reclaim(turn, lease=store.grant(TTL_S))

    assert not store.list(keys.turns(SCOPE)).entries


def test_a_release_writes_its_operations_with_the_end_of_the_turn(store: Cluster, keys: Keys, start: Start) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()
    block = keys.block("shop", "2.0.0")

    a.lock.release(turn, ops=(Put(key=block, value=b"bad"),))

    entry = store.get(block)
    assert entry is not None
    assert not store.list(keys.turns(SCOPE)).entries
    assert store.list(keys.prefix).revision == entry.mod_revision


def test_a_dirty_turn_can_be_ended_by_its_owner(store: Cluster, keys: Keys, start: Start) -> None:
    a = start("a")
    a.acquire("update-1")
    turn = a.turn()
    store.revoke(a.lease)

    a.lock.release(turn)

    assert not store.list(keys.turns(SCOPE)).entries


def test_a_turn_that_its_owner_suspends_is_dirty_and_still_its_own(store: Cluster, keys: Keys, start: Start) -> None:
    """It counts against the budget: the next one in the queue does not get it before it is ended."""
    a, b = start("a"), start("b")
    a.acquire("update-1")
    turn = a.turn()
    b.acquire()
    b.wait_at(0)

    suspended = [a.lock.suspend("update-1"), a.lock.suspend("update-1")]

    assert [True, True] == suspended
    assert a.lock.find("update-1") == replace(turn, waiter_revision=0)
    assert not store.txn(fence(keys, "a", turn), ()).succeeded
    assert store.txn(fence(keys, "a", a.lock.reclaim(turn, lease=a.lease)), ()).succeeded
    a.lock.suspend("update-1")
    a.lock.release(turn)
    assert 0 == b.turn().number


def test_a_turn_that_is_no_longer_ours_is_not_suspended(store: Cluster, keys: Keys, start: Start) -> None:
    a = start("a")
    a.acquire("update-1")
    turn = a.turn()

    other = a.lock.suspend("update-0")
    a.lock.release(turn)

    assert not other
    assert not a.lock.suspend("update-1")
    assert not store.list(keys.turns(SCOPE)).entries


def test_a_release_can_be_repeated_when_its_answer_was_lost_even_if_the_next_one_has_the_slot(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a, b = start("a"), start("b")
    a.acquire()
    turn = a.turn()
    b.acquire()
    b.wait_at(0)
    block = (Put(key=keys.block("shop", "2.0.0"), value=b"bad"),)
    a.client.lost_answers = 1
    with pytest.raises(Unknown):
        a.lock.release(turn, ops=block)
    assert b.turn().number == 0

    a.lock.release(turn, ops=block)

    assert store.txn(fence(keys, "b", b.turn()), ()).succeeded


def test_operations_that_can_not_be_written_any_more_are_refused(store: Cluster, keys: Keys, start: Start) -> None:
    """Silence would lose the block: an operator ended the turn, not we."""
    a = start("a")
    a.acquire()
    turn = a.turn()
    free_by_hand(store, keys, 0)

    with pytest.raises(Refused, match="has ended without what was to be written with its end"):
        a.lock.release(turn, ops=(Put(key=keys.block("shop", "2.0.0"), value=b"bad"),))

    a.lock.release(turn)
    assert store.get(keys.block("shop", "2.0.0")) is None


def test_a_slot_removed_by_hand_leaves_no_ghost_at_the_head_of_the_queue(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a, b = start("a"), start("b")
    a.acquire()
    turn = a.turn()
    b.acquire()
    b.wait_at(0)
    store.txn((), (Delete(key=keys.slot(SCOPE, 0, "a")),))
    b.wait_at(1)

    a.lock.release(turn)

    assert b.turn().number == 0


def test_an_operators_release_shuts_the_owner_out_lets_the_next_one_in_and_is_recorded(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a, b = start("a"), start("b")
    a.acquire("update-1")
    turn = a.turn()
    b.acquire()
    b.wait_at(0)

    free_by_hand(store, keys, 0)

    assert b.turn().number == 0
    assert not store.txn(fence(keys, "a", turn), ()).succeeded
    (record,) = store.list(keys.activity("shop")).entries
    assert record.lease
    assert b'"by":"operator"' in record.value
    assert b'"update":"update-1"' in record.value


def test_an_operators_release_of_a_turn_that_changed_since_it_was_read_does_nothing(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()
    seen = read_scope(store, keys, SCOPE)
    store.revoke(a.lease)
    a.lock.reclaim(turn, lease=store.grant(TTL_S))

    with pytest.raises(Conflict, match=r"turn 0 of group web changed meanwhile, and nothing was done"):
        free_turn(store, keys, SCOPE, seen, 0, who="operator", at=NOON)

    assert list(read_scope(store, keys, SCOPE).slots) == [0]
    assert not store.list(keys.activity("shop")).entries
