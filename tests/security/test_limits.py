"""What one service takes has limits, an answer names the one that is met, and honest clients are served meanwhile."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import ConfigError
from outrider.etcd.seam import Put
from outrider.model.documents import Instance, encode
from outrider.service.inlet import ClientRules, Inlet
from outrider.service.limits import (
    NAMES,
    Buckets,
    Limits,
    bucket_of,
    checked,
    checkin_buckets,
    forwarded_address,
    option_of,
    parse_proxies,
)
from outrider.service.rollouts.batches import Batches
from outrider.service.rollouts.expiry import remove_silent_strangers
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON, RunningServer, WallClock
from tests.support.service_examples import APP, be_alive, make_app
from tests.support.waiting import eventually

Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(client: FakeCluster, store: Store, tmp_path: Path) -> Iterator[Serve]:
    """Starts a service with some limits set, over an app with the group ``beta``."""
    make_app(store)
    running: list[RunningServer] = []

    def start(*, local: Path | None = None, proxies: tuple[str, ...] = (), **limits: int) -> RunningServer:
        one = RunningServer(
            client, tmp_path / "payloads", "/outrider/v1", local=local,
            limits=replace(Limits(), **limits), trusted_proxies=parse_proxies(proxies),
        )  # fmt: skip
        running.append(one)
        return one.__enter__()

    yield start
    for one in running:
        one.__exit__()


def check(*ids: str, events: int = 0, version: str = "1.0.0") -> bytes:
    reports = "".join(f'<event eventtype="13" eventresult="1" errorcode="{number}"/>' for number in range(events))
    apps = (
        f'<app appid="{APP}" track="beta" machineid="{each}" version="{version}">{reports}<updatecheck/></app>'
        for each in ids
    )
    return f'<request protocol="3.0" requestid="{time.monotonic_ns()}">{"".join(apps)}</request>'.encode()


def post(running: RunningServer, body: bytes, **headers: str) -> requests.Response:
    return requests.post(f"{running.url}/v1/update", data=body, headers=headers, timeout=30)


# requests: how many, how often, how large


def test_a_request_of_many_apps_is_refused_before_any_is_looked_at(serve: Serve, fake_etcd: FakeEtcd) -> None:
    running = serve()

    refused = post(running, check(*(f"q-{number}" for number in range(11))))

    assert (400, True) == (refused.status_code, "--max-apps-per-request" in refused.text)
    assert [] == [key for key in fake_etcd.entries if "/instances/" in key]
    assert 200 == post(running, check(*(f"q-{number}" for number in range(10)))).status_code


def test_one_address_asks_so_often_and_is_told_when_to_come_again(serve: Serve) -> None:
    running = serve(max_requests_per_s=1, max_burst=5)

    answers = [post(running, check("web-1")) for _ in range(8)]
    over_the_api = requests.get(f"{running.url}/api/v1/apps", timeout=30)

    assert {200, 429} == {answer.status_code for answer in answers}
    last = answers[-1]
    assert "--max-requests-per-s" in last.text
    assert 1 <= int(last.headers["retry-after"]) <= 3
    assert (429, "throttled") == (over_the_api.status_code, over_the_api.json()["kind"])
    for path in ("/healthz", "/readyz"):
        assert 200 == requests.get(running.url + path, timeout=30).status_code


def test_what_an_address_asks_does_not_count_for_others_behind_a_trusted_proxy(serve: Serve) -> None:
    running = serve(max_requests_per_s=1, max_burst=3, proxies=("127.0.0.1",))
    noisy, quiet = {"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "203.0.113.9, 203.0.113.10"}

    statuses = [post(running, check("noisy"), **noisy).status_code for _ in range(6)]

    assert 429 == statuses[-1]
    assert 200 == post(running, check("quiet"), **quiet).status_code


def test_a_forwarded_address_of_anybody_else_is_not_believed(serve: Serve) -> None:
    running = serve(max_requests_per_s=1, max_burst=3)

    statuses = [
        post(running, check("noisy"), **{"X-Forwarded-For": f"203.0.113.{number}"}).status_code for number in range(6)
    ]

    assert 429 == statuses[-1]


def test_commands_at_the_unix_socket_are_served_while_the_network_is_refused(serve: Serve, tmp_path: Path) -> None:
    local = tmp_path / "serve.sock"
    running = serve(max_requests_per_s=1, max_burst=2, local=local)

    while post(running, check("noisy")).status_code != 429:
        pass

    commands = ServiceClient(f"unix:{local}")
    assert [APP] * 5 == [commands.get("apps")["items"][0]["id"] for _ in range(5)]


def test_one_instance_checks_in_so_often_and_others_as_they_like(serve: Serve) -> None:
    running = serve()

    answers = [post(running, check("noisy")) for _ in range(62)]
    while (refused := post(running, check("noisy"))).status_code == 200:  # a slow machine fills the bucket meanwhile
        answers.append(refused)

    assert ({200}, 429) == ({answer.status_code for answer in answers[:60]}, refused.status_code)
    assert ("instance noisy" in refused.text, "--max-checkins-per-s" in refused.text) == (True, True)
    assert 200 == post(running, check("web-1")).status_code


def test_five_hundred_sidekicks_behind_one_address_check_in_twice_at_once() -> None:
    limits, now = Limits(), 0.0
    addresses, instances = Buckets(limits.max_requests_per_s, limits.max_burst, lambda: now), checkin_buckets(limits)

    waits = [addresses.take("203.0.113.9") + instances.take(f"web-{number % 500}") for number in range(1000)]

    assert {0.0} == set(waits)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_to_the_api_is_so_large_at_most(serve: Serve, chunked: bool) -> None:
    running = serve(max_json_bytes=1000)
    body = json.dumps({"id": "x", "description": "y" * 5000}).encode()

    answer = requests.post(
        f"{running.url}/api/v1/apps",
        data=iter([body[:2000], body[2000:]]) if chunked else body,
        headers={"Content-Type": "application/json"},
        timeout=30,
    )

    assert (413, "too-large") == (answer.status_code, answer.json()["kind"])
    assert "1000 bytes (--max-json-bytes)" in answer.json()["detail"]
    assert 200 == requests.get(f"{running.url}/api/v1/apps", timeout=30).status_code


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_is_so_large_at_most_and_leaves_nothing(serve: Serve, tmp_path: Path, chunked: bool) -> None:
    running = serve(max_upload_bytes=100_000)
    parts = [b"x" * 60_000] * 3

    answer = requests.post(
        f"{running.url}/api/v1/payloads", data=iter(parts) if chunked else b"".join(parts), timeout=30
    )

    assert (413, True) == (answer.status_code, "--max-upload-bytes" in answer.json()["detail"])
    assert [] == [path for path in (tmp_path / "payloads").rglob("*") if path.is_file()]
    assert 201 == requests.post(f"{running.url}/api/v1/payloads", data=b"x" * 99_999, timeout=30).status_code


# rows of instances


def test_made_up_instances_find_no_room_and_a_sidekick_still_does(serve: Serve, store: Store) -> None:
    running = serve(max_strangers=5)
    be_alive(store, "web-1", NOON)

    answers = [post(running, check(f"made-up-{number}")) for number in range(8)]

    assert [200] * 5 + [429] * 3 == [answer.status_code for answer in answers]
    assert "5 instances without a known sidekick already (--max-strangers)" in answers[-1].text
    assert 200 == post(running, check("web-1")).status_code
    assert 200 == post(running, check("made-up-1")).status_code, "who has a row keeps it"
    assert 6 == len(store.fleet.instances(APP))


def test_a_group_has_room_for_so_many(serve: Serve, store: Store) -> None:
    running = serve(max_instances=2)
    for number in range(3):
        be_alive(store, f"web-{number}", NOON)

    answers = [post(running, check(f"web-{number}")) for number in range(3)]

    assert [200, 200, 429] == [answer.status_code for answer in answers]
    assert "2 instances already (--max-instances)" in answers[-1].text


def test_a_row_that_is_rewritten_again_and_again_stays_small(serve: Serve, fake_etcd: FakeEtcd) -> None:
    running = serve()

    for _ in range(40):
        assert 200 == post(running, check("fat", events=60, version="9" * 400)).status_code

    (row,) = [entry.value for key, entry in fake_etcd.entries.items() if "/instances/" in key]
    assert len(row) < 8_000


def test_silent_strangers_are_forgotten_and_nobody_else(store: Store, client: FakeCluster, clock: WallClock) -> None:
    make_app(store)
    rows = {
        "silent": Instance(app=APP, id="silent", group="beta", version="1", first_seen=NOON, last_seen=NOON),
        "granted": Instance(
            app=APP, id="granted", group="beta", version="1", first_seen=NOON, last_seen=NOON, granted_version="2.0.0"
        ),
        "known": Instance(
            app=APP, id="known", group="beta", version="1", first_seen=NOON, last_seen=NOON, had_sidekick=True
        ),
        "alive": Instance(app=APP, id="alive", group="beta", version="1", first_seen=NOON, last_seen=NOON),
    }
    for name, row in rows.items():
        client.txn((), (Put(key=store.context.keys.instance(APP, name), value=encode(row)),))
    be_alive(store, "alive", NOON)
    clock.advance(7 * 24 * 3600 - 1)

    early = remove_silent_strangers(store.context, Limits())
    clock.advance(2)
    late = remove_silent_strangers(store.context, Limits())

    assert (0, 1) == (early, late)
    assert ["alive", "granted", "known"] == sorted(row.id for row in store.fleet.instances(APP))


# connections


def holding(running: RunningServer, count: int, first: bytes) -> list[socket.socket]:
    """So many connections that have sent ``first`` and say no more."""
    found = []
    for _ in range(count):
        one = socket.create_connection((running.host, running.port), timeout=30)
        one.sendall(first)
        found.append(one)
    return found


HEADER = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "
BODY = b"POST /v1/update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n<\r\n"
UPLOAD = b"POST /api/v1/payloads HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\nx"
ANSWERED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
STARTS = {"idle": b"", "header": HEADER, "body": BODY, "upload": UPLOAD, "answered": ANSWERED}


@pytest.mark.parametrize("kind", STARTS)
def test_connections_that_wait_make_room_for_those_that_ask(serve: Serve, kind: str) -> None:
    running = serve(max_connections=20)
    held = []
    for _ in range(60):
        held += holding(running, 1, STARTS[kind])
        if kind == "answered":
            assert b"200 OK" in held[-1].recv(4096)

    statuses = [requests.get(f"{running.url}/healthz", timeout=30).status_code for _ in range(20)]

    assert [200] * 20 == statuses
    refused = [one.recv(4096) for one in held[:30]]
    if kind != "answered":
        assert all(b"503" in told and b"(--max-connections)" in told for told in refused if told)
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("kind", "option"), [("idle", b"--max-header-s"), ("header", b"--max-header-s"), ("body", b"--max-body-s"),
                         ("upload", b"--max-body-s")],
)  # fmt: skip
def test_who_is_too_slow_is_told_and_cut_off(serve: Serve, kind: str, option: bytes) -> None:
    """A byte now and then buys no time."""
    running = serve(max_header_s=1, max_body_s=1)
    (slow,) = holding(running, 1, STARTS[kind])
    told = b""
    with closing(slow):
        slow.settimeout(0.2)
        ended = time.monotonic() + 30
        while time.monotonic() < ended:
            try:
                if kind in ("header", "upload"):
                    slow.sendall(b"a")
                piece = slow.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            told += piece

    assert time.monotonic() < ended
    assert told.startswith(b"HTTP/1.1 408 ")
    assert option in told


def test_an_upload_that_goes_on_may_take_longer_than_a_body(serve: Serve) -> None:
    running = serve(max_body_s=1)

    def pieces() -> Iterator[bytes]:
        ended = time.monotonic() + 1.5
        while time.monotonic() < ended:
            yield b"x" * 64 * 1024
            time.sleep(0.1)  # the pace of a slow line, not a wait for anything

    assert 201 == requests.post(f"{running.url}/api/v1/payloads", data=pieces(), timeout=30).status_code


def test_a_second_request_on_the_same_connection_is_served(serve: Serve) -> None:
    running = serve(max_header_s=1)
    with requests.Session() as session:
        for _ in range(3):
            assert 200 == session.get(f"{running.url}/healthz", timeout=30).status_code
            time.sleep(0.4)  # idle between two requests: longer in all than a header may take


# work for clients that have gone


def test_work_that_nobody_waits_for_is_stopped() -> None:
    """
    1. a request is worked on
    2. its client goes away
    3. the work is cancelled; an event tells threads that work for it
    """
    happened: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        happened.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            happened.append("cancelled" if scope["state"]["outrider_gone"].is_set() else "cancelled, and not told")
            raise

    async def run() -> None:
        gone = asyncio.Event()
        incoming = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            if (message := next(incoming, None)) is not None:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            happened.append("answered")

        scope = {"type": "http", "path": "/v1/update", "method": "POST", "headers": [], "client": ("10.0.0.1", 1)}
        request = asyncio.ensure_future(Inlet(application, Limits(), ClientRules(Limits(), ()))(scope, receive, send))
        while "begun" not in happened:
            await asyncio.sleep(0)
        gone.set()
        await asyncio.wait_for(request, 30)

    asyncio.run(run())

    assert ["begun", "cancelled"] == happened


def test_check_ins_in_line_whose_clients_have_gone_are_never_begun(
    serve: Serve, client: FakeCluster, fake_etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch waits for etcd, and others for it; fifty more clients ask, and go away."""
    begun: list[object] = []
    submit = Batches.submit

    def submitted(batches: Batches[Any], *given: Any, **named: Any) -> None:
        submit(batches, *given, **named)
        begun.append(batches)

    monkeypatch.setattr(Batches, "submit", submitted)
    running = serve()
    blocked, free = threading.Semaphore(0), threading.Event()

    def trouble(call: str, moment: str) -> None:
        if call == "txn" and moment == "before":
            blocked.release()
            free.wait(30)

    client.trouble = trouble
    body = check("web-1")
    head = f"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    first = holding(running, 32, head + body)
    assert blocked.acquire(timeout=30)
    eventually(lambda: len(begun) == 32)
    later = check("later-1")
    head = f"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Length: {len(later)}\r\n\r\n".encode()
    for one in holding(running, 50, head + later):
        one.close()
    # a client that had gone before its request was read is not even in line
    eventually(lambda: requests.get(f"{running.url}/healthz", timeout=30).ok)

    client.trouble = None
    free.set()

    for one in first:
        assert b"200 OK" in one.recv(4096)
        one.close()
    assert 200 == post(running, check("web-2")).status_code
    assert [] == [key for key in fake_etcd.entries if "/instances/" in key and "later" in key]


