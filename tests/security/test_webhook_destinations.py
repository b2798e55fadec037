"""A webhook makes the service send requests: they reach public addresses, and what the operator allows, alone."""

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from outrider.core.addresses import masked_path
from outrider.core.errors import ConfigError
from outrider.model.activity import Activity
from outrider.service.destinations import Destinations, NotAllowed, parse_allowed
from outrider.service.history import chat
from outrider.service.history.webhook_sender import post
from outrider.service.history.webhooks import Webhooks
from outrider.service.store.store import Store
from outrider.service.store.users import Users
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import application_over, ask
from tests.support.service import NOON
from tests.support.waiting import eventually

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]", "224.0.0.1", "255.255.255.255", "2130706433", "0x7f000001", "127.1", "017700000001", "localhost",
]  # fmt: skip
"""Spellings of addresses that only the service's own network can reach."""


@pytest.fixture
def hooks(store: Store) -> Webhooks:
    return Webhooks(context=store.context, auditing=store.auditing)


@pytest.mark.parametrize("host", PRIVATE)
def test_a_webhook_to_a_private_address_is_refused_however_it_is_spelled(hooks: Webhooks, host: str) -> None:
    with pytest.raises(ConfigError, match=r"which is no public address; .*--allow-webhooks-to="):
        hooks.create("ops", f"http://{host}:8080/hook")

    assert () == hooks.list()


@pytest.mark.parametrize(
    "url", ["json://127.0.0.1:1/", "xml://10.0.0.1", "jsons://localhost/x", "mailto://a:b@example.org?smtp=127.0.0.1"]
)
def test_a_notification_to_a_private_address_is_refused(hooks: Webhooks, url: str) -> None:
    with pytest.raises(ConfigError, match="which is no public address"):
        hooks.create("chat", url, kind="notification")


def test_a_webhook_is_not_changed_to_a_private_address(hooks: Webhooks) -> None:
    hooks.create("ops", "https://93.184.215.14/hook")

    with pytest.raises(ConfigError, match="no public address"):
        hooks.update("ops", url="https://127.0.0.1/hook")
    assert "warning" == hooks.update("ops", least="warning").least


def test_a_name_of_which_one_address_is_private_is_refused(hooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 0)) for text in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)

    with pytest.raises(ConfigError, match=r"updates\.example is 10\.0\.0\.1"):
        hooks.create("ops", "https://updates.example/hook")


@pytest.mark.parametrize(
    ("allowed", "host", "is_allowed"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "192.168.0.1", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.1",), "127.0.0.2", False),
        (("::1", "fc00::/7"), "fd00::1", True),
        ((), "93.184.215.14", True),
        ((), "2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
    ],
)
def test_an_operator_allows_networks(allowed: tuple[str, ...], host: str, is_allowed: bool) -> None:
    assert is_allowed == parse_allowed(allowed).allows(ipaddress.ip_address(host))


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--allow-webhooks-to .*: write an address or a network"):
        parse_allowed((text,))


class Inner:
    """A server that only this machine can reach. At /redirect it sends its visitor on to its own /inner."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        inner = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                inner.asked.append(self.path)
                self.send_response(307 if self.path == "/redirect" else 204)
                self.send_header("Location", f"http://127.0.0.2:{inner.port}/inner")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - what http.server calls

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Answer)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def inner() -> Iterator[Inner]:
    one = Inner()
    yield one
    one.close()


def test_at_delivery_the_address_counts_that_is_connected_to(inner: Inner) -> None:
    """The name led to a public address when the webhook was made, and leads here now."""
    url = f"http://localhost:{inner.port}/hook"

    with Destinations().enforced(url) as refused:
        status = post(url, b"{}", {})

    assert (0, []) == (status, inner.asked)
    assert {"127.0.0.1"} <= set(refused)
    assert 204 == post(url, b"{}", {}), "nothing is enforced outside the block"


def test_a_library_that_follows_redirects_is_stopped_at_the_second_address(inner: Inner) -> None:
    url = f"json://127.0.0.1:{inner.port}/redirect"
    activity = Activity(at=NOON, severity="error", kind="instance-failed", app="web", text="it failed")

    with parse_allowed(("127.0.0.1",)).enforced(url) as refused:
        told = chat.notify(url, activity)

    assert (False, ["/redirect"], ["127.0.0.2"]) == (told, inner.asked, refused)


def test_a_webhook_never_follows_a_redirect(inner: Inner) -> None:
    url = f"http://127.0.0.1:{inner.port}/redirect"

    with parse_allowed(("127.0.0.0/8",)).enforced(url):
        assert 307 == post(url, b"{}", {})

    assert ["/redirect"] == inner.asked


def test_other_threads_go_where_they_like_meanwhile(inner: Inner) -> None:
    statuses: list[int] = []
    url = f"http://127.0.0.1:{inner.port}/hook"

    def other() -> None:
        statuses.append(requests.post(url, data=b"", timeout=30).status_code)

    with Destinations().enforced(url):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        with pytest.raises(NotAllowed), socket.socket() as attempt:
            attempt.connect(("127.0.0.1", inner.port))

    assert [204] == statuses


def test_behind_a_proxy_the_name_is_checked_before(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is the operator's and may be private; where it is sent to may not."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{inner.port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    public, private = "http://93.184.215.14/hook", "http://10.0.0.1/hook"

    with Destinations().enforced(public):
        through = post(public, b"{}", {})
    with Destinations().enforced(private) as refused:
        stopped = post(private, b"{}", {})

    assert (204, 0, ["10.0.0.1"]) == (through, stopped, refused)
    assert [public] == inner.asked


def test_viewers_see_neither_the_paths_of_webhooks_nor_their_fingerprints(
    client: FakeCluster, store: Store, tmp_path: Path
) -> None:
    application = application_over(client, tmp_path / "payloads")
    users: Users = store.users
    bearers = {"admin": users.begin("root").token} | {
        role: users.create(role, role).token for role in ("viewer", "approver", "operator")
    }
    for token in bearers.values():
        eventually(lambda token=token: whoami(application, token) == 200)  # type: ignore[misc]
    body = b'{"name": "ops", "url": "https://93.184.215.14/services/T0/B0/SECRET?key=SECRET"}'

    made = ask(
        application, "POST", "/api/v1/webhooks", body,
        authorization=f"Bearer {bearers['operator']}", content_type="application/json",
    )  # fmt: skip

    assert 201 == made.status, made.body
    for role, token in bearers.items():
        for path in ("/api/v1/webhooks", "/api/v1/webhooks/ops", "/api/v1/audit?noun=webhook"):
            answer = ask(application, "GET", path, authorization=f"Bearer {token}")
            assert (200, role in ("operator", "admin")) == (answer.status, b"SECRET" in answer.body), (role, path)
            assert json.loads(made.body)["secret"].encode() not in answer.body
        shown = json.loads(ask(application, "GET", "/api/v1/webhooks/ops", authorization=f"Bearer {token}").body)
        assert (role in ("operator", "admin")) == bool(shown["fingerprint"])


def whoami(application: object, token: str) -> int:
    return ask(application, "GET", "/api/v1/whoami", authorization=f"Bearer {token}").status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://chat.example/hooks/1?a=b", "https://chat.example/..."),
        ("http://user:word@chat.example:8443/x", "http://chat.example:8443/..."),
        ("http://[::1]:80/x", "http://[::1]:80/..."),
        ("http://[::1", "http://..."),
        ("nonsense", "..."),
    ],
)
def test_a_masked_address_shows_host_and_port_alone(url: str, shown: str) -> None:
    assert shown == masked_path(url)
