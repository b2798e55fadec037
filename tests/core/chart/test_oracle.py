"""Our machine and an independent SCXML engine (python-statemachine) do the same, in the same order."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from outrider.core.chart import hierarchy
from outrider.core.chart.load import Chart, ChartError, RaiseEvent, load_chart
from outrider.core.chart.machine import Hierarchy, Machine
from outrider.statechart import find_sidekick_chart, load_sidekick_chart, read_chart_file
from tests.support.oracle import ChartMaker, Happening, Oracle, difference, random_event, trace_rules
from tests.support.rings import mostly_long

WALKS = 4
EVENTS = 25

Enter = Callable[[Any, Any, Any], None]


def compare(chart: Chart, source: bytes, news: tuple[str, ...], seed: int, walks: int, events: int) -> Counter[str]:
    """Walk both through the chart; counts what was covered, fails at the first difference."""
    guards = frozenset(condition.guard for way in chart.transitions for condition in way.conditions)
    effects = frozenset(item.effect for _, item in chart.contents() if hasattr(item, "effect"))
    shared, oracle, seen = Hierarchy(chart), Oracle(source, guards), Counter[str]()
    rules = trace_rules(chart, guards, effects)
    for walk in range(walks):
        chance = random.Random(f"{seed}/{walk}")
        machine = Machine(chart, rules, frozenset[str](), hierarchy=shared)
        story = ["start"]
        wrong = difference(machine, oracle, machine.start().actions, oracle.start())
        assert not wrong, f"seed {seed}, walk {walk}: {wrong}"
        for _ in range(events):
            event = random_event(chance, news, guards, machine)
            story.append(f"{event.name} {sorted(event.true)}")
            try:
                step = machine.step(event)
            except ChartError:
                seen["endless"] += 1
                break  # the chart raises events forever; the oracle would never come back
            wrong = difference(machine, oracle, step.actions, oracle.step(event))
            assert not wrong, f"seed {seed}, walk {walk}, after {'; '.join(story)}: {wrong}\n{source.decode()}"
            seen["steps"] += 1
            seen["moves"] += step.handled
            seen["restored"] += bool(machine.snapshot().history)
    return seen


@pytest.mark.parametrize("first_seed", mostly_long(range(0, 50, 5), short=lambda seed: seed == 0))
def test_random_charts_do_the_same_in_the_same_order_as_another_engine(first_seed: int) -> None:
    seen = walk_random_charts(range(first_seed, first_seed + 5))

    assert seen["steps"] > 300, seen
    assert seen["moves"] > 175, seen
    for kind in ("histories", "dones", "finals", "restored", "abstract"):
        assert seen[kind] > 2, seen


def walk_random_charts(seeds: Iterable[int]) -> Counter[str]:
    """Compare on the charts of these seeds; counts what was covered."""
    seen = Counter[str]()
    for seed in seeds:
        made = ChartMaker(seed)
        chart = load_chart(made.source, f"random-{seed}.scxml", made.vocabulary)
        assert max(state.id.count(".") for state in chart.states.values()) == 3
        seen += compare(chart, made.source, made.news, seed, WALKS, EVENTS)
        seen["histories"] += len(chart.histories)
        seen["dones"] += sum(event.startswith("done.state.") for way in chart.transitions for event in way.events)
        seen["abstract"] += sum(state.abstract for state in chart.states.values())
        seen["finals"] += sum(state.final for state in chart.states.values())
    return seen


@pytest.mark.parametrize("seed", mostly_long(range(8), short=lambda seed: seed == 0))
def test_the_sidekicks_chart_does_the_same_as_in_another_engine(seed: int) -> None:
    chart, source = load_sidekick_chart(), read_chart_file(find_sidekick_chart())
    timers = {timer.event for _, timer in chart.contents() if hasattr(timer, "timer") and hasattr(timer, "event")}
    # what the chart raises itself comes with no news: the oracle would be told of guards that our memory isn't
    raised = {item.event for _, item in chart.contents() if isinstance(item, RaiseEvent)}
    news = tuple(sorted(event for event in chart.events - timers - raised if not event.startswith("done.state.")))

    seen = compare(chart, source, news, seed, walks=1, events=300)

    assert seen["moves"] > 50, seen


def enters_from_the_inside(enter: Enter) -> Enter:
    return lambda machine, entered, work: enter(machine, list(entered)[::-1], work)


def finishes_the_grandparent(enter: Enter) -> Enter:
    """What ``on_final`` of transitions would do."""

    def wrong(machine: Machine[frozenset[str]], entered: list[str], work: Any) -> None:
        enter(machine, entered, work)
        for state in entered:
            parent = machine.chart.states[state].parent.rpartition(".")[0]
            if machine.chart.states[state].final and f"done.state.{parent}" in machine.chart.events:
                work.raised.append((Happening(name=f"done.state.{parent}"), 0))

    return wrong


@pytest.mark.parametrize("fault", [enters_from_the_inside, finishes_the_grandparent])
def test_a_fault_in_the_machine_is_noticed(fault: Callable[[Enter], Enter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "_enter", fault(Machine._enter))

    with pytest.raises(AssertionError, match="ours"):
        walk_random_charts(range(20))


def test_a_fault_in_the_mapping_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "remembered_child", lambda history, leaf: leaf)  # every history is a deep one

    with pytest.raises(AssertionError, match="ours"):
        walk_random_charts(range(16, 18))
