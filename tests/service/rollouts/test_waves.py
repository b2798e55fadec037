"""Waves: who goes first, and what must hold before the next ones follow. Over an etcd in memory."""

import pytest

from outrider.core.errors import Conflict
from outrider.core.omaha import FailureCode
from outrider.core.rollout.wave_settings import Wave
from outrider.etcd.seam import Delete
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.wakeups import look
from outrider.service.store.group_lock import GroupLock
from tests.support.service_examples import APP, be_alive
from tests.support.service_fleets import Fleet

CANARY = {"canary": "yes", "site": "a"}
SITES = {"web-1": CANARY, "web-2": {"site": "a"}, "web-3": {"site": "a"}, "web-4": {"site": "b"}}


@pytest.fixture
def sites(fleet: Fleet) -> Fleet:
    """Four instances with labels, which have checked in on 1.0.0; the target is 2.0.0."""
    fleet.set(enabled=False)
    for name, labels in SITES.items():
        be_alive(fleet.store, name, fleet.clock.time, labels=labels)
        fleet.checks(name, takes_turns=True)
    return fleet


def looks(fleet: Fleet) -> tuple[str, ...]:
    return look(fleet.store.context, GroupLock(), APP, "beta").called


def comes(fleet: Fleet, *instances: str) -> None:
    """These are granted 2.0.0 and come to it."""
    for name in instances:
        assert "2.0.0" == fleet.granted(name, takes_turns=True), name
        be_alive(fleet.store, name, fleet.clock.time, labels=SITES[name], version="2.0.0")
        fleet.succeeds(name)
        fleet.checks(name, "2.0.0", takes_turns=True)


def reasons(fleet: Fleet, *instances: str) -> set[str]:
    return {fleet.why_deferred(name, takes_turns=True) for name in instances}


def test_each_wave_waits_for_the_one_before_and_the_others_for_all_waves(sites: Fleet) -> None:
    """
    1. the canary goes first, whoever asks first
    2. then the rest of its site
    3. then everybody
    """
    sites.set(enabled=True, waves=(Wave(selector="canary"), Wave(selector="site=a")))

    assert {"wave 1 of 2 (canary) first: 0 of 1 succeeded"} == reasons(sites, "web-2", "web-3", "web-4")
    comes(sites, "web-1")
    assert {"wave 2 of 2 (site=a) first: 1 of 3 succeeded"} == reasons(sites, "web-4")
    comes(sites, "web-2")
    assert {"wave 2 of 2 (site=a) first: 2 of 3 succeeded"} == reasons(sites, "web-4")
    comes(sites, "web-3", "web-4")


def test_a_wave_with_a_count_never_has_more_grants(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="site=a", count=2),))

    assert [None, "2.0.0", "2.0.0", None] == [
        sites.granted(name, takes_turns=True) for name in ("web-4", "web-3", "web-1", "web-2")
    ]
    assert {"wave 1 of 1 (2 of site=a) first: 0 of 2 succeeded; in progress: web-3, web-1"} == reasons(sites, "web-2")


def test_a_share_is_of_those_that_it_selects_and_is_fixed_when_it_begins(sites: Fleet) -> None:
    """
    1. a third of three instances is one; it is granted
    2. three more instances of the site appear: still one
    """
    sites.set(enabled=True, waves=(Wave(selector="site=a", percent=33.0),))
    assert "2.0.0" == sites.granted("web-1", takes_turns=True)
    for number in (5, 6, 7):
        be_alive(sites.store, f"web-{number}", sites.clock.time, labels={"site": "a"})

    assert all(sites.granted(f"web-{number}", takes_turns=True) is None for number in (2, 5, 6, 7))


