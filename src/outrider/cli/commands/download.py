"""``outrider package download``: fetch and verify payloads and their info files into a folder."""

import base64
import contextlib
import hashlib
import sys
from pathlib import Path

import click

from outrider.cli.addressing import app_option
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table, print_error
from outrider.cli.package_info import info_name, payload_name, render_info
from outrider.cli.payload_files import measure, progress
from outrider.cli.rest_client import Json, ServiceClient
from outrider.config.sections import DownloadSettings
from outrider.core import versions
from outrider.core.errors import ConfigError, DriverError, NotFound, OutriderError
from outrider.payloads.store import PayloadStore

HEADER = ("AppID", "Version", "File", "Size")
PARTS = ".parts"
"""Folder of unfinished downloads below --dir; it is removed when it is empty."""
# Only a person waits for these downloads, and can press Ctrl-C.
_SETTINGS = DownloadSettings(deadline_s=7 * 86_400.0, max_bytes=2**53)


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the files. Default: the current folder.",
)
@app_option("Only packages of this application.", needed=False)
@click.option("--version", help="Only this version.")
@click.option("--min-version", help="Only this version and newer ones.")
@service_options
@json_option
def download(
    folder: Path,
    app_id: str | None,
    version: str | None,
    min_version: str | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Download packages: APP_VERSION_NAME and APP_VERSION_info.json of each.

    The command checks size, SHA-256 and, where known, SHA-1 before a file gets its name. Run it again to resume an
    interrupted download. It continues after a failure, and exits with 1 at the end.
    """
    if version is not None and min_version is not None:
        raise click.UsageError("--version and --min-version exclude each other: give one of them")
    chosen = _chosen(service, app_id, version, min_version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--dir {folder}: {error.strerror}") from error
    store = PayloadStore(folder / PARTS, _SETTINGS, verify=service.verify)
    done: list[Json] = []
    failures = 0
    for package in chosen:
        try:
            path = _fetch(store, folder, package)
        except OutriderError as error:
            failures += 1
            print_error(error, f"app {package['app']}")
            continue
        done.append({"app": package["app"], "version": package["version"], "file": str(path)} | _size(package))
    with contextlib.suppress(OSError):
        (folder / PARTS).rmdir()
    if as_json:
        echo_json(done)
    else:
        echo_table(HEADER, [tuple(one.values()) for one in done])
    if failures:
        sys.exit(1)


def _chosen(service: ServiceClient, app_id: str | None, version: str | None, min_version: str | None) -> list[Json]:
    least = None if min_version is None else versions.parse(min_version)
    apps = [one["id"] for one in service.get_all("apps")] if app_id is None else [app_id]
    chosen = [
        package
        for app in apps
        for package in service.get_all("apps", app, "packages")
        if (version is None or package["version"] == version)
        and (least is None or versions.parse(package["version"]) >= least)
    ]
    if not chosen:
        wanted = version or (f"{min_version} or newer" if min_version else "any version")
        raise NotFound(f"app {app_id} has no package of {wanted}" if app_id else f"no app has a package of {wanted}")
    return chosen


def _fetch(store: PayloadStore, folder: Path, package: Json) -> Path:
    path = folder / payload_name(package)
    if not path.exists() or measure(path)["sha256"] != package["sha256"]:
        shown = 0
        with progress(f"{package['app']} {package['version']}", package["size_bytes"]) as tell:

            def advance(have: int, _: int) -> None:
                nonlocal shown
                tell(have - shown)
                shown = have

            url, size_bytes, sha256 = package["download_url"], package["size_bytes"], package["sha256"]
            proved = store.fetch(package["version"], (url,), size_bytes, sha256, advance)
        if package["sha1"]:
            _check_sha1(proved, package)
        _put(proved, path)
    try:
        (folder / info_name(package)).write_text(render_info(package), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{info_name(package)}: {error.strerror}") from error
    return path


def _check_sha1(path: Path, package: Json) -> None:
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, lambda: hashlib.sha1(usedforsecurity=False)).digest()
    if found != base64.b64decode(package["sha1"]):
        path.unlink()
        raise DriverError(
            f"{package['version']}: wrong SHA-1 {found.hex()}; the file was deleted; run the command again"
        )


def _put(proved: Path, path: Path) -> None:
    try:
        proved.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _size(package: Json) -> Json:
    return {"size_bytes": package["size_bytes"]}
