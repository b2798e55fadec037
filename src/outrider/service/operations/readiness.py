"""Whether the service can do its work: ``/readyz``, and the warnings of ``outrider status``.

A process that answers is not ready when it would refuse what it is for: etcd answers questions and takes no writes, or
documents that decide about everybody (users, policies) can't be read.
"""

import threading
import time
from collections.abc import Callable

from loguru import logger

from outrider.core.errors import ConfigError, Refused
from outrider.core.rollout.windows import NO_ZONES, has_no_zones, zone_of
from outrider.etcd.seam import CreatedAt, Put, ReadOnly
from outrider.model.damage import readable
from outrider.model.documents import Group, User
from outrider.service.operations.backups import restoring_key
from outrider.service.store.context import StoreContext, some

FRESH_S = 5.0
"""Seconds for which the answer of the slower checks is kept: load balancers ask every second or two."""
_NEVER = 2**62
"""No key has this revision, so the transaction that compares it writes nothing."""


class Readiness:
    """Of one process; safe to use from several threads."""

    def __init__(self, context: StoreContext, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self._lock = threading.Lock()
        self._kept: tuple[str, ...] = ()
        self._read_at = float("-inf")

    def problems(self) -> tuple[str, ...]:
        """Why the service is not ready, in a line each; empty when it is.

        Raises:
            Unknown: etcd gives no answer.
        """
        if self._context.cluster.get(restoring_key(self._context.keys)) is not None:
            return ("a restore of the database is running, or was interrupted",)
        with self._lock:
            if self._clock() - self._read_at >= FRESH_S:
                found = unready(self._context)
                if found != self._kept:
                    logger.bind(problems=list(found)).log("ERROR" if found else "INFO", "readiness changed")
                self._kept, self._read_at = found, self._clock()
            return self._kept


def unready(context: StoreContext) -> tuple[str, ...]:
    """Why the fleet can't be served as it is stored, in a line each.

    What this process may not read in etcd is not looked at.

    Raises:
        Unknown: etcd gives no answer.
    """
    found = [
        *_guarded(_write_problem, context),
        *((NO_ZONES,) if has_no_zones() else ()),
        *_guarded(_user_problem, context),
        *_guarded(_policy_problem, context),
    ]
    return tuple(found)


def _guarded(check: Callable[[StoreContext], str], context: StoreContext) -> tuple[str, ...]:
    try:
        problem = check(context)
    except Refused:  # no permission, say for a user of etcd that may only look
        return ()
    return (problem,) if problem else ()


def _write_problem(context: StoreContext) -> str:
    """Ask for a write that can't happen: etcd refuses even that while it takes none."""
    key = f"{context.keys.prefix}/ready"
    try:
        context.cluster.txn((CreatedAt(key=key, revision=_NEVER),), (Put(key=key, value=b"{}"),))
    except ReadOnly as error:
        return f"{error}; what is shown may be old"
    return ""


def _user_problem(context: StoreContext) -> str:
    prefix = context.keys.users()
    entries = context.cluster.list(prefix).entries
    fine = {entry.key for entry, _ in readable(User, entries)}
    damaged = [entry.key.removeprefix(prefix) for entry in entries if entry.key not in fine]
    if not damaged:
        return ""
    return f"users that can't be read: {some(damaged)}; `outrider admin-user create NAME` gives one a new token"


def _policy_problem(context: StoreContext) -> str:
    damaged, no_zone = [], []
    apps = context.keys.apps()
    groups = [entry for entry in context.cluster.list(apps).entries if _is_group(entry.key.removeprefix(apps))]
    known = {entry.key: group for entry, group in readable(Group, groups)}
    for entry in groups:
        group = known.get(entry.key)
        name = " ".join(entry.key.removeprefix(apps).split("/groups/"))
        if group is None:
            damaged.append(name)
            continue
        try:
            zone_of(group.policy.time_zone)
        except ConfigError:
            no_zone.append(f"{name} ({group.policy.time_zone})")
    problems = []
    if damaged:
        problems.append(f"groups whose policy can't be read: {some(damaged)}; restore them from a backup")
    if no_zone:
        problems.append(f"time zones of policies that are unknown here: {some(no_zone)}; install tzdata")
    return "; ".join(problems)


def _is_group(below: str) -> bool:
    parts = below.split("/")
    return len(parts) == 3 and parts[1] == "groups"
