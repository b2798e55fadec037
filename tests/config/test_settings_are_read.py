"""A setting that nothing reads would be a promise to the operator that nobody keeps."""

import ast
from dataclasses import fields
from pathlib import Path

import outrider
from outrider.config.load import SECTIONS

SOURCE = Path(outrider.__file__).parent


def names_read(source: Path) -> set[str]:
    """Every attribute that the code reads, by its name."""
    return {
        node.attr
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def unread(sections: dict[str, type], read: set[str]) -> list[str]:
    """The settings, as ``section.key``, whose key is never read."""
    return [f"{name}.{each.name}" for name, kind in sections.items() for each in fields(kind) if each.name not in read]


def test_every_setting_is_read_somewhere() -> None:
    assert [] == unread(dict(SECTIONS), names_read(SOURCE))


def test_a_setting_that_nothing_reads_is_found(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text("def room(settings):\n    settings.host = 1\n    return settings.ports\n")
    read = names_read(tmp_path)

    left = unread({"workload": SECTIONS["workload"]}, read)

    assert "workload.host" in left, "setting it is not reading it"
    assert "workload.ports" not in left
