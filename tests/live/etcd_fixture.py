"""Helpers for tests that do real trouble to real etcd servers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loguru import logger

from outrider.core.errors import Unknown
from outrider.etcd.seam import Cluster, CreatedAt, KeyChanged, Put, Resynced, WatchEvent
from tests.support.waiting import eventually


class Diary:
    """Writes down what a watch delivers."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        """``then`` is called on the watch's thread with the number of events so far."""
        self.events: list[WatchEvent] = []
        self._then = then

    def __call__(self, event: WatchEvent) -> None:
        self.events.append(event)
        self._then(len(self.events))

    def keys(self) -> list[str]:
        return [event.key for event in self.events if isinstance(event, KeyChanged)]

    def revisions(self) -> list[int]:
        return [event.revision for event in self.events if isinstance(event, KeyChanged)]

    def resynced(self) -> list[Resynced]:
        return [event for event in self.events if isinstance(event, Resynced)]


def create(cluster: Cluster, key: str, value: bytes = b"x") -> None:
    """Write a key exactly once, over whatever trouble; fails after 30 s."""

    def done() -> bool:
        try:
            cluster.txn((CreatedAt(key=key, revision=0),), (Put(key=key, value=value),))
        except Unknown:
            return False
        return True  # also when the comparison failed: then an earlier attempt had happened

    eventually(done, every_s=0.05)


@contextmanager
def writing(cluster: Cluster, prefix: str, count: int) -> Iterator[list[str]]:
    """Write ``count`` keys in another thread, each once; the block gets the list of what was written so far."""
    written: list[str] = []

    def write() -> None:
        for number in range(count):
            create(cluster, f"{prefix}{number:05}")
            written.append(f"{prefix}{number:05}")

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    try:
        yield written
    finally:
        writer.join(60)


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collects what is logged, one line with its fields each."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message} {extra}", level="DEBUG")
    try:
        yield lines
    finally:
        logger.remove(sink)
