"""Which grants are overdue: by this process's own clock, from when it first saw each.

No lease ends them, and no time of day: a clock that an operator sets, or that another service process has, would end
all updates of a fleet at once. A process that has just started knows no earlier moment than its own start. So an update
may get more time than the policy gives it, and never less.
"""

import threading
from collections.abc import Callable
from datetime import datetime

from outrider.clocks import seconds_since_boot
from outrider.model.documents import OpenGrant
from outrider.service.store.snapshot import GroupSnapshot

_Sighting = tuple[int, datetime | None]
"""Create revision and time of a grant: they tell it from a later one of the same instance."""


class OverdueGrants:
    """What one process has seen of the open grants. Any thread may ask."""

    def __init__(self, clock: Callable[[], float] = seconds_since_boot) -> None:
        """``clock``: seconds that never go back."""
        self._clock = clock
        self._asking = threading.Lock()
        self._seen: dict[tuple[str, str], dict[str, tuple[_Sighting, float]]] = {}

    def of(self, snapshot: GroupSnapshot) -> tuple[frozenset[str], float | None]:
        """The instances of a group whose grants are overdue.

        Returns:
            Them, and the seconds until the next grant is; None without one.
        """
        now_s, overdue, left_s = self._clock(), set(), []
        group = snapshot.group.app, snapshot.group.id
        with self._asking:
            before, seen = self._seen.get(group, {}), {}
            for instance, entry in snapshot.grants.items():
                if entry.lease:  # of an older version of outrider: etcd ends it
                    continue
                grant = snapshot.context.document(OpenGrant, entry)
                sighting = entry.create_revision, None if grant is None else grant.at
                known = before.get(instance)
                first_s = known[1] if known is not None and known[0] == sighting else now_s
                seen[instance] = sighting, first_s
                limit_s = (0.0 if grant is None else grant.ends_after_s) or snapshot.group.policy.update_timeout_s
                if now_s - first_s >= limit_s:
                    overdue.add(instance)
                else:
                    left_s.append(limit_s - (now_s - first_s))
            if seen:
                self._seen[group] = seen
            else:
                self._seen.pop(group, None)
        return frozenset(overdue), min(left_s, default=None)
