"""A rollout that is complete counts as finished before its group gets another target.

The rollout controller looks at a group a moment after its last instance is at rest. An operator may change the target
within that moment, and take it back. The way back would otherwise go one release too far: nobody saw the release
finished, so it is not among those that the group served.

So whoever changes a target books first what is complete, as etcd has it: no process's copy is asked. A rollout that
may complete at any moment is compared by the change of the target, too. Its last instance may report in between; the
change is made again then, after another look.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from outrider.core.errors import Conflict
from outrider.model.damage import readable
from outrider.model.documents import Group
from outrider.service.store.changes import ATTEMPTS, MAX_OPERATIONS, Auditing, Change, Unaudited, apply
from outrider.service.store.context import StoreContext, direct
from outrider.service.store.snapshot import read_snapshot

T = TypeVar("T")

NEARLY = 20
"""With more open grants than these no single transaction ends a rollout, and comparing it would lose races."""
SPARE = 16
"""Operations of the change that stay free, for its audit entries."""

_AUDITING = Unaudited("finished: what is complete is booked so before its group gets another target")
_NO_REVISION = -1
"""No key was ever written at it, so there is another look."""
_Looked = tuple[str, int]
"""The key of a rollout that is nearly complete, and the revision at which it was looked at."""


class _Moved(Exception):
    """A rollout was written after it was looked at."""


def apply_finished(
    context: StoreContext, app_id: str, groups: Iterable[str], attempt: Callable[[Change], T], auditing: Auditing
) -> T:
    """As ``changes.apply``, for a change of targets: what is complete in ``groups`` is booked before it.

    Args:
        context: Where the groups are stored.
        app_id: The app's id.
        groups: Their ids; a group that doesn't exist is passed over.
        attempt: Makes the change.
        auditing: Of the change.

    Raises:
        Unknown: etcd gives no answer.
        Conflict: other changes of the same keys win every race; or the attempt's own.
    """
    groups = tuple(groups)
    for _ in range(ATTEMPTS):
        looked = _finish_what_is_complete(context, app_id, groups)

        def compared(change: Change, looked: list[_Looked] = looked) -> T:
            outcome = attempt(change)
            for key, revision in looked:
                # Of a channel with many groups some rollouts are looked at, but not compared.
                if change.size < MAX_OPERATIONS - SPARE and change.revision(key) != revision:
                    raise _Moved
            return outcome

        try:
            return apply(context.cluster, compared, auditing)
        except _Moved:
            continue
    raise Conflict(f"lost {ATTEMPTS} races against the reports of instances; try again")


def groups_on(context: StoreContext, app_id: str, channel: str) -> tuple[str, ...]:
    """The ids of the groups that follow a channel."""
    prefix = context.keys.groups(app_id)
    listing = context.cluster.list(prefix)
    return tuple(group.id for _, group in readable(Group, direct(listing.entries, prefix)) if group.channel == channel)


def _finish_what_is_complete(context: StoreContext, app_id: str, groups: Iterable[str]) -> list[_Looked]:
    """Look at each group once, in a transaction of its own; nothing is written where nothing is complete.

    Returns:
        The rollouts that may complete at any moment.
    """
    found: list[_Looked] = []
    for group in groups:

        def attempt(change: Change, group: str = group) -> _Looked | None:
            snapshot = read_snapshot(context, change, app_id, group)
            if snapshot is None:
                return None
            snapshot.settle()
            snapshot.finish()
            snapshot.write()
            progress = snapshot.progress
            if not snapshot.has_begun or progress.finished is not None or progress.open.total > NEARLY:
                return None
            key = context.keys.rollout(app_id, group)
            return key, _NO_REVISION if snapshot.has_changed else change.revision(key)

        try:
            looked = apply(context.cluster, attempt, _AUDITING)
        except Conflict:
            continue  # others write this rollout again and again: it is not at rest
        if looked is not None:
            found.append(looked)
    return found
