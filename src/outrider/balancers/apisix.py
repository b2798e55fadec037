"""APISIX 3 with its etcd: an upstream is one value with all its nodes.

Rules that come from APISIX (read in its source, not measured: it can't be had where this is tested):

- ``nodes`` is an object (``"HOST:PORT": WEIGHT``) or an array; only an array's nodes have ``metadata``, which tells
  whose a node is. So an object becomes an array with the first write, which means the same to APISIX.
- A node that somebody has written by hand has no mark of ours. One with our address becomes ours; others stay.
- An upstream that APISIX can't read is dropped, with all of its nodes: what is there besides the nodes stays as it is.

Source: github.com/apache/apisix, ``apisix/schema_def.lua`` (``nodes_schema``, ``upstream_schema``).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BalancerContext
from outrider.balancers.keys import ID, ID_WORDS, checked_url
from outrider.balancers.shared import SharedEntry
from outrider.balancers.vulcand import ByTime
from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.core.errors import ConfigError, Refused

MARK = "outrider_server"
"""In a node's ``metadata``: the id of the server that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApisixSettings:
    """[apisix]: this server in an upstream of APISIX, when instance.balancer is apisix."""

    root: str = setting(
        "/apisix",
        "APISIX's etcd prefix, with the slash at its beginning.",
        pattern=r"/[^\s]*[^/\s]",
        wanted="a key such as /apisix, without a slash at its end",
        empty=False,
    )
    weight: int = setting(1, "Weight of this server, unless somebody has given its node another one.", least=0)
    propagation_s: float = setting(2.0, "Longest time until APISIX follows a change: it can't be asked.", least=0)


SETTINGS = ApisixSettings
USES = frozenset({"service", "server_id"})


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Names that can't be in its keys."""
    shared = settings.balancer
    if not shared.service:
        return (("balancer.service", "missing; name the app's upstream in APISIX, or set instance.balancer to none"),)
    return tuple(_problems(shared.service, shared.server_id))


def _problems(service: str, server_id: str) -> Iterator[Problem]:
    for key, name in (("service", service), ("server_id", server_id)):
        if not ID.fullmatch(name):
            yield f"balancer.{key}", f"{name!r}: {ID_WORDS}"


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """The instance's node in APISIX's upstream."""
    own, shared = settings.of(ApisixSettings), settings.balancer
    entry = SharedEntry(
        context.cluster,
        ApisixUpstream(own, service=shared.service),
        service=shared.service,
        server_id=shared.server_id,
        keys=context.keys,
        owner=context.owner,
        predecessors=context.predecessors,
    )
    return Balancer(entry=entry, observer=ByTime("apisix", own.propagation_s))


class ApisixUpstream:
    """One upstream; implements ``SharedLayout``."""

    def __init__(self, settings: ApisixSettings, *, service: str) -> None:
        self.name = "apisix"
        self._service, self._weight = service, settings.weight
        self.key = f"{settings.root}/upstreams/{service}"

    def static_keys(self) -> Mapping[str, str]:
        """None: the upstream comes with its first node, and the route is the operator's."""
        return {}

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """The upstream with this node alone."""
        return {self.key: self.with_server(None, server).decode()}

    def owned_prefix(self, server_id: str) -> str:
        """The upstream's key, whichever node it is.

        Raises:
            ConfigError: a bad id.
        """
        if not ID.fullmatch(server_id):
            raise ConfigError(f"server id {server_id!r}: {ID_WORDS}")
        return self.key

    def pool(self) -> tuple[str, str]:
        """As ``KeyLayout.pool``: there is no key for each server."""
        return "", ""

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address of our node; None where there is none, or no upstream that can be read."""
        try:
            upstream = _read(self.key, found[self.key].encode()) if self.key in found else None
        except Refused:
            return None
        if upstream is None:
            return None
        node = next((one for one in upstream["nodes"] if _mark(one) == server_id), None)
        return None if node is None else _url(upstream, node)

    def with_server(self, value: bytes | None, server: Server) -> bytes:
        """As ``SharedLayout.with_server``.

        Raises:
            ConfigError: an address that APISIX wouldn't take.
            Refused: the upstream can't be read.
        """
        parts = urlsplit(checked_url(server.url))
        upstream = _read(self.key, value)
        nodes = upstream["nodes"]
        mine = [one for one in nodes if _mark(one) == server.id]
        unmarked = [one for one in nodes if _mark(one) is None and _url(upstream, one) == server.url]
        before = (mine or unmarked or [{}])[0]
        node = {
            **before,
            "host": parts.hostname,
            "port": parts.port,
            "weight": before.get("weight", self._weight),
            "metadata": {**(before.get("metadata") or {}), MARK: server.id},
        }
        if value is not None and [node] == mine and not unmarked:
            return value
        if value is None:
            return _json({"id": self._service, "type": "roundrobin", "nodes": [node]})
        replaced = mine + unmarked
        at = nodes.index(replaced[0]) if replaced else len(nodes)
        others = [one for one in nodes if one not in replaced]
        return _json({**upstream, "nodes": [*others[:at], node, *others[at:]]})

    def servers(self, value: bytes) -> dict[str, str]:
        """As ``SharedLayout.servers``."""
        upstream = _read(self.key, value)
        return {_mark(one) or _url(upstream, one): _url(upstream, one) for one in upstream["nodes"]}

    def without_server(self, value: bytes, server_id: str) -> bytes:
        """As ``SharedLayout.without_server``.

        Raises:
            Refused: the upstream can't be read.
        """
        return without_server(self.key, value, server_id)


def without_server(key: str, value: bytes, server_id: str) -> bytes:
    """The upstream at ``key`` without that server; the same bytes when it isn't there.

    Raises:
        Refused: the upstream can't be read.
    """
    upstream = _read(key, value)
    left = [one for one in upstream["nodes"] if _mark(one) != server_id]
    return value if len(left) == len(upstream["nodes"]) else _json({**upstream, "nodes": left})


def _read(key: str, value: bytes | None) -> dict[str, Any]:
    """The upstream, its nodes as a list of objects with host, port and weight; without a value an empty one."""
    if value is None:
        return {"nodes": []}
    problem = f"{key}: is no upstream of APISIX that can be read; put it right there, or remove it"
    try:
        told = json.loads(value)
    except ValueError:
        raise Refused(problem, evidence="wrong-setting") from None
    if not isinstance(told, dict) or not isinstance(told.get("type"), str):
        raise Refused(problem, evidence="wrong-setting")
    nodes = told.get("nodes") or []
    if isinstance(nodes, dict):
        nodes = [_from_pair(name, weight) for name, weight in nodes.items()]
    if not isinstance(nodes, list) or not all(isinstance(one, dict) and "host" in one for one in nodes):
        raise Refused(problem, evidence="wrong-setting")
    return {**told, "nodes": nodes}


def _from_pair(name: str, weight: object) -> dict[str, Any]:
    """``"10.0.0.1:80": 1``; without a port it is that of the scheme, which APISIX knows and 80 stands for."""
    host, colon, port = name.rpartition(":")
    if not colon or not port.isdigit():
        host, port = name, "80"
    return {"host": host.strip("[]"), "port": int(port), "weight": weight}


def _mark(node: Mapping[str, Any]) -> str | None:
    metadata = node.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    return mark if isinstance(mark, str) else None


def _url(upstream: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    scheme = "https" if upstream.get("scheme") in ("https", "grpcs") else "http"
    host = str(node["host"]).strip("[]")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{node.get('port', 80)}"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
