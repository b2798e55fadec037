"""``outrider balancer-agent``: the process beside a balancer that applies the servers' entries to it."""

import functools
import os
import shlex
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import click

from outrider.cli.main import Group
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.config.sections import host_name
from outrider.core.addresses import MAX_SHOWN, http_problem
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.etcd.seam import Cluster, CreatedAt, Delete, EtcdAddress, ModifiedAt
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.damage import read_or_none, readable
from outrider.model.keys import Keys, check_part

F = TypeVar("F", bound=Callable[..., Any])

HEADER = ("SERVICE", "AGENT", "BALANCER", "MACHINE", "STATE", "SERVING", "DRAINING")
SERVICE = "{service}"
"""What stands for the service's name in an option."""
_PER_SERVICE = frozenset({"backend", "upstream_file", "handler", "eds_file", "cluster"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metrics:
    """As ``[metrics]`` of a sidekick."""

    listen: str
    textfile: Path | None


@click.group(name="balancer-agent", cls=Group)
def balancer_agent() -> None:
    """Apply the servers of a service to HAProxy, nginx, Caddy or Envoy; list and remove such agents.

    An agent runs beside its balancer, on the same machine. Sidekicks with instance.balancer = agent wait for every
    registered agent of their service.
    """


def agent_options(command: F) -> F:
    """Add what every agent needs: the command's own options become drivers by service, which are then run."""

    @etcd_options
    @functools.wraps(command)
    def run_agent(
        *arguments: Any,
        services: tuple[str, ...],
        name: str,
        ttl_s: float,
        verbose: int,
        metrics_listen: str,
        metrics_textfile: Path | None,
        etcd: EtcdAddress,
        prefix: str,
        **options: Any,
    ) -> None:
        check_part("--name", name)
        if len(set(services)) != len(services):
            raise ConfigError("--service: the same service is named twice")
        for service in services:
            check_part("--service", service)
        for option, value in options.items():
            if len(services) > 1 and option in _PER_SERVICE and SERVICE not in str(value):
                raise ConfigError(
                    f"--{option.replace('_', '-')} {value}: there are several services, so write {SERVICE} where the"
                    " name of each belongs"
                )
        drivers = {
            service: command(*arguments, **{key: _for(service, value) for key, value in options.items()})
            for service in services
        }
        metrics = _Metrics(listen=metrics_listen, textfile=metrics_textfile)
        _run(drivers, name=name, ttl_s=ttl_s, verbose=verbose, metrics=metrics, etcd=etcd, prefix=prefix)

    decorated: Any = run_agent
    for option in (
        click.option("-v", "--verbose", count=True, help="Log more; twice to log everything."),
        click.option(
            "--metrics-textfile",
            type=_file(),
            help="File for node_exporter's textfile collector; its name ends with .prom. Default: none.",
        ),
        click.option(
            "--metrics-listen",
            default="",
            help="Where GET /metrics is answered: HOST:PORT of this machine alone, or unix:/PATH. Default: nowhere.",
        ),
        click.option(
            "--ttl",
            "ttl_s",
            type=click.FloatRange(min=2),
            default=10.0,
            show_default=True,
            help="Lease lifetime in seconds: how long a dead agent still counts as one that is heard.",
        ),
        click.option(
            "--name",
            default=host_name,
            help="Unique among the agents of a service. Default: the host name in lower case.",
        ),
        click.option(
            "--service",
            "services",
            multiple=True,
            required=True,
            help=f"As in the sidekicks' balancer.service; repeatable. {SERVICE} stands for it in other options.",
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)


def _for(service: str, value: Any) -> Any:
    if isinstance(value, Path):
        return Path(str(value).replace(SERVICE, service))
    return value.replace(SERVICE, service) if isinstance(value, str) else value


def _file() -> Any:
    return click.Path(path_type=Path, dir_okay=False)


@balancer_agent.command()
@click.option(
    "--socket",
    "socket_path",
    type=_file(),
    default=Path("/run/haproxy/admin.sock"),
    show_default=True,
    help="HAProxy's `stats socket`, with level admin.",
)
@click.option("--backend", default=SERVICE, show_default=True, help="Backend with the `server-template`.")
@click.option(
    "--state-file",
    type=_file(),
    default=Path("/var/lib/haproxy/outrider-servers"),
    show_default=True,
    help="HAProxy's `server-state-file`: written here, read by HAProxy at a reload.",
)
@agent_options
def haproxy(socket_path: Path, backend: str, state_file: Path) -> Any:
    """Run the agent of an HAProxy 2.6 or later, until SIGTERM. It uses the slots of a `server-template`."""
    from outrider.balancers.agent.haproxy import HaproxyDriver

    return HaproxyDriver(socket_path=socket_path, backend=backend, state_file=state_file)


@balancer_agent.command()
@click.option(
    "--upstream-file",
    type=_file(),
    default=Path(f"/etc/nginx/outrider/{SERVICE}.servers"),
    show_default=True,
    help="File with the `server` lines, included in the `upstream` block.",
)
@click.option(
    "--pid-file", type=_file(), default=Path("/run/nginx.pid"), show_default=True, help="nginx's own `pid` file."
)
@click.option("--test-command", default="nginx -t -q", show_default=True, help="Checks the configuration.")
@click.option("--reload-command", default="nginx -s reload", show_default=True, help="Lets nginx reload it.")
@agent_options
def nginx(upstream_file: Path, pid_file: Path, test_command: str, reload_command: str) -> Any:
    """Run the agent of an nginx, until SIGTERM. It writes a file of servers and reloads nginx."""
    from outrider.balancers.agent.nginx import NginxDriver

    return NginxDriver(
        upstream_file=upstream_file,
        pid_file=pid_file,
        test_command=_words("--test-command", test_command),
        reload_command=_words("--reload-command", reload_command),
    )


@balancer_agent.command()
@click.option("--admin-url", default="http://127.0.0.1:2019", show_default=True, help="Caddy's admin API.")
@click.option(
    "--handler",
    default=f"id/{SERVICE}",
    show_default=True,
    help="The reverse_proxy handler in the admin API: id/NAME by its @id, or config/apps/http/servers/...",
)
@agent_options
def caddy(admin_url: str, handler: str) -> Any:
    """Run the agent of a Caddy 2, until SIGTERM. It changes the upstreams through the admin API."""
    from outrider.balancers.agent.caddy import CaddyDriver

    _check_url("--admin-url", admin_url)
    if urlsplit(admin_url).scheme != "http" or urlsplit(admin_url).path.strip("/"):
        raise ConfigError(f"--admin-url {admin_url[:MAX_SHOWN]!r}: write http://HOST:PORT, as Caddy's admin API has it")
    return CaddyDriver(admin_url=admin_url, handler=handler)


@balancer_agent.command()
@click.option(
    "--eds-file",
    type=_file(),
    default=Path(f"/var/lib/envoy/{SERVICE}.json"),
    show_default=True,
    help="File of endpoints, as in the cluster's path_config_source.",
)
@click.option("--cluster", default=SERVICE, show_default=True, help="Name of the cluster in the file.")
@click.option("--admin-url", default="", help="Envoy's admin interface. Without it nobody tells what Envoy does.")
@agent_options
def envoy(eds_file: Path, cluster: str, admin_url: str) -> Any:
    """Run the agent of an Envoy, until SIGTERM. It replaces a file of endpoints (EDS)."""
    from outrider.balancers.agent.envoy import EnvoyDriver

    if admin_url:
        _check_url("--admin-url", admin_url)
    return EnvoyDriver(eds_file=eds_file, cluster=cluster, admin_url=admin_url)


def _check_url(option: str, url: str) -> None:
    if problem := http_problem(url):
        raise ConfigError(f"{option} {url[:MAX_SHOWN]!r}: {problem}")


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error
    if not words:
        raise ConfigError(f"{option}: is empty; name a program")
    return words


def _run(
    drivers: Mapping[str, Any],
    *,
    name: str,
    ttl_s: float,
    verbose: int,
    metrics: _Metrics,
    etcd: EtcdAddress,
    prefix: str,
) -> None:
    from outrider.balancers.agent.gauges import HELPS, samples
    from outrider.balancers.agent.loop import BalancerAgent
    from outrider.cli.commands.sidekick import on_signals
    from outrider.config.sections import LogSettings
    from outrider.etcd.client import connect
    from outrider.log import setup_logging
    from outrider.metrics import Sample, exposed
    from outrider.sd_notify import Notifier

    setup_logging(LogSettings(), verbosity=verbose)
    agents: list[BalancerAgent] = []

    def crash(error: BaseException) -> None:
        for each in agents:
            each.crash(error)

    cluster = connect(etcd, on_bug=crash)
    try:
        agent = BalancerAgent(
            cluster,
            Keys(prefix.rstrip("/")),
            drivers,
            name=name,
            ttl_s=ttl_s,
            notifier=Notifier.from_environment(os.environ),
        )
        agents.append(agent)
        threading.excepthook = lambda failed: agent.crash(failed.exc_value or RuntimeError(str(failed.exc_type)))
        on_signals((signal.SIGTERM, signal.SIGINT), agent.stop)

        def collect() -> list[Sample]:
            return [sample for one in agent.gauges() for sample in samples(one)]

        with exposed(collect, HELPS, listen=metrics.listen, textfile=metrics.textfile):
            agent.run()
    finally:
        cluster.close()


@balancer_agent.command(name="list")
@click.argument("service", required=False)
@etcd_options
@json_option
def list_agents(service: str | None, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """List the registered agents, of SERVICE or of all, and what each has applied."""
    keys = Keys(prefix.rstrip("/"))
    cluster = open_cluster(etcd)
    try:
        rows = [_row(cluster, keys, agent) for agent in _registered(cluster, keys, service)]
    finally:
        cluster.close()
    if as_json:
        echo_json(rows)
        return
    echo_table(HEADER, [tuple(_cell(value) for value in row.values()) for row in rows])


@balancer_agent.command()
@click.argument("service")
@click.argument("agent")
@click.option("--yes", is_flag=True, help="Don't ask.")
@etcd_options
def remove(service: str, agent: str, yes: bool, etcd: EtcdAddress, prefix: str) -> None:
    """Remove the registration of AGENT, which is gone for good: sidekicks of SERVICE no longer wait for its word."""
    keys = Keys(prefix.rstrip("/"))
    key, applied_key = keys.agent(service, agent), keys.applied(service, agent)
    cluster = open_cluster(etcd)
    try:
        found = cluster.get(key)
        if found is None:
            raise NotFound(
                f"no balancer agent {agent!r} of service {service!r}; `outrider balancer-agent list` shows all"
            )
        if cluster.get(applied_key) is not None:
            raise Conflict(f"balancer agent {agent!r} of service {service!r} is running; stop it first")
        confirm(f"Is the balancer of agent {agent} out of service? Sidekicks would no longer wait for it.", yes=yes)
        done = cluster.txn(
            (ModifiedAt(key=key, revision=found.mod_revision), CreatedAt(key=applied_key, revision=0)),
            (Delete(key=key),),
        )
        if not done.succeeded:
            raise Conflict(f"balancer agent {agent!r} of service {service!r} was started meanwhile; stop it first")
    finally:
        cluster.close()
    click.echo(f"removed balancer agent {agent} of service {service}")


def _registered(cluster: Cluster, keys: Keys, service: str | None) -> list[Agent]:
    prefix = keys.agents(service) if service else keys.all_agents()
    return [agent for _, agent in readable(Agent, cluster.list(prefix).entries)]


def _row(cluster: Cluster, keys: Keys, agent: Agent) -> dict[str, Any]:
    key = keys.applied(agent.service, agent.name)
    found = cluster.get(key)
    applied = read_or_none(Applied, key, found.value) if found is not None else None
    return {
        "service": agent.service,
        "agent": agent.name,
        "balancer": f"{agent.balancer} {applied.version}".strip() if applied is not None else agent.balancer,
        "machine": agent.machine,
        "state": _state(applied),
        "serving": list(applied.serving) if applied is not None else [],
        "draining": applied.draining if applied is not None else {},
    }


def _state(applied: Applied | None) -> str:
    if applied is None:
        return "not running"
    return applied.problem or "applied"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{url} ({'?' if count is None else count})" for url, count in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
