"""A TOML or YAML file as a tree in which every value knows its line.

TOML: ``tomllib`` has no lines, so the text is cut into its statements first. A statement ends where what was read since
the last one is TOML by itself, and each stands on its own but for the header above it. Inside a value of several lines
all parts have the line on which the value begins.

YAML: PyYAML's nodes have lines. Words are taken as they are written, so that ``1.10`` and ``no`` stay texts where a
text is wanted: what a value means is decided by the code that asks for it.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outrider.core.errors import ConfigError

MAX_BYTES = 4 * 1024 * 1024
"""Of the file: whoever writes more by hand has made a mistake."""
MAX_DEPTH = 30


@dataclass(slots=True, kw_only=True)
class Scalar:
    """A single value.

    Attributes:
        value: As TOML has it; of YAML a text.
        loose: It was written without quotes in YAML: the text may mean a number, a truth value or nothing.
    """

    line: int
    value: object
    loose: bool = False


@dataclass(slots=True, kw_only=True)
class Items:
    """A list."""

    line: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Table:
    """Names with their values; ``lines`` has the line of each name."""

    line: int
    entries: "dict[str, Node]" = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, node: "Node", line: int) -> None:
        self.entries[name], self.lines[name] = node, line


Node = Scalar | Items | Table


def read_tree(path: Path) -> Table:
    """The content of a file; ``.yaml`` and ``.yml`` are YAML, everything else is TOML.

    Raises:
        ConfigError: it can't be read, or isn't what its name says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path.name}: {len(content)} bytes; at most {MAX_BYTES}: name payloads by file, url or image"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}:{content[: error.start].count(10) + 1}: not UTF-8") from error
    return _read_yaml(path, text) if path.suffix in (".yaml", ".yml") else _read_toml(path, text)


def _read_toml(path: Path, text: str) -> Table:
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        matched = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        where = (matched[2], matched[1]) if matched else (str(text.count("\n") + 1), str(error))
        raise ConfigError(f"{path.name}:{where[0]}: {where[1]}") from error
    root = _located(whole, 1)
    assert isinstance(root, Table)
    above: tuple[str | int, ...] = ()
    lists: dict[tuple[str | int, ...], int] = {}
    pending, begins = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begins = begins if pending else number
        pending += f"{line}\n"
        try:
            statement = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        if pending.lstrip().startswith("["):
            above = _header(statement, lists)
            _mark(root, above, begins, whole=False)
        else:
            for words in _paths(statement):
                _mark(root, (*above, *words), begins, whole=True)
        pending = ""
    return root


def _header(statement: Mapping[str, Any], lists: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """Where ``[a.b]`` or ``[[a.b]]`` leads: names, and after a name of tables the number of its last one."""
    place: tuple[str | int, ...] = ()
    inner: Any = statement
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        place = (*place, name)
        if isinstance(inner, list):
            lists[place] = lists.get(place, -1) + 1
            inner = inner[0]
        if place in lists:
            place = (*place, lists[place])
    return place


def _paths(statement: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Names that a statement sets: of ``a.b = 1`` it is (a, b), of ``a = {b = 1}`` as well."""
    found: list[tuple[str, ...]] = []
    for name, value in statement.items():
        found.append((name,))
        if isinstance(value, dict):
            found += [(name, *rest) for rest in _paths(value)]
    return found


def _mark(root: Table, place: tuple[str | int, ...], line: int, *, whole: bool) -> None:
    """Write down the line of what lies at ``place``; tables on the way that have none yet begin there, too.

    Args:
        whole: All that is in it stands there, as in an inline table.
    """
    node: Node = root
    for number, word in enumerate(place, start=1):
        if isinstance(node, Table) and isinstance(word, str) and word in node.entries:
            if word not in node.lines:
                node.lines[word] = line
                if whole:
                    _set_line(node.entries[word], line)
                else:
                    node.entries[word].line = line
            node = node.entries[word]
        elif isinstance(node, Items) and isinstance(word, int) and word < len(node.items):
            node = node.items[word]
            if number == len(place):
                node.line = line
        else:
            return


def _set_line(node: Node, line: int) -> None:
    node.line = line
    if isinstance(node, Items):
        for item in node.items:
            _set_line(item, line)
            if isinstance(item, Table):
                for name in item.entries:
                    item.lines.setdefault(name, line)


def _located(value: object, line: int) -> Node:
    if isinstance(value, dict):
        return Table(line=line, entries={name: _located(inner, line) for name, inner in value.items()})
    if isinstance(value, list):
        return Items(line=line, items=[_located(inner, line) for inner in value])
    return Scalar(line=line, value=value)


def _read_yaml(path: Path, text: str) -> Table:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path.name}: YAML needs a library: pip install 'outrider[cli]', or write the file as TOML"
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ConfigError(f"{path.name}:{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path.name}: {str(error).splitlines()[0]}") from error

    def located(node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        if depth > MAX_DEPTH:  # an alias may contain itself
            raise ConfigError(f"{path.name}:{line}: nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.MappingNode):
            table = Table(line=line)
            for key, value in node.value:
                where = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise ConfigError(f"{path.name}:{where}: a name must be a word")
                if key.value == "<<" and key.style is None:
                    raise ConfigError(f"{path.name}:{where}: merge keys (<<) aren't supported: write the keys out")
                if key.value in table.entries:
                    raise ConfigError(
                        f"{path.name}:{where}: {key.value!r} appears twice; see line {table.lines[key.value]}"
                    )
                table.put(key.value, located(value, depth + 1), where)
            return table
        if isinstance(node, yaml.SequenceNode):
            return Items(line=line, items=[located(item, depth + 1) for item in node.value])
        assert isinstance(node, yaml.ScalarNode)
        return Scalar(line=line, value=node.value, loose=node.style is None)

    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return Table(line=1)
    root = located(node, 0)
    if not isinstance(root, Table):
        raise ConfigError(f"{path.name}:{root.line}: must be a table with apps and webhooks")
    return root
