"""Finds a free port for a workload."""

import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path

from outrider.config import port_range
from outrider.core.errors import DriverError

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LEAST = 10_000
"""Below it are the ports that services are usually given by hand."""
_TRIES = 20


def free_port(host: str, ports: str, taken: Collection[int] = ()) -> int:
    """A port of ``ports`` (as in ``[process]``) on ``host`` that nobody listens on and that isn't in ``taken``.

    It is only looked up, not held: whoever is quicker may still get it, and then the start fails. With ``ports`` "" it
    is therefore one that no outgoing connection can be given, and a different one for each who asks.

    Raises:
        DriverError: none is free, or ``host`` isn't an address of this machine.
    """
    wanted = port_range(ports)
    # Port 0 lets the kernel choose; it may choose one that was given to a workload which doesn't listen yet.
    candidates = range(wanted[0], wanted[1] + 1) if wanted else [*_quiet_ports(), *[0] * _TRIES]
    for candidate in candidates:
        port = None if candidate in taken else _try(host, candidate)
        if port is not None and port not in taken:
            return port
    raise DriverError(f"no free port on {host} in {ports or 'any range'}; all are in use")


def _quiet_ports() -> list[int]:
    """Some ports at random, below those that Linux gives to outgoing connections."""
    try:
        lowest = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return []
    quiet = range(_LEAST, lowest)
    return random.sample(quiet, min(_TRIES, len(quiet)))


def address(host: str, port: int) -> str:
    """``http://host:port``, an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _try(host: str, port: int) -> int | None:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: old connections in TIME_WAIT don't count, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise DriverError(f"process.host {host!r}: can't listen there: {error.strerror or error}") from error
