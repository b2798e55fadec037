"""What a ``contract`` task promises: once it has begun, nothing older than its version runs in the group, or starts.

Whatever may run has a key below ``running/`` or does so under a turn. So the claim of the task is one transaction that
compares both: no key of an older version, none written since they were read, and no turn. It writes the oldest version
that may run. Each write below ``running/``, and each turn, compares that key.
"""

from collections.abc import Iterable

from outrider.core import versions
from outrider.core.errors import Refused
from outrider.core.tasks import TaskScope
from outrider.etcd.seam import Cluster, Compare, Entry, ModifiedAt, NotNewer, Op, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Group, encode
from outrider.model.keys import Keys, group_scope
from outrider.model.oldest import Oldest, unreadable
from outrider.model.running import Running
from outrider.model.tasks import Task


class TooOld(Refused):
    """The version is older than the oldest that may run; only an operator can change that."""

    kind = "too-old"
    evidence = "wrong-setting"


class OldestVersion:
    """The oldest version that may run in one instance's group.

    Args:
        app: By its canonical key.
        scope: Where the instance takes its turns.
    """

    def __init__(self, cluster: Cluster, keys: Keys, *, app: str, group: str, scope: str) -> None:
        self._cluster, self._keys, self._app, self._group = cluster, keys, app, group
        self._scopes = (group_scope(app, group), scope)
        self._places = (keys.oldest(app, group), keys.oldest(app, ""))

    @property
    def places(self) -> tuple[str, str]:
        """The keys: of the group, and of the whole app."""
        return self._places

    def permits(self, version: str) -> tuple[Compare, ...]:
        """What must hold in the transaction after which ``version`` may run.

        Raises:
            TooOld: it may not.
            Unknown: no answer; call it again.
        """
        with failpoint("oldest.read"):
            found = {place: self._cluster.get(place) for place in self._places}
        for place, entry in found.items():
            require_not_older(place, entry, version)
        return tuple(
            ModifiedAt(key=place, revision=0 if entry is None else entry.mod_revision) for place, entry in found.items()
        )

    def begins(self, task: Task, scope: TaskScope, instance: str) -> tuple[tuple[Compare, ...], tuple[Op, ...]] | str:
        """What the claim of a ``contract`` task compares and writes besides; or why it can't be made now.

        Raises:
            Unknown: no answer; call it again.
        """
        keys, app = self._keys, self._app
        everywhere = scope == "app"
        running = keys.running(app) if everywhere else keys.running_in(app, self._group)
        place = keys.oldest(app, "" if everywhere else self._group)
        with failpoint("task.read"):
            listing = self._cluster.list(running)
            before = self._cluster.get(place)
            scopes = {*self._scopes, *(self._others() if everywhere else ())}
        older = older_in(listing.entries, task.version)
        if older:
            return f"an older version may still run: {', '.join(older)}"
        compares: tuple[Compare, ...] = (
            NotNewer(key=running, revision=listing.revision),
            *(NotNewer(key=keys.slots(each), revision=0) for each in sorted(scopes)),
            ModifiedAt(key=place, revision=0 if before is None else before.mod_revision),
        )
        known = None if before is None else read_or_none(Oldest, place, before.value)
        if before is not None and known is None:
            return unreadable(place)
        if known is not None and not versions.is_newer(task.version, known.version):
            return compares, ()
        document = Oldest(
            app=app,
            group="" if everywhere else self._group,
            version=task.version,
            task=task.name,
            instance=instance,
            since=task.started,
        )
        return compares, (Put(key=place, value=encode(document)),)

    def _others(self) -> Iterable[str]:
        """The scopes of all groups of the app. A group that is made later takes its first turn under the new rule."""
        prefix = self._keys.groups(self._app)
        for entry in self._cluster.list(prefix).entries:
            if "/" not in entry.key.removeprefix(prefix):
                group = read_or_none(Group, entry.key, entry.value)
                yield group_scope(self._app, entry.key.removeprefix(prefix) if group is None else group.id)


def older_in(entries: Iterable[Entry], version: str) -> tuple[str, ...]:
    """Where something older than ``version`` may still run, or something that can't be read: ``web-3 (1.0.0)``."""
    found = []
    for entry in entries:
        document = read_or_none(Running, entry.key, entry.value)
        if document is None:
            found.append(f"{entry.key.split('/')[-2]} (unknown)")
        elif versions.is_newer(version, document.version):
            found.append(f"{document.instance} ({document.release.label})")
    return tuple(found)


def require_not_older(place: str, entry: Entry | None, version: str) -> None:
    """Refuse a version that is older than what is stored at ``place``; what can't be read refuses every version.

    Raises:
        TooOld: it is, or nobody knows.
    """
    if entry is None:
        return
    oldest = read_or_none(Oldest, place, entry.value)
    if oldest is None:
        raise TooOld(f"{version} refused: {unreadable(place)}")
    if versions.is_newer(oldest.version, version):
        raise TooOld(oldest.refusal(version))
