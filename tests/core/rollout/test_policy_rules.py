"""What a group's policy defers, one rule after the other, with the words that a person reads. By values."""

import hashlib
import inspect
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.rollout import policy as policy_module
from outrider.core.rollout.calendar import Freeze
from outrider.core.rollout.percent import percentage_of
from outrider.core.rollout.policy import Defer, Grant, Situation, decide, destination, per
from outrider.core.rollout.policy_settings import Policy, Rate, begins_with, check_policy
from outrider.core.rollout.rollout import Progress, asked, ended, following, granted, judged, told
from outrider.core.rollout.windows import Window

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FREE = Policy()


def asks(policy: Policy = FREE, *, at: datetime = NOON, **facts: Any) -> Situation:
    """``web-1`` runs 1.0.0 and shall run 2.0.0."""
    facts = {"instance": "web-1", "running": "1.0.0", "wanted": "2.0.0", "channel": "beta"} | facts
    return Situation(policy=policy, now=at, **facts)


def under_way(*instances: str, at: datetime = NOON) -> dict[str, Any]:
    """The facts of a rollout in which ``instances`` are updating."""
    progress = following(None, "2.0.0", NOON - timedelta(hours=1))
    for instance in instances:
        progress = granted(progress, instance, "2.0.0", FREE, at)
    return {"progress": progress, "living": frozenset(instances)}


def held(situation: Situation) -> Defer:
    verdict = decide(situation)
    assert isinstance(verdict, Defer), verdict
    return verdict


def test_a_policy_that_nobody_has_set_holds_nobody_back() -> None:
    assert Grant(version="2.0.0") == decide(asks(**under_way("web-2", "web-3")))


def test_updates_that_are_off_hold_everybody_back_but_are_no_news_to_who_is_up_to_date() -> None:
    off = Policy(enabled=False)

    assert Defer(reason="updates are off for the group", by="off", pending=True) == decide(asks(off))
    assert Defer(reason="up to date", by="current") == decide(asks(off, running="2.0.0"))


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_a_roll_out_that_a_person_stopped_says_who_and_why(state: Any) -> None:
    progress = told(following(None, "2.0.0", NOON), state, "customers complain", "kim", NOON)

    verdict = held(asks(progress=progress))

    assert (
        Defer(reason=f"rollout of 2.0.0 is {state} by kim: customers complain", by="rollout", pending=True) == verdict
    )


def test_a_roll_out_that_the_policy_halted_names_the_failures() -> None:
    policy = Policy(max_failures=1)
    progress = ended(under_way("web-2")["progress"], "web-2", "failed", policy, NOON, error="error code 44")

    assert "rollout of 2.0.0 is halted: 1 failed (max_failures 1): web-2: error code 44" == (
        held(asks(policy, progress=progress)).reason
    )


def test_a_threshold_that_is_lowered_counts_at_once() -> None:
    progress = ended(under_way("web-2")["progress"], "web-2", "failed", FREE, NOON, error="x")

    assert isinstance(decide(asks(progress=progress)), Grant)
    assert "is halted" in held(asks(Policy(max_failures=1), progress=progress)).reason


