"""Random charts of our profile, and python-statemachine as the engine that they are compared with."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lxml import etree
from statemachine.io.scxml.processor import SCXMLProcessor

from outrider.core.chart.load import DONE, Chart, RaiseEvent, Vocabulary
from outrider.core.chart.machine import Machine, Perform, Rules
from outrider.core.chart.schema import OURS, SCXML, name_of

GUARDS = ("g0", "g1", "g2")
NEWS = ("e0", "e1", "e2", "e3", "error.a", "error.b", "home")
RAISED = ("r0", "r1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event of any name. ``true`` are the guards that hold from now on."""

    name: str
    true: frozenset[str] = frozenset()
    generation: int | None = None
    request: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An effect that is only its name."""

    name: str


def trace_rules(chart: Chart, guards: frozenset[str], effects: frozenset[str]) -> Rules[frozenset[str]]:
    """Rules whose memory is the set of guards that hold, and whose effects are their names."""

    def remember(memory: frozenset[str], event: Happening) -> frozenset[str]:
        return memory if event.name in internal else event.true

    raised = {item.event for _, item in chart.contents() if isinstance(item, RaiseEvent)}
    internal = raised | {event for event in chart.events if event.startswith(DONE)}
    return Rules(
        guards={name: partial(_is_in, name) for name in guards},
        effects={name: partial(_named, name) for name in effects},
        remember=remember,
        internal={name: partial(raised_event, name) for name in internal},
        delays=lambda memory, timer, delay_s: delay_s,
        answered=frozenset(),
    )


def _is_in(name: str, memory: frozenset[str]) -> bool:
    return name in memory


def _named(name: str, _: object) -> Named:
    return Named(name=name)


def raised_event(name: str, _: object) -> Happening:
    """What the chart raises itself."""
    return Happening(name=name)


class Oracle:
    """The same chart in python-statemachine; effects are collected in a list of the document's own data model."""

    def __init__(self, source: bytes, guards: frozenset[str]) -> None:
        self._source = _as_plain_scxml(source, guards)
        self._guards = guards
        self._machine: Any = None
        self._seen = 0

    def start(self) -> list[str]:
        """Begin afresh; what the initial states do."""
        # A processor of python-statemachine 3.2.2 fills the data model of its first machine only.
        processor = SCXMLProcessor(trusted=True)
        processor.parse_scxml("chart", self._source)
        self._machine = processor.start()
        self._seen = 0
        return self._news()

    def step(self, event: Happening) -> list[str]:
        """What ``event`` makes the chart do, in order."""
        for guard in self._guards:
            setattr(self._machine.model, guard, guard in event.true)
        self._machine.send(event.name)
        return self._news()

    @property
    def configuration(self) -> frozenset[str]:
        """All active states."""
        return frozenset(map(str, self._machine.configuration_values))

    def _news(self) -> list[str]:
        trace = self._machine.model.trace
        fresh, self._seen = trace[self._seen :], len(trace)
        return list(fresh)


def _as_plain_scxml(source: bytes, guards: frozenset[str]) -> str:
    root = etree.fromstring(source, etree.XMLParser(remove_comments=True))
    for element in list(root.iter(etree.Element)):
        for key in [key for key in element.attrib if str(key).startswith(f"{{{OURS}}}")]:
            del element.attrib[key]
        parent = element.getparent()
        if name_of(element) == "o:doc" or name_of(element) == "cancel" or element.get("delay"):
            assert parent is not None
            parent.remove(element)
        elif element.get("type") == "effect":
            element.tag = f"{{{SCXML}}}assign"
            event = element.attrib["event"]
            element.attrib.clear()
            element.attrib.update({"location": "trace", "expr": f"trace + [{event!r}]"})
        elif element.get("cond"):
            element.attrib["cond"] = str(element.attrib["cond"]).replace("!", "not ")
    model = etree.SubElement(root, f"{{{SCXML}}}datamodel")
    etree.SubElement(model, f"{{{SCXML}}}data", {"id": "trace", "expr": "[]"})
    for guard in guards:
        etree.SubElement(model, f"{{{SCXML}}}data", {"id": guard, "expr": "False"})
    return etree.tostring(root, encoding="unicode")


