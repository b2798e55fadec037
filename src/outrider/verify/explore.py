"""Walks everything that can happen to one sidekick, and checks what concerns it alone: P2, P3, and the way home.

Each of these holds for a sidekick whatever the others do, for it is checked under a lock that grants at any moment.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from outrider.verify.happenings import PARTS, Part, edges, is_answered, is_full
from outrider.verify.space import Change, Space, mask
from outrider.verify.steps import id_of, version_of
from outrider.verify.world import LOST, Edge, Local, World

TURN, WAITS, BLOCKED, TOUCHED = 1, 2, 4, 8
"""What the others, and the promises that concern several, can see of a sidekick: bits of its look."""

TAU, ENV, AGAIN, FAULT = 0, 32, 64, 128
"""Marks of an edge. Nobody sees it; else the look that it leads to plus 1, or with a bit: somebody else's block, a new
place at the end of the line. And ``FAULT``: it need not happen."""


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
    """All states of one sidekick and its world, by place, with the edges between them.

    Attributes:
        states: Their numbers in ``space``.
        looks: For each state what the others can see of it.
        home: For each state whether it is idle and serves, with nothing of the lock or under way left.
        targets: Where the edges lead; those of one state stand side by side.
        marks: Of each edge.
        first: Of each state, its first edge; one more at the end.
    """

    space: Space
    states: list[int]
    parents: "array[int]"
    looks: bytearray
    home: bytearray = field(default_factory=bytearray)
    targets: "array[int]" = field(default_factory=lambda: array("i"))
    marks: bytearray = field(default_factory=bytearray)
    first: "array[int]" = field(default_factory=lambda: array("q"))
    breach: Breach | None = None

    @property
    def world(self) -> World:
        return self.space.world

    def local(self, place: int) -> Local:
        """The state at ``place``."""
        return self.space.unpack(self.states[place])

    def leaves(self) -> frozenset[str]:
        """The leaves of the chart that a sidekick was in."""
        brains = self.world.steps.brains
        numbers = {state & _BRAIN for state in self.states}
        return frozenset(brains[self.space.unpack(number).brain].leaf for number in numbers)

    def path(self, place: int) -> tuple[int, ...]:
        """The shortest way to ``place``."""
        found = [place]
        while (parent := self.parents[found[-1]]) >= 0:
            found.append(parent)
        return tuple(reversed(found))

    def edge(self, source: int, target: int) -> Edge:
        """What leads from one place to another."""
        after = self.local(target)
        return next(edge for edge in edges(self.world, self.local(source)) if self.world.settled(edge) == after)


def explore(world: World, *, limit: int, tick: Callable[[int], None] = lambda states: None) -> Explored:
    """Walk all states, breadth first, and stop at the first breach.

    Args:
        limit: The most states.
        tick: Called now and then with their number.

    Raises:
        ValueError: there are more states than that.
    """
    space = Space(world)
    begin = space.pack(world.start())
    numbers: dict[int, int] = {begin: 0}
    found = Explored(space=space, states=[begin], parents=array("i", [-1]), looks=bytearray([look(world.start())]))
    states, parents, looks, home, first = found.states, found.parents, found.looks, found.home, found.first
    home.append(False)
    targets, marks = found.targets, found.marks
    parts: list[tuple[int, dict[int, tuple[Change, ...]], Part]] = [(mask(part.reads), {}, part) for part in PARTS]
    consequences = space.consequences
    shown: dict[int, tuple[int, bool, str]] = {}
    asked: dict[int, tuple[bool, bool]] = {}
    place = 0
    while place < len(states):
        state, here = states[place], looks[place]
        first.append(len(targets))
        waits = asked.get(state & _ASKED)
        if waits is None:
            s = space.unpack(state)
            waits = asked[state & _ASKED] = is_full(world, s), is_answered(s)
        full, answered = waits
        for bits, known, part in parts:
            if full and part.news:
                continue
            key = state & bits
            changes = known.get(key)
            if changes is None:
                changes = known[key] = space.changes(part, state)
            for keep, add, follows, fault, elsewhere, again, problem in changes:
                after = state & keep | add
                if follows:
                    more = consequences[follows]
                    found_bits = more.known.get(after & more.bits)
                    after = after & ~more.bits | (more.look_up(after) if found_bits is None else found_bits)
                if after == state and not problem:
                    continue
                number = numbers.get(after)
                if number is None:
                    seen = shown.get(after & _SHOWN)
                    if seen is None:
                        s = space.unpack(after)
                        seen = shown[after & _SHOWN] = look(s), is_home(world, s), out_of_service(world, s)
                    number = numbers[after] = len(states)
                    states.append(after)
                    parents.append(place)
                    looks.append(seen[0])
                    home.append(seen[1])
                    problem = problem or seen[2]
                if problem:
                    found.breach = _breach(found, problem, place, after)
                    return found
                there = looks[number]
                if again and not there & TURN:
                    mark = AGAIN | there
                elif elsewhere:
                    mark = ENV | there
                else:
                    mark = TAU if here == there else there + 1
                targets.append(number)
                marks.append(mark | FAULT if fault or (answered and part.early) else mark)
        place += 1
        if len(states) > limit:
            raise ValueError(f"more than {limit} states")
        if not place & 0xFFF:
            tick(len(states))
    first.append(len(targets))
    found.breach = _stuck(found)
    return found


def look(s: Local) -> int:
    """What the others can see of a sidekick."""
    return (
        (TURN if s.slot else 0)
        | (WAITS if s.key and not s.slot else 0)
        | (BLOCKED if s.blocked else 0)
        | (TOUCHED if s.touched else 0)
    )


def is_home(world: World, s: Local) -> bool:
    """Idle: the chart rests in the state where it begins, nothing of the lock or under way is left, and it serves."""
    if is_drained(world, s):
        return True
    if s.slot or s.key or s.works or s.writes or s.locks or s.request:
        return False
    chart, brain = world.steps.chart, world.steps.brains[s.brain]
    if not (chart.states[brain.leaf].resting and chart.within(brain.leaf, chart.initial)):
        return False
    running = brain.memory.running
    if brain.memory.is_out:
        return False
    if running is None:
        return s.entry is None
    return s.entry in s.alive and s.entry is not None and id_of(s.entry) == running.workload_id


def is_drained(world: World, s: Local) -> bool:
    """It rests out of the balancer under its turn, as an operator wants it, with nothing under way.

    Its lease may have ended in etcd: it hears of that by its own clock, whatever happens, and takes the turn again.
    """
    chart, brain = world.steps.chart, world.steps.brains[s.brain]
    if s.works or s.writes or s.locks or s.request or not s.slot or s.entry is not None:
        return False
    return brain.memory.drain is not None and brain.memory.is_out and chart.states[brain.leaf].resting


def out_of_service(world: World, s: Local) -> str:
    """P3: which half of it is broken; empty when the instance serves, or is out under its own turn."""
    if s.entry is not None:
        if s.entry in s.alive or s.entry == LOST or s.entry in s.deserted:
            return ""
        return f"P3: the balancer sends to {version_of(s.entry)}, which doesn't run there"
    if world.steps.brains[s.brain].memory.running is None:
        return ""
    if world.steps.strategy == "start-first" and world.steps.brains[s.brain].memory.drain is None:
        if world.steps.brains[s.brain].memory.is_out:
            return "" if s.slot else "P3: the instance was drained, and is out of the balancer without a turn"
        return "P3: the instance is out of the balancer, which start-first never needs"
    return "" if s.slot else "P3: the instance is out of the balancer without a turn"


def _breach(found: Explored, problem: str, place: int, after: int) -> Breach:
    """The breach on the way from ``place`` to the state ``after``, told by what happened there."""
    there = found.space.unpack(after)
    s = found.local(place)
    last = next(
        edge
        for edge in edges(found.world, s)
        if found.world.settled(edge) == there and (edge.problem or out_of_service(found.world, there)) == problem
    )
    return Breach(promise=problem, path=found.path(place), last=last)


def _stuck(found: Explored) -> Breach | None:
    """The first state from which no way without a fault leads home."""
    targets, marks, first, count = found.targets, found.marks, found.first, len(found.states)
    begins = array("i", bytes(4 * (count + 1)))
    for target, mark in zip(targets, marks, strict=True):
        if mark < FAULT:
            begins[target + 1] += 1
    for place in range(count):
        begins[place + 1] += begins[place]
    sources, free = array("i", bytes(4 * begins[count])), array("i", begins)
    for source in range(count):
        for place in range(first[source], first[source + 1]):
            if marks[place] < FAULT:
                target = targets[place]
                sources[free[target]] = source
                free[target] += 1
    reached = bytearray(found.home)
    todo = [place for place, is_there in enumerate(reached) if is_there]
    while todo:
        place = todo.pop()
        for source in sources[begins[place] : begins[place + 1]]:
            if not reached[source]:
                reached[source] = 1
                todo.append(source)
    stuck = reached.find(0)
    if stuck < 0:
        return None
    promise = "from here no way leads back to idle, even if nothing more goes wrong"
    return Breach(promise=promise, path=found.path(_end(found, stuck)))


def _end(found: Explored, place: int) -> int:
    """Where whoever is at ``place`` stays for good, if nothing more goes wrong: that tells more than the way there."""
    targets, marks, first = found.targets, found.marks, found.first
    while True:
        seen, sources = {place: None}, dict[int, list[int]]()
        todo = [place]
        for source in todo:
            for at in range(first[source], first[source + 1]):
                if marks[at] < FAULT:
                    target = targets[at]
                    sources.setdefault(target, []).append(source)
                    if target not in seen:
                        seen[target] = None
                        todo.append(target)
        back, todo_back = {place}, [place]
        while todo_back:
            for source in sources.get(todo_back.pop(), ()):
                if source not in back:
                    back.add(source)
                    todo_back.append(source)
        gone = [one for one in seen if one not in back]
        if not gone:
            return min(back)
        place = gone[-1]


_BRAIN = mask(["brain"])
_ASKED = mask(["works", "writes", "locks", "asks", "request"])
_SHOWN = mask(
    ["brain", "works", "writes", "locks", "request", "alive", "entry", "deserted", "key", "slot", "blocked", "touched"]
)
