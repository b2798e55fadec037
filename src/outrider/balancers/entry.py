"""The one writer of balancer keys: each change one transaction, puts before deletes, and fenced when traffic leaves.

Three rules keep a sidekick that was stopped, cut off or cloned from changing the traffic (design, section 5; P2):

- ``switch``, ``leave`` and ``restore`` compare the fence: etcd refuses them once the turn has ended. ``join``, coming
  back, needs none.
- Each of them refuses an entry whose *owner* is another sidekick with a presence; the owner stands in the write guard.
  So two sidekicks never fight over an entry, and the owner may put right what a person, or a restore of etcd, made of
  it. An entry without a known owner is taken by ``join`` only when it is absent or holds an address that the caller
  calls its own.
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

import msgspec

from outrider.balancers import Fence, Server
from outrider.balancers.keys import KeyLayout
from outrider.core.errors import Conflict, DriverError, Refused, Unknown
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, DeletePrefix, ModifiedAt, NotNewer, Op, Put
from outrider.etcd.seam import Entry as StoredKey
from outrider.failpoints import failpoint
from outrider.model.documents import Owner, Presence, WriteGuard, decode, encode
from outrider.model.keys import Keys

DEFAULT_KEYS = Keys()


class Fenced(Refused):
    """The turn has ended: etcd refused the write, and it will refuse it forever."""

    kind: ClassVar[str] = "fence"


class Twin(DriverError):
    """Another sidekick is the same instance, and owns the entry: it may end any moment, so trying again may help."""

    kind: ClassVar[str] = "twin"


class Changed(DriverError):
    """Somebody wrote the entry at the same moment; nothing was changed by us."""


class Gone(Refused):
    """The instance was removed for good, and may put nothing in."""

    kind: ClassVar[str] = "gone"


class Occupied(Refused):
    """The entry is another living sidekick's, or holds an address that isn't ours."""

    kind: ClassVar[str] = "occupied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What stood below the server's prefix, and the write guard's mod revision (0: none yet) and owner."""

    entries: tuple[StoredKey, ...]
    url: str | None
    guard: int
    owner: Owner | None

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
        self,
        cluster: Cluster,
        layout: KeyLayout,
        *,
        service: str,
        server_id: str,
        keys: Keys = DEFAULT_KEYS,
        owner: Owner | None = None,
        predecessors: Collection[str] = (),
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            cluster: Where the entry and its guard are.
            layout: Which keys the balancer wants.
            service: The balancer's name for the app's pool.
            server_id: The balancer's name for the server; see ``Server``.
            keys: Where the guard is.
            owner: Who writes; None: nobody known, and then every owner with a presence is another.
            predecessors: Processes of the same instance that surely have ended: what was theirs is the owner's.
        """
        self._cluster, self.layout, self._keys = cluster, layout, keys
        self._owner, self._ours = owner, frozenset(predecessors)
        if owner is not None:
            self._ours |= {owner.process}
        self._service, self._server_id = service, server_id
        self._prefix = layout.owned_prefix(server_id)
        assert self._prefix, "listing the empty prefix would be all of etcd, and removing it too"
        self._guard_key = keys.server(service, server_id)

    @property
    def watched(self) -> str:
        """Prefix of the keys in which the balancer finds the server."""
        return self._prefix

    @property
    def guard(self) -> str:
        """Key of the write guard."""
        return self._guard_key

    def url_in(self, entries: Mapping[str, StoredKey]) -> str | None:
        """The address in what was read below ``watched``; None: the server isn't registered."""
        texts = {key: entry.value.decode(errors="replace") for key, entry in entries.items()}
        return self.layout.url_of(self._server_id, texts)

    def current(self) -> str | None:
        """The address that is registered now, None when there is none."""
        return self._read().url

    def ensure_static(self) -> None:
        """Create the keys of route and pool that are absent; see the function ``ensure_static``."""
        ensure_static(self._cluster, self.layout)

    def switch(self, url: str, *, fence: Fence, workload: str = "") -> int:
        """Make ``url`` the entry's address, whatever it was, in one fenced transaction.

        Returns:
            The revision of the write, as all methods that write.

        Raises:
            Occupied, Twin: another living sidekick owns the entry; nothing was changed.
            Fenced: ``fence`` doesn't hold any more; nothing was changed. (An entry that holds ``url`` already is
                left as it is, and nothing is raised.)
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet), or an earlier change of it may
                still arrive.
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        return self._write(url, workload, fence)

    def leave(self, *, fence: Fence) -> int:
        """Remove the entry with everything below its prefix, in one fenced transaction.

        Raises:
            Occupied, Twin: another living sidekick owns the entry; nothing was changed.
            Fenced: ``fence`` doesn't hold any more and the entry is there; nothing was changed.
            Unknown: the answer was lost, and the entry is (still) there, or an earlier change of it may still arrive.
        """
        return self._write(None, "", fence)

    def join(self, url: str, *, replacing: Collection[str] = (), workload: str = "") -> int:
        """Put ``url`` in, without a fence: coming back never needs a turn.

        Args:
            url: Where the instance serves.
            replacing: The caller's own former addresses, which may be overwritten when the entry has no known owner.
            workload: Id of what serves there.

        Raises:
            Twin: another living sidekick of the same instance owns the entry; nothing was changed.
            Occupied: another living sidekick owns the entry; or nobody known does, and it holds an address that is
                neither ``url`` nor one of ``replacing``.
            Unknown: the answer was lost, and the entry doesn't hold ``url`` (yet), or an earlier change of it may
                still arrive.
            ConfigError: the balancer can't take such an address; nothing was changed.
        """
        return self._write(url, workload, (), own=frozenset({url, *replacing}))

    def restore(self, url: str | None, *, fence: Fence, workload: str = "") -> int:
        """Undo a ``switch``: put the old address back, or remove the entry when there was none (``url`` None).

        Raises:
            As ``switch`` and ``leave``.
        """
        return self.leave(fence=fence) if url is None else self.switch(url, fence=fence, workload=workload)

    def _wanted(self, found: Found, url: str | None) -> dict[str, bytes]:
        """What shall stand below the prefix, where ``found`` does now."""
        if url is None:
            return {}
        server = Server(service=self._service, id=self._server_id, url=url)
        keys = {key: value.encode() for key, value in self.layout.server_keys(server).items()}
        # leaving and restoring remove the prefix: a key outside of it would stay behind as an orphan
        assert keys, "a server without a key would be a removed one"
        assert all(key.startswith(self._prefix) for key in keys)
        return keys

    def _read(self) -> Found:
        with failpoint("entry.read"):
            # without a slash it is the one key itself, and not those whose names go on
            entries = self._cluster.list(self._prefix, exact=not self._prefix.endswith("/")).entries
        guard = self._cluster.get(self._guard_key)
        return Found(
            entries=entries,
            url=self.url_in({entry.key: entry for entry in entries}),
            guard=guard.mod_revision if guard is not None else 0,
            owner=owner_in(guard),
        )

    def _ops(self, found: Found, wanted: Mapping[str, bytes]) -> tuple[Op, ...]:
        """What makes ``wanted`` of what was ``found``."""
        if wanted:
            return found.overwritten(wanted)
        return (DeletePrefix(prefix=self._prefix) if self._prefix.endswith("/") else Delete(key=self._prefix),)

    def _write(self, url: str | None, workload: str, fence: Fence, *, own: Collection[str] | None = None) -> int:
        """Make ``url`` the entry's address, None for no entry, and renew its guard; ``own`` as for ``_claim``."""
        found = self._read()
        keys = self._wanted(found, url)
        gone = self._gone_key(url)
        if gone is not None:
            fence = (*fence, CreatedAt(key=gone, revision=0))
        owner = msgspec.structs.replace(self._owner, workload=workload) if self._owner is not None else None
        guard = Put(key=self._guard_key, value=encode(self._guarded(url, owner)))
        claim = self._claim(found, own)
        same = ModifiedAt(key=self._guard_key, revision=found.guard)
        changes = () if found.is_exactly(keys) else self._ops(found, keys)
        point = "entry.remove" if url is None else "entry.write"
        try:
            with failpoint(point):
                result = self._cluster.txn((*fence, *claim, *found.unchanged(keys), same), (guard, *changes))
        except Unknown as lost:
            now = self._read()
            if now.is_exactly(self._wanted(now, url)) and now.guard != found.guard:
                self._claim(now, own)
                return now.guard
            raise Unknown(
                f"server {self._server_id}: no answer from etcd to the change of {self._prefix}, and it isn't there"
                " yet; it may still arrive"
            ) from lost
        if result.succeeded:
            return result.revision
        if any(entry.key == gone for entry in result.found):
            raise Gone(
                f"server {self._server_id}: the instance was removed for good; `outrider instance admit` lets it back"
            )
        now = self._read()
        claim = self._claim(now, own)
        # once broken, a fence stays broken: no late write of this turn can arrive any more
        broken = not _holds(fence, result.found)
        if not now.is_exactly(self._wanted(now, url)):
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
                guarded = self._cluster.txn((*claim, *now.unchanged(keys), same), (guard,))
            if not guarded.succeeded:
                raise self._changed_meanwhile()
            return guarded.revision
        return now.guard

    def _guarded(self, url: str | None, owner: Owner | None) -> WriteGuard:
        return WriteGuard(url=url, owner=owner, prefix=self._prefix)

    def _gone_key(self, url: str | None) -> str | None:
        """What must be absent for whoever puts an address in; leaving is always right."""
        if self._owner is None or url is None:
            return None
        return self._keys.gone(self._owner.app, self._owner.instance)

    def _claim(self, found: Found, own: Collection[str] | None) -> Fence:
        """What else a write must compare, so that it takes the entry from nobody who lives.

        Args:
            found: The entry as it was read.
            own: Addresses that may be overwritten where no owner is known; None: any.

        Raises:
            Occupied, Twin: the entry isn't ours to write.
        """
        owner, ours = found.owner, self._owner
        if owner is None:
            self._refuse_foreign(found, own)
            return ()
        same = ours is not None and (owner.app, owner.instance) == (ours.app, ours.instance)
        if same and owner.process in self._ours:
            return ()
        presence_key = self._keys.presence(owner.app, owner.group, owner.instance)
        stranger_key = self._keys.stranger(owner.app, owner.instance, owner.process)
        presence = self._cluster.get(presence_key)
        if self._cluster.get(stranger_key) is not None or is_of(presence, owner.process):
            whose = f"server {self._server_id}: its entry belongs to {owner.app}/{owner.instance}"
            if same:
                raise Twin(
                    f"{whose}, as process {owner.process[:8]}, which is alive: give each machine an instance.id of"
                    " its own"
                )
            raise Occupied(f"{whose}, which is alive: give each instance a balancer.server_id of its own")
        # of the created one: a presence is written all the time, and stays its process's until it is gone
        return (
            CreatedAt(key=presence_key, revision=presence.create_revision if presence is not None else 0),
            CreatedAt(key=stranger_key, revision=0),
        )

    def _refuse_foreign(self, found: Found, own: Collection[str] | None) -> None:
        if own is not None and found.url is not None and found.url not in own:
            raise Occupied(
                f"server {self._server_id}: {self._prefix} holds {found.url}, which isn't ours; does another instance"
                " have the same server id? Give each its own, or remove the key"
            )

    def _changed_meanwhile(self) -> Changed:
        return Changed(f"server {self._server_id}: {self._prefix} was changed while we wrote it; try again")


def owner_in(guard: StoredKey | None) -> Owner | None:
    """Who wrote the entry last; None when nobody did, or nobody who said so."""
    if guard is None:
        return None
    try:
        return decode(WriteGuard, guard.key, guard.value).owner
    except Conflict:  # another outrider's, or written by hand: as good as none, and overwritten by the next write
        return None


def is_of(presence: StoredKey | None, process: str) -> bool:
    """Whether a presence is that of a process; one that doesn't say whose it is may be."""
    if presence is None:
        return False
    try:
        return decode(Presence, presence.key, presence.value).process in ("", process)
    except Conflict:
        return True


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
            case NotNewer():
                return False  # no fence has one
            case _:
                assert_never(compare)
        if actual != revision:
            return False
    return True
