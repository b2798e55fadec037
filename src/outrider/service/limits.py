"""What one service takes (P15): each limit with its default, and with the option of ``serve`` that sets it.

An answer that refuses something because of a limit names the option.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from threading import Lock

from outrider.core.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_BUCKETS = 20_000
CHECKINS_AT_ONCE = 60
"""An update is about ten check-ins within seconds, and an outbox may hold several updates."""


def limit(default: int, help: str) -> int:
    """A limit: a whole number from 1."""
    value: int = field(default=default, metadata={"help": help})
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one service process; rows and webhooks are limited for all together."""

    max_connections: int = limit(2000, "Connections at the same time; the one that waits longest makes room.")
    max_header_s: int = limit(10, "Seconds for the header of a request.")
    max_body_s: int = limit(30, "Seconds for the body of a request; for each 64 KiB of an upload.")
    max_idle_s: int = limit(15, "Seconds between two requests on a connection.")
    max_requests_per_s: int = limit(100, "Requests per second of one address, on average.")
    max_burst: int = limit(1500, "Requests of one address at once, after a pause.")
    max_checkins_per_s: int = limit(2, "Check-ins per second of one instance, on average; 60 at once after a pause.")
    max_apps_per_request: int = limit(10, "Apps in one Omaha request, 100 at most.")
    max_json_bytes: int = limit(1024 * 1024, "Bytes of a request to the API.")
    max_upload_bytes: int = limit(16 * 1024**3, "Bytes of an uploaded payload.")
    max_instances: int = limit(5000, "Instances of one group.")
    max_strangers: int = limit(
        500, "Instances of one group of which no sidekick is known, such as other Omaha clients."
    )
    max_stranger_days: int = limit(7, "Days after which an instance that never had a sidekick is forgotten.")
    max_history: int = limit(50, "Events that are kept of an instance; of one that never had a sidekick a fifth.")
    max_webhooks: int = limit(20, "Webhooks.")
    max_story_bytes: int = limit(64_000_000, "Bytes of the history of all groups; beyond, the oldest is removed.")
    max_story_update_bytes: int = limit(
        2048, "Bytes of one update of one instance in the history, 1000 at least; further steps are left out."
    )
    max_live_pages: int = limit(200, "Pages in browsers that follow what happens; others ask now and then.")
    max_session_h: int = limit(12, "Hours after which a session of the web page ends that nobody uses.")


NAMES = tuple(each.name for each in fields(Limits))


def option_of(name: str) -> str:
    """The option of ``serve`` that sets a limit: ``--max-header-s``."""
    return "--" + name.replace("_", "-")


def checked(limits: Limits) -> Limits:
    """Return limits that make sense.

    Raises:
        ConfigError: one is less than 1, or more than the protocol has.
    """
    for name in NAMES:
        if getattr(limits, name) < 1:
            raise ConfigError(f"{option_of(name)} {getattr(limits, name)}: write 1 or more")
    if limits.max_story_update_bytes < 1000:
        given = f"{option_of('max_story_update_bytes')} {limits.max_story_update_bytes}"
        raise ConfigError(f"{given}: write 1000 at least: less has no room for the end of an update")
    if limits.max_apps_per_request > 100:
        raise ConfigError(f"{option_of('max_apps_per_request')} {limits.max_apps_per_request}: write 100 at most")
    return limits


class Buckets:
    """Who may ask how often: each name has a bucket of ``burst`` tokens, which fills again by ``per_s``.

    Of too many names the ones are forgotten that asked longest ago: their buckets are the fullest.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str, cost: float = 1.0) -> float:
        """Take ``cost`` tokens; returns 0, or the seconds after which there are enough."""
        now = self._clock()
        with self._lock:
            left, at = self._known.pop(name, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_s)
            wait_s = max(0.0, (cost - left) / self._per_s)
            self._known[name] = (left if wait_s else left - cost, now)
            if len(self._known) > MAX_BUCKETS:
                self._known.popitem(last=False)
        return wait_s


def checkin_buckets(limits: Limits) -> Buckets:
    """How often each instance may check in."""
    return Buckets(limits.max_checkins_per_s, CHECKINS_AT_ONCE)


def bucket_of(address: str) -> str:
    """The name of an address's bucket: of IPv6, its /64, of which one machine has all addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def parse_proxies(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read the networks of proxies whose word about a client's address counts.

    Raises:
        ConfigError: one is no network.
    """
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in texts)
    except ValueError as error:
        raise ConfigError(f"--trusted-proxy: {error}; write an address or a network, such as 10.1.0.0/16") from error


def forwarded_address(peer: str, forwarded_for: str, proxies: tuple[Network, ...]) -> str:
    """The client's address: the last one in ``X-Forwarded-For`` that no trusted proxy has.

    Args:
        peer: At the other end of the connection.
        forwarded_for: The header, or all of them, joined by commas.
    """
    address = peer
    for text in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        if not _is_in(address, proxies):
            break
        host = text.rpartition(":")[0].strip("[]") if text.startswith("[") or text.count(":") == 1 else text
        try:
            address = str(ipaddress.ip_address(host))
        except ValueError:
            break  # nobody knows who that is; the proxy that said so is the last one known
    return address


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    inner = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(inner.version == network.version and inner in network for network in networks)
