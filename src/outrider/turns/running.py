"""What may still run where, provably: one key for each release that an instance has committed and not replaced since.

``running/{app}/{group}/{instance}/{release}`` has no lease, for a machine that is cut off goes on serving. It is
written with the commit, and by a first start with the turn, so before the app starts; the next commit or the
decommissioning removes it. Until the commit whatever else runs does so under a turn.

A key may stay too long (a late write), and never goes too early: what removes it compares the revision that was read.
"""

from datetime import datetime

from outrider.core.errors import Unknown
from outrider.core.sidekick.memory import Release
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Entry, ModifiedAt, Op, Put
from outrider.failpoints import failpoint
from outrider.model.documents import encode
from outrider.model.keys import Keys
from outrider.model.running import Running
from outrider.turns.oldest import OldestVersion, TooOld


class RunningKeys:
    """The keys of one instance.

    Args:
        app: By its canonical key.
        group: Where its commits are written; what is removed may be of a group that it was in before.
        oldest: What may run there; None: nobody asks.
    """

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        group: str,
        instance: str,
        oldest: OldestVersion | None = None,
    ) -> None:
        self._cluster, self._keys, self._oldest = cluster, keys, oldest
        self._app, self._group, self._instance = app, group, instance
        self._gone = keys.gone(app, instance)

    def key_of(self, release: Release) -> str:
        """Where it stands that ``release`` may run here."""
        return self._keys.running_at(self._app, self._group, release.id.key(self._group), self._instance)

    def begins(self, release: Release, at: datetime) -> Put:
        """The write that goes with the turn of a first start, or with a commit."""
        release_id = release.id
        document = Running(
            app=self._app,
            group=self._group,
            instance=self._instance,
            version=release_id.version,
            sha256=release_id.sha256,
            environment=release_id.environment,
            environment_digest=release_id.environment_digest,
            generation=release_id.generation,
            since=at,
        )
        return Put(key=self.key_of(release), value=encode(document))

    def note(self, release: Release, at: datetime) -> None:
        """Write it, unless it is there; an instance that is gone for good writes nothing.

        What stands there already may run whatever the oldest version is: a task that makes it so compares this key.

        Raises:
            TooOld: it isn't there, and the release is older than what may run; nothing was written.
            Unknown: no answer, or the oldest version changes all the time; call it again.
        """
        put = self.begins(release, at)
        absent = CreatedAt(key=put.key, revision=0), CreatedAt(key=self._gone, revision=0)
        for _ in range(5):
            permits: tuple[Compare, ...] = ()
            refusal = None
            if self._oldest is not None:
                try:
                    permits = self._oldest.permits(release.version)
                except TooOld as error:
                    refusal = error
            if refusal is not None:
                with failpoint("oldest.read"):
                    if self._cluster.get(put.key) is not None:
                        return
                raise refusal
            with failpoint("running.write"):
                done = self._cluster.txn((*absent, *permits), (put,))
            if done.succeeded or {entry.key for entry in done.found} & {put.key, self._gone}:
                return
        raise Unknown(f"{put.key}: the oldest version that may run changed five times meanwhile; try again")

    def settle(self, release: Release, left: Release | None, at: datetime) -> None:
        """From now on ``release`` may run here, and ``left``, which couldn't be stopped; nothing else.

        Raises:
            Unknown: no answer, or the keys change all the time; call it again.
        """
        kept = {self.key_of(one) for one in (release, left) if one is not None}
        for _ in range(5):
            found = self.own()
            put = self.begins(release, at)
            stale = [entry for entry in found if entry.key not in kept]
            is_known = any(entry.key == put.key for entry in found)
            ops: tuple[Op, ...] = (*(() if is_known else (put,)), *(Delete(key=entry.key) for entry in stale))
            if not ops or self._write(found, put.key, ops):
                return
        raise Unknown(f"{self._keys.running(self._app)}: changed five times while it was written; try again")

    def forget(self, release: Release) -> None:
        """A first start came to nothing: ``release`` runs here no more.

        Raises:
            Unknown: no answer; call it again.
        """
        key = self.key_of(release)
        with failpoint("running.read"):
            entry = self._cluster.get(key)
        if entry is not None:
            with failpoint("running.write"):
                self._cluster.txn((ModifiedAt(key=key, revision=entry.mod_revision),), (Delete(key=key),))

    def own(self) -> tuple[Entry, ...]:
        """All keys of this instance, whatever group it was in.

        Raises:
            Unknown: no answer; call it again.
        """
        with failpoint("running.read"):
            listing = self._cluster.list(self._keys.running(self._app))
        return tuple(entry for entry in listing.entries if entry.key.split("/")[-2] == self._instance)

    def _write(self, found: tuple[Entry, ...], key: str, ops: tuple[Op, ...]) -> bool:
        """Whether it was written: not when a key has changed, but also when the instance is gone for good."""
        known = {entry.key: entry.mod_revision for entry in found}
        compares = [ModifiedAt(key=each, revision=revision) for each, revision in {key: 0, **known}.items()]
        with failpoint("running.write"):
            done = self._cluster.txn((*compares, CreatedAt(key=self._gone, revision=0)), ops)
        return done.succeeded or any(entry.key == self._gone for entry in done.found)
