"""The statechart in the formats of other tools: SCXML, PlantUML, a PNG's source, a page, and both themes."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
from lxml import etree, html
from statemachine.io.scxml.processor import SCXMLProcessor

from outrider.core.chart.draw import marked, whole, zoomed
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_html import Glossary, to_html
from outrider.core.chart.draw_inside import only_inside
from outrider.core.chart.draw_mermaid import to_mermaid
from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_placed import to_placed_dot
from outrider.core.chart.draw_plantuml import to_plantuml
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_scxml import to_scxml
from outrider.core.chart.draw_sheet import Frame, Marks, Text
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.draw_theme import DARK, Theme, recolored
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart
from outrider.core.chart.model import CancelLater, Content, RaiseEvent, SendEffect, SendLater
from outrider.core.chart.schema import SCXML
from outrider.core.sidekick.glossary import effect_words, event_words, guard_words
from outrider.core.sidekick.guards import decided_by
from outrider.core.sidekick.memory import Strategy
from outrider.core.sidekick.rules import VOCABULARY
from outrider.statechart import load_sidekick_chart
from tests.core.chart.test_draw_path import troubles

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
GLOSSARY = Glossary(event=event_words, guard=guard_words, effect=effect_words)
NOTES = {"idle.waiting": ("3 instances: a, b, c",), "swapping.probing": ("step 6, 5.0 s", "step 9")}


@pytest.fixture(scope="module")
def chart() -> Chart:
    return load_sidekick_chart()


@pytest.fixture(scope="module")
def pruned(chart: Chart) -> Chart:
    return prune(flattened(chart), decided_by("start-first"))


# --- SCXML ----------------------------------------------------------------------------------------------------------

W3C = f"{{{SCXML}}}"
CHILDREN = {
    "scxml": {"state", "final", "datamodel"},
    "state": {"onentry", "onexit", "transition", "state", "final", "history"},
    "final": {"onentry", "onexit"},
    "history": {"transition"},
    "transition": {"raise", "send", "cancel"},
    "onentry": {"raise", "send", "cancel"},
    "onexit": {"raise", "send", "cancel"},
    "datamodel": {"data"},
    "data": set[str](),
    "raise": set[str](),
    "send": set[str](),
    "cancel": set[str](),
}
"""What the W3C's recommendation of 2015 allows in what, of all that we use."""

ATTRIBUTES = {
    "scxml": {"version", "name", "datamodel", "initial"},
    "state": {"id", "initial"},
    "final": {"id"},
    "history": {"id", "type"},
    "transition": {"event", "cond", "target", "type"},
    "data": {"id", "expr"},
    "raise": {"event"},
    "send": {"event", "type", "id", "delay"},
    "cancel": {"sendid"},
}


def w3c_problems(root: Any) -> list[str]:
    """Everything in which a file isn't as the recommendation has it."""
    found = []
    states = list(root.iter(f"{W3C}state", f"{W3C}final", f"{W3C}history"))
    ids = Counter(node.get("id") for node in [*states, *root.iter(f"{W3C}data")])
    found += [f"{name} stands there {times} times" for name, times in ids.items() if times > 1]
    targets = {node.get("id") for node in states}
    for node in root.iter(f"{W3C}*"):
        name = etree.QName(node).localname
        children = {etree.QName(one).localname for one in node if etree.QName(one).namespace == SCXML}
        found += [f"{one} in {name}" for one in children - CHILDREN[name]]
        own = {str(one) for one in node.attrib if not str(one).startswith("{")}
        found += [f"{one} of {name}" for one in own - ATTRIBUTES.get(name, set())]
        for one in (node.get("initial"), node.get("target")):
            found += [f"{name} leads to {one}"] * (one is not None and one not in targets)
        initial = node.get("initial")
        if initial is not None and initial not in {one.get("id") for one in node.iterdescendants()}:
            found.append(f"{node.get('id')} begins outside of itself")
        delay = node.get("delay")
        if delay is not None and not re.fullmatch(r"\d+(\.\d+)?(s|ms)", delay):
            found.append(f"{delay} is no time of CSS2")
        if name == "transition" and node.getparent().tag == f"{W3C}history" and set(node.attrib) != {"target"}:
            found.append("a history's transition has more than a target")
        if name == "transition" and node.get("type") not in (None, "internal", "external"):
            found.append(f"a transition of type {node.get('type')}")
    return found


