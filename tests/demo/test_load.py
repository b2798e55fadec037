"""The load must see every loss: it is held against a server that loses requests in each way there is."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from outrider.core.errors import DriverError
from outrider.demo.load import LoadGenerator
from outrider.demo.requester import Failed, Reply, Requester
from tests.support.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Version: 1.0.0\r\n\r\nhello"


class Peer:
    """A server that answers by script, over raw sockets.

    Attributes:
        received: Requests that arrived, in order, over all connections.
    """

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        """``answer`` gets the number of the request, from 0; None closes the connection without a word."""
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.received: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        """Stop listening and close every connection; safe to call twice."""
        for each in (self._listener, *self._open):
            with suppress(OSError):  # closed already, on this side or the other
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            with self._lock:
                self._open.append(connection)
            try:
                while request := self._read(lines.readline, lines.read):
                    with self._lock:
                        number = len(self.received)
                        self.received.append(request)
                    answer = self._answer(number)
                    if answer is None:
                        break
                    connection.sendall(answer)
                    if not answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"):
                        break
            except OSError:
                pass
            with self._lock:
                self._open.remove(connection)

    @staticmethod
    def _read(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> bytes:
        request, length = b"", 0
        while (line := readline()) not in (b"", b"\r\n"):
            request += line
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return request + read(length)


@contextmanager
def peer(answer: Callable[[int], bytes | None]) -> Iterator[Peer]:
    server = Peer(answer)
    try:
        yield server
    finally:
        server.close()


def asked(server: Peer, *methods: str, between: Callable[[], None] = lambda: None) -> tuple[list[str], Requester]:
    """What became of one request per method, one after the other: a status, or the kind of failure."""

    async def run() -> tuple[list[str], Requester]:
        requester = Requester("127.0.0.1", server.port, timeout_s=0.5)
        became = []
        for method in methods:
            try:
                reply: Reply = await requester.request(method, "/", {"Host": "hello.test"}, b"x" * (method == "POST"))
                became.append(str(reply.status))
            except Failed as failed:
                became.append(failed.kind)
            between()
        requester.close()
        return became, requester

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "became"),
    [
        (OK, "200"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "200"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "200"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello", "short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "short"),
        (b"HTTP/1.1 200 OK\r\nContent-", "short"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "garbage"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "garbage"),
        (None, "broken"),
    ],
)
def test_a_response_is_whole_or_its_loss_has_a_name(answer: bytes | None, became: str) -> None:
    with peer(lambda number: answer) as server:
        assert [became] == asked(server, "GET")[0]


def test_no_answer_in_time_is_a_timeout_and_its_late_answer_is_nobody_elses() -> None:
    late = threading.Event()

    def answer(number: int) -> bytes:
        if number == 0:
            late.wait(5)
        return OK.replace(b"hello", b"late!") if number == 0 else OK

    with peer(answer) as server:
        became, _ = asked(server, "GET", "GET", between=late.set)

        assert ["timeout", "200"] == became
        assert 2 == server.connections


def test_nobody_listening_is_a_failure_to_connect() -> None:
    with peer(lambda number: OK) as server:
        server.close()
        became, _ = asked(server, "GET")

    assert ["connect"] == became


def test_connections_are_kept() -> None:
    with peer(lambda number: OK) as server:
        became, requester = asked(server, "GET", "POST", "GET")

        assert ["200"] * 3 == became
        assert (1, 1, 0) == (server.connections, requester.opened, requester.closed_idle)
        assert server.received[1].endswith(b"x")


def test_a_get_on_a_kept_connection_that_is_closed_without_a_word_is_sent_anew_and_counted() -> None:
    with peer(lambda number: None if number == 1 else OK) as server:
        became, requester = asked(server, "GET", "GET")

        assert ["200", "200"] == became
        assert 1 == requester.closed_idle
        assert 3 == len(server.received)


def test_a_post_is_never_sent_twice() -> None:
    with peer(lambda number: None if number == 1 else OK) as server:
        became, requester = asked(server, "GET", "POST")

        assert ["200", "broken"] == became
        assert 0 == requester.closed_idle
        assert 2 == len(server.received)


def test_nothing_is_sent_anew_after_the_first_byte_of_an_answer() -> None:
    with peer(lambda number: b"H" if number == 1 else OK) as server:
        became, _ = asked(server, "GET", "GET")

        assert ["200", "short"] == became
        assert 2 == len(server.received)


def test_a_fresh_connection_that_breaks_is_a_loss() -> None:
    with peer(lambda number: None) as server:
        assert ["broken", "broken"] == asked(server, "GET", "GET")[0]


def test_the_figures_are_what_the_server_saw() -> None:
    """
    1. the server answers, fails every tenth request, and is another version from the 100th on
    2. each request is in the figures once, under what became of it
    """

    def answer(number: int) -> bytes:
        if number % 10 == 9:
            return b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 11\r\n\r\nBad Gateway"
        return OK if number < 100 else OK.replace(b"1.0.0", b"2.0.0")

    with peer(answer) as server:
        load = LoadGenerator(server.url, "hello.test", 200).start()
        eventually(lambda: load.snapshot().versions.get("2.0.0"))
        figures = load.stop()

        received = len(server.received)
        assert received == figures.requests
        assert received // 10 == figures.failed == figures.failures["status 502"]
        assert received - received // 10 == sum(served.requests for served in figures.versions.values())
        assert 90 == figures.versions["1.0.0"].requests
        assert figures.versions["1.0.0"].first_at <= figures.versions["1.0.0"].last_at
        assert figures.versions["1.0.0"].last_at <= figures.versions["2.0.0"].last_at
        assert 0 == figures.open
        assert "Bad Gateway" == figures.examples[0].text
        assert received // 5 == pytest.approx(sum(each.startswith(b"POST") for each in server.received), abs=1)
        assert all(b"Host: hello.test\r\n" in each for each in server.received)


def test_a_stalled_server_does_not_slow_the_load_down() -> None:
    """Open loop: what is due is sent, however many requests hang; they count as failed when their time is up."""
    stalled = threading.Event()

    def answer(number: int) -> bytes:
        if number >= 20:
            stalled.wait(10)
        return OK

    with peer(answer) as server:
        load = LoadGenerator(server.url, "hello.test", 100, timeout_s=1.0).start()
        eventually(lambda: len(server.received) >= 100)
        figures = load.stop()
        stalled.set()

    assert {"timeout": figures.requests - 20} == figures.failures
    assert figures.requests >= 100
    assert figures.duration_s < 6.0


def test_a_load_that_died_is_no_clean_result() -> None:
    with peer(lambda number: OK) as server:
        load = LoadGenerator(server.url, "hello.test", 100).start()
        assert load._process is not None
        os.kill(load._process.pid, signal.SIGKILL)
        load._process.wait(10)

        with pytest.raises(DriverError, match="incomplete"):
            load.stop()


def test_the_load_ends_with_whoever_started_it() -> None:
    with peer(lambda number: OK) as server:
        code = (
            "from outrider.demo.load import LoadGenerator; "
            f"l = LoadGenerator({server.url!r}, 'h', 50).start(); print(l._process.pid)"
        )
        parent = subprocess.run(
            [sys.executable, "-c", f"{code}; import os; os._exit(1)"], capture_output=True, text=True, timeout=30
        )
        child = int(parent.stdout)

        eventually(lambda: _is_gone(child))


def test_a_wrong_address_is_one_clear_line() -> None:
    with pytest.raises(DriverError, match="write an http:// address"):
        LoadGenerator("ftp://nowhere/", "h", 10).start()


def test_by_hand_it_prints_one_line_and_as_json_the_figures() -> None:
    with peer(lambda number: OK) as server:
        command = [sys.executable, "-m", "outrider.demo.load", server.url, "--rate", "50", "--seconds", "0.5"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        lines = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=30, check=True).stdout

    assert "failed: 0 (none), versions: 1.0.0: " in text
    assert json.loads(lines.splitlines()[-1])["failed"] == 0


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # an orphan whose new parent never waits for it stays as a zombie
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"
