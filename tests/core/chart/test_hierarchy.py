"""A move that was made before is looked up, and is the one that ``transitions`` would make again."""

import random
from typing import Any

import pytest

from outrider.core.chart.hierarchy import Hierarchy, Move
from outrider.core.chart.load import load_chart
from outrider.core.chart.model import Condition
from tests.support.oracle import GUARDS, NEWS, ChartMaker


@pytest.mark.parametrize("seed", range(4))
def test_what_is_looked_up_is_what_is_worked_out(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines go the same ways; one of them forgets after each event what it has worked out."""
    made, chance = ChartMaker(seed), random.Random(seed)
    chart = load_chart(made.source, f"random-{seed}.scxml", made.vocabulary)
    knowing, forgetful = Hierarchy(chart), Hierarchy(chart)
    worked_out: list[str] = []
    work_out = knowing._work_out

    def note(key: tuple[Any, ...], move: Move, event: str) -> Any:
        worked_out.append(event)
        return work_out(key, move, event)

    monkeypatch.setattr(knowing, "_work_out", note)
    remembering = {history.parent for history in chart.histories.values()}
    leaf, history = chart.entry_leaf(chart.initial), dict[str, str]()
    fired = taken = 0
    for _ in range(600):
        true = {guard for guard in GUARDS if chance.random() < 0.5}
        event = chance.choice(made.news[: len(NEWS) + 6])  # the same few jumps, so that ways are gone again
        moves, asked = [], []
        for engine in (knowing, forgetful):
            questions: dict[Condition, None] = {}

            def ask(condition: Condition, questions: dict[Condition, None] = questions) -> bool:
                questions[condition] = None
                return (condition.guard in true) == condition.wanted  # noqa: B023

            forgetful._known.clear()
            move = Move(_leaf=leaf, ask=ask, history=history)
            engine.fire(move, event)
            moves.append((move.leaf, move.left, move.taken, move.entered))
            asked.append(list(questions))

        assert moves[0] == moves[1], f"{event} in {leaf} with {sorted(true)}, remembered: {history}"
        assert asked[0] == asked[1]
        history |= {state: leaf for state in moves[0][1] if state in remembering}
        leaf = moves[0][0]
        fired, taken = fired + 1, taken + (moves[0][2] is not None)

    assert len(worked_out) < 0.7 * fired, "hardly anything was looked up"
    assert taken > 100
