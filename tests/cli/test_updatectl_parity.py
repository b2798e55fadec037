"""Every verb and flag of updatectl (its client of 2018 and Flatcar's of today) is there, and every table has --json.

Source: updateservicectl app.go, channel.go, group.go, pkg.go, rollout.go, instance.go, watch.go, admin.go,
upstream.go, database.go, help.go.
"""

from collections.abc import Iterator

import click
import pytest

from outrider.cli.main import COMMANDS, main

GLOBAL = "server user key debug skip-ssl-verify version"
VERBS = {
    "app list": "",
    "app create": "app-id label description",
    "app update": "app-id label description",
    "app delete": "app-id",
    "channel list": "app-id",
    "channel create": "app-id channel version publish",
    "channel update": "app-id channel version publish",
    "channel delete": "app-id channel",
    "group list": "app-id",
    "group create": "app-id group-id channel label",
    "group update": "app-id group-id channel label oem-blacklist update-count update-interval",
    "group delete": "app-id group-id",
    "group pause": "app-id group-id",
    "group unpause": "app-id group-id",
    "group percent": "app-id group-id update-percent",
    "group versions": "app-id group-id start end resolution",
    "group events": "app-id group-id start end resolution",
    "package list": "app-id",
    "package create": "app-id version url file meta release-notes",
    "package create bulk": "dir base-url",
    "package delete": "app-id version",
    "package download": "dir app-id version min-version",
    "package upload": "file",
    "package upload bulk": "dir",
    "rollout": "app-id group-id",
    "rollout create linear": "app-id group-id frame-size duration",
    "rollout activate": "app-id group-id",
    "rollout deactivate": "app-id group-id",
    "instance list-updates": "app-id group-id start end",
    "instance list-app-versions": "app-id group-id start end",
    "instance fake": "clients-per-app min-sleep max-sleep errorrate oem ping-only app-id group-id version force-update "
    "verbose",
    "instance bench": "seconds clients-per-app oem app-id group-id version force-update verbose",
    "watch": "app-id group-id version interval client-id",
    "help": "",
}
NO_TABLE = {"instance fake", "instance bench", "watch", "help"}
REFUSED = ("upstream create", "upstream update", "upstream list", "upstream delete", "upstream sync")
# Their modules come from elsewhere; as soon as they are there, they have these verbs.
ELSEWHERE = {"admin-user": ("create", "list", "delete"), "database": ("init", "backup")}


def find(words: str) -> click.Command:
    """The command that ``words`` lead to."""
    command: click.Command = main
    for word in words.split():
        assert isinstance(command, click.Group), f"{words}: nothing below {command.name}"
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"{words}: no {word}"
        command = found
    return command


def flags(command: click.Command) -> set[str]:
    """Names of its flags, without dashes."""
    return {name.lstrip("-") for option in command.params if isinstance(option, click.Option) for name in option.opts}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_all_its_flags(verb: str) -> None:
    missing = set(VERBS[verb].split()) - flags(find(verb))

    assert set() == missing


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - NO_TABLE))
def test_a_verb_with_a_table_prints_json_too(verb: str) -> None:
    assert "json" in flags(find(verb))


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"help"}))
def test_a_verb_takes_the_global_flags_itself(verb: str) -> None:
    wanted = set(GLOBAL.split()) - {"version"}

    assert wanted <= flags(find(verb))


def test_the_global_flags_go_before_the_verb_too() -> None:
    assert set(GLOBAL.split()) <= flags(main)


@pytest.mark.parametrize("verb", REFUSED)
def test_a_verb_that_makes_no_sense_here_still_answers(verb: str) -> None:
    assert "Not supported" in (find(verb).help or "")


@pytest.mark.parametrize("noun", ELSEWHERE)
def test_verbs_that_come_from_elsewhere_are_whole_when_they_are_there(noun: str) -> None:
    for verb in ELSEWHERE[noun] if noun in COMMANDS else ():
        assert find(f"{noun} {verb}")


def everything(command: click.Command = main, path: str = "outrider") -> Iterator[tuple[str, click.Command]]:
    """Every command there is, with the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from everything(found, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=one[0]) for one in everything()])
def test_a_command_explains_itself_and_its_flags(path: str, command: click.Command) -> None:
    assert command.help or command.short_help
    assert [] == [one.opts for one in command.params if isinstance(one, click.Option) and not one.help]


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=one[0]) for one in everything()])
def test_whoever_names_the_service_can_say_who_asks(path: str, command: click.Command) -> None:
    """A verb with --server alone would stop working with the first user."""
    wanted = {"token", "user", "key", "ca-file", "skip-ssl-verify"}

    assert "server" not in flags(command) or wanted <= flags(command)
