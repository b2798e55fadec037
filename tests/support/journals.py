"""Recorded journals, and how a sidekick would go on from them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.core.chart.hierarchy import Hierarchy
from outrider.core.chart.machine import Machine, Perform, Snapshot
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.rules import make_rules
from outrider.journal.journal import Record, read
from outrider.statechart import load_sidekick_chart
from outrider.story import StoryError, lines_of, replay

CHART = load_sidekick_chart()
HIERARCHY = Hierarchy(CHART)
JOURNALS = Path(__file__).parents[1] / "data" / "journals"
RECORDED = tuple(path.stem for path in sorted(JOURNALS.glob("*.jsonl")))


def recorded(name: str) -> list[Record]:
    return read(JOURNALS / f"{name}.jsonl")


def changed(record: Record, **fields: Any) -> Record:
    return msgspec.structs.replace(record, **fields)


def position(records: list[Record], source: str, event: str) -> int:
    """Where ``event`` came in ``source`` for the last time."""
    found = [at for at, record in enumerate(records) if (record.source, record.event["name"]) == (source, event)]
    return found[-1]


def with_memory(record: Record, **fields: Any) -> Record:
    return changed(record, memory=record.memory | fields)


def with_machine(record: Record, **fields: Any) -> Record:
    return changed(record, machine=record.machine | fields)


def refusal(records: Iterable[Record], *, begin: int = 0) -> str:
    """What ``replay`` says against ``records``, given those before and at ``begin``."""
    with pytest.raises(StoryError) as caught:
        replay(lines_of(records)[begin:], CHART, hierarchy=HIERARCHY)
    return str(caught.value)


def stepped(records: list[Record], event: Any, memory: Memory | None = None) -> Record:
    """The record that a sidekick would add to ``records`` for ``event``, from ``memory`` if that isn't the last one."""
    last = records[-1]
    memory = memory or msgspec.convert(last.memory, type=Memory)
    machine = Machine.restore(
        CHART, make_rules({}), memory, msgspec.convert(last.machine, type=Snapshot), hierarchy=HIERARCHY
    )
    step = machine.step(event)
    assert not step.dropped
    return Record(
        number=last.number + 1,
        at=event.at,
        event={"name": event.name} | msgspec.to_builtins(event),
        source=step.source,
        target=step.target,
        refused=step.refused,
        effects=tuple(
            {"name": action.effect.name, "request": action.request} | msgspec.to_builtins(action.effect)
            for action in step.actions
            if isinstance(action, Perform)
        ),
        machine=msgspec.to_builtins(machine.snapshot()),
        memory=msgspec.to_builtins(machine.memory),
    )
