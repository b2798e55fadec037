"""Which names lead to this service: what ``Host`` and ``Origin`` may say.

A web page can make its own name lead to the service's address (DNS rebinding); the browser then sends it the page's
requests, with that name in ``Host``. An address in ``Host`` can't be such a name.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from outrider.core.errors import Misdirected


def own_hosts(public_url: str | None, allowed: tuple[str, ...] = ()) -> frozenset[str]:
    """The names of a service: this machine's, that of its public address, and those that the operator allows."""
    names = [socket.gethostname(), *allowed]
    if public_url and (host := urlsplit(public_url).hostname):
        names.append(host)
    return frozenset(name.strip().lower().rstrip(".") for name in names if name.strip())


def check_host(host: str, hosts: frozenset[str]) -> None:
    """Refuse a request that was sent to another name.

    Raises:
        Misdirected: ``host`` is neither an address, nor ``localhost``, nor one of ``hosts``.
    """
    name = _name_of(f"//{host}")
    if name is None or not _leads_here(name, hosts):
        raise Misdirected(
            f"this service isn't called {host[:100]!r}; if it is, start it with --allow-host=NAME or --public-url"
        )


def is_of_a_foreign_page(headers: Headers, hosts: frozenset[str]) -> bool:
    """Whether a browser sends the request on behalf of a page from elsewhere, as it says in ``Origin``."""
    origin = headers.get("origin")
    if origin is None:
        return False
    name = _name_of(origin)
    return name is None or not (name == "localhost" or _is_loopback(name) or name in hosts)


def _name_of(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        return parts.hostname.rstrip(".") if parts.hostname and parts.username is None and not parts.path else None
    except ValueError:
        return None


def _leads_here(name: str, hosts: frozenset[str]) -> bool:
    if name == "localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    try:
        parsed = ipaddress.ip_address(name)
    except ValueError:
        return False
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)
