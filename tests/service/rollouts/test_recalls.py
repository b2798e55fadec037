"""A grant ends as soon as its update is called off, refused, blocked or superseded. Over an etcd in memory."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from outrider.core.rollout.policy_settings import Rate
from outrider.core.rollout.windows import Window
from outrider.etcd.seam import Delete
from outrider.model.documents import OpenGrant, decode, encode
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.rollouts.wakeups import Look, look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.recalls import BATCH
from outrider.service.store.store import Store
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, block, payload_of, put
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually

Stop = Callable[[Fleet], Any]
OPEN = (Window(opens="11:00", closes="13:00"),)


def looks(fleet: Fleet) -> Look:
    return look(fleet.store.context, GroupLock(), APP, "beta")


def granted(fleet: Fleet, *instances: str, version: str = "2.0.0") -> None:
    """Sidekicks that have a grant, and wait for a turn."""
    for instance in instances:
        assert version == fleet.granted(instance, takes_turns=True)


def begin(fleet: Fleet, instance: str) -> None:
    """What the transaction that takes a turn writes."""
    context = fleet.store.context
    key = context.keys.grant(APP, "beta", instance)
    entry = context.cluster.get(key)
    assert entry is not None
    begun = msgspec.structs.replace(decode(OpenGrant, key, entry.value), begun=NOON)
    put(context.cluster, key, encode(begun))


def promote(fleet: Fleet, version: str) -> None:
    fleet.store.packages.create(APP, version, payload=payload_of(version))
    fleet.store.channels.save(APP, "beta", version=version)


STOPS: dict[str, Stop] = {
    "rollout pause": lambda fleet: fleet.store.rollouts.pause(APP, "beta", by="ann"),
    "rollout halt": lambda fleet: fleet.store.rollouts.halt(APP, "beta", by="ann"),
    "group pause": lambda fleet: fleet.store.groups.update(APP, "beta", paused=True),
    "a block": lambda fleet: block(fleet.store, "2.0.0", "it crashed", NOON),
    "a new target": lambda fleet: promote(fleet, "3.0.0"),
    "updates off": lambda fleet: fleet.set(enabled=False),
    "a percentage": lambda fleet: fleet.set(percent=0),
    "a pin": lambda fleet: fleet.set(pin="1"),
    "a window that is not open": lambda fleet: fleet.set(windows=(Window(opens="20:00", closes="21:00"),)),
    "others that must serve": lambda fleet: fleet.set(min_healthy=5),
    "a deleted package": lambda fleet: fleet.store.context.cluster.txn(
        (), (Delete(key=fleet.store.context.keys.package(APP, "2.0.0")),)
    ),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_stops_new_updates_also_ends_the_grants_of_those_that_have_not_begun(fleet: Fleet, stop: str) -> None:
    """
    1. web-1 swaps, web-2 and web-3 download or wait for a turn
    2. the rollout is stopped: only web-1 is still in progress
    3. nothing counts as a failure, and the limit per interval is free again
    """
    fleet.set(max_per_interval=Rate(count=3, interval_s=3600))
    granted(fleet, "web-1", "web-2", "web-3")
    begin(fleet, "web-1")

    STOPS[stop](fleet)
    looks(fleet)

    assert ["web-1"] == fleet.under_way
    assert ["web-1"] == [one.instance for one in fleet.progress.opened]
    assert [] == list(fleet.progress.failures)
    assert 1 == fleet.progress.made_lately


@pytest.mark.parametrize("stop", ["rollout pause", "rollout halt", "updates off", "a percentage", "a pin"])
def test_an_operators_stop_ends_them_in_its_own_transaction(fleet: Fleet, stop: str) -> None:
    granted(fleet, "web-1", "web-2")

    STOPS[stop](fleet)

    assert [] == fleet.under_way


@pytest.mark.parametrize("stop", ["rollout pause", "group pause", "updates off"])
def test_a_client_without_turns_keeps_its_grant(fleet: Fleet, stop: str) -> None:
    """Nothing tells when its update begins."""
    fleet.granted("box-1")

    STOPS[stop](fleet)
    looks(fleet)

    assert ["box-1"] == fleet.under_way


@pytest.mark.parametrize("verb", ["pause", "halt", "resume"])
def test_a_grant_names_the_brake_and_a_pause_writes_it(fleet: Fleet, verb: str) -> None:
    context = fleet.store.context
    getattr(fleet.store.rollouts, verb)(APP, "beta", by="ann")
    brake = context.cluster.get(context.keys.brake(APP, "beta"))
    fleet.store.rollouts.resume(APP, "beta", by="ann")
    granted(fleet, "web-1")
    entry = context.cluster.get(context.keys.grant(APP, "beta", "web-1"))
    now = context.cluster.get(context.keys.brake(APP, "beta"))

    assert brake is not None
    assert now is not None
    assert now.mod_revision > brake.mod_revision
    assert entry is not None
    assert now.mod_revision == decode(OpenGrant, entry.key, entry.value).brake


def test_a_halt_by_the_policy_writes_the_brake_too(fleet: Fleet) -> None:
    fleet.set(max_failures=1)
    granted(fleet, "web-1", "web-2")
    fleet.fails("web-1")

    brake = fleet.store.context.cluster.get(fleet.store.context.keys.brake(APP, "beta"))
    looks(fleet)

    assert brake is not None
    assert ([], "halted") == (fleet.under_way, fleet.progress.state)


def test_a_closing_window_ends_them_at_its_minute(fleet: Fleet) -> None:
    fleet.set(windows=OPEN, update_timeout_s=7200)
    granted(fleet, "web-1", "web-2")
    begin(fleet, "web-1")
    due = looks(fleet).again_at
    fleet.passes(3600)

    looks(fleet)

    assert NOON + timedelta(hours=1) == due
    assert ["web-1"] == fleet.under_way


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({"max_in_progress": 1}, ["web-1"]),
        ({"max_in_progress": 2}, ["web-1", "web-2"]),
        ({"canary": 1}, ["web-1"]),
        ({"max_per_interval": Rate(count=2, interval_s=600)}, ["web-1", "web-2"]),
    ],
)
def test_a_smaller_limit_leaves_the_oldest(fleet: Fleet, policy: dict[str, Any], left: list[str]) -> None:
    for instance in ("web-1", "web-2", "web-3"):
        granted(fleet, instance)
        fleet.passes(1)

    fleet.set(**policy)

    assert left == fleet.under_way


def test_grants_that_hold_are_left_alone_whatever_is_looked_at(fleet: Fleet) -> None:
    fleet.set(windows=OPEN, max_in_progress=2, max_per_interval=Rate(count=1, interval_s=60), canary=2)
    granted(fleet, "web-1")
    fleet.passes(61)
    granted(fleet, "web-2")

    for _ in range(3):
        looks(fleet)

    assert ["web-1", "web-2"] == fleet.under_way


def test_a_superseded_grant_never_holds_back_the_next_release(fleet: Fleet) -> None:
    fleet.set(max_in_progress=1)
    granted(fleet, "web-1")

    promote(fleet, "3.0.0")
    looks(fleet)

    assert "3.0.0" == fleet.granted("web-2", takes_turns=True)
    assert "1 of 1 in progress: web-2" == fleet.why_deferred("web-1", takes_turns=True)


def test_a_floor_that_the_new_target_still_needs_is_not_superseded(fleet: Fleet) -> None:
    fleet.store.floors.set(APP, "beta", "1.5.0")
    granted(fleet, "web-1", version="1.5.0")

    promote(fleet, "3.0.0")
    looks(fleet)

    assert ["web-1"] == fleet.under_way


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_update_that_its_sidekick_gave_up_ends_at_once(fleet: Fleet, has_begun: bool) -> None:
    """An instance that an operator paused does not check in, and its grant would delay the others."""
    fleet.set(max_in_progress=1)
    granted(fleet, "web-1")
    if has_begun:
        begin(fleet, "web-1")
    be_alive(fleet.store, "web-1", NOON, state="idle.paused", given_up="2.0.0")

    looks(fleet)

    assert ([], []) == (fleet.under_way, list(fleet.progress.failures))
    granted(fleet, "web-2")


@pytest.mark.parametrize("given_up", ["", "1.9.0"])
def test_what_it_gave_up_before_is_not_what_it_has_now(fleet: Fleet, given_up: str) -> None:
    granted(fleet, "web-1")
    be_alive(fleet.store, "web-1", NOON, state="idle.paused", given_up=given_up)

    looks(fleet)

    assert ["web-1"] == fleet.under_way


def test_a_presence_from_before_the_grant_says_nothing_of_it(fleet: Fleet) -> None:
    be_alive(fleet.store, "web-1", NOON, state="idle.waiting", given_up="2.0.0")
    granted(fleet, "web-1")

    looks(fleet)

    assert ["web-1"] == fleet.under_way


def test_who_checks_in_with_a_grant_from_before_a_pause_gets_a_new_one(fleet: Fleet) -> None:
    granted(fleet, "web-1")
    begin(fleet, "web-1")
    fleet.store.rollouts.pause(APP, "beta")
    fleet.store.rollouts.resume(APP, "beta")

    granted(fleet, "web-1")

    entry = fleet.store.context.cluster.get(fleet.store.context.keys.grant(APP, "beta", "web-1"))
    assert entry is not None
    grant = decode(OpenGrant, entry.key, entry.value)
    assert (None, fleet.snapshot.brake) == (grant.begun, grant.brake)


def test_the_rest_of_a_large_group_follows_in_the_next_looks(fleet: Fleet) -> None:
    names = [f"web-{number}" for number in range(BATCH + 5)]
    granted(fleet, *names)

    fleet.store.rollouts.pause(APP, "beta")
    left = len(fleet.under_way)
    looks(fleet)

    assert (5, []) == (left, fleet.under_way)


def test_the_controller_ends_them_by_itself(fleet: Fleet, store: Store) -> None:
    granted(fleet, "web-1", "web-2")
    with rollout_controller(store.context):
        fleet.store.groups.update(APP, "beta", paused=True)

        eventually(lambda: [] == fleet.under_way)


def test_the_controller_hears_of_an_update_that_was_given_up(fleet: Fleet, store: Store) -> None:
    granted(fleet, "web-1", "web-2")
    with rollout_controller(store.context):
        be_alive(fleet.store, "web-2", NOON, state="idle.paused", given_up="2.0.0")

        eventually(lambda: ["web-1"] == fleet.under_way)
