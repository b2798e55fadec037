"""The key layout of a balancer that reads its servers from etcd itself."""

from collections.abc import Mapping
from typing import Protocol

from outrider.balancers import Server


class KeyLayout(Protocol):
    """Computes keys; ``EtcdEntry`` alone writes them.

    Attributes:
        name: The product, for error lines.
    """

    name: str

    def static_keys(self) -> Mapping[str, str]:
        """Keys of the route and the pool, written once if absent and only if the operator asked for it."""

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """All keys of one server; they are written and removed together, in one transaction."""

    def owned_prefix(self, server_id: str) -> str:
        """Prefix of all that belongs to one server: removed as a range, so no orphan stays behind."""

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The server's address in what was read below ``owned_prefix``; None when it isn't registered."""
