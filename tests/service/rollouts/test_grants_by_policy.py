"""What each setting of a policy, and a halt, does to the clients of a group. Over an etcd in memory."""

import pytest

from outrider.core.rollout.policy_settings import Rate
from outrider.core.rollout.windows import Window
from outrider.service.store.store import Store
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, block, payload_of
from tests.support.service_fleets import Fleet


def test_the_canary_goes_first_then_the_rest(fleet: Fleet) -> None:
    fleet.set(canary=1)
    first, second = fleet.granted("web-1"), fleet.why_deferred("web-2")
    fleet.succeeds("web-1")
    rest = [fleet.granted(f"web-{number}") for number in range(2, 6)]

    assert ("2.0.0", "canary first: 0 of 1 succeeded; in progress: web-1") == (first, second)
    assert ["2.0.0"] * 4 == rest


def test_a_canary_that_fails_halts_the_roll_out_until_a_person_resumes_it(fleet: Fleet, store: Store) -> None:
    fleet.set(canary=1)
    fleet.granted("web-1")
    fleet.fails("web-1")
    deferred = [fleet.why_deferred("web-1"), fleet.why_deferred("web-2")]
    fleet.passes(86_400)
    still_deferred = fleet.why_deferred("web-2")
    store.rollouts.resume(APP, "beta", by="kim")

    assert {"rollout of 2.0.0 is halted: a canary failed: web-1: rolled back (error code 44)"} == {
        *deferred,
        still_deferred,
    }
    assert "2.0.0" == fleet.granted("web-2")


def test_a_canary_that_vanishes_halts_the_roll_out_too(fleet: Fleet) -> None:
    fleet.set(canary=1, update_timeout_s=600)
    fleet.granted("web-1")
    fleet.passes(601)

    assert "rollout of 2.0.0 is halted: a canary failed: web-1: no result in time" == fleet.why_deferred("web-2")


def test_the_failure_threshold_is_a_brake_that_holds(fleet: Fleet) -> None:
    fleet.set(max_failures=2)
    for number in range(3):
        fleet.granted(f"web-{number}")
    fleet.fails("web-0", 44)
    after_one = fleet.granted("web-9")
    fleet.fails("web-1", 10)
    fleet.succeeds("web-2")

    assert "2.0.0" == after_one
    named = "web-0: rolled back (error code 44); web-1: wrong digest (error code 10)"
    assert f"is halted: 2 failed (max_failures 2): {named}" in fleet.why_deferred("web-3")


@pytest.mark.parametrize("policy", [{"max_failures": 1}, {"canary": 1, "max_failures": 1}])
def test_what_a_machine_refuses_untried_halts_nothing_and_frees_its_place(fleet: Fleet, policy: dict[str, int]) -> None:
    fleet.set(max_in_progress=1, max_per_interval=Rate(count=1, interval_s=3600), **policy)
    for number in range(3):
        assert "2.0.0" == fleet.granted(f"web-{number}"), number
        fleet.fails(f"web-{number}", 35)
    row = fleet.row("web-2")

    assert ("running", (), []) == (fleet.progress.state, fleet.progress.failures, fleet.under_way)
    assert ("error", 35, None) == (row.status, row.error_code, row.granted_version)
    assert row.why.startswith("its machine cannot take 2.0.0: this machine can't run the release (error code 35)")
    assert "2.0.0" == fleet.granted("web-9"), "the place is free for one that can"


def test_an_analysis_that_stays_undecided_counts_as_neither_a_failure_nor_a_success(fleet: Fleet) -> None:
    fleet.set(canary=1, max_failures=1)
    fleet.granted("web-1")
    fleet.fails("web-1", 36)

    assert ("running", (), []) == (fleet.progress.state, fleet.progress.failures, fleet.under_way)
    assert "2.0.0" == fleet.granted("web-2"), "the canary's place is free, for nobody has succeeded"
    assert "canary first: 0 of 1 succeeded; in progress: web-2" == fleet.why_deferred("web-3")


def test_the_same_with_another_code_halts_at_the_first(fleet: Fleet) -> None:
    fleet.set(max_failures=1)
    fleet.granted("web-0")
    fleet.fails("web-0", 12)

    assert "halted" == fleet.progress.state


def test_a_repeated_failure_report_counts_once(fleet: Fleet) -> None:
    fleet.set(max_failures=2)
    fleet.granted("web-0")
    for _ in range(3):
        fleet.fails("web-0")

    assert 1 == len(fleet.progress.failures)


def test_an_operators_pause_costs_nobody_a_failure(fleet: Fleet, store: Store) -> None:
    fleet.set(max_failures=1, update_timeout_s=600)
    fleet.granted("web-1")
    store.groups.update(APP, "beta", paused=True)
    fleet.passes(601)
    deferred = fleet.why_deferred("web-2")
    store.groups.update(APP, "beta", paused=False)

    assert "group is paused" == deferred
    assert "2.0.0" == fleet.granted("web-2")
    assert () == fleet.progress.failures


