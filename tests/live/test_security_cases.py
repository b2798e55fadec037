"""A plain ``outrider serve`` under attack by programs, as it was once: each attempt ends refused or bounded."""

import resource
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from outrider.cli.rest_client import ServiceClient
from outrider.demo.programs import free_ports
from outrider.etcd.seam import Cluster
from outrider.service.store.store import Store
from tests.security.test_limits import BODY, HEADER
from tests.service.test_serve import Process, serving
from tests.support.requirements import skip_or_fail
from tests.support.servers import EtcdServer
from tests.support.service_examples import APP, be_alive, make_app, open_store
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

ATTACKERS, LEAST_S, MOST_S = 16, 3.0, 300.0
MOST_GROWTH_BYTES = 24 * 1024 * 1024
"""What etcd's file may grow by: 3,200 forged instances once made it 427 MB larger."""


@pytest.fixture(scope="module")
def below() -> str:
    """The keys of this file's service."""
    return f"/test/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def plain(etcd_server: EtcdServer, below: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service with its defaults, over keys of its own."""
    folder = tmp_path_factory.mktemp("plain")
    with serving(folder, "--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", below) as running:
        yield running


@pytest.fixture
def store(cluster: Cluster, below: str) -> Store:
    """With an app, and one honest sidekick in each group that is attacked."""
    made = open_store(cluster, below)
    if not made.apps.list():
        make_app(made, version="1.0.0")
        for group in GROUPS:
            made.groups.create(APP, group, channel="beta")
    for group in GROUPS:
        be_alive(made, f"honest-{group}", NOON, group=group)
    return made


def request(
    *ids: str, group: str, inside: str = "<updatecheck/>", version: str = "1.0.0", request_id: str = ""
) -> bytes:
    apps = (f'<app appid="{APP}" track="{group}" machineid="{each}" version="{version}">{inside}</app>' for each in ids)
    return f'<request protocol="3.0" requestid="{request_id}">{"".join(apps)}</request>'.encode()


def ask(url: str, body: bytes) -> int:
    return requests.post(f"{url}/v1/update", data=body, headers={"Content-Type": "text/xml"}, timeout=30).status_code


def size_of(etcd: EtcdServer) -> int:
    """Bytes of etcd's file."""
    return (etcd.folder / "data" / "member" / "snap" / "db").stat().st_size


NGINX = """\
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/nb; proxy_temp_path {folder}/np;
 fastcgi_temp_path {folder}/nf; uwsgi_temp_path {folder}/nu; scgi_temp_path {folder}/ns;
 server {{ listen 127.0.0.2:{port}; location / {{ proxy_pass {url}; }} }} }}
"""
"""An ordinary proxy on the service's machine: it adds no header of its own."""


def test_a_stranger_behind_an_ordinary_proxy_makes_itself_no_user(plain: Process, tmp_path: Path) -> None:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        skip_or_fail("nginx is not installed: apt-get install nginx-light")
    (port,) = free_ports(1)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, url=plain.url))
    proxy = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    through = f"http://127.0.0.2:{port}"
    try:
        eventually(lambda: _answers(f"{through}/healthz"))
        made = requests.post(f"{through}/api/v1/users", json={"name": "mallory", "role": "admin"}, timeout=30)
        others = [
            requests.request(method, f"{through}/api/v1/{path}", timeout=30).status_code
            for method, path in (("GET", "whoami"), ("GET", "database/backup"), ("DELETE", "apps/web"))
        ]
    finally:
        proxy.terminate()
        proxy.wait(30)

    assert (401, [401] * 3) == (made.status_code, others)
    assert [] == ServiceClient(f"unix:{plain.socket}").get("users")["items"]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.mark.parametrize("host", ["evil.example:28000", "localhost.evil.example", "127.0.0.1.nip.example"])
def test_a_name_that_is_made_to_lead_here_gets_no_backup(plain: Process, host: str) -> None:
    answer = requests.get(f"{plain.url}/api/v1/database/backup", headers={"Host": host}, timeout=30)

    assert 421 == answer.status_code
    assert len(answer.content) < 1000


