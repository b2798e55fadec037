"""Where requests of the service may lead: to public addresses, and to what the operator allows besides.

A webhook, and an analysis at the end of a wave, make the service send a request to an address of somebody's choice. So
it must not reach what only the service's own network can: loopback, link-local (a cloud's metadata), private networks.
A name is resolved when the webhook or the policy is made, and again by each connection: the address that is connected
to is what counts, whatever the name's server said before, and wherever a redirect leads.
"""

import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from outrider.core.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowed(OSError):
    """A connection to an address that may not be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """What webhooks, or analyses, may reach.

    Attributes:
        allowed: Networks besides the public ones.
        whose: Who is sent there, for people.
        option: The option that allows more.
    """

    allowed: tuple[Network, ...] = ()
    whose: str = "webhooks"
    option: str = "--allow-webhooks-to"

    def allows(self, address: Address) -> bool:
        """Whether ``address`` may be connected to."""
        inner = _inner(address)
        if any(
            one.version == network.version and one in network for one in (address, inner) for network in self.allowed
        ):
            return True
        return all(one.is_global and not one.is_multicast for one in (address, inner))

    def check(self, what: str, host: str) -> None:
        """Refuse a host of which any address may not be reached; one that isn't known now is checked when it is.

        Raises:
            ConfigError: with the address, and the option that allows it.
        """
        for address in addresses_of(host):
            if not self.allows(address):
                raise ConfigError(
                    f"{what}: {host} is {address}, which is no public address; if {self.whose} shall reach it, start"
                    f" the service with {self.option}={address}"
                )

    @contextmanager
    def enforced(self, url: str) -> Iterator[list[str]]:
        """While the block runs, no connection of this thread reaches another address; ``url`` is where it is sent.

        The proxies of the environment are the operator's and stay reachable; through one, the name in ``url`` is
        checked before.

        Yields:
            The refusals, in words.
        """
        refused: list[str] = []
        hosts = {urlsplit(proxy).hostname for proxy in getproxies().values()} - {None}
        proxies = frozenset(address for host in hosts for address in addresses_of(host or ""))
        if proxies:
            refused += [str(one) for one in addresses_of(urlsplit(url).hostname or "") if not self.allows(one)]
        _install()
        _OF_THREAD.rule = None if refused else (self, proxies, refused)
        _OF_THREAD.closed = bool(refused)
        try:
            yield refused
        finally:
            _OF_THREAD.rule, _OF_THREAD.closed = None, False


ANALYSES = Destinations(whose="analyses", option="--allow-analyses-to")
"""Where analyses lead while nothing is allowed besides public addresses."""


def parse_allowed(texts: tuple[str, ...], kind: Destinations = Destinations()) -> Destinations:
    """Read the networks that may be reached besides: ``10.0.0.0/8``, ``127.0.0.1``, ``::1``.

    Args:
        kind: Whose they are.

    Raises:
        ConfigError: one is no network.
    """
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            raise ConfigError(
                f"{kind.option} {text[:100]!r}: write an address or a network, such as 10.1.0.0/16"
            ) from error
    return replace(kind, allowed=tuple(networks))


def addresses_of(host: str) -> tuple[Address, ...]:
    """All addresses of a host, as this machine resolves it now; empty when it doesn't."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(_parsed(str(info[4][0])) for info in found))


def _parsed(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


class _OfThread(threading.local):
    rule: tuple[Destinations, frozenset[Address], list[str]] | None = None
    closed = False


_OF_THREAD = _OfThread()
_INSTALLED = threading.Event()


def _install() -> None:
    """Watch the connections of this process: libraries open theirs themselves, and follow redirects."""
    if not _INSTALLED.is_set():
        _INSTALLED.set()
        sys.addaudithook(_at_connection)


def _at_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or (_OF_THREAD.rule is None and not _OF_THREAD.closed):
        return
    target = arguments[1]
    if _OF_THREAD.closed or not isinstance(target, tuple):
        raise NotAllowed("that address may not be reached")
    assert _OF_THREAD.rule is not None
    destinations, proxies, refused = _OF_THREAD.rule
    try:
        address = _parsed(str(target[0]))
    except ValueError:  # a name: Python resolves it within the connection, and nobody sees to what
        raise NotAllowed("a connection by name") from None
    if address not in proxies and not destinations.allows(address):
        refused.append(str(address))
        raise NotAllowed(f"{address} is no public address")
