"""A service without users, with damaged users, or with none left: nobody comes in from the network (P13)."""

import base64
import getpass
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import requests

from outrider.cli.rest_client import AccessError, ServiceClient
from outrider.core.errors import Conflict, Misdirected
from outrider.etcd.seam import DeletePrefix, Put
from outrider.service.api.hosts import check_host, is_of_a_foreign_page, own_hosts
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import RunningServer
from tests.support.service_examples import open_store
from tests.support.waiting import eventually


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / ("a-long-name-" * 12) / "serve.sock"  # longer than the kernel takes


@pytest.fixture
def closed(client: FakeCluster, tmp_path: Path, local: Path) -> Iterator[RunningServer]:
    """A plain service without users."""
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", local=local, open_to_all=False) as running:
        yield running


@pytest.fixture
def store(client: FakeCluster) -> Store:
    return open_store(client)


def make_admin(url: str, headers: Mapping[str, str]) -> int:
    body = {"name": "mallory", "role": "admin"}
    return requests.post(f"{url}/api/v1/users", json=body, headers=headers, timeout=30).status_code


BASIC = "Basic " + base64.b64encode(b"admin:").decode()


CLAIMS: Sequence[Mapping[str, str]] = (
    {},
    {"X-Forwarded-For": "127.0.0.1"},  # a proxy on this machine
    {"Forwarded": "for=127.0.0.1;host=localhost"},
    {"Via": "1.1 localhost"},
    {"Origin": "http://localhost:8000"},
    {"Host": "localhost"},  # a proxy that hides itself
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer or_"},
    {"Authorization": BASIC},
    {"X-Outrider-Peer-Uid": "0", "outrider_peer_uid": "0"},
)
"""What a request from the network may say of itself."""


def test_without_users_the_network_is_refused_whatever_it_says(closed: RunningServer, store: Store) -> None:
    assert [401] * len(CLAIMS) == [make_admin(closed.url, headers) for headers in CLAIMS]
    assert () == store.users.list()


FOREIGN = ("evil.example", "evil.example:28000", "127.0.0.1.evil.example", "", "a@127.0.0.1")


def test_a_name_that_was_made_to_lead_here_is_refused_before_anything_is_asked(closed: RunningServer) -> None:
    answers = [
        requests.get(f"{closed.url}/api/v1/{path}", headers={"Host": host}, timeout=30)
        for host in FOREIGN
        for path in ("database/backup", "whoami", "users")
    ]

    assert {421} == {answer.status_code for answer in answers}
    assert {"misdirected"} == {answer.json()["kind"] for answer in answers}


def test_the_socket_is_the_door_of_this_user_alone(closed: RunningServer, local: Path, store: Store) -> None:
    whoami = ServiceClient(f"unix:{local}").get("whoami")
    made = ServiceClient(f"unix:{local}").post("users", body={"name": "ann", "role": "admin"})

    assert {"name": f"({getpass.getuser()})", "role": "admin", "apps": []} == whoami
    assert 0o600 == local.stat().st_mode & 0o777
    assert ("ann", ["ann"]) == (made["name"], [user.name for user in store.users.list()])


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_a_proxy_at_the_socket_speaks_for_strangers(closed: RunningServer, local: Path, name: str) -> None:
    client = ServiceClient(f"unix:{local}")
    client._session.headers[name] = "10.0.0.1"

    with pytest.raises(AccessError, match="no users yet"):
        client.get("whoami")


