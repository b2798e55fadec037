"""The read model: this process's copy of etcd, from one watch, for answers that need no transaction.

Theory. The copy is etcd as it was at ``revision``, never a mixture: the changes of one transaction are taken over
together. How old it may be is known, not guessed: now and then a linearizable read names etcd's own revision, and once
the copy has reached that, it holds all that was there when the read began. It is *confirmed* for ``HOLDS_S`` from then.
What wasn't confirmed lately isn't asked; the caller reads etcd, as it would without a model.

A revision alone is no proof of that after a restore. So each confirmation looks at the epoch, too (``model/epoch.py``),
before it counts; then everything is listed anew, and until that has come nothing is confirmed.

etcd tells a watch about keys below our prefix only. Where others write to the same etcd, its revision runs ahead of
what we can see; then a key of our own is written, whose change comes after everything before it.

*Ahead* is what this process has written over the copy and the watch has not brought yet. Who commits under a comparison
of all that it read (``copied_change.py``) sees it, so that one transaction can follow the other without waiting.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TypeVar

from loguru import logger

from outrider.core.errors import Conflict, DriverError
from outrider.etcd.seam import (
    Cluster,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    KeyChanged,
    Listing,
    ModifiedAt,
    Op,
    Put,
    Resynced,
    TxnResult,
    Watch,
    WatchEvent,
)
from outrider.model import documents
from outrider.model.damage import read_or_none
from outrider.model.documents import Document, encode
from outrider.model.epoch import Epoch, SeenEpochs
from outrider.model.keys import Keys

D = TypeVar("D", bound=Document)

HOLDS_S = 5.0
"""How long a confirmation holds."""
CONFIRM_S = 1.0
"""Between two confirmations while answers come from the copy."""
IDLE_S = 30.0
"""Between two of them while nobody asks: the epochs go on being followed."""
CATCH_UP_S = 0.1
"""How long the watch may take before a key of ours asks it how far it is."""
MARKED_S = 1.0
RETRY_S = 2.0


class Confirmed(Document, frozen=True, kw_only=True):
    """``cluster/confirmed``: some process wanted to know how far its watch is. ``token``: random."""

    token: str


@dataclass(slots=True)
class Followed:
    """The keys directly below ``folder`` that have changed since somebody looked. ``is_anew``: perhaps all."""

    folder: str
    changed: set[str] = field(default_factory=set)
    is_anew: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ahead:
    """What this process has written. ``is_known``: over the copy, so that it fits to it."""

    revision: int
    entry: Entry | None = None
    is_known: bool = True


class Behind(Conflict):
    """The copy can't be read there yet: this process has written it by what it saw in etcd itself."""


K = TypeVar("K")


