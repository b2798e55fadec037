"""The oldest version that may run in a group, where somebody wants another version there.

A sidekick writes it as it claims a ``contract`` task (``turns/oldest.py``).
"""

from datetime import datetime

from outrider.core import versions
from outrider.core.errors import Conflict
from outrider.model.documents import Group
from outrider.model.keys import Keys
from outrider.model.oldest import Oldest, unreadable
from outrider.model.tasks import Task
from outrider.service.store.changes import Change


def require_permitted(change: Change, keys: Keys, group: Group, version: str | None) -> None:
    """Refuse a version that is older than what may run in the group; what was read is compared.

    Raises:
        Conflict: it is, and what an operator can do.
    """
    for key in (keys.oldest(group.app, group.id), keys.oldest(group.app, "")):
        oldest = change.read_or_none(Oldest, key)
        if version is not None and oldest is None and change.exists(key):
            raise Conflict(f"{version} refused: {unreadable(key)}")
        if version is not None and oldest is not None and versions.is_newer(oldest.version, version):
            raise Conflict(
                f"{oldest.refusal(version)}; once what it took away is back, `outrider task lift` lets older ones run"
            )


def note_oldest(change: Change, keys: Keys, task_key: str, task: Task, now: datetime) -> None:
    """A ``contract`` task was done by hand: from now on nothing older than its version may run.

    Args:
        task_key: Where the task stands: it tells whether it is the group's or the app's.
    """
    group = "" if task_key.startswith(keys.tasks(task.app, "")) else task.group
    key = keys.oldest(task.app, group)
    known = change.read_or_none(Oldest, key)
    if known is None and change.exists(key):
        raise Conflict(unreadable(key))
    if known is None or versions.is_newer(task.version, known.version):
        made = Oldest(app=task.app, group=group, version=task.version, task=task.name, instance="", since=now)
        change.put(key, made)
