"""Grants: who gets one, how long it lasts, who stands in line, and what a check costs. Over an etcd in memory."""

from typing import Any

import pytest

from outrider.core.errors import Unknown
from outrider.core.rollout.policy_settings import Rate
from outrider.model.documents import OpenGrant, decode
from outrider.model.keys import Keys
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON
from tests.support.service_examples import APP, open_store, payload_of
from tests.support.service_fleets import Fleet


def test_a_grant_is_a_key_without_a_lease_that_says_how_long_the_update_may_take(
    fleet: Fleet, keys: Keys, client: FakeCluster
) -> None:
    fleet.set(update_timeout_s=600)
    fleet.granted("web-1")

    entry = client.get(keys.grant(APP, "beta", "web-1"))

    assert entry is not None
    assert (0, 600) == (entry.lease, decode(OpenGrant, entry.key, entry.value).ends_after_s)
    assert ("2.0.0", NOON) == (fleet.row("web-1").granted_version, fleet.row("web-1").granted_at)
    assert [("web-1", "2.0.0", NOON)] == [(one.instance, one.version, one.at) for one in fleet.progress.opened]


def test_a_vanished_instance_frees_its_place_by_itself(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-1")
    deferred = fleet.why_deferred("web-2")
    fleet.passes(599)
    still_deferred = fleet.why_deferred("web-2")
    fleet.passes(1)

    assert "2.0.0" == fleet.granted("web-2")
    assert ["1 of 1 in progress: web-1"] * 2 == [deferred, still_deferred]
    assert [("web-1", "no result in time")] == [(one.instance, one.error) for one in fleet.progress.failures]


def test_a_granted_instance_that_asks_again_gets_the_same_answer_and_takes_no_second_place(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1, max_per_interval=Rate(count=1, interval_s=3600))
    first = fleet.checks("web-1")
    fleet.sends("web-1", "1.0.0", "13:1")
    fleet.passes(60)

    again = fleet.checks("web-1")

    assert first == again
    assert 1 == fleet.progress.made_lately
    assert ("downloading", NOON) == (fleet.row("web-1").status, fleet.row("web-1").granted_at)


@pytest.mark.parametrize("code", ["13:1", "14:1", "800:1"])
def test_nobody_is_stuck_in_the_middle_of_an_update(fleet: Fleet, code: str) -> None:
    """The grant lapses while the row still says downloading, downloaded or installed; it is judged anew."""
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-1")
    fleet.sends("web-1", "1.0.0", code)
    fleet.passes(601)

    assert "2.0.0" == fleet.granted("web-1")
    assert 2 == fleet.progress.made_lately


@pytest.mark.parametrize("result", ["succeeds", "fails"])
def test_a_result_frees_the_place(fleet: Fleet, result: str) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    getattr(fleet, result)("web-1")

    assert [] == fleet.under_way
    assert "2.0.0" == fleet.granted("web-2")


def test_a_client_that_never_reports_frees_its_place_when_it_asks_with_what_it_was_granted(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    fleet.checks("web-1", "2.0.0")

    assert "2.0.0" == fleet.granted("web-2")
    assert 1 == fleet.progress.succeeded


def test_one_per_five_minutes_is_one_per_five_minutes(fleet: Fleet) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    grants = []
    for _ in range(16):
        for number in range(10):
            version = "2.0.0" if f"web-{number}" in grants else "1.0.0"
            if fleet.granted(f"web-{number}", version):
                grants.append(f"web-{number}")
        fleet.passes(60)

    assert ["web-0", "web-1", "web-2", "web-3"] == grants


def test_the_limit_per_interval_does_not_forget_what_another_release_used_up(fleet: Fleet, store: Store) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    fleet.granted("web-1")
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"))
    store.channels.save(APP, "beta", version="2.1.0")

    assert "1 per 5 min; next at 12:05:00 UTC" == fleet.why_deferred("web-2")
    fleet.passes(300)
    assert "2.1.0" == fleet.granted("web-2")


def test_a_new_target_is_granted_to_who_was_at_the_old_one_and_counts_once_more(fleet: Fleet, store: Store) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"))
    store.channels.save(APP, "beta", version="2.1.0")

    assert "2.1.0" == fleet.granted("web-1")
    assert "1 of 1 in progress: web-1" == fleet.why_deferred("web-2")
    assert [("web-1", "2.1.0")] == [(one.instance, one.version) for one in fleet.progress.opened]


def test_a_late_report_of_the_old_release_ends_nothing_of_the_new_one(fleet: Fleet, store: Store) -> None:
    fleet.granted("web-1")
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"))
    store.channels.save(APP, "beta", version="2.1.0")
    fleet.granted("web-1")

    fleet.sends("web-1", "1.0.0", "3:0:10", next_version="2.0.0")

    assert ["web-1"] == fleet.under_way
    assert ("update-granted", "2.1.0") == (fleet.row("web-1").status, fleet.row("web-1").granted_version)
    assert "3:0" == fleet.row("web-1").history[-1].event


def test_the_held_stand_in_the_order_in_which_they_came(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-0")
    for name in ("web-3", "web-1", "web-2", "web-3"):
        fleet.why_deferred(name)

    assert ["web-3", "web-1", "web-2"] == fleet.line


@pytest.mark.parametrize("then", ["granted", "up to date", "forgotten"])
def test_who_waits_no_longer_stands_in_no_line(fleet: Fleet, store: Store, then: str) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-0")
    fleet.why_deferred("web-1")
    if then == "granted":
        fleet.succeeds("web-0")
        fleet.granted("web-1")
    elif then == "up to date":
        fleet.checks("web-1", "2.0.0")
    else:
        store.fleet.forget(APP, "web-1")

    assert [] == fleet.line


def test_who_is_forgotten_gives_its_place_back(fleet: Fleet, store: Store) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    store.fleet.forget(APP, "web-1")

    assert "2.0.0" == fleet.granted("web-2")


def test_who_changes_its_group_gives_its_place_back(fleet: Fleet, store: Store) -> None:
    store.groups.create(APP, "other", channel="beta")
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    fleet.why_deferred("web-2")
    fleet.checks("web-1", track="other")
    fleet.checks("web-2", track="other")

    assert [] == fleet.line
    assert "2.0.0" == fleet.granted("web-3")
    assert () == fleet.progress.failures


def test_a_check_that_changes_nothing_writes_nothing(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-0")
    fleet.why_deferred("web-1")
    fleet.passes(10)
    before = fleet.etcd.revision

    fleet.why_deferred("web-1")
    fleet.checks("web-0")

    assert before == fleet.etcd.revision


def test_a_check_costs_few_calls(fleet: Fleet, client: FakeCluster) -> None:
    """No limits: two reads, and for a grant its transaction."""
    costs = []
    for _ in range(2):
        client.calls.clear()
        fleet.checks("web-1")
        costs.append(list(client.calls))

    assert [["get", "get", "txn"], ["get", "get"]] == costs


def test_who_takes_the_place_between_read_and_write_has_it(fleet: Fleet, client: FakeCluster, store: Store) -> None:
    fleet.set(max_in_progress=1)
    meddler = Fleet(store=store, etcd=fleet.etcd, clock=fleet.clock)
    done: list[str | None] = []

    def take_the_place(name: str, moment: str) -> None:
        if name == "txn" and moment == "before" and not done:
            done.append("begun")
            done[0] = meddler.granted("web-2")

    # the rival is another process: it has a group lock of its own
    client.trouble = take_the_place
    mine = fleet.granted("web-1")

    assert (["2.0.0"], None) == (done, mine)
    assert ["web-2"] == fleet.under_way


def test_an_answer_that_was_lost_grants_once(fleet: Fleet, client: FakeCluster) -> None:
    fleet.set(max_in_progress=1, max_per_interval=Rate(count=1, interval_s=60))

    def lose_the_write(name: str, moment: str) -> None:
        if name == "txn" and moment == "before":
            client.lose_answers(1)

    client.trouble = lose_the_write
    first = fleet.granted("web-1")
    client.trouble = None

    assert "2.0.0" == first
    assert ("2.0.0", 1) == (fleet.granted("web-1"), fleet.progress.made_lately)


def test_a_grant_whose_answer_was_lost_lives_on_when_others_were_granted_meanwhile(
    fleet: Fleet, client: FakeCluster
) -> None:
    """
    1. web-1's grant is written, and the answer to the write is lost
    2. before the service reads again, another process grants web-2: the rollout isn't what was written any more
    3. web-1 gets its grant all the same, once; nobody has failed
    """
    fleet.set(canary=2, max_failures=1)
    rival = Fleet(store=open_store(fleet.etcd.client("rival"), now=fleet.clock), etcd=fleet.etcd, clock=fleet.clock)
    state: list[str] = []

    def lose_the_write(name: str, moment: str) -> None:
        if (name, moment) == ("txn", "after") and not state and rival.under_way == ["web-1"]:
            state.append("written")
            rival.granted("web-2")
            raise Unknown("the answer was lost")

    client.trouble = lose_the_write
    granted = fleet.granted("web-1")
    client.trouble = None

    assert ("2.0.0", ["written"]) == (granted, state)
    assert (["web-1", "web-2"], (), 2) == (fleet.under_way, fleet.progress.failures, fleet.progress.made_lately)


def test_a_product_id_finds_the_app_and_is_echoed(fleet: Fleet, store: Store) -> None:
    store.apps.save(APP, product_id="io.example.web")

    answer = fleet.sends("web-1", "1.0.0", check=True, app_id="io.Example.Web")

    assert ("io.Example.Web", "ok") == (answer.app_id, answer.status)
    assert "2.0.0" == fleet.row("web-1").granted_version


@pytest.mark.parametrize("app", [{}, {"track": "absent"}, {"machine_id": ""}])
def test_a_product_id_is_found_for_requests_that_are_not_granted_anything_too(
    fleet: Fleet, store: Store, app: dict[str, Any]
) -> None:
    store.apps.save(APP, product_id="io.example.web")

    answer = fleet.sends("web-1", "2.0.0", check=True, app_id="io.example.web", **app)

    assert "ok" == answer.status
