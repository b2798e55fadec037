"""Frames: which percentage holds when."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.rollout.frames import MAX_FRAMES, Frame, RunningFrames, check_frames, length_s
from tests.support.wall_clock import NOON

STEPS = (Frame(60, 10.0), Frame(30, 50.0), Frame(0, 100.0))
RUNNING = RunningFrames(frames=STEPS, since=NOON)


@pytest.mark.parametrize(
    ("after_s", "percent"), [(-5, 10), (0, 10), (59, 10), (60, 50), (89, 50), (90, 100), (9999, 100)]
)
def test_each_frame_holds_for_its_time_and_the_last_for_good(after_s: int, percent: float) -> None:
    now = NOON + timedelta(seconds=after_s)

    assert (percent, after_s >= 90) == (RUNNING.percent_at(now), RUNNING.is_over(now))


@pytest.mark.parametrize(("number", "after_s"), [(5.0, 0), (10.0, 60), (49.99, 60), (50.0, 90), (99.9, 90)])
def test_an_instance_knows_when_its_frame_begins(number: float, after_s: int) -> None:
    assert NOON + timedelta(seconds=after_s) == RUNNING.reaches(number, NOON)


def test_frames_that_never_get_there_have_no_time_for_it() -> None:
    half = RunningFrames(frames=(Frame(60, 10.0), Frame(0, 50.0)), since=NOON)

    assert half.reaches(60.0, NOON) is None
    assert NOON + timedelta(seconds=500) == half.reaches(20.0, NOON + timedelta(seconds=500))


@given(
    steps=st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 100)), min_size=1, max_size=20),
    number=st.floats(0, 99.99),
    after_s=st.integers(0, 30_000),
)
def test_an_instance_is_let_through_from_that_time_on_and_not_before(
    steps: list[tuple[int, float]], number: float, after_s: int
) -> None:
    percents = sorted(percent for _, percent in steps)
    frames = check_frames(tuple(Frame(seconds, one) for (seconds, _), one in zip(steps, percents, strict=True)))
    running, now = RunningFrames(frames=frames, since=NOON), NOON + timedelta(seconds=after_s)

    at = running.reaches(number, now)

    if at is None:
        assert number >= running.percent_at(running.end)
    else:
        assert number < running.percent_at(at)
        assert at == now or number >= running.percent_at(at - timedelta(seconds=1))


def test_what_updateservicectl_sends_by_default_is_taken() -> None:
    """A day in steps of a minute: its sum of steps ends a hair beside 100, and the last frame has no duration."""
    step, percent, frames = 100 / 1440, 0.0, []
    for _ in range(1440):
        percent += step
        frames.append(Frame(60, percent))

    taken = check_frames((*frames, Frame(0, 100.0)))

    assert (1441, 86_400, 100.0) == (len(taken), length_s(taken), max(frame.percent for frame in taken))


@pytest.mark.parametrize(
    "frames",
    [(), (Frame(1, 50.0),) * (MAX_FRAMES + 1), (Frame(60, 101.0),), (Frame(60, -1.0),), (Frame(0, 5.0), Frame(0, 9.0)),
     (Frame(-1, 5.0), Frame(0, 9.0)), (Frame(60, 50.0), Frame(60, 40.0)), (Frame(60, float("nan")),),
     (Frame(91 * 86_400, 1.0), Frame(0, 100.0))],
    ids=["none", "too many", "above 100", "below 0", "no time", "negative time", "falling", "no number", "too long"],
)  # fmt: skip
def test_frames_that_can_not_be_carried_out_are_refused(frames: tuple[Frame, ...]) -> None:
    with pytest.raises(ConfigError):
        check_frames(frames)