def test_the_soak_time_passes_and_then_the_next_ones_are_woken(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary", soak_s=600),))
    reasons(sites, "web-2", "web-3", "web-4")
    comes(sites, "web-1")
    (reason,) = reasons(sites, "web-2")
    early = looks(sites)

    sites.passes(601)

    assert "wave 1 of 1 (canary) succeeded; the others may begin at 2026-11-23 12:10:00 UTC" == reason
    assert () == early
    assert ("web-2", "web-3", "web-4") == looks(sites)
    comes(sites, "web-2")


def test_the_timer_of_the_controller_is_the_end_of_the_soak_time(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary", soak_s=600),))
    comes(sites, "web-1")

    again_at = look(sites.store.context, GroupLock(), APP, "beta").again_at

    assert again_at is not None
    assert 600 >= (again_at - sites.clock.time).total_seconds() > 0


def test_between_waves_a_person_approves_with_the_command_that_there_is(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary", approval=True), Wave(selector="site=a")))
    comes(sites, "web-1")
    waits = "wave 1 of 2 (canary) succeeded; wave 2 waits for an approval (`outrider rollout approve`)"
    assert {waits} == reasons(sites, "web-2", "web-4")
    now = sites.store.rollouts.get(APP, "beta")
    assert (True, waits, waits) == (now.waits_for_approval, now.why, now.wave_words)

    sites.store.rollouts.approve(APP, "beta", version="2.0.0", wave=1, why="graphs look fine", by="ann")

    assert ("web-2", "web-3") == looks(sites)
    comes(sites, "web-2")
    assert {"wave 2 of 2 (site=a) first: 2 of 3 succeeded"} == reasons(sites, "web-4")


def test_an_analysis_without_data_keeps_the_next_wave_away(sites: Fleet) -> None:
    """
    1. both of the first wave are granted; the analysis of one passes, that of the other stays undecided
    2. nobody of the next wave begins, however long it takes; undecided is no failure, so nothing halts
    3. an operator resumes it, and it passes: the next wave begins
    """
    sites.set(enabled=True, waves=(Wave(selector="site=a", count=2), Wave(selector="site=b")))
    comes(sites, "web-1")
    assert "2.0.0" == sites.granted("web-2", takes_turns=True)

    sites.fails("web-2", FailureCode.UNDECIDED)
    for _ in range(3):
        sites.passes(1200)
        assert {"wave 1 of 2 (2 of site=a) first: 1 of 2 succeeded"} == reasons(sites, "web-4")
    assert "running" == sites.store.rollouts.get(APP, "beta").state

    comes(sites, "web-2")
    assert "2.0.0" == sites.granted("web-4", takes_turns=True)


def test_of_two_approvals_of_a_wave_the_second_approves_nothing_more(sites: Fleet) -> None:
    """
    1. ann and bob see that wave 1 waits; ann approves it
    2. wave 2 is complete at once, and waits, too: bob's word is refused
    """
    sites.set(
        enabled=True, waves=(Wave(selector="canary", approval=True), Wave(selector="site=a,canary", approval=True))
    )
    comes(sites, "web-1")
    looks(sites)
    sites.store.rollouts.approve(APP, "beta", wave=1, by="ann")
    looks(sites)

    with pytest.raises(Conflict, match="wave 1 of group 'beta' waits for no approval any more"):
        sites.store.rollouts.approve(APP, "beta", wave=1, by="bob")

    assert sites.store.rollouts.get(APP, "beta").waits_for_approval
    assert sites.granted("web-2", takes_turns=True) is None


def test_what_was_rejected_between_waves_stands_until_it_is_approved(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary", approval=True),))
    comes(sites, "web-1")
    sites.store.rollouts.reject(APP, "beta", why="slower", by="ann")
    assert {"2.0.0 was rejected by ann: slower; `outrider rollout approve` lets it go on"} == reasons(sites, "web-2")

    sites.store.rollouts.approve(APP, "beta", by="bob")

    comes(sites, "web-2", "web-3", "web-4")


def test_silence_approves_a_wave_where_the_policy_says_so(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary", approval=True),), approve_after_s=60)
    comes(sites, "web-1")
    (reason,) = reasons(sites, "web-2")

    sites.passes(61)

    assert reason.endswith("by itself at 2026-11-23 12:01:00 UTC")
    comes(sites, "web-2")


def test_a_failure_halts_the_rollout_when_the_wave_cannot_succeed_any_more(sites: Fleet) -> None:
    """
    1. of three instances 60 % must succeed: one may fail
    2. the second failure halts
    """
    sites.set(enabled=True, waves=(Wave(selector="site=a", success_percent=60.0),))
    for name in ("web-1", "web-2"):
        sites.granted(name, takes_turns=True)
    sites.fails("web-1")
    before = sites.store.rollouts.get(APP, "beta").state
    sites.fails("web-2")

    now = sites.store.rollouts.get(APP, "beta")
    assert ("running", "halted") == (before, now.state)
    assert now.why.startswith("wave 1 of 1 (site=a): 2 of 3 failed, and 60 % must succeed: web-1: ")


def test_a_share_of_failures_that_is_allowed_lets_the_next_wave_begin(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="site=a", success_percent=60.0),))
    comes(sites, "web-1")
    for name in ("web-2", "web-3"):
        sites.granted(name, takes_turns=True)
    sites.fails("web-2")
    assert sites.granted("web-4", takes_turns=True) is None, "web-3 is still under way"

    sites.succeeds("web-3")
    be_alive(sites.store, "web-3", sites.clock.time, labels=SITES["web-3"], version="2.0.0")
    looks(sites)

    assert "2.0.0" == sites.granted("web-4", takes_turns=True)


def test_nothing_is_skipped_where_nobody_has_the_labels(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="site=c", count=1),))

    assert {"wave 1 of 1 (1 of site=c) first: no known instance has these labels"} == reasons(sites, *SITES)


def test_who_runs_it_already_counts(sites: Fleet) -> None:
    be_alive(sites.store, "web-1", sites.clock.time, labels=CANARY, version="2.0.0")
    sites.checks("web-1", "2.0.0", takes_turns=True)

    sites.set(enabled=True, waves=(Wave(selector="canary", count=1),))

    assert "2.0.0" == sites.granted("web-4", takes_turns=True)


def test_a_presence_that_is_gone_for_a_moment_makes_no_wave_complete(sites: Fleet) -> None:
    """
    1. one of three instances of a site has come to the release; the presences of the others are gone
    2. they still count, by what they said at their last check-in
    """
    sites.set(enabled=True, waves=(Wave(selector="site=a"),))
    comes(sites, "web-1")
    keys, cluster = sites.store.context.keys, sites.store.context.cluster
    for name in ("web-2", "web-3"):
        cluster.txn((), (Delete(key=keys.presence(APP, "beta", name)),))

    assert {"wave 1 of 1 (site=a) first: 1 of 3 succeeded"} == reasons(sites, "web-4")


def test_a_sidekick_that_was_never_seen_in_etcd_waits_until_its_labels_are_known(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="!canary", count=1),))

    assert "labels aren't known" in sites.why_deferred("web-9", takes_turns=True)
    be_alive(sites.store, "web-9", sites.clock.time, labels={"site": "b"})
    assert "2.0.0" == sites.granted("web-9", takes_turns=True)


