"""How many instances a group has room for, and which of them are strangers: those of which no sidekick is known.

Anybody who reaches the Omaha address can check in under any name, and each name costs a row. So the rows of a group
have a limit, and those of strangers a lower one of their own: made-up names never keep out a machine whose sidekick is
registered in etcd. Rows of strangers that are silent for some days are removed.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from outrider.core.errors import Throttled
from outrider.model.damage import readable
from outrider.model.documents import Instance
from outrider.service.limits import Limits, option_of
from outrider.service.store.context import StoreContext
from outrider.service.store.read_model import ReadModel

COUNTED_S = 10.0
"""How long a count holds; what this process adds meanwhile is added to it."""
AFTER_S = 300.0
"""When a client that found no room may try again."""


@dataclass(slots=True)
class _Count:
    at: float
    all: int
    strangers: int


class GroupRoom:
    """Counts the rows of groups, for all threads of a process."""

    def __init__(
        self,
        context: StoreContext,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        model: ReadModel | None = None,
    ) -> None:
        """``model``: where it counts, as long as that is confirmed; else etcd is read."""
        self._context, self._limits, self._clock, self._model = context, limits, clock, model
        self._counts: dict[tuple[str, str], _Count] = {}
        self._lock, self._counting = threading.Lock(), threading.Lock()

    def take(self, app: str, group: str, *, is_stranger: bool) -> None:
        """Make room for one more row.

        Raises:
            Throttled: there is none.
            Unknown: etcd gives no answer.
        """
        # One thread counts; a row that another one has made room for may not be written yet, and is counted later.
        with self._counting:
            count = self._counts.get((app, group))
            if count is None or self._clock() - count.at > COUNTED_S:
                count = self._counts[app, group] = self._counted(app, group)
        limits = self._limits
        with self._lock:
            if is_stranger and count.strangers >= limits.max_strangers:
                raise _full(group, limits.max_strangers, "instances without a known sidekick", "max_strangers")
            if count.all >= limits.max_instances:
                raise _full(group, limits.max_instances, "instances", "max_instances")
            count.all += 1
            count.strangers += is_stranger

    def _counted(self, app: str, group: str) -> _Count:
        keys, model = self._context.keys, self._model
        found: Iterable[Instance]
        if model is not None and model.is_confirmed:
            found = model.documents(Instance, keys.instances(app))
        else:
            found = (row for _, row in readable(Instance, self._context.cluster.list(keys.instances(app)).entries))
        rows = [row for row in found if row.group == group]
        strangers = sum(row.is_stranger for row in rows)
        return _Count(at=self._clock(), all=len(rows), strangers=strangers)


def _full(group: str, most: int, what: str, name: str) -> Throttled:
    return Throttled(f"group {group} has {most} {what} already ({option_of(name)})", retry_after_s=AFTER_S)
