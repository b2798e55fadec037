"""The types of a loaded statechart: what the file says, checked, in document order, with the lines it stands on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DONE = "done.state."
"""What the name of a compound state's done event begins with (SCXML 3.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The names a chart may use: events, and the keys of the tables in which effects and guards are looked up.

    Attributes:
        answers: Effect -> the events that answer it; an effect that is not in here is never waited for.
    """

    events: frozenset[str]
    effects: frozenset[str]
    guards: frozenset[str]
    answers: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One guard of a ``cond``. ``wanted`` is False for ``!guard``."""

    guard: str
    wanted: bool

    @property
    def text(self) -> str:
        """As written in the chart."""
        return self.guard if self.wanted else f"!{self.guard}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseEvent:
    """``<raise event>``: an event to ourselves, before the next one from outside."""

    event: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendEffect:
    """``<send type="effect" event>``: something to be done by the world."""

    effect: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLater:
    """``<send event id delay>``: an event to ourselves, later.

    Attributes:
        delay: As written, for people.
        fixed: Why no setting changes the delay; empty when one does.
    """

    event: str
    timer: str
    delay_s: float
    delay: str
    line: int
    fixed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelLater:
    """``<cancel sendid>``."""

    timer: str
    line: int


Content = RaiseEvent | SendEffect | SendLater | CancelLater


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One ``<transition>``.

    Attributes:
        source: The state that holds it.
        written: Its event descriptors as written, for drawing: ``error.*``.
        events: The known events that they match, sorted.
        conditions: All must hold; asked in this order, and no further than the first that doesn't.
        target: A state or a history; None stays where it is and exits nothing.
        internal: Enters ``target``, a direct child, without leaving ``source``.
        success: A step of the success path: what happens, one after the other, when nothing goes wrong.
    """

    source: str
    written: tuple[str, ...]
    events: tuple[str, ...]
    conditions: tuple[Condition, ...]
    target: str | None
    internal: bool
    success: bool
    content: tuple[Content, ...]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One ``<state>`` or ``<final>``.

    Attributes:
        parent: Empty for a top state.
        initial: The direct child that is entered with it; empty for a leaf.
        children: States only, in document order.
        why: What a leaf waits for, in words.
        ends: What ends the wait of a leaf, and what a person may type: ``APP``, ``GROUP`` and ``INSTANCE`` stand for
            names (``core.rollout.ends.filled_in``).
        safe: A safe point: a pause asked for in mid-swap may take effect here.
        resting: May wait forever: no deadline is needed.
        abstract: Holds what its children answer alike, and nothing else; it is no part of their ids.
    """

    id: str
    parent: str
    final: bool
    initial: str
    children: tuple[str, ...]
    onentry: tuple[Content, ...]
    onexit: tuple[Content, ...]
    transitions: tuple[Transition, ...]
    why: str
    doc: str
    safe: bool
    resting: bool
    abstract: bool
    line: int
    ends: str = ""

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.id.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One ``<history>``: stands for the child (deep: the leaf) of ``parent`` that was active when it was last left.

    Attributes:
        default: Where it leads when ``parent`` has never been left.
    """

    id: str
    parent: str
    deep: bool
    default: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A statechart that has passed all checks.

    Attributes:
        source: File name, for messages.
        name: The chart's own name.
        initial: The top state in which it starts.
        states: By id, in document order (a parent before its children).
        histories: By id, in document order.
        events: Every event that may come: the vocabulary's and the done events.
    """

    source: str
    name: str
    doc: str
    initial: str
    states: Mapping[str, State]
    histories: Mapping[str, History]
    events: frozenset[str]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """All transitions, in document order of the states that hold them."""
        return tuple(transition for state in self.states.values() for transition in state.transitions)

    @property
    def leaves(self) -> tuple[State, ...]:
        """The states in which it can be, finals included."""
        return tuple(state for state in self.states.values() if not state.children)

    @property
    def tops(self) -> tuple[State, ...]:
        """The states that no other state holds."""
        return tuple(state for state in self.states.values() if not state.parent)

    def chain(self, state: str) -> Iterator[State]:
        """``state`` and what holds it, from the inside out."""
        while state:
            yield self.states[state]
            state = self.states[state].parent

    def path(self, state: str) -> str:
        """Names from the outside in, joined by dots: the id, and the abstract states that an id leaves out."""
        return ".".join([holder.name for holder in self.chain(state)][::-1])

    def entry_leaf(self, state: str) -> str:
        """The leaf one is in after entering ``state``."""
        while self.states[state].initial:
            state = self.states[state].initial
        return state

    def within(self, inner: str, outer: str) -> bool:
        """Tell whether ``inner`` is ``outer`` or lies in it."""
        parent = self.histories[inner].parent if inner in self.histories else inner
        return inner == outer or any(state.id == outer for state in self.chain(parent))

    def owner(self, transition: Transition) -> str:
        """The state that what ``transition`` starts belongs to: the one it leads into, or its own if it stays."""
        if transition.target is None:
            return transition.source
        return self.histories[transition.target].parent if transition.target in self.histories else transition.target

    def contents(self) -> Iterator[tuple[str, Content]]:
        """Everything the chart raises, sends and cancels, each with the state it belongs to."""
        for state in self.states.values():
            for item in (*state.onentry, *state.onexit):
                yield state.id, item
            for transition in state.transitions:
                for item in transition.content:
                    yield self.owner(transition), item
