"""Puts the parts together: which configurations are checked, and what comes out of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from outrider.core.chart_model import Chart
from outrider.core.hierarchy import Hierarchy
from outrider.core.memory import Strategy
from outrider.verify.explore import explore
from outrider.verify.fleet import FleetResult, Looks, explore_fleet
from outrider.verify.steps import Steps
from outrider.verify.story import tell, tell_fleet
from outrider.verify.world import Badness, Setting, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One thing to check.

    Attributes:
        sizes: Fleets: numbers of sidekicks and slots.
    """

    strategy: Strategy
    setting: Setting
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out of one configuration.

    Attributes:
        states, edges: Of one sidekick and its world.
        steps: Of the chart, each taken by the real machine.
        looks: States of one sidekick as the others see it.
        fleets: One for each size.
        promise: The broken one, in words; empty when all hold.
        story: The way there, line by line.
    """

    configuration: Configuration
    states: int
    edges: int
    steps: int
    looks: int
    fleets: tuple[FleetResult, ...] = ()
    promise: str = ""
    story: tuple[str, ...] = ()


STRATEGIES: tuple[Strategy, ...] = ("start-first", "stop-first")
BAD: tuple[Badness, ...] = ("refused", "unhealthy", "dies")


def _settings(strategy: Strategy, *, late: int, good_words: int, bad_words: int) -> list[Setting]:
    # stop-first breaks P3 when a killed sidekick's write overtakes its successor's: docs/develop/model-checking.md
    reordered = strategy == "start-first"
    good = Setting(late_limit=late, words=good_words, reordered=reordered)
    return [good, *(Setting(badness=bad, late_limit=late, words=bad_words, reordered=reordered) for bad in BAD)]


def _plan(*, late: int, good_words: int, bad_words: int, sidekicks: int, most_slots: int) -> tuple[Configuration, ...]:
    sizes = tuple((count, slots) for slots in range(1, most_slots + 1) for count in range(1, sidekicks + 1))
    return tuple(
        Configuration(strategy=strategy, setting=setting, sizes=sizes)
        for strategy in STRATEGIES
        for setting in _settings(strategy, late=late, good_words=good_words, bad_words=bad_words)
    )


PLANS: Mapping[str, tuple[Configuration, ...]] = {
    "small": _plan(late=0, good_words=0, bad_words=0, sidekicks=3, most_slots=2),
    "usual": _plan(late=1, good_words=1, bad_words=0, sidekicks=3, most_slots=2),
    "large": _plan(late=1, good_words=2, bad_words=1, sidekicks=4, most_slots=3),
}
"""Bounds by name: *small* takes seconds (tests), *usual* about a minute (CI), *large* several minutes."""


def reordered(plan: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """The same plan, with late writes that may overtake later ones everywhere."""
    return tuple(replace(one, setting=replace(one.setting, reordered=True)) for one in plan)


STATE_LIMIT = 3_000_000
"""More than that is no chart of this size, but one that counts something without end; it would fill the memory."""


def check(chart: Chart, plan: Sequence[Configuration]) -> Iterator[Result]:
    """Check one configuration after the other, and stop after the first that breaks a promise.

    Raises:
        ValueError: the chart has more than ``STATE_LIMIT`` states in its world.
    """
    hierarchy = Hierarchy(chart)
    for configuration in plan:
        result = _checked(chart, configuration, hierarchy)
        yield result
        if result.promise:
            return


def _checked(chart: Chart, configuration: Configuration, hierarchy: Hierarchy) -> Result:
    steps = Steps(chart, configuration.strategy, hierarchy)
    explored = explore(World(steps, configuration.setting), limit=STATE_LIMIT)
    looks = Looks(explored)
    fleets: list[FleetResult] = []
    promise, story = "", tuple[str, ...]()
    if explored.breach is not None:
        promise, story = explored.breach.promise, tell(explored, explored.breach)
    else:
        for sidekicks, slots in configuration.sizes:
            fleet = explore_fleet(looks, sidekicks, slots)
            fleets.append(fleet)
            if fleet.promise:
                promise, story = fleet.promise, tell_fleet(looks, fleet.moves, fleet.promise)
                break
    return Result(
        configuration=configuration,
        states=len(explored.states),
        edges=len(explored.targets),
        steps=steps.count,
        looks=len(looks.sets),
        fleets=tuple(fleets),
        promise=promise,
        story=story,
    )
