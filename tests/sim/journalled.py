"""A simulated fleet whose sidekicks keep real journals, as the loop writes them."""

from pathlib import Path
from typing import Any

from outrider.core.chart.machine import Step
from outrider.core.sidekick.events import AnyEvent
from outrider.journal.journal import Journal, read
from outrider.story import Line, lines_of
from tests.sim.fleet import Fleet, Member


class JournalledFleet(Fleet):
    """Writes every step of every member to ``folder/NAME/journal.jsonl``."""

    def __init__(self, folder: Path, seed: int, **options: Any) -> None:
        self.folder = folder
        self._journals: dict[str, Journal] = {}
        super().__init__(seed, **options)

    def lines(self, member: Member) -> tuple[Line, ...]:
        return lines_of(read(self._journals[member.name].path))

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()

    def journalled(self, member: Member, event: AnyEvent | None, step: Step) -> None:
        if member.name not in self._journals:
            self._journals[member.name] = Journal(self.folder / member.name)
        self._journals[member.name].append(member.kept.record())
        super().journalled(member, event, step)
