"""A stand-in for fleetd 1.0 with one machine: its API on a unix socket, and the units as processes.

``tests/runtimes/test_fleet.py`` holds it to every exchange that was captured from a real fleetd. What a unit's machine
says of it is kept apart from what is wanted, and is said late (``lag_s``), as with the real one. What units print goes
to a journal of its own, which its ``journalctl`` reads.
"""

import hashlib
import http.server
import json
import os
import shlex
import signal
import socketserver
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

MACHINE = "4965a491e0b14faaa11f153cd1625586"
_UNITS = "/fleet/v1/units/"
_JOURNALCTL = """#!/bin/sh
for word; do
  case $word in _SYSTEMD_UNIT=*) unit=${word#*=} ;; esac
done
[ -z "${unit:-}" ] || cat "%s/$unit" 2>/dev/null || true
"""
_TYPES = ("service", "socket", "timer", "path", "mount", "automount", "device")


@dataclass
class _Unit:
    options: list[dict[str, str]]
    desired: str
    process: "subprocess.Popen[bytes] | None" = None
    said: dict[str, str] = field(default_factory=dict)
    said_at: float = 0.0


class FleetStandIn:
    """``url`` is its address.

    Attributes:
        lag_s: How long a machine is silent about what has changed.
        silent: Whether it takes requests and says nothing.
        failing: Units that end at once, whatever they run.
    """

    def __init__(self, folder: Path, *, lag_s: float = 0.0, runs_programs: bool = True) -> None:
        """Listen on a socket in ``folder``. Without ``runs_programs`` a unit that is launched runs nothing."""
        self.socket, self.lag_s, self._runs_programs = folder / "fleet.sock", lag_s, runs_programs
        self._journal = folder / "journal"
        self._journal.mkdir(exist_ok=True)
        self.url = f"unix://{self.socket}"
        self.units: dict[str, _Unit] = {}
        self.silent = False
        self.failing: set[str] = set()
        self._lock = threading.Lock()
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in._answer(self, "GET")

            def do_PUT(self) -> None:
                stand_in._answer(self, "PUT")

            def do_DELETE(self) -> None:
                stand_in._answer(self, "DELETE")

            def log_message(self, format: str, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(self.socket), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fleet", daemon=True).start()

    def use_journal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process read its journal, for one test."""
        monkeypatch.setenv("PATH", f"{self.journal_programs()}:{os.environ['PATH']}")

    def journal_programs(self) -> Path:
        """A folder with a ``journalctl`` that reads its journal."""
        programs = self.socket.with_name("bin")
        programs.mkdir(exist_ok=True)
        (programs / "journalctl").write_text(_JOURNALCTL % self._journal)
        (programs / "journalctl").chmod(0o755)
        return programs

    def close(self) -> None:
        """End it, and all that its units run."""
        self._server.shutdown()
        self._server.server_close()
        for unit in self.units.values():
            _end(unit, 0)

    def launched(self) -> list[str]:
        """Names of the units that shall run."""
        return sorted(name for name, unit in self.units.items() if unit.desired == "launched")

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, method: str) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length", 0))
        sent = json.loads(handler.rfile.read(length)) if length else None
        if self.silent:
            handler.close_connection = True
            return
        with self._lock:
            status, told = self._act(method, unquote(parts.path), parse_qs(parts.query), sent)
        body = json.dumps(told).encode() if told is not None else b""
        handler.send_response(status)
        if told is not None:
            handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if body:
            handler.wfile.write(body)

    def _act(self, method: str, path: str, query: dict[str, list[str]], sent: Any) -> tuple[int, Any]:
        if path == "/fleet/v1/machines":
            return 200, {"machines": [{"id": MACHINE, "metadata": {"region": "here"}, "primaryIP": "10.0.0.1"}]}
        if path == "/fleet/v1/units":
            return 200, {"units": [self._shown(name) for name in sorted(self.units)]}
        if path == "/fleet/v1/state":
            names = query.get("unitName") or sorted(self.units)
            return 200, {"states": [state for name in names if (state := self._state(name))]}
        name = path.removeprefix(_UNITS)
        if method == "GET":
            return (200, self._shown(name)) if name in self.units else _missing()
        if method == "DELETE":
            if name not in self.units:
                return _missing()
            _end(self.units.pop(name), 2)
            return 204, None
        return self._put(name, sent["desiredState"], sent.get("options") or [])

    def _put(self, name: str, desired: str, options: list[dict[str, str]]) -> tuple[int, Any]:
        kind = name.rpartition(".")[2]
        if kind not in _TYPES:
            return 400, {"error": {"code": 400, "message": f'invalid unit type: "{kind}"'}}
        if desired not in ("inactive", "loaded", "launched"):
            return 500, {"error": {"code": 500, "message": ""}}
        unit = self.units.get(name)
        if unit is None and not options:
            return 409, {"error": {"code": 409, "message": "unit does not exist and options field empty"}}
        is_new = unit is None or (options and options != unit.options)
        if unit is None:
            unit = self.units[name] = _Unit(options=options, desired=desired)
        elif is_new:
            _end(unit, 2)
            unit.options = options
        unit.desired = desired
        if desired == "launched" and self._machine(unit):
            self._launch(name, unit)
        elif desired != "launched":
            _end(unit, 2)
        unit.said_at = time.monotonic() + self.lag_s
        return (201, None) if is_new else (204, None)

    def _launch(self, name: str, unit: _Unit) -> None:
        if (unit.process is not None and unit.process.poll() is None) or not self._runs_programs:
            return
        told = [each["value"] for each in unit.options if each["name"] == "Environment"]
        pairs = (text.partition("=") for value in told for text in shlex.split(value.replace("%%", "%")))
        environment = {"PATH": os.defpath, **{name: text for name, _, text in pairs}}
        command = next(each["value"] for each in unit.options if each["name"] == "ExecStart")
        with (self._journal / name).open("ab") as journal:
            unit.process = subprocess.Popen(
                shlex.split(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=journal,
                start_new_session=True,
            )

    def _machine(self, unit: _Unit) -> str:
        """The machine that it is scheduled to: the only one, unless it must follow a unit that isn't there."""
        follows = [each["value"] for each in unit.options if each["name"] in ("MachineOf", "X-ConditionMachineOf")]
        is_there = all(name in self.units and self.units[name].desired != "inactive" for name in follows)
        return MACHINE if is_there and unit.desired != "inactive" else ""

    def _shown(self, name: str) -> dict[str, Any]:
        unit = self.units[name]
        machine = self._machine(unit)
        shown: dict[str, Any] = {
            "currentState": unit.desired if machine else "inactive",
            "desiredState": unit.desired,
            "name": name,
            "options": [{key: each[key] for key in ("name", "section", "value")} for each in unit.options],
        }
        return shown | ({"machineID": machine} if machine else {})

    def _state(self, name: str) -> dict[str, str]:
        unit = self.units.get(name)
        if unit is None:
            return {}
        if time.monotonic() >= unit.said_at:
            unit.said = self._now(name, unit)
        return unit.said

    def _now(self, name: str, unit: _Unit) -> dict[str, str]:
        if not self._machine(unit):
            return {}
        code = unit.process.poll() if unit.process is not None else None
        code = 1 if name in self.failing else code
        active, sub = (
            ("active", "running") if code is None else ("inactive", "dead") if code == 0 else ("failed", "failed")
        )
        return {
            "hash": hash_of(unit.options),
            "machineID": MACHINE,
            "name": name,
            "systemdActiveState": active,
            "systemdLoadState": "loaded",
            "systemdSubState": sub,
        }


def hash_of(options: list[dict[str, str]]) -> str:
    """fleet's hash of a unit: SHA-1 of the file that it writes."""
    lines: list[str] = []
    section = ""
    for each in options:
        if each["section"] != section:
            lines += ["", f"[{each['section']}]"] if section else [f"[{each['section']}]"]
            section = each["section"]
        lines.append(f"{each['name']}={each['value']}")
    return hashlib.sha1(("\n".join(lines) + "\n").encode()).hexdigest()


def _missing() -> tuple[int, Any]:
    return 404, {"error": {"code": 404, "message": "unit does not exist"}}


def _end(unit: _Unit, grace_s: float) -> None:
    if unit.process is None or unit.process.poll() is not None:
        return
    os.killpg(unit.process.pid, signal.SIGTERM)
    try:
        unit.process.wait(grace_s)
    except subprocess.TimeoutExpired:
        os.killpg(unit.process.pid, signal.SIGKILL)
        unit.process.wait()