class ReadModel:
    """A copy of everything below the prefix but the history, which is large and seldom asked for.

    Safe to use from several threads, and from an event loop.
    """

    def __init__(self, cluster: Cluster, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: a monotonic one, in seconds."""
        self._cluster, self._keys, self._clock = cluster, keys, clock
        self._history = keys.all_history()
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[str, Entry] = {}
        self._folders: dict[str, dict[str, Entry]] = {}
        self._below: dict[str, set[str]] = {}
        self._decoded: dict[str, tuple[bytes, type[Document], Document]] = {}
        self._revision = self._written = self._seen_revision = 0
        self._unseen: dict[str, int] = {}
        self._ahead: dict[str, _Ahead] = {}
        """Of each key this process's last write, until the copy is there."""
        self._pending: list[KeyChanged] = []
        self._epochs = SeenEpochs()
        self._confirmed_at: float | None = None
        self._doubted = True
        self._wanted = self._closed = False
        self._followed: dict[str, list[Followed]] = {}
        self._kept: dict[object, object] = {}
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[bool]]] = []
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None
        self._reader = ModelReader(self)
        self.ahead = AheadReader(self)
        """The copy with what this process has written since; for who compares what it reads."""

    def start(self) -> None:
        """Begin; returns at once, even while etcd is away."""
        self._thread = threading.Thread(target=self._run, name="outrider-read-model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; nothing is answered from it any more."""
        with self._changed:
            self._closed, self._confirmed_at = True, None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(10.0)
        if self._watch is not None:
            self._watch.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow etcd while the block runs."""
        self.start()
        try:
            yield
        finally:
            self.close()

    @property
    def revision(self) -> int:
        """The copy is etcd at this revision."""
        return self._revision

    @property
    def written(self) -> int:
        """The revision of the last write of this process."""
        return self._written

    @property
    def is_confirmed(self) -> bool:
        """Whether the copy holds all that was written until ``HOLDS_S`` ago. Asking keeps it confirmed."""
        if not self._wanted:
            with self._changed:
                self._wanted = True
                self._changed.notify_all()
        at = self._confirmed_at
        return at is not None and self._clock() - at <= HOLDS_S

    @contextmanager
    def reading(self) -> Iterator["ModelReader"]:
        """The copy at one revision; it stands still while the block runs, so the block is short."""
        with self._changed:
            yield self._reader

    def copied(self) -> tuple[int, dict[str, Entry]]:
        """The revision of the copy, and a copy of it for who reads for long: it follows nothing."""
        with self._changed:
            return self._revision, dict(self._entries)

    def decode(self, kind: type[D], key: str, value: bytes) -> D:
        """As ``documents.decode``; a value of the copy is decoded once."""
        known = self._decoded.get(key)
        if known is not None and known[0] is value and known[1] is kind:
            return known[2]  # type: ignore[return-value]
        document = documents.decode(kind, key, value)
        entry = self._entries.get(key)
        if entry is not None and entry.value is value:
            self._decoded[key] = (value, kind, document)
        return document

    def documents(self, kind: type[D], prefix: str) -> list[D]:
        """The documents directly below ``prefix`` that can be read, in no order; each is decoded once."""
        with self._changed:
            entries = list(self._folders.get(prefix, {}).values())
        found = (self.document(kind, entry) for entry in entries)
        return [one for one in found if one is not None]

    def kept(self, kind: "Callable[[ReadModel], K]") -> K:
        """What is kept beside the copy, one of each kind; made when it is asked for first."""
        with self._changed:
            found = self._kept.get(kind)
            if found is None:
                found = self._kept[kind] = kind(self)
            return found  # type: ignore[return-value]

    def follow(self, folder: str) -> Followed:
        """Note from now on which keys directly below ``folder`` change."""
        followed = Followed(folder=folder)
        with self._changed:
            self._followed.setdefault(folder, []).append(followed)
        return followed

    def changes(self, kind: type[D], followed: Followed) -> tuple[bool, list[tuple[str, D | None]]]:
        """What has changed since the last call; None for a document that has gone, or can't be read.

        Returns:
            Whether these are all that there are, and them.
        """
        with self._changed:
            is_anew, keys = followed.is_anew, followed.changed
            followed.is_anew, followed.changed = False, set()
            found = self._folders.get(followed.folder, {})
            entries = list(found.items()) if is_anew else [(key, found.get(key)) for key in keys]
        return is_anew, [(key, None if entry is None else self.document(kind, entry)) for key, entry in entries]

    def document(self, kind: type[D], entry: Entry) -> D | None:
        """The document of an entry, decoded once if it is the copy's; None when it can't be read."""
        try:
            return self.decode(kind, entry.key, entry.value)
        except Conflict:
            return read_or_none(kind, entry.key, entry.value)  # it logs and counts what can't be read

    def note_written(self, revision: int, keys: Iterable[str] = ()) -> None:
        """This process has written ``keys`` at ``revision``: its clients may know of that."""
        with self._changed:
            self._written = max(self._written, revision)
            if revision > self._revision:
                self._unseen.update(dict.fromkeys(keys, revision))

    def note_elsewhere(self, revision: int, ops: tuple[Op, ...]) -> None:
        """This process has made a transaction at ``revision`` that was not decided over the copy.

        It may have seen more than the copy has. So what it wrote isn't known ahead: together with the rest of the copy
        it would be a mixture, in which a rollout counts a grant that no list has.
        """
        with self._changed:
            if revision <= self._revision:
                return
            for op in ops:
                if isinstance(op, DeletePrefix):
                    for key in (entry.key for entry in self.below(op.prefix).entries):
                        self._go_ahead(key, _Ahead(revision=revision, is_known=False))
                else:
                    self._go_ahead(op.key, _Ahead(revision=revision, is_known=False))

    def note_ahead(self, revision: int, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
        """As ``note_elsewhere``, of one that was decided over the copy: what it wrote belongs to it."""
        with self._changed:
            if revision <= self._revision:
                return
            guards = {compare.key: compare for compare in compares}
            for op in ops:
                match op:
                    case Put(key=key, value=value, lease=lease):
                        created = self._creation(key, guards.get(key), revision)
                        new = Entry(key=key, value=value, create_revision=created, mod_revision=revision, lease=lease)
                        self._go_ahead(key, _Ahead(revision=revision, entry=new))
                    case Delete(key=key):
                        self._go_ahead(key, _Ahead(revision=revision))
                    case DeletePrefix():
                        raise AssertionError("what is decided over the copy names its keys")

    def _go_ahead(self, key: str, new: "_Ahead") -> None:
        known = self._ahead.get(key)
        if known is None or known.revision <= new.revision:
            self._ahead[key] = new

    def _creation(self, key: str, guard: Compare | None, revision: int) -> int:
        """The create revision of a key that was written at ``revision``; one that is wrong makes a comparison fail."""
        ahead = self._ahead.get(key)
        known = ahead.entry if ahead is not None and ahead.is_known else self._entries.get(key)
        match guard:
            case CreatedAt(revision=created):
                return created or revision
            case ModifiedAt(revision=0):
                return revision
            case _:
                return revision if known is None else known.create_revision

    def entry_ahead(self, key: str) -> Entry | None:
        """The entry at ``key`` as this process knows it, what it wrote over the copy included.

        Raises:
            Behind: this process has written it otherwise, and the watch has not brought that.
        """
        ahead = self._ahead.get(key)  # first: what leaves it is in the copy already
        if ahead is None:
            return self._entries.get(key)
        if not ahead.is_known:
            raise Behind(f"{key} was written a moment ago")
        return ahead.entry

    def entry_known(self, key: str) -> Entry | None:
        """As ``entry_ahead``; what this process has written otherwise is passed over."""
        ahead = self._ahead.get(key)
        return self._entries.get(key) if ahead is None or not ahead.is_known else ahead.entry

    def some_ahead(self, folder: str, most: int) -> tuple[int, list[Entry]]:
        """How many keys are directly below ``folder``, and some of them, with what this process wrote over the copy.

        Only what this process wrote, and the watch has not brought, is looked through.
        """
        with self._changed:
            found = self._folders.get(folder, {})
            ahead = {
                key: one.entry
                for key, one in self._ahead.items()
                if one.is_known and key.startswith(folder) and "/" not in key[len(folder) :]
            }
            number = len(found) + sum((entry is not None) - (key in found) for key, entry in ahead.items())
            there = (ahead.get(key, entry) for key, entry in found.items())
            more = (entry for key, entry in ahead.items() if key not in found)
            return number, list(islice((entry for entry in chain(there, more) if entry is not None), most))

    def below_ahead(self, prefix: str) -> Listing:
        """As ``below``, with what this process wrote over the copy."""
        with self._changed:
            found = self.below(prefix)
            mine = {key: one.entry for key, one in self._ahead.items() if one.is_known and key.startswith(prefix)}
            if not mine:
                return found
            entries = {entry.key: entry for entry in found.entries} | mine
            there = (entry for entry in entries.values() if entry is not None)
            return Listing(entries=tuple(sorted(there, key=lambda entry: entry.key)), revision=found.revision)

    def unseen(self, keys: Collection[str]) -> int:
        """The revision at which this process wrote one of ``keys`` last, if the copy isn't there yet; else 0."""
        if not self._unseen:
            return 0
        return max((self._unseen.get(key, 0) for key in keys), default=0)

    def knows_epoch(self, token: str) -> bool:
        """Whether a revision seen under this epoch means something here; one without an epoch does."""
        return not token or self._epochs.knows(token)

    def has_reached(self, revision: int, within_s: float) -> bool:
        """As ``reached``, for a thread."""
        return self._revision >= revision or self._wait_for(revision, within_s)

    async def reached(self, revision: int, within_s: float) -> bool:
        """Wait until the copy is at ``revision``; False when it takes longer, or etcd itself isn't there."""
        with self._changed:
            if self._revision >= revision:
                return True
            loop = asyncio.get_running_loop()
            future: asyncio.Future[bool] = loop.create_future()
            self._waiting.append((revision, loop, future))
        try:
            return await asyncio.wait_for(future, within_s)
        except TimeoutError:
            return False
        finally:
            with self._changed:
                self._waiting = [one for one in self._waiting if one[2] is not future]

    def _run(self) -> None:
        wait_s = 0.0
        while self._wait(wait_s):
            try:
                if self._watch is None:
                    self.begin()
                wait_s = CONFIRM_S if self.confirm() else RETRY_S
            except (DriverError, Conflict) as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("read model not confirmed")
                wait_s = RETRY_S

    def _wait(self, wait_s: float) -> bool:
        """Until the next confirmation is due; False after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, wait_s)
            self._changed.wait_for(lambda: self._closed or self._wanted, IDLE_S if wait_s else 0.0)
            self._wanted = False
            return not self._closed

    def begin(self) -> None:
        """Read everything, and follow it from then on. ``start`` does this by itself.

        Raises:
            DriverError: etcd gives no answer.
        """
        self._see_epoch()
        prefix = f"{self._keys.prefix}/"
        listing = self._cluster.list(prefix)
        self._replace(listing)
        self._watch = self._cluster.watch(prefix, listing.revision + 1, self._deliver)

    def _see_epoch(self) -> tuple[int, str]:
        """Read etcd's revision, and why it must have been restored, if it was."""
        key = self._keys.epoch()
        listing = self._cluster.list(key)
        entry = next((one for one in listing.entries if one.key == key), None)
        epoch = None if entry is None else documents.decode(Epoch, key, entry.value)
        return listing.revision, self._epochs.saw(epoch, listing.revision)

    def confirm(self) -> bool:
        """Find out whether the copy is up to date as of now.

        Raises:
            DriverError: etcd gives no answer.
            Conflict: the epoch can't be read.
        """
        at, copied = self._clock(), self._revision
        revision, why = self._see_epoch()
        if not why and revision < copied:
            why = f"its revision went back from {copied} to {revision}"
        if why:
            logger.bind(why=why).warning("etcd was restored; the read model is read anew")
            self._doubt()
            return False
        self._release_beyond(revision)
        if not self._wait_for(revision, CATCH_UP_S):
            mark = Put(key=self._keys.confirmed(), value=encode(Confirmed(token=uuid.uuid4().hex)))
            if not self._wait_for(self._cluster.txn((), (mark,)).revision, MARKED_S):
                return False
        with self._changed:
            if self._doubted or self._closed:
                return False
            self._confirmed_at = at
        return True

    def _doubt(self) -> None:
        with self._changed:
            self._doubted, self._confirmed_at, self._written, self._unseen = True, None, 0, {}
            self._ahead = {}
            watch = self._watch
        if watch is not None:
            watch.look_again()

    def _wait_for(self, revision: int, within_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._revision >= revision, within_s)
            return self._revision >= revision

    def _deliver(self, event: WatchEvent) -> None:
        match event:
            case Resynced(listing=listing):
                self._replace(listing)
            case KeyChanged():
                self._pending.append(event)
                if event.more:
                    return
                with self._changed:
                    changes, self._pending = self._pending, []
                    for change in changes:
                        self._apply(change)
                    self._revision = max(self._revision, event.revision)
                    self._forget_written()
                    self._changed.notify_all()
                    self._release()

    def _apply(self, change: KeyChanged) -> None:
        if change.key.startswith(self._history):
            return
        folder = change.key[: change.key.rfind("/") + 1]
        for followed in self._followed.get(folder, ()):
            followed.changed.add(change.key)
        if change.entry is None:
            self._entries.pop(change.key, None)
            self._decoded.pop(change.key, None)
            self._folders.get(folder, {}).pop(change.key, None)
            return
        self._entries[change.key] = change.entry
        if folder not in self._folders:
            _make_folder(self._folders, self._below, folder)
        self._folders[folder][change.key] = change.entry

    def _replace(self, listing: Listing) -> None:
        entries = {entry.key: entry for entry in listing.entries if not entry.key.startswith(self._history)}
        folders: dict[str, dict[str, Entry]] = {}
        below: dict[str, set[str]] = {}
        for key, entry in entries.items():
            folder = key[: key.rfind("/") + 1]
            if folder not in folders:
                _make_folder(folders, below, folder)
            folders[folder][key] = entry
        with self._changed:
            self._entries, self._folders, self._below = entries, folders, below
            self._decoded, self._pending = {}, []
            for each in self._followed.values():
                for followed in each:
                    followed.is_anew = True
            self._revision, self._doubted = listing.revision, False
            self._forget_written()
            self._changed.notify_all()
            self._release()

    def _forget_written(self) -> None:
        if self._unseen:
            self._unseen = {key: revision for key, revision in self._unseen.items() if revision > self._revision}
        if self._ahead:
            self._ahead = {key: known for key, known in self._ahead.items() if known.revision > self._revision}

    def _release(self) -> None:
        for revision, loop, future in self._waiting:
            if self._revision >= revision:
                _settle(loop, future, reached=True)

    def _release_beyond(self, revision: int) -> None:
        """A number above etcd's own lets nobody wait."""
        with self._changed:
            for wanted, loop, future in self._waiting:
                if wanted > revision:
                    _settle(loop, future, reached=False)

    def entry(self, key: str) -> Entry | None:
        """The entry at ``key``."""
        return self._entries.get(key)

    def below(self, prefix: str) -> Listing:
        """All entries whose keys begin with ``prefix``, by key."""
        with self._changed:
            folder = prefix[: prefix.rfind("/") + 1]
            found: list[Entry] = []
            self._gather(folder, found)
            if folder != prefix:
                found = [entry for entry in found if entry.key.startswith(prefix)]
            return Listing(entries=tuple(sorted(found, key=lambda entry: entry.key)), revision=self._revision)

    def _gather(self, folder: str, found: list[Entry]) -> None:
        found.extend(self._folders.get(folder, {}).values())
        for each in self._below.get(folder, ()):
            self._gather(each, found)


class ModelReader:
    """The copy behind the seam: questions only, so a transaction that has something to do is our mistake."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self.lists = 0
        """How often more than one key was asked for."""

    def get(self, key: str) -> Entry | None:
        """As ``Cluster.get``."""
        return self._model.entry(key)

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        """As ``Cluster.list``."""
        self.lists += 1
        found = self._model.below(prefix)
        return replace(found, entries=tuple(one for one in found.entries if one.key == prefix)) if exact else found

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        """Read the compared keys, as a transaction does whose comparison can't hold."""
        assert not ops, "the read model is only read"
        entries = (self._model.entry(compare.key) for compare in compares)
        found = tuple(entry for entry in entries if entry is not None)
        return TxnResult(succeeded=False, revision=self._model.revision, found=found)

    def grant(self, ttl_s: float) -> int:
        raise AssertionError("the read model is only read")

    def keep_alive(self, lease: int) -> float:
        raise AssertionError("the read model is only read")

    def revoke(self, lease: int) -> None:
        raise AssertionError("the read model is only read")

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> Watch:
        raise AssertionError("the read model is only read")

    def close(self) -> None:
        raise AssertionError("the read model is only read")


class AheadReader(ModelReader):
    """As ``ModelReader``, with what this process has written since. It is read while the copy goes on."""

    def get(self, key: str) -> Entry | None:
        """As ``Cluster.get``."""
        return self._model.entry_ahead(key)

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        """As ``Cluster.list``."""
        found = self._model.below_ahead(prefix)
        return replace(found, entries=tuple(one for one in found.entries if one.key == prefix)) if exact else found

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        """As ``ModelReader.txn``."""
        assert not ops, "the read model is only read"
        entries = (self._model.entry_ahead(compare.key) for compare in compares)
        found = tuple(entry for entry in entries if entry is not None)
        return TxnResult(succeeded=False, revision=self._model.revision, found=found)


class NotingCluster:
    """etcd, with each write of this process noted in the read model. Implements ``Cluster``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.model: ReadModel | None = None
        self.get, self.list, self.grant, self.keep_alive = (
            cluster.get,
            cluster.list,
            cluster.grant,
            cluster.keep_alive,
        )
        self.revoke, self.watch, self.close = cluster.revoke, cluster.watch, cluster.close

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        """As ``Cluster.txn``."""
        result = self._cluster.txn(compares, ops)
        if ops and result.succeeded and self.model is not None:
            keys = [op.prefix if isinstance(op, DeletePrefix) else op.key for op in ops]
            self.model.note_written(result.revision, keys)
            self.model.note_elsewhere(result.revision, ops)
        return result


def _make_folder(folders: dict[str, dict[str, Entry]], below: dict[str, set[str]], folder: str) -> None:
    """Add a folder, and let the folders above it know."""
    folders[folder] = {}
    while folder:
        above = folder[: folder.rfind("/", 0, -1) + 1]
        known = below.setdefault(above, set())
        if folder in known or above == folder:
            return
        known.add(folder)
        folder = above


def _settle(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[bool]", *, reached: bool) -> None:
    def settle() -> None:
        if not future.done():
            future.set_result(reached)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has ended, and nobody waits
        return
