"""Update windows, over midnight and over changes of the clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.rollout.windows import DAYS, Window, check_window, is_open, next_opening, zone_of

BERLIN = zone_of("Europe/Berlin")
NIGHT = Window(days=("fri",), opens="22:00", closes="04:00")


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("at", "open_"),
    [
        ("2026-11-27T21:59:59", False),
        ("2026-11-27T22:00:00", True),
        ("2026-11-28T03:59:59", True),
        ("2026-11-28T04:00:00", False),
        ("2026-11-28T22:00:00", False),
        ("2026-11-27T03:00:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(at: str, open_: bool) -> None:
    assert open_ == is_open((NIGHT,), BERLIN, berlin(at).astimezone(UTC))


def test_without_windows_it_is_always_open() -> None:
    assert is_open((), UTC, datetime(2026, 11, 23, tzinfo=UTC))
    assert next_opening((), UTC, datetime(2026, 11, 23, tzinfo=UTC)) is None


def test_the_whole_day_ends_with_the_day() -> None:
    sunday = (Window(days=("sun",)),)

    assert is_open(sunday, UTC, datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC))
    assert not is_open(sunday, UTC, datetime(2026, 11, 30, tzinfo=UTC))


def test_the_next_opening_is_the_first_of_all_windows() -> None:
    windows = (NIGHT, Window(days=("thu",), opens="06:00", closes="07:00"))

    opens = next_opening(windows, BERLIN, berlin("2026-11-25T12:00:00").astimezone(UTC))

    assert berlin("2026-11-26T06:00:00") == opens


def test_an_opening_is_followed_by_the_one_of_next_week() -> None:
    now = berlin("2026-11-27T22:00:00").astimezone(UTC)

    assert berlin("2026-12-04T22:00:00") == next_opening((NIGHT,), BERLIN, now)


def test_a_window_keeps_its_wall_clock_time_in_summer_and_in_winter() -> None:
    window = (Window(opens="09:00", closes="10:00"),)

    assert is_open(window, BERLIN, datetime(2026, 7, 1, 7, 30, tzinfo=UTC))
    assert is_open(window, BERLIN, datetime(2026, 12, 1, 8, 30, tzinfo=UTC))
    assert not is_open(window, BERLIN, datetime(2026, 12, 1, 7, 30, tzinfo=UTC))


def test_a_begin_that_the_clock_skips_comes_an_hour_later() -> None:
    """On 2026-03-29 02:00 CET is followed by 03:00 CEST."""
    window = (Window(opens="02:30", closes="04:00"),)
    midnight = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)

    assert datetime(2026, 3, 29, 1, 30, tzinfo=UTC) == next_opening(window, BERLIN, midnight)
    assert is_open(window, BERLIN, datetime(2026, 3, 29, 1, 30, tzinfo=UTC))
    assert not is_open(window, BERLIN, datetime(2026, 3, 29, 1, 29, tzinfo=UTC))
    assert not is_open(window, BERLIN, datetime(2026, 3, 29, 2, 0, tzinfo=UTC))


def test_a_window_that_the_clock_skips_altogether_does_not_open_that_day() -> None:
    window = (Window(opens="02:10", closes="02:50"), Window(opens="02:15", closes="03:00"))
    night = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)

    opened = [minute for minute in range(24 * 60) if is_open(window[1:], BERLIN, night + timedelta(minutes=minute))]

    assert [] == opened
    # the first one is open when the clock shows 03:10 to 03:50
    assert is_open(window, BERLIN, datetime(2026, 3, 29, 1, 20, tzinfo=UTC))


def test_a_repeated_hour_is_open_both_times() -> None:
    """On 2026-10-25 03:00 CEST is followed by 02:00 CET."""
    window = (Window(opens="02:00", closes="02:30"),)
    open_minutes = [
        minute
        for minute in range(180)
        if is_open(window, BERLIN, datetime(2026, 10, 25, 0, 0, tzinfo=UTC) + timedelta(minutes=minute))
    ]

    assert list(range(90)) == open_minutes


@given(
    st.integers(0, 2 * 365 * 24 * 60).map(
        lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kolkata"]),
    st.lists(st.sampled_from(DAYS), unique=True).map(tuple),
    st.tuples(*[st.integers(0, 24 * 60 - 1)] * 2),
)
def test_what_is_said_to_open_next_is_closed_before_and_open_then(
    now: datetime, zone_name: str, days: tuple[str, ...], ends: tuple[int, int]
) -> None:
    opens, closes = (f"{minute // 60:02}:{minute % 60:02}" for minute in ends)
    window, zone = Window(days=days, opens=opens, closes=closes), zone_of(zone_name)  # type: ignore[arg-type]

    following = next_opening((window,), zone, now)

    assert following is not None
    assert is_open((window,), zone, following)
    assert now < following <= now + timedelta(days=8, hours=1)
    if not is_open((window,), zone, now):
        assert not is_open((window,), zone, now + (following - now) / 2)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Window(opens="24:00"), "opens '24:00'"),
        (Window(opens="7:00"), "opens '7:00'"),
        (Window(closes="12:60"), "closes '12:60'"),
        (Window(days=("mon", "mon")), "once at most"),
        (Window(days=("noday",)), "once at most"),  # type: ignore[arg-type]
    ],
)
def test_a_window_that_cannot_be_read_is_refused(window: Window, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_window(window)


@pytest.mark.parametrize("name", ["", "Europe/Atlantis", "../etc/passwd", "/etc/localtime", "CEST!", "x" * 300])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="IANA name"):
        zone_of(name)
