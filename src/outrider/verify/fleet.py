"""Several sidekicks on one lock: P1 and P5.

They meet nowhere else, so of each only that counts which the others, or these two promises, can see: its *look*. All
runs of one sidekick are made into the smallest-to-follow machine over looks (the subset construction: its states are
the sets of local states that can't be told apart from outside). That is exact for what can be seen, and some dozens
of states instead of hundreds of thousands. Who is who doesn't matter: states that differ by names only are one.

Who may take a turn is asked of ``core.slots.decide``, which the real lock asks, too.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from outrider.core.rollout.slots import Holding, Take, Waiting, decide
from outrider.verify.explore import AGAIN, BLOCKED, ENV, FAULT, TAU, TOUCHED, TURN, WAITS, Explored

Member = tuple[int, str]
"""A sidekick: the state of its machine of looks, and its name."""

Fleet = tuple[tuple[Member, ...], tuple[Member, ...]]
"""Those in line, in order, and all others, sorted."""

Move = tuple[str, int]
"""Who, and the mark of what it did (without ``FAULT``)."""


class Looks:
    """One sidekick from outside, built as far as it is asked for."""

    def __init__(self, explored: Explored) -> None:
        self.explored = explored
        self.sets: list[frozenset[int]] = []
        self._quotient = _Quotient(explored)
        self._numbers: dict[frozenset[int], int] = {}
        self._moves: dict[int, dict[int, int]] = {}

    def start(self) -> int:
        return self._number(self._quotient.closed({self._quotient.of[0]}))

    def look(self, number: int) -> int:
        """What all states of a set have in common."""
        return self.explored.looks[self._quotient.one_of[next(iter(self.sets[number]))]]

    def moves(self, number: int) -> dict[int, int]:
        """Mark -> next state."""
        found = self._moves.get(number)
        if found is None:
            reached: dict[int, set[int]] = {}
            for knot in self.sets[number]:
                for mark, target in self._quotient.moves[knot]:
                    reached.setdefault(mark, set()).add(target)
            found = {mark: self._number(self._quotient.closed(knots)) for mark, knots in sorted(reached.items())}
            self._moves[number] = found
        return found

    def _number(self, knots: frozenset[int]) -> int:
        if knots not in self._numbers:
            self._numbers[knots] = len(self.sets)
            self.sets.append(knots)
        return self._numbers[knots]


class _Quotient:
    """The states of one sidekick, with those made one that lead to each other without anybody seeing it.

    Attributes:
        of: Of each state, its knot.
        one_of: Of each knot, one of its states.
        moves: Of each knot, what can be seen of it next: marks, each with the knot that it leads to.
    """

    def __init__(self, explored: Explored) -> None:
        self.of, self.one_of = _knots(explored)
        silent: list[set[int]] = [set() for _ in self.one_of]
        moves: list[set[tuple[int, int]]] = [set() for _ in self.one_of]
        targets, marks, first, of = explored.targets, explored.marks, explored.first, self.of
        for state, knot in enumerate(of):
            for place in range(first[state], first[state + 1]):
                target, mark = of[targets[place]], marks[place] & ~FAULT
                if mark != TAU:
                    moves[knot].add((mark, target))
                elif target != knot:
                    silent[knot].add(target)
        self.moves, self._silent = moves, silent

    def closed(self, knots: set[int]) -> frozenset[int]:
        """With all that can be reached without anybody seeing it."""
        todo = list(knots)
        while todo:
            for target in self._silent[todo.pop()]:
                if target not in knots:
                    knots.add(target)
                    todo.append(target)
        return frozenset(knots)


def _knots(explored: Explored) -> "tuple[array[int], list[int]]":
    """Strongly connected components over edges that nobody sees (Tarjan's algorithm, without recursion)."""
    count = len(explored.states)
    targets, marks, first = explored.targets, explored.marks, explored.first
    of, one_of = array("i", [-1]) * count, list[int]()
    order, low = array("i", [-1]) * count, array("i", bytes(4 * count))
    open_states, clock = list[int](), 0
    for root in range(count):
        if order[root] >= 0:
            continue
        order[root] = low[root] = clock
        clock += 1
        open_states.append(root)
        work = [(root, first[root])]
        while work:
            state, place = work.pop()
            end = first[state + 1]
            while place < end:
                if marks[place] & ~FAULT == TAU:
                    target = targets[place]
                    if order[target] < 0:
                        work.append((state, place))  # once more, when the target is done: its low counts then
                        order[target] = low[target] = clock
                        clock += 1
                        open_states.append(target)
                        work.append((target, first[target]))
                        break
                    if of[target] < 0 and low[target] < low[state]:
                        low[state] = low[target]
                place += 1
            else:
                if low[state] == order[state]:
                    knot = len(one_of)
                    one_of.append(state)
                    while of[state] < 0:
                        of[open_states.pop()] = knot
    return of, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """What came out for one size.

    Attributes:
        promise: The broken one, in words; empty when all hold.
        moves: What led to it, from the start.
    """

    sidekicks: int
    slots: int
    states: int
    edges: int
    promise: str = ""
    moves: tuple[Move, ...] = ()


def explore_fleet(looks: Looks, sidekicks: int, slots: int) -> FleetResult:
    """Walk all states of a number of sidekicks over a lock with a number of slots."""
    names = tuple(f"web-{number}" for number in range(1, sidekicks + 1))
    begin: Fleet = ((), tuple((looks.start(), name) for name in names))
    parents: dict[object, tuple[Fleet, Move] | None] = {_nameless(begin): None}
    todo, edges = [begin], 0
    for fleet in todo:
        for move, after in _next(looks, fleet, slots):
            edges += 1
            key = _nameless(after)
            if key in parents:
                continue
            parents[key] = (fleet, move)
            promise = _broken(looks, after, slots)
            if promise:
                moves = _story(looks, parents, begin, after, slots)
                return FleetResult(
                    sidekicks=sidekicks, slots=slots, states=len(parents), edges=edges, promise=promise, moves=moves
                )
            todo.append(after)
    return FleetResult(sidekicks=sidekicks, slots=slots, states=len(parents), edges=edges)


def _nameless(fleet: Fleet) -> object:
    return tuple(tuple(state for state, _ in part) for part in fleet)


def _broken(looks: Looks, fleet: Fleet, slots: int) -> str:
    seen = [looks.look(state) for part in fleet for state, _ in part]
    turns, touched = sum(bool(one & TURN) for one in seen), sum(bool(one & TOUCHED) for one in seen)
    if turns > slots:
        return f"P1: {turns} turns at once, and there are {slots} slots"
    if touched > slots:
        return f"P5: a bad release reached {touched} instances, and there are {slots} slots"
    return ""


def _next(looks: Looks, fleet: Fleet, slots: int) -> Iterator[tuple[Move, Fleet]]:
    line, others = fleet
    holders = sum(bool(looks.look(state) & TURN) for state, _ in others)
    for state, name in (*line, *others):
        before = looks.look(state)
        for label, number in looks.moves(state).items():
            if label & ENV and label < AGAIN:
                continue  # nobody but another sidekick of this fleet does that
            after = looks.look(number)
            if after & TURN and not before & TURN and not _may_take(line, name, holders, slots):
                continue
            stays = before & WAITS and after & WAITS and not label & AGAIN
            members = {who: (number if who == name else one) for part in fleet for one, who in part}
            if after & BLOCKED and not before & BLOCKED:
                members = {who: one if who == name else _told(looks, one) for who, one in members.items()}
            queue = [who for _, who in line if who != name or stays]
            if after & WAITS and not stays:
                queue.append(name)
            rest = sorted((one, who) for who, one in members.items() if who not in queue)
            yield (name, label), (tuple((members[who], who) for who in queue), tuple(rest))


def _told(looks: Looks, state: int) -> int:
    """A sidekick's state once somebody else blocked the release."""
    if looks.look(state) & BLOCKED:
        return state
    return next(number for label, number in looks.moves(state).items() if label & ENV and label < AGAIN)


def _may_take(line: tuple[Member, ...], name: str, holders: int, slots: int) -> bool:
    queue = [
        Waiting(instance=who, key=who, create_revision=place, mod_revision=place)
        for place, (_, who) in enumerate(line, 1)
    ]
    if name not in [one.instance for one in queue]:
        return False
    turns = [Holding(number=number, instance=f"holder-{number}", create_revision=1) for number in range(holders)]
    return isinstance(decide(name, queue, turns, slots), Take)


def _story(
    looks: Looks, parents: dict[object, tuple[Fleet, Move] | None], begin: Fleet, end: Fleet, slots: int
) -> tuple[Move, ...]:
    """The moves from the beginning, with the names that the sidekicks of ``begin`` have."""
    steps: list[tuple[Fleet, object]] = []
    at: object = _nameless(end)
    while (parent := parents[at]) is not None:
        steps.append((parent[0], at))
        at = _nameless(parent[0])
    moves: list[Move] = []
    fleet = begin
    for _, wanted in reversed(steps):
        move, fleet = next((move, after) for move, after in _next(looks, fleet, slots) if _nameless(after) == wanted)
        moves.append(move)
    return tuple(moves)
