"""Several sidekicks on one lock: P1, P5, and the disruption budgets of their labels.

They meet nowhere else, so of each only that counts which the others, or these two promises, can see: its *look*. All
runs of one sidekick are made into the smallest-to-follow machine over looks (the subset construction: its states are
the sets of local states that can't be told apart from outside). That is exact for what can be seen, and some dozens
of states instead of hundreds of thousands. Who is who doesn't matter: states that differ by names only are one.

Who may take a turn is asked of ``core.slots.decide`` and ``core.budgets``, which the real lock asks, too.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from outrider.core.rollout.budgets import Budget, Contending, Room
from outrider.core.rollout.slots import Holding, Take, Waiting, decide
from outrider.verify.explore import AGAIN, BLOCKED, ENV, FAULT, TAU, TOUCHED, TURN, WAITS, Explored

Member = tuple[int, str]
"""A sidekick: the state of its machine of looks, and its name."""


class Fleet(NamedTuple):
    """All sidekicks at one moment.

    Attributes:
        line: Those in line, in order.
        others: All others, sorted.
        saw_room: Those in line that have seen room in their budgets since they stand there; only kept where the taking
            transaction doesn't compare the budgets.
    """

    line: tuple[Member, ...]
    others: tuple[Member, ...]
    saw_room: frozenset[str] = frozenset()


Move = tuple[str, int]
"""Who, and the mark of what it did (without ``FAULT``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Racks:
    """Labels of the sidekicks of a fleet, and the budgets that count them.

    Attributes:
        of: For each sidekick the value of its label ``rack``; empty: it has none.
        compared: The transaction that takes a turn compares the budgets. Without it the checker must find a breach.
    """

    of: tuple[str, ...]
    budget: Budget
    compared: bool = True

    @property
    def words(self) -> str:
        """``a+a+b at most 1 out``."""
        most, least = self.budget.max_out, self.budget.min_serving
        limits = [f"at most {most} out"] if most is not None else []
        limits += [f"{least} serving"] if least else []
        return f"{'+'.join(one or '-' for one in self.of)} {', '.join(limits)}"


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
    racks: str = ""


def explore_fleet(looks: Looks, sidekicks: int, slots: int, racks: Racks | None = None) -> FleetResult:
    """Walk all states of a number of sidekicks over a lock with a number of slots.

    Args:
        racks: Their labels and the budget that counts; None: neither.
    """
    names = tuple(f"web-{number}" for number in range(1, sidekicks + 1))
    labels = _Labels(names, racks)
    begin = Fleet((), tuple((looks.start(), name) for name in labels.sorted(names)))
    parents: dict[object, tuple[Fleet, Move] | None] = {labels.nameless(begin): None}
    todo, edges, words = [begin], 0, "" if racks is None else racks.words
    for fleet in todo:
        for move, after in _next(looks, fleet, slots, labels):
            edges += 1
            key = labels.nameless(after)
            if key in parents:
                continue
            parents[key] = (fleet, move)
            promise = _broken(looks, after, slots) or labels.broken(looks, after)
            if promise:
                moves = _story(looks, parents, begin, after, slots, labels)
                return FleetResult(
                    sidekicks=sidekicks, slots=slots, states=len(parents), edges=edges, promise=promise, moves=moves,
                    racks=words,
                )  # fmt: skip
            todo.append(after)
    return FleetResult(sidekicks=sidekicks, slots=slots, states=len(parents), edges=edges, racks=words)


class _Labels:
    """The sidekicks' labels, and what follows from them."""

    def __init__(self, names: tuple[str, ...], racks: Racks | None) -> None:
        self.racks = racks
        self.of: Mapping[str, str] = dict.fromkeys(names, "")
        if racks is not None:
            self.of = dict(zip(names, racks.of, strict=True))
        self._held: dict[tuple[tuple[str, bool], ...], Mapping[str, str]] = {}

    def sorted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """By their labels, so that those with the same may change places."""
        return tuple(sorted(names, key=lambda name: (self.of[name], name)))

    def order(self, member: Member) -> tuple[int, str, str]:
        """Members that nothing but the name tells apart stand side by side."""
        return member[0], self.of[member[1]], member[1]

    def nameless(self, fleet: Fleet) -> object:
        """What tells two fleets apart: not the names, but the labels."""
        if self.racks is None:
            return tuple(tuple(state for state, _ in part) for part in (fleet.line, fleet.others))
        return tuple(
            tuple((state, self.of[name], name in fleet.saw_room) for state, name in part)
            for part in (fleet.line, fleet.others)
        )

    def held(self, looks: Looks, fleet: Fleet) -> Mapping[str, str]:
        """Whom a budget keeps from a turn, as the lock decides it; who has no turn serves (P3)."""
        if self.racks is None:
            return {}
        turns = tuple(
            sorted((name, bool(looks.look(state) & TURN)) for part in fleet[:2] for state, name in part)
        )  # fmt: skip
        found = self._held.get(turns)
        if found is None:
            contending = (self._contending(name, turns) for name, has_turn in turns if not has_turn)
            found = self._held[turns] = {one.instance: one.held for one in contending if one.held}
        return found

    def _contending(self, name: str, turns: tuple[tuple[str, bool], ...]) -> Contending:
        assert self.racks is not None
        label = self.racks.budget.label
        rooms = {
            (label, value): Room(
                out=[who for who, has_turn in turns if has_turn and self.of[who] == value],
                serving=[who for who, has_turn in turns if not has_turn and self.of[who] == value],
            )
            for value in set(self.of.values())
        }
        labels = {label: self.of[name]} if self.of[name] else {}
        return Contending(instance=name, labels=labels, budgets=(self.racks.budget,), rooms=rooms)

    def broken(self, looks: Looks, fleet: Fleet) -> str:
        """Which budget is broken, counted here on its own; empty when none is."""
        if self.racks is None:
            return ""
        budget = self.racks.budget
        for value in sorted(set(self.of.values()) - {""}):
            seen = [bool(looks.look(state) & TURN) for part in fleet[:2] for state, name in part
                    if self.of[name] == value]  # fmt: skip
            out, serving = sum(seen), len(seen) - sum(seen)
            if budget.max_out is not None and out > budget.max_out:
                return f"budget: {out} of {budget.label} {value} are out at once, and at most {budget.max_out} may be"
            if out and serving < budget.min_serving:
                least = budget.min_serving
                return f"budget: {serving} of {budget.label} {value} serve while one is out, and {least} must"
        return ""


def _broken(looks: Looks, fleet: Fleet, slots: int) -> str:
    seen = [looks.look(state) for part in fleet[:2] for state, _ in part]
    turns, touched = sum(bool(one & TURN) for one in seen), sum(bool(one & TOUCHED) for one in seen)
    if turns > slots:
        return f"P1: {turns} turns at once, and there are {slots} slots"
    if touched > slots:
        return f"P5: a bad release reached {touched} instances, and there are {slots} slots"
    return ""


def _next(looks: Looks, fleet: Fleet, slots: int, labels: _Labels) -> Iterator[tuple[Move, Fleet]]:
    line, others, saw_room = fleet
    held = labels.held(looks, fleet)
    holders = sum(bool(looks.look(state) & TURN) for state, _ in others)
    for state, name in (*line, *others):
        before = looks.look(state)
        for label, number in looks.moves(state).items():
            if label & ENV and label < AGAIN:
                continue  # nobody but another sidekick of this fleet does that
            after = looks.look(number)
            if after & TURN and not before & TURN:
                keeps = {who: why for who, why in held.items() if who not in saw_room} if saw_room else held
                if not _may_take(line, name, holders, slots, keeps):
                    continue
            stays = before & WAITS and after & WAITS and not label & AGAIN
            members = {who: (number if who == name else one) for part in fleet[:2] for one, who in part}
            if after & BLOCKED and not before & BLOCKED:
                members = {who: one if who == name else _told(looks, one) for who, one in members.items()}
            queue = [who for _, who in line if who != name or stays]
            if after & WAITS and not stays:
                queue.append(name)
            rest = sorted(((one, who) for who, one in members.items() if who not in queue), key=labels.order)
            following = Fleet(tuple((members[who], who) for who in queue), tuple(rest))
            if labels.racks is not None and not labels.racks.compared:
                room = {who for who in queue if who not in labels.held(looks, following)}
                kept = {who for who in saw_room if who in queue and (who != name or stays)}
                following = following._replace(saw_room=frozenset(room | kept))
            yield (name, label), following


def _told(looks: Looks, state: int) -> int:
    """A sidekick's state once somebody else blocked the release."""
    if looks.look(state) & BLOCKED:
        return state
    return next(number for label, number in looks.moves(state).items() if label & ENV and label < AGAIN)


def _may_take(line: tuple[Member, ...], name: str, holders: int, slots: int, held: Mapping[str, str]) -> bool:
    queue = [
        Waiting(instance=who, key=who, create_revision=place, mod_revision=place)
        for place, (_, who) in enumerate(line, 1)
    ]
    if name not in [one.instance for one in queue]:
        return False
    turns = [Holding(number=number, instance=f"holder-{number}", create_revision=1) for number in range(holders)]
    return isinstance(decide(name, queue, turns, slots, held), Take)


def _story(
    looks: Looks,
    parents: dict[object, tuple[Fleet, Move] | None],
    begin: Fleet,
    end: Fleet,
    slots: int,
    labels: _Labels,
) -> tuple[Move, ...]:
    """The moves from the beginning, with the names that the sidekicks of ``begin`` have."""
    steps: list[tuple[Fleet, object]] = []
    at: object = labels.nameless(end)
    while (parent := parents[at]) is not None:
        steps.append((parent[0], at))
        at = labels.nameless(parent[0])
    moves: list[Move] = []
    fleet = begin
    for _, wanted in reversed(steps):
        move, fleet = next(
            (move, after) for move, after in _next(looks, fleet, slots, labels) if labels.nameless(after) == wanted
        )
        moves.append(move)
    return tuple(moves)
