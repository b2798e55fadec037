"""The balancers that ``instance.balancer`` can name. A new one is a line here and a kit in ``tests/contracts/kits``."""

from dataclasses import dataclass
from typing import Protocol

from outrider.balancers import Balancer
from outrider.config.drivers import Driver, DriverTable
from outrider.config.sections import Settings
from outrider.etcd.seam import Cluster
from outrider.model.documents import Owner
from outrider.model.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerContext:
    """What a balancer is made of besides its settings.

    Attributes:
        owner: Who writes the server's entry.
        predecessors: Processes of the same instance that surely have ended.
    """

    cluster: Cluster
    keys: Keys
    owner: Owner | None = None
    predecessors: tuple[str, ...] = ()


class BalancerDriver(Driver, Protocol):
    """A module that makes a balancer."""

    @property
    def USES(self) -> frozenset[str]:  # noqa: N802 - a module's constant
        """Which keys of ``[balancer]`` have an effect with it."""

    def make(self, settings: Settings, context: BalancerContext) -> Balancer:
        """The balancer of ``settings.instance``; nothing is written or contacted yet."""


BALANCERS: DriverTable[BalancerDriver] = DriverTable(
    chosen_by="instance.balancer",
    modules={
        "traefik": "outrider.balancers.traefik",
        "agent": "outrider.balancers.agent",
        "vulcand": "outrider.balancers.vulcand",
        "apisix": "outrider.balancers.apisix",
        "keys": "outrider.balancers.templates",
        "none": "outrider.balancers.none",
    },
    products=dict.fromkeys(("haproxy", "nginx", "caddy", "envoy", "balancer-agent"), "agent"),
)
