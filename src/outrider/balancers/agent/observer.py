"""What the balancer agents of a service say about one server, as its sidekick reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outrider.core.errors import Conflict, DriverError
from outrider.etcd.seam import Cluster
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.damage import read_or_none
from outrider.model.documents import decode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What all agents together say.

    Attributes:
        confirmed: As ``Observer.confirm``.
        doubts: A line for each agent that does not follow, or is unknown.
        open_requests: Requests open to the addresses that were asked about; None when some agent doesn't know.
    """

    confirmed: bool | None
    doubts: tuple[str, ...] = ()
    open_requests: int | None = None


class AgentObserver:
    """Reads what the agents have applied at or after the last change of this server's entry."""

    def __init__(self, cluster: Cluster, keys: Keys, *, service: str, server_id: str) -> None:
        """Nothing is read yet."""
        self.name = "agent"
        self.propagation_s = 0.0
        self.exact = True
        self._cluster, self._keys = cluster, keys
        self._service, self._server_id = service, server_id
        self._doubt = ""

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """See ``Observer.confirm``. An agent that is registered and doesn't live is unknown."""
        return self._hear(present, absent).confirmed

    def doubt(self) -> str:
        """The agents that do not follow or are unknown, by name."""
        return self._doubt

    def open_requests(self, urls: frozenset[str]) -> int | None:
        """The sum over all agents; None when one doesn't know."""
        return self._hear(frozenset(), urls).open_requests

    def _hear(self, present: frozenset[str], absent: frozenset[str]) -> Heard:
        keys = self._keys
        try:
            guard = self._cluster.get(keys.server(self._service, self._server_id))
            epoch = self._cluster.get(keys.epoch())
            registered = self._cluster.list(keys.agents(self._service)).entries
            applied = self._cluster.list(keys.applied_by(self._service)).entries
            present_epoch = decode(Epoch, epoch.key, epoch.value) if epoch is not None else None
        except (DriverError, Conflict) as error:
            self._doubt = str(error)
            return Heard(confirmed=None)
        heard = judge(
            {each.key.rpartition("/")[2]: read_or_none(Agent, each.key, each.value) for each in registered},
            {
                each.key.rpartition("/")[2]: document
                for each in applied
                if (document := read_or_none(Applied, each.key, each.value)) is not None
            },
            service=self._service,
            revision=guard.mod_revision if guard is not None else 0,
            epochs=(*present_epoch.earlier, present_epoch.token) if present_epoch is not None else ("",),
            present=present,
            absent=absent,
        )
        self._doubt = "; ".join(heard.doubts)
        return heard


def judge(
    registered: Mapping[str, Agent | None],
    applied: Mapping[str, Applied],
    *,
    service: str,
    revision: int,
    epochs: Iterable[str],
    present: frozenset[str],
    absent: frozenset[str],
) -> Heard:
    """What the agents' words amount to.

    Args:
        registered: Agents that must be heard, by name; None where a registration can't be read.
        applied: What the living ones have applied.
        service: For the words.
        revision: Of the last change; what was applied before it says nothing.
        epochs: Tokens of the present epoch; ``("",)`` when there is none.
        present, absent: Addresses that must, and must not, get new requests.
    """
    if not registered:
        return Heard(
            confirmed=None,
            doubts=(f"no balancer agent of the service {service} is registered; start `outrider balancer-agent`",),
        )
    known_epochs = frozenset(epochs)
    unknown: list[str] = []
    unmoved: list[str] = []
    counts: list[int | None] = []
    for name, agent in sorted(registered.items()):
        who = f"balancer agent {name}" + (f" ({agent.balancer} on {agent.machine})" if agent is not None else "")
        told = applied.get(name)
        if told is None:
            unknown.append(
                f"{who} isn't running: start it, or `outrider balancer-agent remove {service} {name}` if it is gone"
                " for good"
            )
        elif told.epoch not in known_epochs:
            unknown.append(f"{who} has not read etcd anew since it was restored")
        elif told.away:
            unknown.append(f"{who}: {told.problem}")
        elif told.problem or told.revision < revision:
            unmoved.append(f"{who}: {told.problem or 'has not applied the change yet'}")
        elif not present <= set(told.serving) or absent & set(told.serving):
            unmoved.append(f"{who}: its balancer sends to {', '.join(told.serving) or 'no server'}")
        else:
            counts += [told.draining.get(url, 0) for url in absent]
            continue
        counts.append(None)
    known = [count for count in counts if count is not None]
    return Heard(
        confirmed=False if unmoved else None if unknown else True,
        doubts=(*unmoved, *unknown),
        open_requests=sum(known) if len(known) == len(counts) else None,
    )
