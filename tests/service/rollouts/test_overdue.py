"""Grants that take too long are ended by a rollout controller's own clock. Over an etcd in memory."""

import msgspec

from outrider.core.rollout.policy_settings import Rate
from outrider.etcd.seam import Delete
from outrider.model.documents import OpenGrant, decode, encode
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.rollouts.overdue import OverdueGrants
from outrider.service.rollouts.wakeups import Look, look
from outrider.service.store.group_lock import GroupLock
from tests.sim.manual_clock import ManualClock
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, put
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually


def looks(fleet: Fleet, overdue: OverdueGrants) -> Look:
    return look(fleet.store.context, GroupLock(), APP, "beta", overdue)


def silent(fleet: Fleet) -> list[str]:
    return [one.instance for one in fleet.progress.failures if one.error == "no result in time"]


def test_a_grant_ends_when_its_time_has_passed_since_it_was_first_seen(fleet: Fleet) -> None:
    """
    1. web-1 is granted for 600 s, and a controller sees the grant 100 s later
    2. until 600 s after that it stands; then it ends, is counted as a failure, and its place is free
    """
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-1")
    clock = ManualClock()
    overdue = OverdueGrants(clock)
    first = looks(fleet, overdue).overdue_in_s
    clock.advance(599)
    left, still = looks(fleet, overdue).overdue_in_s, fleet.under_way
    clock.advance(1)
    looks(fleet, overdue)

    assert (600, 1, ["web-1"]) == (first, left, still)
    assert ([], ["web-1"], 0) == (fleet.under_way, silent(fleet), fleet.progress.open.total)
    assert "2.0.0" == fleet.granted("web-2")


def test_the_time_of_day_ends_no_grant(fleet: Fleet) -> None:
    fleet.set(update_timeout_s=600)
    fleet.granted("web-1")
    overdue = OverdueGrants(ManualClock())
    looks(fleet, overdue)
    fleet.clock.advance(7 * 24 * 3600)
    looks(fleet, overdue)

    assert (["web-1"], []) == (fleet.under_way, silent(fleet))


def test_a_process_that_starts_later_gives_the_whole_time_again(fleet: Fleet) -> None:
    """No process ran for a day: nobody could book a result meanwhile."""
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-1")
    clock = ManualClock()
    looks(fleet, OverdueGrants(clock))
    clock.advance(24 * 3600)
    fresh = OverdueGrants(clock)
    looks(fleet, fresh)
    deferred = fleet.why_deferred("web-2")
    clock.advance(600)
    looks(fleet, fresh)

    assert "1 of 1 in progress: web-1" == deferred
    assert "2.0.0" == fleet.granted("web-2")
    assert 1 == fleet.progress.open.total


def test_a_later_grant_of_the_same_instance_has_its_own_time_and_a_turn_changes_nothing(fleet: Fleet) -> None:
    fleet.set(update_timeout_s=600)
    fleet.granted("web-1", takes_turns=True)
    clock = ManualClock()
    overdue = OverdueGrants(clock)
    looks(fleet, overdue)
    clock.advance(500)
    fleet.clock.advance(500)
    fleet.fails("web-1")
    fleet.granted("web-1", takes_turns=True)
    again = looks(fleet, overdue).overdue_in_s
    clock.advance(100)
    key = fleet.store.context.keys.grant(APP, "beta", "web-1")
    entry = fleet.store.context.cluster.get(key)
    assert entry is not None
    put(
        fleet.store.context.cluster,
        key,
        encode(msgspec.structs.replace(decode(OpenGrant, key, entry.value), begun=NOON)),
    )

    assert (600, 500) == (again, looks(fleet, overdue).overdue_in_s)


def test_a_grant_that_cannot_be_read_ends_by_the_policys_time(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-1")
    put(fleet.store.context.cluster, fleet.store.context.keys.grant(APP, "beta", "web-1"), b"{")
    clock = ManualClock()
    overdue = OverdueGrants(clock)
    looks(fleet, overdue)
    deferred = fleet.why_deferred("web-2")
    clock.advance(600)
    looks(fleet, overdue)

    assert "1 of 1 in progress: web-1" == deferred
    assert ([], "2.0.0") == (fleet.under_way, fleet.granted("web-2"))


def test_a_count_that_no_grant_accounts_for_is_put_right(fleet: Fleet) -> None:
    """A person has removed the key of a grant."""
    fleet.set(max_in_progress=1, max_per_interval=Rate(count=5, interval_s=60))
    fleet.granted("web-1")
    fleet.store.context.cluster.txn((), (Delete(key=fleet.store.context.keys.grant(APP, "beta", "web-1")),))
    looks(fleet, OverdueGrants())
    entry = fleet.store.context.cluster.get(fleet.store.context.keys.rollout(APP, "beta"))

    assert entry is not None
    assert b'"total":0' in entry.value
    assert 1 == fleet.progress.made_lately


def test_the_rollout_controller_wakes_by_itself_when_a_grant_is_overdue(fleet: Fleet, no_thread_left: None) -> None:
    """On the real clock; nothing else happens."""
    fleet.set(max_in_progress=1, update_timeout_s=1)
    fleet.granted("web-0")
    be_alive(fleet.store, "web-1", NOON)
    fleet.why_deferred("web-1")
    with rollout_controller(fleet.store.context):
        key = fleet.store.context.keys.wakeup(APP, "web-1")
        eventually(lambda: fleet.store.context.cluster.get(key) is not None)

    assert (["web-0"], []) == (silent(fleet), fleet.under_way)