def test_who_asks_during_a_pause_gives_its_place_back(fleet: Fleet, store: Store) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1")
    store.groups.update(APP, "beta", paused=True)
    fleet.why_deferred("web-1")
    store.groups.update(APP, "beta", paused=False)

    assert "2.0.0" == fleet.granted("web-2")


@pytest.mark.parametrize("state", ["pause", "halt"])
def test_a_person_stops_a_roll_out_and_starts_it_again(fleet: Fleet, store: Store, state: str) -> None:
    getattr(store.rollouts, state)(APP, "beta", why="customers complain", by="kim")
    deferred = fleet.why_deferred("web-1")
    store.rollouts.resume(APP, "beta", by="kim")

    done = {"pause": "paused", "halt": "halted"}[state]
    assert f"rollout of 2.0.0 is {done} by kim: customers complain" == deferred
    assert "2.0.0" == fleet.granted("web-1")


def test_a_new_release_is_not_stopped_by_the_halt_of_the_last_one(fleet: Fleet, store: Store) -> None:
    store.rollouts.halt(APP, "beta")
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"))
    store.channels.save(APP, "beta", version="2.1.0")

    assert "2.1.0" == fleet.granted("web-1")


def test_a_mark_on_the_target_halts_the_roll_out_as_long_as_it_stands(fleet: Fleet, store: Store) -> None:
    fleet.granted("web-1")
    block(store, "2.0.0", "it crashes", NOON)
    marked = store.rollouts.get(APP, "beta")
    deferred = [fleet.why_deferred("web-1"), fleet.why_deferred("web-2")]
    store.fleet.unblock(APP, "2.0.0")

    assert ("halted", "2.0.0 is blocked: it crashes") == (marked.state, marked.why)
    assert ["2.0.0 is blocked: it crashes"] * 2 == deferred
    assert "2.0.0" == fleet.granted("web-2")


def test_updates_start_only_inside_a_window(fleet: Fleet) -> None:
    fleet.set(windows=(Window(days=("mon",), opens="13:00", closes="14:00"),))
    deferred = fleet.why_deferred("web-1")
    fleet.passes(3600)

    assert "outside the update windows (mon 13:00-14:00); next opens 13:00:00 UTC" == deferred
    assert "2.0.0" == fleet.granted("web-1")


def test_who_was_granted_in_the_window_finishes_after_it(fleet: Fleet) -> None:
    fleet.set(windows=(Window(opens="11:00", closes="12:30"),))
    fleet.granted("web-1")
    fleet.passes(1900)

    assert "2.0.0" == fleet.granted("web-1")
    assert fleet.why_deferred("web-2").startswith("outside the update windows")


def test_the_percentage_lets_the_same_instances_through_on_every_process(fleet: Fleet) -> None:
    fleet.set(percent=30)
    through = {name for name in (f"web-{number}" for number in range(40)) if fleet.granted(name)}

    assert 5 < len(through) < 20
    assert all(
        "goes to 30 % of the instances" in fleet.why_deferred(f"web-{n}")
        for n in range(40)
        if f"web-{n}" not in through
    )


def test_a_pinned_group_and_a_request_of_its_own(fleet: Fleet) -> None:
    own = fleet.why_deferred("web-1", target_version_prefix="1")
    fleet.set(pin="1.5")

    assert "this instance accepts only versions '1'; 2.0.0 does not match" == own
    assert "group is pinned to 1.5; 2.0.0 does not match" == fleet.why_deferred("web-1")
    assert "on-hold" == fleet.row("web-1").status


@pytest.mark.parametrize(
    ("policy", "asked", "answer"),
    [("never", True, None), ("asked", False, None), ("asked", True, "2.0.0"), ("always", False, "2.0.0")],
)
def test_a_downgrade_only_when_it_is_allowed(fleet: Fleet, policy: str, asked: bool, answer: str | None) -> None:
    fleet.set(downgrade=policy)

    assert answer == fleet.granted("web-1", "3.0.0", rollback_allowed=asked)


def test_floors_are_passed_one_after_the_other(fleet: Fleet, store: Store) -> None:
    fleet.set(max_in_progress=1)
    store.floors.set(APP, "beta", "1.5.0", reason="migrates the schema")
    way = [fleet.granted("web-1", "1.0.0")]
    fleet.succeeds("web-1", "1.5.0")
    between = fleet.progress.succeeded
    way.append(fleet.granted("web-1", "1.5.0"))
    fleet.succeeds("web-1", "2.0.0")

    assert ["1.5.0", "2.0.0"] == way
    assert (0, 1) == (between, fleet.progress.succeeded)


