"""Why a group is where it is, with the numbers of each wait, over an etcd in memory."""

from datetime import timedelta

import pytest

from outrider.core.errors import NotFound
from outrider.core.rollout.policy_settings import Rate
from outrider.core.rollout.windows import Window
from outrider.model.documents import Presence, decode, encode
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.explain_groups import explain_groups
from outrider.service.store.store import Store
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, be_alive, block, hold_turn, make_app, put, stand_in_line
from tests.support.service_fleets import Fleet


def why(store: Store, group: str | None = "beta") -> str:
    (found,) = explain_groups(store.context, APP, group)
    return "\n".join(found.reasons)


def in_state(store: Store, instance: str, state: str, within_s: float, why: str = "") -> None:
    """A living instance whose state has a deadline."""
    be_alive(store, instance, NOON, state=state, wanted="2.0.0", why=why)
    context = store.context
    key = context.keys.presence(APP, "beta", instance)
    entry = context.cluster.get(key)
    assert entry is not None
    before = decode(Presence, key, entry.value)
    fields = {name: getattr(before, name) for name in before.__struct_fields__}
    put(context.cluster, key, encode(Presence(**fields | {"until": NOON + timedelta(seconds=within_s)})))


def test_a_turn_says_what_its_holder_does_and_for_how_long_at_most(store: Store, clock: WallClock) -> None:
    make_app(store, version="2.0.0")
    in_state(store, "web-b", "swapping.draining", 30.0)
    hold_turn(store, "web-b", NOON)
    for instance in ("web-b", "web-c", "web-a"):
        stand_in_line(store, instance, NOON)
    be_alive(store, "web-a", NOON, state="swapping.queueing", wanted="2.0.0", why="waits for a turn")
    be_alive(store, "web-c", NOON, state="swapping.queueing", wanted="2.0.0", why="waits for a turn")
    clock.advance(12)

    of_one = explain(store.context, APP, "web-a")
    of_all = why(store)

    assert "turn 1 of 1: held by web-b (draining, 12s of at most 30s)" in of_one
    assert any(line.startswith("ends: the ones before it give their turns back") for line in of_one)
    assert "turn 1 of 1: held by web-b (draining, 12s of at most 30s)" in of_all
    assert "2 instances in the queue, 0 free: web-c, web-a\nends: its holder serves again and gives it back" in of_all
    assert "2 instances (web-a, web-c): queueing: waits for a turn" in of_all
    clock.advance(60)
    assert "(draining, 72s of at most 30s, overdue)" in why(store)


def test_instances_that_wait_for_the_same_are_told_together_with_what_ends_it(fleet: Fleet, clock: WallClock) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    fleet.granted("web-0")
    for instance in ("web-3", "web-2", "web-1"):
        be_alive(fleet.store, instance, NOON)
        fleet.why_deferred(instance)

    told = why(fleet.store)
    third = explain(fleet.store.context, APP, "web-1")

    assert "3 instances (web-1, web-2, web-3): 1 per 5 min; next at 12:05:00 UTC\nends: that time comes" in told
    assert "for all of them about 15m by that limit" in told
    assert "about 15m by that limit" in third
    assert any(line.startswith("ends: that time comes") for line in third)


def test_a_queue_has_an_estimate_once_an_instance_is_done(fleet: Fleet, clock: WallClock) -> None:
    fleet.granted("web-0")
    clock.advance(60)
    fleet.sends("web-0", "2.0.0", "3:2")
    fleet.checks("web-0", "2.0.0")
    for instance in ("web-1", "web-2"):
        be_alive(fleet.store, instance, NOON, state="swapping.queueing", wanted="2.0.0")
        stand_in_line(fleet.store, instance, NOON)

    assert "about 2m at the pace of this rollout (1 done in 60s)" in explain(fleet.store.context, APP, "web-2")


def test_an_open_window_says_when_it_closes(fleet: Fleet) -> None:
    fleet.set(windows=(Window(days=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), opens="11:00", closes="12:41"),))
    be_alive(fleet.store, "web-1", NOON, state="swapping.queueing", wanted="2.0.0")
    stand_in_line(fleet.store, "web-1", NOON)

    closes = "window closes in 41m: no update begins from then until it opens again"
    assert closes in explain(fleet.store.context, APP, "web-1")
    assert closes in why(fleet.store)


def test_a_release_that_is_blocked_for_its_task_names_the_tasks_command(store: Store) -> None:
    """To unblock it would help nothing: the next sidekick that sees the failed task blocks it again."""
    make_app(store, version="2.0.0")
    be_alive(store, "web-1", NOON)
    block(store, "2.0.0", "task migrate of 2.0.0 failed on web-1: exit 3", NOON, task="tasks/x")

    told = why(store)

    assert f"exit 3\nends: another version, or `outrider task retry {APP}/beta` once the cause is mended" in told
    assert "release unblock" not in told


def test_a_blocked_release_names_its_command(store: Store) -> None:
    make_app(store, version="2.0.0")
    be_alive(store, "web-1", NOON)
    block(store, "2.0.0", "health check failed", NOON)

    told = why(store)

    assert "health check failed\nends: another version, or `outrider release unblock" in told
    assert f"`outrider release unblock {APP} --version V`" in told


def test_an_app_has_all_its_groups_and_an_absent_group_is_said_to_be_so(store: Store) -> None:
    make_app(store, version="2.0.0")
    be_alive(store, "web-1", NOON, group="other")

    assert ["beta", "other"] == [one.group for one in explain_groups(store.context, APP)]
    assert "no instance has checked in" in why(store)
    with pytest.raises(NotFound, match="its groups: beta, other"):
        explain_groups(store.context, APP, "absent")
