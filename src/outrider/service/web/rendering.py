"""Templates, and the fragments of a page that are kept up to date.

A template marks what may change: ``{% call live("turns") %}...{% endcall %}`` becomes an element with that id, and
``{% call live_list("rows", tag="tbody") %}`` a list of such elements, which come and go and change their places. The
same template makes the whole page and, for a stream, its fragments: they are gathered while the block ``live`` runs.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context as TemplateContext
from markupsafe import Markup, escape

HERE = Path(__file__).parent
STATIC = HERE / "static"
_COMMAND = re.compile("`([^`]+)`")
_COLLECTOR = "outrider_collector"


@dataclass(slots=True)
class Fragments:
    """What a page consists of that may change.

    Attributes:
        html: Of each element, by its id.
        lists: The ids of the elements of each list, in their order, by the list's id.
    """

    html: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    _open: list[list[str]] = field(default_factory=list)

    def add(self, name: str, html: str) -> None:
        """An element; of the list that is being gathered, if there is one."""
        assert name not in self.html, f"two elements have the id {name}"
        self.html[name] = html
        if self._open:
            self._open[-1].append(name)


def _attributes(attributes: Mapping[str, object]) -> str:
    named = ((name.strip("_").replace("_", "-"), value) for name, value in attributes.items())
    return "".join(f' {name}="{escape(value)}"' for name, value in named if value is not None and value is not False)


@pass_context
def _live(
    context: TemplateContext, name: str, tag: str = "div", *, caller: Callable[[], str], **attributes: object
) -> Markup:
    html = f'<{tag} id="{escape(name)}"{_attributes(attributes)}>{caller()}</{tag}>'
    collector = context[_COLLECTOR]
    assert isinstance(collector, Fragments)
    collector.add(name, html)
    return Markup(html)  # noqa: S704 - what callers and attributes say was escaped


@pass_context
def _live_list(
    context: TemplateContext, name: str, tag: str = "div", *, caller: Callable[[], str], **attributes: object
) -> Markup:
    collector = context[_COLLECTOR]
    assert isinstance(collector, Fragments)
    collector._open.append([])
    inside = caller()
    collector.lists[name] = collector._open.pop()
    return Markup(f'<{tag} id="{escape(name)}"{_attributes(attributes)}>{inside}</{tag}>')  # noqa: S704


def _moment(at: datetime | None) -> Markup:
    """A time: as it is without JavaScript, with it the age, which counts on."""
    if at is None:
        return Markup("")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        utc.isoformat(timespec="milliseconds"), f"{utc:%Y-%m-%d %H:%M:%S}", f"{utc:%m-%d %H:%M:%S}"
    )


def _coded(text: object) -> Markup:
    """A sentence in which commands stand between backticks, as in a terminal."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it was escaped


def _part(text: object) -> str:
    """One part of a path."""
    return quote(str(text), safe="")


def _static_address() -> Callable[[str], str]:
    known: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in known:
            known[name] = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
        return f"/static/{name}?v={known[name]}"

    return address


class Templates:
    """The templates of the page."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {"live": _live, "live_list": _live_list, "static": _static_address()}
        self._environment.filters |= {"coded": _coded, "moment": _moment, "part": _part}

    def page(self, template: str, facts: Mapping[str, Any]) -> tuple[str, Fragments]:
        """A whole page, and its fragments."""
        fragments = Fragments()
        found = self._environment.get_template(template)
        return found.render({**facts, _COLLECTOR: fragments}), fragments

    def fragments(self, template: str, facts: Mapping[str, Any]) -> Fragments:
        """The fragments of a page, from its block ``live`` alone."""
        fragments = Fragments()
        found = self._environment.get_template(template)
        context = found.new_context({**facts, _COLLECTOR: fragments})
        for _ in found.blocks["live"](context):
            pass
        return fragments
