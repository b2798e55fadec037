"""Frames of a rollout, as CoreUpdate has them: the group's percentage as a row of steps in time.

Nothing runs them: a frame is looked up by the time since they were activated. So they go on while every process of the
service is down, and any number of processes agree.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from outrider.core.errors import ConfigError

MAX_FRAMES = 2000
"""updateservicectl's own default is 1441: a day in steps of a minute."""
MAX_FRAMES_S = 90 * 86_400


class Frame(NamedTuple):
    """``percent`` of the instances may update while it lasts; the last one holds for good."""

    duration_s: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFrames:
    """Frames that were activated ``since``; at least one."""

    frames: tuple[Frame, ...]
    since: datetime

    @property
    def end(self) -> datetime:
        """When the last percentage is reached."""
        return self.since + timedelta(seconds=length_s(self.frames))

    def number_at(self, now: datetime) -> int:
        """Which frame it is, from 0."""
        left_s = (now - self.since).total_seconds()
        for number, frame in enumerate(self.frames[:-1]):
            if left_s < frame.duration_s:
                return number
            left_s -= frame.duration_s
        return len(self.frames) - 1

    def percent_at(self, now: datetime) -> float:
        """The percentage now."""
        return self.frames[self.number_at(now)].percent

    def is_over(self, now: datetime) -> bool:
        """Whether the last percentage is reached."""
        return now >= self.end

    def reaches(self, percent: float, now: datetime) -> datetime | None:
        """When an instance at ``percent`` may update; None: the frames never get there."""
        begin = self.since
        first = self.number_at(now)
        for number, frame in enumerate(self.frames):
            if number >= first and percent < frame.percent:
                return max(begin, now)
            begin += timedelta(seconds=frame.duration_s)
        return None


def length_s(frames: Iterable[Frame]) -> int:
    """Seconds until the last percentage is reached: the last frame's own duration doesn't count."""
    return sum(frame.duration_s for frame in tuple(frames)[:-1])


def check_frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Return frames that can be carried out.

    Raises:
        ConfigError: none or too many, a number out of its range, or a percentage below the one before.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ConfigError(f"rollout: {len(frames)} frames; give 1 to {MAX_FRAMES}")
    for number, frame in enumerate(frames):
        if not 0 <= frame.percent <= 100.0001:  # updateservicectl adds up steps, and ends a hair above 100
            raise ConfigError(f"rollout: frame {number}: percent {frame.percent:g}: must be 0 to 100")
        if frame.duration_s < 0 or (frame.duration_s == 0 and number < len(frames) - 1):
            raise ConfigError(f"rollout: frame {number}: duration {frame.duration_s}: write whole seconds, 1 or more")
    for number, (before, after) in enumerate(pairwise(frames), start=1):
        if after.percent < before.percent - 0.0001:
            raise ConfigError(
                f"rollout: frame {number}: {after.percent:g} % is less than the {before.percent:g} % before it; an"
                " update that has begun isn't taken back, so percentages only rise"
            )
    if length_s(frames) > MAX_FRAMES_S:
        raise ConfigError(f"rollout: {length_s(frames)} seconds; at most {MAX_FRAMES_S} (90 days)")
    return tuple(Frame(frame.duration_s, min(frame.percent, 100.0)) for frame in frames)
