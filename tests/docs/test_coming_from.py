"""docs/use/coming-from.md names only what there is: commands with their options, and settings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from outrider.cli import main

USE = Path(__file__).parents[2] / "docs" / "use"
PAGE = (USE / "coming-from.md").read_text()
TOOLS = ("Kamal", "Watchtower", "Swarm", "Nomad", "Nebraska")
SETTING = re.compile(r"[a-z]+\.[a-z_]+")


def sections() -> dict[str, str]:
    """The page's second-level sections, by heading."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def answers(tool: str) -> Iterator[str]:
    """The right column of a tool's table: what outrider has instead."""
    table = [line for line in sections()[tool].splitlines() if line.startswith("|")]
    assert f"| {tool} | outrider |" == table[0]
    for line in table[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert 2 == len(cells), line
        yield cells[1]


def settings() -> set[str]:
    """Every setting as ``section.key``, from the page that is made from the code."""
    found = re.split(r"^### \[(.+)\]$", (USE / "configuration.md").read_text(), flags=re.MULTILINE)[1:]
    return {
        f"{section}.{key}"
        for section, text in zip(found[::2], found[1::2], strict=True)
        for key in re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.MULTILINE)
    }


def check(command: str) -> None:
    """Raise when a command line names a command or an option that doesn't exist."""
    first, *words = shlex.split(command)
    assert first == "outrider"
    found: click.Command = main
    while words and isinstance(found, click.Group) and not words[0].startswith("-"):
        below = found.get_command(click.Context(found), words[0])
        assert below is not None, f"{command}: there is no {words[0]}"
        found, words = below, words[1:]
    options = {name for one in found.params for name in (*one.opts, *one.secondary_opts)}
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert named <= options, f"{command}: there is no {sorted(named - options)}"


@pytest.mark.parametrize("tool", TOOLS)
def test_each_answer_is_a_command_or_a_setting_that_exists(tool: str) -> None:
    known = settings()
    assert {"probe.path", "docker.port", "instance.strategy"} <= known

    spans = [span for answer in answers(tool) for span in re.findall(r"`([^`]+)`", answer)]

    assert len(spans) > 8
    for span in spans:
        if span.startswith("outrider "):
            check(span)
        else:
            assert SETTING.fullmatch(span), f"{span}: neither a command of outrider nor a setting"
            assert span in known, span


def test_commands_outside_of_the_tables_exist() -> None:
    text = "\n".join(line for line in PAGE.splitlines() if not line.startswith("|"))
    commands = re.findall(r"`(outrider [^`]+)`", text) + re.findall(r"^(outrider .+)$", text, re.MULTILINE)

    assert len(commands) >= 3
    for command in commands:
        check(command)


def test_each_tool_says_what_differs_and_how_to_move() -> None:
    for tool in TOOLS:
        assert "What differs:" in sections()[tool], tool
        assert "To move: " in sections()[tool], tool


@pytest.mark.parametrize("wrong", ["outrider rollout undone", "outrider group update --slot=2", "outrider nothing"])
def test_a_command_that_does_not_exist_is_found_out(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
