"""Tables on a terminal, questions, the help, completion, manual pages, and what `app delete --cascade` shows."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.cli.commands.policy import word_of
from outrider.cli.main import COMMANDS, SERVICES
from outrider.cli.man_pages import pages
from outrider.cli.output import echo_table
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, be_alive, make_app
from tests.support.typing_verbs import Run, lines, typist

ROWS = [("web", "held: [bold]x[/bold]"), ("worker", "rollout halted: 4 failed"), ("db", "2 of 2 serve")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


def print_on(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    echo_table(("GROUP", "STATE"), ROWS)
    monkeypatch.undo()
    return stream.getvalue()


def test_a_table_has_colours_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)

    shown, piped = print_on(Terminal(), monkeypatch), print_on(io.StringIO(), monkeypatch)

    assert ["GROUP   STATE", "web     held: [bold]x[/bold]"] == piped.splitlines()[:2]
    assert "\x1b" not in piped
    assert piped == re.sub(r" +$", "", re.sub(r"\x1b\[[0-9;]*m", "", shown), flags=re.MULTILINE)
    assert re.search(r"\x1b\[31mrollout halted: 4 failed", shown), "what went wrong is red"
    assert re.search(r"\x1b\[1mGROUP", shown)
    assert not re.search(r"\x1b\[[0-9;]*m2 of 2", shown)


def test_a_terminal_gets_no_colours_that_it_does_not_want(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[31m" not in print_on(Terminal(), monkeypatch)


def test_without_the_library_a_terminal_gets_the_plain_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)

    echo_table(("GROUP", "STATE"), ROWS)

    assert "GROUP   STATE\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("max_per_interval", {"count": 1, "interval_s": 300}, "1/5m"),
        ("max_in_progress", None, "none"),
        ("update_timeout_s", 3600, "1h"),
        ("update_timeout_s", 90, "90s"),
        ("windows", [{"days": ["fri", "sat"], "opens": "22:00", "closes": "04:00"}], "fri,sat 22:00-04:00"),
        ("windows", [], "none"),
        ("enabled", True, "yes"),
        ("pin", "", "none"),
    ],
)
def test_a_policy_is_shown_in_words_and_not_as_json(name: str, value: object, word: str) -> None:
    assert word == word_of(name, value)


def test_a_shown_window_can_be_typed_again(run: Run, service: Service) -> None:
    make_app(service.store)
    run(f"group policy {APP}/beta --window='mon-fri 09:00-17:00' --max-per-interval=2/90s")

    shown = {row[0]: row[1] for row in lines(run(f"group policy {APP}/beta").stdout)[1:]}

    assert not any(character in "".join(shown.values()) for character in '{}[]"')
    assert ("mon,tue,wed,thu,fri 09:00-17:00", "2/90s") == (shown["windows"], shown["max_per_interval"])
    run(f"group policy {APP}/beta --window='{shown['windows']}' --max-per-interval={shown['max_per_interval']}")


def test_a_rollout_is_shown_in_words(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON, version="0.9.0")

    text = run(f"rollout show {APP}/beta").stdout

    assert not any(character in text for character in '{}[]"')
    assert ["state", "running"] in lines(text)


def test_app_delete_cascade_shows_what_goes_and_asks(run: Run, service: Service) -> None:
    make_app(service.store)
    run(f"webhook create ours --url=https://example.org/x --app-id={APP}")
    run("webhook create ops --url=https://example.org/x")

    asked = run(f"app delete --app-id={APP} --cascade", typing="n\n", code=1)

    expected = [f"- group {APP}/beta", f"- channel {APP}/beta", f"- package {APP} 2.0.0", f"- package {APP} 1.0.0"]
    assert [*expected, "- webhook ours"] == [line for line in asked.stderr.splitlines() if line.startswith("- ")]
    assert [APP] == [app.id for app in service.store.apps.list()]
    assert "is in use by" in run(f"app delete --app-id={APP}", code=1).stderr

    run(f"app delete --app-id={APP} --cascade --yes")

    assert () == service.store.apps.list()
    assert ["ops"] == [one["name"] for one in json.loads(run("webhook list --json").stdout)]


def test_app_delete_cascade_stops_before_anything_goes_while_sidekicks_run(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON)

    refused = run(f"app delete --app-id={APP} --cascade --yes", code=1)

    assert f"sidekicks of {APP} run: web-1; end them first" in refused.stderr
    assert ["2.0.0", "1.0.0"] == [package.version for package in service.store.packages.list(APP)]


def every_command(command: click.Command, context: click.Context) -> list[tuple[str, click.Command, click.Context]]:
    found = [(context.command_path, command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += every_command(inner, click.Context(inner, info_name=name, parent=context))
    return found


def root() -> click.Context:
    return click.Context(main, info_name="outrider", auto_envvar_prefix="OUTRIDER")


def test_the_help_names_the_variable_of_every_option() -> None:
    """Each by itself where it has a name of its own or a unit sets it; by a rule with an example elsewhere."""
    for path, command, context in every_command(main, root()):
        text = " ".join(command.get_help(context).split())
        for option in (one for one in command.params if isinstance(one, click.Option) and not one.hidden):
            if option.envvar:
                names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                assert all(name in text for name in names), f"{path} {option.opts}"
            elif path.startswith(SERVICES) and context.auto_envvar_prefix:
                assert f"{context.auto_envvar_prefix}_{str(option.name).upper()}" in text, f"{path} {option.opts}"
            elif path != "outrider" and not isinstance(command, click.Group):
                assert f"as {context.auto_envvar_prefix}_" in text, path


def test_a_variable_that_the_help_names_is_heeded(run: Run, service: Service) -> None:
    make_app(service.store)

    result = CliRunner().invoke(
        main, ["group", "list"], env={"OUTRIDER_SERVER": service.url, "OUTRIDER_GROUP_LIST_APP_ID": APP}
    )

    assert 0 == result.exit_code
    assert "beta" in result.stdout


def test_every_command_has_a_manual_page_with_its_options(tmp_path: Path) -> None:
    found = dict(pages(root()))

    assert {f"outrider-{name}" for name in COMMANDS} <= set(found)
    assert "outrider-apply" in found
    page = found["outrider-app-delete"]
    assert ".SH NAME\noutrider\\-app\\-delete \\- Delete an application\n" in page
    assert ".B \\-\\-cascade\n" in page
    assert ".SH ENVIRONMENT\n" in page
    assert ".BR outrider\\-app (1)" in page
    for name, text in found.items():
        bad = [line for line in text.splitlines() if re.match(r"[.'](?!TH|SH|PP|TP|B |BR )", line)]
        assert not bad, f"{name}: {bad}"

    written = CliRunner().invoke(main, ["man", "--dir", str(tmp_path / "man1")])
    assert 0 == written.exit_code
    assert set(found) == {path.stem for path in (tmp_path / "man1").iterdir()}
    assert page == CliRunner().invoke(main, ["man", "app", "delete"]).stdout
    assert "no command 'app nothing'" in CliRunner().invoke(main, ["man", "app", "nothing"]).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).stdout

    assert f"_OUTRIDER_COMPLETE={shell}_complete" in script
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTRIDER_")}
    environment |= {"_OUTRIDER_COMPLETE": f"{shell}_complete", "COMP_WORDS": "outrider app del"}
    environment["COMP_CWORD"] = "del" if shell == "fish" else "2"
    program = Path(sys.executable).parent / "outrider"
    answer = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "delete" in answer.stdout