def content_of(node: Any) -> tuple[tuple[str, ...], ...]:
    said: list[tuple[str, ...]] = []
    for one in node:
        match etree.QName(one).localname, one.get("type"):
            case "raise", _:
                said.append(("raise", str(one.get("event"))))
            case "send", "effect":
                said.append(("effect", str(one.get("event"))))
            case "send", _:
                said.append(("later", str(one.get("event")), str(one.get("id")), str(one.get("delay"))))
            case "cancel", _:
                said.append(("cancel", str(one.get("sendid"))))
    return tuple(said)


def wanted_content(content: tuple[Content, ...]) -> tuple[tuple[str, ...], ...]:
    said: list[tuple[str, ...]] = []
    for item in content:
        match item:
            case RaiseEvent():
                said.append(("raise", item.event))
            case SendEffect():
                said.append(("effect", item.effect))
            case SendLater():
                said.append(("later", item.event, item.timer, f"{item.delay_s:g}s"))
            case CancelLater():
                said.append(("cancel", item.timer))
    return tuple(said)


@pytest.mark.parametrize("strategy", ["", *STRATEGIES])
def test_the_scxml_is_as_the_w3c_has_it_and_has_the_charts_states_and_transitions(chart: Chart, strategy: str) -> None:
    for one in STRATEGIES:
        if one == strategy:
            chart = prune(flattened(chart), decided_by(one))

    root: Any = etree.fromstring(to_scxml(chart).encode())

    assert [] == w3c_problems(root)
    assert ("scxml", "1.0", chart.initial) == (etree.QName(root).localname, root.get("version"), root.get("initial"))
    states = list(root.iter(f"{W3C}state", f"{W3C}final"))
    assert sorted(chart.states) == sorted(str(node.get("id")) for node in states)
    for node in states:
        state = chart.states[str(node.get("id"))]
        parent = node.getparent()
        assert parent is not None
        assert (state.parent, state.initial) == (parent.get("id") or "", node.get("initial") or "")
        assert wanted_content(state.onentry) == tuple(
            step for one in node.iter(f"{W3C}onentry") if one.getparent() is node for step in content_of(one)
        )
        drawn = [
            (one.get("event"), one.get("cond"), one.get("target"), one.get("type") == "internal", content_of(one))
            for one in node.findall(f"{W3C}transition")
        ]
        assert [
            (
                " ".join(way.written),
                " && ".join(condition.text for condition in way.conditions) or None,
                way.target,
                way.internal,
                wanted_content(way.content),
            )
            for way in state.transitions
        ] == drawn, state.id
    asked = {condition.guard for way in chart.transitions for condition in way.conditions}
    assert asked == {node.get("id") for node in root.iter(f"{W3C}data")}


def test_the_check_of_scxml_finds_what_is_wrong(chart: Chart) -> None:
    drawn = to_scxml(chart)
    for wrong, problem in (
        (drawn.replace('target="checking"', 'target="chekking"', 1), "leads to chekking"),
        (drawn.replace('delay="60s"', 'delay="1min"', 1), "no time of CSS2"),
        (drawn.replace('id="checking"', 'id="idle"', 1), "stands there 2 times"),
        (drawn.replace('initial="idle.waking"', 'initial="checking"', 1), "begins outside of itself"),
        (drawn.replace("<onentry>", "<onenter>").replace("</onentry>", "</onenter>"), "onenter"),
    ):
        assert wrong != drawn
        try:
            found = w3c_problems(etree.fromstring(wrong.encode()))
        except KeyError as error:
            found = [str(error)]
        assert any(problem in one for one in found), problem


