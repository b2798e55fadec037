"""The version before reads what this one stores, and the other way round: the rule of docs/develop/changing.md."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from outrider import __version__
from outrider.core.errors import Conflict
from outrider.core.sidekick.memory import Memory
from outrider.journal.journal import Journal, JournalError, read
from outrider.model.documents import App, Presence, decode
from tests.formats.examples import example, kinds
from tests.formats.record import FOLDER, present, recorded

VERSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))
JOURNALS = FOLDER.parent / "journals"
NOW = present()


def broken(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """What keeps the version of ``old`` and that of ``new`` from reading each other."""
    found = []
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            found.append(f"{name}: is no longer stored, and the version before reads it")
            continue
        for reader, writer, what in (
            (before, after, "the version before can't read what is stored now"),
            (after, before, "what the version before stored can't be read"),
        ):
            for error in jsonschema_rs.validator_for(reader["schema"]).iter_errors(writer["example"]):
                found.append(f"{name}: {what}: {'/'.join(map(str, error.instance_path))}: {error.message}")
        old_fields, new_fields = dict(_fields(before["schema"])), dict(_fields(after["schema"]))
        for field, words in old_fields.items():
            if field not in new_fields:
                found.append(f"{name}: {field} was removed, and the version before reads it")
            elif words and not set(new_fields[field]) <= set(words):
                found.append(f"{name}: {field} has words that the version before doesn't know")
    return found


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each field as ``Kind.field``, with the words that it may hold; none: any."""
    for kind, one in schema.get("$defs", {}).items():
        for field, facts in one.get("properties", {}).items():
            choices = [facts, *facts.get("anyOf", ())]
            words = [word for choice in choices for word in choice.get("enum", ()) if word is not None]
            yield f"{kind}.{field}", tuple(map(str, words))


@pytest.mark.parametrize("version", VERSIONS)
def test_this_version_and_an_earlier_one_read_each_other(version: str) -> None:
    assert [] == broken(recorded(version), NOW)


def test_this_version_is_recorded_as_it_is() -> None:
    """Until it is released: python -m tests.formats.record."""
    assert NOW == recorded(__version__), "run python -m tests.formats.record; never for a version that was released"


def changed(field: str, **facts: Any) -> dict[str, dict[str, Any]]:
    """What is stored now, with a field of ``App`` that is another one; without facts it is gone."""
    kind = json.loads(json.dumps(NOW["etcd/App"]))
    properties = kind["schema"]["$defs"]["App"]["properties"]
    kind["example"].pop(field, None)
    properties.pop(field, None)
    kind["schema"]["$defs"]["App"]["required"] = [
        one for one in kind["schema"]["$defs"]["App"].get("required", []) if one != field
    ]
    if facts:
        properties[field], kind["example"][field] = facts["schema"], facts["example"]
    return {"etcd/App": kind}


def test_each_way_to_break_the_rule_is_found() -> None:
    old = {"etcd/App": NOW["etcd/App"]}
    assert [] == broken(old, old)
    assert [] == broken(old, changed("colour", schema={"type": "string"}, example="red")), "a new field may come"

    assert any("is a required property" in line for line in broken(old, changed("label")))
    assert any("App.description was removed" in line for line in broken(old, changed("description")))
    assert any("can't read" in line for line in broken(old, changed("label", schema={"type": "integer"}, example=3)))
    assert ["etcd/App: is no longer stored, and the version before reads it"] == broken(old, {})


def test_a_new_word_is_found() -> None:
    def with_words(*words: str) -> dict[str, dict[str, Any]]:
        return changed("label", schema={"enum": list(words)}, example="a")

    assert ["etcd/App: App.label has words that the version before doesn't know"] == broken(
        with_words("a"), with_words("a", "b")
    )


def test_every_kind_takes_a_field_that_it_does_not_know() -> None:
    """A newer writer may have added it; of the kinds whose values are free, so that an example is one."""
    taken = 0
    for name, kind in kinds().items():
        given = example(kind)
        try:
            wanted = msgspec.convert(given, type=kind)
        except msgspec.ValidationError:
            continue  # an "x" where only some words can stand
        assert wanted == msgspec.convert({**given, "from_the_future": 1}, type=kind), name
        taken += 1
    assert taken > len(kinds()) // 2


def test_another_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    value = json.dumps({**example(Presence), "schema": 2}).encode()
    with pytest.raises(Conflict, match="schema 2, this outrider reads schema 1; use the version that wrote it"):
        decode(Presence, "presence/a/b/c", value)
    assert "x" == decode(App, "apps/x", json.dumps(example(App)).encode()).id

    shutil.copy(JOURNALS / "good_update.jsonl", tmp_path / "journal.jsonl")
    journal = Journal(tmp_path)
    assert journal.last is not None
    journal.append(msgspec.structs.replace(journal.last, schema=2, number=journal.last.number + 1))
    journal.close()
    with pytest.raises(JournalError, match="schema 2, this outrider reads 1"):
        Journal(tmp_path)


@pytest.mark.parametrize("path", sorted(JOURNALS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_recorded_journal_is_resumed_also_with_a_field_of_the_future(path: Path) -> None:
    for record in read(path):
        memory = msgspec.convert(record.memory, type=Memory)
        assert memory == msgspec.convert({**record.memory, "from_the_future": {"a": 1}}, type=Memory)
