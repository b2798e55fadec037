"""``outrider package``: versions of an application with their payloads."""

from pathlib import Path

import click

from outrider.cli import addressing
from outrider.cli.commands.download import download
from outrider.cli.commands.package_bulk import create_bulk
from outrider.cli.commands.package_sign import sign_package, signatures
from outrider.cli.commands.upload import upload_group
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.payload_files import (
    check_image_tar,
    check_payload,
    compare,
    file_or_image,
    is_image_tar,
    measure,
    upload,
)
from outrider.cli.rest_client import Json, ServiceClient
from outrider.cli.task_options import given_tasks
from outrider.core.errors import ConfigError, NotFound, OutriderError, Refused
from outrider.core.images import TAR_NAME

HEADER = ("Version", "URL", "Size")
app_option = addressing.app_option("Application that the package belongs to.")
version_option = click.option("--version", required=True, help="Version, for example 1.2.3.")


@click.group(cls=Group)
def package() -> None:
    """Manage packages for an application."""


package.add_command(download)
package.add_command(upload_group)
package.add_command(sign_package)
package.add_command(signatures)


@package.command("list")
@app_option
@service_options
@json_option
def list_packages(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List all packages, newest version first."""
    show(service.get_all("apps", app_id, "packages"), as_json)


@package.group(cls=Group, invoke_without_command=True)
@click.option("--app-id", help="Application that the package belongs to.  [required]")
@click.option("--version", help="Version, for example 1.2.3.  [required]")
@click.option("--url", help="Address of the payload on another server.")
@click.option("--file", "file", help="Payload file to upload (with --url it is only measured), or an image NAME:TAG.")
@click.option("--stored", help="SHA-256 of a payload that was uploaded before; needs --name.")
@click.option("--name", help="File name of a --stored payload.")
@click.option("--size", type=int, help="Size in bytes, with --url.")
@click.option("--sha1", default="", help="SHA-1 for old Omaha clients, with --url.")
@click.option("--sha256", help="SHA-256 as 64 hex digits or base64; with --file it is compared.")
@click.option("--digest", help="Which image --file names: sha256:DIGEST. Default: what its registry says.")
@click.option("--arch", help="Architecture, such as amd64 or aarch64. Default: all.")
@click.option("--program", help="Program of process.command: with --file, it must be in the payload and executable.")
@click.option(
    "--as-is", is_flag=True, help="Don't look into the payload: it is meant for clients other than sidekicks."
)
@click.option(
    "--extra-file",
    "extra_files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file beside the payload, for Omaha clients that take several; with --url it is only measured.",
)
@click.option("--optional", is_flag=True, help="Clients may skip it.")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="KIND[:NAME]=COMMAND",
    help="Runs once: pre (before any swap), post, contract (when all have the release), on-failure. May be repeated.",
)
@click.option("--task-limit", "limits", multiple=True, metavar="NAME=TIME", help="Longest time of a task, not 10min.")
@click.option("--task-repeatable", "repeatable", multiple=True, metavar="NAME", help="Running it twice is harmless.")
@click.option("--task-per-release", "per_release", multiple=True, metavar="NAME", help="Also for each environment.")
@click.option("--task-per-app", "per_app", multiple=True, metavar="NAME", help="Once for all groups of the app.")
@click.option("--meta", hidden=True, help="updatectl's file with a metadata signature.")
@click.option("--release-notes", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Text file.")
@service_options
@json_option
@click.pass_context
def create(
    context: click.Context,
    app_id: str | None,
    version: str | None,
    url: str | None,
    file: str | None,
    stored: str | None,
    name: str | None,
    size: int | None,
    sha1: str,
    sha256: str | None,
    digest: str | None,
    arch: str | None,
    program: str | None,
    as_is: bool,
    extra_files: tuple[Path, ...],
    optional: bool,
    tasks: tuple[str, ...],
    limits: tuple[str, ...],
    repeatable: tuple[str, ...],
    per_release: tuple[str, ...],
    per_app: tuple[str, ...],
    meta: str | None,
    release_notes: Path | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Create a package from a file, which the service stores and serves, from an image, or from an address.

    A payload that sidekicks can't run is refused, with the reason; docs/use/payloads.md says what they take.
    An address needs --size and --sha256, or --file to take them from. `package create bulk` takes a whole folder.
    """
    if context.invoked_subcommand is not None:
        return
    if app_id is None or version is None:
        raise click.UsageError(f"Missing option '--{'app-id' if app_id is None else 'version'}'.")
    if meta is not None:
        raise ConfigError("--meta is not supported: outrider doesn't store metadata signatures; leave it out")
    given = given_tasks(tasks, limits, repeatable, per_release, per_app)
    if stored is not None:
        payload = _stored(stored, name, (url, file, size, sha256))
    elif file is not None:
        payload = _from_file(service, app_id, version, file, url, size, sha1, sha256, program, as_is=as_is)
    elif url is None or size is None or sha256 is None:
        raise click.UsageError("give --file, or --url with --size and --sha256 (or with --file)")
    else:
        payload = {"url": url, "size_bytes": size, "sha256": sha256, "sha1": sha1}
    if digest is not None:
        if "image" not in payload:
            raise ConfigError("--digest is for an image; leave it out, or write --file=NAME:TAG")
        payload = {**payload, "digest": digest}
    body: Json = {"version": version, "release_notes": _read_notes(release_notes), **payload}
    body |= ({"arch": arch} if arch is not None else {}) | ({"required": False} if optional else {})
    body |= {"tasks": given} if given else {}
    body |= {"files": _extra_files(service, extra_files, payload)} if extra_files else {}
    try:
        made = service.post("apps", app_id, "packages", body=body)
    except OutriderError as error:
        if "image" not in payload:
            raise
        raise type(error)(f"--file {file} is read as an image reference: {error}") from error
    if "image" in payload:
        click.echo(f"note: --file {file}: no such file; read as an image reference", err=True)
    show([made], as_json)


create.add_command(create_bulk)


@package.command()
@app_option
@version_option
@click.option("--digest", help="Which image it is: sha256:DIGEST. Default: what its registry says now.")
@service_options
@json_option
def resolve(app_id: str, version: str, digest: str | None, service: ServiceClient, as_json: bool) -> None:
    """Find out which image a package's tag names; sidekicks are offered it from then on.

    Exits 1 while it isn't known. The service tries it by itself, too.
    """
    body: Json = {} if digest is None else {"digest": digest}
    resolved = service.post("apps", app_id, "packages", version, "resolve", body=body)
    show([resolved], as_json)
    if not resolved["digest"]:
        raise Refused(f"{resolved['image']} has no digest yet; the note above says why")


@package.command()
@app_option
@version_option
@service_options
@json_option
def delete(app_id: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """Delete a package that no channel, target, floor or instance needs."""
    show([service.delete("apps", app_id, "packages", version)], as_json)


def show(packages: list[Json], as_json: bool) -> None:
    """Print packages, and their notes on stderr."""
    for one in packages:
        for note in one.get("notes", ()):
            click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(packages)
    else:
        rows = [(one["version"], one.get("image") or one["download_url"], one["size_bytes"]) for one in packages]
        echo_table(HEADER, rows)


def _stored(stored: str, name: str | None, others: tuple[object, ...]) -> Json:
    if any(other is not None for other in others):
        raise click.UsageError("--stored can't be combined with --url, --file, --size or --sha256")
    if name is None:
        raise click.UsageError("--stored needs --name, the payload's file name")
    return {"stored": stored, "name": name}


def _from_file(
    service: ServiceClient,
    app_id: str,
    version: str,
    file: str,
    url: str | None,
    size: int | None,
    sha1: str,
    sha256: str | None,
    program: str | None,
    *,
    as_is: bool,
) -> Json:
    found = file_or_image(file)
    if isinstance(found, str):
        if url is not None or size is not None or sha1 or sha256 is not None:
            raise ConfigError(
                f"--file {file}: read as an image reference; leave out --url, --size, --sha1 and --sha256"
            )
        return {"image": found}
    is_image = not as_is and is_image_tar(found)
    if is_image:
        check_image_tar(found, program)
    else:
        check_payload(found, program, as_is=as_is)
    measured = measure(found)
    compare(found, measured, size, sha1, sha256)
    if url is not None:
        return {"url": url, **measured}
    _refuse_known(service, app_id, version)
    # by that name sidekicks know what it is before they fetch it
    return {"stored": upload(service, found, measured), "name": TAR_NAME if is_image else found.name}


def _extra_files(service: ServiceClient, paths: tuple[Path, ...], payload: Json) -> list[Json]:
    """What lies beside the payload: uploaded with it, or only measured when the payload has an address."""
    if "image" in payload:
        raise ConfigError("--extra-file: an image has no files beside it; leave it out")
    if "url" in payload:
        return [{"name": path.name, **measure(path)} for path in paths]
    return [{"name": path.name, "stored": upload(service, path, measure(path))} for path in paths]


def _refuse_known(service: ServiceClient, app_id: str, version: str) -> None:
    """Ask before a long upload, because the service would refuse the package after it."""
    service.get("apps", app_id)
    try:
        service.get("apps", app_id, "packages", version)
    except NotFound:
        return
    raise ConfigError(f"version {version} already has a package, and a package never changes; use a new version")


def _read_notes(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--release-notes {path}: can't be read as UTF-8 text") from error