def test_the_reason_to_act_on_comes_first() -> None:
    """Everything defers it at once; each reason that is taken away shows the next one."""
    policy = Policy(
        enabled=False, percent=0, windows=(Window(opens="01:00", closes="02:00"),), min_healthy=2, canary=1,
        max_in_progress=1, max_per_interval=Rate(count=1, interval_s=300),
    )  # fmt: skip
    facts = under_way("web-2")
    stopped = {**facts, "progress": told(facts["progress"], "halted", "", "kim", NOON)}
    both = {"blocked": "it crashes", "package_arch": "aarch64", "arch": "amd64", **stopped}
    proved = ended(granted(facts["progress"], "web-3", "2.0.0", policy, NOON), "web-3", "succeeded", policy, NOON)
    steps: list[tuple[dict[str, Any], Policy, str]] = [
        ({"paused": True, **both}, policy, "group is paused"),
        (both, policy, "updates are off for the group"),
        (both, replace(policy, enabled=True), "2.0.0 is blocked: it crashes"),
        ({**both, "blocked": None}, replace(policy, enabled=True), "rollout of 2.0.0 is halted by kim"),
        ({**both, "blocked": None, **facts}, replace(policy, enabled=True), "no package for your architecture"),
        (facts, replace(policy, enabled=True), "2.0.0 goes to 0 % of the instances"),
        (facts, replace(policy, enabled=True, percent=100), "outside the update windows"),
        (
            facts,
            replace(policy, enabled=True, percent=100, windows=()),
            "other instances that serve: 0; min_healthy is 2",
        ),
        ({**facts, "serving": 2}, replace(policy, enabled=True, percent=100, windows=()), "canary first"),
        (
            {**facts, "serving": 2, "progress": proved},
            replace(policy, enabled=True, percent=100, windows=()),
            "1 of 1 in progress",
        ),
        (
            {"serving": 2, "progress": proved},
            replace(policy, enabled=True, percent=100, windows=()),
            "1 per 5 min; next at 12:05:00",
        ),
    ]

    for known, set_to, words in steps:
        assert held(asks(set_to, **known)).reason.startswith(words)


def test_who_was_granted_gets_the_same_answer_whatever_the_limits_say_now() -> None:
    policy = Policy(
        percent=0, windows=(Window(opens="01:00", closes="02:00"),), min_healthy=9, max_in_progress=1,
        max_per_interval=Rate(count=1, interval_s=300),
    )  # fmt: skip

    verdict = decide(asks(policy, standing="2.0.0", **under_way("web-1", "web-2")))

    assert Grant(version="2.0.0", standing=True) == verdict


def test_a_brake_stops_also_who_was_granted() -> None:
    assert isinstance(decide(asks(paused=True, standing="2.0.0")), Defer)
    assert isinstance(decide(asks(blocked="bad", standing="2.0.0")), Defer)


def test_a_grant_for_another_version_does_not_stand() -> None:
    assert Grant(version="2.0.0") == decide(asks(standing="1.5.0", **under_way("web-1")))


def test_the_limit_of_updates_under_way_counts_the_others_that_live() -> None:
    two = Policy(max_in_progress=2)
    facts = under_way("web-1", "web-2", "web-3")

    assert "2 of 2 in progress: web-2, web-3" == held(asks(two, **facts)).reason
    assert isinstance(decide(asks(two, **{**facts, "living": frozenset({"web-1", "web-2"})})), Grant)


def test_places_are_kept_for_who_was_woken() -> None:
    two = Policy(max_in_progress=2)

    verdict = held(asks(two, reserved=("web-4",), **under_way("web-2")))

    assert "1 of 2 in progress: web-2; woken: web-4" == verdict.reason
    assert isinstance(decide(asks(two, **under_way("web-2"))), Grant)


def test_the_limit_per_interval_says_when_the_next_one_may() -> None:
    one_per_5_min = Policy(max_per_interval=Rate(count=1, interval_s=300))

    verdict = held(asks(one_per_5_min, at=NOON + timedelta(seconds=299), **under_way("web-2")))

    assert Defer(
        reason="1 per 5 min; next at 12:05:00 UTC",
        by="max-per-interval",
        pending=True,
        again_at=NOON + timedelta(minutes=5),
    ) == (verdict)
    assert isinstance(decide(asks(one_per_5_min, at=NOON + timedelta(seconds=300), **under_way("web-2"))), Grant)


@pytest.mark.parametrize(
    ("interval_s", "words"), [(90, "3 per 90 s"), (60, "3 per 1 min"), (7200, "3 per 2 h"), (86400, "3 per 1 d")]
)
def test_a_limit_is_said_as_a_person_says_it(interval_s: int, words: str) -> None:
    assert words == per(Rate(count=3, interval_s=interval_s))


def test_a_closed_window_says_when_it_opens_in_its_own_zone() -> None:
    policy = Policy(windows=(Window(days=("mon",), opens="22:00", closes="04:00"),), time_zone="Europe/Berlin")

    verdict = held(asks(policy))

    reason = "outside the update windows (mon 22:00-04:00); next opens 22:00:00 CET"
    assert (
        Defer(reason=reason, by="windows", pending=True, again_at=datetime(2026, 11, 23, 21, 0, tzinfo=UTC)) == verdict
    )
    assert isinstance(decide(asks(policy, at=datetime(2026, 11, 24, 2, 59, tzinfo=UTC))), Grant)


