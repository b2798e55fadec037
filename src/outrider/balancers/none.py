"""No balancer: the instance has no entry anywhere, or something else looks after it.

Everything is confirmed at once, so draining is only the wait for requests under way.
"""

from collections.abc import Mapping

from outrider.balancers import Server


class NoBalancer:
    """A balancer without keys; nothing is ever written for it."""

    def __init__(self) -> None:
        """Nothing to set."""
        self.name = "none"
        self.propagation_s = 0.0

    def static_keys(self) -> Mapping[str, str]:
        """No route, no pool."""
        return {}

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """No entry."""
        return {}

    def owned_prefix(self, server_id: str) -> str:
        """The empty text: nothing is owned. ``Registration`` reads and removes nothing then."""
        return ""

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """Never registered."""
        return None

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Always true: nothing has to reach anybody."""
        return True
