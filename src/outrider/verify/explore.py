"""Walks everything that can happen to one sidekick, and checks what concerns it alone: P2, P3, and the way home.

Each of these holds for a sidekick whatever the others do, for it is checked under a lock that grants at any moment.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from outrider.core.chart_model import Chart
from outrider.verify.happenings import edges
from outrider.verify.world import Edge, Local, World

TAU = 0
"""The label of an edge that nobody else can see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A broken promise, and the shortest way there that was found.

    Attributes:
        promise: Which, in words.
        path: From the start: places of the states.
        last: What happened in the last of them, when that broke the promise.
    """

    promise: str
    path: tuple[int, ...]
    last: Edge | None = None


@dataclass(slots=True, kw_only=True)
class Explored:
    """All states of one sidekick and its world, by number, with the edges between them.

    Attributes:
        looks: For each state what the others can see of it, see ``look``.
        targets: Where the edges lead; those of one state stand side by side.
        labels: For each edge what the others see of it: ``TAU`` nothing, else the look that it leads to plus 1, or
            with one of the bits ``ENV`` and ``AGAIN``.
        faults: For each edge whether it is a fault.
        first: Of each state, its first edge; one more at the end.
    """

    world: World
    states: list[Local]
    parents: "array[int]"
    looks: bytearray
    targets: "array[int]" = field(default_factory=lambda: array("l"))
    labels: bytearray = field(default_factory=bytearray)
    faults: bytearray = field(default_factory=bytearray)
    first: "array[int]" = field(default_factory=lambda: array("l"))
    breach: Breach | None = None

    def path(self, state: int) -> tuple[int, ...]:
        """The shortest way to ``state``."""
        found = [state]
        while (parent := self.parents[found[-1]]) >= 0:
            found.append(parent)
        return tuple(reversed(found))

    def edge(self, source: int, target: int) -> Edge:
        """What leads from one state to another."""
        after = self.states[target]
        return next(edge for edge in edges(self.world, self.states[source]) if edge.after == after)


TURN, WAITS, POISON, TOUCHED, HOME = 1, 2, 4, 8, 16
ENV, AGAIN = 64, 128
"""Bits of a label: somebody else's poison; a new place at the end of the line."""


def look(s: Local, home: bool) -> int:
    """What the others, and the promises that concern several, can see of a sidekick."""
    return (
        (TURN if s.slot else 0)
        | (WAITS if s.key and not s.slot else 0)
        | (POISON if s.poison else 0)
        | (TOUCHED if s.touched else 0)
        | (HOME if home else 0)
    )


def is_home(chart: Chart, leaf: str, s: Local) -> bool:
    """Idle: the chart rests in the state where it begins, and nothing of the lock or under way is left."""
    return (
        not (s.slot or s.key or s.works or s.writes or s.locks or s.wish)
        and chart.states[leaf].resting
        and chart.within(leaf, chart.initial)
    )


def explore(world: World, *, limit: int, tick: Callable[[int], None] = lambda states: None) -> Explored:
    """Walk all states, breadth first, and stop at the first breach.

    Args:
        limit: The most states.

    Raises:
        ValueError: there are more states than that.
    """
    chart, brains = world.steps.chart, world.steps.brains
    starts_first = world.steps.strategy == "start-first"
    begin = world.start()
    numbers: dict[Local, int] = {begin: 0}
    found = Explored(world=world, states=[begin], parents=array("l", [-1]), looks=bytearray())
    states, parents, looks = found.states, found.parents, found.looks
    looks.append(look(begin, home=False))
    place = 0
    while place < len(states):
        s = states[place]
        found.first.append(len(found.targets))
        for edge in edges(world, s):
            t = edge.after
            number = numbers.get(t)
            problem = edge.problem
            if number is None:
                problem = problem or out_of_service(t, starts_first=starts_first)
                number = numbers[t] = len(states)
                states.append(t)
                parents.append(place)
                looks.append(look(t, is_home(chart, brains[t.brain].leaf, t)))
            if problem:
                found.breach = Breach(promise=problem, path=found.path(place), last=edge)
                return found
            label = TAU
            if s.key == 2 and t.key == 1 and not t.slot:
                label = AGAIN | looks[number]
            elif edge.elsewhere:
                label = ENV | looks[number]
            elif (looks[place] ^ looks[number]) & ~HOME:
                label = looks[number] + 1
            found.targets.append(number)
            found.labels.append(label)
            found.faults.append(edge.fault)
        place += 1
        if not place % 5000:
            tick(len(states))
            if len(states) > limit:
                raise ValueError(f"more than {limit} states")
    found.first.append(len(found.targets))
    found.breach = _stuck(found)
    return found


def out_of_service(s: Local, *, starts_first: bool) -> str:
    """P3: which half of it is broken; empty when the instance serves, or is out under its own turn."""
    if s.entry is not None:
        if s.entry.removeprefix("http://") in s.alive or s.entry in s.deserted:
            return ""
        return f"P3: the balancer sends to {s.entry}, where nothing runs"
    if starts_first:
        return "P3: the instance is out of the balancer, which start-first never needs"
    return "" if s.slot else "P3: the instance is out of the balancer without a turn"


def _stuck(found: Explored) -> Breach | None:
    """The first state from which no way without a fault leads home."""
    before: list[list[int]] = [[] for _ in found.states]
    for source in range(len(found.states)):
        for place in range(found.first[source], found.first[source + 1]):
            if not found.faults[place]:
                before[found.targets[place]].append(source)
    reached = bytearray(len(found.states))
    todo = [number for number, seen in enumerate(found.looks) if seen & HOME]
    for number in todo:
        reached[number] = 1
    while todo:
        for source in before[todo.pop()]:
            if not reached[source]:
                reached[source] = 1
                todo.append(source)
    stuck = reached.find(0)
    if stuck < 0:
        return None
    return Breach(
        promise="from here no way leads back to idle, even if nothing more goes wrong", path=found.path(stuck)
    )
