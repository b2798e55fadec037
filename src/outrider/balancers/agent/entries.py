"""From what is stored below ``servers/{service}/`` to the servers that the balancer must have; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outrider.balancers.agent.driver import AgentServer
from outrider.balancers.keys import checked_url
from outrider.core.errors import ConfigError, Conflict
from outrider.etcd.seam import Entry
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import WriteGuard, decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The servers.

    Attributes:
        servers: In the order of their ids; no address twice.
        strange: Keys whose entry can't be read. Their servers stay as they were.
    """

    servers: tuple[AgentServer, ...]
    strange: tuple[str, ...] = ()


def wanted_in(entries: Iterable[Entry], prefix: str, before: Mapping[str, AgentServer]) -> Wanted:
    """The servers in ``entries``, which were listed below ``prefix``.

    An entry that can't be read takes no server away: what was read ``before`` stays, or what its write guard says.
    """
    stored = {entry.key.removeprefix(prefix): entry for entry in entries}
    servers: dict[str, AgentServer] = {}
    strange: list[str] = []
    for name, entry in stored.items():
        server_id, slash, kind = name.partition("/")
        if not slash or kind != "entry":
            continue
        server = _server(server_id, entry)
        if server is None:
            strange.append(entry.key)
            server = before.get(server_id) or _guarded(server_id, stored.get(server_id))
        if server is not None and server.url not in {one.url for one in servers.values()}:
            servers[server_id] = server
    return Wanted(servers=tuple(servers[one] for one in sorted(servers)), strange=tuple(strange))


def _server(server_id: str, entry: Entry) -> AgentServer | None:
    try:
        found = decode(ServerEntry, entry.key, entry.value)
        return AgentServer(id=server_id, url=checked_url(found.url), weight=min(256, max(1, found.weight)))
    except (Conflict, ConfigError):
        return None


def _guarded(server_id: str, guard: Entry | None) -> AgentServer | None:
    try:
        url = decode(WriteGuard, guard.key, guard.value).url if guard is not None else None
        return AgentServer(id=server_id, url=checked_url(url)) if url else None
    except (Conflict, ConfigError):
        return None
