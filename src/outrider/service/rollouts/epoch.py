"""Renews the epoch of etcd every minute; any number of processes may, and one of them does each time."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from outrider.core.errors import Conflict, OutriderError
from outrider.etcd.seam import ModifiedAt, Put
from outrider.model.documents import decode, encode
from outrider.model.epoch import RENEWED_S, Epoch
from outrider.service.store.context import StoreContext

RETRY_S = 5.0


def renew(context: StoreContext) -> bool:
    """Write the next token, unless another process has just done so; whether it was written.

    Raises:
        OutriderError: etcd doesn't answer, or refuses.
    """
    key, now = context.keys.epoch(), context.now()
    entry = context.cluster.get(key)
    old: Epoch | None = None
    if entry is not None:
        try:
            old = decode(Epoch, entry.key, entry.value)
        except Conflict as error:
            logger.bind(cause=str(error)).error("document not understood")
    if old is not None and 0 <= (now - old.at).total_seconds() < RENEWED_S * 0.75:
        return False
    token = uuid.uuid4().hex
    new = old.followed_by(token, now) if old is not None else Epoch(token=token, at=now)
    same = ModifiedAt(key=key, revision=0 if entry is None else entry.mod_revision)
    return context.cluster.txn((same,), (Put(key=key, value=encode(new)),)).succeeded


@contextmanager
def epoch_renewal(context: StoreContext) -> Iterator[None]:
    """Renew the epoch while the block runs."""
    closed = threading.Event()

    def run() -> None:
        wait_s = 0.0
        while not closed.wait(wait_s):
            try:
                renew(context)
                wait_s = RENEWED_S
            except OutriderError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("epoch not renewed")
                wait_s = RETRY_S

    thread = threading.Thread(target=run, name="outrider-epoch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join(10.0)