class FromElsewhere(HTTPAdapter):
    """Requests from another address of loopback than that of the honest."""

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, source_address=("127.0.0.3", 0), **keywords)


def attack(bodies: Iterator[bytes], url: str, ended: threading.Event, statuses: list[int]) -> list[threading.Thread]:
    """Attackers, each with one request after the other until the end."""
    lock = threading.Lock()

    def one() -> None:
        with requests.Session() as session:
            session.mount("http://", FromElsewhere())
            while not ended.is_set():
                with lock:
                    body = next(bodies)
                try:
                    statuses.append(session.post(f"{url}/v1/update", data=body, timeout=30).status_code)
                except requests.RequestException:
                    statuses.append(0)

    threads = [threading.Thread(target=one) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    return threads


def hundred_apps() -> Iterator[bytes]:
    number = 0
    while True:
        yield request(*(f"q{number}-{each}" for each in range(100)), group="hundred-apps")
        number += 1


def made_up_instances() -> Iterator[bytes]:
    """New names all the time, as long as they may be."""
    number = 0
    while True:
        yield request(f"zz-{number}-{'x' * 90}", group="made-up", version=f"9.9.9-{'x' * 400}")
        number += 1


def fat_rows() -> Iterator[bytes]:
    """Four names, whose rows are filled again and again with events that no other one equals."""
    number = 0
    while True:
        events = "".join(
            f'<event eventtype="13" eventresult="1" errorcode="{number * 60 + each}"/>' for each in range(60)
        )
        yield request(
            f"fat{number % 4}", group="fat-rows", inside=events, version="9" * 240, request_id=f"{number}-{'r' * 240}"
        )
        number += 1


GROUPS: Mapping[str, tuple[Callable[[], Iterator[bytes]], int]] = {
    "hundred-apps": (hundred_apps, 400),
    "made-up": (made_up_instances, 429),
    "fat-rows": (fat_rows, 429),
}
"""What attacks a group, and how it is refused in the end."""


@pytest.mark.parametrize("group", GROUPS)
def test_the_honest_are_served_throughout_and_etcd_does_not_grow(
    plain: Process, store: Store, etcd_server: EtcdServer, group: str
) -> None:
    """The attack goes on until nearly all of it is refused."""
    bodies, refusal = GROUPS[group]
    before, ended, statuses = size_of(etcd_server), threading.Event(), list[int]()
    threads = attack(bodies(), plain.url, ended, statuses)
    honest: list[object] = []
    is_bounded = False
    began = time.monotonic()
    try:
        while time.monotonic() < began + MOST_S:
            honest.append(ServiceClient(f"unix:{plain.socket}").get("apps", APP)["id"])
            honest.append(ask(plain.url, request(f"honest-{group}", group=group)))
            is_bounded = statuses[-100:].count(refusal) > 80
            if is_bounded and time.monotonic() > began + LEAST_S:
                break
            time.sleep(0.4)  # the pace of the honest
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)

    assert {APP, 200} == set(honest)
    assert is_bounded
    assert size_of(etcd_server) - before < MOST_GROWTH_BYTES
    # at most one for each attacker that had found room while the rows were counted anew
    assert len([row for row in store.fleet.instances(APP) if row.group == group]) <= 501 + ATTACKERS


def test_thousands_of_slow_connections_keep_nobody_out(plain: Process) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most), most))
    host, port = plain.url.removeprefix("http://").split(":")
    held = []
    try:
        for number in range(2500):
            one = socket.create_connection((host, int(port)), timeout=30)
            one.sendall(HEADER if number % 2 else BODY)
            held.append(one)
            if number % 250 == 0:
                assert 200 == requests.get(f"{plain.url}/healthz", timeout=30).status_code

        for _ in range(5):
            assert 200 == requests.get(f"{plain.url}/healthz", timeout=30).status_code
    finally:
        for one in held:
            one.close()
