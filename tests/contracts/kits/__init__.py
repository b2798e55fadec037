"""What the contract tests need to know of each driver. A driver in a table has its kit here, under the same name."""

from collections.abc import Iterable
from typing import Any

from outrider.config.drivers import DriverTable


def without_a_kit(table: DriverTable[Any], kits: Iterable[str]) -> list[str]:
    """One line for each driver that no contract test would be run for; empty when there is none."""
    noun = table.chosen_by.partition(".")[2]
    known = set(kits)
    return [
        f"{noun} {name!r} has no contract kit: write one in tests/contracts/kits/{noun}s.py, and the contract is run"
        " for it"
        for name in table
        if name not in known
    ]
