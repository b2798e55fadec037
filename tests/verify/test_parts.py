"""The bounds in parts: what CI checks of them, another part for each commit."""

from collections import Counter

import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.verify.check import PLANS, STRATEGIES, part_of


@pytest.mark.parametrize("parts", [1, 2, 3, 40])
@pytest.mark.parametrize("bounds", PLANS)
def test_the_parts_together_are_the_whole_and_each_has_its_share_of_either_strategy(bounds: str, parts: int) -> None:
    plan = PLANS[bounds]

    found = [part_of(plan, number, parts) for number in range(parts)]

    assert Counter(plan) == Counter(one for part in found for one in part)
    for strategy in STRATEGIES:
        shares = [sum(one.strategy == strategy for one in part) for part in found]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("given", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(given: str) -> None:
    found = CliRunner().invoke(main, ["statechart", "verify", "--part", given])

    assert 2 == found.exit_code
    assert "write K/N" in found.output
