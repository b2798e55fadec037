"""What a policy guarantees: a group explored under each kind of trouble, with up to two faults, and told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from outrider.core.rollout.policy_settings import Policy
from outrider.core.sidekick.memory import Strategy
from outrider.verify.explore import BLOCKED, TOUCHED, TURN
from outrider.verify.group import (
    FAULTS,
    Fault,
    Found,
    GroupModel,
    Required,
    State,
    Step,
    explore_group,
)
from outrider.verify.outside import SERVES, OutsideView
from outrider.verify.phases import Class
from outrider.verify.world import Badness

GOOD: tuple[Badness, ...] = ("none",)
BAD: tuple[Badness, ...] = ("refused", "unhealthy", "dies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A kind of trouble; ``faults`` may happen of ``kinds``, besides the release."""

    words: str
    releases: tuple[Badness, ...]
    faults: int = 0
    kinds: frozenset[Fault] = FAULTS


_LOST: frozenset[Fault] = frozenset({"lost"})
_OVERDUE: frozenset[Fault] = frozenset({"overdue"})

CASES = (
    Case(words="no fault that is counted", releases=GOOD),
    Case(words="a bad release", releases=BAD),
    Case(words="a sidekick that stays away", releases=GOOD, faults=1, kinds=_OVERDUE),
    Case(words="a bad release, a sidekick that stays away", releases=BAD, faults=1, kinds=_OVERDUE),
    Case(words="a lost machine", releases=GOOD, faults=1, kinds=_LOST),
    Case(words="a bad release, a lost machine", releases=BAD, faults=1, kinds=_LOST),
    Case(words="two lost machines or sidekicks that stay away", releases=GOOD, faults=2),
)
"""Up to two faults. A crash, an expired lease or a partition that ends in time is no fault that is counted."""

LEFT_OUT = (
    "time and order: whoever may be next may be next at any moment, and every deadline may pass",
    "windows, freezes, rates and soak times only delay; here they never help",
    "what operators do: drains, pauses, undo, decommissioning; groups that share the scope of their turns",
    "apps that end by themselves outside an update, and releases that turn bad after they were watched",
    "presence that is missing or late may hold a turn back, and never gives one",
)
"""What the answer does not cover, or covers by supposing the worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came out for one kind of trouble and one strategy."""

    case: Case
    strategy: Strategy
    states: int
    lowest: int
    lowest_of: Mapping[tuple[str, str], int]
    reached: int
    broken: str = ""
    story: tuple[str, ...] = ()


def required_by(policy: Policy, classes: Sequence[Class], at_least: int = 0) -> Required:
    """What the policy itself says must serve, and ``at_least`` of all instances."""
    of: dict[tuple[str, str], int] = {}
    for budget in policy.budgets:
        for value in sorted({one.labels[budget.label] for one in classes if budget.label in one.labels}):
            size = sum(one.size for one in classes if one.labels.get(budget.label) == value)
            by_out = 0 if budget.max_out is None else size - budget.max_out
            of[budget.label, value] = max(0, by_out, min(budget.min_serving, size))
    return Required(serving=max(at_least, policy.min_healthy), of=of)


def check_policy(
    views: Mapping[tuple[Strategy, Badness], OutsideView],
    groups: Sequence[tuple[Class, Sequence[str]]],
    policy: Policy,
    slots: int,
    strategies: Sequence[Strategy],
    required: Required,
) -> Iterator[Row]:
    """Explore the group under each kind of trouble; a row that breaks the requirement tells how, and is the last.

    Args:
        groups: The classes, each with the names of its instances.

    Raises:
        ValueError: the group has more states than can be explored.
    """
    classes = [one for one, _ in groups]
    for case in CASES:
        for strategy in strategies:
            row: Row | None = None
            for badness in case.releases:
                model = GroupModel(views[strategy, badness], classes, policy, slots, kinds=case.kinds)
                found = explore_group(model, case.faults, required)
                row = _with(row, case, strategy, found)
                if found.broken:
                    yield replace(row, broken=found.broken, story=tell(model, groups, policy, case, found))
                    return
            assert row is not None, "every case has a release"
            yield row


