"""The releases that a group served, in order: where `rollout undo` goes.

A release counts once its rollout has finished. Undoing a release takes it, and what came after it, off the list when
the way back has finished; so one undo after another leads further back, and never forward.
"""

from outrider.core import versions
from outrider.core.release import ReleaseId
from outrider.model.documents import Group, Served
from outrider.model.keys import Keys
from outrider.service.store.changes import Change

KEPT = 20
"""Releases that are remembered."""


def read_served(change: Change, keys: Keys, app: str, group: str) -> tuple[ReleaseId, ...]:
    """The releases whose rollouts finished, newest last."""
    return releases_in(change.read_or_none(Served, keys.served(app, group)))


def releases_in(found: Served | None) -> tuple[ReleaseId, ...]:
    """The releases of the stored document, newest last."""
    if found is None:
        return ()
    if [one.version for one in found.releases] == list(found.versions):
        return found.releases
    return tuple(ReleaseId(version=version) for version in found.versions)  # an older service wrote it last


def note_served(change: Change, keys: Keys, group: Group, release: ReleaseId) -> None:
    """Remember that the group serves ``release`` now."""
    known = read_served(change, keys, group.app, group.id)
    labels = [one.label for one in known]
    if release.label in labels:
        place = labels.index(release.label)
        is_back = group.undo is not None or any(one.version in labels[place + 1 :] for one in group.blocked)
        left = (*known[:place], release) if is_back else (*known[:place], *known[place + 1 :], release)
    else:
        left = (*known, release)
    left = left[-KEPT:]
    change.put(keys.served(group.app, group.id), Served(versions=tuple(one.version for one in left), releases=left))


def before(served: tuple[ReleaseId, ...], target: ReleaseId) -> ReleaseId | None:
    """The release that the group served before ``target``; None when none is known.

    A target that has not finished is not on the list. On a group that an operator took to a version of his own choice
    this never leads forward: only to an older version, or to an earlier environment of the same.
    """
    labels = [one.label for one in served]
    earlier = served[: labels.index(target.label)] if target.label in labels else served
    older = [
        one
        for one in earlier
        if versions.is_newer(target.version, one.version)
        or (one.version == target.version and _numbers(one) < _numbers(target))
    ]
    return older[-1] if older else None


def _numbers(release: ReleaseId) -> tuple[int, int]:
    return release.environment, release.generation
