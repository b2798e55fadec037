"""What etcd went through, revision by revision, and which promises that broke: judged from its keys alone."""

import threading
from collections import Counter

from outrider.core.errors import OutriderError
from outrider.demo.fleet import APP_ID, GROUP, SERVICE
from outrider.etcd.seam import Cluster, KeyChanged, Resynced, WatchEvent
from outrider.model.documents import Slot, decode
from outrider.model.keys import Keys, group_scope

SERVERS = f"traefik/http/services/{SERVICE}/loadbalancer/servers/"


class History:
    """Follows turns and balancer entries from now on. A breach is a line for a person.

    Attributes:
        breaches: What broke P1, P2 or P3, each once.
        turns: Release -> instances that had a turn for it.
        revisions: How many revisions were judged.
    """

    def __init__(self, cluster: Cluster, keys: Keys, *, slots: int) -> None:
        self._slots_allowed = slots
        scope = group_scope(APP_ID, GROUP)
        self._slot_prefix, self._queue_prefix = keys.slots(scope), keys.queue(scope)
        self._lock = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._queue: set[str] = set()
        self._entries: dict[str, str] = {}
        self._pending: list[KeyChanged] = []
        self.breaches: list[str] = []
        self.turns: dict[str, set[str]] = {}
        self.revisions: Counter[str] = Counter()
        first = cluster.list(keys.all_group_turns()).revision + 1
        self._watches = [
            cluster.watch(prefix, first, self._see) for prefix in (self._slot_prefix, self._queue_prefix, SERVERS)
        ]

    def close(self) -> None:
        for watch in self._watches:
            watch.close()

    def most(self) -> int:
        with self._lock:
            return len(self._slots)

    def entries(self) -> dict[str, str]:
        """Instance -> address in the balancer, as far as we have seen."""
        with self._lock:
            return dict(self._entries)

    def reached(self, release: str) -> set[str]:
        with self._lock:
            return set(self.turns.get(release, ()))

    def _see(self, event: WatchEvent) -> None:
        with self._lock:
            match event:
                case Resynced():
                    self.breaches.append("the watch lost revisions to a compaction: the history has a hole")
                case KeyChanged(key=key) if key.startswith(self._slot_prefix):
                    self._slot(event)
                case KeyChanged(key=key) if key.startswith(self._queue_prefix):
                    name = key.removeprefix(self._queue_prefix)
                    (self._queue.discard if event.entry is None else self._queue.add)(name)
                case KeyChanged():
                    self._entry(event)

    def _slot(self, change: KeyChanged) -> None:
        self.revisions["turns"] += 1
        if change.entry is None:
            self._slots.pop(change.key, None)
            return
        try:
            slot = decode(Slot, change.key, change.entry.value)
        except OutriderError as error:
            self.breaches.append(f"revision {change.revision}: {error}")
            return
        self._slots[change.key] = slot
        self.turns.setdefault(slot.release, set()).add(slot.instance)
        if len(self._slots) > self._slots_allowed:
            holders = {number: one.instance for number, one in self._slots.items()}
            self.breaches.append(f"P1: revision {change.revision}: {len(self._slots)} turns: {holders}")

    def _entry(self, change: KeyChanged) -> None:
        """start-first: an entry is overwritten, never taken out."""
        self.revisions["balancer"] += 1
        name, _, field = change.key.removeprefix(SERVERS).partition("/")
        if field != "url":
            return
        if change.entry is None:
            self.breaches.append(f"P3: revision {change.revision}: the entry of {name} was taken out")
        else:
            self._entries[name] = change.entry.value.decode()