def _with(row: Row | None, case: Case, strategy: Strategy, found: Found) -> Row:
    """The worst of all releases of a case."""
    if row is None:
        return Row(
            case=case, strategy=strategy, states=found.states, lowest=found.lowest, lowest_of=found.lowest_of,
            reached=found.reached,
        )  # fmt: skip
    return replace(
        row,
        states=row.states + found.states,
        lowest=min(row.lowest, found.lowest),
        lowest_of={value: min(count, found.lowest_of[value]) for value, count in row.lowest_of.items()},
        reached=max(row.reached, found.reached),
    )


def tell(
    model: GroupModel, groups: Sequence[tuple[Class, Sequence[str]]], policy: Policy, case: Case, found: Found
) -> tuple[str, ...]:
    """The steps that lead to what was found, one line each, with the names of instances."""
    plain = GroupModel(model.view, model.classes, policy, model.slots, kinds=case.kinds, tells_classes=True)
    state, named = plain.start(case.faults), _Names(groups)
    lines: list[str] = []
    for _, wanted in found.path:
        step, after = next(
            (step, after) for step, after in plain.following(state) if model.canonical(after) == wanted
        )  # fmt: skip
        words = _words(plain, named, step, state, after)
        state = after
        lines.append(f"{len(lines) + 1:3}. {words} [{plain.serving(state)} of {plain.total} serve]")
    return (*lines, f"     {found.broken}") if found.broken else tuple(lines)


class _Names:
    """Gives the instances of a story their names."""

    def __init__(self, groups: Sequence[tuple[Class, Sequence[str]]]) -> None:
        self._groups = groups
        self._free = [list(reversed(names)) for _, names in groups]
        self._busy: list[list[tuple[int, str]]] = [[] for _ in groups]

    def of(self, step: Step, active: Sequence[int]) -> str:
        """Who takes a step; ``active`` are those of its class that are told apart after it."""
        busy = self._busy[step.group]
        mine = next((one for one in busy if one[0] == step.before), None) if step.before else None
        if mine is not None:
            busy.remove(mine)
        name = mine[1] if mine is not None else self._free[step.group].pop()
        if step.after in active:
            busy.append((step.after, name))
        else:
            self._free[step.group].append(name)
        labels = self._groups[step.group][0].words
        return name if labels == "without labels" else f"{name} ({labels})"

    def told(self, moved: Mapping[int, int]) -> None:
        """All hear of the block: states of the view become others."""
        self._busy = [[(moved.get(code, code), name) for code, name in busy] for busy in self._busy]


def _words(model: GroupModel, names: _Names, step: Step, before: State, after: State) -> str:
    if step.done == "wave":
        return f"the rollout goes on to {model.phases[step.after].words}"
    if after.blocked and not before.blocked:
        names.told(model.told_codes(before))
        step = step._replace(before=model.told_codes(before).get(step.before, step.before))
    who = names.of(step, after.active[step.group])
    match step.done:
        case "takes":
            held = sum(bool(model.look(code) & TURN) for part in after.active for code in part)
            return f"{who} takes a turn, {held} of {model.slots}{_gone(0, model.look(step.after))}"
        case "lost":
            turn = ", with its turn" if model.look(step.after) & TURN else ""
            return f"the machine of {who} is lost{turn}"
        case "forgotten":
            return f"the lease of {who} ends"
        case "overdue":
            return f"the sidekick of {who} stays away until its grant has ended; its turn stays"
        case _:
            return f"{who}{_moved(model.look(step.before), model.look(step.after))}"


def _gone(before: int, after: int) -> str:
    return "" if after & SERVES else " and is out"


def _moved(before: int, after: int) -> str:
    """What one sees of a step of an instance."""
    words = []
    if after & TOUCHED and not before & TOUCHED:
        words.append("starts the bad release")
    if before & SERVES and not after & SERVES:
        words.append("serves no more")
    if after & SERVES and not before & SERVES:
        words.append("serves again")
    if after & BLOCKED and not before & BLOCKED:
        words.append("blocks the release")
    if before & TURN and not after & TURN:
        words.append("gives its turn back")
    if after & TURN and not before & TURN:
        words.append("takes a turn")
    return " " + ", ".join(words or ["goes on"])