def test_the_canary_goes_first_and_the_rest_when_it_is_proved() -> None:
    policy = Policy(canary=1)
    first = decide(asks(policy))
    while_it_tries = held(asks(policy, **under_way("web-2")))
    progress = ended(under_way("web-2")["progress"], "web-2", "succeeded", policy, NOON)

    assert Grant(version="2.0.0") == first
    assert "canary first: 0 of 1 succeeded; in progress: web-2" == while_it_tries.reason
    assert isinstance(decide(asks(policy, progress=progress)), Grant)


def test_an_update_of_an_earlier_roll_out_is_no_canary_of_this_one() -> None:
    progress = following(under_way("web-2")["progress"], "2.0.0-next", NOON + timedelta(seconds=1))

    verdict = decide(
        asks(Policy(canary=1), wanted="2.0.0-next", progress=progress, living=frozenset({"web-2"}),
             at=NOON + timedelta(seconds=2))
    )  # fmt: skip

    assert isinstance(verdict, Grant)


def test_enough_others_must_serve() -> None:
    policy = Policy(min_healthy=2)

    assert "other instances that serve: 1; min_healthy is 2" == held(asks(policy, serving=1)).reason
    assert isinstance(decide(asks(policy, serving=2)), Grant)


def test_the_percentage_is_a_hash_that_a_person_can_compute() -> None:
    first_8 = hashlib.sha256(b"web-1 2.0.0").hexdigest()[:8]

    assert int(first_8, 16) * 100 / 2**32 == percentage_of("web-1", "2.0.0")


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_who_is_within_the_percentage_stays_within_when_it_grows(instance: str, one: int, two: int) -> None:
    low, high = sorted((one, two))
    verdicts = [decide(asks(Policy(percent=percent), instance=instance)) for percent in (low, high)]

    assert not (isinstance(verdicts[0], Grant) and isinstance(verdicts[1], Defer))
    assert isinstance(decide(asks(Policy(percent=100), instance=instance)), Grant)
    assert isinstance(decide(asks(Policy(percent=0), instance=instance)), Defer)


def test_the_percentage_lets_about_its_share_through() -> None:
    through = sum(percentage_of(f"web-{number}", "2.0.0") < 20 for number in range(5000))

    assert 900 < through < 1100


def test_a_pin_matches_by_numbers_and_not_by_letters() -> None:
    assert begins_with("1.2.0", "1.2")
    assert begins_with("1.2.3", "1.2")
    assert begins_with("1.2.3-rc.1", "1.2.3")
    assert begins_with("1.2.3", "1.2.")
    assert not begins_with("1.20.0", "1.2")
    assert not begins_with("1.2.34", "1.2.3")
    assert not begins_with("1.2.3", "1.2.3.4")
    assert not begins_with("1.2.3", "v1")


def test_a_pinned_group_stays_within_its_versions() -> None:
    assert "group is pinned to 1.2; 2.0.0 does not match" == held(asks(Policy(pin="1.2"))).reason
    assert Grant(version="1.2.9") == decide(asks(Policy(pin="1.2"), wanted="1.2.9"))


def test_what_a_request_asks_for_is_honoured_too() -> None:
    assert "this instance accepts only versions '1.2'; 2.0.0 does not match" == held(asks(prefix="1.2")).reason
    assert isinstance(decide(asks(prefix="2")), Grant)
    assert held(asks(prefix="nonsense")).pending


@pytest.mark.parametrize(
    ("downgrade", "allowed", "granted_"),
    [("never", False, False), ("never", True, False), ("asked", False, False), ("asked", True, True),
     ("always", False, True)],
)  # fmt: skip
def test_a_downgrade_needs_the_policy(downgrade: Any, allowed: bool, granted_: bool) -> None:
    verdict = decide(asks(Policy(downgrade=downgrade), running="3.0.0", rollback_allowed=allowed))

    assert granted_ == isinstance(verdict, Grant)
    if not granted_:
        assert isinstance(verdict, Defer)
        assert verdict.reason.startswith("running 3.0.0 is newer than the channel's 2.0.0")


