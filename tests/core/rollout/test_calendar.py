"""Windows, deny windows and freezes together: whether an update may begin, since when, and until when."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.rollout.calendar import ALWAYS, Calendar, Freeze, check_freeze, closed, next_start, next_stop
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.core.rollout.windows import DAYS, Window

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 12, 23, 12, 0, tzinfo=UTC)  # a Wednesday
HOLIDAYS = Freeze(begins="2026-12-24", ends="2026-12-26", why="holidays")
WORK = Window(days=DAYS[:5], opens="09:00", closes="17:00")
LUNCH = Window(opens="12:30", closes="13:00")


def calendar(
    *, windows: tuple[Window, ...] = (), denied: tuple[Window, ...] = (), freezes: tuple[Freeze, ...] = ()
) -> Calendar:
    return Calendar(windows=windows, denied=denied, freezes=freezes, zone=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_without_anything_it_is_always_open() -> None:
    assert closed(ALWAYS, NOON) is None
    assert NOON == next_start(ALWAYS, NOON)
    assert next_stop(ALWAYS, NOON) is None


def test_a_freeze_goes_from_the_begin_of_its_first_day_to_the_end_of_its_last() -> None:
    days = calendar(freezes=(HOLIDAYS,))

    assert closed(days, at("2026-12-23T23:59:59")) is None
    for moment in ("2026-12-24T00:00", "2026-12-26T23:59:59"):
        found = closed(days, at(moment))
        assert found is not None
        assert ("freezes", "2026-12-24 to 2026-12-26 (holidays)") == (found.by, found.why)
        assert at("2026-12-27T00:00") == found.opens
    assert closed(days, at("2026-12-27T00:00")) is None


def test_a_freeze_is_on_the_wall_clock_of_its_zone() -> None:
    begin, end = HOLIDAYS.span(BERLIN)

    assert (at("2026-12-23T23:00"), at("2026-12-26T23:00")) == (begin, end)


def test_a_freeze_may_be_of_minutes() -> None:
    short = Freeze(begins="2026-12-24T18:00", ends="2026-12-24T18:30")

    assert (at("2026-12-24T18:00"), at("2026-12-24T18:30")) == short.span(UTC)


def test_a_deny_window_is_closed_inside_a_window_too() -> None:
    days = calendar(windows=(WORK,), denied=(LUNCH,))

    assert closed(days, at("2026-12-23T12:29")) is None
    found = closed(days, at("2026-12-23T12:30"))
    assert found is not None
    assert ("deny-windows", at("2026-12-23T13:00")) == (found.by, found.opens)


def test_what_opens_next_is_when_all_of_them_allow_it() -> None:
    """Thursday to Saturday are frozen, then comes a Sunday, and Monday begins with a denied hour."""
    early = Window(days=("mon",), opens="09:00", closes="10:00")

    days = calendar(windows=(WORK,), denied=(early,), freezes=(HOLIDAYS,))

    assert at("2026-12-28T10:00") == next_start(days, at("2026-12-24T10:00"))


@pytest.mark.parametrize(
    ("now", "stop"),
    [
        ("2026-12-23T10:00", "2026-12-23T12:30"),
        ("2026-12-23T13:00", "2026-12-23T17:00"),
    ],
)
def test_what_has_begun_to_be_open_stops_at_the_first_of_them(now: str, stop: str) -> None:
    assert at(stop) == next_stop(calendar(windows=(WORK,), denied=(LUNCH,), freezes=(HOLIDAYS,)), at(now))


def test_the_begin_of_a_freeze_stops_it_as_well() -> None:
    assert at("2026-12-24T00:00") == next_stop(calendar(freezes=(HOLIDAYS,)), NOON)


def test_a_week_that_is_denied_as_a_whole_never_opens() -> None:
    found = closed(calendar(denied=(Window(),)), NOON)

    assert found is not None
    assert found.opens is None


def test_freezes_that_follow_one_another_are_passed_together() -> None:
    more = Freeze(begins="2026-12-27", ends="2027-01-03")

    assert at("2027-01-04T00:00") == next_start(calendar(freezes=(more, HOLIDAYS)), at("2026-12-25T00:00"))


FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)
patient = settings(deadline=None, max_examples=50)
moments = st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=st.just(UTC))
times = st.integers(0, 23).map("{:02}:00".format)
some_windows = st.lists(
    st.builds(Window, days=st.lists(st.sampled_from(DAYS), unique=True).map(tuple), opens=times, closes=times),
    max_size=2,
).map(tuple)
some_freezes = st.lists(
    st.builds(
        lambda day, days: Freeze(begins=f"{day:%Y-%m-%d}", ends=f"{day + timedelta(days=days):%Y-%m-%d}"),
        st.dates(FIRST.date(), LAST.date()),
        st.integers(0, 40),
    ),
    max_size=2,
).map(tuple)


@patient
@given(now=moments, windows=some_windows, denied=some_windows, freezes=some_freezes)
def test_the_next_start_is_open_and_nothing_before_it_is(
    now: datetime, windows: tuple[Window, ...], denied: tuple[Window, ...], freezes: tuple[Freeze, ...]
) -> None:
    days = Calendar(windows=windows, denied=denied, freezes=freezes, zone=BERLIN)

    opens = next_start(days, now)

    if opens is None:
        return
    assert closed(days, opens) is None
    step = (opens - now) / 7
    assert opens == now or all(closed(days, now + number * step) is not None for number in range(7))


@patient
@given(now=moments, windows=some_windows, denied=some_windows, freezes=some_freezes)
def test_until_the_next_stop_it_stays_open(
    now: datetime, windows: tuple[Window, ...], denied: tuple[Window, ...], freezes: tuple[Freeze, ...]
) -> None:
    days = Calendar(windows=windows, denied=denied, freezes=freezes, zone=BERLIN)
    if closed(days, now) is not None:
        return

    stops = next_stop(days, now)

    step = ((stops or now + timedelta(days=3)) - now) / 7
    assert all(closed(days, now + number * step) is None for number in range(7))
    assert stops is None or stops > now


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        (Freeze(begins="24.12.2026", ends="2026-12-26"), "freeze '24.12.2026': write a day such as 2026-12-20"),
        (Freeze(begins="2026-02-30", ends="2026-12-26"), "freeze '2026-02-30'"),
        (Freeze(begins="2026-12-24T25:00", ends="2026-12-26"), "freeze '2026-12-24T25:00'"),
        (Freeze(begins="2026-12-26", ends="2026-12-24"), "ends before it begins"),
        (Freeze(begins="2026-12-24T18:00", ends="2026-12-24T18:00"), "ends before it begins"),
        (Freeze(begins="2026-12-24", ends="2026-12-24", why="x" * 201), "at most 200"),
    ],
)
def test_a_freeze_that_cannot_be_read_is_one_clear_line(freeze: Freeze, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_freeze(freeze)
    with pytest.raises(ConfigError, match=words):
        check_policy(Policy(freezes=(freeze,)))


def test_one_day_is_a_freeze() -> None:
    assert check_freeze(Freeze(begins="2026-12-24", ends="2026-12-24"))
