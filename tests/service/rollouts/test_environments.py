"""An environment is a part of a release: rolled out, blocked and undone like one. Over an etcd in memory."""

from dataclasses import replace
from typing import Any

import pytest

from outrider.core.errors import Conflict, NotFound
from outrider.core.omaha import Offer
from outrider.core.release import ReleaseId
from outrider.model.documents import Block, encode
from outrider.model.environments import GroupEnvironment
from outrider.service.rollouts.wakeups import look
from outrider.service.store.effects import effects
from outrider.service.store.environments import KEPT, EnvironmentEdit
from outrider.service.store.group_lock import GroupLock
from tests.support.service import NOON
from tests.support.service_examples import APP, payload_of, put, target_of
from tests.support.service_fleets import Fleet

FIRST = "2.0.0 with environment 1"
SECOND = "2.0.0 with environment 2"


def set_variables(fleet: Fleet, **variables: str) -> int:
    """Change the environment; the number of the new one."""
    fleet.store.environments.change(APP, "beta", EnvironmentEdit(variables=variables), by="ann")
    return fleet.store.groups.get(APP, "beta").environment


def target(fleet: Fleet) -> ReleaseId:
    found = target_of(fleet.store).release
    assert found is not None
    return found


def checks(fleet: Fleet, instance: str, running: ReleaseId) -> Any:
    """A sidekick checks in, and says which release it runs."""
    return fleet.checks(instance, running.version, release=running, takes_turns=True)


def granted(fleet: Fleet, instance: str, running: ReleaseId) -> str | None:
    answer = checks(fleet, instance, running)
    return answer.release.label if isinstance(answer, Offer) and answer.release is not None else None


def arrives(fleet: Fleet, instance: str, release: ReleaseId) -> None:
    """It reports that it came to ``release``."""
    fleet.sends(instance, release.version, "3:2", release=release)


def roll(fleet: Fleet, before: ReleaseId) -> ReleaseId:
    """Both instances come to the target, and the rollout finishes."""
    now = target(fleet)
    for instance in ("web-1", "web-2"):
        assert now.label == granted(fleet, instance, before)
        arrives(fleet, instance, now)
    look(fleet.store.context, GroupLock(), APP, "beta")
    assert fleet.progress.finished is not None
    return now


def block(fleet: Fleet, release: ReleaseId) -> None:
    """Block a release, as a sidekick of the group does."""
    document = Block(
        version=release.version, sha256=release.sha256, instance="web-1", why="it crashed", at=NOON, group="beta",
        environment=release.environment, environment_digest=release.environment_digest, generation=release.generation,
    )  # fmt: skip
    put(fleet.store.context.cluster, fleet.store.context.keys.block(APP, release.key("beta")), encode(document))


OLD = ReleaseId(version="1.0.0")


@pytest.fixture
def plain(fleet: Fleet) -> ReleaseId:
    """Both instances run 2.0.0, without an environment."""
    return roll(fleet, OLD)


def test_a_change_is_a_release_of_the_same_version_that_sidekicks_get(fleet: Fleet, plain: ReleaseId) -> None:
    assert 1 == set_variables(fleet, LOG="debug")

    answer = checks(fleet, "web-1", plain)

    assert isinstance(answer, Offer)
    assert answer.release is not None
    assert (FIRST, "2.0.0") == (answer.release.label, answer.version)
    assert payload_of("2.0.0").sha256 == answer.release.sha256
    assert target(fleet).environment_digest == answer.release.environment_digest != ""
    assert ("update-granted", "2.0.0", FIRST) == (
        fleet.row("web-1").status, fleet.row("web-1").granted_version, fleet.row("web-1").granted_release
    )  # fmt: skip


