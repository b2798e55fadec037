"""Presence: this sidekick's live state in etcd, under its lease.

For people and the web page; the service counts by it who serves (``min_healthy``), and sidekicks decide nothing by it.
"""

import threading
from collections.abc import Callable

from loguru import logger
from msgspec.structs import replace

from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster, Put
from outrider.failpoints import failpoint
from outrider.model.documents import Presence, encode

RETRY_S = 2.0


class PresenceWriter:
    """Writes the newest state, from a thread of its own; states that are overtaken meanwhile are skipped."""

    def __init__(self, cluster: Cluster, key: str, lease: Callable[[], int | None], *, shared_scope: str = "") -> None:
        """``shared_scope``: name of the operator's scope in which the sidekick takes turns, empty without one."""
        self._cluster, self._key, self._lease, self._shared_scope = cluster, key, lease, shared_scope
        self._changed = threading.Condition()
        self._newest: Presence | None = None
        self._note = ""
        self._stale = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    def show(self, presence: Presence) -> None:
        """Let the fleet see this from now on."""
        with self._changed:
            self._newest, self._stale = replace(presence, shared_scope=self._shared_scope), True
            self._changed.notify_all()

    def note(self, text: str) -> None:
        """Add ``text`` to the reason that is shown, until another one comes; empty: nothing is added.

        For what happens within a state, such as the answers so far to a probe: the machine needs no event of it.
        """
        with self._changed:
            if text != self._note:
                self._note, self._stale = text, self._newest is not None
                self._changed.notify_all()

    def refresh(self) -> None:
        """Write again: there is a new lease, and the key went with the old one."""
        with self._changed:
            self._stale = self._newest is not None
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(10.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stale or self._closed)
                if self._closed:
                    return
                presence, self._stale = self._newest, False
                if presence is not None and self._note:
                    presence = replace(presence, why=f"{presence.why}: {self._note}" if presence.why else self._note)
            lease = self._lease()
            if presence is None or lease is None:
                continue  # refresh() comes with the next lease
            try:
                with failpoint("presence.write"):
                    self._cluster.txn((), (Put(key=self._key, value=encode(presence), lease=lease),))
            except DriverError as error:
                logger.bind(error_kind=error.kind, cause=str(error)).debug("presence not written")
                with self._changed:
                    self._stale = True
                    if self._changed.wait_for(lambda: self._closed, timeout=RETRY_S):
                        return
