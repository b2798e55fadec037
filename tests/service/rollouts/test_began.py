"""When a rollout began: with its target, whoever was granted something, and whenever somebody looks."""

from datetime import timedelta

from outrider.service.store.store import Store
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, payload_of
from tests.support.service_fleets import Fleet


def test_a_rollout_without_a_grant_began_when_the_group_got_its_target(
    fleet: Fleet, store: Store, clock: WallClock
) -> None:
    clock.advance(600)
    before = store.rollouts.get(APP, "beta")
    fleet.granted("web-1")
    after = store.rollouts.get(APP, "beta")

    assert (NOON, NOON) == (before.started, after.started)


def test_a_pause_more_slots_and_the_same_version_again_say_nothing_of_when_it_began(
    fleet: Fleet, store: Store, clock: WallClock
) -> None:
    clock.advance(60)
    store.groups.update(APP, "beta", paused=True, slots=3)
    clock.advance(60)
    store.channels.save(APP, "beta", version="2.0.0")

    assert NOON == store.rollouts.get(APP, "beta").started


def test_the_next_version_begins_anew(fleet: Fleet, store: Store, clock: WallClock) -> None:
    fleet.granted("web-1")
    clock.advance(60)
    store.packages.create(APP, "3.0.0", payload_of("3.0.0"))
    store.channels.save(APP, "beta", version="3.0.0")
    clock.advance(60)

    assert NOON + timedelta(seconds=60) == store.rollouts.get(APP, "beta").started
