"""What all commands share: one group class that turns errors into one line, and the options that name the servers."""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar, cast

import click

from outrider import __version__
from outrider.cli.access import top_options
from outrider.cluster.seam import Cluster, Endpoint, EtcdAddress
from outrider.core.errors import ConfigError, OutriderError

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS: Mapping[str, str] = {
    "activity": "outrider.cli.activity:activity",
    "admin-user": "outrider.cli.admin_user:admin_user",
    "app": "outrider.cli.app:app",
    "channel": "outrider.cli.channel:channel",
    "config": "outrider.cli.config:config",
    "database": "outrider.cli.database:database",
    "demo": "outrider.cli.demo:demo",
    "group": "outrider.cli.group:group",
    "help": "outrider.cli.help:help_command",
    "instance": "outrider.cli.instance:instance",
    "lock": "outrider.cli.lock:lock",
    "package": "outrider.cli.package:package",
    "release": "outrider.cli.release:release",
    "rollout": "outrider.cli.rollout:rollout",
    "serve": "outrider.cli.serve:serve",
    "sidekick": "outrider.cli.sidekick:sidekick",
    "statechart": "outrider.cli.statechart:statechart",
    "status": "outrider.cli.status:status",
    "story": "outrider.cli.story:story",
    "upstream": "outrider.cli.upstream:upstream",
    "watch": "outrider.cli.watch:watch",
    "webhook": "outrider.cli.webhook:webhook",
    "why": "outrider.cli.status:why",
}
"""Command -> where it lives; imported only when used, so that ``outrider --help`` stays quick."""


class Group(click.Group):
    """Prints an ``OutriderError`` as one line and leaves with 1; any other exception is a bug with its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OutriderError as error:
            click.echo(f"Error: {error.kind}: {error}", err=True)
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, but an unknown command leaves with 3 and lists the known ones."""
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            self.refuse(ctx, name)
        return super().resolve_command(ctx, args)

    def refuse(self, ctx: click.Context, name: str) -> NoReturn:
        """Leave with 3: there is no such command."""
        known = ", ".join(self.list_commands(ctx))
        click.echo(f"Error: usage: no command {name!r} in '{ctx.command_path}'; known: {known}", err=True)
        ctx.exit(3)


class LazyGroup(Group):
    """The top group: imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OUTRIDER"},
)
@click.version_option(__version__)
@top_options
def main(**_: object) -> None:
    """Zero-downtime rolling updates for services on a fleet of machines, without Kubernetes."""
    from outrider.config import LogSettings
    from outrider.log import setup_logging

    # a command's answer is its log; services and sidekicks set up their own
    setup_logging(LogSettings(level="error", format="text"), sys.stderr)


def etcd_options(command: F, *, default: str = "127.0.0.1:2379") -> F:
    """Add ``--prefix`` and the options that say where etcd is: the command gets them as ``prefix`` and ``etcd``.

    ``etcd`` is an ``EtcdAddress``; None when nobody names one and ``default`` is empty. The variables are those that
    set ``[etcd]`` of a sidekick.
    """

    @functools.wraps(command)
    def with_address(
        *arguments: Any,
        etcd: str,
        etcd_ca_file: Path | None,
        etcd_cert_file: Path | None,
        etcd_key_file: Path | None,
        etcd_user: str,
        etcd_password_file: Path | None,
        **options: Any,
    ) -> Any:
        if (etcd_cert_file is None) != (etcd_key_file is None):
            raise ConfigError("etcd: --etcd-cert-file and --etcd-key-file go together")
        if bool(etcd_user) != (etcd_password_file is not None):
            raise ConfigError("etcd: --etcd-user and --etcd-password-file go together")
        if not etcd and not default:
            return command(*arguments, etcd=None, **options)
        address = EtcdAddress(
            endpoints=parse_endpoints(etcd),
            ca_file=str(etcd_ca_file) if etcd_ca_file else None,
            cert_file=str(etcd_cert_file) if etcd_cert_file else None,
            key_file=str(etcd_key_file) if etcd_key_file else None,
            user=etcd_user or None,
            password=_read_secret(etcd_password_file) if etcd_password_file else None,
        )
        return command(*arguments, etcd=address, **options)

    file = click.Path(path_type=Path, dir_okay=False)
    decorated: Any = with_address
    for option in (
        click.option(
            "--prefix", envvar="OUTRIDER_PREFIX", default="/outrider/v1", show_default=True, help="Key prefix."
        ),
        click.option(
            "--etcd-password-file",
            envvar="OUTRIDER_ETCD_PASSWORD_FILE",
            type=file,
            help="File with the user's password.",
        ),
        click.option("--etcd-user", envvar="OUTRIDER_ETCD_USER", default="", help="etcd user, when etcd has users."),
        click.option("--etcd-key-file", envvar="OUTRIDER_ETCD_KEY_FILE", type=file, help="Client certificate's key."),
        click.option("--etcd-cert-file", envvar="OUTRIDER_ETCD_CERT_FILE", type=file, help="Client certificate (PEM)."),
        click.option(
            "--etcd-ca-file", envvar="OUTRIDER_ETCD_CA_FILE", type=file, help="Authority of etcd (PEM); turns TLS on."
        ),
        click.option(
            "--etcd",
            "etcd",
            envvar="OUTRIDER_ETCD",
            default=default,
            show_default=bool(default),
            help="etcd endpoints, HOST:PORT, separated by commas.",
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)


def optional_etcd_options(command: F) -> F:
    """``etcd_options`` for a command that can do without etcd."""
    return etcd_options(command, default="")


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--etcd-password-file {path}: {getattr(error, 'strerror', None) or error}") from error


def json_option(command: F) -> F:
    """Add ``--json``: print the same facts for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Read ``host:port,host:port``.

    Raises:
        ConfigError: an entry without a port, or with one that isn't 1 to 65535.
    """
    endpoints = []
    for part in (piece.strip() for piece in text.split(",")):
        host, _, port = part.removeprefix("http://").removeprefix("https://").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"etcd endpoint {part!r}: write HOST:PORT, for example 127.0.0.1:2379")
        endpoints.append(Endpoint(host=host, port=int(port)))
    return tuple(endpoints)


def open_cluster(etcd: EtcdAddress) -> Cluster:
    """Connect to the etcd that the command's options name."""
    from outrider.cluster.etcd import connect

    return connect(etcd)


def echo_json(value: object, file: IO[str] | None = None) -> None:
    """Print ``value`` as indented JSON."""
    click.echo(json.dumps(value, indent=2, default=str), file=file)


def echo_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below a header, columns aligned by two blanks as updatectl does with tabs."""
    lines = [tuple(header), *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fail(kind: str, message: str) -> NoReturn:
    """Leave with 1 and one line."""
    click.echo(f"Error: {kind}: {message}", err=True)
    sys.exit(1)