def difference(machine: Machine[frozenset[str]], oracle: Oracle, ours: tuple[Any, ...], theirs: list[str]) -> str:
    """How the two disagree after a step; empty when they don't."""
    did = [action.effect.name for action in ours if isinstance(action, Perform)]
    active = frozenset(state.id for state in machine.chart.chain(machine.state))
    if active != oracle.configuration:
        return f"active: ours {sorted(active)}, theirs {sorted(oracle.configuration)}"
    return f"order: ours {did}, theirs {theirs}" if did != theirs else ""


@dataclass(slots=True, kw_only=True)
class Node:
    """A state in the making."""

    id: str
    final: bool = False
    deep: bool | None = None
    abstract: bool = False
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def states(self) -> list["Node"]:
        return [child for child in self.children if child.deep is None]


class ChartMaker:
    """Writes one random chart that passes all checks of ``load_chart``.

    A leaf called ``hub`` jumps to every state and back, so that nothing is unreachable and no walk gets stuck.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        tops = [self._tree("s", index, depth=1) for index in range(self._random.randint(2, 3))]
        for top in tops:
            self._make_abstract(top)
        self._nodes = [node for top in tops for node in top.walk()]
        self._tops = tops
        self._count = 0
        jumps = [f"jump.n{index}" for index in range(len(self._nodes))]
        dones = [f"{DONE}{node.id}" for node in self._nodes if any(child.final for child in node.children)]
        self._alphabet = [*NEWS, *RAISED, *jumps, *dones]
        body = "".join(
            f'<transition event="{jump}" target="{node.id}"/>' for jump, node in zip(jumps, self._nodes, strict=True)
        )
        hub = f'<state id="hub" o:why="a jump" o:resting="true">{body}</state>'
        self.news = (*NEWS, *jumps)
        self.source = (
            f'<scxml xmlns="{SCXML}" xmlns:o="{OURS}" version="1.0" name="random" initial="hub">\n{hub}\n'
            f"{''.join(self._write(top) for top in tops)}</scxml>"
        ).encode()
        effects = {f"{kind}.{node.id}" for node in self._nodes for kind in ("in", "out")}
        effects |= {f"t{index}" for index in range(self._count)}
        self.vocabulary = Vocabulary(
            events=frozenset(self.news) | frozenset(RAISED), effects=frozenset(effects), guards=frozenset(GUARDS)
        )

    def _tree(self, prefix: str, index: int, depth: int) -> Node:
        node = Node(id=f"{prefix}{index}")
        # The first child of the first child and so on is always nested four deep, the others as it happens.
        first = all(part.endswith("0") for part in node.id.split("."))
        deep = depth < 4 and (first or self._random.random() < 0.55)
        if deep:
            letter = "sabcd"[depth]
            children = [
                self._tree(f"{node.id}.{letter}", child, depth + 1) for child in range(self._random.randint(2, 3))
            ]
            if self._random.random() < 0.6:
                children.append(Node(id=f"{node.id}.end", final=True))
            if self._random.random() < 0.5:
                children.append(Node(id=f"{node.id}.last", deep=self._random.random() < 0.5))
            self._random.shuffle(children)
            node.children = children
        return node

    def _make_abstract(self, node: Node) -> None:
        """Put children of some states that have no history into an abstract state, which may hold another one."""
        if any(child.deep is not None for child in node.children):
            return
        for child in node.children:
            self._make_abstract(child)
        for count, kept in enumerate((2, 3)):
            alike = [child for child in node.children if not child.final][:kept]
            if len(alike) >= 2 and self._random.random() < 0.5:
                holder = Node(id=f"{node.id}.like{count}", abstract=True, children=alike)
                node.children = [holder, *(child for child in node.children if child not in alike)]

    def _write(self, node: Node) -> str:
        if node.deep is not None:
            home = next(one for one in self._nodes if node in one.children)
            inside = [one for one in home.walk() if one is not home and one.deep is None] if node.deep else home.states
            kind, target = "deep" if node.deep else "shallow", self._random.choice(inside).id
            return f'<history id="{node.id}" type="{kind}"><transition target="{target}"/></history>\n'
        entry = f'<onentry><send type="effect" event="in.{node.id}"/>{self._maybe_raise(0.08)}</onentry>'
        leave = f'<onexit><send type="effect" event="out.{node.id}"/>{self._maybe_raise(0.04)}</onexit>'
        if node.final:
            return f'<final id="{node.id}">{entry}{leave}</final>\n'
        children = "".join(map(self._write, node.children))
        if node.abstract:
            words = f'o:abstract="true" initial="{self._random.choice(node.states).id}"'
            return f'<state id="{node.id}" {words}>\n{self._transitions(node)}{children}</state>\n'
        words = f'initial="{self._random.choice(node.states).id}"' if node.states else 'o:why="x" o:resting="true"'
        return f'<state id="{node.id}" {words}>{entry}{leave}\n{self._transitions(node)}{children}</state>\n'

    def _maybe_raise(self, chance: float) -> str:
        return f'<raise event="{self._random.choice(RAISED)}"/>' if self._random.random() < chance else ""

    def _transitions(self, node: Node) -> str:
        lines: list[str] = []
        taken: set[str] = {"home"} if node in self._tops else set()
        for _ in range(self._random.randint(1, 4)):
            written = sorted({self._descriptor(node) for _ in range(self._random.choice((1, 1, 2)))})
            events = {event for one in written for event in self._alphabet if _matches(one, event)}
            if events <= taken:
                continue
            conditions = self._random.sample(GUARDS, self._random.choice((0, 0, 1, 2)))
            cond = " and ".join(self._random.choice(("", "!")) + one for one in conditions)
            if not cond:
                taken |= events
            target = self._target(node)
            content = f'<send type="effect" event="t{self._count}"/>{self._maybe_raise(0.08)}'
            # python-statemachine 3.2.2 runs the content of a transition to a history twice: before the entry of its
            # parent and, in place of the history's own default content, after it.
            content = "" if '.last"' in target else content
            lines.append(
                f'<transition event="{" ".join(written)}"{f""" cond="{cond}" """ if cond else ""}{target}>'
                f"{content}</transition>\n"
            )
            self._count += 1
        way_out = '<transition event="home" target="hub"/>\n' if node in self._tops else ""
        return way_out + "".join(lines)

    def _descriptor(self, node: Node) -> str:
        done = [event for event in self._alphabet if event.startswith(f"{DONE}{node.id}")]
        if done and self._random.random() < 0.4:
            return self._random.choice(done)
        return self._random.choice((*NEWS[:6], *RAISED, "error.*", "e0.*", "*"))

    def _target(self, node: Node) -> str:
        if self._random.random() < 0.15:
            return ""
        if node.states and self._random.random() < 0.3:
            return f' type="internal" target="{self._random.choice(node.states).id}"'
        around = [one for one in self._nodes if node in one.walk()]
        allowed = [
            one
            for one in self._nodes
            if (one is node or one not in list(node.walk()))
            and not any(one in outer.children for outer in around if one.deep is not None)
        ]
        return f' target="{self._random.choice(allowed).id}"'


def _matches(descriptor: str, event: str) -> bool:
    stem = descriptor.removesuffix(".*")
    return descriptor == "*" or event == stem or event.startswith(f"{stem}.")


def random_event(
    chance: random.Random, news: tuple[str, ...], guards: frozenset[str], machine: Machine[frozenset[str]]
) -> Happening:
    """News of any kind, mostly of one that is listened to, or the end of one of the timers that run."""
    timers = machine.snapshot().timers
    heard = {event for state in machine.chart.chain(machine.state) for way in state.transitions for event in way.events}
    wanted = [event for event in news if event in heard]
    if wanted and chance.random() < 0.7:
        news = tuple(wanted)
    true = frozenset(guard for guard in sorted(guards) if chance.random() < 0.5)
    if timers and chance.random() < 0.5:
        timer = chance.choice(timers)
        return Happening(name=timer.event, true=true, generation=timer.generation)
    return Happening(name=chance.choice(news), true=true)
