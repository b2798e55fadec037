"""Reports the sidekick's state to systemd (sd_notify(3)) without libsystemd; does nothing without systemd."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# systemd reads the socket in its main loop; a status line isn't worth waiting for longer.
_SEND_TIMEOUT_S = 1.0


class Notices(Protocol):
    """Who hears how a sidekick does; see ``Notifier``."""

    @property
    def watchdog_interval_s(self) -> float | None:
        """Seconds after which ``alive`` is to be called again."""

    def ready(self, status: str = "") -> bool:
        """Start-up is over."""

    def status(self, status: str) -> bool:
        """What it does now."""

    def alive(self) -> bool:
        """The sign of life."""

    def stopping(self) -> bool:
        """Shutting down has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """Where to send notices, and how often systemd wants a sign of life.

    Attributes:
        address: Path of systemd's datagram socket, or an abstract name that begins with NUL; None sends nothing.
        watchdog_interval_s: Time after which ``alive`` is to be called again; None without a watchdog.
    """

    address: str | None = None
    watchdog_interval_s: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Notifier":
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``; what makes no sense counts as not set.

        The interval is half of systemd's time-out, as sd_watchdog_enabled(3) recommends.
        """
        named = environment.get("NOTIFY_SOCKET", "")
        address = "\0" + named[1:] if named.startswith("@") else named
        if not address.startswith(("/", "\0")) or len(address) < 2:
            return cls()
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.get("WATCHDOG_USEC", "")
        watched = for_us and period.isascii() and period.isdigit() and int(period) > 0
        return cls(address=address, watchdog_interval_s=int(period) / 1e6 / 2 if watched else None)

    def ready(self, status: str = "") -> bool:
        """Say that start-up is over; systemd then starts what was ordered after us."""
        return self._send("READY=1", *_status(status))

    def status(self, status: str) -> bool:
        """Set the line that ``systemctl status`` shows."""
        return self._send(*_status(status))

    def alive(self) -> bool:
        """Give the sign of life; without it systemd kills and restarts us."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """Say that shutting down has begun."""
        return self._send("STOPPING=1")

    def _send(self, *assignments: str) -> bool:
        """Whether it was sent. Failing to tell systemd is no reason to disturb a swap."""
        if self.address is None or not assignments:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto("\n".join(assignments).encode(), self.address)
        except OSError:
            return False
        return True


def _status(status: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(status.split())}",) if status else ()