def test_the_way_back_takes_no_waves(sites: Fleet) -> None:
    sites.set(enabled=True)
    comes(sites, *SITES)
    sites.set(waves=(Wave(selector="canary", approval=True),))
    sites.store.rollouts.undo(APP, "beta", to="1.0.0")

    assert ["1.0.0"] * 4 == [sites.granted(name, "2.0.0", takes_turns=True) for name in SITES]


def test_canaries_are_chosen_by_their_labels(sites: Fleet) -> None:
    sites.set(enabled=True, canary=1, canary_selector="canary=yes")

    assert {"canary first: 0 of 1 succeeded; canaries are canary=yes, which this instance isn't"} == reasons(
        sites, "web-4", "web-2"
    )
    comes(sites, "web-1", "web-4")


def test_why_says_which_wave_it_is_and_what_it_waits_for(sites: Fleet) -> None:
    sites.set(enabled=True, waves=(Wave(selector="canary"),))
    sites.checks("web-4", takes_turns=True)
    sites.granted("web-1", takes_turns=True)

    told = explain(sites.store.context, APP, "web-4")

    assert "wave 1 of 1 (canary) first: 0 of 1 succeeded; in progress: web-1; 2 ahead of it" in told[1]
    assert any("wave 1 of 1 (canary): 0 of 1 succeeded; in progress: web-1" in line for line in told)


def test_a_wave_that_can_never_complete_is_warned_of(sites: Fleet) -> None:
    sites.set(waves=(Wave(selector="site=c"), Wave(selector="site=a", count=9), Wave()))

    assert [
        "waves: wave 1 (site=c): no known instance has these labels, so it never completes and nothing follows",
        "waves: wave 2 (9 of site=a): only 3 instances have these labels; it completes when all of them have it",
    ] == list(sites.store.rollouts.warnings(APP, "beta"))
