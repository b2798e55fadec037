"""vulcand with its etcd v3 engine (``-etcdApiVer=3 -etcdKey=/vulcand``): the guide's balancer, unmaintained since 2023.

Rules that come from vulcand (measured on 0.9, see ``docs/use/balancers.md``):

- A server is one key, ``backends/{backend}/servers/{server}``, and needs its backend: one that comes before it makes a
  default backend, which a restart doesn't know.
- Events are applied one by one, in the order of the transaction: puts come before deletes.
- Its snapshot at a start reads ``backends/{backend}`` without a slash at the end: of two backends where one's name
  begins with the other's, the shorter one gets the servers of both. So such names are refused.
- Its API answers from etcd, not from what it serves: nothing there confirms a change. It follows within 8 ms.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BalancerContext
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.keys import ID, ID_WORDS, checked_url
from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.core.errors import ConfigError, Refused
from outrider.etcd.seam import Cluster

_BACKEND = re.compile(r"backends/([^/]+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class VulcandSettings:
    """[vulcand]: vulcand's own facts, when instance.balancer is vulcand."""

    root: str = setting(
        "/vulcand",
        "vulcand's -etcdKey, with the slash at its beginning.",
        pattern=r"/[^\s]*[^/\s]",
        wanted="a key such as /vulcand, without a slash at its end",
        empty=False,
    )
    route: str = setting("", "Route of the frontend; with it the frontend is written if it is absent.")
    propagation_s: float = setting(0.5, "Longest time until vulcand follows a change.", least=0)


SETTINGS = VulcandSettings
USES = frozenset({"service", "server_id"})


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Names that can't be in its keys."""
    shared = settings.balancer
    if not shared.service:
        return (("balancer.service", "missing; name the app's backend in vulcand, or set instance.balancer to none"),)
    return tuple(_problems(shared.service, shared.server_id))


def _problems(service: str, server_id: str) -> Iterator[Problem]:
    for key, name in (("service", service), ("server_id", server_id)):
        if not ID.fullmatch(name):
            yield f"balancer.{key}", f"{name!r}: {ID_WORDS}"


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """The instance's server in vulcand's backend."""
    own, shared = settings.of(VulcandSettings), settings.balancer
    entry = VulcandEntry(
        context.cluster,
        VulcandKeys(own, service=shared.service),
        service=shared.service,
        server_id=shared.server_id,
        keys=context.keys,
        owner=context.owner,
        predecessors=context.predecessors,
    )
    entry.look_for_neighbours(context.cluster, own.root, shared.service)
    return Balancer(entry=entry, observer=ByTime("vulcand", own.propagation_s))


class VulcandKeys:
    """Computes the keys of one vulcand backend."""

    def __init__(self, settings: VulcandSettings, *, service: str) -> None:
        self.name = "vulcand"
        self._service, self._root, self._route = service, settings.root, settings.route.strip()

    def static_keys(self) -> Mapping[str, str]:
        """The backend, which every server needs, and with a route the frontend, behind it: it is dropped before it."""
        keys = {f"{self._root}/backends/{self._service}/backend": _json({"Type": "http"})}
        if self._route:
            frontend = {"Type": "http", "BackendId": self._service, "Route": self._route}
            keys[f"{self._root}/frontends/{self._service}/frontend"] = _json(frontend)
        return keys

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """The server's one key.

        Raises:
            ConfigError: an id or an address that vulcand wouldn't take, or another service than ours.
        """
        if server.service != self._service:
            raise ConfigError(f"server {server.id}: its service is {server.service!r}, ours is {self._service!r}")
        return {self.owned_prefix(server.id): _json({"URL": checked_url(server.url)})}

    def owned_prefix(self, server_id: str) -> str:
        """``{root}/backends/{service}/servers/{id}``: the key itself."""
        if not ID.fullmatch(server_id):
            raise ConfigError(f"server id {server_id!r}: {ID_WORDS}")
        return f"{self._root}/backends/{self._service}/servers/{server_id}"

    def pool(self) -> tuple[str, str]:
        """As ``KeyLayout.pool``."""
        return f"{self._root}/backends/{self._service}/servers/", r"(?P<id>[^/]+)(?P<rest>)"

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address in the key's JSON."""
        try:
            told = json.loads(found.get(self.owned_prefix(server_id), ""))
            return str(told["URL"]).rstrip("/") or None
        except (ValueError, KeyError, TypeError):
            return None


class VulcandEntry(EtcdEntry):
    """An entry that is written only where no other backend's name can be mixed up with ours."""

    _neighbours: tuple[Cluster, str, str]

    def look_for_neighbours(self, cluster: Cluster, root: str, service: str) -> None:
        """Say where to look, before each time that the static keys are made sure of."""
        self._neighbours = cluster, root, service

    def ensure_static(self) -> None:
        """As ``EtcdEntry``, after a look at the other backends.

        Raises:
            Refused: the name of one begins with ours, or ours with its.
        """
        cluster, root, service = self._neighbours
        names = {
            match[1]
            for entry in cluster.list(f"{root}/backends/").entries
            if (match := _BACKEND.match(entry.key.removeprefix(f"{root}/")))
        }
        for name in sorted(names - {service}):
            if name.startswith(service) or service.startswith(name):
                raise Refused(
                    f"vulcand has a backend {name!r}, and of two names where one begins with the other it mixes up the"
                    f" servers when it starts: give one of {service!r} and {name!r} another name",
                    evidence="wrong-setting",
                )
        super().ensure_static()


class ByTime:
    """Nobody can be asked: only time tells that a change has arrived."""

    def __init__(self, name: str, propagation_s: float) -> None:
        self.name, self.propagation_s, self.exact = name, propagation_s, False

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Never known."""
        return None

    def doubt(self) -> str:
        """Nobody."""
        return ""

    def open_requests(self, urls: frozenset[str]) -> int | None:
        """Not counted."""
        return None


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
