"""A page that shows the picture of a path and explains each state and transition that is pointed at.

One file with nothing from outside: its style and script stand in it, named by digest in its content security policy.
By mouse, finger or keyboard (Tab, and the arrow keys), with or without script: all explanations also stand below the
picture, and what is pointed at links to its own.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from outrider.core.chart.draw import filled, label_of
from outrider.core.chart.draw_sheet import Frame, Sheet, Text
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.draw_theme import Theme, recolored
from outrider.core.chart.model import (
    CancelLater,
    Chart,
    Condition,
    Content,
    RaiseEvent,
    SendEffect,
    SendLater,
    Transition,
)

Explain = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glossary:
    """What names mean: each gives a sentence, or nothing for a name without one."""

    event: Explain
    guard: Explain
    effect: Explain


STYLE = """
body { margin: 0; background: #eeeeee; color: #202124; font: 15px/1.45 Arimo, "Liberation Sans", Arial, sans-serif; }
main { margin: 0 24rem 0 0; padding: 1rem; }
main svg { max-width: 100%; height: auto; }
aside { position: fixed; top: 0; right: 0; bottom: 0; width: 22rem; padding: 1rem; overflow: auto;
  background-color: white; border-left: 1px solid #9aa0a6; }
section { max-width: 50rem; padding: 0.3rem 0.8rem; }
section:target { outline: 3px solid #174ea6; }
h2 { font-size: 1.05rem; margin: 0.6rem 0 0.3rem; }
ul { margin: 0; padding-left: 1.2rem; }
code { font-size: 0.95em; }
svg a { cursor: help; }
svg a:focus { outline: none; }
svg a:hover rect, svg a:focus rect { stroke: #174ea6; stroke-width: 4; }
svg a:hover text, svg a:focus text { text-decoration: underline; font-weight: bold; }
@media (max-width: 60rem) {
  main { margin: 0 0 45vh; }
  aside { top: auto; left: 0; width: auto; height: 40vh; border-left: 0; border-top: 1px solid #9aa0a6; }
}
@media print { aside { display: none; } main { margin: 0; } }
"""

SCRIPT = """
"use strict";
const panel = document.getElementById("panel");
const items = Array.from(document.querySelectorAll("svg a"));
function explain(item) {
  const found = document.getElementById(item.getAttribute("href").slice(1));
  panel.replaceChildren(...Array.from(found.childNodes, (node) => node.cloneNode(true)));
}
items.forEach((item, place) => {
  item.addEventListener("mouseenter", () => explain(item));
  item.addEventListener("focus", () => explain(item));
  item.addEventListener("click", (event) => { event.preventDefault(); item.focus(); explain(item); });
  item.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const next = step && items[place + step];
    if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "center" }); }
  });
});
"""


def to_html(chart: Chart, sheet: Sheet, glossary: Glossary, theme: Theme = "light") -> str:
    """The whole page for ``sheet``, which is laid out from ``chart``."""
    frames = {frame.id: f"s{number}" for number, frame in enumerate(sheet.frames)}
    ways = {way: f"t{number}" for number, way in enumerate(chart.transitions)}

    def around_frame(frame: Frame, drawn: str) -> str:
        return _link(frames[frame.id], f"state {frame.id}", drawn)

    def around_text(text: Text, drawn: str) -> str:
        return drawn if text.way is None else _link(ways[text.way], label_of(text.way), drawn)

    svg = to_svg(sheet, theme, around_frame=around_frame, around_text=around_text).partition("?>\n")[2]
    shown = {text.way for text in sheet.texts if text.way is not None}
    sections = [*(_section(frames[name], f"state {name}", _state(chart, name, glossary)) for name in frames)]
    sections += [_section(ways[way], _heading(way), _transition(way, glossary)) for way in ways if way in shown]
    style, title = recolored(STYLE, theme), _escape(sheet.title)
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(SCRIPT)}'"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="{theme}">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n'
        f"<body>\n<main>\n{svg}<h1>Every state and transition</h1>\n{chr(10).join(sections)}\n</main>\n"
        '<aside id="panel" aria-live="polite"><h2>Point at a state or a transition</h2>'
        "<p>Or go through them with Tab or the arrow keys. All explanations also stand below the picture.</p></aside>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _link(target: str, label: str, drawn: str) -> str:
    return f'<a href="#{target}" aria-label="{_escape(label)}">{drawn}</a>'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _section(name: str, title: str, facts: Iterable[str]) -> str:
    items = "".join(f"<li>{fact}</li>" for fact in facts)
    return f'<section id="{name}"><h2>{_escape(title)}</h2><ul>{items}</ul></section>'


def _state(chart: Chart, name: str, glossary: Glossary) -> Iterator[str]:
    if name in chart.histories:
        history = chart.histories[name]
        yield f"where {_code(history.parent)} was when it was last left; at first {_code(history.default)}"
        return
    state = chart.states[name]
    if state.why:
        yield f"waits: {_escape(filled(state.why))}"
    if state.doc:
        yield _escape(state.doc)
    if state.safe:
        yield "a pause may take effect here"
    if state.resting:
        yield "it may wait here forever"
    if state.children:
        yield "holds " + ", ".join(map(_code, state.children))
    yield from (f"on entry: {words}" for words in _does(state.onentry, glossary))
    yield from (f"on exit: {words}" for words in _does(state.onexit, glossary))
    if not state.transitions and not state.children:
        yield "nothing here leads on" if state.final else "what leads on from here is not in this picture"


def _heading(way: Transition) -> str:
    return f"{way.source}: {label_of(way)}"


def _transition(way: Transition, glossary: Glossary) -> Iterator[str]:
    yield f"from {_code(way.source)} " + ("and stays there" if way.target is None else f"to {_code(way.target)}")
    for event in way.events:
        yield _meaning("when", event, glossary.event(event))
    for condition in way.conditions:
        yield _condition(condition, glossary)
    yield from (f"does: {words}" for words in _does(way.content, glossary))
    if way.success:
        yield "a step of what happens when nothing goes wrong"


def _condition(condition: Condition, glossary: Glossary) -> str:
    return _meaning("if" if condition.wanted else "if not", condition.guard, glossary.guard(condition.guard))


def _does(content: Iterable[Content], glossary: Glossary) -> Iterator[str]:
    for item in content:
        match item:
            case RaiseEvent():
                yield _meaning("raises", item.event, glossary.event(item.event))
            case SendEffect():
                yield _meaning("starts", item.effect, glossary.effect(item.effect))
            case SendLater():
                fixed = f" (fixed: {item.fixed})" if item.fixed else ""
                yield f"waits for {_code(item.event)} after {_escape(item.delay + fixed)}"
            case CancelLater():
                yield f"ends the wait {_code(item.timer)}"


def _meaning(lead: str, name: str, words: str) -> str:
    return f"{lead} {_code(name)}" + (f": {_escape(words)}" if words else "")


def _code(name: str) -> str:
    return f"<code>{_escape(name)}</code>"


def _escape(text: str) -> str:
    text = re.sub(r"&", "&amp;", text)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
