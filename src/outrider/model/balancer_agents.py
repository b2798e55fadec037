"""What sidekicks and balancer agents tell each other: a server's entry, an agent's registration, what it has applied.

A sidekick writes the entry, in one fenced transaction with its write guard. The agent applies it, and writes down what
its balancer does since. The sidekick believes that only when it is at or after its own write, in the present epoch.
"""

from datetime import datetime

import msgspec

from outrider.model.documents import Document


class ServerEntry(Document, frozen=True, kw_only=True):
    """``servers/{service}/{server}/entry``: where the balancers find one server. Who wrote it is in the write guard.

    An address that no entry has any more gets no new session; those that it has go on.

    Attributes:
        url: ``http://host:port`` without a slash at its end.
        weight: Share of the traffic beside the other servers'.
    """

    url: str
    weight: int = 1


class Agent(Document, frozen=True, kw_only=True):
    """``agents/{service}/{agent}``, without a lease: every sidekick of the service waits for this agent's word.

    Attributes:
        balancer: Name of its driver.
        machine: Name of its host, for people.
        had_servers: The agent has seen servers since it was registered. Without that, an empty etcd is a new
            one or was emptied, and says nothing about the servers.
    """

    service: str
    name: str
    balancer: str
    machine: str = ""
    had_servers: bool = False
    since: datetime


class Applied(Document, frozen=True, kw_only=True):
    """``applied/{service}/{agent}``, under the agent's lease: what its balancer does.

    Attributes:
        process: The agent's process; see ``agent/claim.py``.
        epoch: Token of ``cluster/epoch`` when the entries were read; empty: there was none.
        revision: etcd's revision at which the entries were read that the balancer follows.
        serving: Addresses that get new requests.
        draining: Addresses that get none any more -> requests that are open there; null: the balancer doesn't count.
        version: The balancer's own.
        outrider: Version of outrider that the agent runs; empty: one too old to say so.
        problem: Why it doesn't follow, for people; empty when it does.
        away: The balancer doesn't answer, so nothing is known of it.
    """

    service: str
    name: str
    process: str
    machine: str = ""
    epoch: str = ""
    revision: int
    serving: tuple[str, ...] = ()
    draining: dict[str, int | None] = msgspec.field(default_factory=dict)
    version: str = ""
    outrider: str = ""
    problem: str = ""
    away: bool = False
    at: datetime
