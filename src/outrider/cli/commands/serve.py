"""``outrider serve``: the update service."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from loguru import logger

from outrider import unix_sockets
from outrider.cli.limit_options import limit_options
from outrider.cli.options import etcd_options, open_cluster
from outrider.core.addresses import MAX_SHOWN, http_problem
from outrider.core.errors import ConfigError, OutriderError
from outrider.etcd.seam import EtcdAddress

if TYPE_CHECKING:
    from outrider.oidc.tokens import Tokens
    from outrider.service.limits import Limits
    from outrider.service.store.users import KnownUsers


@click.command()
@click.option("--listen", default="127.0.0.1:8000", show_default=True, help="HOST:PORT; port 0 takes a free port.")
@click.option(
    "--payload-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/outrider/payloads"),
    show_default=True,
    help="Folder for uploaded payloads.",
)
@click.option(
    "--public-url", help="Address of the service for clients, used in payload addresses. Default: each request's Host."
)
@click.option(
    "--socket",
    "socket_path",
    help="Unix socket for the commands of the user that runs this, and of root; none: no such socket."
    " Default: serve.sock in the user's runtime folder.",
)
@click.option(
    "--insecure-listen",
    is_flag=True,
    help="While there never was a user, answer everybody over the network. They may do everything.",
)
@click.option("--allow-host", multiple=True, help="Further name by which clients call the service; repeat for several.")
@click.option(
    "--allow-webhooks-to",
    multiple=True,
    help="Address or network that webhooks may reach besides public ones, such as 10.1.0.0/16; repeat for several.",
)
@click.option(
    "--allow-analyses-to",
    multiple=True,
    help="Address or network that the analyses at the end of a wave may reach besides public ones, such as your"
    " Prometheus; repeat for several.",
)
@click.option("--protect-metrics", is_flag=True, help="Ask for a token at /metrics, too.")
@click.option(
    "--cup-key",
    multiple=True,
    help="Sign Omaha answers for clients that ask with cup2key (CUP): ID:FILE, a P-256 key in PEM; repeat for several.",
)
@click.option(
    "--oidc",
    "oidc_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file that names an identity provider (OpenID Connect) whose tokens count, and who gets which role."
    " Needs the extra oidc.",
)
@click.option(
    "--coreupdate-api",
    is_flag=True,
    help="Serve CoreUpdate's REST API for the real updateservicectl, too; its users need a Hawk key.",
)
@click.option("--omaha-secret", help="Serve Omaha only at /v1/update/SECRET. Prefer the environment variable.")
@click.option(
    "--audit-days", type=click.IntRange(1), default=90, show_default=True, help="Days for which the audit log is kept."
)
@click.option(
    "--registry-auth",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Credentials for image registries, a file like Docker's config.json.",
)
@click.option(
    "--registry-ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of the authorities of registries' certificates.",
)
@click.option("--plain-registry", multiple=True, help="Registry that speaks plain http, HOST:PORT; repeat for several.")
@click.option(
    "--trusted-proxy",
    multiple=True,
    help="Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto count; repeat for several.",
)
@limit_options
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PEM file with the service's certificate, and those between it and its authority: serve https.",
)
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="PEM file with its private key.")
@click.option(
    "--tls-client-ca",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PEM file of authorities: clients need a certificate of one of them.",
)
@click.option(
    "--otlp-endpoint",
    help="Send rollouts as traces to this OpenTelemetry collector, by OTLP over HTTP, such as http://127.0.0.1:4318.",
)
@click.option("--dev", is_flag=True, help="For trying things out: also run an etcd, at the address of --etcd.")
@click.option(
    "--dev-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outrider-dev"),
    show_default=True,
    help="Folder of that etcd, and with --dev of the payloads; remove it to begin anew.",
)
@click.option("-v", "--verbose", count=True, help="Log more; twice to log libraries too.")
@etcd_options
@click.pass_context
def serve(
    click_context: click.Context,
    *,
    listen: str,
    payload_dir: Path,
    public_url: str | None,
    socket_path: str | None,
    insecure_listen: bool,
    allow_host: tuple[str, ...],
    protect_metrics: bool,
    allow_webhooks_to: tuple[str, ...],
    allow_analyses_to: tuple[str, ...],
    trusted_proxy: tuple[str, ...],
    limits: "Limits",
    cup_key: tuple[str, ...],
    oidc_file: Path | None,
    coreupdate_api: bool,
    omaha_secret: str | None,
    audit_days: int,
    registry_auth: Path | None,
    registry_ca: Path | None,
    plain_registry: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    otlp_endpoint: str | None,
    dev: bool,
    dev_dir: Path,
    verbose: int,
    etcd: EtcdAddress,
    prefix: str,
) -> None:
    """Run the update service until SIGTERM.

    Prints one line with its address when it serves. Without etcd it serves as well: /readyz and every answer say 503
    until etcd is there. Its API asks for a token. While there never was a user, the commands of the user that runs it
    need none: they reach it through a Unix socket. Certificate and key are read again when their files change, and on
    SIGHUP.
    """
    try:
        from outrider.service import server
        from outrider.service.application import create_application
    except ModuleNotFoundError as error:
        raise ConfigError(f"the Python package {error.name} is missing; install outrider[server]") from error
    from outrider.config.sections import LogSettings
    from outrider.log import setup_logging
    from outrider.sd_notify import Notifier
    from outrider.service.cup import load_cup
    from outrider.service.destinations import ANALYSES, parse_allowed
    from outrider.service.history.background import background_tasks
    from outrider.service.limits import parse_proxies
    from outrider.service.payloads.folder import PayloadFolder
    from outrider.service.payloads.follower import tag_follower
    from outrider.service.payloads.registry import HttpRegistries
    from outrider.service.payloads.resolver import image_resolver
    from outrider.service.tls import Tls, TlsFiles

    setup_logging(LogSettings(), sys.stderr, verbosity=verbose)
    if public_url and (problem := http_problem(public_url)):
        raise ConfigError(f"--public-url {public_url[:MAX_SHOWN]!r}: {problem}")
    destinations, proxies = parse_allowed(allow_webhooks_to), parse_proxies(trusted_proxy)
    analysis_destinations = parse_allowed(allow_analyses_to, ANALYSES)
    if dev:
        click_context.with_resource(_development_etcd(etcd, dev_dir.absolute()))
        if click_context.get_parameter_source("payload_dir") is ParameterSource.DEFAULT:
            payload_dir = dev_dir / "payloads"
    send_traces = None
    if otlp_endpoint:
        from outrider.service.history.trace_exporter import otlp_sender

        send_traces = otlp_sender(otlp_endpoint)
    cup = load_cup(cup_key)
    tokens = _tokens(oidc_file) if oidc_file else None
    if tokens is not None and insecure_listen:
        raise ConfigError("--oidc and --insecure-listen contradict each other: leave out the latter")
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = Tls(TlsFiles(certificate=tls_cert, key=tls_key, client_ca=tls_client_ca))
    elif tls_cert or tls_key or tls_client_ca:
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    payloads = PayloadFolder(folder=payload_dir)
    payloads.prepare()
    bound = [server.bind(server.parse_listen(listen))]
    scheme = "http" if tls is None else "https"
    address = server.address_of(bound[0], scheme)
    own_url = server.local_address_of(bound[0], scheme)
    if local := _local_socket(socket_path):
        bound.append(click_context.with_resource(local))
    cluster = open_cluster(etcd)
    notifier = Notifier.from_environment(os.environ)
    registries = HttpRegistries(auth_file=registry_auth, ca_file=registry_ca, plain=frozenset(plain_registry))
    try:
        application = create_application(
            cluster,
            payloads,
            prefix=prefix.rstrip("/"),
            public_url=public_url,
            own_url=own_url,
            open_to_all=insecure_listen,
            allowed_hosts=allow_host,
            protect_metrics=protect_metrics,
            audit_days=audit_days,
            omaha_secret=omaha_secret,
            cup=cup,
            tokens=tokens,
            coreupdate_api=coreupdate_api,
            registries=registries,
            destinations=destinations,
            analysis_destinations=analysis_destinations,
            limits=limits,
            trusted_proxies=proxies,
        )

        def ready() -> None:
            click.echo(f"outrider update service on {address}")
            notifier.ready(f"answers on {address}")
            # Beside the serving: etcd may be away, and then the first request of the API reads them.
            users = application.state.context.known_users
            threading.Thread(target=_read_users, args=(users,), name="outrider-users", daemon=True).start()
            if tokens is not None:
                threading.Thread(target=_ask_provider, args=(tokens,), name="outrider-oidc", daemon=True).start()

        stores = application.state.context.stores
        with (
            background_tasks(
                cluster,
                prefix.rstrip("/"),
                public_url=(public_url or address).rstrip("/"),
                destinations=destinations,
                max_story_bytes=limits.max_story_bytes,
                max_story_update_bytes=limits.max_story_update_bytes,
                send_traces=send_traces,
            ),
            image_resolver(stores, payloads, registries),
            tag_follower(stores, payloads, registries),
        ):
            server.serve(application, bound, ready, tls)
    finally:
        notifier.stopping()
        cluster.close()


def _local_socket(named: str | None) -> "contextlib.AbstractContextManager[socket.socket] | None":
    """The Unix socket, removed at the end; None: there is none.

    Raises:
        ConfigError: it can't be made where ``--socket`` says.
    """
    if named == "none":
        return None
    path = Path(named) if named else unix_sockets.default_path(os.environ, os.geteuid())
    try:
        made = unix_sockets.listen(path.absolute())
    except ConfigError as error:
        if named:
            raise
        logger.bind(cause=str(error)).warning("no Unix socket: commands reach this service over the network alone")
        return None
    logger.bind(path=str(path)).info("Unix socket for commands")
    return _removed_at_the_end(made, path.absolute())


@contextlib.contextmanager
def _removed_at_the_end(made: socket.socket, path: Path) -> Iterator[socket.socket]:
    inode = path.lstat().st_ino
    try:
        yield made
    finally:
        made.close()
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == inode:
                path.unlink()


@contextlib.contextmanager
def _development_etcd(etcd: EtcdAddress, folder: Path) -> Iterator[None]:
    """A single etcd of one's own, as long as the service runs; its data stays in the folder.

    Raises:
        ConfigError: it can't listen where ``--etcd`` says, or something else does.
    """
    from outrider.demo.programs import start_etcd

    if len(etcd.endpoints) != 1 or etcd.tls or etcd.user:
        raise ConfigError("--dev runs one etcd, without TLS and users: give --etcd one HOST:PORT of this machine")
    (endpoint,) = etcd.endpoints
    where = f"--etcd {endpoint.host}:{endpoint.port}"
    try:
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((endpoint.host, endpoint.port))
            attempt.listen()
    except OSError as error:
        raise ConfigError(
            f"{where}: {error.strerror}; --dev runs an etcd of its own there: leave --dev out to use the one that is"
            " there, or give another port"
        ) from error
    program = start_etcd(folder, endpoint)
    try:
        program.wait_ready()
        click.echo(f"etcd for development at {endpoint.host}:{endpoint.port}, data in {folder}")
        yield
    finally:
        program.stop()


def _tokens(path: Path) -> "Tokens":
    """Those of the identity provider that the file names.

    Raises:
        ConfigError: the extra is missing, or the file can't be used.
    """
    from outrider.oidc.provider import Provider, fetcher, require_libraries
    from outrider.oidc.settings import load_oidc
    from outrider.oidc.tokens import Tokens

    settings = load_oidc(path)
    require_libraries()
    return Tokens(settings, Provider(settings.issuer, fetcher(settings.verify)))


def _ask_provider(tokens: "Tokens") -> None:
    """Reads its keys before the first request needs them, and says in the log when it can't."""
    with contextlib.suppress(OutriderError):
        tokens.provider.metadata()


def _read_users(users: "KnownUsers") -> None:
    """Says in the log when there are none."""
    with contextlib.suppress(OutriderError):
        users.load()
