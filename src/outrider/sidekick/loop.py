"""The loop: one thread owns the machine. inbox -> step -> journal -> perform.

The order is the safety: a step is on disk before its effects are handed out, so after a crash the journal knows all
that may have been begun. The loop itself decides nothing; it keeps time, writes, and passes on.
"""

import heapq
import queue
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from loguru import logger

from outrider import __version__
from outrider.core.chart.machine import CancelTimer, Hierarchy, Machine, Perform, Rules, Snapshot, StartTimer, Step
from outrider.core.chart.model import Chart
from outrider.core.errors import ConfigError
from outrider.core.sidekick.effects import EFFECT_TYPES, NOUNS
from outrider.core.sidekick.events import AnyEvent, Commanded, SidekickRestarted, TimerExpired
from outrider.core.sidekick.guards import has_turn, running_label
from outrider.core.sidekick.memory import Memory, with_settings
from outrider.core.sidekick.words import serves, why
from outrider.journal.journal import Journal, JournalError, Record
from outrider.model.documents import Presence
from outrider.sd_notify import Notices
from outrider.sidekick.workers.worker import now

JOURNAL_RETRY_S = 1.0
SPREAD_TIMERS = frozenset({"poll", "poll-deferred", "retry"})
"""Stretched by up to a fifth, so that a fleet doesn't come back in step (V3: timing advice)."""

Submit = Callable[[Any, int | None], None]
"""Hands an effect with its request to the noun's worker."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """A worker met something that isn't an ``OutriderError``."""

    error: BaseException


