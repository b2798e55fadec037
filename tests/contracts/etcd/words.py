"""Short words for the tests of the store."""

import threading

from outrider.etcd.seam import Cluster, Entry, KeyChanged, Put, Watch, WatchEvent


class Diary:
    """Writes down what a watch delivers."""

    def __init__(self) -> None:
        self.events: list[WatchEvent] = []
        self.threads: set[str] = set()

    def __call__(self, event: WatchEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    def told(self) -> list[tuple[str, bytes | None]]:
        """Key and value of every change, None for a removal."""
        changes = [event for event in self.events if isinstance(event, KeyChanged)]
        return [(change.key, change.entry.value if change.entry else None) for change in changes]


def put(cluster: Cluster, key: str, value: bytes = b"x", *, lease: int = 0) -> int:
    """Write one key; returns the revision."""
    return cluster.txn((), (Put(key=key, value=value, lease=lease),)).revision


def now(cluster: Cluster, prefix: str) -> int:
    return cluster.list(prefix).revision


def entry(cluster: Cluster, key: str) -> Entry:
    found = cluster.get(key)
    assert found is not None
    return found


def watch(cluster: Cluster, prefix: str, diary: Diary, *, exact: bool = False) -> Watch:
    return cluster.watch(prefix, now(cluster, prefix) + 1, diary, exact=exact)
