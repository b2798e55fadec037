"""One step of the machine beside ``transitions`` alone: the same chart, the same events, in one run.

``transitions`` alone is its hierarchical machine with the chart's states, transitions and conditions, where every
condition is answered with the same words; outrider's step also folds the event into the memory, keeps requests and
timers, and says what is to be done.
"""

import time
from datetime import UTC, datetime

from outrider.core.chart.hierarchy import Hierarchy, Move
from outrider.core.chart.machine import Machine, Snapshot
from outrider.core.sidekick.events import OperatorPaused, OperatorResumed
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.rules import make_rules
from outrider.statechart import load_sidekick_chart

AT = datetime(2026, 1, 1, tzinfo=UTC)


def measure(steps: int) -> tuple[float, float]:
    """Microseconds of one step of outrider's, and of one of ``transitions``'."""
    chart = load_sidekick_chart()
    memory = Memory(instance="a", app="shop", group="beta", scope="turns/shop/beta", strategy="start-first", at=AT)
    resting = Snapshot(state="idle.waiting", history={}, outstanding=(), timers=(), next_request=1, next_generation=1)
    machine = Machine.restore(chart, make_rules({}), memory, resting)
    events = (OperatorPaused(at=AT, revision=1), OperatorResumed(at=AT, revision=1))
    visited = []
    for event in events * 3:  # until it goes in a circle
        before = machine.state
        machine.step(event)
        visited.append((before, event.name))
    circle = visited[-2:]
    assert circle[0][0] != circle[1][0], "the events lead to and fro"
    began = time.thread_time()
    for number in range(steps):
        machine.step(events[number % 2])
    ours_us = (time.thread_time() - began) / steps * 1e6

    hierarchy = Hierarchy(chart)
    alone = hierarchy._machine
    paths = [(chart.path(state), name) for state, name in circle]
    began = time.thread_time()
    for number in range(steps):
        path, name = paths[number % 2]
        move = Move(_leaf=path, ask=lambda condition: condition.wanted, history={})
        alone.trigger_event(move, name)
    return ours_us, (time.thread_time() - began) / steps * 1e6
