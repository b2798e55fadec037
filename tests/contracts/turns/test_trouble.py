"""Lost answers, late writes, an etcd that is away, and second thoughts: no turn too many and none forgotten (P1)."""

from collections.abc import Callable
from threading import Event, Thread

import pytest

from outrider.core.errors import Unknown
from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import Waiter, decode
from outrider.model.keys import Keys
from outrider.turns.claim import Denied, Queued, TurnGranted
from outrider.turns.lock import Turn, TurnLock, fence
from outrider.turns.turns import read_scope
from outrider.turns.wait import Wait
from tests.contracts.turns.words import NOON, SCOPE, TTL_S, Instance, Start, contender
from tests.support.waiting import eventually


@pytest.mark.parametrize("lost", [1, 2])
def test_an_answer_that_was_lost_is_no_second_turn(store: Cluster, keys: Keys, start: Start, lost: int) -> None:
    """The first answer is that to queueing, the second that to taking."""
    a = start("a")
    a.client.lost_answers = lost

    a.acquire(slots=2)

    assert a.turn().number == 0
    assert list(read_scope(store, keys, SCOPE).slots) == [0]


def at_the_third(instance: Instance, what: Callable[[], None]) -> None:
    """Do it before the third transaction: the first writes the ticket, the second queues, the third takes."""

    def at_the_second() -> None:
        instance.client.before_txn = what

    def at_the_first() -> None:
        instance.client.before_txn = at_the_second

    instance.client.before_txn = at_the_first


@pytest.mark.parametrize("answers", ["never", "at the second try"])
def test_a_place_that_was_given_up_and_comes_late_stops_nobody(
    store: Cluster, keys: Keys, start: Start, answers: str
) -> None:
    """
    1. b's first write to the queue gets no answer, and hasn't happened; b withdraws, at once or after a second try
    2. now the write arrives: nobody would wait at that place, and everybody behind it for as long as b lives
    3. it is refused: nothing of b is left, and c gets its turn
    """
    b, c = start("b"), start("c")

    def at_the_second() -> None:
        b.client.late, b.client.away = 1, answers == "never"

    def at_the_first() -> None:
        b.client.before_txn = at_the_second

    b.client.before_txn = at_the_first
    b.acquire()
    eventually(lambda: b.client.given_up)
    if answers == "never":
        with pytest.raises(Unknown):
            b.lock.withdraw()
        b.client.away = False
    else:
        b.lock.release(b.turn())
    b.lock.withdraw()

    (late,) = b.client.given_up
    assert any(isinstance(op, Put) and op.key == keys.waiter(SCOPE, "b") for op in late[1])
    assert not store.txn(*late).succeeded
    assert [] == [entry.key for entry in store.list(keys.prefix + "/").entries if entry.key.endswith("/b")]
    c.acquire()
    assert c.turn().number == 0


def test_a_take_that_was_given_up_and_is_carried_out_late_takes_no_second_slot(
    store: Cluster, keys: Keys, start: Start
) -> None:
    """
    1. slot 0 is held; our take of slot 1 gets no answer, and hasn't happened
    2. slot 0 is given back; we take it
    3. now the first take arrives: its slot is free and our place in the queue is the same, and yet it is refused
    """
    a, b = start("a"), start("b")
    a.acquire(slots=2)
    turn = a.turn()

    def give_up_and_free() -> None:
        b.client.late = 1
        a.lock.release(turn)

    at_the_third(b, give_up_and_free)

    b.acquire(slots=2)

    assert b.turn().number == 0
    (late,) = b.client.given_up
    assert any(isinstance(op, Put) and op.key == keys.slot(SCOPE, 1, "b") for op in late[1])
    assert not store.txn(*late).succeeded


def test_waiting_goes_on_while_etcd_is_away(start: Start) -> None:
    a = start("a")
    a.client.away = True
    a.acquire()
    eventually(lambda: a.client.calls.count("list") >= 3)

    a.client.away = False

    assert a.turn().number == 0


def test_a_lease_that_ended_before_queueing_is_told(store: Cluster, start: Start) -> None:
    a = start("a")
    store.revoke(a.lease)

    a.acquire()

    assert a.denial().why == "lapsed"


def test_a_slot_key_that_nobody_understands_is_a_turn_that_is_taken(store: Cluster, keys: Keys, start: Start) -> None:
    """It may be a turn, of a newer outrider: it counts against the budget, and the other slots are free."""
    store.txn((), (Put(key=keys.slot(SCOPE, 0, "x"), value=b'{"schema": 9}'),))
    a, b = start("a"), start("b")

    a.acquire(slots=2)
    turn = a.turn()
    b.acquire(slots=2)

    assert 1 == turn.number
    b.wait_at(0)
    assert all(isinstance(news, Queued) for news in b.news)
    left = store.get(keys.slot(SCOPE, 0, "x"))
    assert left is not None
    assert b'{"schema": 9}' == left.value


def test_who_withdraws_leaves_nothing_and_the_next_one_moves_up(store: Cluster, keys: Keys, start: Start) -> None:
    a, b, c = (start(name) for name in "abc")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)
    c.acquire()
    c.wait_at(1)

    assert b.lock.withdraw() is None

    assert store.get(keys.waiter(SCOPE, "b")) is None
    c.wait_at(0)
    assert all(isinstance(news, Queued) for news in b.news)
    assert b.lock.withdraw() is None


