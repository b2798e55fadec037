"""States as numbers, and what can happen to them, looked up.

A state has some dozens of bits: for each field of ``Local`` the number of its value. Each part of what can happen
looks at some fields only, so what it finds is kept by these bits, as what is to be changed: hundreds of thousands of
states share some thousands of answers. That a part looks at no other field is not a matter of trust: it is given a
state in which all others hold something that can't be used.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

from outrider.verify.happenings import Part
from outrider.verify.world import Become, Edge, Local, World

BITS: Mapping[str, int] = {
    "brain": 20, "works": 14, "writes": 14, "locks": 14, "asks": 14, "request": 10, "late": 18, "alive": 10, "entry": 6,
    "deserted": 10, "heard": 10, "key": 2, "slot": 2, "blocked": 1, "proved": 1, "barred": 1, "touched": 1,
    "forgiven": 1, "permitted": 1, "braked": 1, "gone": 2, "words": 3, "falls": 3, "task": 3,
    "ran": 2, "noted": 2, "contracted": 1,
}  # fmt: skip
"""Room for the values of each field."""
assert tuple(BITS) == Local._fields, "a field of a state without room for its value"

SHIFTS: Mapping[str, int] = dict(zip(BITS, accumulate(BITS.values(), initial=0), strict=False))
MASKS: Mapping[str, int] = {name: ((1 << bits) - 1) << SHIFTS[name] for name, bits in BITS.items()}


def mask(fields: Iterable[str]) -> int:
    """The bits of several fields."""
    return sum(MASKS[name] for name in fields)


class _Unread:
    """Stands in a field that a part said it doesn't look at; any look at it is an error."""

    def _used(self, *_: object) -> NoReturn:
        raise TypeError("a part of what can happen looks at a field that it didn't name")

    __bool__ = __len__ = __iter__ = __getitem__ = __hash__ = __eq__ = __lt__ = __gt__ = __add__ = __sub__ = _used


UNREAD: Any = _Unread()


class Change(NamedTuple):
    """An edge, for all states that look the same to its part.

    Attributes:
        keep, add: The state after it is ``state & keep | add``, but for the consequences.
        consequences: Number of what follows besides, see ``Space.follow``; 0: nothing.
        again: It gives up a place in the queue for a new one.
    """

    keep: int
    add: int
    consequences: int
    fault: bool
    elsewhere: bool
    again: bool
    problem: str


class _Consequences:
    """What follows from something that happened, looked up: by all the fields that it changes, and by each of them."""

    def __init__(self, space: "Space", changes: list[Become], *, ended: bool) -> None:
        self._space, self._ended = space, ended
        self._fields: dict[str, list[Callable[[Any], Any]]] = {}
        for change in changes:
            for name, become in change.items():
                self._fields.setdefault(name, []).append(become)
        self.bits = mask(self._fields)
        if ended:
            self.bits |= mask(["brain", "alive"])
        self.known: dict[int, int] = {}
        self._one: dict[str, dict[int, int]] = {name: {} for name in self._fields}

    def look_up(self, state: int) -> int:
        """The bits of all these fields afterwards."""
        found = 0
        for name, several in self._fields.items():
            before = state & MASKS[name]
            after = self._one[name].get(before)
            if after is None:
                value = self._space.value(name, before)
                for become in several:
                    value = become(value)
                after = self._one[name][before] = self._space.bits(name, value)
            found |= after
        if self._ended:
            s = self._space.unpack(state & ~self.bits | found)
            found = found & ~MASKS["alive"] | self._space.bits("alive", self._space.world.minded(s))
        self.known[state & self.bits] = found
        return found


class Space:
    """The states of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.consequences: list[_Consequences] = [_Consequences(self, [], ended=False)]
        self._values: dict[str, list[Any]] = {name: [] for name in BITS}
        self._numbers: dict[str, dict[Any, int]] = {name: {} for name in BITS}
        self._following: dict[tuple[int, int], int] = {(0, 0): 0}

    def pack(self, s: Local) -> int:
        """The number of a state."""
        return sum(self.bits(name, value) for name, value in zip(Local._fields, s, strict=True))

    def unpack(self, state: int) -> Local:
        """The state of a number."""
        return Local(*(self.value(name, state) for name in Local._fields))

    def changes(self, part: Part, state: int) -> tuple[Change, ...]:
        """What ``part`` finds in ``state``, and in all that have the same bits in the fields that it reads."""
        seen = [self.value(name, state) if name in part.reads else UNREAD for name in Local._fields]
        found: list[Edge] = []
        part.look(self.world, Local(*seen), found)
        changes = [self._change(seen, edge) for edge in found]
        return tuple(one for one in changes if one is not None)

    def bits(self, name: str, value: Any) -> int:
        """The bits of a field that has a value."""
        numbers = self._numbers[name]
        number = numbers.get(value)
        if number is None:
            number = numbers[value] = len(numbers)
            if number >> BITS[name]:
                raise ValueError(f"more than {number} different values of {name}")
            self._values[name].append(value)
        return number << SHIFTS[name]

    def value(self, name: str, state: int) -> Any:
        """The value of a field."""
        return self._values[name][(state & MASKS[name]) >> SHIFTS[name]]

    def _change(self, seen: list[Any], edge: Edge) -> Change | None:
        """None when nothing changes, and nothing is broken."""
        keep = add = 0
        for name, before, value in zip(Local._fields, seen, edge.after, strict=True):
            if value is before or (before is not UNREAD and value == before):
                keep |= MASKS[name]
            else:
                add |= self.bits(name, value)
        follows = self._follows(edge)
        if keep == _ALL and not follows and not edge.problem:
            return None
        before_key, key = seen[_KEY], edge.after.key
        again = before_key is not UNREAD and before_key == 2 and key == 1
        return Change(keep, add, follows, edge.fault, edge.elsewhere, again, edge.problem)

    def _follows(self, edge: Edge) -> int:
        """The number of its consequences. Steps are kept forever, so they are known by their identity."""
        index = (edge.ends, 0 if edge.taken is None else id(edge.taken))
        number = self._following.get(index)
        if number is None:
            ended = edge.taken is not None and bool(edge.taken.ended)
            changes = self.world.consequences(edge.ends, edge.taken)
            number = self._following[index] = len(self.consequences)
            self.consequences.append(_Consequences(self, changes, ended=ended))
        return number


_ALL = mask(BITS)
_KEY = Local._fields.index("key")
