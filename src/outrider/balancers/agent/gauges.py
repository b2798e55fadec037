"""What a balancer agent tells Prometheus of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outrider import __version__
from outrider.metrics import Sample
from outrider.model.balancer_agents import Applied

_P = "outrider_agent_"
HELPS: Mapping[str, str] = {
    f"{_P}info": "1, with the version of outrider, the balancer's own version and the name of the machine.",
    f"{_P}registered": "1 while the agent has its name under its lease.",
    f"{_P}etcd_connected": "1 while its lease in etcd can be trusted.",
    f"{_P}balancer_up": "1 while the balancer answers and does what is stored in etcd.",
    f"{_P}serving": "Servers to which the balancer sends new requests.",
    f"{_P}draining": "Servers that get no new requests and still have some, or may have.",
    f"{_P}open_requests": "Requests that are open there; absent where the balancer doesn't count.",
    f"{_P}applied_revision": "Revision of etcd at which the entries were written that the balancer follows.",
    f"{_P}applied_seconds": "Seconds since the agent last looked after the balancer.",
}
"""Name of each metric -> what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentGauges:
    """What is measured of one service at one moment.

    Attributes:
        told: What it has written to etcd; None: nothing yet.
        looked_s: Seconds since its last whole round; None: none yet.
    """

    service: str
    name: str
    balancer: str
    machine: str
    is_held: bool
    is_connected: bool
    told: Applied | None
    looked_s: float | None


def samples(found: AgentGauges) -> Iterator[Sample]:
    """All metrics of one service."""
    us = {"service": found.service, "agent": found.name, "balancer": found.balancer}

    def sample(name: str, value: float, **labels: str) -> Sample:
        return Sample(name=f"{_P}{name}", value=float(value), labels={**us, **labels})

    told = found.told
    version = told.version if told is not None else ""
    yield sample("info", 1, outrider=__version__, version=version, machine=found.machine)
    yield sample("registered", found.is_held)
    yield sample("etcd_connected", found.is_connected)
    if found.looked_s is not None:
        yield sample("applied_seconds", found.looked_s)
    if told is None:
        return
    yield sample("balancer_up", not told.problem and not told.away)
    yield sample("serving", len(told.serving))
    yield sample("draining", len(told.draining))
    yield sample("applied_revision", told.revision)
    counted = [count for count in told.draining.values() if count is not None]
    if len(counted) == len(told.draining):
        yield sample("open_requests", sum(counted))
