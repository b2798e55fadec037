"""Puts the parts together: which configurations are checked, and what comes out of each."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from outrider.core.chart.model import Chart
from outrider.core.rollout.budgets import Budget
from outrider.core.sidekick.memory import Strategy
from outrider.verify.explore import Explored, explore
from outrider.verify.fleet import FleetResult, Looks, Racks, explore_fleet
from outrider.verify.jobs import in_processes
from outrider.verify.steps import Steps
from outrider.verify.story import tell, tell_fleet
from outrider.verify.world import WORDS, Badness, Setting, Word, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One thing to check.

    Attributes:
        sizes: Fleets: numbers of sidekicks and slots.
        racks: Fleets with labels and a budget, besides, each with its number of slots.
    """

    strategy: Strategy
    setting: Setting
    sizes: tuple[tuple[int, int], ...]
    racks: tuple[tuple[Racks, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out of one configuration.

    Attributes:
        states, edges: Of one sidekick and its world.
        took_s: Seconds by the clock, in its own process.
        steps: Of the chart, each taken by the real machine; what another configuration took before counts, too.
        looks: States of one sidekick as the others see it.
        fleets: One for each size.
        leaves: Those of the chart that a sidekick was in.
        transitions: Those of the chart that were taken, by line; what another configuration took counts, too.
        promise: The broken one, in words; empty when all hold.
        story: The way there, line by line.
    """

    configuration: Configuration
    states: int
    edges: int
    took_s: float
    steps: int
    looks: int
    fleets: tuple[FleetResult, ...] = ()
    leaves: frozenset[str] = frozenset()
    transitions: frozenset[int] = frozenset()
    promise: str = ""
    story: tuple[str, ...] = ()


STRATEGIES: tuple[Strategy, ...] = ("start-first", "stop-first")
BADNESS: tuple[Badness, ...] = ("none", "refused", "unhealthy", "dies", "unfit", "local")

CALM = Setting(late_limit=0, words=0)
"""Crashes, pauses, lapsed leases and lost answers, but nothing that is counted."""


def _plan(
    settings: Sequence[Setting],
    *,
    sidekicks: int,
    most_slots: int,
    stop_first: Sequence[Setting] = (),
    racks: tuple[tuple[Racks, int], ...] = (),
) -> tuple[Configuration, ...]:
    """``racks``: explored with a release that is refused, and with a drain: there every turn ends in every way."""
    sizes = tuple((count, slots) for slots in range(1, most_slots + 1) for count in range(1, sidekicks + 1))
    return tuple(
        Configuration(strategy=strategy, setting=setting, sizes=sizes, racks=racks if _has_racks(setting) else ())
        for strategy in STRATEGIES
        for setting in (*settings, *(stop_first if strategy == "stop-first" else ()))
    )


def _has_racks(setting: Setting) -> bool:
    """Where few states of a sidekick can be told apart from outside; the budgets are the same everywhere."""
    return (setting.badness == "refused" and not setting.words) or (setting.words == 1 and setting.says == ("drain",))


def _each(setting: Setting) -> tuple[Setting, ...]:
    return tuple(replace(setting, badness=badness) for badness in BADNESS)


def _said(*says: Word, badness: Badness = "none", words: int = 1) -> Setting:
    """Operators speak; what comes late is late by one effect less then, or the states were too many."""
    return replace(CALM, badness=badness, words=words, says=says, waiting=1)


_RACKS: tuple[tuple[Racks, int], ...] = (
    (Racks(of=("a", "a", "b"), budget=Budget(label="rack", max_out=1)), 2),
    (Racks(of=("a", "a", "a"), budget=Budget(label="rack", min_serving=2)), 2),
)
"""Fleets with labels: two of three in one rack, of which one may be out; and a floor under all three."""
_MORE_RACKS: tuple[tuple[Racks, int], ...] = (
    (Racks(of=("a", "a", "b", "b"), budget=Budget(label="rack", max_out=1)), 3),
    (Racks(of=("a", "a", ""), budget=Budget(label="rack", max_out=1, min_serving=1)), 3),
)

_REPEATABLE = replace(CALM, tasked=True, repeatable=True, lost="again", waiting=0)
_CONTRACT, _ENVIRONMENT = replace(CALM, contracts=True, waiting=0), replace(CALM, environment=True, waiting=0)
_ANALYSED = replace(CALM, analysis="pause")
_LATE, _FALL = replace(CALM, late_limit=1), replace(CALM, falls=1, waiting=1)
_TOO_MUCH: tuple[tuple[Badness, Word], ...] = (("dies", "release"),)
"""With start-first three sidekicks fill the memory. An app that falls alone has more than ``STATE_LIMIT`` there: two
workloads, each with the addresses that it has had."""

PLANS: Mapping[str, tuple[Configuration, ...]] = {
    "small": _plan(_each(CALM), sidekicks=3, most_slots=2),
    "usual": _plan(
        [
            *_each(CALM),
            _said("pause"),
            _said("rollback", badness="unhealthy"),
            _said("target"),
            _said("brake"),
            replace(CALM, tasked=True, waiting=1),
        ],
        sidekicks=3,
        most_slots=2,
        stop_first=[
            _LATE,
            _ANALYSED,
            _said("drain"),
            _REPEATABLE,
            _CONTRACT,
            replace(_ENVIRONMENT, badness="unhealthy"),
        ],
        racks=_RACKS,
    ),
    "large": _plan(
        [
            *_each(CALM),
            *_each(_LATE),
            *(replace(_ANALYSED, badness=badness) for badness in ("none", "unhealthy")),
            replace(_ANALYSED, analysis="pass"),
            *(
                _said(word, badness=badness)
                for badness in BADNESS
                for word in WORDS
                if (badness, word) not in _TOO_MUCH
            ),
            replace(CALM, fresh=True),
            _REPEATABLE,
            _CONTRACT,
            replace(_CONTRACT, words=1, says=("undo",)),
            *(replace(_ENVIRONMENT, badness=badness) for badness in BADNESS),
            replace(_ENVIRONMENT, words=1, says=("undo",)),
        ],
        sidekicks=3,
        most_slots=2,
        racks=(*_RACKS, *_MORE_RACKS),
        stop_first=[_FALL, *(_said(word, badness=badness) for badness, word in _TOO_MUCH)],
    ),
}
"""Bounds by name: *small* takes two minutes, *usual* five (CI), *large* an hour or more."""

STATE_LIMIT = 5_000_000
"""More than that is no chart of this size, but one that counts something without end; it would fill the memory."""


def part_of(plan: Sequence[Configuration], number: int, parts: int) -> tuple[Configuration, ...]:
    """One of ``parts`` parts of a plan, from 0 on; each has its share of either strategy."""
    by_strategy = (tuple(several) for _, several in groupby(plan, key=lambda one: one.strategy))
    return tuple(one for several in by_strategy for one in several[number::parts])


def check(chart: Chart, plan: Sequence[Configuration], *, jobs: int = 1) -> Iterator[Result]:
    """Check one configuration after the other, and stop after the first that breaks a promise.

    Args:
        jobs: Processes at work at the same time; those of one strategy share their steps, so two are of use.

    Raises:
        ValueError: the chart has more than ``STATE_LIMIT`` states in its world.
    """
    tasks = [tuple(several) for _, several in groupby(plan, key=lambda one: one.strategy)]
    for result in in_processes(partial(_check_all, chart), tasks, jobs):
        yield result
        if result.promise:
            return


def _check_all(chart: Chart, configurations: Sequence[Configuration]) -> Iterator[Result]:
    """Check configurations of one strategy."""
    several = dict[bool, Steps]()
    for configuration in configurations:
        began_s, environment = time.monotonic(), configuration.setting.environment
        if environment not in several:
            several[environment] = Steps(chart, configuration.strategy, environment=environment)
        result = _checked(several[environment], configuration)
        yield replace(result, took_s=time.monotonic() - began_s)


def _checked(steps: Steps, configuration: Configuration) -> Result:
    explored = explore(World(steps, configuration.setting), limit=STATE_LIMIT)
    result = Result(
        configuration=configuration,
        states=len(explored.states),
        edges=len(explored.targets),
        took_s=0.0,
        steps=steps.count,
        looks=0,
        leaves=explored.leaves(),
        transitions=frozenset(transition.line for transition in steps.transitions),
    )
    if explored.breach is not None:
        return replace(result, promise=explored.breach.promise, story=tell(explored, explored.breach))
    return _checked_fleets(explored, configuration, result)


def _checked_fleets(explored: Explored, configuration: Configuration, result: Result) -> Result:
    looks, fleets = Looks(explored), list[FleetResult]()
    sizes: list[tuple[int, int, Racks | None]] = [(sidekicks, slots, None) for sidekicks, slots in configuration.sizes]
    sizes += [(len(racks.of), slots, racks) for racks, slots in configuration.racks]
    for sidekicks, slots, racks in sizes:
        fleets.append(explore_fleet(looks, sidekicks, slots, racks))
        if fleets[-1].promise:
            break
    result = replace(result, looks=len(looks.sets), fleets=tuple(fleets))
    if not fleets or not fleets[-1].promise:
        return result
    return replace(result, promise=fleets[-1].promise, story=tell_fleet(looks, fleets[-1].moves, fleets[-1].promise))
