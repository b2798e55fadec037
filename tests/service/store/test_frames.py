"""Frames of a rollout are carried out: instances follow as their percentage is reached."""

from datetime import timedelta

import pytest

from outrider.core.errors import Conflict
from outrider.core.omaha import NoUpdate, Offer
from outrider.core.rollout.frames import Frame
from outrider.core.rollout.percent import percentage_of
from outrider.service.rollouts.wakeups import look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import Store
from tests.support.service_examples import APP, be_alive
from tests.support.service_fleets import Fleet
from tests.support.wall_clock import NOON

STEPS = (Frame(60, 10.0), Frame(60, 50.0), Frame(0, 100.0))
NAMES = sorted((f"web-{number}" for number in range(60)), key=lambda name: percentage_of(name, "2.0.0"))
EARLY = next(name for name in NAMES if percentage_of(name, "2.0.0") < 10)
MIDDLE = next(name for name in NAMES if 10 <= percentage_of(name, "2.0.0") < 50)
LATE = next(name for name in NAMES if percentage_of(name, "2.0.0") >= 50)


def offered(fleet: Fleet) -> list[str]:
    """Who gets the update now."""
    return [name for name in (EARLY, MIDDLE, LATE) if isinstance(fleet.checks(name), Offer)]


def test_frames_do_nothing_before_they_are_activated(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    fleet.passes(3600)

    assert (False, 100.0) == ((found := store.frames.get(APP, "beta")).active, found.percent)
    assert [EARLY, MIDDLE, LATE] == offered(fleet)


def test_active_frames_let_instances_through_as_time_goes_on(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")

    assert [EARLY] == offered(fleet)
    fleet.passes(60)
    assert [EARLY, MIDDLE] == offered(fleet)
    fleet.passes(60)
    assert [EARLY, MIDDLE, LATE] == offered(fleet)
    assert (False, 100.0) == ((found := store.frames.get(APP, "beta")).active, found.percent)


def test_a_deferred_instance_is_told_when_its_frame_begins_and_is_woken_then(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")
    be_alive(store, MIDDLE, NOON)

    answer = fleet.checks(MIDDLE)

    assert isinstance(answer, NoUpdate)
    assert "2.0.0 goes to 10 % of the instances" in answer.reason
    assert "whose frame begins 12:01:00 UTC" in answer.reason
    lock = GroupLock()
    assert NOON + timedelta(seconds=60) == look(store.context, lock, APP, "beta").again_at
    fleet.passes(60)
    assert (MIDDLE,) == look(store.context, lock, APP, "beta").called


def test_deactivated_frames_leave_the_percentage_where_it_is(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")
    fleet.passes(70)

    left = store.frames.deactivate(APP, "beta")
    fleet.passes(3600)

    assert (False, 50.0) == (left.active, left.percent)
    assert (50.0, 50.0) == (store.frames.get(APP, "beta").percent, store.rollouts.policy(APP, "beta").percent)
    assert [EARLY, MIDDLE] == offered(fleet)


def test_activating_again_begins_anew_and_twice_goes_on(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")
    fleet.passes(70)
    assert 50.0 == store.frames.activate(APP, "beta").percent
    fleet.passes(3600)

    assert 10.0 == store.frames.activate(APP, "beta").percent


def test_a_percentage_by_hand_ends_them_and_another_change_of_the_policy_does_not(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")

    fleet.set(max_in_progress=5)
    assert store.frames.get(APP, "beta").active
    assert any("10 % now and 100 % at 2026-11-23 12:02 UTC" in note for note in store.rollouts.warnings(APP, "beta"))
    fleet.set(percent=100.0)

    assert (False, 100.0) == ((found := store.frames.get(APP, "beta")).active, found.percent)
    assert not any("frames" in note for note in store.rollouts.warnings(APP, "beta"))
    store.frames.activate(APP, "beta")
    assert (False, 30.0) == ((found := store.frames.set_percent(APP, "beta", 30.0)).active, found.percent)


def test_new_frames_end_active_ones(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", STEPS)
    store.frames.activate(APP, "beta")

    replaced = store.frames.set(APP, "beta", (Frame(5, 1.0), Frame(0, 100.0)))

    assert (False, 10.0, 2) == (replaced.active, replaced.percent, len(replaced.frames))


def test_an_undo_does_not_wait_for_frames(fleet: Fleet, store: Store) -> None:
    store.frames.set(APP, "beta", (Frame(600, 0.0), Frame(0, 100.0)))
    store.frames.activate(APP, "beta")
    assert [] == offered(fleet)

    store.rollouts.undo(APP, "beta", to="1.5.0")

    assert [EARLY, MIDDLE, LATE] == offered(fleet)


def test_a_group_without_frames_has_none_to_activate_and_a_deleted_one_leaves_none(store: Store, fleet: Fleet) -> None:
    with pytest.raises(Conflict):
        store.frames.activate(APP, "beta")
    store.frames.set(APP, "beta", STEPS)
    store.groups.delete(APP, "beta")

    assert store.context.cluster.get(store.context.keys.frames(APP, "beta")) is None
