"""Finds a free port for a workload."""

import contextlib
import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path

from outrider.config.sections import port_range
from outrider.core.errors import DriverError

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LEAST = 10_000
"""Below it are the ports that services are usually given by hand."""
_TRIES = 20


def free_port(host: str, ports: str, taken: Collection[int] = ()) -> int:
    """A port of ``ports`` (as in ``[workload]``) on ``host`` that nobody listens on and that isn't in ``taken``.

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


def port_again(host: str, ports: str, *, before: int | None, known: Collection[int], running: Collection[int]) -> int:
    """As ``free_port``, for a workload that may have run already.

    It gets the port that it had, for the balancer's entry may name that still. For the same reason it gets none that
    another workload of ours had, which may be down and come back: it would get the other's traffic.

    Args:
        before: The port that it had, None when it is new.
        known: Ports of all other workloads of ours, also of those that don't run. Without another they are taken.
        running: Ports of those that run.
    """
    wanted = port_range(ports)
    if before is not None and (wanted is None or wanted[0] <= before <= wanted[1]):
        with contextlib.suppress(DriverError):
            return free_port(host, str(before), running)
    with contextlib.suppress(DriverError):
        return free_port(host, ports, {*known, *running})
    return free_port(host, ports, running)


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
        raise DriverError(f"workload.host {host!r}: can't listen there: {error.strerror or error}") from error
