"""Real etcd servers for tests, on free loopback ports, with every kind of trouble one can do to a process."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from outrider.demo.programs import free_ports
from outrider.etcd.seam import Endpoint, EtcdAddress
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

_CACHED = Path(__file__).parents[2] / ".cache" / "etcd" / "bin"


def etcd_binary() -> Path:
    """The etcd to test with: ``OUTRIDER_TEST_ETCD``, else the one that ``tools/fetch_etcd.sh`` fetched, else skip."""
    return _program("etcd", os.environ.get("OUTRIDER_TEST_ETCD"))


def etcdctl_binary() -> Path:
    """The etcdctl beside ``etcd_binary``."""
    return _program("etcdctl", str(etcd_binary().with_name("etcdctl")))


def _program(name: str, given: str | None) -> Path:
    path = Path(given) if given else _CACHED / name
    if not path.is_file():
        skip_or_fail(f"{name}: no such program: {path}; run tools/fetch_etcd.sh, or set OUTRIDER_TEST_ETCD to an etcd")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for a server on 127.0.0.1 and for one client, signed by one authority."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def make_tls_files(folder: Path) -> TlsFiles:
    """Write a fresh authority, a server certificate and a client certificate to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(
        ca=folder / "ca.pem",
        cert=folder / "server.pem",
        key=folder / "server.key",
        client_cert=folder / "client.pem",
        client_key=folder / "client.key",
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(files.ca))
    server = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("sidekick@example.org")
    for leaf, cert, key in ((server, files.cert, files.key), (client, files.client_cert, files.client_key)):
        leaf.private_key_pem.write_to_path(str(key))
        with cert.open("wb") as out:
            for blob in leaf.cert_chain_pems:
                out.write(blob.bytes())
    return files


class EtcdServer:
    """One etcd process with its data in ``folder``; ports and data stay the same over restarts.

    Attributes:
        port: Client port. ``peer_port``: for other members. ``health_port``: plain HTTP, for ``wait_ready`` alone.
        tls: With it, clients speak TLS and must show a certificate when ``client_certificates``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "one",
        tls: TlsFiles | None = None,
        client_certificates: bool = False,
        options: Sequence[str] = (),
        program: Path | None = None,
    ) -> None:
        self.folder, self.name, self.tls = folder, name, tls
        self.port, self.peer_port, self.health_port = free_ports(3)
        self._client_certificates = client_certificates
        self.options = list(options)
        self.initial_cluster = f"{name}={self.peer_url}"
        self._program = program or etcd_binary()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="127.0.0.1", port=self.port)

    def address(self, *, user: str | None = None, password: str | None = None, timeout_s: float = 3.0) -> EtcdAddress:
        """How to reach this server, with its TLS files when it has them."""
        return _address((self.endpoint,), self.tls, self._client_certificates, user, password, timeout_s)

    @property
    def pid(self) -> int:
        assert self._process is not None, "etcd isn't started"
        return self._process.pid

    def start(self) -> "EtcdServer":
        """Start the process; ``wait_ready`` says when it serves."""
        assert self._process is None, "etcd runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(self._program), "--name", self.name, "--data-dir", str(self.folder / "data")),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", self.initial_cluster, "--listen-metrics-urls", self._health_url),
            *("--log-level", "warn", "--unsafe-no-fsync"),
            *self.options,
        ]
        if self.tls:
            command += ["--cert-file", str(self.tls.cert), "--key-file", str(self.tls.key)]
            if self._client_certificates:
                command += ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca)]
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        atexit.register(self.stop)
        return self

    @property
    def _health_url(self) -> str:
        return f"http://127.0.0.1:{self.health_port}"

    def wait_ready(self, within_s: float = 20.0) -> "EtcdServer":
        """Return when it serves reads (a member: when the cluster has a leader)."""
        eventually(self._healthy, within_s, every_s=0.05)
        return self

    def _healthy(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.folder / "etcd.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"etcd ended with {self._process.returncode}:\n{log}")
        try:
            with urllib.request.urlopen(f"{self._health_url}/health", timeout=2) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 5 s; nothing when it isn't running."""
        atexit.unregister(self.stop)
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> "EtcdServer":
        """Kill it and start it again on the same data; returns when it serves."""
        self.kill()
        return self.start().wait_ready()

    def wipe(self) -> None:
        """Remove the data of a stopped server: it comes back empty, as from a lost disk."""
        assert self._process is None, "stop etcd first"
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def control(self, *arguments: str, user: str | None = None) -> str:
        """Run ``etcdctl`` on this server; returns what it printed. ``user`` is ``name:password``."""
        command = [str(etcdctl_binary()), "--endpoints", self.url, *arguments]
        if self.tls:
            command += ["--cacert", str(self.tls.ca)]
            if self._client_certificates:
                command += ["--cert", str(self.tls.client_cert), "--key", str(self.tls.client_key)]
        if user:
            command += ["--user", user]
        env = os.environ | {"ETCDCTL_API": "3"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def enable_auth(self, *, root_password: str, user: str, password: str, prefix: str = "") -> None:
        """Ask for users from now on; ``user`` may read and write below ``prefix`` (default: everything)."""
        self.control("user", "add", f"root:{root_password}")
        self.control("user", "grant-role", "root", "root")
        self.control("role", "add", "outrider")
        self.control("role", "grant-permission", "outrider", "--prefix=true", "readwrite", prefix)
        self.control("user", "add", f"{user}:{password}")
        self.control("user", "grant-role", user, "outrider")
        self.control("auth", "enable")


class EtcdNodes:
    """A cluster of several members on this machine, in the order in which ``address`` names them."""

    def __init__(self, folder: Path, count: int = 3, *, options: Sequence[str] = ()) -> None:
        # Three members share few cores with the tests: a slow moment is no reason for an election.
        timing = ["--heartbeat-interval", "100", "--election-timeout", "1000"]
        self.members = [
            EtcdServer(folder / f"node{number}", name=f"node{number}", options=[*timing, *options])
            for number in range(count)
        ]
        for member in self.members:
            member.initial_cluster = ",".join(f"{each.name}={each.peer_url}" for each in self.members)

    def address(self, *, first: EtcdServer | None = None, timeout_s: float = 3.0) -> EtcdAddress:
        """All members, ``first`` in front: the one that a client uses until it fails."""
        members = sorted(self.members, key=lambda member: member is not first)
        return _address(tuple(member.endpoint for member in members), None, False, None, None, timeout_s)

    def leader(self) -> EtcdServer:
        """The member that leads now."""
        for member in self.members:
            (status,) = json.loads(member.control("endpoint", "status", "-w", "json"))
            if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
                return member
        raise AssertionError("no member leads")

    def start(self) -> "EtcdNodes":
        for member in self.members:
            member.start()
        return self

    def wait_ready(self) -> "EtcdNodes":
        for member in self.members:
            member.wait_ready()
        return self

    def stop(self) -> None:
        for member in self.members:
            member.stop()


def _address(
    endpoints: tuple[Endpoint, ...],
    tls: TlsFiles | None,
    client_certificates: bool,
    user: str | None,
    password: str | None,
    timeout_s: float,
) -> EtcdAddress:
    shown = tls if client_certificates else None
    return EtcdAddress(
        endpoints=endpoints,
        ca_file=str(tls.ca) if tls else None,
        cert_file=str(shown.client_cert) if shown else None,
        key_file=str(shown.client_key) if shown else None,
        user=user,
        password=password,
        timeout_s=timeout_s,
    )
