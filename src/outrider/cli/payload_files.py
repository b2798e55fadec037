"""Payloads on the operator's side: is it a file or an image, how large, which digests; and a bar while it travels."""

import base64
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from outrider.cli.rest_client import CHUNK_BYTES, Json, ServiceClient
from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.core.images import parse_image
from outrider.payloads import image_tar
from outrider.payloads.archive import inspect

_ARCHIVE = (".tar", ".gz", ".tgz", ".xz", ".txz", ".bz2", ".zst", ".zip", ".img", ".raw", ".bin", ".deb", ".rpm")


def file_or_image(text: str) -> Path | str:
    """Tell what ``--file`` names: a file that exists, or an image reference with a tag or digest.

    ``/x``, ``./x``, ``../x`` and what ends like an archive are files in any case: a typo never becomes an image.

    Raises:
        ConfigError: neither; the line says what it was taken for.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"--file {text} is a folder; give a file")
    if text.startswith(("/", "./", "../", "~")) or text.endswith(_ARCHIVE):
        raise ConfigError(f"--file {text}: no such file")
    try:
        parse_image(text)
    except ConfigError:
        raise ConfigError(
            f"--file {text}: no such file, and not an image reference; an image needs a tag or a digest: NAME:TAG"
        ) from None
    return text


def check_payload(path: Path, program: str | None, *, as_is: bool) -> None:
    """Look at a payload before it is uploaded, as a sidekick will before it runs it.

    What is no archive at all is let through with a note: it may be meant for clients that aren't sidekicks.

    Args:
        program: What ``process.command`` names; it must be in the payload and executable.
        as_is: Don't look.

    Raises:
        ConfigError: no sidekick could run it, or it can't be read; the line says why.
    """
    if as_is:
        return
    try:
        if inspect(path, program=program or ""):
            return
    except Refused as problem:
        raise ConfigError(
            f"--file {problem}; no sidekick could run it (--as-is uploads it for other clients)"
        ) from problem
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}") from error
    if program is not None:
        raise ConfigError(f"--file {path} is not a tar archive, so it has no program {program!r}")
    click.echo(f"note: {path.name} is not a tar archive; the runtime 'process' can't run it", err=True)


def is_image_tar(path: Path) -> bool:
    """Tell whether a payload is a container image in a tar (`docker save`).

    Raises:
        ConfigError: it can't be read.
    """
    try:
        return image_tar.is_image_tar(path)
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}") from error


def check_image_tar(path: Path, program: str | None) -> None:
    """Look at an image in a tar before it is uploaded.

    Raises:
        ConfigError: no sidekick could run it; the line says why.
    """
    if program is not None:
        raise ConfigError(
            f"--file {path} is a container image, whose ENTRYPOINT names its program: leave --program out"
        )
    try:
        image_tar.read_image_tar(path)
    except Refused as problem:
        raise ConfigError(
            f"--file {problem}; no sidekick could run it (--as-is uploads it for other clients)"
        ) from problem


def measure(path: Path) -> Json:
    """Size and digests of a file, as the service wants them.

    Raises:
        ConfigError: it can't be read.
    """
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


def compare(path: Path, measured: Json, size: int | None, sha1: str, sha256: str | None) -> None:
    """What the operator says of a file must be true of it: it may be another file than was meant.

    Raises:
        ConfigError: it isn't; the line says what is.
    """
    if size is not None and size != measured["size_bytes"]:
        raise ConfigError(f"--file {path} has {measured['size_bytes']} bytes, but --size is {size}")
    for name, said, hexadecimal in (
        ("sha1", sha1, base64.b64decode(measured["sha1"]).hex()),
        ("sha256", sha256, measured["sha256"]),
    ):
        as_base64 = base64.b64encode(bytes.fromhex(hexadecimal)).decode("ascii")
        if said and said.strip().lower() != hexadecimal and said.strip() != as_base64:
            raise ConfigError(f"--file {path} has {name} {hexadecimal}, but --{name} is {said}")


def upload(service: ServiceClient, path: Path, measured: Json) -> str:
    """Send a file to the service; returns its SHA-256.

    Raises:
        ConfigError: it can't be read.
        DriverError: it arrived as something else.
    """
    try:
        with path.open("rb") as opened, progress(path.name, measured["size_bytes"]) as tell:
            stored = service.upload(opened, tell)
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}") from error
    if stored["sha256"] != measured["sha256"]:
        raise DriverError(
            f"--file {path} has SHA-256 {measured['sha256']}, but the service received {stored['sha256']}; try again"
        )
    return str(stored["sha256"])


@contextmanager
def progress(label: str, total_bytes: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr when that is a terminal; call what is yielded with the number of bytes of each piece."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        pass
    else:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(*columns, DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as shown:
            task = shown.add_task(label, total=total_bytes)
            yield lambda size_bytes: shown.advance(task, size_bytes)
        return
    with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
        yield bar.update
