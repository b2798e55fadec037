"""The balancer ``none``: the instance has no entry anywhere, or something else looks after it.

Nothing is ever written, whatever ``[balancer]`` says. Everything is confirmed at once, so draining is only the wait for
requests under way.
"""

from collections.abc import Collection

from outrider.balancers import Balancer, Fence
from outrider.balancers.drivers import BalancerContext
from outrider.config.drivers import Problem
from outrider.config.sections import Settings

SETTINGS = None
USES: frozenset[str] = frozenset()


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Nothing is needed."""
    return ()


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """Two sides that do nothing and agree with everything."""
    return Balancer(entry=NoEntry(), observer=NoObserver())


class NoEntry:
    """An entry that isn't."""

    def ensure_static(self) -> None:
        """No route, no pool."""

    def switch(self, url: str, *, fence: Fence) -> None:
        """Nothing to write."""

    def leave(self, *, fence: Fence) -> None:
        """Nothing to remove."""

    def join(self, url: str, *, replacing: Collection[str] = ()) -> None:
        """Nothing to write."""

    def restore(self, url: str | None, *, fence: Fence) -> None:
        """Nothing to write."""


class NoObserver:
    """Confirms everything."""

    def __init__(self) -> None:
        """Nothing to set."""
        self.name = "none"
        self.propagation_s = 0.0

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Always true: there is no balancer to reach."""
        return True
