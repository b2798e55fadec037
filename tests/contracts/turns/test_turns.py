"""Who gets a turn, in which order, under which conditions, and who is woken (P1, P5)."""

from functools import partial

from outrider.etcd.seam import Cluster, CreatedAt, Delete, ModifiedAt, Put
from outrider.model.documents import Slot, Target, Waiter, decode, encode
from outrider.model.keys import Keys
from outrider.turns.claim import Denied, Queued, TurnGranted
from outrider.turns.lock import TurnLock
from outrider.turns.wait import Wait
from tests.contracts.turns.words import NOON, SCOPE, TTL_S, Start, contender, free_by_hand, has_both_watches
from tests.sim.fake_etcd import FakeEtcd
from tests.support.waiting import eventually

QUEUES, TAKES = 2, 1
"""Transactions: the ticket is written and the place taken with it; then the turn is taken."""


def test_a_turn_is_a_slot_key_without_a_lease_and_a_key_in_the_queue_with_one(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a = start("a")

    a.acquire("update-1")

    turn = a.turn()
    slot, waiter = store.get(keys.slot(SCOPE, 0, "a")), store.get(keys.waiter(SCOPE, "a"))
    assert slot is not None
    assert waiter is not None
    assert (slot.lease, waiter.lease) == (0, a.lease)
    assert (slot.create_revision, waiter.create_revision) == (turn.slot_revision, turn.waiter_revision)
    assert decode(Slot, slot.key, slot.value) == contender("a").slot(release="2.0.0", since=NOON, update="update-1")
    assert decode(Waiter, waiter.key, waiter.value) == contender("a").waiter(release="2.0.0", since=NOON)
    assert [type(news) for news in a.news] == [TurnGranted]


def test_with_two_slots_two_swap_at_once_and_the_others_know_where_they_stand(start: Start) -> None:
    a, b, c, d = (start(name) for name in "abcd")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()
    c.acquire(slots=2)
    assert c.place() == Queued(rank=0, ahead=None, holders=("a", "b"))

    d.acquire(slots=2)

    assert d.place() == Queued(rank=1, ahead="c", holders=("a", "b"))
    assert (a.turn().number, b.turn().number) == (0, 1)


def test_two_free_slots_wake_two_waiters_although_only_the_first_watches_the_slots(start: Start) -> None:
    """A taker stops waiting while its key stays: its successor must hear of that, or the second slot stays free."""
    a, b, c, d = (start(name) for name in "abcd")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()
    for rank, instance in enumerate((c, d)):
        instance.acquire(slots=2)
        instance.wait_at(rank)

    a.lock.release(a.turn())
    b.lock.release(b.turn())

    assert {c.turn().number, d.turn().number} == {0, 1}


def test_one_release_wakes_one_waiter(start: Start) -> None:
    """
    1. 20 instances stand in line behind a holder
    2. each turn is given back as soon as it is taken
    3. they took it in the order of arrival; nobody tried in vain (one transaction to queue, one to take); and nobody's
       calls grew with the length of the queue
    """
    holder = start("holder")
    holder.acquire()
    holder.turn()
    waiters = [start(f"w{number:02}") for number in range(20)]
    for rank, waiter in enumerate(waiters):
        waiter.acquire()
        waiter.wait_at(rank)
    order: list[str] = []

    for instance in (holder, *waiters):
        turn = instance.turn()
        order.append(instance.name)
        taken = instance.client.calls.count("txn")
        assert taken == QUEUES + TAKES, f"{instance.name} wrote {taken} times"
        instance.lock.release(turn)

    assert order == ["holder", *(waiter.name for waiter in waiters)]
    assert max(len(waiter.client.calls) for waiter in waiters) <= 16
    assert all(len([news for news in waiter.news if isinstance(news, TurnGranted)]) == 1 for waiter in waiters)


def test_a_release_far_ahead_is_no_call_to_those_behind(start: Start) -> None:
    holder, b, c, d, e = (start(name) for name in "abcde")
    holder.acquire()
    holder.turn()
    for rank, waiter in enumerate((b, c, d, e)):
        waiter.acquire()
        waiter.wait_at(rank)
    for watched in (d.client.calls, e.client.calls):
        eventually(partial(has_both_watches, watched))
    calls = [len(d.client.calls), len(e.client.calls)]

    holder.lock.release(holder.turn())

    b.turn()
    c.wait_at(0)
    assert [len(d.client.calls), len(e.client.calls)] == calls


def test_a_waiter_whose_lease_ends_is_told_and_the_one_behind_it_moves_up(store: Cluster, start: Start) -> None:
    a, b, c = (start(name) for name in "abc")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)
    c.acquire()
    c.wait_at(1)

    store.revoke(b.lease)

    assert b.denial().why == "lapsed"
    c.wait_at(0)