def test_another_user_at_the_socket_is_cut_off(
    closed: RunningServer, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.unix_sockets.peer_uid", lambda connection: os.geteuid() + 4711)

    with pytest.raises(Exception, match=r"(?i)doesn't answer|connection"):
        ServiceClient(f"unix:{local}").get("whoami")


def test_users_that_are_wiped_out_open_nothing(
    closed: RunningServer, client: FakeCluster, store: Store, local: Path
) -> None:
    """
    1. there was a user
    2. somebody removes all users from etcd
    3. neither the network nor the socket is open, nor after a restart; only `database init` helps
    """
    token = store.users.begin("ann").token
    ann = {"Authorization": f"Bearer {token}"}
    eventually(lambda: requests.get(f"{closed.url}/api/v1/whoami", headers=ann, timeout=30).ok)

    client.txn((), (DeletePrefix(prefix=store.context.keys.users()),))

    eventually(lambda: requests.get(f"{closed.url}/api/v1/whoami", headers=ann, timeout=30).status_code == 403)
    with RunningServer(
        client, local.parents[1] / "other", "/outrider/v1", local=local.with_name("other.sock"), open_to_all=True
    ) as again:
        for url in (closed.url, again.url):
            assert 403 == make_admin(url, {})
        for path in (local, local.with_name("other.sock")):
            with pytest.raises(AccessError, match="none is left"):
                ServiceClient(f"unix:{path}").get("whoami")
        store.users.begin("ben")


def test_users_that_cannot_be_read_open_nothing(
    closed: RunningServer, client: FakeCluster, store: Store, local: Path
) -> None:
    client.txn((), (Put(key=store.context.keys.users() + "ann", value=b"\xff{"),))

    assert 403 == make_admin(closed.url, {})
    with pytest.raises(AccessError, match="no user can be read"):
        ServiceClient(f"unix:{local}").get("whoami")


def test_a_user_of_an_earlier_version_gets_its_marker_at_the_first_request(
    closed: RunningServer, client: FakeCluster, store: Store
) -> None:
    store.users.begin("ann")
    client.txn((), (DeletePrefix(prefix=store.context.keys.users_existed()),))

    assert 401 == make_admin(closed.url, {})
    assert client.get(store.context.keys.users_existed()) is not None


def test_only_an_operator_at_etcd_lets_the_first_hour_begin_again(
    closed: RunningServer, client: FakeCluster, store: Store, tmp_path: Path
) -> None:
    store.users.begin("ann")
    with pytest.raises(Conflict, match=r"users exist \(ann\)"):
        store.users.forget_that_they_existed()
    client.txn((), (DeletePrefix(prefix=store.context.keys.users()),))

    store.users.forget_that_they_existed()

    fresh = tmp_path / "fresh.sock"
    with RunningServer(client, tmp_path / "fresh", "/outrider/v1", local=fresh, open_to_all=False):
        assert "admin" == ServiceClient(f"unix:{fresh}").get("whoami")["role"]


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 401), ("null", 401), ("http://[::1", 401), ("http://127.0.0.1", 200)]
)
def test_a_page_from_elsewhere_gets_nothing_even_where_the_network_is_open(
    client: FakeCluster, tmp_path: Path, origin: str, status: int
) -> None:
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", open_to_all=True) as running:
        answer = requests.get(f"{running.url}/api/v1/apps", headers={"Origin": origin}, timeout=30)

    assert status == answer.status_code


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("10.0.0.9", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("updates.example", True),
        ("updates.example.:443", True),
        (socket.gethostname(), True),
        ("evil.example", False),
        ("updates.example.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1 evil", False),
        ("2130706433.evil", False),
        ("[::1", False),
        ("", False),
        ("/", False),
        ("x@localhost", False),
    ],
)
def test_a_host_leads_here_by_address_or_by_a_name_of_ours(host: str, ours: bool) -> None:
    hosts = own_hosts("https://Updates.Example/", ())

    with nullcontext() if ours else pytest.raises(Misdirected, match="--allow-host=NAME"):
        check_host(host, hosts)


def test_a_page_of_this_service_is_not_from_elsewhere() -> None:
    hosts = own_hosts(None, ("updates.example",))

    assert [False, False, True] == [
        is_of_a_foreign_page({"origin": origin}, hosts)  # type: ignore[arg-type]
        for origin in ("https://updates.example", "http://localhost:8000", "https://updates.example.evil")
    ]


def test_metrics_ask_for_a_token_where_the_operator_says_so(client: FakeCluster, store: Store, tmp_path: Path) -> None:
    admin = store.users.begin("ann")
    viewer = store.users.create("prometheus", "viewer")
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", protect_metrics=True) as running:
        without = requests.get(f"{running.url}/metrics", timeout=30)
        answers = [
            requests.get(f"{running.url}/metrics", headers={"Authorization": f"Bearer {made.token}"}, timeout=30)
            for made in (admin, viewer)
        ]

    assert [401, 200, 200] == [each.status_code for each in (without, *answers)]
