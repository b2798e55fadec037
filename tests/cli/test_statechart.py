"""``outrider statechart``: what a person types and reads."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli.draw_marks import marks_of
from outrider.cli.main import main
from outrider.statechart import find_sidekick_chart, load_sidekick_chart, render_picture

render_once = cache(render_picture)


@pytest.fixture(autouse=True)
def rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture of the overview is drawn by one process for all tests here: it takes half a second."""
    monkeypatch.setattr("outrider.cli.commands.statechart_draw.render_picture", render_once)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["statechart", *arguments])


def test_the_shipped_chart_is_checked_when_no_file_is_named() -> None:
    result = run("check")

    assert 0 == result.exit_code, result.output
    assert result.output.startswith("sidekick.scxml: ok, ")
    assert result.output.endswith(" transitions\n")


def test_a_broken_chart_is_one_line_with_its_place(tmp_path: Path) -> None:
    broken = tmp_path / "mine.scxml"
    broken.write_bytes(find_sidekick_chart().read_bytes().replace(b'cond="is_paused"', b'cond="is_pausd"', 1))
    line = broken.read_bytes().split(b"is_pausd")[0].count(b"\n") + 1

    result = run("check", str(broken))

    assert 1 == result.exit_code
    assert f"Error: mine.scxml:{line}: unknown guard 'is_pausd'; did you mean 'is_paused'" in result.stderr
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize(("name", "why"), [("gone.scxml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, why: str) -> None:
    result = run("check", str(tmp_path / name))

    assert 1 == result.exit_code
    assert f"can't be read: {why}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        ((), b"stateDiagram-v2\n  direction TB\n"),
        (("--sideways", "--view", "overview"), b"stateDiagram-v2\n  direction LR\n"),
        (("--format", "dot", "--view", "swapping"), b'digraph "sidekick: swapping" {'),
        (("--format", "table"), b"### idle\n"),
        (("--format", "svg", "--view", "sketch"), b"<?xml"),
        (("--format", "png"), b"\x89PNG\r\n"),
        (("--format", "svg", "--strategy", "stop-first"), b"<?xml"),
        (("--strategy", "start-first"), b"stateDiagram-v2\n"),
        (("--format", "plantuml", "--theme", "dark"), b"@startuml\n"),
        (("--format", "scxml", "--strategy", "stop-first"), b"<?xml"),
        (("--format", "html", "--strategy", "stop-first", "--view", "rollback"), b"<!DOCTYPE html>\n"),
        (("--format", "png", "--strategy", "stop-first", "--view", "rollback", "--theme", "dark"), b"\x89PNG\r\n"),
    ],
)
def test_a_chart_is_drawn_to_a_file_or_to_stdout(tmp_path: Path, arguments: tuple[str, ...], begin: bytes) -> None:
    output = tmp_path / "picture"

    to_stdout, to_file = run("draw", *arguments), run("draw", *arguments, "--output", str(output))

    assert (0, 0) == (to_stdout.exit_code, to_file.exit_code), to_file.output
    assert output.read_bytes().startswith(begin)
    assert output.read_bytes() == to_stdout.stdout_bytes
    assert b"" == to_file.stdout_bytes


def test_an_unknown_view_names_the_known_ones() -> None:
    result = run("draw", "--view", "swaping")

    assert 1 == result.exit_code
    assert "--view swaping: no such view or state; known: whole, overview, sketch, path, idle" in result.stderr


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = run("draw", "--output", str(tmp_path / "no" / "where"))

    assert 1 == result.exit_code
    assert ": No such file or directory" in result.stderr


def test_a_png_is_not_sent_to_a_terminal() -> None:
    mine, terminal = os.openpty()
    try:
        command = [
            sys.executable,
            "-c",
            "from outrider.cli.main import main; main()",
            "statechart",
            "draw",
            "--format",
            "png",
        ]
        drawn = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(terminal)
        os.close(mine)

    assert 1 == drawn.returncode
    assert "Error: a terminal can't show a png: add --output FILE, or redirect the output to a file\n" == drawn.stderr


@pytest.mark.parametrize(
    ("strategy", "own", "others"),
    [
        ("start-first", "swapping.switching", "swapping.replacing"),
        ("stop-first", "swapping.joining", "swapping.starting"),
    ],
)
def test_a_strategy_is_drawn_without_what_only_the_other_does(strategy: str, own: str, others: str) -> None:
    for arguments in (("--format", "table"), ("--format", "dot"), ("--format", "dot", "--view", "overview")):
        drawn = run("draw", "--strategy", strategy, *arguments).output

        assert own in drawn, arguments
        assert others not in drawn, arguments
        assert "starts_first" not in drawn, arguments
    picture = run("draw", "--strategy", strategy, "--format", "svg").output
    assert f"<title>sidekick: {strategy}</title>" in picture
    assert f">{own.partition('.')[2]}</text>" in picture
    assert f">{others.partition('.')[2]}</text>" not in picture


def test_the_path_needs_one_strategy_and_svg() -> None:
    split, format_, sideways = (
        run("draw", "--view", "path", "--format", "svg"),
        run("draw", "--view", "path", "--strategy", "stop-first"),
        run("draw", "--view", "path", "--strategy", "stop-first", "--format", "svg", "--sideways"),
    )

    assert (1, 1, 1) == (split.exit_code, format_.exit_code, sideways.exit_code)
    assert "the success path splits at 'swapping.queueing', and a drawing needs one" in split.stderr
    for result in (format_, sideways):
        assert (
            "--view path is drawn as svg, png, html and from the top down: use --format svg without --sideways"
            in result.stderr
        )
    assert 2 == run("draw", "--strategy", "stop-frist").exit_code


# --- marks ----------------------------------------------------------------------------------------------------------

JOURNAL = Path(__file__).parent.parent / "data" / "journals" / "bad_release.jsonl"


def test_the_way_of_an_update_is_marked() -> None:
    result = run("draw", "--path", str(JOURNAL), "--strategy", "start-first", "--format", "svg")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "Marked: the way of the update of web-a to 2.0.0" in result.stdout
    assert ">step 6, 5.0 s</text>" in result.stdout
    part = run("draw", "--path", str(JOURNAL), "--view", "swapping")
    assert "step 6, 5.0 s" in part.stdout
    assert part.stderr.startswith("warning: marked, but not in this drawing: checking, ")


def test_marks_need_a_picture_and_one_kind() -> None:
    for arguments, words, code in (
        (("--path", str(JOURNAL), "--format", "scxml"), "--format scxml is the chart alone", 1),
        (("--path", str(JOURNAL), "--live", "web/production"), "--live and --path exclude each other", 2),
        (("--live", "web"), "--live web: name an app and a group: APP/GROUP", 2),
        (("--path", "/nonexistent/journal.jsonl"), "No such file", 1),
        (("--format", "html", "--view", "sketch"), "--view sketch has no html", 1),
        (("--format", "html"), "choose one with --strategy start-first or stop-first", 1),
    ):
        result = run("draw", *arguments)

        assert code == result.exit_code, arguments
        assert words in result.stderr


def test_instances_are_counted_in_their_states() -> None:
    where = {"swapping.probing": ["a"], "idle.waiting": ["b", "c", "d", "e"], "idle.unheard": ["f"]}

    marks = marks_of(load_sidekick_chart(), "web/production", where, ["g"])

    assert {"swapping.probing": ("1 instance: a",), "idle.waiting": ("4 instances: b, c, d and 1 more",)} == marks.notes
    assert (
        "Marked: where the 6 instances of web/production that are connected stand now. Not connected: g. "
        "In idle.unheard, which this chart doesn't have: f."
    ) == marks.legend