def test_another_engine_reads_the_scxml(chart: Chart) -> None:
    root: Any = etree.fromstring(to_scxml(chart).encode())
    for way in root.iter(f"{W3C}transition"):
        if "cond" in way.attrib:  # its data model is Python, not ECMAScript
            way.set("cond", str(way.get("cond")).replace("!", "not ").replace("&&", "and"))
    processor = SCXMLProcessor()

    processor.parse_scxml("sidekick", etree.tostring(root).decode())

    assert ["sidekick"] == list(processor.scs)


# --- PlantUML -------------------------------------------------------------------------------------------------------


def test_the_plantuml_names_each_state_once_and_has_every_arrow(chart: Chart) -> None:
    picture = whole(chart)

    lines = to_plantuml(picture).splitlines()

    assert ("@startuml", "@enduml") == (lines[0], lines[-1])
    titles = [re.match(r'\s*state "([^"]+)" as (\w+)', line) for line in lines]
    names = [found[2] for found in titles if found]
    histories = [found[1] for line in lines if (found := re.match(r"\s*state (\w+) <<history\*?>>$", line))]
    known = {*names, *histories}
    assert len(names) + len(histories) == len(known) == len(flattened(chart).states) + len(chart.histories)
    arrows = [line for line in lines if re.match(r"\s*\w+ (-->|-\[bold\]->) \w+", line)]
    ends = [re.match(r"\s*(\w+) \S+ (\w+)(?: : (.+))?$", line) for line in arrows]
    assert len(picture.arrows) == len(arrows)
    assert all(found is not None and {found[1], found[2]} <= known and found[3] for found in ends)
    depth = 0
    for line in lines[1:-1]:
        depth += line.endswith("{") - (line.strip() == "}")
        assert depth >= 0
    assert 0 == depth


# --- marks and themes -----------------------------------------------------------------------------------------------


def test_marks_stand_in_every_format(pruned: Chart) -> None:
    picture = marked(whole(pruned), NOTES)
    sheet = lay_out_path(pruned, "title", Marks(legend="Marked: all that matters", notes=NOTES))

    for drawn in (to_dot(picture), to_mermaid(picture), to_plantuml(picture), to_svg(sheet), to_placed_dot(sheet)):
        for words in ("3 instances: a, b, c", "step 6, 5.0 s", "step 9"):
            assert words in drawn
    assert "Marked: all that matters" in to_svg(sheet)
    assert [] == troubles(sheet)
    fills = {frame.id: frame.fill for frame in sheet.frames}
    assert fills["idle.waiting"] == fills["swapping.probing"] != fills["swapping.soaking"]


def test_a_taken_transition_is_marked_and_no_other(pruned: Chart) -> None:
    way = next(way for way in pruned.states["swapping.probing"].transitions if way.success)

    sheet = lay_out_path(pruned, "title", Marks(taken=frozenset({("swapping.probing", way.line)})))

    plain = {text.way: text.color for text in lay_out_path(pruned, "title").texts if text.way}
    assert [way] == [text.way for text in sheet.texts if text.way and text.color != plain[text.way]]


