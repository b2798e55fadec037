"""How a policy cuts a rollout into phases: who may be granted in each, and how many at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.core.labels import parse_selector
from outrider.core.rollout.policy_settings import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """Instances with the same labels."""

    labels: Mapping[str, str]
    size: int

    @property
    def words(self) -> str:
        """For people."""
        return ",".join(f"{name}={value}" for name, value in sorted(self.labels.items())) or "without labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a rollout: a wave, the canaries, or all the others.

    Attributes:
        takes: For each class, whether its instances may be granted.
        most: The most grants at once.
    """

    words: str
    takes: tuple[bool, ...]
    most: int


def phases_of(policy: Policy, classes: Sequence[Class]) -> tuple[Phase, ...]:
    """The waves, the canaries and the others, each with the most grants that the policy gives at once."""
    total = sum(one.size for one in classes)
    most = total if policy.max_in_progress is None else policy.max_in_progress
    if policy.min_healthy:
        # the last one that is granted sees so many others that serve and do not update
        most = max(0, min(most, total - policy.min_healthy))
    everybody = tuple(True for _ in classes)
    phases: list[Phase] = []
    before = tuple(False for _ in classes)
    for number, wave in enumerate(policy.waves, 1):
        takes = tuple(wave.selects(one.labels) for one in classes)
        size = wave.size_among(sum(one.size for one, taken in zip(classes, takes, strict=True) if taken))
        late = sum(one.size for one, was in zip(classes, before, strict=True) if was)
        name = f"wave {number} ({wave.words})"
        granted = tuple(a or b for a, b in zip(takes, before, strict=True))
        phases.append(Phase(words=name, takes=granted, most=min(most, size + late)))
        if wave.takes_all:
            before = granted
    if policy.canary:
        chosen = tuple(parse_selector(policy.canary_selector).selects(one.labels) for one in classes)
        phases.append(Phase(words=f"{policy.canary} canaries", takes=chosen, most=min(most, policy.canary)))
    phases.append(Phase(words="the others" if phases else "", takes=everybody, most=most))
    return tuple(phases)
