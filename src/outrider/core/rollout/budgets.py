"""Disruption budgets of a group: how many instances with one value of a label may be out, and how many must serve.

``at most 1 per rack``: of the instances with the same value of the label ``rack`` at most one holds a turn, or left one
behind (dirty). ``at least 2 serving per site``: an instance takes a turn only while two others with the same value
serve. They limit turns, not grants. An instance without the label falls into no budget of it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from outrider.core.errors import ConfigError
from outrider.core.labels import check_name

MAX_BUDGETS = 8
MAX_OUT = 1000
MAX_FLOORS = 80
"""The floors of all budgets together: each serving instance is one comparison, and etcd takes 128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What holds for each value of a label.

    Attributes:
        label: Its name.
        max_out: Most instances with the same value that are out; None: as many as there are turns.
        min_serving: Least number of *other* instances with the same value that serve while one is out.
    """

    label: str
    max_out: int | None = None
    min_serving: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is known of one value of a label.

    Attributes:
        out: Instances with a turn, held or dirty.
        serving: Living instances that serve and have no turn.
    """

    out: Collection[str] = ()
    serving: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contending:
    """One who waits for a turn: its labels, its group's budgets, and whether it serves now."""

    instance: str
    labels: Mapping[str, str]
    budgets: tuple[Budget, ...] = ()
    serves: bool = True
    rooms: Mapping[tuple[str, str], Room] = field(default_factory=dict)

    @property
    def falls_into(self) -> tuple[tuple[Budget, str], ...]:
        """The budgets that count it, each with the value of its label."""
        return tuple((one, self.labels[one.label]) for one in self.budgets if one.label in self.labels)

    @property
    def held(self) -> str:
        """What keeps it from taking a turn, for a person; empty when nothing does."""
        for budget, value in self.falls_into:
            room = self.rooms.get((budget.label, value), Room())
            out = sorted(set(room.out) - {self.instance})
            if budget.max_out is not None and len(out) >= budget.max_out:
                return f"budget {budget.label}={value}: {len(out)} of {budget.max_out} out ({', '.join(out[:3])})"
            others = set(room.serving) - {self.instance}
            # One that serves nothing takes nothing away; held by the floor, it could never be mended.
            if budget.min_serving and self.serves and len(others) < budget.min_serving:
                return (
                    f"budget {budget.label}={value}: {len(others)} others serve, and {budget.min_serving} must"
                    " while one is out"
                )
        return ""


def check_budgets(budgets: Iterable[Budget]) -> None:
    """Refuse budgets that can't be kept.

    Raises:
        ConfigError: too many, two of one label, one that limits nothing, or a number out of its range.
    """
    budgets = tuple(budgets)
    if len(budgets) > MAX_BUDGETS:
        raise ConfigError(f"budgets {len(budgets)}: must be 0 to {MAX_BUDGETS}")
    names = [one.label for one in budgets]
    for one in budgets:
        try:
            check_name(one.label)
        except ConfigError as error:
            raise ConfigError(f"budgets: {error}") from error
        if names.count(one.label) > 1:
            raise ConfigError(f"budgets: {one.label} has {names.count(one.label)} budgets; write them as one")
        if one.max_out is None and not one.min_serving:
            raise ConfigError(f"budgets: {one.label}: limits nothing; set max_out or min_serving")
        if one.max_out is not None and not 1 <= one.max_out <= MAX_OUT:
            raise ConfigError(f"budgets: {one.label}: max_out {one.max_out}: must be 1 to {MAX_OUT}")
        if not 0 <= one.min_serving <= MAX_FLOORS:
            raise ConfigError(f"budgets: {one.label}: min_serving {one.min_serving}: must be 0 to {MAX_FLOORS}")
    if (floors := sum(one.min_serving for one in budgets)) > MAX_FLOORS:
        raise ConfigError(f"budgets: min_serving is {floors} in all; at most {MAX_FLOORS}")


def endless_budgets(budgets: Iterable[Budget], labels: Collection[Mapping[str, str]]) -> tuple[str, ...]:
    """Warnings: values of which no instance can ever take a turn, and instances that no budget counts."""
    found = []
    for one in budgets if labels else ():
        values = [each[one.label] for each in labels if one.label in each]
        without = len(labels) - len(values)
        if without:
            found.append(f"budgets: {one.label}: {without} of {len(labels)} instances have no such label: not limited")
        for value in sorted(set(values)):
            if one.min_serving and values.count(value) <= one.min_serving:
                found.append(
                    f"budgets: {one.label}={value} has {values.count(value)} instances, and {one.min_serving} others"
                    " must serve while one is out, so none is ever updated"
                )
    return tuple(found)
