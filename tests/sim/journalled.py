"""A simulated fleet whose sidekicks keep real journals, as the loop writes them."""

from pathlib import Path
from typing import Any

import msgspec

from outrider.core.events import AnyEvent, SidekickRestarted
from outrider.core.machine import Perform, Step
from outrider.journal import Journal, Record, read
from outrider.story import Line, lines_of
from tests.sim.fleet import Fleet, Member


class JournalledFleet(Fleet):
    """Writes every step of every member to ``folder/NAME/journal.jsonl``."""

    def __init__(self, folder: Path, seed: int, **options: Any) -> None:
        self.folder = folder
        self._journals: dict[str, Journal] = {}
        self._event: AnyEvent | None = None
        super().__init__(seed, **options)

    def lines(self, member: Member) -> tuple[Line, ...]:
        return lines_of(read(self._journals[member.name].path))

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()

    def _tell(self, member: Member, life: int, event: AnyEvent) -> None:
        self._event = event
        super()._tell(member, life, event)

    def _restart(self, member: Member) -> None:
        self._event = SidekickRestarted(at=self._at())
        super()._restart(member)

    def _settle(self, member: Member, step: Step) -> None:
        if not step.dropped:
            self._write(member, step)
        super()._settle(member, step)

    def _write(self, member: Member, step: Step) -> None:
        if member.name not in self._journals:
            self._journals[member.name] = Journal(self.folder / member.name)
        journal, event = self._journals[member.name], self._event
        journal.append(
            Record(
                number=1 if journal.last is None else journal.last.number + 1,
                at=event.at if event is not None else self._at(),
                event=_plain(event) if event is not None else {"name": step.event_name},
                source=step.source,
                target=step.target,
                refused=step.refused,
                effects=tuple(
                    _plain(action.effect) | {"request": action.request}
                    for action in step.actions
                    if isinstance(action, Perform)
                ),
                machine=msgspec.to_builtins(member.machine.snapshot()),
                memory=msgspec.to_builtins(member.machine.memory),
            )
        )


def _plain(value: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {"name": value.name} | fields
