"""``outrider env``: what the app of a group is started with."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, operator, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient, ours_only
from outrider.core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
HEADER = ("Name", "Kind", "Value")
HISTORY_HEADER = ("Environment", "When", "By", "Variables", "Why")
DIFF_HEADER = ("Name", "Before", "After")
_TABLES = ("variables", "secrets", "references")

app_option = addressing.app_option("App that the group belongs to.")
group_option = addressing.group_option("ID of the group.")
why_option = click.option("--why", default="", help="Reason. Shown by `env history`.")


def _words(command: F) -> F:
    """Add ``[APP/GROUP] WORD...``: a first word with a slash, and without an equals sign before it, is the address."""

    def keep(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and "/" in words[0].partition("=")[0]:
            ctx.meta[addressing.PLACE] = dict(zip(("app", "group"), addressing.split(words[0], 2), strict=False))
            return words[1:]
        return words

    argument = click.argument("words", metavar="[APP/GROUP] NAME...", nargs=-1, is_eager=True, callback=keep)
    app = click.option(
        "--app-id", cls=addressing.AddressOption, part="app", needed=True, help="App of the group.  [required]"
    )
    group = click.option(
        "--group-id", cls=addressing.AddressOption, part="group", needed=True, help="ID of the group.  [required]"
    )
    return argument(app(group(command)))


@click.group(cls=Group)
def env() -> None:
    """The environment of a group: variables, arguments and references to files.

    A change is rolled out like a release: same version, new environment.
    """


@env.command("list")
@app_option
@group_option
@click.option("--number", type=click.IntRange(min=1), help="An earlier environment. Default: the present one.")
@service_options
@json_option
def list_(app_id: str, group_id: str, number: int | None, service: ServiceClient, as_json: bool) -> None:
    """List the variables of a group's environment; secrets are masked."""
    path = ("environment",) if number is None else ("environments", str(number))
    with ours_only("an environment"):
        found = service.get("apps", app_id, "groups", group_id, *path)
    if as_json:
        echo_json(found)
        return
    echo_table(HEADER, [(one["name"], one["kind"], one["value"]) for one in found["variables"]])
    if found["arguments"]:
        click.echo(f"arguments: {' '.join(found['arguments'])}")
    said = f"environment {found['number']}" if found["number"] else "no environment yet; `env set` makes one"
    click.echo(f"group {group_id}: {said}", err=True)


@env.command("set")
@_words
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A value that nobody is shown; without VALUE it is asked for.",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="NAME=WHERE",
    help="Where each machine reads the value before a start: file:/PATH, credential:NAME, docker-secret:NAME.",
)
@click.option("--arg", "arguments", multiple=True, help="Argument of the app's command; replaces those so far.")
@click.option("--no-args", is_flag=True, help="No arguments from now on.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with [variables], [secrets], [references] and arguments; it replaces the whole environment.",
)
@why_option
@service_options
@json_option
def set_(
    app_id: str,
    group_id: str,
    words: tuple[str, ...],
    secrets: tuple[str, ...],
    references: tuple[str, ...],
    arguments: tuple[str, ...],
    no_args: bool,
    file: Path | None,
    why: str,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Set variables: NAME=VALUE. The group rolls the new environment out at once, as its policy allows."""
    body: Json = read_file(file) if file is not None else {"variables": {}, "secrets": {}, "references": {}}
    _check_twice((*words, *secrets, *references))
    body["variables"] |= dict(_pair(word) for word in words)
    body["secrets"] |= dict(_pair(word) if "=" in word else (word, _asked(word)) for word in secrets)
    body["references"] |= dict(_pair(word) for word in references)
    if arguments or no_args:
        if arguments and no_args:
            raise click.UsageError("--arg and --no-args: give one of them")
        body["arguments"] = list(arguments)
    if not any(body.values()) and not no_args:
        raise click.UsageError("nothing to set: give NAME=VALUE, --secret, --reference, --arg or --file")
    _change(service, app_id, group_id, body | {"why": why, "by": operator()}, as_json)


@env.command()
@_words
@why_option
@service_options
@json_option
def unset(app_id: str, group_id: str, words: tuple[str, ...], why: str, service: ServiceClient, as_json: bool) -> None:
    """Remove variables by their names."""
    if not words:
        raise click.UsageError("which variables? Give their names")
    _change(service, app_id, group_id, {"unset": list(words), "why": why, "by": operator()}, as_json)


@env.command()
@app_option
@group_option
@service_options
@json_option
def history(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the environments of a group that are kept, newest first."""
    with ours_only("an environment"):
        found = service.get_all("apps", app_id, "groups", group_id, "environments")
    if as_json:
        echo_json(found)
    else:
        rows = [(one["number"], one["at"], one["by"], len(one["variables"]), one["why"]) for one in found]
        echo_table(HISTORY_HEADER, rows)


@env.command()
@app_option
@group_option
@click.option("--from", "before", type=click.IntRange(min=0), help="Number; 0: the empty one. Default: the one before.")
@click.option("--to", "after", type=click.IntRange(min=0), help="Number. Default: the present one.")
@service_options
@json_option
def diff(
    app_id: str, group_id: str, before: int | None, after: int | None, service: ServiceClient, as_json: bool
) -> None:
    """Compare two environments of a group; secrets are masked."""
    with ours_only("an environment"):
        present = service.get("apps", app_id, "groups", group_id, "environment")["number"] if after is None else after
        if before is None:
            kept = [one["number"] for one in service.get_all("apps", app_id, "groups", group_id, "environments")]
            before = max((number for number in kept if number < present), default=0)
        found = service.get_all(
            "apps", app_id, "groups", group_id, "environments", str(before), "diff", to=str(present)
        )
    if as_json:
        echo_json(found)
    else:
        echo_table(DIFF_HEADER, [(one["name"], _shown(one["before"]), _shown(one["after"])) for one in found])


def read_file(path: Path) -> Json:
    """The whole environment in a TOML file.

    Raises:
        ConfigError: it can't be read, or says something else; the line names the file and the key.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in found:
        if name not in (*_TABLES, "arguments"):
            raise ConfigError(f"{path}: {name}: unknown; known: {', '.join(_TABLES)}, arguments")
    body: Json = {"replace": True, "arguments": found.get("arguments", [])}
    for table in _TABLES:
        values = found.get(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {table}: write a table, [{table}]")
        for name, value in values.items():
            if not isinstance(value, str):
                raise ConfigError(f"{path}: {table}.{name}: write a text in quotes")
        body[table] = dict(values)
    if not isinstance(body["arguments"], list) or not all(isinstance(one, str) for one in body["arguments"]):
        raise ConfigError(f'{path}: arguments: write a list of texts, ["--workers", "4"]')
    return body


def _change(service: ServiceClient, app_id: str, group_id: str, body: Json, as_json: bool) -> None:
    with ours_only("an environment"):
        after = service.patch("apps", app_id, "groups", group_id, "environment", body=body)
    for note in after.get("notes", ()):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(after)
    else:
        click.echo(f"group {group_id} runs with environment {after['number']} from now on")


def _check_twice(words: tuple[str, ...]) -> None:
    """The last of two values would count, and nobody would see that the first doesn't."""
    names = [word.partition("=")[0] for word in words]
    again = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if again is not None:
        raise click.UsageError(f"{again} is given twice; which value shall count?")


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{word!r}: write NAME=VALUE")
    return name, value


def _asked(name: str) -> str:
    answer: str = click.prompt(name, hide_input=True, err=True)
    return answer


def _shown(text: str | None) -> str:
    return "" if text is None else text
