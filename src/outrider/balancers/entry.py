"""The one writer of balancer keys: each change one transaction, puts before deletes, and fenced when traffic leaves.

Three rules keep a sidekick that was stopped, cut off or cloned from changing the traffic (design, section 5; P2):

- ``switch``, ``leave`` and ``restore`` compare the fence: etcd refuses them once the turn has ended. ``join``, coming
  back, needs none, but takes the entry only when it is absent or holds an address the caller calls its own.
- Every write also compares what was read before it, and the *write guard*: a key of ours beside the balancer's, which
  every call writes. A write whose answer was lost, or whose sender was killed, may still arrive late; after any later
  call, of whichever process, it is refused.
- So a call writes the write guard even if the entry looks right: that is what makes the late ones harmless. The
  balancer doesn't notice, for nothing below its root is written then, and an entry that is away, and shall be, has a
  write guard too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, assert_never

from outrider.balancers import Fence, Server
from outrider.balancers.keys import KeyLayout
from outrider.core.errors import DriverError, Refused, Unknown
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, DeletePrefix, ModifiedAt, Op, Put
from outrider.etcd.seam import Entry as StoredKey
from outrider.failpoints import failpoint
from outrider.model.documents import WriteGuard, encode
from outrider.model.keys import Keys

DEFAULT_KEYS = Keys()


class Fenced(Refused):
    """The turn has ended: etcd refused the write, and it will refuse it forever."""

    kind: ClassVar[str] = "fence"


class Occupied(Refused):
    """The entry holds an address that isn't ours: another sidekick uses the same server id."""

    kind: ClassVar[str] = "occupied"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What stood below the server's prefix, and the write guard's mod revision (0: none yet)."""

    entries: tuple[StoredKey, ...]
    url: str | None
    guard: int

    def is_exactly(self, keys: Mapping[str, bytes]) -> bool:
        return {entry.key: entry.value for entry in self.entries} == keys

    def unchanged(self, wanted: Collection[str]) -> tuple[Compare, ...]:
        """Comparisons that hold while none of these keys is written and no ``wanted`` one is created."""
        there = {entry.key for entry in self.entries}
        return (
            *(ModifiedAt(key=entry.key, revision=entry.mod_revision) for entry in self.entries),
            *(ModifiedAt(key=key, revision=0) for key in wanted if key not in there),
        )

    def overwritten(self, keys: Mapping[str, bytes]) -> tuple[Op, ...]:
        """Puts before deletes: a balancer that applies events one by one never sees the server gone."""
        return (
            *(Put(key=key, value=value) for key, value in keys.items()),
            *(Delete(key=entry.key) for entry in self.entries if entry.key not in keys),
        )


class EtcdEntry:
    """One server's entry in the balancer, under the keys of a layout; implements ``Entry``. For one thread at a time.

    Every method may raise ``Unknown`` (the answer was lost), ``Refused`` (etcd said no, for example by its
    permissions) and ``DriverError`` (somebody wrote the entry at the same moment; nothing was changed by us).
    Each may be repeated safely, and once it has returned, nothing that was sent before it can happen any more.
    """

    def __init__(
        self, cluster: Cluster, layout: KeyLayout, *, service: str, server_id: str, keys: Keys = DEFAULT_KEYS
    ) -> None:
        """``service`` and ``server_id`` are the balancer's names; see ``Server``. ``keys`` says where its guard is."""
        self._cluster, self._layout = cluster, layout
        self._service, self._server_id = service, server_id
        self._prefix = layout.owned_prefix(server_id)
        assert self._prefix, "listing the empty prefix would be all of etcd, and removing it too"
        self._guard_key = keys.server(service, server_id)

    def current(self) -> str | None:
        """The address that is registered now, None when there is none."""
        return self._read().url

    def ensure_static(self) -> None:
        """Create the keys of route and pool that are absent; see the function ``ensure_static``."""
        ensure_static(self._cluster, self._layout)

    def switch(self, url: str, *, fence: Fence) -> None:
        """Make ``url`` the entry's address, whatever it was, in one fenced transaction.

        Raises:
            Fenced: ``fence`` doesn't hold any more; nothing was changed. (An entry that holds ``url`` already is
                left as it is, and nothing is raised.)
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet), or an earlier change of it may
                still arrive.
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        keys, found = self._keys_of(url), self._read()
        self._write(found, url, keys, found.overwritten(keys), fence)

    def leave(self, *, fence: Fence) -> None:
        """Remove the entry with everything below its prefix, in one fenced transaction.

        Raises:
            Fenced: ``fence`` doesn't hold any more and the entry is there; nothing was changed.
            Unknown: the answer was lost, and the entry is (still) there, or an earlier change of it may still arrive.
        """
        self._write(self._read(), None, {}, (DeletePrefix(prefix=self._prefix),), fence)

    def join(self, url: str, *, replacing: Collection[str] = ()) -> None:
        """Put ``url`` in, without a fence: coming back never needs a turn.

        Args:
            url: Where the instance serves.
            replacing: The caller's own former addresses, which may be overwritten.

        Raises:
            Occupied: the entry holds an address that is neither ``url`` nor one of ``replacing``.
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet), or an earlier change of it may
                still arrive.
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        keys, found = self._keys_of(url), self._read()
        self._refuse_foreign(found, {url, *replacing})
        self._write(found, url, keys, found.overwritten(keys), (), own=frozenset({url, *replacing}))

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
        keys = {key: value.encode() for key, value in self._layout.server_keys(server).items()}
        # leaving and restoring remove the prefix: a key outside of it would stay behind as an orphan
        assert keys, "a server without a key would be a removed one"
        assert all(key.startswith(self._prefix) for key in keys)
        return keys

    def _read(self) -> _Found:
        with failpoint("entry.read"):
            entries = self._cluster.list(self._prefix).entries
        texts = {entry.key: entry.value.decode(errors="replace") for entry in entries}
        guard = self._cluster.get(self._guard_key)
        return _Found(
            entries=entries,
            url=self._layout.url_of(self._server_id, texts),
            guard=guard.mod_revision if guard is not None else 0,
        )

    def _write(
        self,
        found: _Found,
        url: str | None,
        keys: Mapping[str, bytes],
        ops: tuple[Op, ...],
        fence: Fence,
        *,
        own: Collection[str] | None = None,
    ) -> None:
        """Make what was ``found`` into ``keys`` by ``ops``, and renew its guard; ``own`` as for ``_refuse_foreign``."""
        guard = Put(key=self._guard_key, value=encode(WriteGuard(url=url)))
        same = ModifiedAt(key=self._guard_key, revision=found.guard)
        changes = () if found.is_exactly(keys) else ops
        point = "entry.write" if keys else "entry.remove"
        try:
            with failpoint(point):
                result = self._cluster.txn((*fence, *found.unchanged(keys), same), (guard, *changes))
        except Unknown as lost:
            now = self._read()
            if now.is_exactly(keys) and now.guard != found.guard:
                return
            raise Unknown(
                f"server {self._server_id}: no answer from etcd to the change of {self._prefix}, and it isn't there"
                " yet; it may still arrive"
            ) from lost
        if result.succeeded:
            return
        now = self._read()
        if own is not None:
            self._refuse_foreign(now, own)
        # once broken, a fence stays broken: no late write of this turn can arrive any more
        broken = not _holds(fence, result.found)
        if not now.is_exactly(keys):
            if broken:
                raise Fenced(
                    f"server {self._server_id}: the turn has ended, so {self._prefix} was left as it is; take a new"
                    " turn"
                )
            raise self._changed_meanwhile()
        if now.guard == found.guard:
            # what was wanted is so without us: that needs no turn, but what isn't fenced may still be on its way
            same = ModifiedAt(key=self._guard_key, revision=now.guard)
            with failpoint(point):
                guarded = self._cluster.txn((*now.unchanged(keys), same), (guard,))
            if not guarded.succeeded:
                raise self._changed_meanwhile()

    def _refuse_foreign(self, found: _Found, own: Collection[str]) -> None:
        if found.url is not None and found.url not in own:
            raise Occupied(
                f"server {self._server_id}: {self._prefix} holds {found.url}, which isn't ours; does another instance"
                " have the same server id? Give each its own, or remove the key"
            )

    def _changed_meanwhile(self) -> DriverError:
        return DriverError(f"server {self._server_id}: {self._prefix} was changed while we wrote it; try again")


def ensure_static(cluster: Cluster, layout: KeyLayout) -> None:
    """Create those of the layout's static keys that are absent, in one transaction; what is there stays as it is.

    Raises:
        DriverError: somebody created some of them at the same moment, and others are missing still.
    """
    keys = layout.static_keys()
    missing = [key for key in keys if cluster.get(key) is None]
    if not missing:
        return
    with failpoint("static.write"):
        result = cluster.txn(
            tuple(CreatedAt(key=key, revision=0) for key in missing),
            tuple(Put(key=key, value=keys[key].encode()) for key in missing),
        )
    if not result.succeeded and any(cluster.get(key) is None for key in missing):
        raise DriverError(f"{layout.name}: its static keys were changed while we wrote them; try again")


def _holds(compares: Fence, found: tuple[StoredKey, ...]) -> bool:
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
