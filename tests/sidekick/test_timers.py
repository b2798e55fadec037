"""How the loop arms the chart's timers: polls and retries of a fleet don't come in step, everything else is exact."""

import pytest

from outrider.core.chart.step import StartTimer
from outrider.sidekick.loop import SPREAD_TIMERS, Sidekick


def armed_after(timer: str) -> list[float]:
    """Seconds after which each of 50 sidekicks has such a timer run out, when the chart says 300."""
    found = []
    for _ in range(50):
        loop = Sidekick.__new__(Sidekick)
        loop._timers, loop._due, loop._clock = [], {}, lambda: 1000.0
        loop._arm(StartTimer(id=timer, generation=1, event="poll.due", delay_s=300.0))
        ((at_s, _, _),) = loop._timers
        found.append(at_s - 1000.0)
    return found


@pytest.mark.parametrize("timer", sorted(SPREAD_TIMERS))
def test_polls_and_retries_are_late_by_up_to_a_fifth_each_by_another_time(timer: str) -> None:
    after_s = armed_after(timer)

    assert all(300.0 <= one <= 360.0 for one in after_s)
    assert len(set(after_s)) > 40
    assert max(after_s) - min(after_s) > 20.0


def test_a_deadline_is_exact() -> None:
    assert {300.0} == set(armed_after("deadline"))
