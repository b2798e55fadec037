"""Journals as lines that know where they stand, and what a line says in the core's own types."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outrider.core.chart.machine import Snapshot
from outrider.core.errors import OutriderError
from outrider.core.sidekick.events import TIMERS, AnyEvent, TimerExpired
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.remember import EVENT_TYPES
from outrider.journal.journal import SCHEMA, JournalError, Record, read, read_backwards

START = "start"
"""The name under which entering the chart is journalled; it is no event."""


class StoryError(OutriderError):
    """A journal that the chart can't have made, or that has no such story."""

    kind = "story"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One record and where it stands. ``location`` is ``journal.jsonl:17``."""

    location: str
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A line in the core's types.

    Attributes:
        event: None for the start.
        snapshot: The machine after the step.
        memory: The memory after the step.
    """

    line: Line
    event: AnyEvent | None
    snapshot: Snapshot
    memory: Memory

    @property
    def record(self) -> Record:
        """The record as it was written."""
        return self.line.record


def lines_of(records: Iterable[Record], source: str = "journal.jsonl") -> tuple[Line, ...]:
    """The records with their places in the file ``source``."""
    return tuple(Line(location=f"{source}:{number}", record=record) for number, record in enumerate(records, start=1))


def read_lines(path: Path) -> tuple[Line, ...]:
    """Read a journal, oldest first, with the file that was rotated away from it if that one leads up to it.

    Args:
        path: The journal, or the ``state_dir`` in which it is.

    Raises:
        JournalError: it can't be read, is damaged, or has another schema.
    """
    if path.is_dir():
        path = path / "journal.jsonl"
    lines = _read(path)
    older = path.with_suffix(".1.jsonl")
    if not lines or lines[0].record.event.get("name") == START or not older.exists():
        return lines
    # the new file begins with the last record of the old one; an old file without it is another journal's
    earlier = _read(older)
    for position, line in enumerate(earlier):
        if line.record == lines[0].record:
            return earlier[:position] + lines
    return lines


def read_last_update(path: Path, *, earlier: int) -> tuple[Line, ...]:
    """The lines of the last update that has ended, with the step that ended it and ``earlier`` ones before it.

    Oldest first; none when no update has ended. Only that much is held in memory, however long the journal is: what a
    running sidekick reads of its own journal must not grow with it.

    Raises:
        JournalError: as ``read_lines``; only what is read can be damaged.
    """
    lines: list[Line] = []
    update, after = "", 0
    for line in _lines_backwards(path):
        own = str(line.record.memory.get("update", ""))
        if not update:  # still behind it
            is_end = bool(lines) and bool(own) and own != str(lines[-1].record.memory.get("update", ""))
            lines = [*lines, line] if is_end else [line]
            update = own if is_end else ""
            continue
        lines.append(line)
        after += own != update or after > 0
        if after > earlier:
            break
    return tuple(reversed(lines)) if update else ()


def _lines_backwards(path: Path) -> Iterator[Line]:
    """As ``read_lines``, from the end; a location is the number of the step."""
    oldest: Record | None = None
    for record in read_backwards(path):
        oldest = record
        yield _line(path, record)
    older = path.with_suffix(".1.jsonl")
    if oldest is None or oldest.event.get("name") == START or not older.exists():
        return
    # the new file begins with the last record of the old one; an old file without it is another journal's
    leads_up = False
    for record in read_backwards(older):
        if leads_up:
            yield _line(older, record)
        leads_up = leads_up or record == oldest


def _line(path: Path, record: Record) -> Line:
    if record.schema != SCHEMA:
        raise JournalError(f"{path}: schema {record.schema}, this outrider reads {SCHEMA}")
    return Line(location=f"{path.name} step {record.number}", record=record)


def know(line: Line) -> Known:
    """Decode ``line``.

    Raises:
        StoryError: it names an event that doesn't exist, or a value has the wrong type.
    """
    record = line.record
    try:
        return Known(
            line=line,
            event=_event(record.event),
            snapshot=msgspec.convert(record.machine, type=Snapshot),
            memory=msgspec.convert(record.memory, type=Memory),
        )
    except LookupError as error:
        raise StoryError(f"{line.location}: {step_text(record)}: there is no such event") from error
    except msgspec.ValidationError as error:
        raise StoryError(f"{line.location}: {step_text(record)}: {error}") from error


def step_text(record: Record) -> str:
    """The step in one line: ``swapping.draining --balancer.drained--> swapping.soaking``."""
    return f"{record.source or 'nothing'} --{record.event.get('name', '?')}--> {record.target}"


def _read(path: Path) -> tuple[Line, ...]:
    lines = lines_of(read(path), path.name)
    for line in lines:
        if line.record.schema != SCHEMA:
            raise JournalError(f"{path}: schema {line.record.schema}, this outrider reads {SCHEMA}")
    return lines


def _event(fields: dict[str, Any]) -> AnyEvent | None:
    name = fields.get("name")
    if name == START:
        return None
    kind: type[AnyEvent] = TimerExpired if name in TIMERS else EVENT_TYPES[name]
    event: AnyEvent = msgspec.convert(fields, type=kind)
    return event
