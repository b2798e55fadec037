"""``outrider database``: all data of the update service in etcd."""

import os
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outrider.cli.commands.database_roles import roles
from outrider.cli.commands.lock import operator
from outrider.cli.main import Group
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import confirm, echo_json
from outrider.core.errors import ConfigError, OutriderError
from outrider.etcd.seam import EtcdAddress

if TYPE_CHECKING:
    from outrider.service.operations.backups import StoredPayload
    from outrider.service.store.request import RequestContext

payload_option = click.option(
    "--payload-dir",
    envvar="OUTRIDER_SERVE_PAYLOAD_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/outrider/payloads"),
    show_default=True,
    help="Where the service's payloads are.",
)


@click.group(cls=Group)
def database() -> None:
    """Set up, back up and restore the data of the update service in etcd."""


database.add_command(roles)


@database.command()
@click.option("--name", default="admin", show_default=True, help="The first admin's name.")
@click.option("--again", is_flag=True, help="Users exist, but all admin tokens are lost: give NAME a new token.")
@click.option(
    "--forget-users", is_flag=True, help="There were users and none is left: make none; the Unix socket opens again."
)
@etcd_options
@json_option
def init(name: str, again: bool, forget_users: bool, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Make the first user, an admin, and print the token this once.

    Works on etcd itself: whoever may write there may do everything. From then on the service asks everybody for a
    token. With --forget-users nobody is asked at the Unix socket, as before the first user, once the service is
    started again.
    """
    from outrider.service.store.store import open_stores

    cluster = open_cluster(etcd)
    try:
        users = open_stores(cluster, prefix.rstrip("/")).on_behalf_of(_operators_request()).users
        if forget_users:
            users.forget_that_they_existed()
            click.echo("no users; restart the services: then their Unix sockets need no token", err=True)
            return
        made = users.create(name, "admin") if again else users.begin(name)
    finally:
        cluster.close()
    if as_json:
        echo_json({"name": made.user.name, "role": made.user.role, "token": made.token})
        return
    click.echo(f"{made.user.name} is {made.user.role}; keep the token, it is not shown again:", err=True)
    click.echo(made.token)


passphrase_option = click.option(
    "--passphrase-file",
    envvar="OUTRIDER_BACKUP_PASSPHRASE_FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with a passphrase: what holds secrets is encrypted with it.",
)


@database.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--without-secrets", is_flag=True, help="Leave out users and webhooks, and the values of environments' secrets."
)
@passphrase_option
@payload_option
@etcd_options
def backup(
    file: Path,
    without_secrets: bool,
    passphrase_file: Path | None,
    payload_dir: Path,
    etcd: EtcdAddress,
    prefix: str,
) -> None:
    """Write everything that the service keeps in etcd, at one revision, to FILE; - is stdout.

    Payload files aren't in it: they are named, and it is checked that they are in --payload-dir. Secrets of
    environments, keys of webhooks and digests of tokens are: FILE is for its owner alone. --passphrase-file encrypts
    them, --without-secrets leaves them out.
    """
    from outrider.service.operations.backup_secrets import Cipher
    from outrider.service.operations.backups import backup_lines, read_backup
    from outrider.service.store.store import open_stores

    passphrase = _passphrase(passphrase_file)
    cipher = Cipher.new(passphrase) if passphrase is not None else None
    cluster = open_cluster(etcd)
    try:
        context = open_stores(cluster, prefix.rstrip("/")).context
        lines = list(backup_lines(context, with_secrets=not without_secrets, cipher=cipher))
    finally:
        cluster.close()
    taken = read_backup(lines, passphrase)
    _write_file(file, lines)
    click.echo(f"{len(taken.values)} keys at revision {taken.revision}", err=True)
    for line in _lacking(taken.payloads, payload_dir):
        click.echo(f"warning: {line}", err=True)


@database.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--replace", is_flag=True, help="Remove the existing data first. Use it also to repeat an interrupted restore."
)
@click.option("--without-payloads", is_flag=True, help="Restore even if payload files of packages are missing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@passphrase_option
@payload_option
@etcd_options
def restore_command(
    file: Path,
    replace: bool,
    without_payloads: bool,
    yes: bool,
    passphrase_file: Path | None,
    payload_dir: Path,
    etcd: EtcdAddress,
    prefix: str,
) -> None:
    """Write a backup from FILE into etcd; - is stdin.

    The prefix must be empty, but for what living sidekicks write. Stop the service before, or operators at least: what
    somebody writes meanwhile breaks the restore off.
    """
    from outrider.service.operations.backups import read_backup, restore
    from outrider.service.store.store import open_stores

    backup = read_backup(_read_file(file), _passphrase(passphrase_file))
    click.echo(f"{len(backup.values)} keys, taken at {backup.at[:19]}, revision {backup.revision}", err=True)
    if not backup.has_secrets:
        click.echo("warning: it is without users, webhooks and the values of environments' secrets", err=True)
    lacking = _lacking(backup.payloads, payload_dir)
    for line in lacking:
        click.echo(f"warning: {line}", err=True)
    if lacking and not without_payloads:
        raise ConfigError(
            f"{len(lacking)} payloads are missing in {payload_dir}: copy them there, or add --without-payloads"
        )
    what = "Replace the existing data" if replace else "Restore"
    confirm(f"{what} below {prefix}?", yes=yes)
    cluster = open_cluster(etcd)
    try:
        stores = open_stores(cluster, prefix.rstrip("/"))
        replaced = restore(stores.context, backup, stores.audited(_operators_request()), replace=replace)
    finally:
        cluster.close()
    click.echo(f"{len(backup.values)} keys restored, {replaced} replaced")


def _lacking(stored: "Iterable[StoredPayload]", folder: Path) -> list[str]:
    """One line for each payload that isn't in ``folder`` as it should be."""
    from outrider.service.payloads.folder import PayloadFolder

    payloads, lines = PayloadFolder(folder=folder), []
    for one in stored:
        try:
            payloads.describe(one.sha256, one.version)
        except (OutriderError, OSError) as error:
            lines.append(f"{one.app} {one.version}: {getattr(error, 'strerror', None) or error}")
    return lines


def _write_file(file: Path, lines: list[bytes]) -> None:
    """Whole or not at all, for its owner's eyes alone."""
    if str(file) == "-":
        sys.stdout.buffer.writelines(lines)
        return
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.writelines(lines)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _passphrase(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"--passphrase-file {file}: {error.strerror}") from error


def _read_file(file: Path) -> list[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer.readlines()
    try:
        return file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _operators_request() -> "RequestContext":
    """For the audit log: the person at this terminal, who works on etcd itself."""
    from outrider.service.store.request import Principal, RequestContext

    principal = Principal(name=f"({operator()})", role="admin")
    did = click.get_current_context().command_path
    return RequestContext(principal=principal, did=did, request_id=uuid.uuid4().hex)
