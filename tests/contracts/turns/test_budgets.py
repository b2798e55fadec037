"""Disruption budgets: a turn comes with a slot of each budget that the instance falls into, and ends with them."""

import pytest

from outrider.core.errors import Conflict
from outrider.core.rollout.budgets import Budget
from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.documents import BudgetSlot, Gone, Presence, Target, encode
from outrider.model.keys import Keys
from outrider.turns.turns import read_scope
from tests.contracts.turns.words import APP, GROUP, NOON, SCOPE, Instance, Start, contender, free_by_hand
from tests.support.service_examples import open_store
from tests.support.waiting import eventually

ONE_PER_RACK = Budget(label="rack", max_out=1)
TWO_SERVE = Budget(label="site", min_serving=2)


def set_budgets(store: Cluster, keys: Keys, *budgets: Budget, group: str = GROUP) -> None:
    target = Target(version="2.0.0", slots=3, budgets=budgets)
    store.txn((), (Put(key=keys.target(APP, group), value=encode(target)),))


def be_alive(store: Cluster, keys: Keys, name: str, *, serving: bool = True, **labels: str) -> None:
    presence = Presence(
        instance=name, app=APP, group=GROUP, state="idle.waiting", version="1.0.0", since=NOON, serving=serving,
        labels=labels,
    )  # fmt: skip
    store.txn((), (Put(key=keys.presence(APP, GROUP, name), value=encode(presence)),))


def in_rack(start: Start, name: str, rack: str) -> Instance:
    one = start(name, labels={"rack": rack})
    one.acquire(slots=3)
    return one


def taken(store: Cluster, keys: Keys) -> list[str]:
    """The keys of the budget slots, below the scope."""
    prefix = keys.budgets(SCOPE)
    return [one.entry.key.removeprefix(prefix) for one in read_scope(store, keys, SCOPE).budgets]


