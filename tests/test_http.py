"""The one GET: it ends in time as a whole, and what was cut off is never taken for an answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from outrider import http
from outrider.http import Answer, NoAnswer, OutOfTime, ask, get

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
LIMIT_S = 0.5


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Hands its first connection to ``answer``, and closes it then."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def dripping(beginning: bytes) -> Callable[[socket.socket], None]:
    """One byte every 50 ms for as long as somebody listens: no single read ever takes long."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        pause = threading.Event()
        while not pause.wait(0.05):
            connection.sendall(b"x")

    return answer


def saying(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text)


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\nX-Long: ", HEAD + b"Content-Length: 100000\r\n\r\n", HEAD + b"\r\n"],
    ids=["header", "body", "body without a length"],
)
def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_us(beginning: bytes) -> None:
    with server(dripping(beginning)) as url:
        began = time.monotonic()

        with pytest.raises(OutOfTime, match=r"no answer in 0\.5 s"):
            get(url, timeout_s=LIMIT_S)

        assert LIMIT_S <= time.monotonic() - began < 10 * LIMIT_S


def test_a_whole_answer_comes_with_its_status() -> None:
    with server(saying(HEAD.replace(b"200 OK", b"503 No") + b"Content-Length: 4\r\n\r\nbusy")) as url:
        assert Answer(status=503, body=b"busy") == get(url, timeout_s=10)


def test_what_was_cut_off_is_no_answer() -> None:
    with server(saying(HEAD + b"Content-Length: 100\r\n\r\nhalf")) as url, pytest.raises(NoAnswer):
        get(url, timeout_s=10)
    with server(saying(HEAD + b"Content-Length: 100\r\n\r\nhalf")) as url:
        assert ask(url, timeout_s=10) is None


def test_nobody_there_is_no_answer_in_the_systems_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"

        with pytest.raises(NoAnswer, match="Connection refused"):
            get(url, timeout_s=10)


def test_of_a_body_that_is_too_long_one_byte_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + b"Content-Length: 9\r\n\r\n123456789"
    with server(saying(text)) as url:
        assert b"12345" == get(url, timeout_s=10, max_bytes=4).body
    monkeypatch.setattr(http, "MAX_BYTES", 4)
    with server(saying(text)) as url:
        assert ask(url, timeout_s=10) is None


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with server(saying(HEAD + b"Content-Length: 2\r\n\r\nok")) as url:
        assert Answer(status=200, body=b"ok") == get(url, timeout_s=10)
