"""When updates may begin: windows, windows in which they may not, and freezes, together.

A *freeze* is a time in the calendar, such as the days around a holiday; a *deny window* comes every week.
Where they overlap, what forbids counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal

from outrider.core.errors import ConfigError
from outrider.core.rollout.windows import Window, closing_time, instant, is_open, next_opening

MAX_FREEZES = 50
MAX_WHY = 200
HORIZON = timedelta(days=400)
"""How far the next time is looked for at which updates may begin."""
_TWO_WEEKS = timedelta(days=15)
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT = re.compile(rf"({_DAY})(?:[T ](([01][0-9]|2[0-3]):[0-5][0-9]))?")

Obstacle = Literal["windows", "deny-windows", "freezes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A time in which no update begins.

    Attributes:
        begins: A day, ``2026-12-20``, or a minute, ``2026-12-20T18:00``, on the wall clock of the policy's zone.
        ends: The same; a day is the last one that is frozen, a minute isn't.
        why: For people.
    """

    begins: str
    ends: str
    why: str = ""

    def __str__(self) -> str:
        """As a person would write it: ``2026-12-20 to 2027-01-03 (holidays)``."""
        return f"{self.begins} to {self.ends}" + (f" ({self.why})" if self.why else "")

    def span(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """Its begin and its end, aware UTC; the end isn't included."""
        (first, from_minute), (last, to_minute) = _moment(self.begins), _moment(self.ends)
        end = (last, 24 * 60) if to_minute is None else (last, to_minute)
        return instant(first, from_minute or 0, zone, fold=0), instant(*end, zone, fold=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """What a policy says of times.

    Attributes:
        windows: Updates begin only inside them; none: at any time.
        denied: Weekly windows in which no update begins.
        freezes: Times in which no update begins.
        zone: Of all of them.
    """

    windows: tuple[Window, ...]
    denied: tuple[Window, ...]
    freezes: tuple[Freeze, ...]
    zone: tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """No update begins now.

    Attributes:
        by: The setting that forbids it.
        why: Its text, for people.
        opens: When updates may begin again, aware UTC; None: not within ``HORIZON``.
    """

    by: Obstacle
    why: str
    opens: datetime | None


def check_freeze(freeze: Freeze) -> Freeze:
    """Return a freeze that can be used.

    Raises:
        ConfigError: an end isn't a day or a minute, or it ends before it begins.
    """
    (first, from_minute), (last, to_minute) = _moment(freeze.begins), _moment(freeze.ends)
    to = 24 * 60 if to_minute is None else to_minute
    if (last, to) <= (first, from_minute or 0):
        raise ConfigError(f"freeze {freeze}: it ends before it begins")
    if len(freeze.why) > MAX_WHY:
        raise ConfigError(f"freeze {freeze.begins}: why has {len(freeze.why)} characters; at most {MAX_WHY}")
    return freeze


def closed(calendar: Calendar, now: datetime) -> Closed | None:
    """Why no update may begin at ``now``, None when it may; a freeze is named before a deny window."""
    zone, opens = calendar.zone, next_start(calendar, now)
    frozen = [(end, freeze) for freeze, (begin, end) in _spans(calendar) if begin <= now < end]
    if frozen:
        return Closed(by="freezes", why=str(max(frozen, key=lambda one: one[0])[1]), opens=opens)
    if calendar.denied and is_open(calendar.denied, zone, now):
        return Closed(by="deny-windows", why="; ".join(map(str, calendar.denied)), opens=opens)
    if not is_open(calendar.windows, zone, now):
        return Closed(by="windows", why="; ".join(map(str, calendar.windows)), opens=opens)
    return None


def next_start(calendar: Calendar, now: datetime) -> datetime | None:
    """The first time from ``now`` on at which updates may begin; None within ``HORIZON``."""
    at, thawed, zone = now, now, calendar.zone
    while at <= now + HORIZON:
        frozen_until = max((end for _, (begin, end) in _spans(calendar) if begin <= at < end), default=None)
        if frozen_until is not None:
            at = thawed = frozen_until
            continue
        if at - thawed > _TWO_WEEKS:
            return None  # every week is like the last one
        after: datetime | None
        if calendar.denied and is_open(calendar.denied, zone, at):
            after = closing_time(calendar.denied, zone, at)
        elif not is_open(calendar.windows, zone, at):
            after = next_opening(calendar.windows, zone, at)
        else:
            return at
        if after is None:
            return None
        at = after
    return None


def next_stop(calendar: Calendar, now: datetime) -> datetime | None:
    """When updates, which may begin at ``now``, may begin no more; None: nothing known stops them."""
    stops = [begin for _, (begin, _) in _spans(calendar) if begin > now]
    for at in (closing_time(calendar.windows, calendar.zone, now), next_opening(calendar.denied, calendar.zone, now)):
        if at is not None:
            stops.append(at)
    return min(stops, default=None)


def _spans(calendar: Calendar) -> Iterable[tuple[Freeze, tuple[datetime, datetime]]]:
    return ((freeze, freeze.span(calendar.zone)) for freeze in calendar.freezes)


def _moment(text: str) -> tuple[date, int | None]:
    """The day, and the minute of the day if there is one."""
    match = _MOMENT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        day = date.fromisoformat(match[1])
        if not 1971 <= day.year <= 9000:
            raise ValueError(text)
    except ValueError:
        raise ConfigError(f"freeze {text!r}: write a day such as 2026-12-20, or 2026-12-20T18:00") from None
    if match[2] is None:
        return day, None
    at = time.fromisoformat(match[2])
    return day, at.hour * 60 + at.minute


ALWAYS = Calendar(windows=(), denied=(), freezes=(), zone=UTC)
"""Updates may begin at any time."""
