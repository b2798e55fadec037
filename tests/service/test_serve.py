"""``outrider serve`` as a process: its one line, its end, and an etcd that comes late."""

import getpass
import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trustme

from outrider import unix_sockets
from outrider.cli.commands.status import REFRESH_S
from outrider.cli.rest_client import AccessError, ServiceClient
from outrider.etcd.seam import Cluster
from tests.service.api.test_http import CHECK
from tests.service.test_tls import write_certificate
from tests.support.requirements import skip_or_fail
from tests.support.servers import EtcdServer
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, make_app, open_store
from tests.support.waiting import eventually


class Process:
    """``outrider serve`` with its first line read."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "outrider", "serve", "--payload-dir", str(folder / "payloads")]
        self.socket = folder / "serve.sock"
        command += [*([] if "--socket" in options else ["--socket", str(self.socket)]), *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTRIDER_")}
        self._errors = (folder / "errors.txt").open("wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, env=environment)
        self.line = self._first_line(within_s=240)
        self.url = self.line.rpartition(" ")[2]
        self.mode = self.socket.stat().st_mode if self.socket.exists() else 0

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *options: str) -> "Iterator[Process]":
        """Start it, and end it for certain."""
        process = cls(folder, *options)
        try:
            yield process
        finally:
            process.stop()

    def _first_line(self, within_s: float) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(within_s), "nothing printed"
        return self.process.stdout.readline().decode().strip()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Process]:
    with Process.running(folder, "--listen", "127.0.0.1:0", *options) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_printed_line_names_the_real_port_and_a_signal_ends_it_well(
    etcd_server: EtcdServer, tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path, "--etcd", f"127.0.0.1:{etcd_server.port}") as running:
        ready = requests.get(running.url + "/readyz", timeout=60)
        running.process.send_signal(number)

        assert 0 == running.process.wait(60)
        assert 200 == ready.status_code
        assert running.line.startswith("outrider update service on http://127.0.0.1:")
        assert running.process.stdout is not None
        assert b"" == running.process.stdout.read()


def test_a_secret_that_is_given_is_the_only_address_of_omaha(etcd_server: EtcdServer, tmp_path: Path) -> None:
    etcd = ("--etcd", f"127.0.0.1:{etcd_server.port}")
    with serving(tmp_path, *etcd, "--omaha-secret", "a-secret-of-ours") as running:
        paths = ("/v1/update", "/v1/update/another-secret", "/v1/update/a-secret-of-ours")
        statuses = [requests.post(running.url + path, data=CHECK, timeout=60).status_code for path in paths]

    assert [404, 404, 200] == statuses


def test_it_starts_without_etcd_says_503_and_serves_when_etcd_comes(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path / "etcd")

    with serving(tmp_path, "--etcd", f"127.0.0.1:{etcd.port}") as running:
        away = requests.post(running.url + "/v1/update", data=CHECK, timeout=60)
        not_ready = requests.get(running.url + "/readyz", timeout=60)
        etcd.start()
        try:
            etcd.wait_ready()
            eventually(lambda: requests.get(running.url + "/readyz", timeout=60).ok)
            there = requests.post(running.url + "/v1/update", data=CHECK, timeout=60)
        finally:
            etcd.stop()

    assert (503, 503, 200) == (away.status_code, not_ready.status_code, there.status_code)
    assert not_ready.text.startswith("etcd doesn't answer")


def test_an_upload_under_way_does_not_keep_it_from_ending(etcd_server: EtcdServer, tmp_path: Path) -> None:
    with serving(tmp_path, "--etcd", f"127.0.0.1:{etcd_server.port}") as running:
        with unix_sockets.connect(running.socket, 60) as raw:
            raw.sendall(b"POST /api/v1/payloads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx")
            eventually(lambda: list((tmp_path / "payloads").rglob("*.part")))
            running.process.terminate()

            assert 0 == running.process.wait(60)
        assert [] == list((tmp_path / "payloads").rglob("*.part"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "192.0.2.1:0"), "listen 192.0.2.1:0"),
        (("--listen", "nonsense"), "write HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "write HOST:PORT"),
        (("--etcd", "nonsense"), "--etcd (OUTRIDER_ETCD) 'nonsense': no port"),
        (("--payload-dir", "/proc/nowhere"), "payload folder"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    command = [sys.executable, "-m", "outrider", "serve", "--listen", "127.0.0.1:0"]
    command += ["--payload-dir", str(tmp_path / "payloads"), *options]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert 1 == done.returncode
    assert "" == done.stdout
    assert words in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path, etcd_server: EtcdServer) -> None:
    with serving(tmp_path, "--etcd", f"127.0.0.1:{etcd_server.port}") as running:
        taken = running.url.removeprefix("http://")
        command = [sys.executable, "-m", "outrider", "serve", "--listen", taken, "--payload-dir", str(tmp_path / "p")]

        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert 1 == done.returncode
    assert "Address already in use" in done.stderr


def address_of_this_machine() -> str:
    """An address by which this machine reaches itself, and which isn't loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            skip_or_fail("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_until_there_is_a_user_the_socket_alone_is_open_and_the_log_says_so(
    etcd_server: EtcdServer, prefix: str, tmp_path: Path
) -> None:
    """
    1. there are no users, and the service listens everywhere
    2. over the network anybody may ask for updates and for nothing else; commands of this user use the socket
    3. the first user is made: from then on a token counts, wherever it comes from, and the socket needs one, too
    """
    address = address_of_this_machine()
    etcd = ("--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/"))
    with Process.running(tmp_path, "--listen", "0.0.0.0:0", *etcd) as running:
        port = running.url.rpartition(":")[2]
        near, far = f"http://127.0.0.1:{port}", f"http://{address}:{port}"
        before = [requests.get(f"{url}/api/v1/apps", timeout=60).status_code for url in (near, far)]
        check = requests.post(f"{far}/v1/update", data=CHECK, timeout=60)
        refusal = requests.get(f"{near}/api/v1/apps", timeout=60).json()
        local = ServiceClient(f"unix:{running.socket}")
        whoami = local.get("whoami")
        warned = (tmp_path / "errors.txt").read_text()

        command = [sys.executable, "-m", "outrider", "database", "init", *etcd]
        token = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        bearer = {"Authorization": f"Bearer {token}"}
        eventually(lambda: requests.get(f"{far}/api/v1/whoami", headers=bearer, timeout=60).ok)
        after = requests.get(f"{far}/api/v1/whoami", headers=bearer, timeout=60)
        with pytest.raises(AccessError, match="no token"):
            local.get("whoami")
        running.process.terminate()
        assert 0 == running.process.wait(60)

    assert ([401, 401], 200) == (before, check.status_code)
    assert "database init" in refusal["detail"]
    assert {"name": f"({getpass.getuser()})", "role": "admin", "apps": []} == whoami
    assert 0o600 == stat.S_IMODE(running.mode)
    assert 1 == warned.count("no users yet")
    assert {"name": "admin", "role": "admin", "apps": []} == after.json()
    assert not running.socket.exists()


