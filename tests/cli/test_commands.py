"""Every command that is written can be typed."""

import ast
from importlib.metadata import distribution
from pathlib import Path

from outrider.cli import commands
from outrider.cli.main import COMMANDS

FOLDER = Path(commands.__file__).parent


def unreachable(folder: Path, entries: set[str]) -> set[str]:
    """The modules of ``folder`` that neither are in ``entries`` nor are imported by one that can be reached."""
    package = "outrider.cli.commands"
    imports: dict[str, set[str]] = {}
    for path in folder.glob("*.py"):
        named = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
            elif isinstance(node, ast.Import):
                named |= {each.name for each in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value.partition(":")[0])
        imports[path.stem] = {name.removeprefix(f"{package}.") for name in named if name.startswith(f"{package}.")}
    reached, ahead = set[str](), list(entries)
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += imports.get(name, set())
    return set(imports) - reached - {"__init__"}


def test_every_module_of_commands_is_in_the_table_or_used_by_one_that_is() -> None:
    scripts = [script.module for script in distribution("outrider").entry_points]
    entries = {target.partition(":")[0].rpartition(".")[2] for target in (*COMMANDS.values(), *scripts)}

    assert set() == unreachable(FOLDER, entries)


def test_a_module_that_the_table_forgot_is_found(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from outrider.cli.commands.rollup import total\n")
    (tmp_path / "rollup.py").write_text("total = 1\n")
    (tmp_path / "hello.py").write_text("from outrider.cli.commands import app\n")

    assert {"hello"} == unreachable(tmp_path, {"app"})