def test_the_first_floor_above_its_version_is_passed_before_the_target() -> None:
    floors = ("1.8.0", "1.5.0", "2.5.0", "1.10.0")
    way, running = [], "1.0.0"
    while isinstance(verdict := decide(asks(running=running, floors=floors)), Grant):
        way.append(verdict.version)
        running = verdict.version

    assert ["1.5.0", "1.8.0", "1.10.0", "2.0.0"] == way


def test_a_floor_stands_in_no_way_downwards() -> None:
    assert "2.0.0" == destination(asks(Policy(downgrade="always"), running="3.0.0", floors=("2.5.0",)))


def test_a_bad_floor_is_named() -> None:
    assert "1.5.0 is blocked: it crashes" == held(asks(floors=("1.5.0",), blocked="it crashes")).reason


@pytest.mark.parametrize(
    ("package", "machine", "fits"),
    [("all", "", True), ("all", "amd64", True), ("amd64", "amd64", True), ("amd64", "aarch64", False),
     ("amd64", "", True), ("amd64", "mips64", False)],
)  # fmt: skip
def test_a_package_of_another_architecture_is_no_package(package: str, machine: str, fits: bool) -> None:
    verdict = decide(asks(package_arch=package, arch=machine))

    assert fits == isinstance(verdict, Grant)
    assert (
        fits
        or "no package for your architecture: 2.0.0 is for amd64"
        in held(asks(package_arch=package, arch=machine)).reason
    )


@pytest.mark.parametrize(("package", "machine", "noted"), [("amd64", "", True), ("all", "", False), ("x86", "x86", 0)])
def test_an_instance_without_an_architecture_gets_the_only_package_with_a_note(
    package: str, machine: str, noted: bool
) -> None:
    verdict = decide(asks(package_arch=package, arch=machine))

    note = f"this instance reports no architecture; 2.0.0 is for {package}" if noted else ""
    assert Grant(version="2.0.0", note=note) == verdict


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(max_in_progress=0), "max_in_progress 0"),
        (Policy(max_per_interval=Rate(count=0, interval_s=1)), "count 0"),
        (Policy(max_per_interval=Rate(count=1, interval_s=0)), "interval_s 0"),
        (Policy(percent=101), "percent 101"),
        (Policy(percent=float("nan")), "percent nan"),
        (Policy(canary=-1), "canary -1"),
        (Policy(update_timeout_s=0), "update_timeout_s 0"),
        (Policy(max_failures=101), "max_failures 101"),
        (Policy(min_healthy=-1), "min_healthy -1"),
        (Policy(time_zone="Mars/Olympus"), "time zone 'Mars/Olympus'"),
        (Policy(windows=(Window(opens="x"),)), "opens 'x'"),
        (Policy(windows=(Window(),) * 51), "windows 51"),
        (Policy(pin="1.x"), "pin '1.x'"),
    ],
)
def test_a_policy_that_cannot_be_carried_out_is_refused(policy: Policy, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_policy(policy)


@pytest.mark.parametrize("pin", ["", "1", "1.2", "1.2.3", "1.2.3-rc.1"])
def test_the_begin_of_a_version_is_a_pin(pin: str) -> None:
    assert pin == check_policy(Policy(pin=pin)).pin


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["ask", "done", "fail", "wait"]), st.integers(0, 7)), max_size=80),
)
def test_grants_never_exceed_the_policy(busy: int, count: int, happenings: list[tuple[str, int]]) -> None:
    """Eight instances ask, finish, fail and let time pass in any order (P6)."""
    policy = Policy(max_in_progress=busy, max_per_interval=Rate(count=count, interval_s=60))
    progress: Progress = following(None, "2.0.0", NOON)
    now, times = NOON, []
    for happening, number in happenings:
        name, living = f"web-{number}", frozenset(one.instance for one in progress.opened)
        mine = progress.opened_for(name)
        match happening:
            case "ask":
                situation = asks(
                    policy, instance=name, progress=progress, living=living, at=now,
                    standing=None if mine is None else mine.version,
                )  # fmt: skip
                verdict = decide(situation)
                if isinstance(verdict, Grant) and not verdict.standing:
                    progress = granted(progress, name, verdict.version, policy, now)
                    times.append(now)
            case "wait":
                now += timedelta(seconds=10 * number)
            case "done":
                progress = ended(progress, name, "succeeded", policy, now)
            case "fail":
                progress = ended(progress, name, "failed", policy, now, error="x")
        assert len(progress.opened) <= busy
    for begin in times:
        assert sum(begin <= at < begin + timedelta(seconds=60) for at in times) <= count


