"""Releases that wait for a person, and emergencies that don't wait for the calendar. Over an etcd in memory."""

import threading

import pytest

from outrider.core.errors import ConfigError, Conflict
from outrider.core.rollout.calendar import Freeze
from outrider.core.rollout.windows import Window
from outrider.model.documents import OpenGrant, decode
from outrider.service.rollouts.explain import explain, read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store.effects import effects
from outrider.service.store.group_lock import GroupLock
from tests.support.service_examples import APP, be_alive, payload_of
from tests.support.service_fleets import Fleet

FROZEN = (Freeze(begins="2026-01-01", ends="2027-12-31", why="audit"),)


def looks(fleet: Fleet) -> tuple[str, ...]:
    return look(fleet.store.context, GroupLock(), APP, "beta").called


def promote(fleet: Fleet, version: str) -> None:
    fleet.store.packages.create(APP, version, payload=payload_of(version))
    fleet.store.channels.save(APP, "beta", version=version)


def test_nobody_updates_before_the_approval_and_who_waits_is_woken_by_it(fleet: Fleet) -> None:
    fleet.set(approval=True)
    be_alive(fleet.store, "web-1", fleet.clock.time)
    reason = fleet.why_deferred("web-1", takes_turns=True)
    before = looks(fleet)

    fleet.store.rollouts.approve(APP, "beta", version="2.0.0", why="seen on staging", by="ann")

    assert "2.0.0 waits for an approval (`outrider rollout approve`)" == reason
    assert ((), ("web-1",)) == (before, looks(fleet))
    assert "2.0.0" == fleet.granted("web-1", takes_turns=True)
    now = fleet.store.rollouts.get(APP, "beta")
    assert now.approval is not None
    assert ("approved", "ann", "seen on staging") == (now.approval.verdict, now.approval.by, now.approval.why)
    assert not now.waits_for_approval


def test_the_next_release_needs_an_approval_of_its_own(fleet: Fleet) -> None:
    fleet.set(approval=True)
    fleet.store.rollouts.approve(APP, "beta", by="ann")
    promote(fleet, "3.0.0")

    assert fleet.why_deferred("web-1").startswith("3.0.0 waits for an approval")


def test_what_was_rejected_is_shown_as_halted_and_an_approval_lets_it_go_on(fleet: Fleet) -> None:
    fleet.set(approval=True)
    fleet.store.rollouts.reject(APP, "beta", why="not before the audit", by="ann")

    halted = fleet.store.rollouts.get(APP, "beta")
    reason = fleet.why_deferred("web-1")
    fleet.store.rollouts.approve(APP, "beta", by="kim")

    assert ("halted", "rejected: not before the audit", "ann") == (halted.state, halted.why, halted.by)
    assert reason.startswith("2.0.0 was rejected by ann: not before the audit")
    assert "2.0.0" == fleet.granted("web-1")


def test_a_rejection_in_mid_roll_ends_the_grants_of_who_has_not_begun(fleet: Fleet) -> None:
    assert "2.0.0" == fleet.granted("web-1", takes_turns=True)

    fleet.store.rollouts.reject(APP, "beta", by="ann")

    assert [] == fleet.under_way
    assert () == fleet.progress.failures


def test_a_policy_that_begins_to_ask_for_approvals_counts_for_granted_instances_too(fleet: Fleet) -> None:
    assert "2.0.0" == fleet.granted("web-1", takes_turns=True)

    fleet.set(approval=True)

    assert [] == fleet.under_way


