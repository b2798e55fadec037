"""A whole group from outside: hundreds of instances with turns, budgets, waves and limits, by counting equal ones.

Each instance is a copy of the chart's outside view (``outside.py``). Instances with the same labels are a *class*, and
within a class only numbers count: how many are in which state of the view. Those that serve and have no turn are not
told apart at all: any of them may be about to take one (counter abstraction). So a state is small, whatever the size:
for each class the few that have a turn, or are down, or were touched by the bad release.

Who may take a turn is asked of ``core.rollout.budgets``, as the real lock asks; the grants are bounded by what the
policy allows at most at once: its wave, its canaries, ``max_in_progress`` and ``min_healthy``. Order and time are left
out: whoever may be next may be next at any moment. What holds here holds in every order.

Crashes, expired leases and partitions that end before the grant does are steps of the view and happen at any time, any
number of times. Counted as faults are:

- a machine that is lost for good: its turn stays, dirty; its presence stays until its lease has ended
- a sidekick that stays away for longer than its grant lives, so that its place under the policy's limits is free again
- a bad release, which takes another view
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from outrider.core.rollout.budgets import Budget, Contending, Room
from outrider.core.rollout.policy_settings import Policy
from outrider.verify.explore import BLOCKED, TOUCHED, TURN
from outrider.verify.outside import SERVES, OutsideView
from outrider.verify.phases import Class, phases_of

LOST, LINGERS, LOST_TURN, LINGERS_TURN = -1, -2, -3, -4
"""In place of a view's state: a lost machine whose lease has ended, or hasn't; the same with a turn."""
OVERDUE = 1000
"""Added to the state of one whose grant has ended under it."""
STATE_LIMIT = 3_000_000

Done = Literal["takes", "moves", "lost", "forgotten", "overdue", "wave"]
Fault = Literal["lost", "overdue"]
FAULTS: frozenset[Fault] = frozenset({"lost", "overdue"})


class State(NamedTuple):
    """A group at one moment.

    Attributes:
        phase: Number of the phase.
        blocked: The release is blocked.
        faults: That may happen yet.
        active: Of each class those that are told apart: states of the view, sorted.
    """

    phase: int
    blocked: bool
    faults: int
    active: tuple[tuple[int, ...], ...]


class Step(NamedTuple):
    """What led to a state: what happened, to one of which class, from and to which state of the view."""

    done: Done
    group: int
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was reached.

    Attributes:
        states: How many.
        lowest: The fewest instances that serve.
        lowest_of: The same for each value of a label that has a budget.
        reached: The most instances on which the bad release was started and not taken back for another reason.
        path: What led to the fewest, or to what broke the requirement.
        broken: The requirement that doesn't hold, in words; empty when all do.
    """

    states: int
    lowest: int
    lowest_of: Mapping[tuple[str, str], int]
    reached: int
    path: tuple[tuple[Step, State], ...] = ()
    broken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """What shall hold: so many of all instances serve, and so many of each value of a label besides one that is out."""

    serving: int
    of: Mapping[tuple[str, str], int] = field(default_factory=dict)


