"""Takes over the entry of a workload that is adopted: whoever wrote it, and under whatever name, it becomes ours.

One transaction compares all that was read and makes the change: our server is there before the other one goes, both
have the same address, and whoever wrote meanwhile wins. An entry that a living sidekick owns is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from outrider.balancers import Server
from outrider.balancers.entry import EtcdEntry, Gone, Occupied, is_of, owner_in
from outrider.balancers.shared import SharedEntry
from outrider.core.errors import ConfigError, DriverError, Unknown
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, ModifiedAt, Op, Put
from outrider.etcd.seam import Entry as StoredKey
from outrider.failpoints import failpoint
from outrider.model.documents import Owner, WriteGuard, encode
from outrider.model.keys import Keys

TRIES = 5
"""Somebody may write the entry meanwhile; a sidekick does so only for a swap, or to put it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolServer:
    """A server in the service's pool.

    Attributes:
        keys: All that is stored of it.
        url: None: what is stored doesn't say.
    """

    id: str
    keys: tuple[StoredKey, ...]
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """What the pool has to do with the address of an adopted workload.

    Attributes:
        own: Our own server, if it is there.
        others: Other servers with that address.
        searched: Whether the pool could be looked through.
    """

    own: PoolServer | None
    others: tuple[PoolServer, ...]
    searched: bool = True


