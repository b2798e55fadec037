"""A chart in the W3C's own words (SCXML 1.0), for tools that know nothing of ours.

The file that the project keeps uses a profile: guards are names, delays may be minutes, states carry our attributes.
Here a guard is a Boolean of the ECMAScript data model, ``false`` at first, and a delay is in seconds, because times in
CSS2 know no minutes. What is ours stays in our name space, which other tools skip.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from lxml import etree

from outrider.core.chart.model import (
    CancelLater,
    Chart,
    Content,
    RaiseEvent,
    SendEffect,
    SendLater,
    State,
    Transition,
)
from outrider.core.chart.schema import OURS, SCXML

Node = etree._Element
_NAMESPACES: dict[Any, str] = {None: SCXML, "o": OURS}  # the stubs of lxml know no default name space


def to_scxml(chart: Chart) -> str:
    """The whole of ``chart``; abstract states are ordinary ones here, and mean the same."""
    root = etree.Element(_w3c("scxml"), nsmap=_NAMESPACES)
    root.set("version", "1.0")
    root.set("name", chart.name)
    root.set("datamodel", "ecmascript")
    if chart.initial:
        root.set("initial", chart.initial)
    _doc(root, chart.doc)
    guards = sorted({condition.guard for way in chart.transitions for condition in way.conditions})
    if guards:
        data = _below(root, "datamodel")
        for guard in guards:
            _below(data, "data", id=guard, expr="false")
    for top in chart.tops:
        _state(root, chart, top)
    etree.indent(root)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8").decode() + "\n"


def _w3c(name: str) -> str:
    return f"{{{SCXML}}}{name}"


def _ours(name: str) -> str:
    return f"{{{OURS}}}{name}"


def _below(parent: Node, name: str, **attributes: str) -> Node:
    return etree.SubElement(parent, _w3c(name), dict(attributes))


def _doc(parent: Node, words: str) -> None:
    if words:
        etree.SubElement(parent, _ours("doc")).text = words


def _state(parent: Node, chart: Chart, state: State) -> None:
    node = _below(parent, "final" if state.final else "state", id=state.id)
    if state.initial:
        node.set("initial", state.initial)
    if state.why:
        node.set(_ours("why"), state.why)
    if state.ends:
        node.set(_ours("ends"), state.ends)
    for name, is_so in (("safe", state.safe), ("resting", state.resting), ("abstract", state.abstract)):
        if is_so:
            node.set(_ours(name), "true")
    _doc(node, state.doc)
    for name, content in (("onentry", state.onentry), ("onexit", state.onexit)):
        if content:
            _content(_below(node, name), content)
    for way in state.transitions:
        _transition(node, way)
    for history in chart.histories.values():
        if history.parent == state.id:
            pseudo = _below(node, "history", id=history.id, type="deep" if history.deep else "shallow")
            _below(pseudo, "transition", target=history.default)
    for child in state.children:
        _state(node, chart, chart.states[child])


def _transition(parent: Node, way: Transition) -> None:
    node = _below(parent, "transition", event=" ".join(way.written))
    if way.conditions:
        node.set("cond", " && ".join(condition.text for condition in way.conditions))
    if way.target is not None:
        node.set("target", way.target)
        if way.internal:
            node.set("type", "internal")
    if way.success:
        node.set(_ours("success"), "true")
    _content(node, way.content)


def _content(parent: Node, content: Iterable[Content]) -> None:
    for name, attributes in _written(content):
        _below(parent, name, **attributes)


def _written(content: Iterable[Content]) -> Iterator[tuple[str, dict[str, str]]]:
    for item in content:
        match item:
            case RaiseEvent():
                yield "raise", {"event": item.event}
            case SendEffect():
                yield "send", {"type": "effect", "event": item.effect}
            case SendLater():
                yield "send", {"event": item.event, "id": item.timer, "delay": f"{item.delay_s:g}s"}
            case CancelLater():
                yield "cancel", {"sendid": item.timer}
