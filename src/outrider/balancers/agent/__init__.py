"""The balancer ``agent``: HAProxy, nginx, Caddy, Envoy, each with a balancer agent beside it.

The sidekick's side is here: it writes one entry to etcd, fenced, and reads there what the agents have applied. It never
calls a balancer itself: one that was frozen would do so after its turn has ended (P2). The agents' side is
``agent/loop.py`` with a driver for each product; ``outrider balancer-agent`` runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BalancerContext
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.keys import ID, ID_WORDS, checked_url
from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.core.errors import Conflict
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import decode, encode
from outrider.model.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """[agent]: this server in HAProxy, nginx, Caddy or Envoy, when instance.balancer is agent."""

    weight: int = setting(
        1, "Share of the traffic that this server gets beside the others of its service.", least=1, most=256
    )


SETTINGS = AgentSettings
USES = frozenset({"service", "server_id"})


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Names that can't be keys, or that a balancer would choke on."""
    shared = settings.balancer
    if not shared.service:
        return (
            (
                "balancer.service",
                "missing; name the service that the balancer agents are started with, or set instance.balancer to none",
            ),
        )
    return tuple(
        (f"balancer.{key}", f"{name!r}: {ID_WORDS}")
        for key, name in (("service", shared.service), ("server_id", shared.server_id))
        if not ID.fullmatch(name)
    )


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """The instance's entry for the agents of its service, and the word of those agents."""
    from outrider.balancers.agent.observer import AgentObserver

    shared = settings.balancer
    entry = EtcdEntry(
        context.cluster,
        AgentKeys(settings.of(AgentSettings), service=shared.service, keys=context.keys),
        service=shared.service,
        server_id=shared.server_id,
        keys=context.keys,
        owner=context.owner,
        predecessors=context.predecessors,
    )
    observer = AgentObserver(context.cluster, context.keys, service=shared.service, server_id=shared.server_id)
    return Balancer(entry=entry, observer=observer)


class AgentKeys:
    """One key for each server, below that of its write guard."""

    def __init__(self, settings: AgentSettings, *, service: str, keys: Keys) -> None:
        self.name = "agent"
        self._weight, self._service, self._keys = settings.weight, service, keys

    def static_keys(self) -> Mapping[str, str]:
        """None: routes and pools are in the balancer's own configuration."""
        return {}

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """The entry.

        Raises:
            ConfigError: an address that a balancer wouldn't take.
        """
        entry = ServerEntry(url=checked_url(server.url), weight=self._weight)
        return {self._keys.server_entry(self._service, server.id): encode(entry).decode()}

    def owned_prefix(self, server_id: str) -> str:
        """``servers/{service}/{id}/``: by its slash ``web-1`` isn't ``web-10``'s."""
        return f"{self._keys.server(self._service, server_id)}/"

    def pool(self) -> tuple[str, str]:
        """As ``KeyLayout.pool``: of sidekicks alone, for the balancer's own configuration isn't in etcd."""
        return self._keys.servers(self._service), r"(?P<id>[^/]+)/(?P<rest>.+)"

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address in the entry; None when there is none, or one that can't be read."""
        key = self._keys.server_entry(self._service, server_id)
        try:
            return decode(ServerEntry, key, found[key].encode()).url if key in found else None
        except Conflict:
            return None
