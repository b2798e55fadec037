"""Takes typed values out of a tree and collects what is wrong, each with file and line."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from outrider.cli.declared.tree import Items, Node, Scalar, Table
from outrider.core.errors import OutriderError

T = TypeVar("T")
P = ParamSpec("P")
_TRUTHS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
_NOTHING = ("", "~", "null", "none")


@dataclass(slots=True, kw_only=True)
class Reader:
    """Reads one file.

    Attributes:
        file: Its name.
        problems: What is wrong so far, in the order of lines once it is all read.
    """

    file: str
    problems: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, problem: str) -> None:
        """Note a problem."""
        self.problems.append((line, problem))

    @property
    def lines(self) -> tuple[str, ...]:
        """All problems as a person reads them."""
        return tuple(dict.fromkeys(f"{self.file}:{line}: {text}" for line, text in sorted(self.problems)))

    def checked(self, line: int, check: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """What ``check`` returns of the arguments; when it raises an error of ours, that is a problem of ``line``."""
        try:
            return check(*arguments, **named)
        except OutriderError as error:
            self.refuse(line, str(error))
            return None

    def table(self, node: Node, what: str, known: Iterable[str] | None = None) -> Table:
        """``node`` as a table; names that aren't ``known`` are problems. What is no table is empty."""
        if isinstance(node, Scalar) and node.loose and node.value in _NOTHING:  # `policy:` with nothing below it
            return Table(line=node.line)
        if not isinstance(node, Table):
            self.refuse(node.line, f"{what}: must be a table")
            return Table(line=node.line)
        if known is not None:
            names = tuple(known)
            for name in node.entries:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    place = f"{what}.{name}" if what else name
                    self.refuse(line_of(node, name), f"{place}: unknown; known: {', '.join(names)}{hint}")
        return node

    def tables(self, parent: Table, name: str, what: str) -> Iterator[tuple[str, int, Node]]:
        """Name, line and node of each entry of the table ``name`` in ``parent``."""
        if name in parent.entries:
            inner = self.table(parent.entries[name], what)
            for word, node in inner.entries.items():
                yield word, line_of(inner, word), node

    def text(self, table: Table, name: str, what: str) -> str | None:
        """A text; of YAML also a word without quotes."""
        node = table.entries.get(name)
        if node is None or (is_nothing(node) and isinstance(node, Scalar) and node.loose):
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value
        self._wrong(table, name, what, "a text; write it in quotes")
        return None

    def flag(self, table: Table, name: str, what: str) -> bool | None:
        """True or false."""
        node = table.entries.get(name)
        if node is None:
            return None
        if isinstance(node, Scalar):
            if isinstance(node.value, bool):
                return node.value
            if node.loose and str(node.value).lower() in _TRUTHS:
                return _TRUTHS[str(node.value).lower()]
        self._wrong(table, name, what, "true or false")
        return None

    def number(self, table: Table, name: str, what: str) -> int | None:
        """A whole number."""
        node = table.entries.get(name)
        if node is None:
            return None
        found = plain(node)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
        self._wrong(table, name, what, "a whole number")
        return None

    def _wrong(self, table: Table, name: str, what: str, wanted: str) -> None:
        self.refuse(line_of(table, name), f"{what}.{name}: must be {wanted}")


def line_of(table: Table, name: str) -> int:
    """The line of a name in a table."""
    return table.lines.get(name, table.line)


def is_nothing(node: Node) -> bool:
    """YAML's null, or an empty text."""
    return isinstance(node, Scalar) and (node.value in _NOTHING if node.loose else node.value == "")


def plain(node: Node) -> object:
    """The value as TOML would have it: words of YAML without quotes become numbers and truth values where they are."""
    if isinstance(node, Table):
        return {name: plain(inner) for name, inner in node.entries.items()}
    if isinstance(node, Items):
        return [plain(inner) for inner in node.items]
    if not node.loose:
        return node.value
    word = str(node.value)
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word in ("", "~", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
