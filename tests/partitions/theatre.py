"""Plays the rounds that a test run asks for, each once, in as few worlds as they need."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.partitions.cuts import THINGS, Thing
from tests.partitions.fleet import App, Fleet
from tests.partitions.places import PLACES, Place, place
from tests.partitions.rounds import Cut, Director, Round, Seen
from tests.partitions.world import World

ALL = os.environ.get("OUTRIDER_TEST_PARTITIONS") == "all"
"""Every cell; else one for each thing and phase, two things at a time."""

CAST = 6

Act = tuple[Cut, ...]


@dataclass(frozen=True)
class Plan:
    """Acts that are played in one world, one after the other."""

    acts: tuple[Act, ...]

    @property
    def apps(self) -> tuple[App, ...]:
        """All apps that any act needs."""
        return tuple(dict.fromkeys(app for act in self.acts for cut in act for app in cut.apps))


def _one_per_phase(thing: Thing, machine: str) -> Cut:
    waits = "fetching" if machine == "m2" else "queueing"
    names = (waits, "probing", "switching", "replacing-2", "soaking", "rollback-restoring")
    return Cut(thing, machine, tuple(App(place(name), machine) for name in names))


def _casts() -> Iterator[tuple[Place, ...]]:
    """The places in casts, so that no more sidekicks run at once than two cores can bear."""
    for kind in (
        [one for one in PLACES if one.phase != "back" and one.strategy == "start-first"],
        [one for one in PLACES if one.phase != "back" and one.strategy == "stop-first"],
        [one for one in PLACES if one.phase == "back"],
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
    acts = (tuple(map(_one_per_phase, pair, ("m1", "m2"))) for pair in pairs)
    return (Plan(tuple(acts)),)


PLANS = _plans()
CELLS = tuple((cut.thing, app) for plan in PLANS for act in plan.acts for cut in act for app in cut.apps)
"""All cells of this run, in the order in which they are played."""


class Theatre:
    """Plays an act when the first of its cells is asked for. ``close`` removes the world."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._played: dict[Act, Round | Exception] = {}
        self._plan: Plan | None = None
        self._world: World | None = None
        self._director: Director | None = None
        self._worlds = 0

    def seen(self, thing: Thing, app: App) -> Seen:
        """What was seen of a cell.

        Raises:
            AssertionError: its round couldn't be played.
        """
        plan, act = next(
            (plan, act)
            for plan in PLANS
            for act in plan.acts
            if any(cut.thing == thing and app in cut.apps for cut in act)
        )
        if act not in self._played:
            self._played[act] = self._play(plan, act)
        played = self._played[act]
        if isinstance(played, Exception):
            raise AssertionError(f"the round of {thing} was not played to its end: {played}") from played
        return played.cells[thing, app.name]

    def failures(self, act: Act) -> list[str]:
        """Requests that failed in an act and that none of its cuts explains."""
        self.seen(act[0].thing, act[0].apps[0])
        played = self._played[act]
        assert isinstance(played, Round)
        return played.failures

    def all_seen(self) -> list[Seen]:
        """Every cell that was played so far."""
        rounds = [played for played in self._played.values() if isinstance(played, Round)]
        return [seen for played in rounds for seen in played.cells.values()]

    def close(self) -> None:
        self._director = None
        if self._world is not None:
            world, self._world = self._world, None
            world.stop()
            shutil.rmtree(world.folder, ignore_errors=True)

    def _play(self, plan: Plan, act: Act) -> Round | Exception:
        try:
            played = self._open(plan).play(act)
        except Exception as error:  # noqa: BLE001 - told to each cell of the round; the next one gets a new world
            self.close()
            return error
        if any(not seen.healed for seen in played.cells.values()):
            self.close()
        return played

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
