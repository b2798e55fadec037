"""The shape of a chart: a RELAX NG schema, and one clear line about the first element that breaks it.

libxml2 decides with the schema. Its own messages ("Element state failed to validate content") are for nobody, so the
reason is looked up again in tables that are read out of the same schema: nothing is written twice.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from lxml import etree

from outrider.core.errors import ChartError

SCXML = "http://www.w3.org/2005/07/scxml"
OURS = "urn:outrider:statechart:1"
RNG = "{http://relaxng.org/ns/structure/1.0}"

SCHEMA = b"""\
<grammar xmlns="http://relaxng.org/ns/structure/1.0" xmlns:o="urn:outrider:statechart:1"
         ns="http://www.w3.org/2005/07/scxml" datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
  <start><ref name="scxml"/></start>

  <define name="scxml"><element name="scxml">
    <attribute name="version"><value type="string">1.0</value></attribute>
    <attribute name="name"><ref name="id.type"/></attribute>
    <attribute name="initial"><ref name="id.type"/></attribute>
    <zeroOrMore><choice><ref name="doc"/><ref name="state"/><ref name="final"/></choice></zeroOrMore>
  </element></define>

  <define name="state"><element name="state">
    <attribute name="id"><ref name="id.type"/></attribute>
    <optional><attribute name="initial"><ref name="id.type"/></attribute></optional>
    <optional><attribute name="o:why"><ref name="words.type"/></attribute></optional>
    <optional><attribute name="o:ends"><ref name="words.type"/></attribute></optional>
    <optional><attribute name="o:safe"><ref name="yes.type"/></attribute></optional>
    <optional><attribute name="o:resting"><ref name="yes.type"/></attribute></optional>
    <optional><attribute name="o:abstract"><ref name="yes.type"/></attribute></optional>
    <zeroOrMore><choice>
      <ref name="doc"/><ref name="onentry"/><ref name="onexit"/><ref name="transition"/>
      <ref name="state"/><ref name="final"/><ref name="history"/>
    </choice></zeroOrMore>
  </element></define>

  <define name="final"><element name="final">
    <attribute name="id"><ref name="id.type"/></attribute>
    <zeroOrMore><choice><ref name="doc"/><ref name="onentry"/><ref name="onexit"/></choice></zeroOrMore>
  </element></define>

  <define name="history"><element name="history">
    <attribute name="id"><ref name="id.type"/></attribute>
    <optional><attribute name="type"><choice>
      <value type="string">shallow</value><value type="string">deep</value>
    </choice></attribute></optional>
    <optional><ref name="doc"/></optional>
    <ref name="default"/>
  </element></define>

  <define name="default"><element name="transition">
    <attribute name="target"><ref name="id.type"/></attribute>
  </element></define>

  <define name="onentry"><element name="onentry"><ref name="content"/></element></define>
  <define name="onexit"><element name="onexit"><ref name="content"/></element></define>

  <define name="transition"><element name="transition">
    <attribute name="event"><ref name="words.type"/></attribute>
    <optional><attribute name="cond"><ref name="words.type"/></attribute></optional>
    <optional><attribute name="target"><ref name="id.type"/></attribute></optional>
    <optional><attribute name="type"><choice>
      <value type="string">internal</value><value type="string">external</value>
    </choice></attribute></optional>
    <optional><attribute name="o:success"><ref name="yes.type"/></attribute></optional>
    <ref name="content"/>
  </element></define>

  <define name="content"><zeroOrMore><choice>
    <ref name="doc"/><ref name="raise"/><ref name="effect"/><ref name="timer"/><ref name="cancel"/>
  </choice></zeroOrMore></define>

  <define name="raise"><element name="raise">
    <attribute name="event"><ref name="name.type"/></attribute>
  </element></define>
  <define name="effect"><element name="send">
    <attribute name="type"><value type="string">effect</value></attribute>
    <attribute name="event"><ref name="name.type"/></attribute>
  </element></define>
  <define name="timer"><element name="send">
    <attribute name="event"><ref name="name.type"/></attribute>
    <attribute name="id"><ref name="name.type"/></attribute>
    <attribute name="delay"><ref name="delay.type"/></attribute>
    <optional><attribute name="o:fixed"><ref name="words.type"/></attribute></optional>
  </element></define>
  <define name="cancel"><element name="cancel">
    <attribute name="sendid"><ref name="name.type"/></attribute>
  </element></define>
  <define name="doc"><element name="o:doc"><text/></element></define>

  <define name="id.type"><data type="string">
    <param name="pattern">[a-z][a-z0-9_\\-]*(\\.[a-z][a-z0-9_\\-]*)*</param>
  </data></define>
  <define name="name.type"><data type="string">
    <param name="pattern">[a-z][a-z0-9_\\-]*(\\.[a-z0-9_\\-]+)*</param>
  </data></define>
  <define name="delay.type"><data type="string">
    <param name="pattern">[0-9]+(\\.[0-9]+)?(ms|s|min|h)</param>
  </data></define>
  <define name="words.type"><data type="token"><param name="minLength">1</param></data></define>
  <define name="yes.type"><choice><value type="string">true</value><value type="string">false</value></choice></define>
