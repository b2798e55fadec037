"""Balancers: how an instance's *server* entry gets into the load balancer's configuration, and out of it.

Drivers compute keys and look at the balancer; ``balancers/entry.py`` alone writes to etcd, each change one
fenced transaction, puts before deletes. ``tests/contracts/test_balancers.py`` holds all drivers to the same promises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One instance's entry in the balancer.

    Attributes:
        service: The balancer's name for the app's pool.
        id: Stable across versions, ``[a-z0-9][a-z0-9._-]*``: a swap overwrites, it doesn't add beside.
        url: ``http://host:port`` without a slash at the end.
    """

    service: str
    id: str
    url: str


class Balancer(Protocol):
    """Knows one balancer's keys and how to ask it what it does.

    Attributes:
        name: The product, as in the configuration.
        propagation_s: Longest time from an acknowledged etcd write to its effect, in seconds.
    """

    name: str
    propagation_s: float

    def static_keys(self) -> Mapping[str, str]:
        """Keys of the route and the pool, written once if absent and only if the operator asked for it."""

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """All keys of one server; they are written and removed together, in one transaction."""

    def owned_prefix(self, server_id: str) -> str:
        """Prefix of all that belongs to one server: removed as a range, so no orphan stays behind."""

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The server's address in what was read below ``owned_prefix``; None when it isn't registered."""

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Ask the balancer itself, every instance of it, once and with a time limit.

        Returns:
            True when every balancer sends to all of ``present`` and to none of ``absent`` (addresses); False when
            one surely doesn't yet; None when it can't be told (no API configured, or no answer).
        """
