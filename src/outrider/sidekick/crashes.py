"""The last words of a sidekick that dies of an unexpected exception, for ``status``, ``why`` and the activity log.

A bug ends the process, and systemd starts it again into its journal. The traceback is in the machine's log, which
nobody looks at until something else is wrong. So the process leaves a line in etcd before it ends. It writes after the
last step and decides nothing.

Bounded: one document per instance, under a lease; an event only when there is something new to say, because a process
that dies at its start does so every second.
"""

from datetime import datetime

from loguru import logger

from outrider.core.errors import OutriderError
from outrider.etcd.seam import Cluster, Put
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.damage import read_or_none
from outrider.model.documents import Crash, encode
from outrider.model.keys import Keys

CRASH_KEPT_S = 3600.0
"""How long the last crash is shown: longer than a person needs to notice, and over by itself once mended."""
MAX_TEXT = 300
"""Characters of an exception's text; the log has all of it."""


def tell_crash(
    cluster: Cluster, keys: Keys, *, app: str, group: str, instance: str, state: str, error: BaseException, at: datetime
) -> None:
    """Leave the exception in etcd as well as that goes; never raises an ``OutriderError``."""
    key, what = keys.crash(app, instance), in_words(error)
    try:
        found = cluster.get(key)
        old = None if found is None else read_or_none(Crash, key, found.value)
        again = old is not None and old.what == what
        crash = Crash(
            app=app,
            group=group,
            instance=instance,
            state=state,
            what=what,
            count=old.count + 1 if old is not None else 1,
            first=old.first if old is not None else at,
            at=at,
        )
        cluster.txn((), (Put(key=key, value=encode(crash), lease=cluster.grant(CRASH_KEPT_S)),))
        if not again:  # a sidekick whose etcd role permits no activity has left its last words already
            event = Activity(
                at=at,
                severity="error",
                kind="sidekick-crashed",
                app=app,
                group=group,
                instance=instance,
                text=f"the sidekick of {instance} ended unexpectedly in {state}: {what}",
            )
            name = activity_key(keys, event, cluster.list(key, exact=True).revision)
            cluster.txn((), (Put(key=name, value=encode(event), lease=cluster.grant(ACTIVITY_KEPT_S)),))
    except OutriderError as problem:
        logger.bind(error_kind=problem.kind, cause=str(problem)).error("the crash could not be told to the fleet")


def in_words(error: BaseException) -> str:
    """``KeyError: 'x'`` with the place where it was raised: ``(workload.py:71)``."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_TEXT]
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return text
    return f"{text} ({last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno})"
