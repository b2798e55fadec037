"""Groups for the tests of the preview."""

from datetime import UTC, datetime
from typing import Any

from outrider.core.rollout.policy_settings import Policy
from outrider.core.sidekick.memory import Strategy
from outrider.preview.durations import Durations
from outrider.preview.run import Group, Run, Trouble, run
from outrider.preview.service import Known, unattended

MONDAY = datetime(2026, 11, 30, 10, tzinfo=UTC)
MEASURED = Durations(turn_s=(20.0,), prepare_s=(4.0,))


def group(
    instances: int = 4, *, slots: int = 1, strategy: Strategy = "start-first", racks: int = 2, **policy: Any
) -> Group:
    """Instances ``web-0`` and so on, spread over racks, that run 1.0.0 and go to 2.0.0."""
    return Group(
        version="2.0.0",
        instances=tuple(
            Known(name=f"web-{number}", version="1.0.0", labels={"rack": str(number % racks)})
            for number in range(instances)
        ),
        policy=unattended(Policy(**policy)),
        slots=slots,
        strategy=strategy,
    )


def once(
    group: Group, durations: Durations = MEASURED, *, seed: int = 0, began: datetime = MONDAY, **trouble: Any
) -> Run:
    """One run."""
    return run(group, durations, Trouble(**trouble), seed, began)


def most_at_once(found: Run) -> int:
    """How many turns there were at once."""
    ends = [(one.ended_s, -1) for one in found.turns if one.ended_s is not None]
    changes = sorted([*((one.began_s, 1) for one in found.turns), *ends])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
