"""Files as trees: every value knows its line, in TOML and in YAML."""

from pathlib import Path

import pytest

from outrider.cli.declared.reader import line_of, plain
from outrider.cli.declared.tree import Items, Node, Table, read_tree
from outrider.core.errors import ConfigError

TOML = '''\
# a comment
title = "one"

[a.b]
text = """
two
lines"""
list = [
  1,   # with a comment
  2,
]
after = true
c.d = { e = 1, f = [{ g = 2 }] }

[[a.items]]
name = "first"
[[a.items]]
name = "second"
[a.items.inner]
x = 1

[a."1.0.0"]
"q r" = 1
'''


def at(node: Node, *words: str | int) -> tuple[int, Node]:
    """The line of what lies there, and itself."""
    line = node.line
    for word in words:
        if isinstance(word, int):
            assert isinstance(node, Items)
            node = node.items[word]
            line = node.line
        else:
            assert isinstance(node, Table)
            line = line_of(node, word)
            node = node.entries[word]
    return line, node


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("title",), 2),
        (("a",), 4),
        (("a", "b"), 4),
        (("a", "b", "text"), 5),
        (("a", "b", "list"), 8),
        (("a", "b", "after"), 12),
        (("a", "b", "c", "d"), 13),
        (("a", "b", "c", "d", "e"), 13),
        (("a", "b", "c", "d", "f", 0, "g"), 13),
        (("a", "items", 0), 15),
        (("a", "items", 0, "name"), 16),
        (("a", "items", 1), 17),
        (("a", "items", 1, "name"), 18),
        (("a", "items", 1, "inner"), 19),
        (("a", "items", 1, "inner", "x"), 20),
        (("a", "1.0.0"), 22),
        (("a", "1.0.0", "q r"), 23),
    ],
)
def test_a_value_of_toml_knows_its_line(words: tuple[str | int, ...], line: int, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TOML)

    assert line == at(read_tree(path), *words)[0]


def test_a_value_of_yaml_knows_its_line_and_is_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a:\n  1.10: no\n  'b':\n    - 1\n    - {c: '2', d: ~}\n  e: 0x1\nbase: &x {f: 1.5}\nalias: *x\n")

    tree = read_tree(path)

    assert 2 == at(tree, "a", "1.10")[0]
    assert 5 == at(tree, "a", "b", 1)[0]
    assert {
        "a": {"1.10": "no", "b": [1, {"c": "2", "d": None}], "e": "0x1"},
        "base": {"f": 1.5},
        "alias": {"f": 1.5},
    } == plain(tree)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.toml", "a = 1\nb = \n", r"x\.toml:2: Invalid value"),
        ("x.toml", 'a = """\n', r"x\.toml:2: "),
        ("x.toml", "[a]\n[a]\n", r"x\.toml:2: Cannot declare"),
        ("x.yaml", "a: 1\nb: [1\n", r"x\.yaml:3: "),
        ("x.yaml", "a: 1\na: 2\n", r"x\.yaml:2: 'a' appears twice; see line 1"),
        ("x.yaml", "- 1\n", r"x\.yaml:1: must be a table"),
        ("x.yaml", "a: &x [*x]\n", r"x\.yaml:1: nested more than 30 deep"),
        ("x.yaml", "a: {<<: {b: 1}}\n", r"x\.yaml:1: merge keys"),
        ("x.yaml", "? [1]\n: 2\n", r"x\.yaml:1: a name must be a word"),
    ],
)
def test_what_cannot_be_read_is_a_line_with_its_place(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ConfigError, match=said):
        read_tree(path)


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")

    with pytest.raises(ConfigError, match=r"x\.toml:2: not UTF-8"):
        read_tree(path)


def test_without_the_library_yaml_is_refused_with_the_command_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\n")

    with pytest.raises(ConfigError, match=r"pip install 'outrider\[cli\]', or write the file as TOML"):
        read_tree(path)
