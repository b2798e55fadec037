"""The base of all events, and the events that the chart raises itself. ``events`` has them all."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: When, aware UTC. For people and reports: no guard looks at it.
        request: The request it answers; None for news.
        generation: Only timers have one.
        final: An answer that isn't final leaves its request open.
    """

    name: ClassVar[str]
    final: ClassVar[bool] = True
    at: datetime
    request: int | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SidekickSettled(Event):
    """Raised by the chart on coming to rest: is there work already?"""

    name: ClassVar[str] = "sidekick.settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCommitted(Event):
    """Raised by the chart at the point of no return: the candidate is now what runs."""

    name: ClassVar[str] = "release.committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateExposed(Event):
    """Raised by the chart: from here on the balancer may send to the candidate."""

    name: ClassVar[str] = "update.exposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFailed(Event):
    """Raised by the chart: the update is being undone; the trouble met last is why."""

    name: ClassVar[str] = "update.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateJudged(Event):
    """Raised by the chart: all is known that there is to report."""

    name: ClassVar[str] = "update.judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateEnded(Event):
    """Raised by the chart on coming home: no update is under way."""

    name: ClassVar[str] = "update.ended"
