"""Options that several commands share: addresses of the update service and etcd, and credentials.

The options of the update service may stand on each verb and before it.

The option nearest to the verb wins, then the environment, then the context (``outrider context``), then the default.
"""

import functools
import getpass
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from outrider import unix_sockets
from outrider.cli import contexts
from outrider.cli.addressing import wanted_context
from outrider.core.errors import ConfigError, Unknown
from outrider.etcd.address import endpoints_of, read_password
from outrider.etcd.seam import Cluster, Endpoint, EtcdAddress, Unreachable

if TYPE_CHECKING:
    from outrider.cli.rest_client import ServiceClient

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = ("server", "user", "key", "token", "ca_file", "skip_ssl_verify", "debug")


def _options(*, environment: bool) -> tuple[Callable[[F], F], ...]:
    def variables(*names: str) -> list[str] | None:
        return list(names) if environment else None

    return (
        click.option(
            "--server",
            envvar=variables("OUTRIDER_SERVER", "UPDATECTL_SERVER"),
            default=None,
            show_default="the Unix socket of a service on this machine, else http://localhost:8000"
            if environment
            else False,
            help="Address of the update service, http://HOST:PORT or unix:/PATH.",
        ),
        click.option("--token", envvar=variables("OUTRIDER_TOKEN"), default="", help="Token of a user."),
        click.option(
            "--user",
            envvar=variables("OUTRIDER_USER", "UPDATECTL_USER"),
            default="",
            help="User name for HTTP Basic; needs --key.",
        ),
        click.option(
            "--key",
            envvar=variables("OUTRIDER_KEY", "UPDATECTL_KEY"),
            default="",
            help="Token of that user for HTTP Basic.",
        ),
        click.option(
            "--ca-file",
            envvar=variables("OUTRIDER_CA_FILE"),
            type=click.Path(path_type=Path),
            help="PEM file of the authority that signed the service's certificate.",
        ),
        click.option(
            "--skip-ssl-verify",
            envvar=variables("OUTRIDER_SKIP_SSL_VERIFY"),
            is_flag=True,
            help="Don't check the service's certificate.",
        ),
        click.option("--debug", envvar=variables("OUTRIDER_DEBUG"), is_flag=True, help="Print requests and answers."),
    )


def top_options(command: F) -> F:
    """Let the options of ``service_options`` be written before the verb as well: ``outrider --server=... app list``."""
    for option in reversed(_options(environment=False)):
        command = option(command)
    return click.option("--context", metavar="NAME", help="Context to use (OUTRIDER_CONTEXT); see `outrider context`.")(
        command
    )


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for address and credentials of the update service; the verb gets a client as ``service``."""

    def with_service(*arguments: Any, **options: Any) -> Any:
        chosen = _chosen(click.get_current_context(), {name: options.pop(name) for name in _NAMES})
        if chosen.pop("debug"):
            _log_everything()
        service = _client(chosen)
        if not chosen["token"] and not chosen["user"] and command.__name__ not in ("login", "logout"):
            _log_in(service)
        return command(*arguments, service=service, **options)

    decorated: Any = functools.update_wrapper(with_service, command)
    for option in reversed(_options(environment=True)):
        decorated = option(decorated)
    wrapped: Callable[..., Any] = decorated
    return wrapped


def client_of(context: click.Context, *, timeout_s: float) -> "ServiceClient":
    """The update service that a line names which is being written, for the shell's completion."""
    chosen = _chosen(context, {name: context.params.get(name) for name in _NAMES})
    chosen.pop("debug")
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return _client({"server": None, **chosen}, timeout_s=timeout_s)


def _client(chosen: dict[str, Any], **more: Any) -> "ServiceClient":
    """For the chosen options; where nothing names the server, it is found on this machine."""
    from outrider.cli.rest_client import DEFAULT_SERVER, ServiceClient

    is_default = chosen["server"] is None
    if is_default:
        found = unix_sockets.living(os.environ, os.geteuid())
        chosen = chosen | {"server": f"unix:{found}" if found else DEFAULT_SERVER}
    return ServiceClient(**chosen, is_default=is_default, **more)


def _log_in(service: "ServiceClient") -> None:
    """Show the token of a login, where there is one."""
    from outrider.cli import logins

    if token := logins.token_for(service.server):
        service.with_token(token)


