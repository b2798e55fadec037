"""How long the steps of an update take: by what the group's instances have reported, or by the defaults.

The rows of the instances keep the events of their last updates with the service's times: the download began, it is on
disk, the instance waits for its turn, it has come to the new version. How long a turn took is not among them; it
follows from the order of the ends: a turn begins when its instance waits and one of the slots is free.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from outrider.config.sections import DrainSettings, ProbeSettings, SoakSettings
from outrider.core.sidekick.memory import Strategy

DOWNLOADING, QUEUEING, DONE, FAILED = "13:1", "800:1", ("3:1", "3:2"), "3:0"
"""Events of a sidekick, as type and result (``core.omaha.events``)."""

MOST_MEASURED = 200
"""The newest updates that are looked at."""
TOGETHER = timedelta(hours=6)
"""Updates that began waiting further apart belong to different rollouts."""

_PROBE, _DRAIN, _SOAK = ProbeSettings(), DrainSettings(), SoakSettings()

COMMON_S: Mapping[str, float] = {
    "probe.start": _PROBE.interval_s * (_PROBE.successes - 1) + 0.2,
    "balancer.drain": _DRAIN.wait_s + 2.0,
    "soak": _SOAK.duration_s,
    "workload.retire": 1.0,
    "lock.release": 0.05,
}
BY_STRATEGY_S: Mapping[Strategy, Mapping[str, float]] = {
    "start-first": {"workload.start": 1.0, "balancer.switch": 0.1},
    "stop-first": {"balancer.leave": 0.1, "workload.replace": 2.0, "balancer.join": 0.1},
}
"""Steps of a turn, by the effect or timer that takes the time, in seconds: the defaults of the settings, and guesses
where the app decides."""
DOWNLOAD_S = 5.0
SPREAD = 0.1
"""Share by which a default may be off to both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update that an instance has reported, aware UTC."""

    instance: str
    began: datetime | None
    waited: datetime
    ended: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """What a run draws from, in seconds.

    Attributes:
        turn_s: How long turns took, from taking it to the next one's chance; empty: nothing was measured.
        prepare_s: How long it took from the begin of the download until the instance waited for its turn.
    """

    turn_s: tuple[float, ...] = ()
    prepare_s: tuple[float, ...] = ()

    def words(self, strategy: Strategy) -> tuple[str, ...]:
        """What was measured and what was assumed, a line each."""
        parts = steps_of(strategy)
        if self.turn_s:
            turn = (
                f"a turn takes {statistics.median(self.turn_s):.1f} s: the median of {len(self.turn_s)} updates of this"
                f" group, {min(self.turn_s):.1f} to {max(self.turn_s):.1f} s; its steps share it as the defaults do"
            )
        else:
            named = ", ".join(f"{name} {seconds:g} s" for name, seconds in parts.items())
            turn = f"no update of this group is on record, so a turn takes {sum(parts.values()):.1f} s: {named}"
        if self.prepare_s:
            prepare = f"download and checks take {statistics.median(self.prepare_s):.1f} s, as measured"
        else:
            prepare = f"download and checks take {DOWNLOAD_S:g} s (default)"
        return turn, prepare

    def draw(self, strategy: Strategy, random: Random) -> Mapping[str, float]:
        """The seconds of each step of one update of one instance; ``prepare`` is what comes before the turn."""
        parts = steps_of(strategy)
        if self.turn_s:
            factor = random.choice(self.turn_s) / sum(parts.values())
        else:
            factor = random.uniform(1 - SPREAD, 1 + SPREAD)
        prepare_s = random.choice(self.prepare_s) if self.prepare_s else DOWNLOAD_S * random.uniform(0.5, 1.5)
        return {name: seconds * factor for name, seconds in parts.items()} | {"prepare": prepare_s}


def steps_of(strategy: Strategy) -> Mapping[str, float]:
    """The default seconds of the steps of a turn."""
    return {**COMMON_S, **BY_STRATEGY_S[strategy]}


def measured(updates: Iterable[Update], slots: int) -> Durations:
    """What the reported updates say.

    Args:
        slots: Turns that there were at once; with another number than then, the turns come out too long or too short.
    """
    newest = sorted(updates, key=lambda one: one.ended)[-MOST_MEASURED:]
    turns: list[float] = []
    free: list[datetime] = []  # when each slot came free, as far as it is known in this rollout
    before: datetime | None = None
    for one in newest:
        if before is None or one.ended - before > TOGETHER:
            free = []
        before = one.ended
        began = one.waited
        if len(free) >= slots:
            free.sort()
            began = max(began, free.pop(0))
        free.append(one.ended)
        turns.append((one.ended - began).total_seconds())
    prepare = ((one.waited - one.began).total_seconds() for one in newest if one.began is not None)
    return Durations(
        turn_s=tuple(seconds for seconds in turns if seconds > 0),
        prepare_s=tuple(seconds for seconds in prepare if seconds >= 0),
    )


def updates_in(instance: str, history: Sequence[tuple[datetime, str]]) -> list[Update]:
    """The updates that ended well in the events of one instance, oldest first: when, and ``type:result``."""
    found: list[Update] = []
    began: datetime | None = None
    waited: datetime | None = None
    for at, event in history:
        if event == DOWNLOADING:
            began, waited = at, None
        elif event == QUEUEING:
            waited = at
        elif event in DONE and waited is not None:
            found.append(Update(instance=instance, began=began, waited=waited, ended=at))
            began = waited = None
        elif event == FAILED:
            began = waited = None
    return found
