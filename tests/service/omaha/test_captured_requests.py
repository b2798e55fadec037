"""What real programs sent, byte for byte over a socket, to the running service.

``tests/support/omaha_clients.py`` is the table of what each client needs (omaha.md, section 2.4): every client is
asked what it makes of every answer, for another client's request, too.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from outrider.core.omaha import AppRequest, OmahaRequest, parse_request, parse_response, render_request
from outrider.etcd.client import connect
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.support.captures import CAPTURES, captured_files, read_http
from tests.support.omaha_clients import CLIENTS, Taken, check_form, outcomes
from tests.support.servers import EtcdServer
from tests.support.service import RunningServer
from tests.support.service_examples import APP, SHA256, make_app, open_store

CAPTURED = captured_files("**/*.request.bin")
LIBRARY_APP = "da7508e2-9b33-490a-bead-60919b1acd76"
PREFIX = "/captured"
SECRET = "captured-secret"


@pytest.fixture(scope="module")
def store(etcd_server: EtcdServer) -> Iterator[Store]:
    """Everything that the recorded programs ask for, at 2.0.0."""
    cluster = connect(etcd_server.address())
    store = open_store(cluster, PREFIX)
    make_app(store, version="2.0.0")
    store.apps.create(app=LIBRARY_APP)
    store.packages.create(
        LIBRARY_APP, "2.0.0", Payload(url="http://files.example/lib.tar", size_bytes=9, sha256=SHA256)
    )
    store.channels.create(LIBRARY_APP, "open", version="2.0.0")
    store.groups.create(LIBRARY_APP, "open", channel="open")
    yield store
    cluster.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The service, and what Omaha's address ends in, if that is a secret."""

    host: str
    port: int
    secret: str


@pytest.fixture(scope="module", params=["", SECRET], ids=["open", "secret"])
def serving(
    request: pytest.FixtureRequest, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """The service with its own sockets, with and without a secret."""
    folder, secret = tmp_path_factory.mktemp("captured"), request.param
    with RunningServer(store.context.cluster, folder, PREFIX, omaha_secret=secret or None) as running:
        yield Serving(host=running.host, port=running.port, secret=secret)


def say(serving: Serving, message: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a whole HTTP message as it is; read one answer."""
    if serving.secret:
        method, path, rest = message.split(b" ", 2)
        message = b" ".join((method, path.rstrip(b"/") + b"/" + serving.secret.encode(), rest))
    with socket.create_connection((serving.host, serving.port), timeout=60) as raw:
        raw.sendall(message)
        stream = raw.makefile("rb")
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip().decode("ascii"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, stream.read(int(headers["content-length"]))


@pytest.mark.parametrize("name", CAPTURED)
def test_every_client_accepts_the_answer_to_every_recorded_request(serving: Serving, store: Store, name: str) -> None:
    asked = parse_request(read_http(name).body).apps

    status, headers, body = say(serving, (CAPTURES / name).read_bytes())

    assert (200, "text/xml") == (status, headers["content-type"])
    assert "location" not in headers
    check_form(body, *asked)
    assert dict.fromkeys(CLIENTS, asked[0].update_check) == {
        client: isinstance(outcome, Taken) for client, outcome in outcomes(body, asked[0]).items()
    }


@pytest.mark.parametrize("name", captured_files("watch*/*.request.bin"))
def test_the_event_that_updatectls_watch_sends_with_every_poll_is_not_believed(
    serving: Serving, store: Store, name: str
) -> None:
    (asked,) = parse_request(read_http(name).body).apps
    assert ["1:0"] == [event.code for event in asked.events]

    say(serving, (CAPTURES / name).read_bytes())

    row = store.fleet.instance(APP, asked.machine_id)
    assert ("update-granted", ()) == (row.status, row.history)


@pytest.mark.parametrize("spelling", [APP, f"{{{APP}}}", APP.upper(), f" {{{APP.upper()}}} "])
def test_an_app_after_an_unknown_one_is_answered_and_every_spelling_comes_back(serving: Serving, spelling: str) -> None:
    facts = {"version": "1.0.0", "track": "beta", "machine_id": "many", "update_check": True, "ping": True}
    apps = tuple(AppRequest(app_id=app_id, **facts) for app_id in ("unknown", spelling, "{Unknown-2}"))  # type: ignore[arg-type]
    body = render_request(OmahaRequest(apps=apps))
    head = f"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    status, _, answer = say(serving, head.encode() + body)

    assert 200 == status
    check_form(answer, *apps)
    statuses = [app.status for app in parse_response(answer).apps]
    assert ["error-unknownApplication", "ok", "error-unknownApplication"] == statuses


def test_attributes_and_elements_that_nobody_knows_are_no_error(serving: Serving) -> None:
    body = render_request(
        OmahaRequest(apps=(AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="odd", update_check=True),))
    )
    body = body.replace(b"<updatecheck", b'<cohort hint="7"/><updatecheck multi="true"').replace(
        b"<request", b'<request dedup="cr" acceptformat="crx3" xmlns:x="urn:x" x:y="z"'
    )
    head = f"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    status, _, answer = say(serving, head.encode() + body)

    assert (200, True) == (status, b'<updatecheck status="ok">' in answer)
