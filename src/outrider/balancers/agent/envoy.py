"""Envoy: a file of endpoints (EDS, ``path_config_source``), replaced by rename, which is what Envoy watches for.

A server that no entry names any more stays in the file as ``DRAINING``: it gets no new requests, and keeps those that
it has. ``/clusters`` of Envoy's admin interface says which endpoints it has taken over, and ``rq_active`` of each.
Without an admin address nobody can tell: then what is in the file counts as served, and its requests as unknown.

Format: envoy.config.endpoint.v3.ClusterLoadAssignment in a envoy.service.discovery.v3.DiscoveryResponse, as JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow, Report, read_text, replace_file

TIMEOUT_S = 3.0
TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint in the file; ``draining``: it gets no new requests."""

    address: str
    weight: int = 1
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One endpoint as Envoy has it."""

    draining: bool = False
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyState:
    """The file, and what Envoy says.

    Attributes:
        hosts: Address -> what Envoy has; None without an admin address.
    """

    cluster: str
    endpoints: tuple[Endpoint, ...]
    hosts: Mapping[str, Host] | None = None
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Put a new file in place."""

    cluster: str
    endpoints: tuple[Endpoint, ...]

    def __str__(self) -> str:
        words = (f"{one.address}{' draining' if one.draining else ''}" for one in self.endpoints)
        return ", ".join(words) or "no endpoint"


def plan(servers: tuple[AgentServer, ...], state: EnvoyState) -> tuple[Replace, ...]:
    """One new file with all servers, and with those that drain as long as Envoy has requests open there.

    Without an admin address the last ones that were taken out stay in the file, draining.
    """
    wanted = tuple(Endpoint(address=server.address, weight=server.weight) for server in servers)
    taken = {one.address for one in wanted}
    left = tuple(one for one in state.endpoints if one.address not in taken)
    if state.hosts is None and any(not one.draining for one in left):
        left = tuple(one for one in left if not one.draining)  # those before them have had their time
    drained = tuple(
        Endpoint(address=one.address, weight=one.weight, draining=True) for one in left if _drains(one, state)
    )
    if (*wanted, *drained) == state.endpoints:
        return ()
    return (Replace(cluster=state.cluster, endpoints=(*wanted, *drained)),)


def _drains(endpoint: Endpoint, state: EnvoyState) -> bool:
    if not endpoint.draining or state.hosts is None:
        return True
    host = state.hosts.get(endpoint.address)
    return host is not None and (not host.draining or host.open > 0)


def report(servers: tuple[AgentServer, ...], state: EnvoyState) -> Report:
    """What Envoy has taken over; the file's word where nobody can be asked."""
    urls = {server.address: server.url for server in servers}

    def url(address: str) -> str:
        return urls.get(address) or f"http://{address}"

    if state.hosts is None:
        return Report(
            serving=frozenset(url(one.address) for one in state.endpoints if not one.draining),
            draining={url(one.address): None for one in state.endpoints if one.draining},
        )
    return Report(
        serving=frozenset(url(address) for address, host in state.hosts.items() if not host.draining),
        draining={url(address): host.open for address, host in state.hosts.items() if host.draining},
        version=state.version,
    )


def render(cluster: str, endpoints: tuple[Endpoint, ...]) -> str:
    """The file's content."""
    assignment = {
        "@type": TYPE,
        "cluster_name": cluster,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": {"socket_address": _socket_address(one.address)}},
                        "health_status": "DRAINING" if one.draining else "HEALTHY",
                        "load_balancing_weight": one.weight,
                    }
                    for one in endpoints
                ]
            }
        ],
    }
    version = hashlib.sha256(json.dumps(assignment, sort_keys=True).encode()).hexdigest()[:12]
    return json.dumps({"version_info": version, "resources": [assignment]}, indent=2) + "\n"


def endpoints_in(text: str, path: Path) -> tuple[Endpoint, ...]:
    """The endpoints in a file's content; none in an empty one.

    Raises:
        CannotFollow: it isn't such a file, so it may be somebody else's.
    """
    if not text.strip():
        return ()
    try:
        (assignment,) = json.loads(text)["resources"]
        return tuple(
            Endpoint(
                address=_address(one["endpoint"]["address"]["socket_address"]),
                weight=int(one.get("load_balancing_weight", 1)),
                draining=one.get("health_status") == "DRAINING",
            )
            for locality in assignment["endpoints"]
            for one in locality["lb_endpoints"]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotFollow(f"{path}: not a file of endpoints of one cluster; remove it, or name another") from error


def hosts_in(told: Any, cluster: str) -> dict[str, Host] | None:
    """The hosts of ``cluster`` in what ``/clusters?format=json`` answered; None when it has no such cluster."""
    for one in told.get("cluster_statuses", ()):
        if one.get("name") == cluster:
            return {_address(host["address"]["socket_address"]): _host(host) for host in one.get("host_statuses", ())}
    return None


def _host(told: Mapping[str, Any]) -> Host:
    active: Mapping[str, Any] = next((stat for stat in told.get("stats", ()) if stat.get("name") == "rq_active"), {})
    return Host(
        draining=(told.get("health_status") or {}).get("eds_health_status") == "DRAINING",
        open=int(active.get("value", 0)),
    )


class EnvoyDriver:
    """One cluster of one Envoy."""

    def __init__(self, *, eds_file: Path, cluster: str, admin_url: str = "") -> None:
        """Nothing is read yet; ``admin_url`` empty: Envoy isn't asked."""
        self.name = "envoy"
        self._file, self._cluster, self._admin_url = eds_file, cluster, admin_url.rstrip("/")
        self._version = ""

    def look(self) -> EnvoyState:
        """Read the file, and ask Envoy; see ``AgentDriver.look``."""
        endpoints = endpoints_in(read_text(self._file), self._file)
        hosts = self._hosts() if self._admin_url else None
        return EnvoyState(cluster=self._cluster, endpoints=endpoints, hosts=hosts, version=self._version)

    def plan(self, servers: tuple[AgentServer, ...], state: EnvoyState) -> tuple[Replace, ...]:
        """See the function ``plan``."""
        return plan(servers, state)

    def report(self, servers: tuple[AgentServer, ...], state: EnvoyState) -> Report:
        """See the function ``report``."""
        return report(servers, state)

    def perform(self, command: Replace) -> None:
        """See ``AgentDriver.perform``."""
        replace_file(self._file, render(command.cluster, command.endpoints))

    def _hosts(self) -> Mapping[str, Host]:
        from outrider.http import ask

        answer = ask(f"{self._admin_url}/clusters?format=json", timeout_s=TIMEOUT_S)
        if answer is None or answer.status != 200:
            raise Away(f"Envoy's admin interface doesn't answer at {self._admin_url}")
        try:
            hosts = hosts_in(json.loads(answer.body), self._cluster)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Away(f"Envoy's admin interface at {self._admin_url} answers something else: {error}") from error
        if hosts is None:
            raise CannotFollow(f"Envoy has no cluster {self._cluster}; name it with --cluster")
        if not self._version and (info := ask(f"{self._admin_url}/server_info", timeout_s=TIMEOUT_S)) is not None:
            try:
                self._version = str(json.loads(info.body).get("version", ""))
            except (ValueError, AttributeError):
                self._version = ""
        return hosts


def _socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"address": host.strip("[]"), "port_value": int(port)}


def _address(told: Mapping[str, Any]) -> str:
    host, port = str(told["address"]), int(told["port_value"])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