class Pool:
    """The servers of one service, as one instance sees them."""

    def __init__(
        self, cluster: Cluster, entry: EtcdEntry, *, service: str, server_id: str, keys: Keys, owner: Owner
    ) -> None:
        """Nothing is read yet."""
        self._cluster, self._layout, self._keys, self._owner = cluster, entry.layout, keys, owner
        self._entry = entry
        self._service, self._server_id = service, server_id

    def look(self, url: str) -> TakeOver:
        """Find our server, and those with the address ``url``."""
        if isinstance(self._entry, SharedEntry):
            return self._look_at_shared(url, self._entry)
        prefix, pattern = self._layout.pool()
        mine = self._layout.owned_prefix(self._server_id)
        own_keys = self._cluster.list(mine, exact=not mine.endswith("/")).entries
        texts = {each.key: each.value.decode(errors="replace") for each in own_keys}
        own_url = self._layout.url_of(self._server_id, texts)
        own = PoolServer(id=self._server_id, keys=own_keys, url=own_url) if own_keys else None
        if not prefix:
            return TakeOver(own=own, others=(), searched=False)
        others = [
            each for each in self._servers(prefix, pattern, {each.key for each in own_keys}) if _same(each.url, url)
        ]
        return TakeOver(own=own, others=tuple(others))

    def take_over(self, url: str, *, workload: str) -> str:
        """Make the one server with the address ``url`` ours.

        Returns:
            The id that it had; empty when there was none: then nothing was written.

        Raises:
            Occupied: several have that address, ours has another one, or a living sidekick owns it.
            Gone: the instance was removed for good.
            DriverError: it is written again and again.
            Unknown: the answer was lost, and it isn't ours (yet); try again.
        """
        for _ in range(TRIES):
            found = self.look(url)
            self.check(found, url)
            if found.own is None and not found.others:
                return ""
            was = found.others[0].id if found.others else self._server_id
            if isinstance(self._entry, SharedEntry):
                self._entry.join(url, workload=workload)
                return was
            try:
                if self._write(found, url, workload):
                    return was
            except Unknown:
                now = self.look(url)
                if now.own is None or now.own.url != url or now.others:
                    raise
                return was
        raise DriverError(
            f"server {self._server_id}: its entry is written by somebody again and again; try again later"
        )

    def check(self, found: TakeOver, url: str) -> None:
        """Refuse what can't be taken over.

        Raises:
            Occupied: as ``take_over``.
        """
        if found.own is not None and not _same(found.own.url, url):
            raise Occupied(
                f"server {self._server_id}: its entry holds {found.own.url or 'no address that can be read'}, and {url}"
                " is adopted; set balancer.server_id to a name of its own, or remove the key"
            )
        marked = isinstance(self._entry, SharedEntry) and next(
            (one.id for one in found.others if one.id != one.url), ""
        )
        if marked:
            raise Occupied(f"service {self._service}: the address {url} is that of server {marked}; remove that first")
        if len(found.others) > 1:
            names = ", ".join(each.id for each in found.others)
            raise Occupied(
                f"service {self._service}: several servers have the address {url}: {names}; remove all but one"
            )

    def _look_at_shared(self, url: str, entry: SharedEntry) -> TakeOver:
        """One value has all servers: those of sidekicks have ids, others only their addresses."""
        stored = self._cluster.get(entry.watched)
        found = {} if stored is None else entry.layout.servers(stored.value)
        keys = () if stored is None else (stored,)
        own = found.pop(self._server_id, None)
        return TakeOver(
            own=PoolServer(id=self._server_id, keys=keys, url=own) if own is not None else None,
            others=tuple(PoolServer(id=name, keys=keys, url=each) for name, each in found.items() if _same(each, url)),
        )

    def _servers(self, prefix: str, pattern: str, known: set[str]) -> list[PoolServer]:
        """All servers but our own."""
        stored: dict[str, list[tuple[StoredKey, str]]] = {}
        for each in self._cluster.list(prefix).entries:
            match = re.fullmatch(pattern, each.key.removeprefix(prefix))
            if match is not None and each.key not in known:
                stored.setdefault(match["id"], []).append((each, match["rest"]))
        return [
            PoolServer(id=name, keys=tuple(key for key, _ in found), url=self._url(found))
            for name, found in sorted(stored.items())
        ]

    def _url(self, found: list[tuple[StoredKey, str]]) -> str | None:
        """Its address: read as if it had a name like ours, for others' names may be such as we would not give."""
        home = self._layout.owned_prefix("x")
        texts = {f"{home}{rest.lower()}": key.value.decode(errors="replace") for key, rest in found}
        return self._layout.url_of("x", texts)

    def _write(self, found: TakeOver, url: str, workload: str) -> bool:
        """One transaction; False when somebody wrote meanwhile."""
        server = Server(service=self._service, id=self._server_id, url=url)
        wanted = {key: value.encode() for key, value in self._layout.server_keys(server).items()}
        before = {each.key: each for each in found.own.keys} if found.own is not None else {}
        removed = [key for other in found.others for key in other.keys if key.key not in wanted]
        gone = self._keys.gone(self._owner.app, self._owner.instance)
        guards = self._guards([self._server_id, *(each.id for each in found.others)])
        compares: list[Compare] = [CreatedAt(key=gone, revision=0)]
        for name in {*wanted, *before}:
            compares.append(ModifiedAt(key=name, revision=before[name].mod_revision if name in before else 0))
        compares += [ModifiedAt(key=key.key, revision=key.mod_revision) for key in removed]
        for name, guard in guards.items():
            compares.append(ModifiedAt(key=name, revision=guard.mod_revision if guard is not None else 0))
            compares += self._claim(owner_in(guard))
        own_guard = self._keys.server(self._service, self._server_id)
        written = WriteGuard(
            url=url,
            owner=Owner(
                app=self._owner.app,
                group=self._owner.group,
                instance=self._owner.instance,
                workload=workload,
                process=self._owner.process,
            ),
            prefix=self._layout.owned_prefix(self._server_id),
        )
        # puts before deletes, for a balancer that applies events one by one
        ops: list[Op] = [Put(key=key, value=value) for key, value in wanted.items() if not _is(before, key, value)]
        ops.append(Put(key=own_guard, value=encode(written)))
        ops += [Delete(key=key.key) for key in removed]
        ops += [Delete(key=name) for name, guard in guards.items() if guard is not None and name != own_guard]
        with failpoint("entry.write"):
            result = self._cluster.txn(tuple(compares), tuple(ops))
        if not result.succeeded and any(entry.key == gone for entry in result.found):
            raise Gone(
                f"server {self._server_id}: the instance was removed for good; `outrider instance admit` lets it back"
            )
        return result.succeeded

    def _claim(self, owner: Owner | None) -> tuple[Compare, ...]:
        """What the write must compare, so that it takes a server from nobody who lives.

        Raises:
            Occupied: its owner does.
        """
        if owner is None:
            return ()
        presence_key = self._keys.presence(owner.app, owner.group, owner.instance)
        stranger_key = self._keys.stranger(owner.app, owner.instance, owner.process)
        presence = self._cluster.get(presence_key)
        if self._cluster.get(stranger_key) is not None or is_of(presence, owner.process):
            raise Occupied(
                f"server {self._server_id}: its entry belongs to {owner.app}/{owner.instance}, whose sidekick is alive;"
                " stop that first, if it is no longer wanted"
            )
        return (
            CreatedAt(key=presence_key, revision=presence.create_revision if presence is not None else 0),
            CreatedAt(key=stranger_key, revision=0),
        )

    def _guards(self, names: list[str]) -> dict[str, StoredKey | None]:
        """Key of each server's write guard, and what it holds; others' names may be no parts of a key of ours."""
        found: dict[str, StoredKey | None] = {}
        for name in names:
            try:
                key = self._keys.server(self._service, name)
            except ConfigError:
                continue
            found[key] = self._cluster.get(key)
        return found


def _same(one: str | None, other: str) -> bool:
    return one is not None and one.rstrip("/").lower() == other.rstrip("/").lower()


def _is(before: Mapping[str, StoredKey], key: str, value: bytes) -> bool:
    return key in before and before[key].value == value
