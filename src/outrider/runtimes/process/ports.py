"""Finds a free port for a workload."""

import contextlib
import errno
import random
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from outrider.config.sections import port_range
from outrider.core.errors import DriverError
from outrider.runtimes.process.holders import holder_of

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LEAST = 10_000
"""Below it are the ports that services are usually given by hand."""
_TRIES = 20
_SHOWN = 3
"""Ports that an error names; the rest is counted."""


def free_port(host: str, ports: str, taken: Collection[int] = ()) -> int:
    """A port of ``ports`` (as in ``[workload]``) on ``host`` that no process listens on and that isn't in ``taken``.

    The port is looked up, not held: another process may still take it, and then the start fails. So with ``ports`` ""
    it is one that no outgoing connection can be given, and each call gives another one.

    Raises:
        DriverError: none is free, or ``host`` isn't an address of this machine. The text names the processes that hold
            the first few ports.
    """
    wanted = port_range(ports)
    # Port 0 lets the kernel choose; it may choose one that was given to a workload which doesn't listen yet.
    candidates = range(wanted[0], wanted[1] + 1) if wanted else [*_quiet_ports(), *[0] * _TRIES]
    problems = []
    for candidate in candidates:
        if candidate in taken:
            problems.append(f"port {candidate} belongs to another version of this instance")
            continue
        port, problem = _try(host, candidate)
        if port and port not in taken:
            return port
        problems.append(problem or f"port {port} belongs to another version of this instance")
    more = f"; {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DriverError(
        f"no free port on {host} in {ports or 'any range'}: {'; '.join(problems[:_SHOWN])}{more}", evidence="no-port"
    )


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


def in_use(host: str, port: int, besides: Callable[[], Collection[int]] = tuple) -> str:
    """``; port 8085 is in use by pid 4711 (nginx: master process)`` when a process listens there; else empty.

    ``besides``: gives the processes that don't count. It is called only when somebody listens there.
    """
    holder = holder_of(host, port, besides=besides)
    return f"; port {port} is in use by {holder}" if holder else ""


def _try(host: str, port: int) -> tuple[int, str]:
    """The port when it is free, or 0 and what is wrong with it."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: old connections in TIME_WAIT don't count, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
            return int(probe.getsockname()[1]), ""
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return 0, f"port {port} is in use by {holder_of(host, port) or 'a process that can not be seen from here'}"
        if error.errno == errno.EACCES:
            return 0, f"port {port} may not be used by this user; ports below 1024 need CAP_NET_BIND_SERVICE"
        # an address or a name that isn't there may be wrong, or its interface or resolver may be away for a while
        away = error.errno in (errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH, socket.EAI_AGAIN)
        raise DriverError(
            f"workload.host {host!r}: can't listen there: {error.strerror or error}",
            evidence="network" if away else "wrong-setting",
        ) from error
