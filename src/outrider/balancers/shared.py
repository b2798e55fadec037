"""An entry that is a part of a value which all servers share, as APISIX has it: one key for a whole pool.

It keeps the rules of ``EtcdEntry``. Every write compares the revision of the value that it was made from, besides the
fence and our own write guard, so that no server of another instance is lost. Who comes second reads again, a bounded
number of times: each time that it fails another one has succeeded.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from outrider.balancers import Fence, Server
from outrider.balancers.entry import Changed, EtcdEntry, Found
from outrider.balancers.keys import KeyLayout
from outrider.etcd.seam import Op
from outrider.model.documents import Owner, WriteGuard

TRIES = 16
"""As many instances may write at the same moment; more only when a service's groups have that many turns together."""


class SharedLayout(KeyLayout, Protocol):
    """The layout of a value with many servers. ``owned_prefix`` is its key, for each of them."""

    def with_server(self, value: bytes | None, server: Server) -> bytes:
        """The value with ``server`` in it, in place of one of the same id; the same bytes when it is so already.

        Raises:
            Refused: ``value`` isn't what the balancer reads.
        """

    def servers(self, value: bytes) -> dict[str, str]:
        """Id -> address of each server; one that has no id is called by its address.

        Raises:
            Refused: as ``with_server``.
        """

    def without_server(self, value: bytes, server_id: str) -> bytes:
        """The value without that server; the same bytes when it isn't there.

        Raises:
            Refused: as ``with_server``.
        """


class SharedEntry(EtcdEntry):
    """Implements ``Entry``."""

    layout: SharedLayout

    def switch(self, url: str, *, fence: Fence, workload: str = "") -> int:
        """As ``EtcdEntry.switch``."""
        return _again(lambda: super(SharedEntry, self).switch(url, fence=fence, workload=workload))

    def leave(self, *, fence: Fence) -> int:
        """As ``EtcdEntry.leave``: the value stays, without the server."""
        return _again(lambda: super(SharedEntry, self).leave(fence=fence))

    def join(self, url: str, *, replacing: Collection[str] = (), workload: str = "") -> int:
        """As ``EtcdEntry.join``."""
        return _again(lambda: super(SharedEntry, self).join(url, replacing=replacing, workload=workload))

    def _wanted(self, found: Found, url: str | None) -> dict[str, bytes]:
        before = next((entry.value for entry in found.entries), None)
        if url is not None:
            server = Server(service=self._service, id=self._server_id, url=url)
            return {self._prefix: self.layout.with_server(before, server)}
        return {} if before is None else {self._prefix: self.layout.without_server(before, self._server_id)}

    def _guarded(self, url: str | None, owner: Owner | None) -> WriteGuard:
        return WriteGuard(url=url, owner=owner, shared=self._prefix)

    def _ops(self, found: Found, wanted: Mapping[str, bytes]) -> tuple[Op, ...]:
        return found.overwritten(wanted)


def _again(change: Callable[[], int]) -> int:
    for _ in range(TRIES - 1):
        try:
            return change()
        except Changed:
            continue
    return change()
