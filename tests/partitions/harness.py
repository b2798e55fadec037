"""Runs the rounds that a test run asks for, each once, in as few worlds as they need."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.partitions.cut_points import CUT_POINTS, CutPoint, cut_point
from tests.partitions.cuts import THINGS, Thing
from tests.partitions.fleet import App, Fleet
from tests.partitions.rounds import Cut, Director, Round, Seen
from tests.partitions.world import World

ALL = os.environ.get("OUTRIDER_TEST_PARTITIONS") == "all"
"""Every cell; else one for each thing and phase, two things at a time."""

CAST = 6

Cuts = tuple[Cut, ...]


@dataclass(frozen=True)
class Plan:
    """Cuts that are made in one world, one round after the other."""

    rounds: tuple[Cuts, ...]

    @property
    def apps(self) -> tuple[App, ...]:
        """All apps that any round needs."""
        return tuple(dict.fromkeys(app for cuts in self.rounds for cut in cuts for app in cut.apps))


def _one_per_phase(thing: Thing, machine: str) -> Cut:
    waits = "fetching" if machine == "m2" else "queueing"
    names = (waits, "probing", "switching", "replacing-2", "soaking", "rollback-restoring")
    return Cut(thing, machine, tuple(App(cut_point(name), machine) for name in names))


def _casts() -> Iterator[tuple[CutPoint, ...]]:
    """The places in casts, so that no more sidekicks run at once than two cores can bear."""
    for kind in (
        [one for one in CUT_POINTS if one.phase != "back" and one.strategy == "start-first"],
        [one for one in CUT_POINTS if one.phase != "back" and one.strategy == "stop-first"],
        [one for one in CUT_POINTS if one.phase == "back"],
    ):
        for begin in range(0, len(kind), CAST):
            yield tuple(kind[begin : begin + CAST])


def _plans() -> tuple[Plan, ...]:
    if ALL:
        casts = [tuple(App(one, "m1") for one in cast) for cast in _casts()]
        return tuple(Plan(tuple((Cut(thing, "m1", cast),) for thing in THINGS)) for cast in casts)
    # both of a pair let requests fail, or none of them does: so the others can be held to no failure at all
    pairs: tuple[tuple[Thing, ...], ...] = (
        ("etcd", "update service"),
        ("runtime", "payload server"),
        ("balancer's etcd",),
        ("network", "balancer"),
    )
    rounds = (tuple(map(_one_per_phase, pair, ("m1", "m2"))) for pair in pairs)
    return (Plan(tuple(rounds)),)


PLANS = _plans()
CELLS = tuple((cut.thing, app) for plan in PLANS for cuts in plan.rounds for cut in cuts for app in cut.apps)
"""All cells of this run, in the order in which they are run."""


class Harness:
    """Runs a round when the first of its cells is asked for. ``close`` removes the world."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results: dict[Cuts, Round | Exception] = {}
        self._plan: Plan | None = None
        self._world: World | None = None
        self._director: Director | None = None
        self._worlds = 0

    def seen(self, thing: Thing, app: App) -> Seen:
        """What was seen of a cell.

        Raises:
            AssertionError: its round couldn't be run.
        """
        plan, cuts = next(
            (plan, cuts)
            for plan in PLANS
            for cuts in plan.rounds
            if any(cut.thing == thing and app in cut.apps for cut in cuts)
        )
        if cuts not in self._results:
            self._results[cuts] = self._run(plan, cuts)
        result = self._results[cuts]
        if isinstance(result, Exception):
            raise AssertionError(f"the round of {thing} was not run to its end: {result}") from result
        return result.cells[thing, app.name]

    def failures(self, cuts: Cuts) -> list[str]:
        """Requests that failed in a round and that none of its cuts explains."""
        self.seen(cuts[0].thing, cuts[0].apps[0])
        result = self._results[cuts]
        assert isinstance(result, Round)
        return result.failures

    def all_seen(self) -> list[Seen]:
        """Every cell that was run so far."""
        rounds = [result for result in self._results.values() if isinstance(result, Round)]
        return [seen for result in rounds for seen in result.cells.values()]

    def close(self) -> None:
        self._director = None
        if self._world is not None:
            world, self._world = self._world, None
            world.stop()
            shutil.rmtree(world.folder, ignore_errors=True)

    def _run(self, plan: Plan, cuts: Cuts) -> Round | Exception:
        try:
            result = self._open(plan).run(cuts)
        except Exception as error:  # noqa: BLE001 - told to each cell of the round; the next one gets a new world
            self.close()
            return error
        if any(not seen.healed for seen in result.cells.values()):
            self.close()
        return result

    def _open(self, plan: Plan) -> Director:
        """The director of a world with the plan's fleet, a new one when the last was left in disorder."""
        if self._director is None or self._plan != plan:
            self.close()
            self._worlds += 1
            self._plan, self._world = plan, World(self._folder / f"world{self._worlds}")
            fleet = Fleet(self._world.start(), plan.apps)
            fleet.bring_up()
            self._director = Director(fleet)
        return self._director