def _chosen(context: click.Context, here: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each option: the one nearest to the verb, else the environment's, the context's, the default."""
    chosen = dict(here)
    for name in _NAMES:
        place: click.Context | None = context
        while place is not None:
            if place.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                chosen[name] = place.params[name]
                break
            place = place.parent
        if place is None and name in contexts.KEYS:
            chosen[name] = _or_of_context(context, name, chosen[name])
    if chosen["user"]:  # HTTP Basic was asked for: the context's token is another user's
        chosen["token"] = here["token"]
    return chosen


def is_named(name: str) -> bool:
    """Whether an option of the running command is given: on the line, in the environment, in the context."""
    context = click.get_current_context()
    place: click.Context | None = context
    while place is not None:
        if place.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
            return True
        place = place.parent
    return contexts.value(name, wanted_context(context)) is not None


def _or_of_context(context: click.Context, name: str, value: Any) -> Any:
    """What the chosen context says of an option that neither the command line nor the environment gives."""
    if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
        return value
    found = contexts.value(name, wanted_context(context))
    if found is None:
        return value
    return Path(found) if name.endswith("_file") else found


def _log_everything() -> None:
    from outrider.config.sections import LogSettings
    from outrider.log import setup_logging

    setup_logging(LogSettings(level="debug", format="text"), sys.stderr)


def operator() -> str:
    """Name of the operator, as this machine knows it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        return "unknown"


def etcd_options(command: F, *, default: str = "127.0.0.1:2379") -> F:
    """Add ``--prefix`` and the options that say where etcd is: the command gets them as ``prefix`` and ``etcd``.

    ``etcd`` is an ``EtcdAddress``; None when none is named and ``default`` is empty. The variables are those that
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
        context = click.get_current_context()
        etcd = _or_of_context(context, "etcd", etcd)
        etcd_ca_file = _or_of_context(context, "etcd_ca_file", etcd_ca_file)
        etcd_cert_file = _or_of_context(context, "etcd_cert_file", etcd_cert_file)
        etcd_key_file = _or_of_context(context, "etcd_key_file", etcd_key_file)
        etcd_user = _or_of_context(context, "etcd_user", etcd_user)
        etcd_password_file = _or_of_context(context, "etcd_password_file", etcd_password_file)
        options["prefix"] = _or_of_context(context, "prefix", options["prefix"])
        if (etcd_cert_file is None) != (etcd_key_file is None):
            raise ConfigError("--etcd-cert-file and --etcd-key-file need each other: give both or none")
        if bool(etcd_user) != (etcd_password_file is not None):
            raise ConfigError("--etcd-user and --etcd-password-file need each other: give both or none")
        if not etcd.strip() and not default:
            return command(*arguments, etcd=None, **options)
        endpoints, tls = parse_endpoints(etcd, tls=bool(etcd_ca_file or etcd_cert_file))
        address = EtcdAddress(
            endpoints=endpoints,
            tls=tls,
            ca_file=str(etcd_ca_file) if etcd_ca_file else None,
            cert_file=str(etcd_cert_file) if etcd_cert_file else None,
            key_file=str(etcd_key_file) if etcd_key_file else None,
            user=etcd_user or None,
            password=_read_secret(etcd_password_file) if etcd_password_file else None,
            password_file=str(etcd_password_file) if etcd_password_file else None,
        )
        try:
            return command(*arguments, etcd=address, **options)
        except Unreachable as error:
            raise Unknown(f"{error}; check --etcd (OUTRIDER_ETCD)") from error

    file = click.Path(path_type=Path, dir_okay=False)
    decorated: Any = with_address
    for option in (
        click.option(
            "--prefix",
            envvar="OUTRIDER_PREFIX",
            default="/outrider/v1",
            show_default=True,
            help="Prefix of all keys in etcd.",
        ),
        click.option(
            "--etcd-password-file",
            envvar="OUTRIDER_ETCD_PASSWORD_FILE",
            type=file,
            help="File with the password of the etcd user.",
        ),
        click.option("--etcd-user", envvar="OUTRIDER_ETCD_USER", default="", help="User name, if etcd has users."),
        click.option(
            "--etcd-key-file", envvar="OUTRIDER_ETCD_KEY_FILE", type=file, help="Key of the client certificate (PEM)."
        ),
        click.option("--etcd-cert-file", envvar="OUTRIDER_ETCD_CERT_FILE", type=file, help="Client certificate (PEM)."),
        click.option(
            "--etcd-ca-file",
            envvar="OUTRIDER_ETCD_CA_FILE",
            type=file,
            help="PEM file of the authority that signed etcd's certificate; turns TLS on, as https:// does.",
        ),
        click.option(
            "--etcd",
            "etcd",
            envvar="OUTRIDER_ETCD",
            default=default,
            show_default=bool(default),
            help="etcd endpoints, HOST:PORT or https://HOST:PORT, separated by commas.",
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)


def optional_etcd_options(command: F) -> F:
    """``etcd_options`` for a command that can do without etcd."""
    return etcd_options(command, default="")


def _read_secret(path: Path) -> str:
    try:
        return read_password(path)
    except ValueError as error:
        raise ConfigError(f"--etcd-password-file {path}: {error}") from error


def selector_option(command: F) -> F:
    """Add ``--selector``: only instances with these labels."""
    text = "Only instances whose labels it selects: 'site=a,rack!=3', 'site in (a, b)', canary, '!canary'."
    return click.option("-l", "--selector", default="", metavar="LABELS", help=text)(command)


def json_option(command: F) -> F:
    """Add ``--json``: print the same facts for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def parse_endpoints(text: str, *, tls: bool = False) -> tuple[tuple[Endpoint, ...], bool]:
    """Read ``host:port,host:port``; also tells whether they are asked over TLS.

    Args:
        tls: A file of certificates is given.

    Raises:
        ConfigError: one can't be used, or they contradict each other.
    """
    try:
        return endpoints_of((part.strip() for part in text.split(",") if part.strip()), tls=tls)
    except ValueError as problem:
        raise ConfigError(f"--etcd (OUTRIDER_ETCD) {problem}") from problem


def open_cluster(etcd: EtcdAddress) -> Cluster:
    """Connect to the etcd that the command's options name."""
    from outrider.etcd.client import connect

    return connect(etcd)
