"""The one writer of balancer keys: each change one transaction, puts before deletes, and fenced when traffic leaves.

Three rules keep a sidekick that was stopped, cut off or cloned from changing the traffic (design, section 5; P2):

- ``switch``, ``leave`` and ``restore`` compare the fence: etcd refuses them once the turn has ended. ``join``, coming
  back, needs none, but takes the entry only when it is absent or holds an address the caller calls its own.
- Every write also compares what was read before it. A write whose answer was lost may still arrive late; after any
  other write to the entry it is refused.
- So after a lost answer the next call writes even if the entry looks right: that is what makes the late one harmless.
  (Only an entry that is away, and shall be, can't be written; there the end of the turn does it.)
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar, assert_never

from outrider.balancers import Balancer, Server
from outrider.cluster.seam import (
    Cluster,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    ModifiedAt,
    Op,
    Put,
    TxnResult,
)
from outrider.core.errors import DriverError, Refused, Unknown

Fence = tuple[Compare, ...]


class Fenced(Refused):
    """The turn has ended: etcd refused the write, and it will refuse it for ever."""

    kind: ClassVar[str] = "fence"


class Occupied(Refused):
    """The entry holds an address that isn't ours: another sidekick uses the same server id."""

    kind: ClassVar[str] = "occupied"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What stood below the server's prefix."""

    entries: tuple[Entry, ...]
    url: str | None

    def unchanged(self, wanted: Collection[str]) -> tuple[Compare, ...]:
        """Comparisons that hold as long as nobody wrote any of these keys, nor created a ``wanted`` one."""
        there = {entry.key for entry in self.entries}
        return (
            *(ModifiedAt(key=entry.key, revision=entry.mod_revision) for entry in self.entries),
            *(ModifiedAt(key=key, revision=0) for key in wanted if key not in there),
        )