def test_two_approvals_at_the_same_time_count_once(fleet: Fleet) -> None:
    fleet.set(approval=True)
    gate, done = threading.Barrier(8), []

    def approve(name: str) -> None:
        gate.wait(30)
        done.append(fleet.store.rollouts.approve(APP, "beta", by=name))

    threads = [threading.Thread(target=approve, args=(f"user-{number}",)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)

    said = fleet.progress.approval
    assert said is not None
    assert 8 == len(done)
    assert {said} == {one.approval for one in done}


def test_what_a_person_has_not_looked_at_is_not_approved(fleet: Fleet) -> None:
    fleet.set(approval=True)
    promote(fleet, "3.0.0")

    with pytest.raises(Conflict, match=r"the target of group .beta. is 3\.0\.0 by now, not 2\.0\.0"):
        fleet.store.rollouts.approve(APP, "beta", version="2.0.0", by="ann")

    assert fleet.progress.approval is None


def test_silence_is_an_approval_after_the_time_that_the_policy_names(fleet: Fleet) -> None:
    """Its time begins when the first instance waits, and who waited is woken."""
    fleet.set(approval=True, approve_after_s=600)
    be_alive(fleet.store, "web-1", fleet.clock.time)
    fleet.why_deferred("web-1", takes_turns=True)
    due = look(fleet.store.context, GroupLock(), APP, "beta").again_at

    fleet.passes(599)
    early = looks(fleet)
    fleet.passes(1)

    assert due == fleet.clock.time
    assert ((), ("web-1",)) == (early, looks(fleet))
    said = fleet.progress.approval
    assert said is not None
    assert ("approved", "") == (said.verdict, said.by)


def test_going_back_needs_no_approval(fleet: Fleet) -> None:
    fleet.granted("web-1")
    fleet.succeeds("web-1")
    looks(fleet)
    fleet.set(approval=True)
    promote(fleet, "3.0.0")
    fleet.store.rollouts.approve(APP, "beta", by="ann")
    fleet.granted("web-1", "2.0.0")
    fleet.succeeds("web-1", "3.0.0")

    fleet.store.rollouts.undo(APP, "beta", by="ann")

    assert "2.0.0" == fleet.granted("web-1", "3.0.0")


def test_an_emergency_goes_on_in_a_freeze_until_it_is_over(fleet: Fleet) -> None:
    fleet.set(freezes=FROZEN, windows=(Window(opens="01:00", closes="02:00"),), deny_windows=(Window(),))
    frozen = fleet.why_deferred("web-1", takes_turns=True)

    fleet.store.rollouts.override(APP, "beta", for_s=1800, why="CVE-2026-1234", by="ann")
    granted = fleet.granted("web-1", takes_turns=True)
    (begin_before,) = {grant.begin_before for grant in grants(fleet)}
    over = fleet.clock.time
    fleet.passes(1800)
    looks(fleet)

    assert frozen.startswith("frozen (2026-01-01 to 2027-12-31 (audit))")
    assert "2.0.0" == granted
    assert begin_before is not None
    assert 1800 == (begin_before - over).total_seconds()
    assert [] == fleet.under_way
    assert fleet.why_deferred("web-1").startswith("frozen")


def test_an_emergency_that_is_ended_early_ends_the_grants_that_it_made(fleet: Fleet) -> None:
    fleet.set(freezes=FROZEN)
    fleet.store.rollouts.override(APP, "beta", for_s=1800, why="CVE-2026-1234", by="ann")
    fleet.granted("web-1", takes_turns=True)

    fleet.store.rollouts.override(APP, "beta", for_s=0, why="", by="ann")

    assert [] == fleet.under_way
    assert fleet.store.rollouts.get(APP, "beta").override is None


def test_an_emergency_is_no_approval(fleet: Fleet) -> None:
    fleet.set(freezes=FROZEN, approval=True)
    fleet.store.rollouts.override(APP, "beta", for_s=1800, why="CVE-2026-1234", by="ann")

    assert "waits for an approval" in fleet.why_deferred("web-1")


@pytest.mark.parametrize(
    ("for_s", "why", "words"),
    [(60, " ", "needs a reason"), (-1, "x", "must be 0 to"), (8 * 86_400, "x", "must be 0 to")],
)
def test_an_emergency_without_a_reason_or_without_an_end_is_refused(
    fleet: Fleet, for_s: float, why: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        fleet.store.rollouts.override(APP, "beta", for_s=for_s, why=why)


def test_a_grant_may_not_begin_once_a_freeze_has_begun(fleet: Fleet) -> None:
    tomorrow = f"{fleet.clock.time:%Y-%m-%d}T23:59"
    fleet.set(freezes=(Freeze(begins=tomorrow, ends="2027-12-31"),), update_timeout_s=7 * 86_400)
    fleet.granted("web-1", takes_turns=True)

    (grant,) = grants(fleet)

    assert grant.begin_before is not None
    assert tomorrow == f"{grant.begin_before:%Y-%m-%dT%H:%M}"


def test_why_and_status_and_effects_say_that_it_waits(fleet: Fleet) -> None:
    fleet.set(approval=True)
    fleet.why_deferred("web-1")
    context = fleet.store.context

    (overview,) = read_overviews(context, APP)
    (line,) = effects(context, APP, [fleet.store.groups.get(APP, "beta")])

    assert "rollout of 2.0.0: running: waits for an approval; 0 done, 1 deferred" == overview.rollout
    assert line.endswith("held until `outrider rollout approve`")
    assert any(
        "2.0.0 waits for an approval (`outrider rollout approve`)" in one for one in explain(context, APP, "web-1")
    )


def test_a_new_machine_gets_what_the_group_serves_meanwhile(fleet: Fleet) -> None:
    fleet.granted("web-1")
    fleet.succeeds("web-1")
    looks(fleet)
    fleet.set(approval=True)
    promote(fleet, "3.0.0")

    assert "2.0.0" == fleet.granted("web-9", "0.0.0", takes_turns=True)


def grants(fleet: Fleet) -> list[OpenGrant]:
    entries = fleet.snapshot.grants.values()
    return [decode(OpenGrant, entry.key, entry.value) for entry in entries]
