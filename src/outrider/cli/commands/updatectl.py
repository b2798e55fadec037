"""``updatectl``: outrider's verbs for people and scripts that know CoreOS' updatectl.

The command line is brought into outrider's form, then the same commands run:

- Go's flags: ``-app-id=x`` is ``--app-id=x``, ``--verbose=true`` is ``--verbose``, ``--publish`` means true.
- The short flags and positional verbs of 2014: ``-s URL update-app APP LABEL DESCRIPTION``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

import click

from outrider.cli.main import main as commands

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""What Go's strconv.ParseBool takes."""

_SHORT = {"s": "server", "u": "user", "k": "key", "D": "debug"}
"""Global flags of 2014."""


class Unusable(Exception):
    """The words can't be brought into outrider's form; the text says why."""


def main() -> None:
    """Run one command and leave with its code: 0 done, 1 an error, 2 wrong usage, 3 no such command."""
    try:
        words = modern(sys.argv[1:], commands)
    except Unusable as problem:
        click.echo(f"Error: {problem}", err=True)
        sys.exit(2)
    commands.main(args=words, prog_name="updatectl")


def modern(words: Sequence[str], top: click.Group) -> list[str]:
    """Bring updatectl's ``words`` into the form that ``top`` and the commands below it read.

    Raises:
        Unusable: a flag without its value, a switch that is neither true nor false, or too few words for an old verb.
    """
    head, rest = _split(words, top)
    return head + _below(_renamed(rest), top)


def _split(words: Sequence[str], top: click.Group) -> tuple[list[str], list[str]]:
    """Global flags in outrider's form, and everything from the verb on."""
    head: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        name, equals, value = _taken_apart(rest[0])
        word = f"--{_SHORT[name]}{equals}{value}" if name in _SHORT else rest[0]
        used, rest = _flag([word, *rest[1:]], top)
        head += used
    return head, rest


def _below(words: list[str], command: click.Command) -> list[str]:
    """Follow the words down the commands; flags belong to the command before them."""
    done: list[str] = []
    while words:
        word = words[0]
        if word == "--" and not isinstance(command, click.Group):
            return done + words
        if word.startswith("-") and word not in ("-", "--"):
            used, words = _flag(words, command)
            done += used
            continue
        done.append(word)
        words = words[1:]
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return done + words
            command = found
        elif not command.context_settings.get("allow_interspersed_args", True):
            # From here on the words are a program's own.
            return done + words
    return done


def _flag(words: list[str], command: click.Command) -> tuple[list[str], list[str]]:
    """One flag in outrider's form, with its value when that is the next word; and the words behind it."""
    name, equals, value = _taken_apart(words[0])
    option = next((one for one in command.params if isinstance(one, click.Option) and f"--{name}" in one.opts), None)
    if option is None:
        # Help, a short flag, or a mistake: the command itself says so.
        return [words[0] if len(name) == 1 else f"--{name}{equals}{value}"], words[1:]
    if option.is_flag and not option.count:
        if equals and value not in (*_TRUE, *_FALSE):
            raise Unusable(f"--{name}={value}: write true or false")
        return [] if value in _FALSE else [f"--{name}"], words[1:]
    if equals:
        return [f"--{name}={value}"], words[1:]
    if isinstance(option.flag_value, str):
        # It may stand alone, as --publish does; then Go never takes the next word for its value.
        return [f"--{name}"], words[1:]
    if len(words) == 1:
        raise Unusable(f"--{name} needs a value")
    return [f"--{name}={words[1]}"], words[2:]


def _taken_apart(word: str) -> tuple[str, str, str]:
    return word.lstrip("-").partition("=")


# The verbs of 2014.


