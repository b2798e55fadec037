"""Traefik and HAProxy as services of one machine, each as ``docs/use/balancers.md`` says, with health checks.

The programs are those of the machine that runs the tests. HAProxy is copied with its libraries, for a machine of any
release; so it is run without its master, which would start the copy again without them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from outrider.demo.programs import find_traefik
from tests.scenarios.apps import API, WEB
from tests.scenarios.machine import PROGRAMS, Machine
from tests.support.containers import libraries_of
from tests.support.requirements import skip_or_fail

TRAEFIK = """\
[global]
checkNewVersion = false
sendAnonymousUsage = false
[entryPoints.web]
address = ":{port}"
[entryPoints.traefik]
address = ":8080"
[api]
insecure = true
[log]
level = "INFO"
noColor = true
[providers]
providersThrottleDuration = "100ms"
[providers.etcd]
endpoints = [{endpoints}]
rootKey = "traefik"
"""
TRAEFIK_CHECKS = {"path": "/health", "interval": "1s", "timeout": "1s"}
"""One failed check takes a server out."""
HAPROXY = """\
global
    stats socket /run/haproxy/admin.sock mode 660 group haproxy level admin
    server-state-file /var/lib/outrider-agent/haproxy-servers
defaults
    mode http
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    timeout check 5s
frontend web
    bind :{port}
    default_backend {service}
backend {service}
    option httpchk GET /health
    load-server-state-from-file global
    server-template slot 1-20 127.0.0.1:9 check inter 1s fastinter 500ms fall 2 rise 1 disabled
"""
UNIT = """\
[Unit]
After=network-online.target
[Service]
ExecStart={command}
RuntimeDirectory={name}
Restart=always
LimitNOFILE=65536
"""


def copy_programs(folder: Path) -> dict[str, str]:
    """Copy both to ``folder``, which their machine sees at ``PROGRAMS``.

    Returns:
        Name -> the command that runs it there.
    """
    return {
        "traefik": f"{bundle(find_traefik(), folder)} --configfile=/etc/traefik.toml",
        "haproxy": f"{bundle(_haproxy(), folder)} -db -f /etc/haproxy.cfg",
    }


def set_up(machine: Machine, commands: dict[str, str], endpoints: Sequence[str]) -> None:
    """Configure and start both balancers and the agent of HAProxy."""
    quoted = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    machine.write("/etc/traefik.toml", TRAEFIK.format(port=WEB.port, endpoints=quoted))
    machine.write("/etc/haproxy.cfg", HAPROXY.format(port=API.port, service=API.name))
    for name, command in commands.items():
        machine.write(f"/etc/systemd/system/{name}.service", UNIT.format(name=name, command=command))
    machine.write(
        "/etc/outrider/balancer-agent-haproxy.env",
        f"OUTRIDER_ETCD={','.join(endpoints)}\nOUTRIDER_BALANCER_AGENT_HAPROXY_SERVICES={API.name}\n",
    )
    units = "traefik.service haproxy.service outrider-balancer-agent@haproxy.service"
    machine.run(f"systemctl daemon-reload; systemctl add-wants multi-user.target {units}; systemctl start {units}")


def bundle(program: Path, folder: Path) -> str:
    """Copy a program of this machine with the libraries that it needs.

    Returns:
        The command that runs the copy on a machine of any release.
    """
    libraries = folder / "libraries"
    libraries.mkdir(parents=True, exist_ok=True)
    shutil.copy(program.resolve(), folder / program.name)
    needed = libraries_of(program.resolve())
    for path in needed:
        shutil.copy(path.resolve(), libraries / path.name)
    command = f"{PROGRAMS}/{program.name}"
    if not needed:
        return command
    loader = next(path.name for path in needed if path.name.startswith("ld-"))
    return f"{PROGRAMS}/libraries/{loader} --library-path {PROGRAMS}/libraries {command}"


def _haproxy() -> Path:
    found = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/bin")
    if found is None:
        skip_or_fail("haproxy: no such program: apt-get install haproxy")
    return Path(found)