def test_of_one_rack_one_is_out_and_others_pass(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. a of rack 3 is out; b of rack 3 waits, though there are turns
    2. c of rack 4 passes b
    3. a's turn ends, and b has one
    """
    set_budgets(store, keys, ONE_PER_RACK)
    a = in_rack(start, "a", "3")
    turn = a.turn()
    b = in_rack(start, "b", "3")
    eventually(lambda: b.place().held)
    c = in_rack(start, "c", "4")

    c.turn()
    assert "budget rack=3: 1 of 1 out (a)" == b.place().held
    assert ["rack=3/slots/0/a", "rack=4/slots/0/c"] == taken(store, keys)
    a.lock.release(turn)
    b.turn()
    assert ["rack=3/slots/0/b", "rack=4/slots/0/c"] == taken(store, keys)


def test_a_dirty_turn_counts_in_its_rack_until_an_operator_frees_it(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys, ONE_PER_RACK)
    a = in_rack(start, "a", "3")
    number = a.turn().number
    store.revoke(a.lease)
    b = in_rack(start, "b", "3")
    eventually(lambda: b.place().held)

    free_by_hand(store, keys, number)

    b.turn()
    assert ["rack=3/slots/0/b"] == taken(store, keys)


def test_of_two_that_have_read_the_same_one_succeeds(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. b is about to take a turn: it has read that nobody of its rack is out
    2. before it writes, a takes one
    """
    set_budgets(store, keys, ONE_PER_RACK)
    b = start("b", labels={"rack": "3"})

    def overtake() -> None:
        if "b" not in read_scope(store, keys, SCOPE).queue:
            b.client.before_txn = overtake  # that was its ticket, or its place in the queue
            return
        who = contender("a", labels={"rack": "3"})
        place = BudgetSlot(app=APP, group=GROUP, instance="a", label="rack", value="3", turn=2, update="u", since=NOON)
        store.txn(
            (),
            (
                Put(key=keys.slot(SCOPE, 2, "a"), value=encode(who.slot(release="2.0.0", since=NOON, update="u"))),
                Put(key=f"{keys.budget(SCOPE, 'rack', '3')}0/a", value=encode(place)),
            ),
        )

    b.client.before_txn = overtake
    b.acquire(slots=3)

    assert "budget rack=3: 1 of 1 out (a)" == eventually(lambda: b.place().held)
    assert ["rack=3/slots/0/a"] == taken(store, keys)


def test_a_turn_from_before_the_budget_counts(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys)
    a = in_rack(start, "a", "3")
    turn = a.turn()
    set_budgets(store, keys, ONE_PER_RACK)
    b = in_rack(start, "b", "3")

    assert eventually(lambda: b.place().held).startswith("budget rack=3")
    a.lock.release(turn)
    b.turn()


def test_who_has_no_such_label_falls_into_no_budget(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys, ONE_PER_RACK)
    for name in ("a", "b"):
        one = start(name)
        one.acquire(slots=3)
        one.turn()

    assert [] == taken(store, keys)


def test_no_character_of_a_label_separates(start: Start, store: Cluster, keys: Keys) -> None:
    """``a=b/c`` in a value or a name is no other budget."""
    set_budgets(store, keys, Budget(label="zone/eu", max_out=1))
    one = start("a", labels={"zone/eu": "x/slots"})
    one.acquire(slots=3)
    one.turn()

    assert ["zone%2Feu=x%2Fslots/slots/0/a"] == taken(store, keys)


def test_a_floor_holds_until_enough_others_serve(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. of three of a site one doesn't serve: a waits
    2. it serves again: a has its turn
    """
    set_budgets(store, keys, TWO_SERVE)
    be_alive(store, keys, "a", site="x")
    be_alive(store, keys, "b", site="x")
    be_alive(store, keys, "c", site="x", serving=False)
    a = start("a", labels={"site": "x"})
    a.acquire(slots=3)
    held = eventually(lambda: a.place().held)

    be_alive(store, keys, "c", site="x")

    assert "budget site=x: 1 others serve, and 2 must while one is out" == held
    a.turn()


def test_who_is_out_does_not_count_as_serving(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys, TWO_SERVE)
    for name in ("a", "b", "c"):
        be_alive(store, keys, name, site="x")
    a, b = (start(name, labels={"site": "x"}) for name in ("a", "b"))
    a.acquire(slots=3)
    turn = a.turn()
    b.acquire(slots=3)
    eventually(lambda: b.place().held)

    a.lock.release(turn)

    b.turn()


def test_one_that_stops_serving_as_the_turn_is_taken_refuses_it(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys, TWO_SERVE)
    for name in ("a", "b", "c"):
        be_alive(store, keys, name, site="x")
    a = start("a", labels={"site": "x"})

    def stop_serving() -> None:
        if not any(entry for entry in read_scope(store, keys, SCOPE).queue):
            a.client.before_txn = stop_serving
            return
        store.txn((), (Delete(key=keys.presence(APP, GROUP, "b")),))

    a.client.before_txn = stop_serving
    a.acquire(slots=3)

    assert "1 others serve" in eventually(lambda: a.place().held)
    assert {} == read_scope(store, keys, SCOPE).slots


def test_who_serves_nothing_is_held_by_no_floor(start: Start, store: Cluster, keys: Keys) -> None:
    set_budgets(store, keys, TWO_SERVE)
    be_alive(store, keys, "a", site="x", serving=False)
    a = start("a", labels={"site": "x"})
    a.acquire(slots=3)

    a.turn()


def test_a_turn_knows_its_budgets_after_a_restart(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. a crashes with a turn, and starts again with other labels
    2. it finds the turn with the labels under which it was taken, and ends it whole
    """
    set_budgets(store, keys, ONE_PER_RACK)
    turn = in_rack(start, "a", "3").turn()
    again = start("a", labels={"rack": "4"})

    found = again.lock.find("update-of-a")

    assert found is not None
    assert (turn.labels, turn.budgets) == (found.labels, found.budgets)
    again.lock.release(again.lock.reclaim(found, lease=again.lease))
    assert [] == taken(store, keys)


def test_what_was_given_up_leaves_no_slot_of_a_budget(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. the transaction that takes the turn is given up, and carried out later
    2. the wait is withdrawn
    """
    set_budgets(store, keys, ONE_PER_RACK)
    a = start("a", labels={"rack": "3"})
    a.client.lost_answers = 3
    a.acquire(slots=3)
    a.turn()

    left = a.lock.withdraw()

    assert left is not None
    a.lock.release(left)
    assert [] == taken(store, keys)
    assert {} == read_scope(store, keys, SCOPE).slots


def test_in_a_shared_scope_each_group_has_its_own_budgets(start: Start, store: Cluster, keys: Keys) -> None:
    """A group without budgets passes one that is held."""
    shared = "eu"
    set_budgets(store, keys, ONE_PER_RACK)
    set_budgets(store, keys, group="free")
    a, b = (start(name, labels={"rack": "3"}, shared_scope=shared) for name in ("a", "b"))
    a.acquire(slots=3)
    a.turn()
    b.acquire(slots=3)
    eventually(lambda: b.place().held)
    other = start("c", labels={"rack": "3"}, shared_scope=shared, group="free")
    other.acquire(slots=3)

    other.turn()
    assert b.place().held


def test_an_instance_that_is_deleted_frees_the_slots_of_its_budgets(start: Start, store: Cluster, keys: Keys) -> None:
    """
    1. a of rack 3 is out, and its machine dies: its turn and its budget's slot are dirty, and b waits
    2. an operator deletes a, whose machine is off: b has a turn
    """
    set_budgets(store, keys, ONE_PER_RACK)
    a = in_rack(start, "a", "3")
    a.turn()
    b = in_rack(start, "b", "3")
    eventually(lambda: b.place().held)
    a.client.away = True
    store.revoke(a.lease)
    service = open_store(store, keys.prefix)
    service.apps.create(app=APP, label="")
    fleet = service.fleet
    with pytest.raises(Conflict, match="holds turn 1"):
        fleet.forget(APP, "a")
    assert ["rack=3/slots/0/a"] == taken(store, keys)

    fleet.forget(APP, "a", machine_off=True)

    b.turn()
    assert ["rack=3/slots/0/b"] == taken(store, keys)


def test_the_end_of_a_turn_that_removes_its_instance_frees_the_slots_of_its_budgets(
    start: Start, store: Cluster, keys: Keys
) -> None:
    """As a decommissioned sidekick ends its turn: with the marker that it is gone, in one transaction."""
    set_budgets(store, keys, ONE_PER_RACK)
    a = in_rack(start, "a", "3")
    turn = a.turn()
    b = in_rack(start, "b", "3")
    eventually(lambda: b.place().held)
    marker = Gone(app=APP, group=GROUP, instance="a", how="decommissioned", at=NOON)

    a.lock.release(turn, ops=(Put(key=keys.gone(APP, "a"), value=encode(marker)),))

    b.turn()
    assert ["rack=3/slots/0/b"] == taken(store, keys)
    assert store.get(keys.gone(APP, "a")) is not None
