"""The page "why is nothing happening" has every answer that the code can give, and only those, with what ends it."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from outrider.cli.main import main
from outrider.core.rollout import ends, policy
from outrider.core.rollout.budgets import Contending
from outrider.core.rollout.slots import TurnWord
from outrider.core.sidekick import words
from outrider.core.sidekick.guards import GUARDS
from outrider.core.sidekick.memory import AfterUndecided
from outrider.model.tasks import Task, TaskState
from outrider.sidekick.signatures import SignatureCheck
from outrider.statechart import load_sidekick_chart
from outrider.turns.claim import Why
from outrider.turns.permission import permitted

PAGE = (Path(__file__).parents[2] / "docs" / "use" / "why.md").read_text()
HELD: Any = Contending.held
TASK: Any = Task.words
SPEAKERS: tuple[Callable[..., Any], ...] = (
    words.refusal,
    words.given_up,
    words.unfit,
    words.unfit_again,
    words.not_kept,
    words._queue,
    words._paused,
    words._drained,
    permitted,
    SignatureCheck.check,
    SignatureCheck._accepted,
    HELD.fget,
    TASK.fget,
)
"""What makes the sentences of sidekicks, of signatures, of the lock, of budgets and of tasks."""


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cells without the marks of code."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def sentences(function: Callable[..., Any]) -> list[str]:
    """Every text that a function returns or raises, with dots for what is filled in."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child)

    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            visit(node.value)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                visit(argument)
    return [one.replace("`", "'") for one in found if " " in one.strip("… ")]


def test_the_sentences_of_a_function_are_found() -> None:
    found = sentences(words.refusal)

    assert "… is blocked: …" in found
    assert "… waits: the group is paused" in found


def test_every_rule_of_the_policy_has_its_end_on_the_page() -> None:
    table = rows("What the policy says")

    assert sorted(table) == sorted(get_args(policy.Rule))
    assert {name: row[1] for name, row in table.items()} == dict(ends.ENDS)


def test_every_state_of_a_sidekick_has_its_reason_and_its_end_on_the_page() -> None:
    table = rows("What a sidekick says")

    leaves = {leaf.id: [leaf.why.replace("`", "'"), leaf.ends] for leaf in load_sidekick_chart().leaves}
    assert leaves == table
    assert [name for name, (_, what) in leaves.items() if not what] == []


@pytest.mark.parametrize("function", SPEAKERS, ids=lambda function: function.__qualname__)
def test_every_sentence_has_its_end_on_the_page(function: Callable[..., Any]) -> None:
    table = rows("What it refuses, and what holds it")

    said = sentences(function)

    assert said
    assert [one for one in said if one not in table] == []


def test_the_page_has_no_sentence_that_nothing_says() -> None:
    said = {one for function in SPEAKERS for one in sentences(function)}

    assert set(rows("What it refuses, and what holds it")) == said
    assert all(row[0] for row in rows("What it refuses, and what holds it").values())


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("Turns", TurnWord),
        ("Why a sidekick leaves the queue", Why),
        ("Tasks", TaskState),
        ("Analysis", AfterUndecided),
    ],
)
def test_every_word_has_its_row(heading: str, known: Any) -> None:
    table = rows(heading)

    assert sorted(filter(None, get_args(known))) == sorted(table)
    assert all(all(row) for row in table.values())


def test_the_ends_of_turns_and_the_single_ends_are_those_of_the_code() -> None:
    assert {name: row[-1] for name, row in rows("Turns").items()} == dict(ends.TURN_ENDS)
    for one in (
        ends.BLOCK_ENDS,
        ends.TASK_BLOCK_ENDS,
        ends.BUDGET_ENDS,
        ends.OFFLINE_ENDS,
        ends.BEGIN_ENDS,
        ends.STRANGER_ENDS,
        ends.IDENTITY_ENDS,
    ):
        assert one in PAGE


def test_every_guard_has_its_row() -> None:
    table = rows("Guards")

    assert sorted(GUARDS) == sorted(table)


def test_every_command_that_the_page_names_exists() -> None:
    for path in sorted(set(re.findall(r"`outrider ([a-z -]+?)(?= [A-Z-]|`)", PAGE))):
        command: click.Command | None = main
        context = click.Context(main)
        for word in path.split():
            assert isinstance(command, click.Group), path
            command = command.get_command(context, word)
            assert command is not None, path
