"""Update windows: weekly times of day in a zone, safe over changes of daylight saving time.

A window is named by the day on which it opens. Both ends are times on the wall clock; what they mean in UTC is worked
out for each day anew. A clock set forward may skip an end, which then comes that much later (02:30 becomes 03:30). A
clock set back repeats an hour, and a window takes both passes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from outrider.core.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
MAX_WINDOWS = 50
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*){0,3}")
_MIDNIGHT_AFTER = "24:00"
KNOWN_ZONE = "Etc/GMT-14"
"""Every time zone database has it."""
NO_ZONES = "this machine has no time zone data; install the Python package tzdata, or the system's"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When updates may start.

    Attributes:
        days: On which it opens; none means every day.
        opens: ``HH:MM``.
        closes: ``HH:MM``, not included; at or before ``opens`` it is on the next day. ``24:00`` is the day's end.
    """

    days: tuple[Day, ...] = ()
    opens: str = "00:00"
    closes: str = _MIDNIGHT_AFTER

    def __str__(self) -> str:
        """As a person would write it: ``mon,tue 22:00-04:00``."""
        return f"{','.join(self.days) or 'daily'} {self.opens}-{self.closes}"

    @property
    def length(self) -> timedelta:
        """How long it is open, on a day without a change of the clock."""
        opens, closes = _minutes(self.opens), _minutes(self.closes)
        return timedelta(minutes=closes - opens if closes > opens else closes - opens + 24 * 60)


def check_window(window: Window) -> Window:
    """Return a window that can be used.

    Raises:
        ConfigError: a time isn't ``HH:MM``, or a day is named twice or isn't one.
    """
    if not _TIME.fullmatch(window.opens):
        raise ConfigError(f"window opens {window.opens!r}: write HH:MM, for example 22:00")
    if window.closes != _MIDNIGHT_AFTER and not _TIME.fullmatch(window.closes):
        raise ConfigError(f"window closes {window.closes!r}: write HH:MM, for example 04:00, or 24:00")
    unknown = [day for day in window.days if day not in DAYS]
    if unknown or len(set(window.days)) < len(window.days):
        raise ConfigError(f"window days {', '.join(window.days)}: each of {', '.join(DAYS)} once at most")
    return window


@lru_cache(maxsize=256)
def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name such as ``Europe/Berlin``.

    Raises:
        ConfigError: this machine's time zone database doesn't have it, or there is none.
    """
    if name == "UTC":
        return UTC
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if name != KNOWN_ZONE and has_no_zones():
            raise ConfigError(f"time zone {name!r}: {NO_ZONES}") from None
        raise ConfigError(f"time zone {name!r}: unknown; write an IANA name, for example Europe/Berlin") from None


def has_no_zones() -> bool:
    """Whether this machine has no time zone database, neither the system's nor the package ``tzdata``."""
    try:
        zone_of(KNOWN_ZONE)
    except ConfigError:
        return True
    return False


def is_open(windows: Iterable[Window], zone: tzinfo, now: datetime) -> bool:
    """Whether one of the windows is open at ``now``; without windows it is always open."""
    every = tuple(windows)
    return not every or any(
        begin <= now < end for window in every for begin, end in _openings(window, zone, now, days_ahead=0)
    )


def next_opening(windows: Iterable[Window], zone: tzinfo, now: datetime) -> datetime | None:
    """When the next window opens after ``now``, aware UTC; None without windows."""
    begins = (begin for window in windows for begin, _ in _openings(window, zone, now, days_ahead=8) if begin > now)
    return min(begins, default=None)


def closing_time(windows: Iterable[Window], zone: tzinfo, now: datetime) -> datetime | None:
    """When the windows that are open at ``now`` have closed, aware UTC; None without windows, or when none is open.

    Windows that overlap or follow one another without a gap count as one.
    """
    every = sorted(opening for window in windows for opening in _openings(window, zone, now, days_ahead=8))
    closes: datetime | None = None
    for begin, end in every:
        if begin <= (closes or now) and end > (closes or now):
            closes = end
    return closes


def _openings(window: Window, zone: tzinfo, now: datetime, *, days_ahead: int) -> Iterable[tuple[datetime, datetime]]:
    """Begin and end in UTC of the openings that may matter: from yesterday's on, and ``days_ahead`` more days."""
    today = now.astimezone(zone).date()
    for number in range(-1, days_ahead + 1):
        day = today + timedelta(days=number)
        if window.days and DAYS[day.weekday()] not in window.days:
            continue
        closes = _minutes(window.closes)
        last_day = day if closes > _minutes(window.opens) else day + timedelta(days=1)
        begin, end = instant(day, _minutes(window.opens), zone, fold=0), instant(last_day, closes, zone, fold=1)
        if begin < end:  # an end that a gap has moved before the begin leaves nothing of the window
            yield begin, end


def instant(day: date, minutes: int, zone: tzinfo, *, fold: int) -> datetime:
    """A minute of a day on the wall clock, aware UTC; of an hour that comes twice, ``fold`` 1 is the second pass."""
    if minutes == 24 * 60:
        day, minutes = day + timedelta(days=1), 0
    local = datetime.combine(day, time(minutes // 60, minutes % 60), tzinfo=zone)
    # In a gap fold 0 counts by the clock before it, which is the later moment; in a repeated hour fold 1 is the later.
    late = local.replace(fold=0).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        return late
    return local.replace(fold=fold).astimezone(UTC)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)
