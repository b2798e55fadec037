"""The versions that a group served, in order: where `rollout undo` goes.

A version counts once its rollout has finished. Undoing a version takes it, and what came after it, off the list when
the way back has finished; so one undo after another leads further back, and never forward.
"""

from outrider.core import versions
from outrider.model.documents import Group, Served
from outrider.model.keys import Keys
from outrider.service.store.changes import Change

KEPT = 20
"""Versions that are remembered."""


def read_served(change: Change, keys: Keys, app: str, group: str) -> tuple[str, ...]:
    """The versions whose rollouts finished, newest last."""
    found = change.read_or_none(Served, keys.served(app, group))
    return () if found is None else found.versions


def note_served(change: Change, keys: Keys, group: Group, version: str) -> None:
    """Remember that the group serves ``version`` now."""
    known = read_served(change, keys, group.app, group.id)
    if version in known:
        left = known[: known.index(version) + 1] if group.undo is not None else _moved_to_end(known, version)
    else:
        left = (*known, version)
    change.put(keys.served(group.app, group.id), Served(versions=left[-KEPT:]))


def before(served: tuple[str, ...], target: str) -> str | None:
    """The version that the group served before ``target``; None when none is known.

    A target that has not finished is not on the list. On a group that an operator took to a version of his own choice
    this never leads forward: only to an older version.
    """
    earlier = served[: served.index(target)] if target in served else served
    older = [version for version in earlier if versions.is_newer(target, version)]
    return older[-1] if older else None


def _moved_to_end(known: tuple[str, ...], version: str) -> tuple[str, ...]:
    return (*(one for one in known if one != version), version)
