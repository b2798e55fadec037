"""systemd's manager over the system bus: few calls, each with a deadline, on one connection that is renewed.

The library is jeepney, as messages without its connections, for these wait for the bus without limit while they are
made. sdbus was measured to hold Python's interpreter lock while a bus does not answer: 90 s in which the sidekick's
lease would not have been kept (docs/decisions/0009).

Source: org.freedesktop.systemd1(5); the D-Bus specification, "Message Protocol" and "Authentication Protocol".
"""

import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from outrider.core.blame import Evidence
from outrider.core.errors import DriverError, Unknown

TIMEOUT_S = 10.0
"""Longest time for one call: systemd answers within milliseconds, on a busy machine within seconds."""
_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_FORBIDDEN = ("AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed")
_NO_ANSWER = ("NoReply", "ServiceUnknown", "Disconnected", "TimedOut", "Timeout")

Property = tuple[str, tuple[str, Any]]
"""A property of a unit: its name, and its value with the D-Bus signature."""


class BusError(DriverError):
    """systemd, or the bus, refused a call.

    Attributes:
        name: The D-Bus error's last word: ``NoSuchUnit``, ``AccessDenied``.
    """

    kind = "systemd"

    def __init__(self, name: str, problem: str, *, evidence: Evidence | None = None) -> None:
        """Name the ``problem`` in one line."""
        self.name = name
        super().__init__(problem, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """A unit as systemd sees it now.

    Attributes:
        load: ``loaded``, ``not-found``, ``masked``, ``bad-setting`` ...
        active: ``active``, ``activating``, ``deactivating``, ``reloading``, ``inactive``, ``failed``.
        sub: ``running``, ``exited``, ``auto-restart`` ...
        path: Of its D-Bus object.
        job: Whether a start or a stop is queued or under way.
    """

    name: str
    load: str
    active: str
    sub: str
    path: str
    job: bool

    @property
    def has_started(self) -> bool:
        """Whether its start is over, and it runs.

        A job of one that is active is no start: a machine that shuts down queues all stops at once, and begins that of
        an app when its instance is drained.
        """
        return self.active == "active"

    @property
    def runs(self) -> bool:
        """Whether something of it runs, or is about to."""
        return self.active in ("active", "activating", "deactivating", "reloading")


class Manager:
    """Calls to systemd. Any thread may make them; one is under way at a time."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Connect to nothing yet."""
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._bus: _Bus | None = None

    def close(self) -> None:
        """Let go of the connection. Units go on."""
        with self._lock:
            self._drop()

    def start_transient(self, unit: str, properties: Sequence[Property]) -> None:
        """Make and start a unit; it is there only while it runs, or has failed."""
        self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", list(properties), [])

    def start(self, unit: str) -> None:
        """Begin to start a unit that is loaded from a file."""
        self._manager("StartUnit", "ss", unit, "replace")

    def stop(self, unit: str) -> None:
        """Begin to stop it; one that is gone is stopped already."""
        self._unless_gone("StopUnit", "ss", unit, "replace")

    def kill(self, unit: str, number: int) -> None:
        """Send a signal to all processes of the unit."""
        self._unless_gone("KillUnit", "ssi", unit, "all", number)

    def attach(self, unit: str, pid: int) -> None:
        """Move a process of our user into a unit of our user, which has to be active and delegated."""
        self._manager("AttachProcessesToUnit", "ssau", unit, "/", [pid])

    def cgroup_of(self, unit: str) -> str:
        """The cgroup of a service, as /proc shows it; empty while nothing is in it."""
        return str(self.properties(self.state(unit)).get("ControlGroup", ""))

    def reset_failed(self, unit: str) -> None:
        """Forget that it failed; a transient one is gone then."""
        self._unless_gone("ResetFailedUnit", "s", unit)

    def enable(self, unit: str) -> None:
        """Let it start at boot, as its file says."""
        self._manager("EnableUnitFiles", "asbb", [unit], False, False)

    def disable(self, unit: str) -> None:
        """Let it not start at boot."""
        self._manager("DisableUnitFiles", "asb", [unit], False)

    def state(self, unit: str) -> UnitState:
        """How the unit is now, also when there is none of that name."""
        (rows,) = self._manager("ListUnitsByNames", "as", [unit])
        (row,) = rows
        return _state(row)

    def states(self, pattern: str) -> tuple[UnitState, ...]:
        """All loaded units whose name matches the glob ``pattern``, by name."""
        (rows,) = self._manager("ListUnitsByPatterns", "asas", [], [pattern])
        return tuple(sorted((_state(row) for row in rows), key=lambda each: each.name))

    def properties(self, state: UnitState, interface: str = "Service") -> dict[str, Any]:
        """All properties of a unit, of the interface ``Unit`` or ``Service``; empty when it is gone."""
        try:
            (found,) = self._call(state.path, "org.freedesktop.DBus.Properties", "GetAll", "s", f"{_NAME}.{interface}")
        except BusError as error:
            if error.name in ("NoSuchUnit", "UnknownObject", "UnknownInterface"):
                return {}
            raise
        return {name: value for name, (_, value) in found.items()}

    def _unless_gone(self, method: str, signature: str, *values: Any) -> None:
        try:
            self._manager(method, signature, *values)
        except BusError as error:
            if error.name != "NoSuchUnit":
                raise

    def _manager(self, method: str, signature: str, *values: Any) -> tuple[Any, ...]:
        return self._call(_PATH, f"{_NAME}.Manager", method, signature, *values)

    def _call(self, path: str, interface: str, method: str, signature: str, *values: Any) -> tuple[Any, ...]:
        """Call it and return what it answers.

        Raises:
            BusError: systemd refused.
            Unknown: no answer; the call may have had its effect. The next call makes a new connection.
        """
        from jeepney import DBusAddress, MessageType, new_method_call

        message = new_method_call(DBusAddress(path, bus_name=_NAME, interface=interface), method, signature, values)
        deadline = time.monotonic() + self._timeout_s
        with self._lock:
            try:
                if self._bus is None or not self._bus.is_open():
                    self._drop()
                    self._bus = _Bus(deadline)
                answer = self._bus.call(message, deadline)
            except TimeoutError as error:
                self._drop()
                raise Unknown(f"systemd: {method}: no answer over D-Bus in {self._timeout_s:g} s") from error
            except (OSError, ValueError) as error:
                self._drop()
                raise Unknown(f"systemd: {method}: D-Bus can't be reached: {error}") from error
        if answer.header.message_type is MessageType.error:
            raise _refused(method, answer)
        return tuple(answer.body)

    def _drop(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None


class _Bus:
    """One connection to the system bus."""

    def __init__(self, deadline: float) -> None:
        from jeepney import DBusAddress, Parser, new_method_call
        from jeepney.bus import get_bus

        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._serials, self._parser = count(start=1), Parser()
        try:
            self._within(deadline)
            self._socket.connect(get_bus("SYSTEM"))
            self._sign_in(deadline)
            bus = "org.freedesktop.DBus"
            self.call(
                new_method_call(DBusAddress("/org/freedesktop/DBus", bus_name=bus, interface=bus), "Hello"), deadline
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def is_open(self) -> bool:
        """Whether the bus is still at the other end; one that was restarted isn't."""
        try:
            while select.select([self._socket], [], [], 0)[0]:
                found = self._socket.recv(64 * 1024)
                if not found:
                    return False
                self._parser.add_data(found)
        except OSError:
            return False
        return True

    def call(self, message: Any, deadline: float) -> Any:
        """Send it and return the answer; signals and late answers in between are dropped."""
        from jeepney import HeaderFields

        serial = next(self._serials)
        self._within(deadline)
        self._socket.sendall(message.serialise(serial=serial))
        while True:
            found = self._parser.get_next_message()
            if found is None:
                self._parser.add_data(self._read(deadline))
            elif found.header.fields.get(HeaderFields.reply_serial) == serial:
                return found

    def _sign_in(self, deadline: float) -> None:
        """Prove who we are: the bus reads that from the socket (EXTERNAL)."""
        from jeepney.auth import BEGIN, Authenticator

        authenticator = Authenticator()
        for request in authenticator:
            self._within(deadline)
            self._socket.sendall(request)
            authenticator.feed(self._read(deadline))
        self._socket.sendall(BEGIN)

    def _read(self, deadline: float) -> bytes:
        self._within(deadline)
        found = self._socket.recv(64 * 1024)
        if not found:
            raise ConnectionResetError("the bus closed the connection")
        return found

    def _within(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)


def _state(row: Sequence[Any]) -> UnitState:
    name, _, load, active, sub, _, path, job, _, _ = row
    return UnitState(name=name, load=load, active=active, sub=sub, path=path, job=job != 0)


def _refused(method: str, answer: Any) -> DriverError:
    from jeepney import HeaderFields

    name = str(answer.header.fields.get(HeaderFields.error_name, "")).rpartition(".")[2]
    text = str(answer.body[0]) if answer.body else name
    if name in _NO_ANSWER:
        return Unknown(f"systemd: {method}: {text}")
    if name in _FORBIDDEN:
        return BusError(
            name,
            f"systemd: {method}: {text}: uid {os.getuid()} may not do that; docs/use/runtimes.md says what permits it",
            evidence="no-permission",
        )
    return BusError(name, f"systemd: {method}: {text}")
