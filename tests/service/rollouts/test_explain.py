"""Why an instance is where it is, over an etcd in memory."""

from dataclasses import dataclass

import pytest

from outrider.core.errors import NotFound
from outrider.core.omaha import AppRequest, FailureCode, OmahaEvent, OmahaRequest, failure_text
from outrider.core.rollout.policy_settings import Rate
from outrider.model.documents import Command, encode
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.explain import explain, read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import Store
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, be_alive, block, hold_turn, make_app, put, stand_in_line
from tests.support.service_fleets import Fleet


@dataclass
class GroupInMemory:
    """A group ``beta`` that shall run 2.0.0, one turn at a time."""

    store: Store

    def why(self, instance: str = "web-1") -> str:
        return "\n".join(explain(self.store.context, APP, instance))

    def checks_in(self, version: str, *events: OmahaEvent, machine: str = "web-1") -> None:
        app = AppRequest(app_id=APP, version=version, track="beta", machine_id=machine, ping=True, events=events)
        Checkins(context=self.store.context).answer(OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x"))


@pytest.fixture
def group(store: Store) -> GroupInMemory:
    make_app(store, version="2.0.0")
    return GroupInMemory(store)


def test_a_living_sidekick_is_quoted(group: GroupInMemory, clock: WallClock) -> None:
    be_alive(group.store, "web-1", NOON, state="swapping.draining", wanted="2.0.0", why="3 requests are under way")
    clock.advance(12)

    head, said, *_ = group.why().splitlines()

    assert f"web-1 of {APP}, group beta: swapping.draining for 12s, running 1.0.0, target 2.0.0" == head
    assert "reason: 3 requests are under way" == said


def test_a_waiting_instance_learns_who_is_ahead_and_who_holds_the_turn(group: GroupInMemory) -> None:
    for instance in ("web-0", "web-2", "web-1"):
        be_alive(group.store, instance, NOON, state="swapping.queueing", wanted="2.0.0")
        stand_in_line(group.store, instance, NOON)
    hold_turn(group.store, "web-0", NOON)

    assert "waiting for the turn; 1 ahead of it: web-2\nturn 1 of 1: held by web-0" in group.why("web-1")
    assert "first in the queue" in group.why("web-2")
    assert "turn 1 of 1: held by web-0" in group.why("web-0")


def test_a_turn_whose_owner_died_is_called_dirty_with_what_to_do(group: GroupInMemory) -> None:
    be_alive(group.store, "web-1", NOON, state="swapping.queueing")
    stand_in_line(group.store, "web-1", NOON)
    hold_turn(group.store, "web-0", NOON)
    group.checks_in("1.0.0", machine="web-0")

    assert "turn 1 of 1: left behind by a crashed sidekick (web-0); it stays taken" in group.why("web-1")
    assert "outrider lock release" in group.why("web-1")
    assert "turn 1 of 1: left behind by a crashed sidekick (web-0); it stays taken" in group.why("web-0")


@pytest.mark.parametrize("cause", ["no free port: port 8085 is in use by pid 4711 (nginx)", "out of memory", "500"])
def test_a_dirty_turn_of_a_living_sidekick_names_the_cause_and_what_ends_it(group: GroupInMemory, cause: str) -> None:
    stuck = f"1.0.0 is being started again: {cause}"
    be_alive(group.store, "web-0", NOON, state="rollback.reverting", why=stuck)
    be_alive(group.store, "web-1", NOON, state="swapping.queueing")
    stand_in_line(group.store, "web-1", NOON)
    hold_turn(group.store, "web-0", NOON)

    for instance in ("web-0", "web-1"):
        why = group.why(instance)
        assert f"turn 1 of 1: dirty, kept by web-0: {stuck}; `outrider instance retry` tries again" in why
        assert "`outrider instance rollback --to` takes an older version" in why
        assert "outrider lock release" in why


def test_a_turn_of_a_shared_scope_is_found_and_named(group: GroupInMemory) -> None:
    """
    1. the group's instances stand in a scope that another app's group stands in as well
    2. web-1 holds one of its turns, web-2 waits, and so does an instance of the other app with web-1's name
    """
    for instance in ("web-1", "web-2"):
        be_alive(group.store, instance, NOON, state="swapping.queueing", shared_scope="eu")
        stand_in_line(group.store, instance, NOON, scope="eu")
    hold_turn(group.store, "web-1", NOON, scope="eu")
    stand_in_line(group.store, "web-1", NOON, app="mail", group="mx", scope="eu")

    (overview,) = read_overviews(group.store.context, APP)

    assert "turn 1 of 1 of scope eu: held by web-1" in group.why("web-1")
    assert "waiting for the turn of scope eu; first in the queue\nturn 1 of 1 of scope eu: held by web-1" in group.why(
        "web-2"
    )
    assert ["eu"] == [one.shared for one in overview.scopes]
    assert ("web-2", "mail/web-1") == overview.scopes[0].queue
    assert {"web-1", "web-2"} == overview.scopes[0].members


def test_a_turn_of_a_shared_scope_counts_for_the_group_whose_instance_holds_it(group: GroupInMemory) -> None:
    be_alive(group.store, "web-1", NOON, shared_scope="eu")
    hold_turn(group.store, "web-1", NOON, scope="eu")
    hold_turn(group.store, "web-1", NOON, number=1, app="mail", group="mx", scope="eu")

    (overview,) = read_overviews(group.store.context, APP)

    assert ["web-1", "mail/web-1"] == [turn.instance for turn in overview.scopes[0].turns]
    assert ["web-1"] == [turn.instance for turn in overview.scopes[0].of_the_group]


def test_a_dirty_turn_of_a_shared_scope_is_found_although_its_sidekick_is_gone(group: GroupInMemory) -> None:
    group.checks_in("1.0.0", machine="web-0")
    hold_turn(group.store, "web-0", NOON, scope="eu")
    hold_turn(group.store, "mx-1", NOON, app="mail", group="mx", scope="us")

    (overview,) = read_overviews(group.store.context, APP)

    assert "turn 1 of 1 of scope eu: left behind by a crashed sidekick (web-0)" in group.why("web-0")
    assert "`outrider lock release --scope eu --slot 0` frees it" in group.why("web-0")
    assert ["eu"] == [one.shared for one in overview.scopes]


def test_the_groups_own_turns_are_told_besides_those_of_a_shared_scope(group: GroupInMemory) -> None:
    """Some sidekicks have been moved to the scope, one hasn't."""
    be_alive(group.store, "web-1", NOON, shared_scope="eu")
    be_alive(group.store, "web-2", NOON)
    hold_turn(group.store, "web-2", NOON)

    (overview,) = read_overviews(group.store.context, APP)

    assert ["", "eu"] == [one.shared for one in overview.scopes]
    assert [(1,), ()] == [tuple(1 for turn in one.of_the_group if turn.state != "free") for one in overview.scopes]
    assert f"`outrider lock release {APP} beta --slot 0` frees it" in group.why("web-2")


def test_a_pause_and_a_mark_are_named(group: GroupInMemory) -> None:
    be_alive(group.store, "web-1", NOON)
    block(group.store, "2.0.0", "health check failed", NOON)
    marked = group.why()
    group.store.groups.update(APP, "beta", paused=True)

    assert "\n2.0.0 is blocked: health check failed" in marked
    assert "\ngroup is paused" in group.why()


def test_an_instance_without_a_sidekick_is_said_to_be_away_and_since_when(
    group: GroupInMemory, clock: WallClock
) -> None:
    group.checks_in("1.0.0")
    clock.advance(7 * 60)

    assert "sidekick offline; last check-in 7m ago: running 1.0.0" in group.why()


def test_an_up_to_date_instance_says_so(group: GroupInMemory) -> None:
    be_alive(group.store, "web-1", NOON, version="2.0.0")

    assert "\nup to date" in group.why()


def test_a_failure_and_a_command_that_waits_are_named(group: GroupInMemory, clock: WallClock) -> None:
    group.checks_in("1.0.0", OmahaEvent(type=3, result=0, error_code=44))
    command = Command(verb="retry", by="kim", at=NOON)
    put(group.store.context.cluster, group.store.context.keys.command(APP, "web-1"), encode(command))
    clock.advance(5)

    assert "last update failed: rolled back (error code 44)" in group.why()
    assert "retry requested by kim 5s ago; it takes effect when the sidekick connects" in group.why()


def test_an_instance_that_nobody_knows_is_not_found(group: GroupInMemory) -> None:
    with pytest.raises(NotFound, match="no instance 'web-9'"):
        group.why("web-9")
    with pytest.raises(NotFound, match="no app 'absent'"):
        read_overviews(group.store.context, "absent")
    with pytest.raises(NotFound, match="its groups: beta"):
        read_overviews(group.store.context, APP, "absent")


def test_sidekicks_that_use_a_foreign_update_service_are_seen_as_well(store: Store) -> None:
    be_alive(store, "web-1", NOON)

    (overview,) = read_overviews(store.context, APP)

    assert (None, ("web-1",)) == (overview.group, overview.instances)
    assert 1 == len(explain(store.context, APP, "web-1"))


def test_a_held_instance_learns_the_reason_and_how_many_are_ahead(fleet: Fleet, clock: WallClock) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    fleet.granted("web-0")
    for instance in ("web-3", "web-2", "web-1"):
        be_alive(fleet.store, instance, NOON)
        fleet.why_deferred(instance)
    clock.advance(5)
    group = GroupInMemory(fleet.store)

    assert "deferred for 5s: 1 per 5 min; next at 12:05:00 UTC; 2 ahead of it" in group.why("web-1")
    assert "deferred for 5s: 1 per 5 min; next at 12:05:00 UTC; first in line" in group.why("web-3")
    assert "rollout of 2.0.0: running; 0 done, 1 under way, 3 deferred" in group.why("web-1")
    assert "update to 2.0.0 granted 5s ago" in group.why("web-0")


def test_a_roll_out_that_stands_still_is_told_with_its_reason(fleet: Fleet) -> None:
    fleet.set(max_failures=1)
    fleet.granted("web-0")
    fleet.fails("web-0")
    be_alive(fleet.store, "web-1", NOON)

    (overview,) = read_overviews(fleet.store.context, APP)

    halt = "1 failed (max_failures 1): web-0: rolled back (error code 44)"
    assert f"rollout of 2.0.0: halted: {halt}; 0 done, 1 failed" == overview.rollout
    assert f"\nrollout of 2.0.0 is halted: {halt}" in GroupInMemory(fleet.store).why("web-1")


def test_a_woken_instance_is_said_to_be_so(fleet: Fleet, clock: WallClock) -> None:
    fleet.set(enabled=False)
    be_alive(fleet.store, "web-1", NOON)
    fleet.why_deferred("web-1")
    fleet.set(enabled=True)
    look(fleet.store.context, GroupLock(), APP, "beta")
    clock.advance(3)

    assert "woken 3s ago; no check-in since then" in GroupInMemory(fleet.store).why("web-1")


def test_a_release_that_an_instance_blocked_is_told_with_the_reason_that_it_gave(group: GroupInMemory) -> None:
    group.checks_in("1.0.0", OmahaEvent(type=3, result=0, error_code=44))
    block(group.store, "2.0.0", "health check: /health: 503", NOON)

    assert "last update failed: health check: /health: 503 (error code 44)" in group.why()


@pytest.mark.parametrize(
    ("code", "text"),
    [(44, "rolled back (error code 44)"), (9, "download failed (error code 9)"), (37, "error code 37")],
)
def test_a_failure_is_told_in_words_with_its_number(code: int, text: str) -> None:
    assert text == failure_text(code)


def test_every_failure_code_has_words() -> None:
    assert [code for code in FailureCode if failure_text(code) == f"error code {code}"] == []