def test_the_network_is_let_in_before_there_are_users_when_the_operator_insists(
    etcd_server: EtcdServer, prefix: str, tmp_path: Path
) -> None:
    address = address_of_this_machine()
    etcd = ("--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/"))
    with Process.running(tmp_path, "--listen", "0.0.0.0:0", "--insecure-listen", *etcd) as running:
        port = running.url.rpartition(":")[2]

        answer = requests.get(f"http://{address}:{port}/api/v1/apps", timeout=60)

    assert 200 == answer.status_code


def test_a_socket_that_another_service_uses_is_left_to_it(etcd_server: EtcdServer, tmp_path: Path) -> None:
    etcd = ("--etcd", f"127.0.0.1:{etcd_server.port}")
    with serving(tmp_path, *etcd) as running:
        command = [sys.executable, "-m", "outrider", "serve", "--listen=127.0.0.1:0", f"--socket={running.socket}"]
        command += ["--payload-dir", str(tmp_path / "p")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        assert [] == ServiceClient(f"unix:{running.socket}").get("apps")["items"][:0]
    assert (1, True) == (done.returncode, "another service listens there" in done.stderr)


def test_status_watch_prints_again_when_something_changes_and_ends_well(
    etcd_server: EtcdServer, cluster: Cluster, prefix: str
) -> None:
    below = prefix.rstrip("/")
    store = open_store(cluster, below)
    make_app(store)
    be_alive(store, "web-1", NOON)
    command = [sys.executable, "-m", "outrider", "status", APP, "--watch", "--prefix", below]
    command += ["--etcd", f"127.0.0.1:{etcd_server.port}"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen: list[str] = []
    assert watching.stdout is not None
    reader = threading.Thread(target=lambda: seen.extend(iter(watching.stdout.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        eventually(lambda: any("web-1" in line for line in seen))
        took_s = []
        for percent in (40, 50, 60):
            before = time.monotonic()
            be_alive(store, "web-1", NOON, state="downloading", why=f"{percent} % of web.tar")
            eventually(lambda percent=percent: any(f"{percent} % of web.tar" in line for line in seen))  # type: ignore[misc]
            took_s.append(time.monotonic() - before)

        # The ages are printed anew each REFRESH_S, and something was just printed: a watch did it, not a poll.
        # The quickest of three counts, for a machine that others use.
        assert min(took_s[1:]) < REFRESH_S * 0.7
        watching.send_signal(signal.SIGINT)
        assert 0 == watching.wait(60)
    finally:
        watching.kill()
        watching.wait()
        reader.join()
        watching.stdout.close()


def test_an_etcd_for_development_does_not_take_anothers_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = subprocess.run(
            [sys.executable, "-m", "outrider", "serve", "--dev", f"--etcd=127.0.0.1:{port}", "--listen=127.0.0.1:0"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    assert 1 == refused.returncode
    assert f"--etcd 127.0.0.1:{port}: Address already in use; --dev runs an etcd of its own there" in refused.stderr
    assert not (tmp_path / "outrider-dev").exists()


def test_https_is_served_and_a_renewed_certificate_counts_after_sighup(etcd_server: EtcdServer, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    for name, authority in (("old", old), ("new", new)):
        authority.cert_pem.write_to_path(tmp_path / name)
    files = write_certificate(tmp_path, old)
    with serving(
        tmp_path, "--etcd", f"127.0.0.1:{etcd_server.port}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}"
    ) as running:
        assert running.url.startswith("https://127.0.0.1:")
        assert requests.get(f"{running.url}/healthz", verify=str(tmp_path / "old"), timeout=60).ok
        with unix_sockets.connect(running.socket, 60) as raw:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert raw.recv(64).startswith(b"HTTP/1.1 200"), "the Unix socket needs no TLS"

        write_certificate(tmp_path, new)
        running.process.send_signal(signal.SIGHUP)

        def is_new() -> bool:
            try:
                return requests.get(f"{running.url}/healthz", verify=str(tmp_path / "new"), timeout=60).ok
            except requests.exceptions.SSLError:
                return False

        eventually(is_new, within_s=60)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{running.url}/healthz", verify=str(tmp_path / "old"), timeout=60)
