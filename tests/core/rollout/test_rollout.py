"""What happenings make of a rollout. By values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.rollout.policy_settings import Policy, Rate
from outrider.core.rollout.rollout import (
    KEPT_TIMES,
    MOST_TIMES,
    TIMEOUT,
    OpenCounts,
    Progress,
    WaveState,
    counted,
    ended,
    following,
    granted,
    lapsed,
    next_time,
    told,
    with_all_known,
    with_known,
    without,
)
from outrider.model.documents import Rollout, encode

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FREE = Policy()
CAREFUL = Policy(max_failures=2)
CANARY = Policy(canary=1)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def begun(*instances: str, version: str = "2.0.0", policy: Policy = FREE) -> Progress:
    """A rollout of 2.0.0 in which ``instances`` were granted ``version``."""
    progress = following(None, "2.0.0", NOON)
    for number, instance in enumerate(instances):
        progress = granted(progress, instance, version, policy, after(number))
    return progress


def test_the_same_target_goes_on_with_its_roll_out() -> None:
    progress = begun("web-1")

    assert progress is following(progress, "2.0.0", after(60))


def test_a_new_target_starts_anew_but_forgets_neither_times_nor_who_is_under_way() -> None:
    old = ended(begun("web-1", "web-2", policy=CAREFUL), "web-1", "failed", CAREFUL, after(9), error="9")

    new = following(old, "2.1.0", after(60))

    assert (old.lately, old.opened) == (new.lately, new.opened)
    assert ((), 0, "running", after(60)) == (new.failures, new.succeeded, new.state, new.started)


def test_a_result_of_an_earlier_roll_out_says_nothing_of_this_one() -> None:
    new = following(begun("web-1", "web-2"), "2.1.0", after(60))

    done = ended(new, "web-1", "failed", Policy(max_failures=1), after(61), error="9")
    done = ended(done, "web-2", "succeeded", FREE, after(62))

    assert ("running", (), 0, ()) == (done.state, done.failures, done.succeeded, done.opened)


def test_a_second_grant_of_one_instance_takes_the_place_of_the_first_and_counts_as_one_more() -> None:
    progress = granted(begun("web-1"), "web-1", "2.0.1", FREE, after(60))

    assert ["2.0.1"] == [one.version for one in progress.opened]
    assert 2 == progress.made_lately


def test_a_success_counts_once_however_often_it_is_told() -> None:
    progress = begun("web-1")
    for _ in range(3):
        progress = ended(progress, "web-1", "succeeded", FREE, after(30))

    assert (1, ()) == (progress.succeeded, progress.opened)


def test_a_floor_that_was_reached_is_no_success_of_the_roll_out() -> None:
    progress = ended(begun("web-1", version="1.5.0"), "web-1", "succeeded", FREE, after(30))

    assert (0, ()) == (progress.succeeded, progress.opened)


def test_the_failures_of_one_instance_count_once() -> None:
    progress = begun("web-1", policy=CAREFUL)
    for number in range(3):
        progress = ended(progress, "web-1", "failed", CAREFUL, after(number), error=str(number))
        progress = granted(progress, "web-1", "2.0.0", CAREFUL, after(number))

    assert ("running", ["2"]) == (progress.state, [one.error for one in progress.failures])


def test_the_threshold_halts_the_roll_out_and_names_who_failed_and_how() -> None:
    progress = begun("web-1", "web-2", policy=CAREFUL)
    progress = ended(progress, "web-1", "failed", CAREFUL, after(10), error="error code 44")
    progress = lapsed(progress, {"web-2"}, CAREFUL, after(20), counts=True)

    assert ("halted", after(20)) == (progress.state, progress.since)
    assert f"2 failed (max_failures 2): web-1: error code 44; web-2: {TIMEOUT}" == progress.why


@pytest.mark.parametrize("result", ["failed", "lapsed"])
def test_a_canary_that_fails_halts_at_once_without_any_threshold(result: str) -> None:
    progress = begun("web-1", policy=CANARY)
    if result == "failed":
        progress = ended(progress, "web-1", "failed", CANARY, after(10), error="error code 9")
    else:
        progress = lapsed(progress, {"web-1"}, CANARY, after(10), counts=True)

    assert "halted" == progress.state
    assert progress.why.startswith("a canary failed: web-1")


def test_after_the_canary_a_failure_without_a_threshold_halts_nothing() -> None:
    progress = ended(begun("web-1", "web-2", policy=CANARY), "web-1", "succeeded", CANARY, after(10))
    progress = ended(progress, "web-2", "failed", CANARY, after(20), error="error code 9")

    assert "running" == progress.state


def test_a_halt_lasts_whatever_succeeds_after_it_and_until_a_person_resumes() -> None:
    policy = Policy(max_failures=1)
    progress = ended(begun("web-1", "web-2"), "web-1", "failed", policy, after(10), error="x")
    progress = ended(progress, "web-2", "succeeded", policy, after(20))
    halted = progress.state
    progress = told(progress, "running", "", "kim", after(30))

    assert "halted" == halted
    assert ("running", (), after(30)) == (progress.state, progress.failures, progress.since)


@pytest.mark.parametrize(
    ("policy", "counts", "state"),
    [(Policy(max_failures=1, count_timeouts=False), True, "running"), (Policy(max_failures=1), False, "running")],
)
def test_silence_that_was_wanted_is_no_failure(policy: Policy, counts: bool, state: str) -> None:
    progress = lapsed(begun("web-1"), {"web-1"}, policy, after(10), counts=counts)

    assert (state, (), ()) == (progress.state, progress.failures, progress.opened)


def test_silence_during_a_pause_is_no_failure() -> None:
    paused = told(begun("web-1"), "paused", "", "kim", after(5))

    progress = lapsed(paused, {"web-1"}, Policy(max_failures=1), after(10), counts=True)

    assert ("paused", ()) == (progress.state, progress.failures)


def test_a_late_success_takes_back_the_failure_that_the_silence_was_taken_for() -> None:
    progress = lapsed(begun("web-1"), {"web-1"}, CAREFUL, after(10), counts=True)
    progress = ended(progress, "web-1", "succeeded", CAREFUL, after(900))

    assert ((), 1) == (progress.failures, progress.succeeded)


def test_a_late_failure_names_the_error_instead_of_the_silence() -> None:
    progress = lapsed(begun("web-1"), {"web-1"}, CAREFUL, after(10), counts=True)
    progress = ended(progress, "web-1", "failed", CAREFUL, after(900), error="error code 10")

    assert [("web-1", "error code 10")] == [(one.instance, one.error) for one in progress.failures]


def test_what_was_never_granted_and_never_failed_counts_for_nothing() -> None:
    progress = begun("web-1")

    assert progress == ended(progress, "web-9", "succeeded", FREE, after(1))
    assert progress == ended(progress, "web-9", "failed", Policy(max_failures=1), after(1), error="x")
    assert progress == lapsed(progress, {"web-9"}, FREE, after(1), counts=True)


def test_a_withdrawn_grant_is_neither_success_nor_failure() -> None:
    progress = ended(begun("web-1"), "web-1", "withdrawn", Policy(max_failures=1), after(1))

    assert ((), (), 0) == (progress.opened, progress.failures, progress.succeeded)


@pytest.mark.parametrize("policy", [Policy(max_failures=1), Policy(canary=1, max_failures=1)])
def test_what_an_instance_refuses_untried_counts_for_nothing_and_its_place_is_given_back(policy: Policy) -> None:
    before = begun("web-1", policy=policy)

    progress = ended(granted(before, "web-2", "2.0.0", policy, after(7)), "web-2", "refused", policy, after(8))

    assert before == progress


def test_a_refusal_that_comes_after_the_silence_was_counted_changes_nothing() -> None:
    silent = lapsed(begun("web-1"), {"web-1"}, FREE, after(900), counts=True)

    assert silent == ended(silent, "web-1", "refused", FREE, after(901))


def test_the_times_of_grants_are_kept_within_bounds() -> None:
    progress = following(None, "2.0.0", NOON)
    for number in range(500):
        progress = granted(progress, f"web-{number}", "2.0.0", FREE, after(number))

    assert (KEPT_TIMES, 500) == (len(progress.lately), progress.made_lately)
    assert after(499) == progress.lately[-1][0]


def test_what_is_stored_is_as_large_for_a_thousand_open_grants_as_for_one() -> None:
    policy = Policy(max_per_interval=Rate(count=1000, interval_s=3600))
    progress, sizes = following(None, "2.0.0", NOON), []
    for number in range(1000):
        known = granted(counted(progress), f"web-{number}", "2.0.0", policy, after(number))
        progress = counted(known)
        sizes.append(len(encode(Rollout(progress=progress))))

    assert (1000, 1000) == (progress.open.total, progress.made_lately)
    assert max(sizes) < sizes[MOST_TIMES] + 100


def test_open_grants_are_counted_by_rollout_and_wave() -> None:
    wave = WaveState(number=2, began=NOON)
    old = granted(following(None, "1.9.0", NOON), "web-1", "1.9.0", FREE, after(1))
    progress = replace(following(counted(old), "2.0.0", after(10)), wave=wave)
    for number, where in enumerate((0, 1, 2, 2)):
        progress = counted(granted(progress, f"web-{number + 2}", "2.0.0", FREE, after(11), wave=where))

    assert OpenCounts(total=5, ours=4, in_wave=2) == progress.open
    assert () == progress.opened


def test_a_grant_that_becomes_known_is_counted_once_and_ends_as_it_was_counted() -> None:
    progress = begun("web-1", "web-2")
    mine, stored = progress.opened[0], counted(progress)

    known = with_known(stored, mine)
    done = counted(ended(known, "web-1", "succeeded", FREE, after(30)))

    assert (progress.open, (mine,), OpenCounts(total=1, ours=1)) == (known.open, known.opened, known.others)
    assert (OpenCounts(total=1, ours=1), 1) == (done.open, done.succeeded)


def test_a_wrong_count_is_put_right_by_who_knows_all() -> None:
    wrong = replace(counted(begun("web-1", "web-2")), others=OpenCounts(total=7, ours=7))

    assert OpenCounts(total=1, ours=1) == with_all_known(wrong, [begun("web-1").opened[0]]).open


def test_grants_that_an_older_version_stored_one_by_one_are_counted() -> None:
    """Before, the rollout listed its open grants and the time of each."""
    listed = begun("web-1", "web-2")
    old = replace(listed, lately=(), times=(NOON, after(1)))

    assert counted(listed) == counted(old)


def test_a_grant_by_a_clock_that_is_behind_belongs_to_the_rollout_all_the_same() -> None:
    progress = granted(following(None, "2.0.0", after(5)), "web-1", "2.0.0", FREE, NOON)

    assert OpenCounts(total=1, ours=1) == progress.open


@given(
    st.one_of(st.integers(1, 5), st.integers(40, 120)),
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0, 40, allow_nan=False), st.integers(1, 30)), max_size=60),
)
def test_no_interval_wherever_it_begins_holds_more_grants_than_the_limit(
    count: int, interval_s: int, pauses: list[tuple[float, int]]
) -> None:
    """Many ask, at any times; each is granted when the limit leaves a place. Larger limits are counted in buckets."""
    policy = Policy(max_per_interval=Rate(count=count, interval_s=interval_s))
    progress, now, times = following(None, "2.0.0", NOON), NOON, []
    for number, (pause, crowd) in enumerate(pauses):
        now += timedelta(seconds=pause)
        if number % 7 == 6:
            progress = following(progress, f"2.0.{number}", now)
        for each in range(crowd):
            if next_time(progress, policy, 0, now) is None:
                progress = counted(granted(progress, f"web-{number}-{each}", "2.0.0", policy, now))
                times.append(now)
            now += timedelta(milliseconds=7)

    for begin in times:
        assert sum(begin <= at < begin + timedelta(seconds=interval_s) for at in times) <= count
    assert len(progress.lately) <= MOST_TIMES


def test_a_grant_that_counts_as_never_made_leaves_the_places_of_others_alone() -> None:
    """What was forgotten, or may be in another's bucket, gives no place back."""
    lately = ((after(10), 1), (after(20), 3), (after(30), 1))

    assert ((after(20), 3), (after(30), 1)) == without(lately, after(10))
    assert ((after(10), 1), (after(20), 2), (after(30), 1)) == without(lately, after(15))
    assert lately == without(lately, after(5)) == without(lately, after(31))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 4))
def test_the_next_time_is_the_first_at_which_there_is_a_place(count: int, made: int, taken: int) -> None:
    policy = Policy(max_per_interval=Rate(count=count, interval_s=60))
    progress = following(None, "2.0.0", NOON)
    for number in range(made):
        progress = granted(progress, f"web-{number}", "2.0.0", policy, after(number))
    now = after(made)

    free_at = next_time(progress, policy, taken, now)

    if free_at is not None and taken < count:
        assert now < free_at
        assert next_time(progress, policy, taken, free_at) is None
        assert next_time(progress, policy, taken, free_at - timedelta(milliseconds=1)) is not None