class GroupModel:
    """All that can happen to a group under one view."""

    def __init__(
        self,
        view: OutsideView,
        classes: Sequence[Class],
        policy: Policy,
        slots: int,
        *,
        kinds: frozenset[Fault] = FAULTS,
        tells_classes: bool = False,
    ) -> None:
        """Put a group together.

        Args:
            kinds: The faults that may happen.
            tells_classes: Whether equal classes are told apart, for a story.
        """
        self.view, self.classes, self.slots, self.kinds = view, tuple(classes), slots, kinds
        self.total = sum(one.size for one in classes)
        self._is_bad = any(look & TOUCHED for look in view.looks)
        self.phases = phases_of(policy, self.classes)
        self._budgets = policy.budgets
        self._passive = {blocked: self._rest(blocked) for blocked in (False, True)}
        self._entries = {
            blocked: sorted({after for state in states for after in view.moves[state] if view.looks[after] & TURN})
            for blocked, states in self._passive.items()
        }
        self._symmetric = [] if tells_classes else self._interchangeable()
        self._may: dict[tuple[int, tuple[int, ...], tuple[int, ...]], bool] = {}
        self._values = sorted({(one.label, each.labels[one.label]) for one in self._budgets for each in self.classes
                               if one.label in each.labels})  # fmt: skip
        self._in = [
            [place for place, each in enumerate(self.classes) if each.labels.get(label) == value]
            for label, value in self._values
        ]

    def start(self, faults: int) -> State:
        """Everybody serves."""
        return State(0, False, faults, tuple(() for _ in self.classes))

    # --- what is seen of a state ------------------------------------------------------------------------------------

    def look(self, code: int) -> int:
        """The look of one that is told apart."""
        if code < 0:
            return TURN if code in (LOST_TURN, LINGERS_TURN) else 0
        return self.view.looks[code % OVERDUE]

    def serving(self, state: State) -> int:
        """How many serve."""
        return self.total - sum(not self.look(code) & SERVES for part in state.active for code in part)

    def shared(self, found: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """What was found of one of several equal classes holds for all of them."""
        result = dict(found)
        for places in self._symmetric:
            values = [value for value, inside in zip(self._values, self._in, strict=True) if set(inside) & set(places)]
            for label in {label for label, _ in values}:
                same = [value for value in values if value[0] == label]
                lowest = min(result[value] for value in same)
                result |= dict.fromkeys(same, lowest)
        return result

    def broken(self, state: State, required: "Required") -> str:
        """What of the requirement doesn't hold; the machines that are lost themselves are excused."""
        lost = sum(code < 0 for part in state.active for code in part)
        if (serving := self.serving(state)) + lost < required.serving:
            gone = f" besides {lost} on lost machines" if lost else ""
            return f"{serving} of {self.total} instances serve{gone}, and {required.serving} must"
        if not required.of:
            return ""
        counts = self.serving_of(state)
        for value, places in zip(self._values, self._in, strict=True):
            excused = sum(code < 0 for place in places for code in state.active[place])
            if counts[value] + excused < required.of.get(value, 0):
                label, named = value
                return f"{counts[value]} with {label}={named} serve, and {required.of[value]} must"
        return ""

    def serving_of(self, state: State) -> dict[tuple[str, str], int]:
        """How many serve of each value of a label that has a budget."""
        found = {}
        for value, places in zip(self._values, self._in, strict=True):
            out = sum(not self.look(code) & SERVES for place in places for code in state.active[place])
            found[value] = sum(self.classes[place].size for place in places) - out
        return found

    def reached(self, state: State) -> int:
        """On how many the bad release was started."""
        return sum(bool(self.look(code) & TOUCHED) for part in state.active for code in part)

    # --- what can happen --------------------------------------------------------------------------------------------

    def following(self, state: State) -> Iterator[tuple[Step, State]]:
        """Everything that can happen next."""
        turns = sum(bool(self.look(code) & TURN) for part in state.active for code in part)
        for group, part in enumerate(state.active):
            if len(part) < self.classes[group].size:
                if turns < self.slots and self._may_take(state, group):
                    for after in self._entries[state.blocked]:
                        yield self._changed(state, Step("takes", group, 0, after))
                if state.faults and "lost" in self.kinds:
                    lost = self._changed(state._replace(faults=state.faults - 1), Step("lost", group, 0, LINGERS))
                    yield lost
            for code in dict.fromkeys(part):
                yield from self._one(state, group, code)
        phase = state.phase + 1
        is_next = phase < len(self.phases) and not self._is_bad  # nothing that is bad completes a wave
        if is_next and not any(0 <= code < OVERDUE for part in state.active for code in part
                                                if self.look(code) & TURN):  # fmt: skip
            yield Step("wave", 0, 0, phase), state._replace(phase=phase)

    def _one(self, state: State, group: int, code: int) -> Iterator[tuple[Step, State]]:
        """What can happen to one that is told apart."""
        if code < 0:
            if code in (LINGERS, LINGERS_TURN):
                yield self._changed(state, Step("forgotten", group, code, LOST if code == LINGERS else LOST_TURN))
            return
        overdue = code // OVERDUE * OVERDUE
        for after in self.view.moves[code % OVERDUE]:
            yield self._changed(state, Step("moves", group, code, after + overdue))
        if not state.faults:
            return
        fewer = state._replace(faults=state.faults - 1)
        has_turn = bool(self.look(code) & TURN)
        if "lost" in self.kinds:
            yield self._changed(fewer, Step("lost", group, code, LINGERS_TURN if has_turn else LINGERS))
        if "overdue" in self.kinds and has_turn and not overdue and self.phases[state.phase].most < self.slots:
            yield self._changed(fewer, Step("overdue", group, code, code + OVERDUE))

    def _may_take(self, state: State, group: int) -> bool:
        phase = self.phases[state.phase]
        if not phase.takes[group]:
            return False
        granted = sum(0 <= code < OVERDUE and bool(self.look(code) & TURN) for part in state.active for code in part)
        return granted < phase.most and self._has_room(state, group)

    def _has_room(self, state: State, group: int) -> bool:
        """Whether the budgets let one of the class take a turn."""
        if not self._budgets:
            return True
        out, serving = [], []
        for places in self._in:
            codes = [code for place in places for code in state.active[place]]
            out.append(sum(bool(self.look(code) & TURN) for code in codes))
            gone = sum(bool(self.look(code) & TURN) or code == LOST for code in codes)
            serving.append(sum(self.classes[place].size for place in places) - gone)
        key = group, tuple(out), tuple(serving)
        found = self._may.get(key)
        if found is None:
            found = self._may[key] = not self._contending(group, out, serving).held
        return found

    def _contending(self, group: int, out: Sequence[int], serving: Sequence[int]) -> Contending:
        """One of a class before the lock, among others without names; it is one of those that serve."""
        rooms = {
            value: Room(out=[f"out-{number}" for number in range(busy)],
                        serving=["me", *(f"up-{number}" for number in range(up - 1))]
                        if value[1] == self.classes[group].labels.get(value[0])
                        else [f"up-{number}" for number in range(up)])
            for value, busy, up in zip(self._values, out, serving, strict=True)
        }  # fmt: skip
        return Contending(instance="me", labels=self.classes[group].labels, budgets=self._budgets, rooms=rooms)

    def _changed(self, state: State, step: Step) -> tuple[Step, State]:
        active = [list(part) for part in state.active]
        if step.done in ("moves", "overdue", "forgotten") or (step.done == "lost" and step.before != 0):
            active[step.group].remove(step.before)
        blocked = state.blocked
        if step.after >= 0 and self.view.looks[step.after % OVERDUE] & BLOCKED and not blocked:
            blocked = True
            active = [[self._told(code) for code in part] for part in active]
        if step.after < 0 or not self._is_passive(step.after % OVERDUE):
            active[step.group].append(step.after)
        return step, State(state.phase, blocked, state.faults, self._sorted(active))

    def told_codes(self, state: State) -> dict[int, int]:
        """What those that are told apart become when they hear that the release is blocked."""
        return {code: self._told(code) for part in state.active for code in part}

    def _told(self, code: int) -> int:
        if code < 0 or self.view.looks[code % OVERDUE] & BLOCKED:
            return code
        return self.view.told[code % OVERDUE] + code // OVERDUE * OVERDUE

    def canonical(self, state: State) -> State:
        """The state with equal classes made one."""
        return state._replace(active=self._sorted([list(part) for part in state.active]))

    def _sorted(self, active: list[list[int]]) -> tuple[tuple[int, ...], ...]:
        """Which of several equal classes it is doesn't matter."""
        parts = [tuple(sorted(part)) for part in active]
        for places in self._symmetric:
            for place, part in zip(places, sorted(parts[place] for place in places), strict=True):
                parts[place] = part
        return tuple(parts)

    def _interchangeable(self) -> list[list[int]]:
        """Classes that differ in nothing but the values of their labels, each value of a budget being theirs alone."""
        kinds: dict[object, list[int]] = {}
        for place, one in enumerate(self.classes):
            values = [(each.label, one.labels[each.label]) for each in self._budgets_of(one)]
            alone = all(
                sum(other.labels.get(label) == value for other in self.classes) == 1 for label, value in values
            )  # fmt: skip
            takes = tuple(phase.takes[place] for phase in self.phases)
            kind = (one.size, takes, tuple(label for label, _ in values)) if alone else place
            kinds.setdefault(kind, []).append(place)
        return [places for places in kinds.values() if len(places) > 1]

    def _budgets_of(self, one: Class) -> list[Budget]:
        return [each for each in self._budgets if each.label in one.labels]

    def _is_passive(self, state: int) -> bool:
        """It serves, without a turn, and was not touched: like any that has done nothing."""
        return self.view.looks[state] & ~BLOCKED == SERVES

    def _rest(self, blocked: bool) -> set[int]:
        """The states in which one of those may be that are not told apart."""
        states, moves = range(len(self.view.looks)), self.view.moves
        reachable, todo = {0}, [0]
        while todo:
            state = todo.pop()
            for after in (*moves[state], self.view.told[state]):
                if after not in reachable:
                    reachable.add(after)
                    todo.append(after)
        wanted = SERVES | (BLOCKED if blocked else 0)
        return {state for state in states if state in reachable and self.view.looks[state] == wanted}


def explore_group(model: GroupModel, faults: int, required: Required | None = None) -> Found:
    """Walk all states of a group, breadth first, and stop where the requirement is broken.

    Raises:
        ValueError: there are more than ``STATE_LIMIT``.
    """
    begin = model.start(faults)
    parents: dict[State, tuple[State, Step] | None] = {begin: None}
    lowest, worst, reached = model.serving(begin), begin, 0
    lowest_of = model.serving_of(begin)
    todo = [begin]
    for state in todo:
        serving = model.serving(state)
        if serving < lowest:
            lowest, worst = serving, state
        reached = max(reached, model.reached(state))
        of = model.serving_of(state)
        for value, count in of.items():
            lowest_of[value] = min(lowest_of[value], count)
        broken = "" if required is None else model.broken(state, required)
        if broken:
            path = _path(parents, state)
            return Found(
                states=len(parents), lowest=lowest, lowest_of=lowest_of, reached=reached, path=path, broken=broken
            )  # fmt: skip
        for step, after in model.following(state):
            if after not in parents:
                parents[after] = state, step
                todo.append(after)
        if len(parents) > STATE_LIMIT:
            raise ValueError(f"more than {STATE_LIMIT} states of the group")
    return Found(
        states=len(parents), lowest=lowest, lowest_of=model.shared(lowest_of), reached=reached,
        path=_path(parents, worst),
    )  # fmt: skip


def _path(parents: Mapping[State, tuple[State, Step] | None], state: State) -> tuple[tuple[Step, State], ...]:
    found: list[tuple[Step, State]] = []
    while (parent := parents[state]) is not None:
        found.append((parent[1], state))
        state = parent[0]
    return tuple(reversed(found))
