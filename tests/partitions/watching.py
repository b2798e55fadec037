"""What the whole fleet did to shared keys while things were cut, seen from outside, revision by revision."""

import threading
from dataclasses import dataclass

from outrider.demo.fleet import SERVICE
from outrider.etcd.seam import KeyChanged, Watch, WatchEvent
from outrider.model.documents import Slot, decode
from tests.partitions.fleet import App, Fleet

SERVERS = f"traefik/http/services/{SERVICE}/loadbalancer/servers/"


@dataclass(frozen=True)
class Written:
    """A server's entry, or its removal when ``url`` is None."""

    revision: int
    instance: str
    url: str | None


class History:
    """Every slot and every server's entry since it began. ``close`` ends it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._lock = fleet, threading.Lock()
        self._slots: dict[str, dict[str, str]] = {}
        self._most: dict[str, int] = {}
        self._written: list[Written] = []
        cluster, keys = fleet.world.cluster, fleet.world.keys
        self._slot_prefixes = {app.scope: keys.slots(app.scope) for app in fleet.apps}
        self._watches: list[Watch] = []
        for prefix in (keys.all_group_turns(), SERVERS):
            listing = cluster.list(prefix)
            for entry in listing.entries:
                self._note(entry.key, entry.value, entry.mod_revision)
            self._watches.append(cluster.watch(prefix, listing.revision + 1, self._see))

    def close(self) -> None:
        for watch in self._watches:
            watch.close()

    def most_at_once(self, app: App) -> int:
        """How many turns of the app there were at the same time, at most."""
        with self._lock:
            return self._most.get(app.scope, 0)

    def written(self, instance: str) -> list[Written]:
        """All that was written to the entry of ``instance``."""
        with self._lock:
            return [one for one in self._written if one.instance == instance]

    def _see(self, event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged), "a watch of the test's own has lost events: it can't vouch for anything"
        self._note(event.key, event.entry.value if event.entry is not None else None, event.revision)

    def _note(self, key: str, value: bytes | None, revision: int) -> None:
        with self._lock:
            if key.startswith(SERVERS):
                instance, _, name = key.removeprefix(SERVERS).partition("/")
                if name == "url":
                    self._written.append(Written(revision, instance, value.decode() if value is not None else None))
                return
            scope = next((one for one, prefix in self._slot_prefixes.items() if key.startswith(prefix)), None)
            if scope is not None:
                slots = self._slots.setdefault(scope, {})
                if value is None:
                    slots.pop(key, None)
                else:
                    slots[key] = decode(Slot, key, value).instance
                self._most[scope] = max(self._most.get(scope, 0), len(slots))
