"""The outside view of a sidekick: what others can see of the chart, small enough to be put together in hundreds.

All runs of one sidekick (``explore``) are made into the smallest machine over *looks* that has the same runs from
outside: the subset construction of ``fleet.py``, then equal states made one. A look says whether the instance has a
turn, whether the balancer sends to an app of it that serves, whether the bad release was ever started there, and
whether that release is blocked. The place in the queue isn't kept: the order decides who is next, not how many.

The view holds under any number of crashes, restarts, expired leases and partitions, at any moment: they are steps like
any other here. It is made for each strategy and each kind of release, takes minutes, and ships with the package with
the digest of the chart that it was made of; ``tools/outside_view.py`` makes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from io import BytesIO
from xml.etree.ElementTree import canonicalize

from outrider.core.chart.model import Chart
from outrider.core.errors import ChartError
from outrider.core.sidekick.memory import Strategy
from outrider.verify.check import CALM, STATE_LIMIT, STRATEGIES
from outrider.verify.explore import AGAIN, BLOCKED, ENV, FAULT, TAU, TOUCHED, TURN, Explored, explore
from outrider.verify.fleet import Looks
from outrider.verify.steps import Steps, version_of
from outrider.verify.world import Badness, Local, World

SERVES = 16
"""A bit of a look, besides ``TURN``, ``BLOCKED`` and ``TOUCHED``: the balancer sends to an app that serves."""

RELEASES: tuple[Badness, ...] = ("none", "refused", "unhealthy", "dies")
"""The kinds of release of which a view is made: a good one, and the bad ones that an instance tries."""

FILE = "outside_views.json"
_OURS = "{urn:outrider:statechart:1}"
_WORDS = frozenset(f"{_OURS}{name}" for name in ("why", "ends", "fixed", "success"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideView:
    """One sidekick from outside.

    Attributes:
        states: Of one sidekick and its world, from which it was made.
        looks: Of each state of the view; the first is where it begins.
        moves: Of each state, where it may go by itself.
        told: Of each state, where it goes when another instance blocks the release.
    """

    states: int
    looks: tuple[int, ...]
    moves: tuple[tuple[int, ...], ...]
    told: tuple[int, ...]


Views = Mapping[tuple[Strategy, Badness], OutsideView]


def digest_of(scxml: bytes) -> str:
    """SHA-256 of what a chart does: its words, comments and spacing may change."""
    whole = canonicalize(from_file=BytesIO(scxml), strip_text=True, exclude_attrs=_WORDS, exclude_tags=[f"{_OURS}doc"])
    return hashlib.sha256(whole.encode()).hexdigest()


def make_view(chart: Chart, strategy: Strategy, badness: Badness, steps: Steps | None = None) -> OutsideView:
    """Explore one sidekick and look at it from outside; takes half a minute of processor time or more.

    Raises:
        ChartError: a promise is broken; ``outrider statechart verify`` tells how.
    """
    world = World(steps or Steps(chart, strategy), replace(CALM, badness=badness))
    explored = explore(world, limit=STATE_LIMIT)
    if explored.breach is not None:
        raise ChartError(chart.source, None, f"has no outside view, a promise is broken: {explored.breach.promise}")
    return _smallest(Looks(_seen_from_outside(explored)), len(explored.states))


def look_of(world: World, s: Local) -> int:
    """What can be seen of a sidekick from outside."""
    serves = s.entry is not None and s.entry in s.alive
    if serves and world.setting.badness == "unhealthy" and world.is_bad(version_of(s.entry or "")):
        serves = False
    return (
        (TURN if s.slot else 0)
        | (BLOCKED if s.blocked else 0)
        | (TOUCHED if s.touched else 0)
        | (SERVES if serves else 0)
    )


def _seen_from_outside(explored: Explored) -> Explored:
    """The same runs with other looks, and the marks that follow from them."""
    world = explored.world
    looks = bytearray(look_of(world, explored.local(place)) for place in range(len(explored.states)))
    marks, first, targets = bytearray(explored.marks), explored.first, explored.targets
    for source, here in enumerate(looks):
        for place in range(first[source], first[source + 1]):
            old, there = marks[place], looks[targets[place]]
            elsewhere = old & ENV and not old & AGAIN
            mark = ENV | there if elsewhere else TAU if here == there else there + 1
            marks[place] = mark | (old & FAULT)
    return replace(explored, looks=looks, marks=marks)


def _smallest(looks: Looks, states: int) -> OutsideView:
    """All sets of the subset construction, with those made one whose runs are the same from there on."""
    todo, moves = [looks.start()], dict[int, dict[int, int]]()
    while todo:
        number = todo.pop()
        if number not in moves:
            moves[number] = looks.moves(number)
            todo.extend(moves[number].values())
    part = {number: looks.look(number) for number in moves}
    while True:
        kinds: dict[object, int] = {}
        finer = {
            number: kinds.setdefault(
                (part[number], tuple(sorted((label, part[target]) for label, target in moves[number].items()))),
                len(kinds),
            )
            for number in sorted(moves)
        }
        if len(kinds) == len(set(part.values())):
            break
        part = finer
    order = {finer[looks.start()]: 0}
    for number in sorted(moves):
        order.setdefault(finer[number], len(order))
    one_of = {order[finer[number]]: number for number in sorted(moves, reverse=True)}
    return OutsideView(
        states=states,
        looks=tuple(looks.look(one_of[place]) for place in range(len(order))),
        moves=tuple(
            tuple(sorted({order[finer[target]] for label, target in moves[one_of[place]].items() if label < ENV}))
            for place in range(len(order))
        ),
        told=tuple(
            next((order[finer[target]] for label, target in moves[one_of[place]].items() if label >= ENV), place)
            for place in range(len(order))
        ),
    )


def written(chart_digest: str, views: Views) -> str:
    """The file that ships."""
    found = {
        f"{strategy} {badness}": {
            "states": view.states, "looks": view.looks, "moves": view.moves, "told": view.told,
        }
        for (strategy, badness), view in sorted(views.items())
    }  # fmt: skip
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(view)}" for name, view in found.items())
    return f'{{\n "chart": "{chart_digest}",\n "views": {{\n{body}\n }}\n}}\n'


def read_views(text: str) -> tuple[str, dict[tuple[Strategy, Badness], OutsideView]]:
    """The digest of the chart, and the views, from what ``written`` gave."""
    found = json.loads(text)
    views = {}
    for name, view in found["views"].items():
        strategy, _, badness = name.partition(" ")
        views[strategy, badness] = OutsideView(
            states=view["states"],
            looks=tuple(view["looks"]),
            moves=tuple(tuple(one) for one in view["moves"]),
            told=tuple(view["told"]),
        )
    return found["chart"], views


def shipped_views(scxml: bytes) -> dict[tuple[Strategy, Badness], OutsideView]:
    """The views that came with this build.

    Raises:
        ChartError: they were made of another chart than ``scxml``, or one is missing.
    """
    chart, views = read_views((files("outrider.verify") / FILE).read_text())
    if chart != digest_of(scxml):
        raise ChartError(FILE, None, "was made of another chart: run tools/outside_view.py")
    missing = [f"{strategy} {badness}" for strategy in STRATEGIES for badness in RELEASES
               if (strategy, badness) not in views]  # fmt: skip
    if missing:
        raise ChartError(FILE, None, f"lacks {', '.join(missing)}: run tools/outside_view.py")
    return views
