"""``outrider package upload``: payload files for packages that are created later."""

import sys
from pathlib import Path

import click

from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table, print_error
from outrider.cli.payload_files import measure, upload
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, OutriderError

HEADER = ("File", "Size", "SHA256")


class _FileOrBulk(Group):
    """``upload FILE`` and ``upload bulk``: a word that is no command is a file."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            return "file", _upload_file, args
        return super().resolve_command(ctx, args)


@click.group("upload", cls=_FileOrBulk, invoke_without_command=True)
@click.option("--file", "file", type=click.Path(path_type=Path), help="Payload file; the word --file may be omitted.")
@service_options
@json_option
@click.pass_context
def upload_group(context: click.Context, file: Path | None, service: ServiceClient, as_json: bool) -> None:
    """Upload a payload file: `package upload FILE`, or a folder of them: `package upload bulk`.

    The service stores it under its SHA-256. `package create --stored=SHA256 --name=FILE` makes a package of it.
    """
    if context.invoked_subcommand is not None:
        return
    if file is None:
        raise click.UsageError("give a FILE")
    _show([_send(service, file)], as_json)


@click.command("file")
@click.argument("file", type=click.Path(path_type=Path))
@service_options
@json_option
@click.pass_context
def _upload_file(context: click.Context, file: Path, service: ServiceClient, as_json: bool) -> None:
    """Upload one file."""
    assert context.parent is not None
    _show([_send(service, file)], as_json or bool(context.parent.params.get("as_json")))


@upload_group.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), required=True, help="Folder with payload files.")
@service_options
@json_option
def bulk(folder: Path, service: ServiceClient, as_json: bool) -> None:
    """Upload every file of a folder, without subfolders.

    The command continues after a failure, and exits with 1 at the end.
    """
    if not folder.is_dir():
        raise ConfigError(f"--dir {folder}: no such folder")
    sent: list[Json] = []
    failures = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            sent.append(_send(service, path))
        except OutriderError as error:
            failures += 1
            print_error(error, path.name)
    _show(sent, as_json)
    if failures:
        sys.exit(1)


def _send(service: ServiceClient, path: Path) -> Json:
    if not path.is_file():
        raise ConfigError(f"--file {path}: no such file")
    measured = measure(path)
    upload(service, path, measured)
    return {"file": path.name, **measured}


def _show(sent: list[Json], as_json: bool) -> None:
    if as_json:
        echo_json(sent)
    else:
        echo_table(HEADER, [(one["file"], one["size_bytes"], one["sha256"]) for one in sent])
