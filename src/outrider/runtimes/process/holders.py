"""Names the process that listens on a port, for the person who has to end it.

Source: proc(5), /proc/net/tcp; kernel net/ipv4/tcp_ipv4.c (get_tcp4_sock), include/net/tcp_states.h.
"""

import contextlib
import ipaddress
import os
import pwd
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outrider.runtimes.process.identity import PROC

_LISTEN = "0A"
_SHOWN = 80
"""Characters of a command that are shown."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """A listening socket. ``inode`` is how a process's open file names it."""

    address: _Address
    port: int
    uid: int
    inode: str


def holder_of(host: str, port: int, proc: Path = PROC, besides: Callable[[], Collection[int]] = tuple) -> str:
    """The process that keeps ``host:port`` from being listened on: ``pid 4711 (nginx: master process)``.

    Empty when no socket listens there, or one that a process of ``besides`` has. When the process belongs to another
    user, that user is named instead.
    """
    listeners = [one for one in _listeners(proc) if one.port == port and _conflicts(one.address, host)]
    if not listeners:
        return ""
    wanted = {f"socket:[{one.inode}]" for one in listeners}
    if any(_has_open(proc / str(pid), wanted) for pid in besides()):
        return ""
    for pid in sorted(int(entry) for entry in os.listdir(proc) if entry.isdigit()):
        if _has_open(proc / str(pid), wanted):
            return f"pid {pid} ({_command(proc / str(pid))})"
    return f"a process of user {_user(listeners[0].uid)} that this user may not look at"


def listening(pids: Iterable[int], proc: Path = PROC) -> frozenset[tuple[str, int]]:
    """Where these processes listen: address and port; the address is empty where they listen on all of them."""
    listeners = list(_listeners(proc))
    return frozenset(
        ("" if one.address.is_unspecified else str(one.address), one.port)
        for pid in pids
        for one in listeners
        if _has_open(proc / str(pid), {f"socket:[{one.inode}]"})
    )


def _listeners(proc: Path) -> Iterator[_Listener]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "self/net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _LISTEN:
                    packed, _, port = fields[1].partition(":")
                    yield _Listener(address=_address(packed), port=int(port, 16), uid=int(fields[7]), inode=fields[9])


def _address(packed: str) -> _Address:
    """The kernel prints 32-bit words in the machine's order."""
    words = [bytes.fromhex(packed[at : at + 8]) for at in range(0, len(packed), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _conflicts(listens: _Address, host: str) -> bool:
    """Whether a socket at ``listens`` keeps another one from ``host``."""
    if listens.is_unspecified:
        return True
    with contextlib.suppress(OSError, ValueError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        ours = ipaddress.ip_address(str(found).partition("%")[0])
        return ours.is_unspecified or ours == listens
    return True


def _has_open(process: Path, wanted: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for entry in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):
                if os.readlink(entry.path) in wanted:
                    return True
    return False


def _command(process: Path) -> str:
    """What was typed to run it, or its name when it shows no arguments."""
    with contextlib.suppress(OSError):
        words = b" ".join((process / "cmdline").read_bytes().split(b"\0")).decode(errors="replace")
        shown = "".join(letter if letter.isprintable() else "?" for letter in words).strip()
        return shown[:_SHOWN] or (process / "comm").read_text().strip()
    return "ended meanwhile"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
