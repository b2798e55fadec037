"""Addresses as operators write them: etcd's endpoints, and the http(s) addresses of services.

People copy endpoints from etcdctl, Traefik and etcd's own documentation, which all take ``http://host:2379/``. So a
scheme and a slash at the end are accepted. Everything else that is not ``HOST:PORT`` is refused, with the words to
write instead.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_ENDPOINT = re.compile(r"((?P<scheme>[^:/?#\[\]@]+)://)?(?P<place>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")
_WRITE = "write HOST:PORT"
MAX_SHOWN = 100
"""Characters of a wrong address in an error line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """One address.

    Attributes:
        host: Without the brackets of an IPv6 address.
        scheme: ``http`` or ``https`` where it was written, else None.
    """

    host: str
    port: int
    scheme: str | None = None


def parse_endpoint(text: str) -> HostPort:
    """Read ``HOST:PORT``, ``http://HOST:PORT`` or ``https://HOST:PORT``, with or without a slash at the end.

    Raises:
        ValueError: it is anything else; the text says what is wrong and what to write.
    """
    shown = repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
    matched = _ENDPOINT.fullmatch(text.strip())
    assert matched is not None
    scheme, place, rest = matched["scheme"], matched["place"], matched["rest"]
    if scheme is not None and scheme.lower() not in ("http", "https"):
        raise ValueError(f"{shown}: the scheme {scheme[:20]!r} is unknown; {_WRITE} or https://HOST:PORT")
    if "@" in place:
        raise ValueError("contains a user; set etcd's user and password in their own settings, and write HOST:PORT")
    if rest not in ("", "/"):
        raise ValueError(f"{shown}: has a path; {_WRITE} alone")
    if "," in place:
        raise ValueError(f"{shown}: holds several addresses; write one endpoint in each text of the list")
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        raise ValueError(f"{shown}: no port; {_WRITE}, for example 127.0.0.1:2379")
    return HostPort(host=_host(host, shown), port=_port(port, shown), scheme=scheme.lower() if scheme else None)


def parse_endpoints(texts: Iterable[str], *, tls: bool = False) -> tuple[tuple[HostPort, ...], bool]:
    """Read the endpoints of one etcd, and tell whether they are asked over TLS.

    Args:
        tls: TLS is wanted by another setting: then no endpoint may say ``http://``.

    Returns:
        The endpoints, and whether any says ``https://`` or ``tls`` is given. One that names no scheme follows.

    Raises:
        ValueError: one can't be used, or they contradict each other.
    """
    endpoints = tuple(parse_endpoint(text) for text in texts)
    if not endpoints:
        raise ValueError(f"is empty; {_WRITE}, for example 127.0.0.1:2379")
    schemes = {each.scheme for each in endpoints}
    if "http" in schemes and "https" in schemes:
        raise ValueError("some endpoints begin with http:// and some with https://; write the same for all")
    if "http" in schemes and tls:
        raise ValueError("http:// is without TLS, and a file of certificates is set; write https://")
    return endpoints, tls or "https" in schemes


def http_problem(url: str) -> str | None:
    """What is wrong with ``url`` as the address of a service, in words; None when nothing is."""
    if _UNFIT.search(url):
        return "contains spaces or control characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as problem:  # a bracket too few, a port that is no number or beyond 65535
        return f"no address: {problem}".partition("\n")[0][:MAX_SHOWN]
    if parts.scheme not in ("http", "https") or not host:
        return "no http address; write http://HOST[:PORT] or https://HOST[:PORT]"
    if port == 0:
        return "ports are 1 to 65535"
    if parts.username is not None or parts.password is not None:
        return "contains a user; write the address alone"
    if parts.query or parts.fragment:
        return "has a query; write the address alone"
    try:
        _host(f"[{host}]" if ":" in host else host, repr(host[:MAX_SHOWN]))
    except ValueError as problem:
        return str(problem)
    return None


def _host(host: str, shown: str) -> str:
    if host.startswith("["):
        inside, zone = host.removeprefix("[").removesuffix("]"), ""
        if "%" in inside:
            inside, _, zone = inside.partition("%")
        try:
            ipaddress.IPv6Address(inside)
        except ValueError:
            inside = ""
        if not host.endswith("]") or not inside or (zone and not _HOST.fullmatch(zone)):
            raise ValueError(f"{shown}: no IPv6 address in the brackets; write [ADDRESS]:PORT")
        return host[1:-1]
    if ":" in host:
        raise ValueError(f"{shown}: an IPv6 address needs brackets; write [ADDRESS]:PORT")
    if not host:
        raise ValueError(f"{shown}: no host; {_WRITE}")
    # Labels are at most 63 characters long: beyond that the look-up fails inside Python with UnicodeError.
    if not _HOST.fullmatch(host) or ".." in host or any(len(label) > 63 for label in host.split(".")):
        raise ValueError(f"{shown}: the host can't be used; write a host name in ASCII or an address")
    return host


def _port(port: str, shown: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{shown}: the port is not a number; {_WRITE}")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"{shown}: ports are 1 to 65535")
    return int(port)


def masked_path(address: str) -> str:
    """An http(s) address without its path and query, which often hold a secret: ``https://chat.example/...``."""
    try:
        parts = urlsplit(address)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return masked(address)
    return f"{parts.scheme}://{host}{port}/..." if host else masked(address)


def masked(address: str) -> str:
    """An address without what is secret in it, where nearly everything may be: ``slack://...``."""
    kind, found, _ = address.partition("://")
    return f"{kind}://..." if found else "..."


def is_loopback(url: str) -> bool:
    """Nothing of what is sent to ``url`` leaves this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(url: str) -> bool:
    """Nobody on the way to ``url`` can read what is sent to it."""
    return url.strip().lower().startswith("https://") or is_loopback(url)
