"""The Omaha client against servers that answer badly, slowly or not at all."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.core.errors import DriverError, OmahaError, OutriderError, Refused, Unknown
from outrider.core.omaha import (
    AppAnswer,
    NoUpdate,
    OmahaResponse,
    render_response,
)
from tests.support.servers import make_tls_files
from tests.support.update_service import APP, Answer, Service, check, dead_url, hang_up, raw_server, upstream


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.fixture
def second() -> Iterator[Service]:
    with Service() as running:
        yield running


HTML = {"Content-Type": "text/html; charset=utf-8"}
XML = {"Content-Type": "text/xml"}
BAD_ANSWERS: dict[str, tuple[Answer, type[OutriderError], str]] = {
    "a web page": (Answer(body=b"<html/>", headers=HTML), OmahaError, "'text/html' instead of text/xml"),
    "garbage": (Answer(body=b"\x89PNG"), OmahaError, "omaha response"),
    "Nebraska's empty document": (Answer(body=b'<?xml version="1.0"?>\n'), OmahaError, "not XML"),
    "an answer for another app": (
        Answer(body=render_response(OmahaResponse(apps=(AppAnswer(app_id="x"),)))),
        OmahaError,
        "no answer for app",
    ),
    "no update check": (
        Answer(body=render_response(OmahaResponse(apps=(AppAnswer(app_id=APP),)))),
        OmahaError,
        "no <updatecheck>",
    ),
    "too much": (Answer(body=b" " * (1024 * 1024 + 1)), OmahaError, "longer than 1048576 bytes"),
    "something compressed": (
        Answer(body=b"\x1f\x8b", headers=XML | {"Content-Encoding": "gzip"}),
        OmahaError,
        "compressed",
    ),
    "400": (Answer(status=400, body=b"omaha request: not XML\nmore"), Refused, "HTTP 400: omaha request: not XML more"),
    "413": (Answer(status=413, body=b""), Refused, "HTTP 413;"),
    "404": (Answer(status=404, body=b"not here"), DriverError, "HTTP 404: not here"),
    "500": (Answer(status=500, body=b"<html>" * 1000), DriverError, "HTTP 500"),
    "503": (Answer(status=503, body=b""), DriverError, "HTTP 503"),
    "500 with good XML": (Answer(status=500), DriverError, "HTTP 500"),
}


@pytest.mark.parametrize(("answer", "kind", "why"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_one_clear_line(service: Service, answer: Answer, kind: type[OutriderError], why: str) -> None:
    service.answer = answer

    with pytest.raises(OutriderError) as caught:
        check(upstream(service.url))

    assert kind is type(caught.value)
    line = str(caught.value)
    assert line.startswith(f"{service.url}/v1/update/: ")
    assert why in line
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize("content_type", ["application/xml; charset=utf-8", "TEXT/XML", ""])
def test_the_content_types_of_known_servers_are_accepted(service: Service, content_type: str) -> None:
    service.answer = Answer(headers={"Content-Type": content_type} if content_type else {})

    assert NoUpdate() == check(upstream(service.url))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(service: Service, second: Service, status: int) -> None:
    service.answer = Answer(status=status, headers={"Location": second.url + "/v1/update/"}, body=b"")

    with pytest.raises(DriverError, match=f"redirects to '{second.url}/v1/update/'"):
        check(upstream(service.url))

    assert [] == second.heads


def test_nothing_listening_means_the_request_was_never_sent() -> None:
    url = dead_url()

    with pytest.raises(DriverError, match=r"can't connect: .*refused") as caught:
        check(upstream(url))

    assert type(caught.value) is DriverError


def test_a_name_that_does_not_exist_means_the_request_was_never_sent() -> None:
    with pytest.raises(DriverError, match="can't connect") as caught:
        check(upstream("http://update.invalid"))

    assert type(caught.value) is DriverError


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=shake, daemon=True)
        thread.start()

        with pytest.raises(DriverError, match=r"can't connect: .*certificate") as caught:
            check(upstream(f"https://127.0.0.1:{listener.getsockname()[1]}"))

        thread.join(60)
    assert type(caught.value) is DriverError


def hang_up_in_the_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 500\r\n\r\n<response")


def talk_nonsense(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")


@pytest.mark.parametrize("talk", [hang_up, hang_up_in_the_body, talk_nonsense])
def test_a_request_without_an_answer_may_have_been_taken(talk: Callable[[socket.socket], None]) -> None:
    with raw_server(talk) as url, pytest.raises(Unknown, match="no answer"):
        check(upstream(url))


def stay_silent(connection: socket.socket) -> None:
    connection.recv(1)


def drip(head: bytes) -> Callable[[socket.socket], None]:
    def drip_for_ever(connection: socket.socket) -> None:
        connection.sendall(head)
        # A byte each 20 ms: no single read ever waits for long. The wait ends with the peer, in an error.
        while not threading.Event().wait(0.02):
            connection.sendall(b"x")

    return drip_for_ever


SLOW: dict[str, Callable[[socket.socket], None]] = {
    "silent": stay_silent,
    "slow head": drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "slow body": drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n"),
    "slow endless body": drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n"),
}


@pytest.mark.parametrize("talk", SLOW.values(), ids=SLOW)
def test_a_request_ends_within_its_time_however_the_peer_dawdles(talk: Callable[[socket.socket], None]) -> None:
    with raw_server(talk) as url:
        begun = time.monotonic()
        with pytest.raises(Unknown, match=r"no whole answer within 0\.3 s"):
            check(upstream(url, timeout_s=0.3))

        # Many times the limit, for a busy machine; without the limit it would never end.
        assert time.monotonic() - begun < 60