def test_a_floor_that_is_blocked_defers_only_who_must_pass_it(fleet: Fleet, store: Store) -> None:
    store.floors.set(APP, "beta", "1.5.0")
    block(store, "1.5.0", "loses data", NOON)

    assert "1.5.0 is blocked: loses data" == fleet.why_deferred("web-1", "1.0.0")
    assert "2.0.0" == fleet.granted("web-2", "1.6.0")


def test_a_package_of_another_architecture_is_no_package(fleet: Fleet, store: Store) -> None:
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"), arch="arm64")
    store.channels.save(APP, "beta", version="2.1.0")

    assert "2.1.0" == fleet.granted("web-1", board="arm64-usr")
    assert "2.1.0" == fleet.granted("web-2", arch="arm64")
    assert "no package for your architecture: 2.1.0 is for aarch64; this instance is amd64" == (
        fleet.why_deferred("web-3", arch="x64")
    )
    assert "aarch64" == fleet.row("web-1").arch
    held = fleet.row("web-3")
    assert "on-hold" == held.status
    assert "this instance is amd64" in held.why


def test_a_new_instance_takes_no_place_in_the_interval_but_one_in_progress(fleet: Fleet) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300), max_in_progress=2)

    new = [fleet.granted(name, "0.0.0") for name in ("new-1", "new-2")]
    busy = fleet.why_deferred("new-3", "0.0.0")
    fleet.succeeds("new-1")
    again = fleet.granted("new-3", "0.0.0")
    fleet.succeeds("new-2")
    old, next_old = fleet.granted("old-1", "1.0.0"), fleet.why_deferred("old-2", "1.0.0")

    assert ["2.0.0", "2.0.0"] == new
    assert "2 of 2 in progress: new-1, new-2" == busy
    assert ("2.0.0", "2.0.0") == (again, old)
    assert "2 of 2 in progress" in next_old
    fleet.succeeds("new-3")
    assert "1 per 5 min" in fleet.why_deferred("old-2", "1.0.0")


def test_a_policy_can_count_new_instances(fleet: Fleet) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300), count_new=True)
    fleet.granted("new-1", "0.0.0")

    assert "1 per 5 min" in fleet.why_deferred("new-2", "0.0.0")


def test_an_instance_that_has_run_something_is_not_new_again(fleet: Fleet) -> None:
    """A watcher begins with 0.0.0 after each start; its history tells better."""
    fleet.granted("web-1", "0.0.0")
    fleet.succeeds("web-1")
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    fleet.granted("web-2", "1.0.0")

    assert "1 per 5 min" in fleet.why_deferred("web-1", "0.0.0")


def test_an_instance_without_an_architecture_is_granted_and_its_row_says_so(fleet: Fleet, store: Store) -> None:
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"), arch="amd64")
    store.channels.save(APP, "beta", version="2.1.0")

    granted = fleet.granted("web-1")

    row = fleet.row("web-1")
    assert ("2.1.0", "update-granted", "") == (granted, row.status, row.arch)
    assert "this instance reports no architecture; 2.1.0 is for amd64" == row.why
    assert "this instance is mips64" in fleet.why_deferred("web-2", board="mips64")


def test_enough_others_must_serve(fleet: Fleet, store: Store) -> None:
    fleet.set(min_healthy=2)
    for name in ("web-1", "web-2", "web-3"):
        be_alive(store, name, NOON)
    first, second = fleet.granted("web-1"), fleet.why_deferred("web-2")
    fleet.succeeds("web-1")

    assert ("2.0.0", "other instances that serve: 1; min_healthy is 2") == (first, second)
    assert "2.0.0" == fleet.granted("web-2")


def test_a_sidekick_that_does_not_serve_is_not_counted(fleet: Fleet, store: Store) -> None:
    fleet.set(min_healthy=2)
    for name, serving in (("web-1", True), ("web-2", True), ("web-3", False)):
        be_alive(store, name, NOON, serving=serving)

    assert "other instances that serve: 1; min_healthy is 2" == fleet.why_deferred("web-1")


def test_clients_without_a_sidekick_count_when_they_were_seen_lately_and_did_not_fail(fleet: Fleet) -> None:
    fleet.set(min_healthy=2)
    for name in ("web-2", "web-3", "web-4"):
        fleet.sends(name, "1.0.0", ping=True)
    fleet.sends("web-4", "1.0.0", "3:0:9")
    now = fleet.granted("web-1")
    fleet.succeeds("web-1")
    fleet.passes(86_401)

    assert "2.0.0" == now
    assert "other instances that serve: 0; min_healthy is 2" == fleet.why_deferred("web-5")
