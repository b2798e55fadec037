"""Statechart files: bytes in, checked ``Chart`` out, or one line that says what is wrong where.

The profile of SCXML that is accepted, and why, is in ``docs/develop/statechart.md``. Rules: a name that isn't known
is refused here and never looked up at run time; what the profile leaves out is refused, not ignored; the first
problem in document order is the one reported, and unknown names come before all else.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from lxml import etree

from outrider.core.chart.checks import find_problems, unknown_timers
from outrider.core.chart.model import (
    DONE,
    CancelLater,
    Chart,
    Condition,
    Content,
    History,
    RaiseEvent,
    SendEffect,
    SendLater,
    State,
    Transition,
    Vocabulary,
)
from outrider.core.chart.schema import OURS, SCXML, check_shape, name_of
from outrider.core.errors import ChartError

__all__ = [
    "DONE",
    "CancelLater",
    "Chart",
    "ChartError",
    "Condition",
    "Content",
    "History",
    "RaiseEvent",
    "SendEffect",
    "SendLater",
    "State",
    "Transition",
    "Vocabulary",
    "load_chart",
]

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


def load_chart(source: bytes, name: str, vocabulary: Vocabulary) -> Chart:
    """Read a statechart and prove that it can be run.

    Args:
        source: The file: XML in UTF-8, UTF-16 or Latin-1, without a DTD.
        name: The file's name without its folder, for messages.
        vocabulary: The events, effects and guards that exist.

    Raises:
        ChartError: not XML, outside the profile, an unknown or ambiguous name, or a chart that can get stuck.
    """
    root, lines = _parse(source, name)
    check_shape(root, name, lines)
    reader = _Reader(source=name, lines=lines, vocabulary=vocabulary)
    chart = reader.chart(root)
    # A wrong name makes other things look wrong: a deadline that nobody listens to, a state that nothing leads to.
    problems = [*reader.problems, *(() if reader.broken else unknown_timers(chart))]
    if not problems:
        problems = [*find_problems(chart, vocabulary.answers)]
    if problems:
        line, problem = min(problems, key=lambda found: found[0])
        raise ChartError(name, line, problem)
    return chart


def _parse(source: bytes, name: str) -> tuple[etree._Element, Mapping[etree._Element, int]]:
    """The document, and the line on which each start tag begins: libxml2 knows only where it ends."""
    starts: list[int] = []
    parser = expat.ParserCreate()

    def refuse_doctype(*_: object) -> NoReturn:
        raise ChartError(name, parser.CurrentLineNumber, "a DTD is not allowed, and with it no entities")

    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = lambda *_: starts.append(parser.CurrentLineNumber)
    try:
        parser.Parse(source, True)
        root = etree.fromstring(source, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except expat.ExpatError as error:
        raise ChartError(name, error.lineno, f"not XML: {expat.ErrorString(error.code)}") from None
    except etree.XMLSyntaxError as error:
        raise ChartError(name, error.lineno, f"not XML: {error.msg}") from None
    return root, dict(zip(root.iter(etree.Element), starts, strict=True))


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Turns elements that have the right shape into types; notes problems with names as it goes.

    Attributes:
        broken: The tree itself is wrong, so that the checks of the whole can't be asked.
    """

    source: str
    lines: Mapping[etree._Element, int]
    vocabulary: Vocabulary
    alphabet: frozenset[str] = frozenset()
    targets: dict[str, str] = field(default_factory=dict)
    around: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    broken: bool = False

    def chart(self, root: etree._Element) -> Chart:
        self.targets = self._read_ids(root)
        done = {f"{DONE}{_parent_id(element)}" for element in _all(root, "final") if _parent_id(element)}
        self.alphabet = self.vocabulary.events | done
        states = {state.id: state for state in (self._state(element) for element in _all(root, "state", "final"))}
        histories = {history.id: history for history in map(self._history, _all(root, "history"))}
        initial = self._reference(root, "initial", [child for child in states.values() if not child.parent])
        return Chart(
            source=self.source,
            name=_value(root, "name"),
            doc=_doc(root),
            initial=initial,
            states=states,
            histories=histories,
            events=self.alphabet,
        )

    def _read_ids(self, root: etree._Element) -> dict[str, str]:
        """Every id and what has it; an id is the path to its element, without the abstract states on the way."""
        found: dict[str, str] = {}
        for element in _all(root, "state", "final", "history"):
            own, parent = _value(element, "id"), _named_parent_id(element)
            self.around[own] = tuple(str(holder.get("id", "")) for holder in element.iterancestors())
            if own in found:
                self._problem(element, f"the id {own!r} is taken already", fatal=True)
            elif own.rpartition(".")[0] != parent:
                home = f"the state {parent!r}: call it '{parent}.{own.rpartition('.')[2]}'" if parent else "no state"
                self._problem(element, f"the id {own!r} doesn't say where it stands: it lies in {home}", fatal=True)
            found[own] = name_of(element)
        return found

    def _state(self, element: etree._Element) -> State:
        children = [
            _value(child, "id") for child in element.iterchildren(etree.Element) if _is(child, "state", "final")
        ]
        final = name_of(element) == "final"
        initial = element.get("initial") or (children[0] if children else "")
        own = _value(element, "id")
        if initial and initial not in children:
            where = f"children: {', '.join(children)}" if children else "it has none"
            self._problem(element, f"initial {initial!r} must be a direct child of {own!r}; {where}", fatal=True)
        abstract = element.get(f"{{{OURS}}}abstract") == "true"
        if abstract:
            self._check_abstract(element, own, children)
        why = element.get(f"{{{OURS}}}why", "")
        if not final and not children and not why.strip():
            self._problem(element, f"state {own!r} must say what it waits for: add o:why")
        for key in ("why", "ends", "safe", "resting"):
            if children and element.get(f"{{{OURS}}}{key}"):
                self._problem(element, f"o:{key} belongs on a leaf, and {own!r} has children")
        return State(
            id=own,
            parent=_parent_id(element),
            final=final,
            initial=initial,
            children=tuple(children),
            onentry=self._contents(element, "onentry"),
            onexit=self._contents(element, "onexit"),
            transitions=tuple(self._transition(child) for child in element if _is(child, "transition")),
            why=" ".join(why.split()),
            doc=_doc(element),
            safe=element.get(f"{{{OURS}}}safe") == "true",
            resting=element.get(f"{{{OURS}}}resting") == "true",
            ends=element.get(f"{{{OURS}}}ends", ""),
            abstract=abstract,
            line=self.lines[element],
        )

    def _check_abstract(self, element: etree._Element, own: str, children: list[str]) -> None:
        """An abstract state must change nothing but where a transition is written down."""
        if len(children) < 2:
            self._problem(element, f"abstract state {own!r} needs two children or more that answer alike", fatal=True)
        for child in element.iterchildren(etree.Element):
            if not _is(child, "state", "transition", "o:doc"):
                problem = f"<{name_of(child)}> is not allowed in abstract state {own!r}: only states and transitions"
                self._problem(child, problem, fatal=True)
        around = element.iterancestors(f"{{{SCXML}}}state")
        if any(_is(child, "history") for holder in around for child in holder.iterchildren(etree.Element)):
            self._problem(element, f"abstract state {own!r} can't lie in a state that has a <history>", fatal=True)

    def _history(self, element: etree._Element) -> History:
        (default,) = (child for child in element if _is(child, "transition"))
        deep, target, parent = element.get("type") == "deep", _value(default, "target"), _parent_id(element)
        if not parent:
            self._problem(element, "a <history> must lie in a <state>", fatal=True)
        if self.targets.get(target) == "history" or target not in self.targets:
            self._unknown(default, "target", target, (key for key, kind in self.targets.items() if kind != "history"))
        elif not target.startswith(f"{parent}.") or not (deep or target.rpartition(".")[0] == parent):
            self._problem(
                default, f"target {target!r} must be a {'state in' if deep else 'direct child of'} {parent!r}"
            )
        return History(id=_value(element, "id"), parent=parent, deep=deep, default=target, line=self.lines[element])

    def _transition(self, element: etree._Element) -> Transition:
        source, target = _parent_id(element), element.get("target")
        internal = element.get("type") == "internal"
        if target is not None and target not in self.targets:
            self._unknown(element, "target", target, self.targets)
        elif target is not None:
            self._check_target(element, source, target, internal)
        elif internal:
            self._problem(element, 'type="internal" needs a target; without one a transition stays where it is anyway')
        written = tuple(_value(element, "event").split())
        events = {event: None for descriptor in written for event in self._matches(element, descriptor)}
        return Transition(
            source=source,
            written=written,
            events=tuple(events),
            conditions=tuple(self._conditions(element)),
            target=target,
            internal=internal,
            success=element.get(f"{{{OURS}}}success") == "true",
            content=tuple(self._content(child) for child in element.iterchildren(etree.Element) if not _is_doc(child)),
            line=self.lines[element],
        )

    def _check_target(self, element: etree._Element, source: str, target: str, internal: bool) -> None:
        """Refuse the targets for which ``transitions`` and SCXML disagree on what is left and entered."""
        if self.targets[target] == "history":
            home = target.rpartition(".")[0]
            if source == home or source.startswith(f"{home}."):
                self._problem(element, f"history {target!r} can only be entered from outside of {home!r}")
        elif internal and self.around[target][0] != source:
            self._problem(element, f'type="internal" leads to a direct child of {source!r} only, not to {target!r}')
        elif not internal and source in self.around[target]:
            self._problem(element, f'a target inside of {source!r} must be a direct child, with type="internal"')

    def _matches(self, element: etree._Element, descriptor: str) -> list[str]:
        """The known events that SCXML lets an event descriptor match: the name itself and every name below it."""
        if descriptor == "*":
            return sorted(self.alphabet)
        stem = descriptor.removesuffix(".*")
        found = sorted(event for event in self.alphabet if event == stem or event.startswith(f"{stem}."))
        if not found or (stem == descriptor and stem not in self.alphabet):
            self._unknown(element, "event", descriptor, self.alphabet)
        return found

    def _conditions(self, element: etree._Element) -> list[Condition]:
        conditions = []
        written = element.get("cond")
        for part in re.split(r"\s+and\s+", written.strip()) if written is not None else ():
            guard = part.removeprefix("!")
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", guard):
                problem = f"cond={written!r} of <transition>: write 'guard', '!guard', or several joined by ' and '"
                self._problem(element, problem)
            elif guard not in self.vocabulary.guards:
                self._unknown(element, "guard", guard, self.vocabulary.guards)
            conditions.append(Condition(guard=guard, wanted=part == guard))
        return conditions

    def _contents(self, element: etree._Element, kind: str) -> tuple[Content, ...]:
        blocks = (child for child in element if _is(child, kind))
        items = (item for block in blocks for item in block.iterchildren(etree.Element) if not _is_doc(item))
        return tuple(self._content(item) for item in items)

    def _content(self, element: etree._Element) -> Content:
        line, event = self.lines[element], element.get("event", "")
        if _is(element, "cancel"):
            return CancelLater(timer=_value(element, "sendid"), line=line)
        if element.get("type") == "effect":
            if event not in self.vocabulary.effects:
                self._unknown(element, "effect", event, self.vocabulary.effects)
            return SendEffect(effect=event, line=line)
        if event not in self.alphabet:
            self._unknown(element, "event", event, self.alphabet)
        elif event.startswith(DONE):
            self._problem(element, f"{event!r} is raised by itself when the state is done; it can't be sent")
        if _is(element, "raise"):
            return RaiseEvent(event=event, line=line)
        delay = _value(element, "delay")
        number = re.match(r"[0-9.]+", delay)
        assert number is not None
        delay_s = float(number[0]) * SECONDS[delay[number.end() :]]
        if delay_s <= 0:
            self._problem(element, f"delay={delay!r} of <send> must be longer than nothing; <raise> is at once")
        fixed = " ".join(element.get(f"{{{OURS}}}fixed", "").split())
        return SendLater(event=event, timer=_value(element, "id"), delay_s=delay_s, delay=delay, line=line, fixed=fixed)

    def _reference(self, root: etree._Element, key: str, tops: list[State]) -> str:
        target = _value(root, key)
        if target not in {state.id for state in tops}:
            self._problem(root, f"{key} {target!r} must be one of the top states", fatal=True)
        return target

    def _unknown(self, element: etree._Element, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if near:
            advice = f"; did you mean {' or '.join(map(repr, near))}?"
        else:
            advice = f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""
        self._problem(element, f"unknown {kind} {name!r}{advice}", fatal=kind == "target")

    def _problem(self, element: etree._Element, problem: str, fatal: bool = False) -> None:
        self.problems.append((self.lines[element], problem))
        self.broken = self.broken or fatal


def _all(root: etree._Element, *names: str) -> list[etree._Element]:
    """The elements of these names, in document order."""
    return [element for element in root.iter(etree.Element) if name_of(element) in names]


def _is(element: etree._Element, *names: str) -> bool:
    return isinstance(element.tag, str) and name_of(element) in names


def _is_doc(element: etree._Element) -> bool:
    return _is(element, "o:doc")


def _value(element: etree._Element, key: str) -> str:
    """An attribute that the schema demands."""
    return str(element.attrib[key])


def _parent_id(element: etree._Element) -> str:
    """The id of the state around ``element``; empty at the top."""
    parent = element.getparent()
    return "" if parent is None else parent.get("id", "")


def _named_parent_id(element: etree._Element) -> str:
    """The id of the next state around ``element`` that isn't abstract; empty at the top."""
    parent = element.getparent()
    while parent is not None and parent.get(f"{{{OURS}}}abstract") == "true":
        parent = parent.getparent()
    return "" if parent is None else parent.get("id", "")


def _doc(element: etree._Element) -> str:
    texts = ("".join(map(str, child.itertext())) for child in element if _is_doc(child))
    return " ".join(" ".join(texts).split())