def test_the_end_of_the_holders_lease_lets_nobody_in(store: Cluster, keys: Keys, start: Start) -> None:
    """
    1. the holder's lease ends in mid-swap: its slot stays, dirty
    2. it comes back, reclaims the turn under a new lease, finishes
    3. only now the next one tries, once
    """
    a, b = start("a"), start("b")
    a.acquire()
    turn = a.turn()
    b.acquire()
    b.wait_at(0)
    store.revoke(a.lease)
    assert store.get(keys.waiter(SCOPE, "a")) is None
    a.lease = store.grant(TTL_S)

    again = a.lock.reclaim(turn, lease=a.lease)

    assert (again.number, again.slot_revision) == (turn.number, turn.slot_revision)
    assert again.waiter_revision > turn.waiter_revision
    assert b.client.calls.count("txn") == QUEUES
    a.lock.release(again)
    assert b.turn().number == 0
    assert b.client.calls.count("txn") == QUEUES + TAKES


def test_after_slots_were_reduced_the_surplus_turn_counts(store: Cluster, start: Start) -> None:
    a, b, c = (start(name) for name in "abc")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()
    c.acquire(slots=1)
    c.place()
    a.lock.release(a.turn())
    eventually(lambda: c.place().holders == ("b",))

    b.lock.release(b.turn())

    assert c.turn().number == 0
    assert c.client.calls.count("txn") == QUEUES + TAKES, "it tried while the surplus turn was there"


def test_a_slot_that_appears_at_the_last_moment_is_not_overwritten(store: Cluster, keys: Keys, start: Start) -> None:
    """Whoever wrote it: another tool, another outrider."""
    a = start("a")
    foreign = Put(
        key=keys.slot(SCOPE, 0, "x"), value=encode(contender("x").slot(release="1.0.0", since=NOON, update="by-hand"))
    )

    def arm_for_the_take() -> None:
        a.client.before_txn = write_the_slot

    def write_the_slot() -> None:
        store.txn((), (foreign,))

    a.client.before_txn = arm_for_the_take  # the first transaction queues, the second takes

    a.acquire()

    assert a.place() == Queued(rank=0, ahead=None, holders=("x",))
    free_by_hand(store, keys, 0)
    assert a.turn().number == 0


def test_a_blocked_release_gets_no_turn_and_leaves_the_queue(store: Cluster, keys: Keys, start: Start) -> None:
    """
    1. a and b queue for the same release; a has the turn
    2. a's instance fails: the turn ends in the transaction that writes the block
    3. b, which had no block when it came, is denied; the next release isn't held up (P5)
    """
    a, b, c = (start(name) for name in "abc")
    block = keys.block("shop", "2.0.0")
    clean = (CreatedAt(key=block, revision=0),)
    a.acquire(conditions=clean)
    turn = a.turn()
    b.acquire(conditions=clean)
    b.wait_at(0)
    c.acquire(release="2.0.1")
    c.wait_at(1)

    a.lock.release(turn, ops=(Put(key=block, value=b"bad"),))

    assert b.denial() == Denied(reason=f"{block} exists", why="blocked")
    assert store.get(keys.waiter(SCOPE, "b")) is None
    assert c.turn().number == 0


def test_a_changed_target_gets_no_turn_for_the_old_one(store: Cluster, keys: Keys, start: Start) -> None:
    target = keys.target("shop", "web")
    seen = store.txn((), (Put(key=target, value=encode(Target(version="2.0.0"))),)).revision
    changed = store.txn((), (Put(key=target, value=encode(Target(version="3.0.0"))),)).revision
    a = start("a")

    a.acquire(conditions=(ModifiedAt(key=target, revision=seen),))

    assert a.denial() == Denied(reason=f"{target} changed: revision {changed}, expected {seen}", why="target-changed")
    assert not store.list(keys.turns(SCOPE)).entries


def test_what_changes_between_the_look_and_the_watch_is_found_without_the_watch(keys: Keys) -> None:
    """etcd serves a watch that begins in the past up to 100 ms late; this store never delivers at all."""
    etcd = FakeEtcd(threaded=False)
    client = etcd.client()
    waits: list[Wait] = []
    ahead = client.txn(
        (), (Put(key=keys.slot(SCOPE, 0, "x"), value=encode(contender("x").slot(release="1", since=NOON, update="u"))),)
    )
    assert ahead.succeeded
    lock = TurnLock(client, keys, contender("a"), clock=lambda: NOON, start=waits.append)
    lock.acquire(lease=client.grant(TTL_S), update="u", release="2", slots=1, deliver=lambda news: None)
    (wait,) = waits
    wait.round()  # queue
    seen: list[str] = []

    def free_after_the_look(name: str, moment: str) -> None:
        seen.append(f"{name} {moment}")
        if seen.count("list after") == 1 and name == "list" and moment == "after":
            etcd.apply([Delete(key=keys.slot(SCOPE, 0, "x"))])

    client.trouble = free_after_the_look

    wait.round()

    assert wait.due
    wait.round()
    assert wait.ended
    lock.close()
