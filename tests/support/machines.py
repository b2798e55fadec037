"""A machine for tests: its memory is what it saw, its effects are their names."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from outrider.core.chart.machine import Action, CancelTimer, Machine, Perform, Rules, StartTimer
from tests.support.charts import VOCABULARY, load
from tests.support.oracle import Happening, raised_event

REST = 'o:why="rest" o:resting="true"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """A memory: every event that was remembered, and the guards that hold."""

    seen: tuple[str, ...] = ()
    true: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An effect that shows the memory it was built from."""

    name: str
    after: int


def _holds(name: str, memory: Notes) -> bool:
    return name in memory.true


def _ticket(name: str, memory: Notes) -> Ticket:
    return Ticket(name=name, after=len(memory.seen))


def make_rules(**changes: Any) -> Rules[Notes]:
    """Guards and effects of the tests' vocabulary. ``do.this`` and ``do.that`` are answered."""

    def remember(memory: Notes, event: Happening) -> Notes:
        return Notes(seen=(*memory.seen, event.name), true=memory.true | event.true)

    done = frozenset({"done.state.a", "done.state.a.b"})
    rules = Rules(
        guards={name: partial(_holds, name) for name in VOCABULARY.guards},
        effects={name: partial(_ticket, name) for name in VOCABULARY.effects},
        remember=remember,
        internal={name: partial(raised_event, name) for name in VOCABULARY.events | done},
        delays=lambda memory, timer, delay_s: delay_s,
        answered=frozenset({"do.this", "do.that"}),
    )
    return replace(rules, **changes)


def begun(body: str, initial: str = "a", **changes: Any) -> Machine[Notes]:
    machine = Machine(load(body, initial), make_rules(**changes), Notes())
    machine.start()
    return machine


def names(actions: tuple[Action, ...]) -> list[str]:
    """``do.this#1`` for a request, ``+drain`` and ``-drain`` for timers."""
    found = []
    for action in actions:
        match action:
            case Perform(request=request, effect=effect):
                found.append(effect.name if request is None else f"{effect.name}#{request}")
            case StartTimer(id=timer):
                found.append(f"+{timer}")
            case CancelTimer(id=timer):
                found.append(f"-{timer}")
    return found


def news(name: str, *true: str) -> Happening:
    return Happening(name=name, true=frozenset(true))
