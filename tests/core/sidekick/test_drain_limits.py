"""A drain has a limit, counted from when it was said: waiting for a turn counts, too, and so do restarts (P7)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from outrider.core.chart.machine import Machine, StartTimer, Step
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import RaiseAlarm
from outrider.core.sidekick.rules import make_rules
from outrider.core.sidekick.words import why
from tests.core.sidekick.test_sidekick import CHART, NOON, TURN, Sidekick, effect, effects

FOR_S, ALARM_S = 1800.0, 3600.0


class Later(Sidekick):
    """One whose time passes; it is told at once to drain."""

    def __init__(self, kind: type[Any] = ev.OperatorDrained, **facts: Any) -> None:
        super().__init__()
        self.come_up()
        self.rules = make_rules({"overdue": ALARM_S})
        self.machine = Machine.restore(CHART, self.rules, self.memory, self.machine.snapshot())
        self.passed_s = 0.0
        self.told = self.tell(kind, update="d1", **facts)

    def tell(self, kind: type[Any], /, **facts: Any) -> Step:
        at = NOON + timedelta(seconds=getattr(self, "passed_s", 0.0))
        return self._note(self.machine.step(kind(at=at, **facts)))

    def passes(self, event: str, after_s: float) -> Step:
        """A timer expires so much later than what happened last."""
        self.passed_s += after_s
        return self.tell(ev.TimerExpired, name=event, generation=self.timers[event])

    @property
    def words(self) -> str:
        return why(self.memory, CHART.states[self.machine.state].why)


def delay_of(step: Step, event: str) -> float:
    (found,) = [one.delay_s for one in step.actions if isinstance(one, StartTimer) and one.event == event]
    return found


def test_a_drain_that_waits_for_its_turn_raises_an_alarm_and_says_how_long_it_was_to_take() -> None:
    sidekick = Later(for_s=FOR_S)
    assert FOR_S == delay_of(sidekick.told, "overdue.expired")

    step = sidekick.passes("overdue.expired", FOR_S + 0.1)

    assert "idle.retaking" == step.target
    assert "it must leave the balancer, and has no turn for it yet" == effect(step, RaiseAlarm).cause
    assert sidekick.words.endswith("; it was to take 30 min")
    assert FOR_S - 0.1 == pytest.approx(delay_of(step, "overdue.expired")), "and again when that has passed once more"


def test_asking_again_for_the_turn_does_not_put_the_alarm_off() -> None:
    sidekick = Later(for_s=FOR_S)

    for _ in range(100):
        step = sidekick.passes("relock.expired", 10.0)

    assert FOR_S - 1000.0 == pytest.approx(delay_of(step, "overdue.expired"))
    assert "sidekick.alarm" not in effects(step)
    assert "it was to take" not in sidekick.words


def test_nor_does_a_restart() -> None:
    sidekick = Later(for_s=FOR_S)
    sidekick.passed_s = 1000.0

    step = sidekick.tell(ev.SidekickRestarted)

    assert FOR_S - 1000.0 == pytest.approx(delay_of(step, "overdue.expired"))


def test_a_clock_that_is_a_little_fast_raises_no_second_alarm() -> None:
    sidekick = Later(for_s=FOR_S)

    step = sidekick.passes("overdue.expired", FOR_S - 0.5)

    assert FOR_S + 0.5 == pytest.approx(delay_of(step, "overdue.expired"))


def test_the_wait_counts_for_the_rest_out_of_the_balancer() -> None:
    sidekick = Later(for_s=FOR_S)
    sidekick.passed_s = 1200.0
    sidekick.answer("lock.retake", ev.LockAcquired, turn=TURN)
    sidekick.answer("balancer.leave", ev.BalancerLeft)

    step = sidekick.answer("balancer.drain", ev.BalancerDrained, how="asked")

    assert "idle.drained" == step.target
    assert 600.0 == pytest.approx(delay_of(step, "drained.expired"))


def test_one_that_leaves_for_good_has_the_limit_of_the_settings() -> None:
    sidekick = Later(ev.OperatorDecommissioned, revision=7)

    assert ALARM_S == delay_of(sidekick.told, "overdue.expired")
    assert "sidekick.alarm" in effects(sidekick.passes("overdue.expired", ALARM_S))


@pytest.mark.parametrize("for_s", [0.5, 1.0, 60.0, 1e9])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999999, 1.0, 7.5])
def test_no_limit_makes_it_ask_without_a_pause(for_s: float, share: float) -> None:
    sidekick = Later(for_s=for_s)
    sidekick.passed_s = for_s * share

    step = sidekick.tell(ev.LockLost, why="it ended")

    assert min(1.0, for_s / 2) <= delay_of(step, "overdue.expired") <= for_s + 1.0


def test_the_clock_set_back_does_not_put_it_off_for_longer_than_the_limit() -> None:
    sidekick = Later(for_s=FOR_S)
    sidekick.machine = Machine.restore(
        CHART,
        sidekick.rules,
        replace(sidekick.memory, drain=replace(sidekick.memory.drain, since=NOON + timedelta(days=3))),  # type: ignore[type-var]
        sidekick.machine.snapshot(),
    )

    assert delay_of(sidekick.passes("relock.expired", 10.0), "overdue.expired") <= FOR_S + 1.0
