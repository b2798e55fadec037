"""The highest revision of etcd of which a client has seen anything: what it is answered must not be older (P8)."""

import threading
from collections.abc import Callable


class SeenRevision:
    """Safe to use from several threads."""

    def __init__(self, epoch: Callable[[], str] = lambda: "") -> None:
        """``epoch``: the newest token that was seen; empty for none."""
        self.epoch = epoch
        self._revision = 0
        self._lock = threading.Lock()

    def note(self, revision: int) -> None:
        """Something was seen, or written, at ``revision``."""
        with self._lock:
            self._revision = max(self._revision, revision)

    def forget(self) -> None:
        """etcd was restored: revisions of before count for nothing."""
        with self._lock:
            self._revision = 0

    def __call__(self) -> tuple[int, str]:
        """Revision and epoch."""
        return self._revision, self.epoch()