def test_every_colour_has_its_counterpart_on_dark_paper(pruned: Chart) -> None:
    sheet, picture = lay_out_path(pruned, "title", Marks(legend="x", notes=NOTES)), marked(whole(pruned), NOTES)
    drawings: tuple[Callable[[Theme], str], ...] = (
        lambda theme: to_svg(sheet, theme),
        lambda theme: to_placed_dot(sheet, theme),
        lambda theme: to_dot(picture, theme=theme),
        lambda theme: to_plantuml(picture, theme=theme),
        lambda theme: to_html(pruned, sheet, GLOSSARY, theme),
    )
    for draw in drawings:
        light, dark = draw("light"), draw("dark")
        used = set(re.findall(r"#[0-9a-f]{6}\b", light))
        assert used <= set(DARK)
        assert set(re.findall(r"#[0-9a-f]{6}\b", dark)) <= set(DARK.values())
        assert not re.search(r'"white"', dark)
    assert "'theme': 'dark'" in to_mermaid(picture, theme="dark")
    assert recolored("abc #202124", "light") == "abc #202124"


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_on_all_paper(pruned: Chart, theme: str) -> None:
    sheet = lay_out_path(pruned, "title", Marks(legend="x", notes=NOTES))
    pairs = {
        (text.color, min(around, key=lambda frame: frame.height).fill if around else "white")
        for text in sheet.texts
        for around in [[frame for frame in sheet.frames if within(text, frame)]]
    }

    assert len(pairs) > 20
    for pair in pairs:
        word, paper = [DARK[one] if theme == "dark" else one.replace("white", "#ffffff") for one in pair]
        low, high = sorted(map(luminance, (word, paper)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair  # WCAG 2.1, AA


def within(text: Text, frame: Frame) -> bool:
    return frame.x < text.x < frame.x + frame.width and frame.y < text.y < frame.y + frame.height


# --- one state's inside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_states_inside_has_all_its_transitions_and_can_be_read(chart: Chart, strategy: Strategy) -> None:
    whole_chart = prune(flattened(chart), decided_by(strategy))
    for top in whole_chart.tops:
        part = only_inside(whole_chart, top.id)
        sheet = lay_out_path(part, top.id) if top.children else None

        own = [way for way in whole_chart.transitions if whole_chart.within(way.source, top.id)]
        drawn = [(way.source, way.line) for way in part.transitions]
        assert [(way.source, way.line) for way in own] == drawn, top.id
        if sheet is not None:
            assert [] == troubles(sheet), top.id
            assert Counter(part.transitions) == Counter(text.way for text in sheet.texts if text.way is not None)
    with pytest.raises(KeyError):
        only_inside(whole_chart, "swaping")


def test_the_zoomed_picture_and_the_inside_name_the_same_states(pruned: Chart) -> None:
    outside = {pruned.entry_leaf(box.id) for box in zoomed(pruned, "swapping").boxes[1:]}

    part = only_inside(pruned, "swapping")

    assert outside == {leaf.id for leaf in part.leaves if not part.within(leaf.id, "swapping")}


# --- the page -------------------------------------------------------------------------------------------------------


def test_every_state_and_transition_is_explained_where_it_links_to(pruned: Chart) -> None:
    sheet = lay_out_path(pruned, "title <&>")

    text = to_html(pruned, sheet, GLOSSARY)

    page: Any = html.fromstring(text.encode())
    links = page.xpath("//*[local-name()='svg']//*[local-name()='a']")
    sections = {node.get("id"): node for node in page.iter("section")}
    assert {str(link.get("href"))[1:] for link in links} == set(sections)
    assert len(links) == len(sheet.frames) + len(pruned.transitions)
    named = {frame.id for frame in sheet.frames}
    assert len(sections) == len(named) + len(set(pruned.transitions))
    assert all(link.get("aria-label") and sections[link.get("href")[1:]].findall(".//li") for link in links)
    for way in pruned.transitions:
        link = next(one for one in links if one.get("aria-label").startswith(way.written[0]))
        assert way.written[0] in (sections[link.get("href")[1:]].text_content())
    for name in ("style", "script"):
        (node,) = page.iter(name)
        digest = base64.b64encode(hashlib.sha256((node.text or "").encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in page.xpath("//meta[@http-equiv]/@content")[0]
    assert not re.search(r"<[^>]+ (style|on\w+)=", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "nothing from outside"
    assert ["title <&>"] == page.xpath("//head/title/text()")


def test_every_name_in_the_chart_has_words() -> None:
    for words, names in (
        (event_words, VOCABULARY.events),
        (guard_words, VOCABULARY.guards),
        (effect_words, VOCABULARY.effects),
    ):
        for name in names:
            said = words(name)
            assert " " in said, f"{name} is explained by {said!r}: give it a docstring"
            assert said.replace(" ", "_") != name, f"{name} needs a docstring"
    assert ("", "") == (event_words("no.such"), effect_words("no.such"))
