"""``outrider units`` and ``outrider install-units``: the unit files that come along."""

import os
import sys
from pathlib import Path

import click

from outrider.cli import unit_files
from outrider.cli.main import Group
from outrider.core.errors import ConfigError


def _program(named: str | None) -> str:
    """The program that units start: what was named, else the one that runs now.

    Raises:
        ConfigError: systemd could not start it.
    """
    beside = Path(sys.executable).with_name("outrider")
    program = named or str(beside if beside.is_file() else unit_files.PROGRAM)
    if not os.path.isabs(program) or any(character.isspace() for character in program):
        raise ConfigError(f"--program {program!r}: write an absolute path without blanks")
    return program


program_option = click.option(
    "--program", help="Path of outrider in the units. Default: the one that runs this command."
)


@click.group(cls=Group)
def units() -> None:
    """Show unit files for systemd and fleet, or fill one in for an instance."""


@units.command(name="list")
def list_units() -> None:
    """List the units that come along with outrider."""
    for name in unit_files.unit_names():
        click.echo(name)


@units.command()
@click.argument("name")
@program_option
def show(name: str, program: str | None) -> None:
    """Print the unit NAME, such as outrider-serve.service."""
    click.echo(unit_files.unit_text(name, _program(program)), nl=False)


@units.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File of the instance, as for `outrider sidekick run`.",
)
@click.option("--machine-of", default="", help="For fleet: unit of the app whose machine the sidekick follows.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Write the units to this folder. Default: print them.",
)
@program_option
def render(config: Path, machine_of: str, folder: Path | None, program: str | None) -> None:
    """Fill in the units of one instance with what its configuration says.

    The sidekick's unit is confined as its runtime allows, and writes where instance.state_dir is. With
    instance.drain_at_shutdown there is a second one, with the time that draining may take. An instance without
    instance.id is called like its file.
    """
    from outrider.config.load import load_settings

    config = config.absolute()
    loaded = load_settings((config,), os.environ, {"instance.id": None})
    if loaded.origin["instance.id"] == "default":  # it is called like its file, as with --config-dir
        loaded = load_settings((config,), os.environ, {"instance.id": config.stem})
    settings = loaded.settings
    made = unit_files.instance_units(settings, config, program=_program(program), machine_of=machine_of)
    for name, text in made.items():
        if folder is None:
            click.echo(f"# {name}\n{text}", nl=False)
        else:
            _write(folder / name, text)
            click.echo(f"{folder / name} written")


@click.command(name="install-units")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Root folder of the machine, such as a mounted image.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the units, and for them alone. Default: /etc/systemd/system below --root, with the users besides.",
)
@click.option(
    "--app-elsewhere",
    is_flag=True,
    help="Confine sidekicks more: for the runtimes systemd, docker and fleet.",
)
@click.option("--polkit", is_flag=True, help="Also let sidekicks start units: for the runtime systemd.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@click.option("--force", is_flag=True, help="Also replace files that somebody has changed.")
@program_option
def install_units(
    root: Path,
    folder: Path | None,
    app_elsewhere: bool,
    polkit: bool,
    dry_run: bool,
    force: bool,
    program: str | None,
) -> None:
    """Write the units of systemd, their drop-ins and the system users of this machine.

    Packages bring them along; this is for an outrider that pip has installed. Nothing is started. A file that somebody
    has changed stays as it is unless --force is given, and then nothing is written at all.
    """
    files = unit_files.machine_files(program=_program(program), app_elsewhere=app_elsewhere, polkit=polkit)
    if folder is not None:
        if polkit:
            raise click.UsageError("--polkit needs the root of a machine, not --dir: leave one of them out")
        prefix = f"{unit_files.UNITS}/"
        places = {folder / one.path.removeprefix(prefix): one for one in files if one.path.startswith(prefix)}
    else:
        places = {root / one.path: one for one in files}
    found = {path: _read(path) for path in places}
    edited = [
        path
        for path, text in found.items()
        if text is not None and not unit_files.is_ours(text) and text != places[path].text
    ]
    if edited and not force:
        raise ConfigError(
            f"{', '.join(map(str, edited))}: changed by somebody, so nothing was written; put your changes into a"
            " drop-in (systemctl edit) and repeat with --force"
        )
    for path, one in places.items():
        if found[path] in (one.marked, one.text):
            click.echo(f"{path} unchanged")
            continue
        did = "written" if found[path] is None else "replaced"
        if not dry_run:
            _write(path, one.marked)
        click.echo(f"{path} {'would be ' if dry_run else ''}{did}")
    if not dry_run:
        then = "systemd-sysusers && systemctl daemon-reload" if folder is None else "systemctl daemon-reload"
        click.echo(f"Next: {then}", err=True)


def _read(path: Path) -> str | None:
    """None: there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror}") from error