def test_a_withdrawal_that_crosses_the_grant_returns_the_turn_untouched(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()

    assert a.lock.withdraw() == turn

    assert store.txn(fence(keys, "a", turn), ()).succeeded
    a.lock.release(turn)
    assert a.lock.withdraw() is None


def test_a_slot_that_was_taken_without_an_answer_is_given_back_by_the_withdrawal(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a = start("a")

    def lose_the_take() -> None:
        a.client.lost_answers, a.client.away_after_loss = 1, True

    at_the_third(a, lose_the_take)
    a.acquire()
    eventually(lambda: store.get(keys.slot(SCOPE, 0, "a")))
    with pytest.raises(Unknown):
        a.lock.withdraw()
    a.client.away = False

    assert a.lock.withdraw() is None

    assert not store.list(keys.turns(SCOPE)).entries
    assert not a.news


def test_a_withdrawal_in_the_middle_of_the_take_is_not_answered_with_a_turn(
    store: Cluster, keys: Keys, start: Start
) -> None:
    """
    1. the withdrawal stops the wait while its taking transaction is on the way
    2. the transaction succeeds: nobody may be told, for the withdrawal gives the slot back
    """
    a = start("a")
    waits: list[Wait] = []

    def run(wait: Wait) -> None:
        waits.append(wait)
        wait.start()

    lock = TurnLock(a.client, keys, contender("a"), clock=lambda: NOON, start=run)
    returned: list[Turn | None] = []
    withdrawal, begun = Thread(target=lambda: returned.append(lock.withdraw())), Event()

    def withdraw_meanwhile() -> None:
        withdrawal.start()
        begun.set()
        eventually(lambda: waits[0].ended)

    at_the_third(a, withdraw_meanwhile)
    lock.acquire(lease=a.lease, update="u", release="2.0.0", slots=1, deliver=a.news.append)
    eventually(begun.is_set)
    withdrawal.join(60)

    assert (returned, a.news) == ([None], [])
    assert not store.list(keys.turns(SCOPE)).entries


def test_a_slot_that_was_taken_without_an_answer_is_no_obstacle_to_the_next_acquire(
    store: Cluster, keys: Keys, start: Start
) -> None:
    """
    1. the take for the first update happens, its answer is lost, and etcd is away before anybody can look
    2. the sidekick wants a turn for a second update instead
    3. etcd is back: the first one's slot is freed, the second gets a turn; nobody was told of the first
    """
    a = start("a")

    def lose_the_take() -> None:
        a.client.lost_answers, a.client.away_after_loss = 1, True

    at_the_third(a, lose_the_take)
    a.acquire("first")
    eventually(lambda: a.client.away)
    a.acquire("second")

    a.client.away = False

    assert a.turn().update == "second"
    assert [stored.slot.update for stored in read_scope(store, keys, SCOPE).slots.values()] == ["second"]
    assert not [news for news in a.news if isinstance(news, TurnGranted) and news.turn.update == "first"]


def test_a_lock_without_a_wait_withdraws_what_an_earlier_process_left_in_the_queue(
    store: Cluster, keys: Keys, start: Start
) -> None:
    a, b, later = start("a"), start("b"), start("b")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)
    b.lock.close()

    later.lock.withdraw()

    assert store.get(keys.waiter(SCOPE, "b")) is None


def test_a_lock_without_a_wait_withdraws_no_turn(store: Cluster, keys: Keys, start: Start) -> None:
    a, later = start("a"), start("a")
    a.acquire()
    turn = a.turn()

    later.lock.withdraw()

    assert store.txn(fence(keys, "a", turn), ()).succeeded


def test_a_second_acquire_keeps_the_place_under_the_same_lease(store: Cluster, keys: Keys, start: Start) -> None:
    a, b, c = (start(name) for name in "abc")
    a.acquire()
    a.turn()
    b.acquire("first", release="2.0.0")
    b.wait_at(0)
    c.acquire()
    c.wait_at(1)
    before = store.get(keys.waiter(SCOPE, "b"))

    b.acquire("second", release="2.0.1")
    a.lock.release(a.turn())

    assert b.turn().update == "second"
    after = store.get(keys.waiter(SCOPE, "b"))
    assert before is not None
    assert after is not None
    assert after.create_revision == before.create_revision
    assert decode(Waiter, after.key, after.value).release == "2.0.1"


def test_a_second_acquire_under_a_new_lease_is_a_new_place(store: Cluster, keys: Keys, start: Start) -> None:
    """Its create revision is new, so nothing of the earlier attempt can still happen."""
    a, b, c = (start(name) for name in "abc")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)
    c.acquire()
    c.wait_at(1)
    before = store.get(keys.waiter(SCOPE, "b"))
    b.lease = store.grant(TTL_S)

    b.acquire()

    b.wait_at(1)
    after = store.get(keys.waiter(SCOPE, "b"))
    assert before is not None
    assert after is not None
    assert after.create_revision > before.create_revision
    assert after.lease == b.lease


def test_a_turn_of_another_update_must_be_ended_first(store: Cluster, keys: Keys, start: Start) -> None:
    a, later = start("a"), start("a")
    a.acquire("update-1")
    turn = a.turn()

    later.acquire("update-2", slots=2)

    assert later.denial() == Denied(
        reason=f"{keys.slot(SCOPE, 0, 'a')}: our own turn of update update-1 was never ended", why="left-over"
    )
    assert store.txn(fence(keys, "a", turn), ()).succeeded


def test_after_a_crash_the_same_update_gets_the_turn_it_had(start: Start) -> None:
    """Between the transaction that took the turn and the line in the journal."""
    a, later = start("a"), start("a")
    a.acquire("update-1")
    turn = a.turn()

    later.acquire("update-1")

    again = later.turn()
    assert again.slot_revision == turn.slot_revision
    assert again.waiter_revision > turn.waiter_revision
