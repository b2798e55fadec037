"""``outrider package create bulk``: packages from the files that ``package download`` writes."""

import sys
from pathlib import Path

import click

from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table, print_error
from outrider.cli.package_info import SUFFIX, payload_name, read_info
from outrider.cli.payload_files import check_payload, compare, measure, upload
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, OutriderError

HEADER = ("AppID", "Version", "URL", "Size")


@click.command("bulk")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder with *info.json files. Default: the current folder.",
)
@click.option(
    "--base-url", help="Address below which the payload files will be served, instead of the address in each file."
)
@click.option("--upload", "uploads", is_flag=True, help="Upload the payload file beside each info file.")
@service_options
@json_option
def create_bulk(folder: Path, base_url: str | None, uploads: bool, service: ServiceClient, as_json: bool) -> None:
    """Create a package of every *info.json in a folder, as `package download` writes them.

    The command continues after a failure, and exits with 1 at the end.
    """
    if not folder.is_dir():
        raise ConfigError(f"--dir {folder}: no such folder")
    if base_url is not None and uploads:
        raise click.UsageError("--base-url and --upload exclude each other: give one of them")
    made: list[Json] = []
    failures = 0
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            made.append(_create(service, path, base_url, uploads))
        except OutriderError as error:
            failures += 1
            print_error(error, path.name)
    if as_json:
        echo_json(made)
    else:
        echo_table(HEADER, [(one["app"], one["version"], one["download_url"], one["size_bytes"]) for one in made])
    if base_url is not None and made:
        click.echo(f"note: put the payload files below {base_url}", err=True)
    if failures:
        sys.exit(1)


def _create(service: ServiceClient, path: Path, base_url: str | None, uploads: bool) -> Json:
    facts = read_info(path)
    body: Json = {"version": facts["version"], "release_notes": facts["release_notes"]}
    if uploads:
        payload = path.parent / payload_name(facts)
        check_payload(payload, None, as_is=False)
        measured = measure(payload)
        compare(payload, measured, facts["size_bytes"], facts["sha1"], facts["sha256"])
        body |= {"stored": upload(service, payload, measured), "name": facts["name"]}
    else:
        url = facts["url"] if base_url is None else f"{base_url.rstrip('/')}/{payload_name(facts)}"
        body |= {"url": url, "size_bytes": facts["size_bytes"], "sha1": facts["sha1"], "sha256": facts["sha256"]}
    return service.post("apps", facts["app"], "packages", body=body)