class Registration:
    """One server's entry in the balancer. For one thread at a time.

    Every method may raise ``Unknown`` (the answer was lost), ``Refused`` (etcd said no, for example by its
    permissions) and ``DriverError`` (somebody wrote the entry at the same moment; nothing was changed by us).
    Each may be repeated safely.
    """

    def __init__(self, cluster: Cluster, balancer: Balancer, *, service: str, server_id: str) -> None:
        """``service`` and ``server_id`` are the balancer's names; see ``Server``."""
        self._cluster, self._balancer = cluster, balancer
        self._service, self._server_id = service, server_id
        self._prefix = balancer.owned_prefix(server_id)
        self._in_doubt = False

    def current(self) -> str | None:
        """The address that is registered now, None when there is none."""
        return self._read().url

    def ensure_static(self) -> None:
        """Create the keys of route and pool that are absent; see the function ``ensure_static``."""
        ensure_static(self._cluster, self._balancer)

    def switch(self, url: str, *, fence: Fence) -> None:
        """Make ``url`` the entry's address, whatever it was, in one fenced transaction.

        Raises:
            Fenced: ``fence`` doesn't hold any more; nothing was changed. (An entry that holds ``url`` already is
                left as it is, and nothing is raised.)
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet).
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        keys = self._keys_of(url)
        if not keys:
            return
        found = self._read()
        if not self._in_doubt and _is_exactly(found, keys):
            return
        compares = (*fence, *found.unchanged(keys))
        result = self._txn(compares, _overwrite(found, keys), done=lambda now: now.url == url)
        if result is not None and not result.succeeded:
            self._explain(result, fence, done=lambda now: _is_exactly(now, keys))

    def leave(self, *, fence: Fence) -> None:
        """Remove the entry with everything below its prefix, in one fenced transaction.

        Raises:
            Fenced: ``fence`` doesn't hold any more and the entry is there; nothing was changed.
            Unknown: the answer was lost, and the entry is (still) there.
        """
        if not self._prefix:
            return
        found = self._read()
        if not self._in_doubt and not found.entries:
            return
        compares = (*fence, *found.unchanged(()))
        result = self._txn(compares, (DeletePrefix(prefix=self._prefix),), done=lambda now: not now.entries)
        if result is not None and not result.succeeded:
            self._explain(result, fence, done=lambda now: not now.entries)

    def join(self, url: str, *, replacing: Collection[str] = ()) -> None:
        """Put ``url`` in, without a fence: coming back never needs a turn.

        Args:
            url: Where the instance serves.
            replacing: The caller's own former addresses, which may be overwritten.

        Raises:
            Occupied: the entry holds an address that is neither ``url`` nor one of ``replacing``.
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet).
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        keys = self._keys_of(url)
        if not keys:
            return
        found = self._read()
        if not self._in_doubt and _is_exactly(found, keys):
            return
        self._refuse_foreign(found, {url, *replacing})
        result = self._txn(found.unchanged(keys), _overwrite(found, keys), done=lambda now: now.url == url)
        if result is not None and not result.succeeded:
            now = self._read()
            if _is_exactly(now, keys):
                return
            self._refuse_foreign(now, {url, *replacing})
            raise self._changed_meanwhile()

    def restore(self, url: str | None, *, fence: Fence) -> None:
        """Undo a ``switch``: put the old address back, or remove the entry when there was none (``url`` None).

        Raises:
            As ``switch`` and ``leave``.
        """
        if url is None:
            self.leave(fence=fence)
        else:
            self.switch(url, fence=fence)

    def _keys_of(self, url: str) -> dict[str, bytes]:
        server = Server(service=self._service, id=self._server_id, url=url)
        keys = {key: value.encode() for key, value in self._balancer.server_keys(server).items()}
        # leaving and restoring remove the prefix: a key outside of it would stay behind as an orphan
        assert all(self._prefix and key.startswith(self._prefix) for key in keys)
        return keys

    def _read(self) -> _Found:
        if not self._prefix:  # listing the empty prefix would be all of etcd, and removing it too
            return _Found(entries=(), url=None)
        entries = self._cluster.list(self._prefix).entries
        texts = {entry.key: entry.value.decode(errors="replace") for entry in entries}
        return _Found(entries=entries, url=self._balancer.url_of(self._server_id, texts))

    def _txn(self, compares: Fence, ops: tuple[Op, ...], *, done: Callable[[_Found], bool]) -> TxnResult | None:
        """The transaction's result, or None when its answer was lost and reading shows that it is done."""
        try:
            result = self._cluster.txn(compares, ops)
        except Unknown as lost:
            self._in_doubt = True
            if done(self._read()):
                return None
            raise Unknown(
                f"server {self._server_id}: no answer from etcd to the change of {self._prefix}, and it isn't there"
                " yet; it may still arrive"
            ) from lost
        if result.succeeded:
            self._in_doubt = False
        return result

    def _explain(self, result: TxnResult, fence: Fence, *, done: Callable[[_Found], bool]) -> None:
        """Return when what was wanted is so anyhow, else raise why the transaction was refused."""
        broken = not _holds(fence, result.found)
        # once broken, a fence stays broken: no late write of this turn can arrive any more, so reading is proof
        if done(self._read()):
            return
        if broken:
            raise Fenced(
                f"server {self._server_id}: the turn has ended, so {self._prefix} was left as it is; take a new turn"
            )
        raise self._changed_meanwhile()

    def _refuse_foreign(self, found: _Found, own: Collection[str]) -> None:
        if found.url is not None and found.url not in own:
            raise Occupied(
                f"server {self._server_id}: {self._prefix} holds {found.url}, which isn't ours; does another instance"
                " have the same server id? Give each its own, or remove the key"
            )

    def _changed_meanwhile(self) -> DriverError:
        return DriverError(f"server {self._server_id}: {self._prefix} was changed while we wrote it; try again")


def ensure_static(cluster: Cluster, balancer: Balancer) -> None:
    """Create those of the balancer's static keys that are absent, in one transaction; what is there stays as it is.

    Raises:
        DriverError: somebody created some of them at the same moment, and others are missing still.
    """
    keys = balancer.static_keys()
    missing = [key for key in keys if cluster.get(key) is None]
    if not missing:
        return
    result = cluster.txn(
        tuple(CreatedAt(key=key, revision=0) for key in missing),
        tuple(Put(key=key, value=keys[key].encode()) for key in missing),
    )
    if not result.succeeded and any(cluster.get(key) is None for key in missing):
        raise DriverError(f"{balancer.name}: its static keys were changed while we wrote them; try again")


def _overwrite(found: _Found, keys: dict[str, bytes]) -> tuple[Op, ...]:
    """Puts before deletes: a balancer that applies events one by one never sees the server gone."""
    return (
        *(Put(key=key, value=value) for key, value in keys.items()),
        *(Delete(key=entry.key) for entry in found.entries if entry.key not in keys),
    )


def _is_exactly(found: _Found, keys: dict[str, bytes]) -> bool:
    return {entry.key: entry.value for entry in found.entries} == keys


def _holds(compares: Fence, found: tuple[Entry, ...]) -> bool:
    """Whether ``compares`` held, by the entries that were read in the refused transaction."""
    entries = {entry.key: entry for entry in found}
    for compare in compares:
        entry = entries.get(compare.key)
        match compare:
            case CreatedAt(revision=revision):
                actual = entry.create_revision if entry else 0
            case ModifiedAt(revision=revision):
                actual = entry.mod_revision if entry else 0
            case _:
                assert_never(compare)
        if actual != revision:
            return False
    return True
