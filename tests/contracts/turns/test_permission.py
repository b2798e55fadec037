"""A turn for an update is taken only under the service's grant, made under the present brake (P16)."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import msgspec
import pytest

from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.documents import Brake, OpenGrant, decode, encode
from outrider.model.keys import Keys
from outrider.turns.lock import Permission
from outrider.turns.turns import read_scope
from tests.contracts.turns.words import APP, GROUP, NOON, SCOPE, Instance, Start
from tests.support.waiting import eventually

Harm = Callable[[Cluster, Keys], None]


def permission(keys: Keys, name: str) -> Permission:
    return Permission(grant=keys.grant(APP, GROUP, name), brake=keys.brake(APP, GROUP), version="2.0.0")


def grant(store: Cluster, keys: Keys, name: str, **facts: object) -> None:
    document = msgspec.structs.replace(OpenGrant(version="2.0.0", at=NOON, takes_turns=True), **facts)
    store.txn((), (Put(key=keys.grant(APP, GROUP, name), value=encode(document), lease=store.grant(60)),))


def stored(store: Cluster, keys: Keys, name: str) -> OpenGrant | None:
    entry = store.get(keys.grant(APP, GROUP, name))
    return None if entry is None else decode(OpenGrant, entry.key, entry.value)


def end_grant(store: Cluster, keys: Keys) -> None:
    store.txn((), (Delete(key=keys.grant(APP, GROUP, "b")),))


def brake(store: Cluster, keys: Keys) -> None:
    store.txn((), (Put(key=keys.brake(APP, GROUP), value=encode(Brake(verb="pause", at=NOON))),))


def grant_another(store: Cluster, keys: Keys) -> None:
    grant(store, keys, "b", version="3.0.0")


def be_late(store: Cluster, keys: Keys) -> None:
    grant(store, keys, "b", begin_before=NOON)


HARMS: tuple[Harm, ...] = (end_grant, brake, grant_another, be_late)


def waiting_behind(start: Start, keys: Keys) -> tuple[Instance, Instance]:
    """``a`` has the only turn, ``b`` waits for it."""
    a, b = start("a"), start("b")
    a.acquire()
    a.turn()
    b.acquire(permission=permission(keys, "b"))
    b.wait_at(0)
    return a, b


def test_the_turn_marks_the_grant_as_begun_and_the_mark_keeps_its_lease(
    store: Cluster, keys: Keys, start: Start
) -> None:
    grant(store, keys, "a", begin_before=NOON + timedelta(seconds=1))
    before = store.get(keys.grant(APP, GROUP, "a"))
    a = start("a")
    a.acquire(permission=permission(keys, "a"))

    a.turn()

    after, document = store.get(keys.grant(APP, GROUP, "a")), stored(store, keys, "a")
    assert document is not None
    assert NOON == document.begun
    assert before is not None
    assert after is not None
    assert before.lease == after.lease != 0


@pytest.mark.parametrize("harm", HARMS)
def test_who_waits_gets_no_turn_when_the_permission_ends_meanwhile(
    harm: Harm, store: Cluster, keys: Keys, start: Start
) -> None:
    grant(store, keys, "b")
    a, b = waiting_behind(start, keys)
    harm(store, keys)

    a.lock.release(a.turn())

    assert "recalled" == b.denial().why
    assert (0, {}) == (len(read_scope(store, keys, SCOPE).queue), read_scope(store, keys, SCOPE).slots)


@pytest.mark.parametrize("harm", HARMS)
def test_who_has_no_permission_does_not_even_queue(harm: Harm, store: Cluster, keys: Keys, start: Start) -> None:
    grant(store, keys, "b")
    harm(store, keys)
    b = start("b")

    b.acquire(permission=permission(keys, "b"))

    assert "recalled" == b.denial().why
    assert "txn" not in b.client.calls


@pytest.mark.parametrize("harm", [end_grant, brake])
def test_a_permission_that_ends_between_reading_and_taking_is_found_by_the_transaction(
    harm: Harm, store: Cluster, keys: Keys, start: Start
) -> None:
    grant(store, keys, "b")
    a, b = waiting_behind(start, keys)
    b.client.before_txn = partial(harm, store, keys)

    a.lock.release(a.turn())

    assert "recalled" == b.denial().why
    assert {} == read_scope(store, keys, SCOPE).slots


def test_a_take_that_arrives_after_the_pause_is_refused(store: Cluster, keys: Keys, start: Start) -> None:
    grant(store, keys, "b")
    a, b = waiting_behind(start, keys)
    b.client.late = 1_000
    a.lock.release(a.turn())
    eventually(lambda: b.client.given_up)
    brake(store, keys)

    (compares, ops) = b.client.given_up[0]

    assert not store.txn(compares, ops).succeeded


def test_an_older_services_grant_without_a_brake_is_enough(store: Cluster, keys: Keys, start: Start) -> None:
    value = b'{"at":"2026-11-23T12:00:00Z","schema":1,"version":"2.0.0"}'
    store.txn((), (Put(key=keys.grant(APP, GROUP, "a"), value=value, lease=store.grant(60)),))
    a = start("a")

    a.acquire(permission=permission(keys, "a"))

    assert a.turn().number == 0


def test_a_way_back_and_a_reclaim_ask_for_no_permission(store: Cluster, keys: Keys, start: Start) -> None:
    """Rolling back, reclaiming, draining and decommissioning go on during a pause (P3)."""
    grant(store, keys, "a")
    a = start("a")
    a.acquire("update-1", permission=permission(keys, "a"))
    turn = a.turn()
    brake(store, keys)
    end_grant(store, keys)

    again = a.lock.reclaim(turn, lease=store.grant(60))
    a.lock.release(again)
    a.acquire("update-2")

    eventually(lambda: "update-2" == a.turn().update)
