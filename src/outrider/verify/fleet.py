"""Several sidekicks on one lock: P1 and P5.

They meet nowhere else, so of each only that counts which the others, or these two promises, can see: its *look*. All
runs of one sidekick are made into the smallest-to-follow machine over looks (the subset construction: its states are
the sets of local states that can't be told apart from outside). That is exact for what can be seen, and some dozens
of states instead of a hundred thousand. Who is who doesn't matter: states that differ by names only are one.

Who may take a turn is asked of ``core.slots.decide``, which the real lock asks, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from outrider.core.slots import Holding, Take, Waiting, decide
from outrider.verify.explore import AGAIN, ENV, POISON, TAU, TOUCHED, TURN, WAITS, Explored

Member = tuple[int, str]
"""A sidekick: the state of its machine of looks, and its name."""

Fleet = tuple[tuple[Member, ...], tuple[Member, ...]]
"""Those in line, in order, and all others, sorted."""

Move = tuple[str, int]
"""Who, and the label of what it did."""


@dataclass(slots=True)
class Looks:
    """One sidekick from outside, built as far as it is asked for."""

    explored: Explored
    sets: list[frozenset[int]] = field(default_factory=list)
    _numbers: dict[frozenset[int], int] = field(default_factory=dict)
    _moves: dict[int, dict[int, int]] = field(default_factory=dict)

    def start(self) -> int:
        return self._number(self._closed({0}))

    def look(self, number: int) -> int:
        return self.explored.looks[next(iter(self.sets[number]))]

    def moves(self, number: int) -> dict[int, int]:
        """Label -> next state."""
        found = self._moves.get(number)
        if found is None:
            reached: dict[int, set[int]] = {}
            explored = self.explored
            for state in self.sets[number]:
                for place in range(explored.first[state], explored.first[state + 1]):
                    if explored.labels[place] != TAU:
                        reached.setdefault(explored.labels[place], set()).add(explored.targets[place])
            found = {label: self._number(self._closed(states)) for label, states in sorted(reached.items())}
            self._moves[number] = found
        return found

    def _closed(self, states: set[int]) -> frozenset[int]:
        explored, todo = self.explored, list(states)
        while todo:
            state = todo.pop()
            for place in range(explored.first[state], explored.first[state + 1]):
                target = explored.targets[place]
                if explored.labels[place] == TAU and target not in states:
                    states.add(target)
                    todo.append(target)
        return frozenset(states)

    def _number(self, states: frozenset[int]) -> int:
        if states not in self._numbers:
            self._numbers[states] = len(self.sets)
            self.sets.append(states)
        return self._numbers[states]


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
    """Walk all states of so many sidekicks over a lock with so many slots."""
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
            if after & POISON and not before & POISON:
                members = {who: one if who == name else _told(looks, one) for who, one in members.items()}
            queue = [who for _, who in line if who != name or stays]
            if after & WAITS and not stays:
                queue.append(name)
            rest = sorted((one, who) for who, one in members.items() if who not in queue)
            yield (name, label), (tuple((members[who], who) for who in queue), tuple(rest))


def _told(looks: Looks, state: int) -> int:
    """A sidekick's state once somebody else marked the release bad."""
    if looks.look(state) & POISON:
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
