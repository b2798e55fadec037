"""Check-ins for an app or a group that does not exist: a mistyped word in a client's settings.

The client is told, but often nobody reads what it is told. So an activity event says it, once an hour for each app and
group. Anybody can send such a check-in, so one process writes at most ``MOST`` of them an hour.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from loguru import logger

from outrider.core.errors import ConfigError, DriverError
from outrider.etcd.seam import CreatedAt, Put
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.documents import Group, encode
from outrider.model.keys import check_part
from outrider.service.rollouts.rows import word
from outrider.service.store.context import StoreContext, some

EVERY = timedelta(hours=1)
MOST = 20
KINDS = ("checkin-unknown-app", "checkin-unknown-group")

OnMisaddressed = Callable[[str, str | None, str, str], None]
"""Called with the app, the group (None: it is the app that does not exist), the machine id and the address."""


class Misaddressed:
    """Writes the events."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._hour = -1
        self._told: set[tuple[str, str | None]] = set()

    def __call__(self, app: str, group: str | None, machine: str, address: str) -> None:
        """Note a check-in; a fault of etcd is logged, for the check-in itself has its answer."""
        now = self._context.now()
        if not self._is_news(app, group, now):
            return
        try:
            activity = self._activity(app, group, machine, address, now)
            key = activity_key(self._context.keys, activity, self._hour)  # every process makes the same key
            lease = self._context.cluster.grant(ACTIVITY_KEPT_S)
            self._context.cluster.txn(
                (CreatedAt(key=key, revision=0),), (Put(key=key, value=encode(activity), lease=lease),)
            )
        except ConfigError:
            return  # what it names can't be a part of a key; the log has it
        except DriverError as error:
            logger.bind(error_kind=error.kind, cause=str(error)).warning("activity not written")
            with self._lock:
                self._told.discard((app, group))  # the next check-in tries again

    def _is_news(self, app: str, group: str | None, now: datetime) -> bool:
        hour = int(now.timestamp() // EVERY.total_seconds())
        with self._lock:
            if hour != self._hour:
                self._hour = hour
                self._told.clear()
            if (app, group) in self._told or len(self._told) >= MOST:
                return False
            self._told.add((app, group))
            return True

    def _activity(self, app: str, group: str | None, machine: str, address: str, now: datetime) -> Activity:
        client = word(machine) or "a client without a name"
        if address:
            client += f" ({address})"
        if group is None:
            text = f"{client} checks in for app {word(app)!r}, which does not exist; is it mistyped?"
        else:
            check_part("group", group)
            known = self._context.children(Group, self._context.keys.groups(app))
            there = f"there are {some([one.id for one in known])}" if known else "it has none"
            text = f"{client} checks in to group {group!r}, which app {app} does not have: {there}"
        return Activity(
            at=now, severity="warning", kind=KINDS[group is not None], app=app, group=group or "", text=text
        )
