"""Watches the turns of a scope from outside: the demo vouches for what it saw, not for what it was told."""

import threading
import time
from dataclasses import dataclass

from outrider.etcd.seam import Cluster, KeyChanged, WatchEvent
from outrider.model.documents import Slot, decode
from outrider.model.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTurn:
    """One turn from its slot key's creation to its removal. ``took_s`` is None while it lasts."""

    instance: str
    release: str
    took_s: float | None


class TurnWatch:
    """Every turn since it was started, in order, and how many there were at once."""

    def __init__(self, cluster: Cluster, keys: Keys, scope: str) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, float]] = {}
        self._turns: list[SeenTurn] = []
        self.most_at_once = 0
        prefix = keys.slots(scope)
        listing = cluster.list(prefix)
        self._watch = cluster.watch(prefix, listing.revision + 1, self._see)

    def turns(self) -> tuple[SeenTurn, ...]:
        """All turns seen so far, the oldest first."""
        with self._lock:
            return tuple(self._turns)

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def _see(self, event: WatchEvent) -> None:
        if not isinstance(event, KeyChanged):
            return
        with self._lock:
            if event.entry is not None:
                slot = decode(Slot, event.key, event.entry.value)
                if event.key not in self._open:
                    self._open[event.key] = (len(self._turns), time.monotonic())
                    self._turns.append(SeenTurn(instance=slot.instance, release=slot.release, took_s=None))
            elif event.key in self._open:
                place, began = self._open.pop(event.key)
                turn = self._turns[place]
                took_s = time.monotonic() - began
                self._turns[place] = SeenTurn(instance=turn.instance, release=turn.release, took_s=took_s)
            self.most_at_once = max(self.most_at_once, len(self._open))