# the parts


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 4.0, lambda: now[0])

    assert [0.0] * 4 == [buckets.take("a") for _ in range(4)]
    assert 0.5 == buckets.take("a")
    assert 0.0 == buckets.take("b")
    now[0] = 0.5
    assert (0.0, 0.5) == (buckets.take("a"), buckets.take("a"))
    now[0] = 1000.0
    assert [0.0] * 4 == [buckets.take("a") for _ in range(4)]
    assert buckets.take("a") > 0


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_a_machine_has_one_bucket_whatever_addresses_it_has(address: str, bucket: str) -> None:
    assert bucket == bucket_of(address)


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        ("", "10.0.0.1"),
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("1.2.3.4, nonsense", "10.0.0.1"),
        ("1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"),
        (",,", "10.0.0.1"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(forwarded_for: str, address: str) -> None:
    assert address == forwarded_address("10.0.0.1", forwarded_for, parse_proxies(("10.0.0.0/24",)))
    assert "192.0.2.7" == forwarded_address("192.0.2.7", forwarded_for, parse_proxies(("10.0.0.0/24",)))


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_of_nothing_is_refused_by_its_option(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{option_of(name)} 0: write 1 or more"):
        checked(replace(Limits(), **{name: 0}))


def test_every_limit_stands_on_the_page_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "use" / "limits.md").read_text()

    for name in NAMES:
        assert f"| `{option_of(name)}` | {getattr(Limits(), name)} |" in page, name
