"""The balancer ``none``: the instance has no entry anywhere, or something else looks after it.

Nothing is ever written, whatever ``[balancer]`` says. Everything is confirmed at once, so draining is only the wait for
requests under way.
"""

from collections.abc import Collection, Mapping

from outrider.balancers import Balancer, Fence
from outrider.balancers.drivers import BalancerContext
from outrider.config.drivers import Problem
from outrider.config.sections import Settings
from outrider.etcd.seam import Entry as StoredKey

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

    watched = ""
    guard = ""

    def url_in(self, entries: Mapping[str, StoredKey]) -> str | None:
        """No server."""
        return None

    def ensure_static(self) -> None:
        """No route, no pool."""

    def switch(self, url: str, *, fence: Fence, workload: str = "") -> int:
        """Nothing to write."""
        return 0

    def leave(self, *, fence: Fence) -> int:
        """Nothing to remove."""
        return 0

    def join(self, url: str, *, replacing: Collection[str] = (), workload: str = "") -> int:
        """Nothing to write."""
        return 0

    def restore(self, url: str | None, *, fence: Fence, workload: str = "") -> int:
        """Nothing to write."""
        return 0


class NoObserver:
    """Confirms everything."""

    def __init__(self) -> None:
        """Nothing to set."""
        self.name = "none"
        self.propagation_s = 0.0
        self.exact = False

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Always true: there is no balancer to reach."""
        return True

    def doubt(self) -> str:
        """Nothing."""
        return ""

    def open_requests(self, urls: frozenset[str]) -> int | None:
        """None: nobody counts them."""
        return None
