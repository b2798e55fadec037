"""What the names in the chart mean: the tables of guards, effects and raised events, put together.

Guards are in ``guards.py``, effect builders in ``builders.py``; how events change the memory is in ``remember.py``,
what a person is told in ``words.py``.
"""

from collections.abc import Callable, Mapping

from outrider.core.chart.load import Vocabulary
from outrider.core.chart.machine import Rules
from outrider.core.sidekick.builders import EFFECTS
from outrider.core.sidekick.effects import ANSWERED, EFFECT_TYPES
from outrider.core.sidekick.events import (
    TIMERS,
    Event,
    ReleaseCommitted,
    SidekickSettled,
    UpdateEnded,
    UpdateExposed,
    UpdateFailed,
    UpdateJudged,
)
from outrider.core.sidekick.guards import GUARDS
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.remember import EVENT_NAMES, remember

__all__ = ["EFFECTS", "GUARDS", "INTERNAL", "VOCABULARY", "make_rules"]


def _raised(kind: type[Event]) -> Callable[[Memory], Event]:
    return lambda memory: kind(at=memory.at)


INTERNAL: Mapping[str, Callable[[Memory], Event]] = {
    kind.name: _raised(kind)
    for kind in (SidekickSettled, ReleaseCommitted, UpdateExposed, UpdateFailed, UpdateJudged, UpdateEnded)
}
"""Events that the chart raises itself, at the time of the event that caused them."""

VOCABULARY = Vocabulary(
    events=EVENT_NAMES | TIMERS,
    effects=frozenset(EFFECTS),
    guards=frozenset(GUARDS),
    answers={name: frozenset(event.name for event in EFFECT_TYPES[name].answered_by) for name in ANSWERED},
)


_SAME_MOMENT_S = 1.0
"""A timer and the time of day may differ by so much: that is no second limit that has passed."""


def make_rules(delays: Mapping[str, float], retry_min_s: float = 5.0, retry_max_s: float = 600.0) -> Rules[Memory]:
    """Put the tables together with an operator's settings.

    Args:
        delays: Timer id of the chart -> seconds, in place of the chart's own delay.
        retry_min_s: First pause after a failed update; it doubles with each failure in a row.
        retry_max_s: Longest such pause.
    """

    def delay(memory: Memory, timer: str, delay_s: float) -> float:
        if timer == "retry":
            backoff_s = min(retry_max_s, retry_min_s * 2.0 ** max(0, min(memory.failures, 30) - 1))
            return max(backoff_s, memory.retry_after_s)
        if timer in ("drained", "overdue") and memory.drain is not None:
            return _until_late(memory, memory.drain.for_s or delays.get(timer, delay_s))
        if timer in ("poll", "poll-deferred") and memory.poll_interval_s:
            return memory.poll_interval_s
        if timer == "fetch":
            return min(retry_max_s, delays.get(timer, delay_s) * 2.0 ** max(0, memory.attempts - 1))
        return delays.get(timer, delay_s)

    return Rules(
        guards=GUARDS,
        effects=EFFECTS,
        remember=remember,
        internal=INTERNAL,
        delays=delay,
        answered=ANSWERED,
    )


def _until_late(memory: Memory, limit_s: float) -> float:
    """Seconds until a drain has taken ``limit_s`` since it was said, or again as long, however often it began anew."""
    assert memory.drain is not None, "the caller has looked"
    left_s = limit_s - (memory.at - memory.drain.since).total_seconds() % limit_s
    return left_s if left_s >= min(_SAME_MOMENT_S, limit_s / 2) else left_s + limit_s