class Sidekick:
    """One instance's sidekick, from its journal on."""

    def __init__(
        self,
        chart: Chart,
        rules: Rules[Memory],
        memory: Memory,
        journal: Journal,
        *,
        nouns: Mapping[str, Submit],
        show: Callable[[Presence], None],
        consumed: Callable[[Commanded], None],
        notifier: Notices,
        clock: Callable[[], float] = time.monotonic,
        hierarchy: Hierarchy | None = None,
        seen: Callable[[], int] = lambda: 0,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Take up the journal's last record, or begin with ``memory``.

        Args:
            memory: What the settings say; identity, strategy and runtime are taken from here even when there is a
                journal.
            nouns: First part of an effect's name -> its worker.
            show: Makes the live state visible to the fleet.
            consumed: Called when an operator's command is in the journal.
            clock: Seconds that never go back, for the chart's timers.
            hierarchy: As ``Machine`` takes it.
            seen: The highest revision of etcd that was seen or written, for the journal.
            ended: Called when an update has ended and its last step is in the journal; once at the start, too.

        Raises:
            ValueError: a noun has no worker. This must not show in the middle of a swap.
        """
        if missing := NOUNS.keys() - nouns.keys():
            raise ValueError(f"nobody performs the effects of {', '.join(sorted(missing))}")
        self._journal, self._nouns = journal, nouns
        self._show, self._consumed, self._seen, self._ended = show, consumed, seen, ended
        self._notifier, self._clock = notifier, clock
        self._inbox: queue.SimpleQueue[AnyEvent | Crashed | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, TimerExpired]] = []
        self._due: dict[int, datetime] = {}
        self._chart = chart
        self._since = now()
        self._shown: Presence | None = None
        self._stands_still = False
        last = journal.last
        if last is None:
            self._machine = Machine(chart, rules, memory, hierarchy=hierarchy)
        else:
            self._machine = Machine.restore(
                chart, rules, _recall(last, memory), _thaw(last.machine), hierarchy=hierarchy
            )
        self._restored = last

    @property
    def memory(self) -> Memory:
        """What it knows; for the loop's own thread, or before it runs."""
        return self._machine.memory

    @property
    def shown(self) -> Presence | None:
        """What it last showed the fleet; None before its first step. For any thread."""
        return self._shown

    @property
    def steps(self) -> int:
        """How many steps the journal has, with those that are no longer kept. For any thread."""
        last = self._journal.last
        return 0 if last is None else last.number

    @property
    def stands_still(self) -> bool:
        """Whether it waits for its journal to be written. For any thread."""
        return self._stands_still

    @property
    def state(self) -> str:
        """Full dotted path of the present state."""
        return self._machine.state

    def post(self, event: AnyEvent) -> None:
        """Hand over an event; any thread may."""
        self._inbox.put(event)

    def crash(self, error: BaseException) -> None:
        """Let the loop die of ``error``; any thread may."""
        self._inbox.put(Crashed(error))

    def stop(self) -> None:
        """Let ``run`` return after the step under way; safe in a signal handler."""
        self._inbox.put(None)

    def run(self) -> None:
        """Work until ``stop``. Raises what a worker died of."""
        if not self._begin():
            return
        self._notifier.ready(self._status())
        while True:
            event = self._next()
            if event is None:
                return
            if isinstance(event, Crashed):
                raise event.error
            if not self._settle(event, self._machine.step(event)):
                return

    def _begin(self) -> bool:
        if self._restored is None:
            started = self._machine.start()
            return self._settle(None, started)
        logger.bind(state=self._machine.state, record=self._restored.number).info("resumed from the journal")
        for effect in self._restored.effects:  # reports of the last step may not have reached the outbox
            if effect["name"].startswith("report."):
                self._repeat(effect)
        self._ended()  # whatever ended last may not have been told
        event = SidekickRestarted(at=now())
        return self._settle(event, self._machine.step(event))

    def _repeat(self, effect: Mapping[str, Any]) -> None:
        fields = {name: value for name, value in effect.items() if name not in ("name", "request")}
        again = msgspec.convert(fields, type=EFFECT_TYPES[effect["name"]])
        self._nouns["report"](again, None)

    def _next(self) -> AnyEvent | Crashed | None:
        """The next event: a timer that is due, else whatever comes in; the watchdog is fed meanwhile."""
        beat_s = self._notifier.watchdog_interval_s or 3600.0
        while True:
            self._notifier.alive()
            wait_s = beat_s
            if self._timers:
                due = self._timers[0][0] - self._clock()
                if due <= 0:
                    _, _, expired = heapq.heappop(self._timers)
                    return TimerExpired(name=expired.name, at=now(), generation=expired.generation)
                wait_s = min(wait_s, due)
            try:
                return self._inbox.get(timeout=wait_s)
            except queue.Empty:
                continue

    def _settle(self, event: AnyEvent | None, step: Step) -> bool:
        """Write the step down, then act. False when ``stop`` came while the journal couldn't be written."""
        if step.dropped:
            logger.bind(event=step.event_name, why=step.dropped, state=step.source).info("event dropped")
            return True
        self._log(step)
        if step.source != step.target:
            self._since = now()
        before = self._journal.last
        if not self._write(event, step):
            return False
        if before is not None and before.memory.get("update") and self.memory.update != before.memory["update"]:
            self._ended()
        for action in step.actions:
            match action:
                case Perform():
                    self._nouns[action.effect.name.partition(".")[0]](action.effect, action.request)
                case StartTimer():
                    self._arm(action)
                case CancelTimer():
                    self._timers = [one for one in self._timers if one[1] != action.generation]
                    heapq.heapify(self._timers)
        if isinstance(event, Commanded):
            self._consumed(event)
        self._present()
        return True

    def _arm(self, timer: StartTimer) -> None:
        delay_s = timer.delay_s
        if timer.id in SPREAD_TIMERS:
            delay_s *= random.uniform(1.0, 1.2)  # noqa: S311 - not for secrets
        expired = TimerExpired(name=timer.event, at=now(), generation=timer.generation)
        heapq.heappush(self._timers, (self._clock() + delay_s, timer.generation, expired))
        self._due[timer.generation] = expired.at + timedelta(seconds=delay_s)

    def _next_due(self, ending: str) -> datetime | None:
        """When the first timer whose event ends so runs out, by the wall clock at its start; None without one."""
        running = {generation: expired.name for _, generation, expired in self._timers}
        self._due = {generation: at for generation, at in self._due.items() if generation in running}
        return min((at for generation, at in self._due.items() if running[generation].endswith(ending)), default=None)

    def _write(self, event: AnyEvent | None, step: Step) -> bool:
        """Append to the journal; a full disk stops all acting until there is room again."""
        record = Record(
            number=1 if self._journal.last is None else self._journal.last.number + 1,
            at=event.at if event is not None else now(),
            event=_plain(event) if event is not None else {"name": step.event_name},
            source=step.source,
            target=step.target,
            refused=step.refused,
            effects=tuple(
                _plain(action.effect) | {"request": action.request}
                for action in step.actions
                if isinstance(action, Perform)
            ),
            machine=msgspec.to_builtins(self._machine.snapshot()),
            memory=msgspec.to_builtins(self._machine.memory),
            seen=self._seen(),
        )
        held_back: list[AnyEvent | Crashed] = []
        while True:
            try:
                self._journal.append(record)
            except JournalError as error:
                logger.bind(error_kind=error.kind, retry=True, cause=str(error)).error("journal not written")
                self._stand_still(error)
                self._notifier.alive()
                try:
                    event_meanwhile = self._inbox.get(timeout=JOURNAL_RETRY_S)
                except queue.Empty:
                    continue
                if event_meanwhile is None:
                    return False
                held_back.append(event_meanwhile)
            else:
                self._stands_still = False
                for waiting in held_back:
                    self._inbox.put(waiting)
                return True

    def _log(self, step: Step) -> None:
        log = logger.bind(
            event=step.event_name,
            source=step.source,
            target=step.target,
            effects=[action.effect.name for action in step.actions if isinstance(action, Perform)],
            refused=list(step.refused),
        )
        if step.source == step.target and not step.actions:
            log.debug("step")
        else:
            log.info("step")

    def _why(self) -> str:
        return why(self._machine.memory, self._chart.states[self._machine.state].why)

    def _status(self) -> str:
        reason = self._why()
        return f"{self._machine.state}: {reason}" if reason else self._machine.state

    def _stand_still(self, error: JournalError) -> None:
        """Nothing is done that isn't written down first; the fleet is told why."""
        self._stands_still = True
        why = f"stands still until its journal can be written: {error}; make room on that disk"
        self._notifier.status(why)
        presence = msgspec.structs.replace(self._presence(), why=why)
        if presence != self._shown:
            self._shown = presence
            self._show(presence)

    def _present(self) -> None:
        presence = self._presence()
        if presence != self._shown:
            self._shown = presence
            self._show(presence)
            self._notifier.status(self._status())

    def _presence(self) -> Presence:
        memory, state = self._machine.memory, self._chart.states[self._machine.state]
        serving = state.safe and memory.running is not None and not memory.down and not memory.is_out
        served = serves(memory, serving=serving)
        return Presence(
            instance=memory.instance,
            app=memory.app,
            group=memory.group,
            state=self._machine.state,
            version=memory.running.release.version if memory.running is not None else "0.0.0",
            wanted=memory.wanted_version or memory.wanted,
            why=self._why(),
            url=memory.running.url if memory.running is not None else None,
            since=self._since,
            target_revision=memory.target_revision,
            serving=serving,
            notice=memory.notice,
            cannot_take=memory.setback.version if memory.setback is not None else "",
            cannot_why=memory.setback.cause if memory.setback is not None else "",
            given_up="" if memory.update else memory.given_up,
            previous=memory.previous.release.version if memory.previous is not None else "",
            drain_since=memory.drain.since if memory.drain is not None else None,
            drain_for_s=memory.drain.for_s if memory.drain is not None else 0.0,
            previous_release=memory.previous.release.label if memory.previous is not None else "",
            release=running_label(memory),
            wanted_release=memory.wanted or "",
            environment=memory.running.release.environment if memory.running is not None else 0,
            labels=dict(memory.labels_now),
            serves_release=served.release.label if served is not None else "",
            serves_url=served.url if served is not None else "",
            until=self._next_due(".expired"),
            again_at=self._next_due(".due"),
            outrider=__version__,
        )


def _plain(value: Any) -> dict[str, Any]:
    """Fields of an event or effect as plain values, with its name."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {"name": value.name} | fields


def _thaw(machine: Mapping[str, Any]) -> Snapshot:
    return msgspec.convert(machine, type=Snapshot)


def _recall(record: Record, settings: Memory) -> Memory:
    """The memory of the journal, with what the settings decide.

    Raises:
        ConfigError: the journal belongs to another instance, or strategy or group was changed in mid-update.
    """
    memory = msgspec.convert(record.memory, type=Memory)
    for name in ("instance", "app"):
        before, after = getattr(memory, name), getattr(settings, name)
        if before != after:
            raise ConfigError(
                f"instance.state_dir holds the journal of {name} {before!r}, the configuration says {after!r};"
                " give each instance its own folder"
            )
    if memory.update and memory.strategy != settings.strategy:
        raise ConfigError(
            f"instance.strategy: an update is under way as {memory.strategy}; let it end before you change that"
        )
    busy = "an update is under way" if memory.update else "it still holds a turn" if has_turn(memory) else ""
    if memory.group != settings.group and busy:
        raise ConfigError(
            f"instance.group: the instance was in {memory.group!r}, and {busy}; go back to that group, let it end, and"
            f" then move to {settings.group!r}"
        )
    return replace(with_settings(memory, settings), at=now())