</grammar>
"""

HINTS = {
    "delay": "write a number and its unit: 500ms, 30s, 5min or 1h",
    "id": "write lower-case words of letters, digits, - and _, joined by dots",
    "cond": "write 'guard', '!guard', or several joined by ' and '",
    "event": "write lower-case words joined by dots, such as lock.acquired",
    "version": "write 1.0",
}
OUTSIDE = {
    "parallel": "run two machines instead",
    "invoke": "send an effect instead",
    "datamodel": "facts live in the memory, behind named guards",
    "script": "name a guard or an effect instead",
    "if": "use two transitions with guards instead",
    "foreach": "send one effect instead",
    "assign": "facts live in the memory, behind named guards",
    "initial": "use the initial attribute instead",
    "log": "the step is the log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """What the schema says of one element: attribute -> pattern of its value."""

    required: Mapping[str, str]
    optional: Mapping[str, str]
    children: frozenset[str]
    text: bool


def check_shape(root: etree._Element, source: str, lines: Mapping[etree._Element, int]) -> None:
    """Compare a parsed document with the schema.

    Args:
        lines: Where each element's start tag begins.

    Raises:
        ChartError: about the first element, in document order, that the schema refuses.
    """
    schema, shapes = _schema()
    if schema.validate(root):
        return
    for element in root.iter(etree.Element):
        problem = _explain(element, shapes)
        if problem:
            raise ChartError(source, lines[element], problem)
    entry = schema.error_log[0]
    raise ChartError(source, entry.line, entry.message)


def name_of(element: etree._Element) -> str:
    """``state``, or ``o:doc`` for one of ours, as people write it."""
    return _short(str(element.tag))


def _short(tag: str) -> str:
    for namespace, prefix in ((SCXML, ""), (OURS, "o:")):
        if tag.startswith(f"{{{namespace}}}"):
            return prefix + tag.partition("}")[2]
    return tag


def _explain(element: etree._Element, shapes: Mapping[str, tuple[_Shape, ...]]) -> str:
    name, parent = name_of(element), element.getparent()
    where = f" in <{name_of(parent)}>" if parent is not None else ""
    if parent is None and name != "scxml":
        return f'<{name}> is not a statechart; it begins with <scxml xmlns="{SCXML}">'
    if parent is not None and not any(name in shape.children for shape in shapes[name_of(parent)]):
        advice = f"; {OUTSIDE[name]}" if name in OUTSIDE else ""
        return f"<{name}> is not allowed{where}{advice}"
    candidates = shapes[name]
    if name == "transition":
        candidates = tuple(shape for shape in candidates if ("event" in shape.required) != (where == " in <history>"))
    elif name == "send":
        candidates = tuple(shape for shape in candidates if ("type" in shape.required) == ("type" in element.attrib))
    (shape,) = candidates
    known = {**shape.required, **shape.optional}
    for key in element.attrib:
        if _short(str(key)) not in known:
            return f"{_short(str(key))}= is not allowed in <{name}>{where}; known: {', '.join(sorted(known))}"
    for key in shape.required:
        if key not in {_short(str(given)) for given in element.attrib}:
            return f"<{name}> needs {key}={_need(name, key, where)}"
    for given, value in element.attrib.items():
        key = _short(str(given))
        if not re.fullmatch(known[key], " ".join(str(value).split()), re.DOTALL):
            return f"{key}={str(value)!r} of <{name}>: {HINTS.get(key, f'write {known[key]}'.replace('|', ' or '))}"
    if not shape.text and "".join((element.text or "", *(child.tail or "" for child in element))).strip():
        return f"text is not allowed in <{name}>; write <o:doc> for remarks"
    if where == " in <history>" or name == "history":
        inside = [name_of(child) for child in element if isinstance(child.tag, str)]
        if name == "history" and inside.count("transition") != 1:
            return '<history> needs one <transition target="..."/>: where it leads the first time'
    return ""


def _need(name: str, key: str, where: str) -> str:
    if (name, key) == ("transition", "event"):
        return " (a transition without an event is outside the profile)"
    if name == "send":
        return ': an effect is <send type="effect" event="..."/>, a timer is <send event="..." id="..." delay="30s"/>'
    return where


@cache
def _schema() -> tuple[etree.RelaxNG, Mapping[str, tuple[_Shape, ...]]]:
    grammar = etree.fromstring(SCHEMA)
    defines = {str(define.get("name")): define for define in grammar.iter(f"{RNG}define")}
    shapes: dict[str, tuple[_Shape, ...]] = {}
    for define in defines.values():
        for element in define.iterchildren(f"{RNG}element"):
            name = str(element.get("name"))
            shapes[name] = (*shapes.get(name, ()), _shape(element, defines))
    return etree.RelaxNG(grammar), shapes


def _shape(element: etree._Element, defines: Mapping[str, etree._Element]) -> _Shape:
    required: dict[str, str] = {}
    optional: dict[str, str] = {}
    for attribute in element.iter(f"{RNG}attribute"):
        parent = attribute.getparent()
        kind = optional if parent is not None and parent.tag == f"{RNG}optional" else required
        kind[str(attribute.get("name"))] = _pattern(attribute, defines)
    children = frozenset(str(child.get("name")) for child in _elements(element, defines))
    return _Shape(required=required, optional=optional, children=children, text=element.find(f"{RNG}text") is not None)


def _pattern(attribute: etree._Element, defines: Mapping[str, etree._Element]) -> str:
    """What the schema says of a value, as a Python pattern."""
    ref = attribute.find(f"{RNG}ref")
    node = attribute if ref is None else defines[str(ref.get("name"))]
    values = [str(value.text) for value in node.iter(f"{RNG}value")]
    patterns = [str(param.text) for param in node.iter(f"{RNG}param") if param.get("name") == "pattern"]
    return "|".join([*(re.escape(value) for value in values), *patterns]) or ".+"


def _elements(node: etree._Element, defines: Mapping[str, etree._Element]) -> Iterator[etree._Element]:
    """The elements that may stand directly in ``node``."""
    for ref in node.iter(f"{RNG}ref"):
        define = defines[str(ref.get("name"))]
        inner = define.find(f"{RNG}element")
        if inner is not None:
            yield inner
        elif define.find(f"{RNG}zeroOrMore") is not None:
            yield from _elements(define, defines)
