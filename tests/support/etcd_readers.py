"""Stand-ins for balancers that read etcd and can't be had here: what each of them would serve, after every change.

They go by the rules of docs/use/balancers.md, and share no code with the drivers that write.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from outrider.etcd.seam import Cluster, KeyChanged, WatchEvent

Read = Callable[[Mapping[str, bytes]], frozenset[str]]
"""All keys below its root -> the addresses that it sends new requests to."""


def vulcand(keys: Mapping[str, bytes]) -> frozenset[str]:
    """vulcand 0.9 and its backend ``hello``: a key for each server, with its URL in JSON; others are not served."""
    urls = set()
    for key, value in keys.items():
        if re.fullmatch(r"/vulcand/backends/hello/servers/[^/]+", key):
            try:
                urls.add(str(json.loads(value)["URL"]))
            except (ValueError, KeyError, TypeError):
                continue
    return frozenset(urls)


def confd(keys: Mapping[str, bytes]) -> frozenset[str]:
    """confd with the template ``{{range getvs "/services/hello/*/address"}}server {{.}}{{end}}``."""
    found = (value for key, value in keys.items() if re.fullmatch(r"/services/hello/[^/]+/address", key))
    return frozenset(f"http://{value.decode()}" for value in found)


def apisix(keys: Mapping[str, bytes]) -> frozenset[str]:
    """APISIX 3 and its upstream ``hello``: nodes in an object or an array; one that can't be read has no node."""
    try:
        nodes = json.loads(keys["/apisix/upstreams/hello"])["nodes"]
        if isinstance(nodes, dict):
            return frozenset(f"http://{address}" for address, weight in nodes.items() if weight > 0)
        return frozenset(f"http://{one['host']}:{one['port']}" for one in nodes if one["weight"] > 0)
    except (ValueError, KeyError, TypeError):
        return frozenset()


def agents(keys: Mapping[str, bytes]) -> frozenset[str]:
    """Any agent and its service ``hello``: one key for each server, with its URL in JSON."""
    found = (value for key, value in keys.items() if re.fullmatch(r"/outrider/v1/servers/hello/[^/]+/entry", key))
    return frozenset(str(json.loads(value)["url"]) for value in found)


def envoy(eds_file: Path) -> frozenset[str]:
    """Envoy and its file of endpoints: those that are healthy get new requests."""
    if not eds_file.exists():
        return frozenset()
    (assignment,) = json.loads(eds_file.read_bytes())["resources"]
    urls = set()
    for each in (one for locality in assignment["endpoints"] for one in locality["lb_endpoints"]):
        address = each["endpoint"]["address"]["socket_address"]
        if each["health_status"] == "HEALTHY":
            urls.add(f"http://{address['address']}:{address['port_value']}")
    return frozenset(urls)


READERS: Mapping[str, tuple[str, Read]] = {
    "vulcand": ("/vulcand/", vulcand),
    "keys": ("/services/", confd),
    "apisix": ("/apisix/", apisix),
    "agent": ("/outrider/v1/servers/", agents),
}
"""Driver -> the root that its balancer reads, and how."""


class Follower:
    """Reads a listing and then every change, and remembers what it would have served after each.

    Attributes:
        served: The sets of addresses, each once in a row, the present one last. As vulcand does, each change of a
            transaction counts by itself.
    """

    def __init__(self, cluster: Cluster, kind: str) -> None:
        root, self._read = READERS[kind]
        self._lock = threading.Lock()
        listing = cluster.list(root)
        self._keys = {entry.key: entry.value for entry in listing.entries}
        self.served: list[frozenset[str]] = [self._read(self._keys)]
        self._watch = cluster.watch(root, listing.revision + 1, self._note)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *told: object) -> None:
        self._watch.close()

    def _note(self, event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged), "nothing is compacted here"
        with self._lock:
            if event.entry is None:
                self._keys.pop(event.key, None)
            else:
                self._keys[event.key] = event.entry.value
            now = self._read(self._keys)
            if now != self.served[-1]:
                self.served.append(now)
