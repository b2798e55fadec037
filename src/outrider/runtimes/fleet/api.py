"""fleet's HTTP API, over a unix socket or TCP; each call has a deadline and an answer of one kind.

It has no authentication. Source: fleet 1.0 Documentation/api-v1.md; exchanges with a real fleetd 1.0 in
tests/data/captures/fleet-api.
"""

import http.client
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from outrider.core.errors import DriverError, Unknown

_MAX_BYTES = 8 * 1024**2
_RUNS = ("active", "activating", "deactivating", "reloading")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetUnit:
    """A unit as fleet knows it.

    Attributes:
        desired, current: ``inactive``, ``loaded`` or ``launched``.
        machine: Id of the machine it is scheduled to; empty while it is scheduled to none.
    """

    name: str
    desired: str
    current: str
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """What a machine last said of a unit; it lags behind what is wanted.

    Attributes:
        active, sub: As systemd there says: ``active`` and ``running``.
        hash: Of the unit file that it is about.
    """

    active: str
    sub: str
    machine: str
    hash: str

    @property
    def runs(self) -> bool:
        """Whether something of it runs, or is about to."""
        return self.active in _RUNS


class Fleet:
    """Calls to fleet's API; any thread may make them."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """``url``: ``unix:///PATH`` or ``http://HOST:PORT``."""
        self._url, self._timeout_s = url, timeout_s

    def unit(self, name: str) -> FleetUnit | None:
        """The unit; None when there is none of that name."""
        status, body = self._call("GET", f"/units/{quote(name)}")
        if status == 404:
            return None
        return FleetUnit(
            name=str(body.get("name", name)),
            desired=str(body.get("desiredState", "")),
            current=str(body.get("currentState", "")),
            machine=str(body.get("machineID", "")),
        )

    def state(self, name: str) -> FleetState | None:
        """What is known of how it runs; None when no machine has said anything."""
        _, body = self._call("GET", f"/state?{urlencode({'unitName': name})}")
        found = [one for one in body.get("states") or () if one.get("name") == name]
        if not found:
            return None
        one = found[0]
        return FleetState(
            active=str(one.get("systemdActiveState", "")),
            sub=str(one.get("systemdSubState", "")),
            machine=str(one.get("machineID", "")),
            hash=str(one.get("hash", "")),
        )

    def launch(self, name: str, options: Sequence[dict[str, str]]) -> None:
        """Make the unit, or give it these options, and let it be started."""
        self._call("PUT", f"/units/{quote(name)}", {"desiredState": "launched", "options": list(options)})

    def unload(self, name: str) -> None:
        """Let it be stopped, and taken from its machine; it stays known."""
        self._call("PUT", f"/units/{quote(name)}", {"desiredState": "inactive"})

    def destroy(self, name: str) -> None:
        """Remove it; one that isn't there is removed already."""
        self._call("DELETE", f"/units/{quote(name)}")

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """The status and the decoded body; 404 is an answer.

        Raises:
            DriverError: fleet refused. Unknown: no answer, or none that can be read.
        """
        what = f"fleet: {method} {path}"
        connection = self._connection()
        try:
            content = json.dumps(body).encode() if body is not None else None
            headers = {"Content-Type": "application/json"} if content is not None else {}
            connection.request(method, f"/fleet/v1{path}", body=content, headers=headers)
            response = connection.getresponse()
            text = response.read(_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unknown(f"{what}: no answer from {self._url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if len(text) > _MAX_BYTES:
            raise Unknown(f"{what}: the answer is longer than {_MAX_BYTES} bytes")
        try:
            found = json.loads(text) if text.strip() else {}
            if not isinstance(found, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise Unknown(f"{what}: {response.status}, and no JSON: {error}") from error
        if response.status == 404 or 200 <= response.status < 300:
            return response.status, found
        problem = found["error"] if isinstance(found.get("error"), dict) else {}
        told = str(problem.get("message") or response.reason)
        if response.status in (400, 409):
            raise DriverError(f"{what}: {response.status}: {told}", evidence="wrong-setting")
        raise Unknown(f"{what}: {response.status}: {told}")

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, self._timeout_s)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self._timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path, self._limit_s = path, timeout_s

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit_s)
        self.sock.connect(self._path)