def _new_package(words: list[str]) -> list[str]:
    renamed = {"path": "file", "sha1sum": "sha1", "sha256sum": "sha256"}
    ignored = ("name", "signature", "metadata-size")
    flags: dict[str, str] = {}
    plain: list[str] = []
    while words:
        word, *words = words
        if not word.startswith("-"):
            plain.append(word)
            continue
        name, equals, value = _taken_apart(word)
        if not equals:
            if not words:
                raise Unusable(f"--{name} needs a value")
            value, *words = words
        if name in ignored:
            click.echo(f"note: --{name} is not supported; it is ignored", err=True)
        else:
            flags[renamed.get(name, name)] = value
    if len(plain) == 2:
        flags.setdefault("version", plain.pop())
    _count("new-package", plain, "APP [VERSION]", 1)
    return ["package", "create", f"--app-id={plain[0]}", *(f"--{name}={value}" for name, value in flags.items())]


def _fake_clients(words: list[str]) -> list[str]:
    long = {"c": "clients-per-app", "m": "min-sleep", "M": "max-sleep"}
    flags: list[str] = []
    while words and words[0].startswith("-"):
        name, equals, value = _taken_apart(words[0])
        words = words[1:]
        if name in long and not equals:
            if not words:
                raise Unusable(f"-{name} needs a value")
            value, *words = words
            equals = "="
        flags.append(f"--{long.get(name, name)}{equals}{value}")
    _count("fakeclients", words, "APP GROUP VERSION", 3)
    app, group, version = words
    return ["instance", "fake", *flags, f"--app-id={app}", f"--group-id={group}", f"--version={version}"]


def _watch(words: list[str]) -> list[str]:
    if words and words[0].startswith("-"):
        return ["watch", *words]
    if len(words) < 4:
        raise Unusable("watch: write --app-id and --group-id, or APP GROUP CLIENT PROGRAM")
    app, group, client, *program = words
    return ["watch", f"--app-id={app}", f"--group-id={group}", f"--client-id={client}", *program]


def _positional(old: str, verb: str, *flags: str) -> Callable[[list[str]], list[str]]:
    """An old verb whose words, in their order, are today's ``flags`` of ``verb``; its own flags go before them."""

    def translate(words: list[str]) -> list[str]:
        given = [word for word in words if word.startswith("-")]
        plain = [word for word in words if not word.startswith("-")]
        _count(old, plain, " ".join(flag.upper() for flag in flags), len(flags))
        return [*verb.split(), *given, *(f"--{flag}={word}" for flag, word in zip(flags, plain, strict=True))]

    return translate


def _count(old: str, words: Sequence[str], wanted: str, number: int) -> None:
    if len(words) != number:
        raise Unusable(f"{old} takes {wanted or 'nothing'}, and here are {len(words)} words")


_OLD: Mapping[str, Callable[[list[str]], list[str]]] = {
    "list-apps": _positional("list-apps", "app list"),
    "update-app": _positional("update-app", "app update", "app-id", "label", "description"),
    "delete-app": _positional("delete-app", "app delete", "app-id"),
    "list-packages": _positional("list-packages", "package list", "app-id"),
    "new-package": _new_package,
    "update-channel": _positional("update-channel", "channel update", "app-id", "channel", "version"),
    "list-groups": _positional("list-groups", "group list", "app-id"),
    "new-group": _positional("new-group", "group create", "app-id", "channel", "group-id", "label"),
    "delete-group": _positional("delete-group", "group delete", "app-id", "group-id"),
    "pause-group": _positional("pause-group", "group pause", "app-id", "group-id"),
    "unpause-group": _positional("unpause-group", "group unpause", "app-id", "group-id"),
    "rollup-group-versions": _positional("rollup-group-versions", "group versions", "app-id", "group-id"),
    "rollup-group-events": _positional("rollup-group-events", "group events", "app-id", "group-id"),
    "fakeclients": _fake_clients,
    "watch": _watch,
}


def _renamed(words: list[str]) -> list[str]:
    """Verbs of 2014 as today's."""
    if words and words[0] in _OLD:
        return _OLD[words[0]](words[1:])
    return words
