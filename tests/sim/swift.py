"""A hierarchy that asks ``transitions`` once for each way that an event can go, and remembers the answer."""

from dataclasses import dataclass, field
from itertools import pairwise

from outrider.core.chart.hierarchy import Hierarchy, Move
from outrider.core.chart.model import Chart, Condition, Transition


@dataclass(slots=True, kw_only=True)
class _End:
    left: tuple[str, ...]
    taken: Transition | None
    entered: tuple[str, ...]
    leaf: str


@dataclass(slots=True, kw_only=True)
class _Question:
    condition: Condition
    answers: "dict[bool, _Question | _End]" = field(default_factory=dict)


class SwiftHierarchy(Hierarchy):
    """Where an event leads depends on the leaf and on what the guards answer, in the order in which they are asked.

    So these make a tree, which grows by what the real hierarchy does when a way is gone for the first time.
    """

    def __init__(self, chart: Chart) -> None:
        if chart.histories:
            raise ValueError("where an event leads would depend on the history, too")
        super().__init__(chart)
        self._known: dict[tuple[str, str], _Question | _End] = {}

    def fire(self, move: Move, event: str) -> bool:
        """As ``Hierarchy.fire``."""
        here = (move._leaf, event)
        node = self._known.get(here)
        while isinstance(node, _Question):
            node = node.answers.get(move.ask(node.condition))
        if node is None:
            return self._explore(here, move, event)
        move.left.extend(node.left)
        move.entered.extend(node.entered)
        move.taken, move._leaf = node.taken, node.leaf
        return node.taken is not None

    def _explore(self, here: tuple[str, str], move: Move, event: str) -> bool:
        asked: list[tuple[Condition, bool]] = []
        ask = move.ask

        def listen(condition: Condition) -> bool:
            answer = ask(condition)
            asked.append((condition, answer))
            return answer

        move.ask = listen
        taken = super().fire(move, event)
        move.ask = ask
        end = _End(left=tuple(move.left), taken=move.taken, entered=tuple(move.entered), leaf=move.leaf)
        if not asked:
            self._known[here] = end
            return taken
        question = self._known.setdefault(here, _Question(condition=asked[0][0]))
        for (condition, answer), (following, _) in pairwise(asked):
            assert isinstance(question, _Question)
            assert question.condition == condition
            question = question.answers.setdefault(answer, _Question(condition=following))
        assert isinstance(question, _Question)
        question.answers[asked[-1][1]] = end
        return taken
