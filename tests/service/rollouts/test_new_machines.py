"""A machine that has nothing to serve gets what its group serves while the group's target stands still."""

from collections.abc import Callable

import pytest

from outrider.etcd.seam import Delete, Put
from outrider.model.documents import Block, encode
from outrider.service.store.store import Store
from tests.support.service import NOON
from tests.support.service_examples import APP
from tests.support.service_fleets import Fleet

NOTHING = "0.0.0"


def serve(fleet: Fleet, version: str, *instances: str) -> None:
    """The group follows its channel to ``version``, and its rollout is finished."""
    fleet.store.channels.save(APP, "beta", version=version)
    for name in instances:
        fleet.checks(name, NOTHING)
        fleet.succeeds(name, version)
        fleet.checks(name, version)


def block(fleet: Fleet, version: str) -> None:
    document = Block(version=version, sha256="0" * 64, instance="web-1", why="it crashed", at=NOON)
    key = fleet.store.context.keys.block(APP, version)
    fleet.store.context.cluster.txn((), (Put(key=key, value=encode(document)),))


def block_the_target(fleet: Fleet) -> None:
    fleet.store.channels.save(APP, "beta", version="2.0.0")
    block(fleet, "2.0.0")


def pause_the_group(fleet: Fleet) -> None:
    fleet.store.channels.save(APP, "beta", version="2.0.0")
    fleet.store.groups.update(APP, "beta", paused=True)


def pause_the_rollout(fleet: Fleet) -> None:
    fleet.store.channels.save(APP, "beta", version="2.0.0")
    fleet.store.rollouts.pause(APP, "beta")


def freeze_without_a_new_target(fleet: Fleet) -> None:
    fleet.store.groups.update(APP, "beta", paused=True)


STANDSTILLS: dict[str, Callable[[Fleet], None]] = {
    "blocked": block_the_target,
    "group paused": pause_the_group,
    "rollout paused": pause_the_rollout,
    "frozen": freeze_without_a_new_target,
}


@pytest.mark.parametrize("stands_still", STANDSTILLS.values(), ids=list(STANDSTILLS))
def test_a_new_machine_gets_what_the_group_serves(fleet: Fleet, stands_still: Callable[[Fleet], None]) -> None:
    serve(fleet, "1.0.0", "web-1", "web-2")
    stands_still(fleet)

    assert "1.0.0" == fleet.granted("web-3", NOTHING)
    assert "1.0.0" == fleet.granted("web-3", NOTHING), "asked again, it gets the same"


@pytest.mark.parametrize("stands_still", STANDSTILLS.values(), ids=list(STANDSTILLS))
def test_whoever_serves_already_stays_where_it_is(fleet: Fleet, stands_still: Callable[[Fleet], None]) -> None:
    serve(fleet, "1.0.0", "web-1", "web-2")
    stands_still(fleet)

    assert fleet.granted("web-1", "1.0.0") is None
    assert fleet.granted("web-2", "0.9.0") is None


def test_through_several_bad_releases_the_served_version_is_not_forgotten(fleet: Fleet) -> None:
    serve(fleet, "1.0.0", "web-1")
    fleet.store.channels.save(APP, "beta", version="1.5.0")
    fleet.fails("web-1")
    block(fleet, "1.5.0")
    block_the_target(fleet)

    assert "1.0.0" == fleet.granted("web-3", NOTHING)


def test_before_any_rollout_was_finished_it_is_what_most_instances_run(fleet: Fleet) -> None:
    fleet.store.channels.save(APP, "beta", version="1.0.0")
    for name, version in (("web-1", "1.0.0"), ("web-2", "1.0.0"), ("web-3", "1.5.0")):
        fleet.sends(name, version, "3:2")
    block_the_target(fleet)

    assert "1.0.0" == fleet.granted("web-4", NOTHING)


@pytest.mark.parametrize("why", ["nothing was ever served", "blocked, too", "no package"])
def test_where_the_group_serves_nothing_that_it_could_have_it_waits(fleet: Fleet, store: Store, why: str) -> None:
    if why != "nothing was ever served":
        serve(fleet, "1.0.0", "web-1")
    block_the_target(fleet)
    if why == "blocked, too":
        block(fleet, "1.0.0")
    elif why == "no package":
        store.context.cluster.txn((), (Delete(key=store.context.keys.package(APP, "1.0.0")),))

    assert "2.0.0 is blocked" in fleet.why_deferred("web-3", NOTHING)


def test_how_it_fares_says_nothing_of_the_release_that_waits(fleet: Fleet) -> None:
    """Neither its success nor its failure counts in the rollout to 2.0.0; an old grant would have."""
    serve(fleet, "1.0.0", "web-1")
    fleet.set(max_failures=1)
    pause_the_rollout(fleet)
    fleet.granted("web-3", NOTHING)
    fleet.sends("web-3", NOTHING, "3:0:44")
    fleet.granted("web-4", NOTHING)
    fleet.succeeds("web-4", "1.0.0")

    assert ((), 0) == (fleet.progress.failures, fleet.progress.succeeded)


def test_as_soon_as_the_target_moves_again_it_follows_like_the_others(fleet: Fleet) -> None:
    serve(fleet, "1.0.0", "web-1")
    pause_the_group(fleet)
    fleet.granted("web-3", NOTHING)
    fleet.succeeds("web-3", "1.0.0")
    fleet.store.groups.update(APP, "beta", paused=False)

    assert "2.0.0" == fleet.granted("web-3", "1.0.0")
