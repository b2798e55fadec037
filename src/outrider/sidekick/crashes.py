"""The last words of a sidekick that dies of an unexpected exception, for ``status``, ``why`` and the activity log.

A bug ends the process, and systemd starts it again into its journal. The traceback is in the machine's log, which
nobody looks at until something else is wrong. So the process leaves a line in etcd before it ends. It writes after the
last step and decides nothing.

A sidekick that can't even begin, because its Docker or its D-Bus is away for example, has no state and no presence: it
says so in the same place, each time it tries, and takes that back once it has begun.

Bounded: one document per instance, under a lease; an event only when there is something new to say, because a process
that dies at its start does so every second.
"""

from datetime import datetime

from loguru import logger

from outrider.core.errors import OutriderError
from outrider.etcd.seam import Cluster, Delete, ModifiedAt, Put
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.damage import read_or_none
from outrider.model.documents import Crash, encode
from outrider.model.keys import Keys

CRASH_KEPT_S = 3600.0
"""How long the last crash is shown: longer than a person needs to notice, and over by itself once mended."""
BEGIN_KEPT_S = 300.0
"""How long it is shown that one can't begin: beyond the longest pause between two attempts, and what each may take."""
MAX_TEXT = 300
"""Characters of an exception's text; the log has all of it."""


def tell_crash(
    cluster: Cluster,
    keys: Keys,
    *,
    app: str,
    group: str,
    instance: str,
    state: str,
    error: BaseException,
    at: datetime,
    cannot_begin: bool = False,
) -> None:
    """Leave the exception in etcd as well as that goes; never raises an ``OutriderError``.

    ``cannot_begin``: it came before the first step, and the sidekick tries again.
    """
    key = keys.crash(app, instance)
    what = " ".join(str(error).split())[:MAX_TEXT] if cannot_begin else in_words(error)
    try:
        found = cluster.get(key)
        old = None if found is None else read_or_none(Crash, key, found.value)
        if old is not None and old.cannot_begin is not cannot_begin:
            old = None
        again = old is not None and (cannot_begin or old.what == what)
        crash = Crash(
            app=app,
            group=group,
            instance=instance,
            state=state,
            what=what,
            count=old.count + 1 if old is not None else 1,
            first=old.first if old is not None else at,
            at=at,
            cannot_begin=cannot_begin,
        )
        kept_s = BEGIN_KEPT_S if cannot_begin else CRASH_KEPT_S
        cluster.txn((), (Put(key=key, value=encode(crash), lease=cluster.grant(kept_s)),))
        if not again:  # a sidekick whose etcd role permits no activity has left its last words already
            event = Activity(
                at=at,
                severity="error",
                kind="sidekick-cannot-begin" if cannot_begin else "sidekick-crashed",
                app=app,
                group=group,
                instance=instance,
                text=f"{instance}: machine cannot begin: {what}"
                if cannot_begin
                else f"the sidekick of {instance} ended unexpectedly in {state}: {what}",
            )
            name = activity_key(keys, event, cluster.list(key, exact=True).revision)
            cluster.txn((), (Put(key=name, value=encode(event), lease=cluster.grant(ACTIVITY_KEPT_S)),))
    except OutriderError as problem:
        logger.bind(error_kind=problem.kind, cause=str(problem)).error("the crash could not be told to the fleet")


def tell_begun(cluster: Cluster, keys: Keys, *, app: str, instance: str) -> None:
    """Take back that the sidekick can't begin; what one died of stays.

    Raises:
        DriverError: etcd didn't answer; ask again.
    """
    key = keys.crash(app, instance)
    found = cluster.get(key)
    old = None if found is None else read_or_none(Crash, key, found.value)
    if found is not None and old is not None and old.cannot_begin:
        cluster.txn((ModifiedAt(key=key, revision=found.mod_revision),), (Delete(key=key),))


def in_words(error: BaseException) -> str:
    """``KeyError: 'x'`` with the place where it was raised: ``(workload.py:71)``."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_TEXT]
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return text
    return f"{text} ({last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno})"
