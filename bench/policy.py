"""How long ``outrider policy verify`` takes: a bad policy, the shipped default, and 300 instances in 5 racks.

python -m bench.policy   prints a line each, and leaves with 1 when one takes longer than it may
"""

import sys
import time
from collections.abc import Sequence

from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.policy_settings import Policy
from outrider.statechart import find_sidekick_chart
from outrider.verify.check import STRATEGIES
from outrider.verify.outside import shipped_views
from outrider.verify.phases import Class
from outrider.verify.policy_check import check_policy, required_by

Groups = Sequence[tuple[Class, Sequence[str]]]


def named(labels: dict[str, str], size: int) -> tuple[Class, list[str]]:
    """A class with made-up names."""
    return Class(labels=labels, size=size), [f"web-{'-'.join(labels.values())}-{number}" for number in range(size)]


CASES: tuple[tuple[str, Groups, Policy, int, int, float], ...] = (
    ("a bad policy: 10 instances, 4 slots, 7 must serve", [named({}, 10)], Policy(min_healthy=7), 4, 0, 20.0),
    ("the default: 10 instances, 1 slot, 9 must serve", [named({}, 10)], Policy(), 1, 9, 20.0),
    (
        "300 instances in 5 racks, 1 of each rack, 5 slots",
        [named({"rack": str(rack)}, 60) for rack in range(5)],
        Policy(budgets=(Budget(label="rack", max_out=1),)),
        5,
        0,
        60.0,
    ),
)
"""What is checked: words, classes, policy, slots, how many must serve, most seconds."""


def main() -> int:
    """Check each case and print what came out."""
    too_slow = 0
    for words, groups, policy, slots, at_least, most_s in CASES:
        began_s = time.monotonic()
        views = shipped_views(find_sidekick_chart().read_bytes())
        required = required_by(policy, [one for one, _ in groups], at_least)
        rows = list(check_policy(views, groups, policy, slots, STRATEGIES, required))
        took_s = time.monotonic() - began_s
        outcome = rows[-1].broken or f"at least {min(row.lowest for row in rows if 'lost' not in row.case.words)} serve"
        print(f"{took_s:5.1f} s of {most_s:g}  {sum(row.states for row in rows):7} states  {words}: {outcome}")
        too_slow += took_s > most_s
    return int(too_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
