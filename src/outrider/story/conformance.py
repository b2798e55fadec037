"""Replays a journal against the chart: no step may be in it that the chart doesn't have.

Each record is made again from the one before: a machine is restored from its snapshot and memory, as after a crash,
and given the record's event. Where it goes, what it asks the world for (all fields, in order), its snapshot and its
memory must be what was written. A step is therefore accepted only if the chart does exactly that.

What may differ, because it comes from elsewhere:

- The settings are read again at a restart. Scope, strategy and ``allow_downgrade`` are taken from the record of the
  restart itself; the strategy only between two updates, as the sidekick refuses anything else.
- The delays of timers are settings, too. Timers are compared by id, generation, event and state.
- A file that was rotated begins in the middle: its first record is given, and only the later ones are made again.
- The guards that refused are shown in stories, but not compared: a chart may ask more guards and do the same.
- A field that this outrider doesn't know, or that an older one hadn't got, is left out or has its default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import msgspec

from outrider.core.chart.machine import Hierarchy, Machine, Perform, Rules, Snapshot, Step
from outrider.core.chart.model import Chart
from outrider.core.errors import ChartError
from outrider.core.sidekick.effects import EFFECT_TYPES
from outrider.core.sidekick.events import SidekickRestarted
from outrider.core.sidekick.memory import Memory, with_settings
from outrider.core.sidekick.rules import make_rules
from outrider.story.lines import Known, Line, StoryError, know, step_text

SHOWN_CHARACTERS = 120
"""Of each of two values that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was replayed.

    Attributes:
        steps: Records that were made again.
        after: Number of the record that was taken as given; 0 when the journal was replayed from its start.
        restarts: Restarts of the sidekick among the steps.
    """

    steps: int
    after: int
    restarts: int


class _Differs(Exception):
    """The first thing about a record that isn't as the chart makes it."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


def replay(
    lines: Sequence[Line], chart: Chart, rules: Rules[Memory] | None = None, *, hierarchy: Hierarchy | None = None
) -> Replay:
    """Replay ``lines``, oldest first.

    Args:
        rules: Those that every sidekick has if left out.
        hierarchy: That of ``chart``, for callers that replay many journals; building it takes 50 ms.

    Raises:
        StoryError: the first difference, ``journal.jsonl:17: a --event--> b: the chart goes to c``.
    """
    replayer = _Replayer(chart, rules or make_rules({}), hierarchy or Hierarchy(chart))
    before: Known | None = None
    after = restarts = 0
    for line in lines:
        now = know(line)
        try:
            if before is not None:
                replayer.check(before, now)
            elif now.event is None:
                replayer.check_start(now)
            else:
                replayer.restore(now, now.memory)
                after = line.record.number
            _check_frame(now)
        except _Differs as found:
            raise StoryError(f"{line.location}: {step_text(line.record)}: {found.problem}") from None
        restarts += before is not None and isinstance(now.event, SidekickRestarted)
        before = now
    return Replay(steps=len(lines) - (after > 0), after=after, restarts=restarts)


class _Replayer:
    """Makes steps again; the hierarchy is built once for all of them."""

    def __init__(self, chart: Chart, rules: Rules[Memory], hierarchy: Hierarchy) -> None:
        self._chart, self._rules, self._hierarchy = chart, rules, hierarchy
        self._machine: Machine[Memory] | None = None

    def check_start(self, now: Known) -> None:
        # the memory before isn't kept; what the start adds to it is nothing but what it would add again
        machine = Machine(self._chart, self._rules, now.memory, hierarchy=self._hierarchy)
        self._compare(now, machine, machine.start())

    def check(self, before: Known, now: Known) -> None:
        number, expected = now.record.number, before.record.number + 1
        if number != expected:
            what = "a step is missing" if number > expected else "it stands in the wrong place"
            raise _Differs(f"it is step {number} after step {expected - 1}: {what}")
        if now.event is None:
            raise _Differs("the chart starts once, at the beginning of a journal")
        if now.event.name in self._rules.internal or now.event.name not in self._chart.events:
            raise _Differs("no such event comes to the chart from outside")
        machine = self.restore(before, _memory_before(before, now))
        try:
            step = machine.step(now.event)
        except (AssertionError, ChartError) as error:
            raise _Differs(f"the chart can't: {error}") from error
        if step.dropped:
            raise _Differs(f"the chart drops it: {step.dropped}")
        self._compare(now, machine, step)

    def restore(self, known: Known, memory: Memory) -> Machine[Memory]:
        """A machine that goes on from ``known``: always the same one, for making one checks the chart's names."""
        if self._machine is None:
            self._machine = Machine(self._chart, self._rules, memory, hierarchy=self._hierarchy)
        try:
            self._machine.resume(memory, known.snapshot)
        except ChartError as error:
            raise _Differs(error.problem) from error
        return self._machine

    def _compare(self, now: Known, machine: Machine[Memory], step: Step) -> None:
        if now.record.source != step.source:
            raise _Differs(f"the step before ended in {step.source or 'nothing'}")
        if now.record.target != step.target:
            verb = "stays in" if step.source == step.target else "goes to"
            raise _Differs(f"the chart {verb} {step.target}")
        _compare_effects(now, [action for action in step.actions if isinstance(action, Perform)])
        _compare("machine", _without_delays(now.snapshot), _without_delays(machine.snapshot()))
        _compare("memory", now.memory, machine.memory)


def _memory_before(before: Known, now: Known) -> Memory:
    """The memory with which the step was taken: a restart reads the settings again."""
    if not isinstance(now.event, SidekickRestarted):
        return before.memory
    settings = now.memory
    if before.memory.update and before.memory.strategy != settings.strategy:
        raise _Differs(f"the strategy became {settings.strategy} in mid-update; no sidekick starts with that")
    return with_settings(before.memory, settings)


def _check_frame(now: Known) -> None:
    """What a record says twice must be the same."""
    if now.record.target != now.snapshot.state:
        raise _Differs(f"its machine is in {now.snapshot.state}")
    if now.event is not None and now.record.at != now.event.at:
        raise _Differs(f"it was written for {now.record.at.isoformat()}, its event is of {now.event.at.isoformat()}")


def _compare_effects(now: Known, made: Sequence[Perform]) -> None:
    written_names = [str(effect.get("name", "?")) for effect in now.record.effects]
    made_names = [action.effect.name for action in made]
    if written_names != made_names:
        written, chart = ", ".join(written_names) or "nothing", ", ".join(made_names) or "nothing"
        raise _Differs(f"its effects are {written}; the chart's are {chart}")
    for effect, action in zip(now.record.effects, made, strict=True):
        try:
            written_effect = msgspec.convert(effect, type=EFFECT_TYPES[action.effect.name])
        except msgspec.ValidationError as error:
            raise _Differs(f"effect {action.effect.name}: {error}") from error
        _compare(action.effect.name, written_effect, action.effect)
        _compare(f"{action.effect.name}.request", effect.get("request"), action.request)


def _compare(name: str, written: Any, made: Any) -> None:
    """Raise with the innermost field that differs."""
    if written == made:
        return
    if is_dataclass(written) and type(written) is type(made):
        for field in fields(written):
            _compare(f"{name}.{field.name}", getattr(written, field.name), getattr(made, field.name))
    raise _Differs(f"{name} is {_shown(written)}; the chart makes it {_shown(made)}")


def _without_delays(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, timers=tuple(replace(timer, delay_s=0.0) for timer in snapshot.timers))


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
