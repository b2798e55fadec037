"""Removes the rows of strangers that are silent: of instances that never had a sidekick, as far as anybody saw.

Any number of service processes may do it: each removal compares the row, and that no sidekick is registered.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from loguru import logger

from outrider.core.errors import OutriderError
from outrider.etcd.seam import CreatedAt, Delete, ModifiedAt
from outrider.model.damage import readable
from outrider.model.documents import App, Instance
from outrider.service.limits import Limits
from outrider.service.store.context import StoreContext

EVERY_S = 600.0
MOST_AT_ONCE = 500
"""Of one app, in one pass: a pass must not keep etcd busy."""


@contextmanager
def stranger_expiry(context: StoreContext, limits: Limits) -> Iterator[None]:
    """Remove such rows every ten minutes while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(EVERY_S):
            try:
                remove_silent_strangers(context, limits)
            except OutriderError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("silent rows not removed")

    thread = threading.Thread(target=run, name="outrider-stranger-expiry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30.0)


def remove_silent_strangers(context: StoreContext, limits: Limits) -> int:
    """Remove the rows that are too old; returns how many.

    A row with an open grant stays: the rollout counts it until the grant ends.

    Raises:
        Unknown: etcd gives no answer.
    """
    oldest, removed = context.now() - timedelta(days=limits.max_stranger_days), 0
    for app in context.children(App, context.keys.apps()):
        left = MOST_AT_ONCE
        for entry, row in readable(Instance, context.cluster.list(context.keys.instances(app.id)).entries):
            if not row.is_stranger or row.last_seen >= oldest or row.granted_version is not None or not left:
                continue
            left -= 1
            keys = context.keys
            compared = (
                ModifiedAt(key=entry.key, revision=entry.mod_revision),
                CreatedAt(key=keys.presence(app.id, row.group, row.id), revision=0),
            )
            gone = (Delete(key=entry.key), Delete(key=keys.deferral(app.id, row.group, row.id)))
            removed += context.cluster.txn(compared, gone).succeeded
    if removed:
        logger.bind(rows=removed).info("silent instances without a sidekick forgotten")
    return removed
