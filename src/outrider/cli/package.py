"""``outrider package``: versions of an application with their payloads."""

import base64
import hashlib
import re
from pathlib import Path

import click

from outrider.cli.access import service_options
from outrider.cli.client import CHUNK_BYTES, Json, ServiceClient
from outrider.cli.common import Group, echo_json, echo_table, json_option
from outrider.core.errors import ConfigError, DriverError, NotFound

HEADER = ("Version", "URL", "Size")
app_option = click.option("--app-id", required=True, help="Application that the package belongs to.")
version_option = click.option("--version", required=True, help="Version, for example 1.2.3.")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})")


@click.group(cls=Group)
def package() -> None:
    """Manage packages for an application."""


@package.command("list")
@app_option
@service_options
@json_option
def list_packages(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List all packages, newest version first."""
    show(service.get_all("apps", app_id, "packages"), as_json)


@package.command()
@app_option
@version_option
@click.option("--url", help="Address of the payload, when it is served elsewhere.")
@click.option("--file", "file", help="Payload file: uploaded; with --url only measured.")
@click.option("--size", type=int, help="Size in bytes, with --url.")
@click.option("--sha1", default="", help="SHA-1 for old Omaha clients, with --url.")
@click.option("--sha256", help="SHA-256: 64 hex digits or base64; with --file it is compared.")
@click.option("--release-notes", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Text file.")
@service_options
@json_option
def create(
    app_id: str,
    version: str,
    url: str | None,
    file: str | None,
    size: int | None,
    sha1: str,
    sha256: str | None,
    release_notes: Path | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Create a package from a file, which the service stores and serves, or from an address.

    An address needs --size and --sha256, or --file to take them from.
    """
    body: Json = {"version": version, "release_notes": _read_notes(release_notes)}
    if file is None:
        if url is None or size is None or sha256 is None:
            raise click.UsageError("give --file, or --url with --size and --sha256 (or with --file)")
        body |= {"url": url, "size_bytes": size, "sha256": sha256, "sha1": sha1}
    else:
        path = _local_file(file)
        measured = _measure(path)
        _compare(path, measured, size, sha1, sha256)
        if url is not None:
            body |= {"url": url, **measured}
        else:
            _refuse_known(service, app_id, version)
            body |= {"stored": _upload(service, path, measured), "name": path.name}
    show([service.post("apps", app_id, "packages", body=body)], as_json)


@package.command()
@app_option
@version_option
@service_options
@json_option
def delete(app_id: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """Delete a package that no channel points at."""
    show([service.delete("apps", app_id, "packages", version)], as_json)


def show(packages: list[Json], as_json: bool) -> None:
    """Print packages."""
    if as_json:
        echo_json(packages)
    else:
        echo_table(HEADER, [(one["version"], one["download_url"], one["size_bytes"]) for one in packages])


def _local_file(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        return path
    if not path.exists() and _IMAGE.fullmatch(text):
        raise ConfigError(
            f"--file {text}: no such file, and image references can't be packages yet; "
            "save the image to a file, or give --url"
        )
    raise ConfigError(f"--file {text}: no such file")


def _measure(path: Path) -> Json:
    sha1, sha256, size_bytes = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with path.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                sha1.update(chunk)
                sha256.update(chunk)
                size_bytes += len(chunk)
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}") from error
    return {
        "size_bytes": size_bytes,
        "sha1": base64.b64encode(sha1.digest()).decode("ascii"),
        "sha256": sha256.hexdigest(),
    }


def _compare(path: Path, measured: Json, size: int | None, sha1: str, sha256: str | None) -> None:
    """What the operator says of a file must be true of it: it may be another file than was meant."""
    if size is not None and size != measured["size_bytes"]:
        raise ConfigError(f"--file {path}: {measured['size_bytes']} bytes, and --size says {size}")
    for name, said, hexadecimal in (
        ("sha1", sha1, base64.b64decode(measured["sha1"]).hex()),
        ("sha256", sha256, measured["sha256"]),
    ):
        as_base64 = base64.b64encode(bytes.fromhex(hexadecimal)).decode("ascii")
        if said and said.strip().lower() != hexadecimal and said.strip() != as_base64:
            raise ConfigError(f"--file {path}: its {name} is {hexadecimal}, and --{name} says {said}")


def _refuse_known(service: ServiceClient, app_id: str, version: str) -> None:
    """Ask before a long upload for what would be refused after it."""
    service.get("apps", app_id)
    try:
        service.get("apps", app_id, "packages", version)
    except NotFound:
        return
    raise ConfigError(f"version {version} has a package already; a package never changes: use a new version")


def _upload(service: ServiceClient, path: Path, measured: Json) -> str:
    with path.open("rb") as opened:
        stored = service.upload(opened)
    if stored["sha256"] != measured["sha256"]:
        raise DriverError(f"--file {path}: arrived as {stored['sha256']}, read as {measured['sha256']}; try again")
    return str(stored["sha256"])


def _read_notes(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--release-notes {path}: not a readable UTF-8 text") from error
