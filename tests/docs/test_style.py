"""How the pages read: one sentence on each line."""

import importlib
from pathlib import Path

import pytest

sentences = importlib.import_module("tools.sentences")
ROOT = Path(__file__).parents[2]
PAGES = sentences.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_line_of_prose_holds_one_sentence(page: Path) -> None:
    assert sentences.problems(page.read_text()) == []


def test_the_pages_of_docs_and_the_root_are_looked_at() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}

    assert {"README.md", "CONTRIBUTING.md", "docs/README.md", "docs/use/service.md", "units/README.md"} <= names
    assert "CHANGELOG.md" not in names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("etcd answers. outrider goes on.", ["etcd answers.", "outrider goes on."]),
        ("Give a name, e.g. web, etc. and go.", ["Give a name, e.g. web, etc. and go."]),
        ("Version 1.0.0 of `a. b` is in [this file](a.b.md).", ["Version 1.0.0 of `a. b` is in [this file](a.b.md)."]),
        ("(It waits.) It goes on.", ["(It waits.)", "It goes on."]),
        ("**1. The app.** It runs.", ["**1. The app.**", "It runs."]),
        ('He says "stop." It stops.', ['He says "stop."', "It stops."]),
        ("Wait ... then go.", ["Wait ... then go."]),
    ],
)
def test_sentences_are_told_apart(text: str, found: list[str]) -> None:
    assert sentences.sentences(text) == found


def test_a_page_gets_one_sentence_on_each_line() -> None:
    page = """# A title. With two parts

One. Two that goes
on here.

- An item. It has
  two sentences.
  1. Inside. Too.

| a. b | c. d |
|---|---|

```
code. code
```

    code. code

<!-- a remark. Of two
lines. -->
"""

    written = """# A title. With two parts

One.
Two that goes on here.

- An item.
  It has two sentences.
  1. Inside.
     Too.

| a. b | c. d |
|---|---|

```
code. code
```

    code. code

<!-- a remark. Of two
lines. -->
"""
    assert sentences.one_per_line(page) == written
    assert sentences.one_per_line(written) == written
    assert sentences.problems(page) == ["3: One. Two that goes", "6: - An item. It has", "8: 1. Inside. Too."]
