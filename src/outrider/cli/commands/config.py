"""``outrider config``: the settings, where each came from, and the first problem in them."""

import os
from pathlib import Path

import click
import msgspec

from outrider.cli.main import F, Group
from outrider.cli.options import json_option
from outrider.cli.output import echo_json, echo_table
from outrider.config.load import Loaded, all_fields, load_settings
from outrider.config.sections import Secret, unit_of
from outrider.core.client_tokens import masked


@click.group(cls=Group)
def config() -> None:
    """The sidekick's settings."""


def files_option(command: F) -> F:
    """Add ``--config FILE``, any number of times."""
    return click.option(
        "--config",
        "files",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path),
        help="TOML file; repeatable, later files win. Default: the drop-ins in /usr/lib, /etc and /run/outrider.",
    )(command)


@config.command()
@files_option
@json_option
def show(files: tuple[Path, ...], as_json: bool) -> None:
    """Print every setting, its value and the file or variable it came from."""
    loaded = _load(files)
    rows = _rows(loaded)
    if as_json:
        echo_json({key: {"value": value, "unit": unit, "from": origin} for key, value, unit, origin in rows})
        return
    echo_table(
        ("SETTING", "VALUE", "UNIT", "FROM"), [(key, _cell(value), unit, origin) for key, value, unit, origin in rows]
    )


@config.command()
@files_option
def check(files: tuple[Path, ...]) -> None:
    """Load the settings and report the first problem in them.

    Exits 0 when they are sound and 1 when they are not.
    """
    loaded = _load(files)
    instance = loaded.settings.instance
    click.echo(f"ok: {instance.id} of {instance.app}, group {instance.group}")


def _load(files: tuple[Path, ...]) -> Loaded:
    loaded = load_settings(files, os.environ)
    for line in loaded.warnings:
        click.echo(f"Warning: {line}", err=True)
    return loaded


def _rows(loaded: Loaded) -> list[tuple[str, object, str, str]]:
    rows = []
    for section, name, _, _ in all_fields():
        key = f"{section}.{name}"
        value = _shown(getattr(loaded.settings.section(section), name))
        rows.append((key, _masked(value), unit_of(name), loaded.origin[key]))
    return rows


def _shown(value: object) -> object:
    """The value as JSON has it; a secret only says whether it is set."""
    if isinstance(value, Secret):
        return repr(value) if value else ""
    if isinstance(value, Path):
        return str(value)
    return msgspec.to_builtins(value, enc_hook=str) if isinstance(value, tuple) else value


def _masked(value: object) -> object:
    """The value without the tokens of Omaha clients, which are a part of update addresses."""
    if isinstance(value, str):
        return masked(value)
    return [_masked(one) for one in value] if isinstance(value, list | tuple) else value


def _cell(value: object) -> str:
    """The value as TOML has it; empty where nothing is set."""
    return "" if value is None or value == "" else msgspec.json.encode(value).decode()