def test_a_release_waits_for_a_persons_word() -> None:
    policy, progress = Policy(approval=True), following(None, "2.0.0", NOON)

    unasked, waiting = held(asks(policy)), held(asks(policy, progress=asked(progress, NOON)))
    approved = judged(progress, "approved", by="ann", why="", now=NOON)

    assert ("approval", "2.0.0 waits for an approval (`outrider rollout approve`)") == (unasked.by, unasked.reason)
    assert waiting == unasked
    assert Grant(version="2.0.0") == decide(asks(policy, progress=approved))


def test_a_rejected_release_waits_whether_or_not_the_policy_asks_for_a_word() -> None:
    progress = judged(following(None, "2.0.0", NOON), "rejected", by="ann", why="not before the audit", now=NOON)

    for policy in (Policy(), Policy(approval=True, approve_after_s=60)):
        verdict = held(asks(policy, progress=progress, at=NOON + timedelta(days=1)))
        assert (
            "2.0.0 was rejected by ann: not before the audit; `outrider rollout approve` lets it go on"
            == verdict.reason
        )


def test_a_release_that_nobody_judges_goes_on_by_itself_if_the_policy_says_so() -> None:
    policy, progress = Policy(approval=True, approve_after_s=600), asked(following(None, "2.0.0", NOON), NOON)

    early = held(asks(policy, progress=progress, at=NOON + timedelta(minutes=9)))

    assert early.reason.endswith("; by itself at 12:10:00 UTC")
    assert NOON + timedelta(minutes=10) == early.again_at
    assert Grant(version="2.0.0") == decide(asks(policy, progress=progress, at=NOON + timedelta(minutes=10)))


def test_the_last_word_counts_and_the_same_one_again_changes_nothing() -> None:
    progress = judged(asked(following(None, "2.0.0", NOON), NOON), "approved", by="ann", why="", now=NOON)

    again = judged(progress, "approved", by="kim", why="me, too", now=NOON)
    rejected = judged(progress, "rejected", by="kim", why="", now=NOON)

    assert again is progress
    assert rejected.approval is not None
    assert ("rejected", "kim", NOON) == (rejected.approval.verdict, rejected.approval.by, rejected.approval.asked)


def test_a_freeze_and_a_deny_window_say_when_it_goes_on() -> None:
    freeze = Freeze(begins="2026-11-20", ends="2026-11-24", why="elections")

    frozen = held(asks(Policy(freezes=(freeze,))))
    denied = held(asks(Policy(deny_windows=(Window(opens="11:00", closes="13:00"),))))

    assert "frozen (2026-11-20 to 2026-11-24 (elections)); next may begin 2026-11-25 00:00:00 UTC" == frozen.reason
    assert "in a deny window (daily 11:00-13:00); next may begin 13:00:00 UTC" == denied.reason
    assert ("freezes", "deny-windows") == (frozen.by, denied.by)


def test_an_approval_that_nobody_asks_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing waits for an approval"):
        check_policy(Policy(approve_after_s=60))


def test_every_rule_is_asked() -> None:
    """What gives ``Defer | None`` is a rule; in neither tuple it would never be asked."""
    written = {
        name
        for name, one in vars(policy_module).items()
        if inspect.isfunction(one) and get_type_hints(one).get("return") == Defer | None
    }

    assert {rule.__name__ for rule in (*policy_module._BRAKES, *policy_module._LIMITS)} == written
