"""What goes into a machine and what comes out of it: rules, actions, steps, snapshots. Plain values only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

M = TypeVar("M")


class Event(Protocol):
    """What the machine looks at in an event.

    Attributes:
        request: The request it answers; None when it is no answer.
        generation: For a timer's event, the one that was started; else None.
        final: False for an answer that is followed by more to the same request.
    """

    @property
    def name(self) -> str: ...
    @property
    def request(self) -> int | None: ...
    @property
    def generation(self) -> int | None: ...
    @property
    def final(self) -> bool: ...


class Effect(Protocol):
    """Something to be done; the machine only passes it on."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Generic[M]):
    """What the names in a chart mean, over a memory of type ``M``.

    Attributes:
        guards: Read the memory and never raise.
        effects: Build the effect from the memory.
        remember: Folds what an event says into the memory, before any guard is asked; for raised events too. It may
            ask for a narrower type than ``Event``: it is given what ``step`` is given and ``internal`` builds.
        internal: Builds the event object of each ``<raise>`` and of each ``done.state`` event that is listened to.
        delays: (memory, timer id, the chart's delay in seconds) -> the delay to use, in seconds.
        answered: The effects that will be answered; the others are never waited for.
    """

    guards: Mapping[str, Callable[[M], bool]]
    effects: Mapping[str, Callable[[M], Effect]]
    remember: Callable[[M, Any], M]
    internal: Mapping[str, Callable[[M], Event]]
    delays: Callable[[M, str, float], float]
    answered: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Perform:
    """Do it. ``request`` is None when no answer is expected."""

    request: int | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Send ``event`` with ``generation`` after ``delay_s``; replaces a running timer of that id."""

    id: str
    generation: int
    event: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTimer:
    """Forget the timer. An event of it that is under way already will be dropped."""

    id: str
    generation: int


Action = Perform | StartTimer | CancelTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one event did.

    Attributes:
        event_name: ``start`` for the first step.
        source: The leaf before; empty for the first step.
        target: The leaf after.
        actions: To be done, in this order.
        refused: The guards that said no, as written in the chart, in the order in which they were asked.
        handled: Whether a transition was taken for the event itself.
        dropped: Why the event was not looked at; empty when it was.
    """

    event_name: str
    source: str
    target: str
    actions: tuple[Action, ...] = ()
    refused: tuple[str, ...] = ()
    handled: bool = False
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """A request without its final answer. It lapses when ``state`` is left."""

    request: int
    effect_name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedTimer:
    """A timer that neither ran out nor was cancelled. ``state`` is the one that it belongs to."""

    id: str
    generation: int
    event: str
    delay_s: float
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a machine is, as plain values: with the memory, all that ``Machine.restore`` needs.

    Attributes:
        state: The leaf; empty before the start.
        history: Parent -> leaf in which it was last left, for parents that have a history.
    """

    state: str
    history: Mapping[str, str]
    outstanding: tuple[Outstanding, ...]
    timers: tuple[ArmedTimer, ...]
    next_request: int
    next_generation: int