def test_whoever_names_versions_only_is_up_to_date_at_the_same_version(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")

    assert "up to date" == fleet.why_deferred("old-1", "2.0.0")
    assert "2.0.0" == fleet.granted("old-2", "1.0.0")
    fleet.sends("old-2", "2.0.0", "3:2")
    assert 1 == fleet.progress.succeeded, "it came to the target, as far as it can say"


def test_the_rollout_counts_who_came_to_the_release_and_not_to_the_version(fleet: Fleet, plain: ReleaseId) -> None:
    """
    1. both run 2.0.0 without an environment, and neither counts as updated
    2. one comes to it: one done, and the rollout goes on; then the other, and it is finished
    """
    set_variables(fleet, LOG="debug")
    checks(fleet, "web-2", plain)
    assert FIRST == granted(fleet, "web-1", plain)
    arrives(fleet, "web-1", target(fleet))

    look(fleet.store.context, GroupLock(), APP, "beta")

    assert (1, None) == (fleet.progress.succeeded, fleet.progress.finished)
    assert "up to date" == checks(fleet, "web-1", target(fleet)).reason
    arrives(fleet, "web-2", target(fleet))
    look(fleet.store.context, GroupLock(), APP, "beta")
    assert (2, True) == (fleet.progress.succeeded, fleet.progress.finished is not None)


def test_a_late_report_of_the_release_before_says_nothing_of_this_one(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    granted(fleet, "web-1", plain)

    arrives(fleet, "web-1", plain)

    assert 0 == fleet.progress.succeeded


def test_one_environment_is_blocked_and_the_other_is_fine(fleet: Fleet, plain: ReleaseId) -> None:
    """2.0.0 with environment 1 is fine, with environment 2 it is blocked; the fix is a third one."""
    set_variables(fleet, LOG="debug")
    first = roll(fleet, plain)
    set_variables(fleet, LOG="nonsense")
    block(fleet, target(fleet))

    assert f"{SECOND} is blocked: it crashed" == checks(fleet, "web-2", first).reason
    group = fleet.store.groups.get(APP, "beta")
    assert f"held: {SECOND} is blocked (it crashed)" in effects(fleet.store.context, APP, [group])[0]

    set_variables(fleet, LOG="info")
    assert "2.0.0 with environment 3" == granted(fleet, "web-2", first)


def test_a_blocked_release_is_unblocked_by_its_own_name(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    block(fleet, target(fleet))
    (blocked,) = fleet.store.fleet.blocks(APP)

    with pytest.raises(NotFound):
        fleet.store.fleet.unblock(APP, "2.0.0")
    assert FIRST == fleet.store.fleet.unblock(APP, blocked.key).label

    assert FIRST == granted(fleet, "web-1", plain)


def test_undo_goes_back_to_the_environment_before_and_the_group_goes_on_following_its_channel(
    fleet: Fleet, plain: ReleaseId
) -> None:
    """
    1. environment 2 is bad, and an operator takes the group back
    2. the target is the version with environment 1; the bad release is blocked for the group, and the whole group goes
       back, whatever percentage the policy has
    3. the next version comes with environment 1, too
    """
    set_variables(fleet, LOG="debug")
    first = roll(fleet, plain)
    set_variables(fleet, LOG="nonsense")
    bad = target(fleet)
    assert SECOND == granted(fleet, "web-1", first)
    arrives(fleet, "web-1", bad)

    fleet.set(percent=0.0)
    group = fleet.store.rollouts.undo(APP, "beta", by="ann", why="it logs nothing")

    assert (FIRST, None) == (target(fleet).label, group.undo)
    assert [SECOND] == [one.version for one in group.blocked]
    assert FIRST == granted(fleet, "web-1", bad)
    assert "up to date" == checks(fleet, "web-2", first).reason
    fleet.store.packages.create(APP, "3.0.0", payload=payload_of("3.0.0"))
    fleet.store.channels.save(APP, "beta", version="3.0.0")
    assert "3.0.0 with environment 1" == target(fleet).label


def test_undo_of_a_version_brings_its_environment_back_and_following_the_newest(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    first = roll(fleet, plain)
    fleet.store.packages.create(APP, "3.0.0", payload=payload_of("3.0.0"))
    fleet.store.channels.save(APP, "beta", version="3.0.0")
    set_variables(fleet, LOG="trace")
    third = roll(fleet, first)
    assert "3.0.0 with environment 2" == third.label

    fleet.store.rollouts.undo(APP, "beta")

    assert (FIRST, True) == (target(fleet).label, target_of(fleet.store).go_back)
    fleet.store.rollouts.follow(APP, "beta")
    assert third.label == target(fleet).label


def test_a_change_while_the_group_is_taken_back_goes_on_from_what_it_runs_with(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    first = roll(fleet, plain)
    fleet.store.packages.create(APP, "3.0.0", payload=payload_of("3.0.0"))
    fleet.store.channels.save(APP, "beta", version="3.0.0")
    set_variables(fleet, LOG="trace", MORE="1")
    fleet.store.rollouts.undo(APP, "beta")
    assert first.label == target(fleet).label

    set_variables(fleet, COLOUR="blue")

    assert "2.0.0 with environment 3" == target(fleet).label
    present = fleet.store.environments.get(APP, "beta")
    assert present is not None
    assert {"LOG": "debug", "COLOUR": "blue"} == present.variables


def test_what_says_the_same_makes_no_release(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    before = target(fleet)

    assert 1 == set_variables(fleet, LOG="debug")
    assert before == target(fleet)


def test_a_restart_is_a_release_with_a_new_generation(fleet: Fleet, plain: ReleaseId) -> None:
    fleet.store.rollouts.restart(APP, "beta", by="ann", why="a new certificate")

    again = roll(fleet, plain)

    assert "2.0.0, generation 1" == again.label
    fleet.store.rollouts.restart(APP, "beta")
    assert "2.0.0, generation 2" == target(fleet).label
    fleet.store.rollouts.undo(APP, "beta")
    assert again.label == target(fleet).label
    set_variables(fleet, LOG="debug")
    assert FIRST == target(fleet).label, "another release was never restarted"


def test_a_blocked_release_is_not_restarted_under_another_name(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    block(fleet, target(fleet))

    with pytest.raises(Conflict, match=r"2\.0\.0 with environment 1 is blocked"):
        fleet.store.rollouts.restart(APP, "beta")


def test_only_so_many_environments_are_kept_and_those_that_are_needed(fleet: Fleet, plain: ReleaseId) -> None:
    """Environment 1 was served before the present one: `rollout undo` goes there, however many were made since."""
    set_variables(fleet, N="1")
    roll(fleet, plain)
    for number in range(2, KEPT + 10):
        set_variables(fleet, N=str(number))

    kept = [one.number for one in fleet.store.environments.history(APP, "beta")]

    assert {1, KEPT + 9} < set(kept)
    assert KEPT + 2 >= len(kept)
    fleet.store.rollouts.undo(APP, "beta")
    assert FIRST == target(fleet).label


def test_a_new_machine_gets_what_the_group_serves_while_its_target_is_blocked(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")
    roll(fleet, plain)
    set_variables(fleet, LOG="nonsense")
    block(fleet, target(fleet))

    assert FIRST == granted(fleet, "new", ReleaseId(version="0.0.0"))


def test_the_environments_of_a_group_go_with_it(fleet: Fleet, plain: ReleaseId) -> None:
    set_variables(fleet, LOG="debug")

    fleet.store.groups.delete(APP, "beta")

    context = fleet.store.context
    assert () == context.children(GroupEnvironment, context.keys.environments(APP, "beta"))


def test_the_same_number_with_another_content_is_another_release(fleet: Fleet, plain: ReleaseId) -> None:
    """A restored etcd gives a number once more: who runs the one from before isn't up to date."""
    set_variables(fleet, LOG="debug")
    before = replace(target(fleet), environment_digest="f" * 64)

    assert FIRST == granted(fleet, "web-1", before)
    assert "up to date" == checks(fleet, "web-2", target(fleet)).reason


def test_names_and_kinds_change_one_by_one(fleet: Fleet, plain: ReleaseId) -> None:
    change = fleet.store.environments.change
    change(APP, "beta", EnvironmentEdit(variables={"A": "1", "B": "2"}, arguments=("-v",)))
    change(APP, "beta", EnvironmentEdit(secrets={"A": "geheim"}, unset=("B",)))

    present = fleet.store.environments.get(APP, "beta")

    assert present is not None
    assert ({}, {"A": "geheim"}, ("-v",)) == (present.variables, present.secrets, present.arguments)
    with pytest.raises(NotFound, match="'B' is not in the environment"):
        change(APP, "beta", EnvironmentEdit(unset=("B",)))
