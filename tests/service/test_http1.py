"""What is read from a connection is at least as strict as h11, and nothing is ever read in two ways."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import h11
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from outrider.service.connections import Connection, connections_within
from outrider.service.http1 import MAX_DROPPED_BYTES, MAX_HEAD_BYTES, Answer, Pending
from outrider.service.limits import Limits

Request = tuple[str, bytes, tuple[tuple[bytes, bytes], ...], bytes]


class Wire(asyncio.Transport):
    """A connection to nobody."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 9)})
        self.sent, self.closed = b"", False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Exchange:
    """What one connection was sent, and what the application got of it."""

    def __init__(self, shortcut: Any = None) -> None:
        self.requests: list[Request] = []
        self.answer_early = self.is_closed = False
        config = uvicorn.Config(
            self._application, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False, ws="none"
        )
        config.load()
        self.wire = Wire()
        state = uvicorn.server.ServerState()
        self.connection: Connection = connections_within(Limits(), shortcut)(config, state, {})
        self.tasks = state.tasks
        self.connection.connection_made(self.wire)

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, message = b"", dict[str, Any]()
        while not self.answer_early:
            message = dict(await receive())
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        if message.get("type") == "http.disconnect":
            return
        headers = tuple((name, value) for name, value in scope["headers"])
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self.requests.append((scope["method"], target, headers, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def feed(self, *pieces: bytes) -> "Exchange":
        for piece in pieces:
            self.connection.data_received(piece)
            await self.rest()
        return self

    async def rest(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    @property
    def status(self) -> int | None:
        """Of the first answer."""
        return int(self.wire.sent[9:12]) if self.wire.sent else None


def exchanged(*pieces: bytes, shortcut: Any = None) -> Exchange:
    async def exchange() -> Exchange:
        one = Exchange(shortcut)
        await one.feed(*pieces)
        one.is_closed = one.wire.closed
        one.connection.connection_lost(None)
        await one.rest()
        return one

    return asyncio.run(exchange())


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two hosts of 1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx", 400),
    "listed length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\nx", 400),
    "gzip, chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks of 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "0.9": (b"GET /\r\n\r\n", 400),
    "two blanks": (b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two blanks before": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "preface of 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a blank before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "a folded line": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "no name": (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a nul": (b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
    "a bare return": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
    "an address as target": (b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "connect": (b"CONNECT y:443 HTTP/1.1\r\nHost: y\r\n\r\n", 400),
    "another byte in the target": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a method that nobody knows": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a long header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    "a long target": (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 4000 + b"\r\n", 431),
}


@pytest.mark.parametrize(("said", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
def test_what_two_programs_could_read_differently_is_refused(said: bytes, status: int, apart: bool) -> None:
    pieces = [bytes([each]) for each in said[:200]] + [said[200:]] if apart else [said]

    one = exchanged(*pieces)

    assert ([], status, True) == (one.requests, one.status, one.is_closed)
    assert 1 == one.wire.sent.lower().count(b"content-length: ")


FAULTY_BODIES = {
    "a trailer": b"1\r\nx\r\n0\r\nHost: y\r\n\r\n",
    "a size that is none": b"0x1\r\nx\r\n0\r\n\r\n",
    "a blank after the size": b"1 \r\nx\r\n0\r\n\r\n",
    "a bare line feed": b"1\nx\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1" + b"0" * 16 + b"\r\nx",
    "no line end after a chunk": b"1\r\nxy\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", FAULTY_BODIES.values(), ids=FAULTY_BODIES)
def test_a_body_whose_end_is_in_doubt_reaches_nobody(body: bytes) -> None:
    one = exchanged(CHUNKED, body)

    assert ([], 400, True) == (one.requests, one.status, one.is_closed)


def test_what_stands_between_the_parts_of_a_body_has_a_limit() -> None:
    one = exchanged(CHUNKED, b"1;", *[b"a" * 1000] * 17)

    assert ([], 400, True) == (one.requests, one.status, one.is_closed)


def test_requests_that_follow_each_other_are_served() -> None:
    one = exchanged(GET, POST, CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n", GET)

    assert [b"", b"abc", b"abc", b""] == [body for *_, body in one.requests]
    assert (4, False) == (one.wire.sent.count(b"200 OK"), one.is_closed)


def test_a_second_request_before_the_answer_is_for_nobody() -> None:
    """A request that was smuggled behind another one does not live on."""
    one = exchanged(POST + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")

    assert [b"/a"] == [path for _, path, *_ in one.requests]
    assert (1, True) == (one.wire.sent.count(b"HTTP/1.1 "), one.is_closed)
    assert b"connection: close" in one.wire.sent


def test_junk_behind_a_request_takes_its_answer_from_nobody() -> None:
    one = exchanged(POST + b"\x16\x03\x01")

    assert (1, 200, True) == (len(one.requests), one.status, one.is_closed)
    assert 1 == one.wire.sent.lower().count(b"content-length: ")


def test_who_goes_on_talking_is_hung_up_on() -> None:
    async def talk() -> None:
        one = Exchange()
        one.connection.data_received(POST + GET)
        for _ in range(MAX_DROPPED_BYTES // 1000 + 1):
            one.connection.data_received(b"a" * 1000)
        assert one.wire.closed

    run(talk)


@pytest.mark.parametrize("body", [b"", b"Content-Length: 1\r\n\r\nx"])
def test_another_protocol_is_not_spoken_and_nothing_after_it_is_read(body: bytes) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"

    one = exchanged(head + (body or b"\r\n") + GET, GET)

    assert [b"/a"] == [path for _, path, *_ in one.requests]
    assert (200, True) == (one.status, one.is_closed)


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    one = exchanged(b"GET / HTTP/1.1\r\nHost:   x \t \r\nX-Outrider-Identity: s  \r\n\r\n")

    assert ((b"host", b"x"), (b"x-outrider-identity", b"s")) == one.requests[0][2]


def test_an_answer_without_the_body_ends_well_once_the_body_has_come() -> None:
    async def early() -> None:
        one = Exchange()
        one.answer_early = True
        await one.feed(POST[:-2])
        assert 200 == one.status
        await one.feed(b"bc", GET)
        assert [b"/a", b"/healthz"] == [path for _, path, *_ in one.requests]

    run(early)


def test_who_has_gone_is_told_to_the_application() -> None:
    async def leave() -> None:
        one = Exchange()
        await one.feed(POST[:-1])
        one.connection.connection_lost(None)
        await one.rest()
        assert ([], set()) == (one.requests, one.tasks)

    run(leave)


class Echo:
    """A shortcut for ``/a``."""

    def __init__(self, can: bool = True) -> None:
        self.can, self.asked = can, 0

    def is_for(self, scope: Scope) -> bool:
        return bool(scope["path"] == "/a")

    def answer(self, scope: Scope, body: bytes, pending: Pending) -> Answer | Pending | None:
        self.asked += 1
        return quick(body) if self.can else None


def quick(body: bytes) -> Answer:
    return 200, b"content-type: text/plain\r\n", b"quick " + body


class Later(Echo):
    """A shortcut for ``/a`` that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Pending] = []

    def answer(self, scope: Scope, body: bytes, pending: Pending) -> Answer | Pending | None:
        self.pending.append(pending)
        return pending


@pytest.mark.parametrize("pieces", [(POST,), tuple(bytes([each]) for each in POST)], ids=["at once", "byte by byte"])
def test_what_has_a_shortcut_never_reaches_the_application(pieces: tuple[bytes, ...]) -> None:
    one = exchanged(*pieces, GET, *pieces, shortcut=Echo())

    assert [b"/healthz"] == [path for _, path, *_ in one.requests]
    assert 2 == one.wire.sent.count(b"content-length: 9\r\n\r\nquick abc")
    assert not one.is_closed


def test_what_a_shortcut_leaves_goes_to_the_application() -> None:
    echo = Echo(can=False)

    one = exchanged(POST, POST, shortcut=echo)

    assert ([b"abc", b"abc"], 2) == ([body for *_, body in one.requests], echo.asked)


def test_a_shortcut_closes_for_whoever_asks_for_that() -> None:
    one = exchanged(POST.replace(b"Host", b"Connection: close\r\nHost"), GET, shortcut=Echo())

    assert ([], True) == (one.requests, one.is_closed)
    assert b"connection: close" in one.wire.sent


async def waiting(*pieces: bytes) -> tuple[Exchange, Pending]:
    later = Later()
    one = await Exchange(later).feed(*pieces)
    assert ([], b"") == (one.requests, bytes(one.wire.sent))
    (pending,) = later.pending
    return one, pending


def test_an_answer_may_come_later_and_comes_once() -> None:
    async def exchange() -> None:
        one, pending = await waiting(POST)

        assert pending.is_wanted()
        for _ in range(2):
            pending.tell(quick(b"later"))
        await one.feed(GET)

        assert 1 == one.wire.sent.count(b"quick later")
        assert not pending.is_wanted()
        assert [b"/healthz"] == [path for _, path, *_ in one.requests]

    asyncio.run(exchange())


def test_what_a_shortcut_leaves_later_goes_to_the_application_with_its_body() -> None:
    async def exchange() -> None:
        one, pending = await waiting(POST)

        pending.tell(None)
        await one.rest()

        assert [b"abc"] == [body for *_, body in one.requests]

    asyncio.run(exchange())


def test_who_sends_a_second_request_before_a_late_answer_gets_that_answer_and_no_other() -> None:
    async def exchange() -> None:
        one, pending = await waiting(POST, GET)

        pending.tell(quick(b"later"))
        await one.rest()

        assert 1 == one.wire.sent.count(b"HTTP/1.1 200")
        assert ([], True) == (one.requests, one.wire.closed)

    asyncio.run(exchange())


def test_nobody_is_told_who_has_gone() -> None:
    async def exchange() -> None:
        one, pending = await waiting(POST)
        one.connection.connection_lost(None)

        assert not pending.is_wanted()
        pending.tell(quick(b"later"))
        pending.tell(None)
        await one.rest()

        assert ([], b"") == (one.requests, bytes(one.wire.sent))

    asyncio.run(exchange())


def as_h11(said: bytes) -> list[Request]:
    """What h11 reads, until it refuses something."""
    server, found = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024), []
    server.receive_data(said)
    request, body = None, b""
    try:
        while True:
            event = server.next_event()
            match event:
                case h11.Request():
                    request, body = event, b""
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage() if request is not None:
                    target, headers = request.target.removesuffix(b"?"), tuple(request.headers)
                    found.append((request.method.decode(), target, headers, body))
                    server.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                    server.send(h11.EndOfMessage())
                    if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                        return found
                    server.start_next_cycle()
                case _:
                    return found
    except h11.ProtocolError:
        return found


SEEDS = (GET, POST, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", POST.replace(b"1.1", b"1.0"))
TOKENS = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"0", b"1", b"a", b";", b",", b"\xff", b"Host: y\r\n", b"\r\n\r\n",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"HTTP/1.1",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"chunked", b"GET / HTTP/1.1\r\n", b"http://y",
)  # fmt: skip


def mutated(chance: random.Random) -> bytes:
    said = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(said) + 1)
        match chance.randrange(4):
            case 0:
                said[at:at] = chance.choice(TOKENS)
            case 1:
                del said[at : at + chance.randint(1, 3)]
            case 2:
                said[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                said[at:at] = said[at : at + chance.randint(1, 20)]
    return bytes(said)


def _lower(headers: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    """h11 writes ``chunked`` and ``100-continue`` as it likes them."""
    return [(name, value.lower()) for name, value in headers]


def differences(seed: int, count: int) -> int:
    """Compare with h11; how many inputs were served."""
    chance, served = random.Random(seed), 0

    async def compare() -> None:
        nonlocal served
        for _ in range(count):
            said = mutated(chance)
            one = await Exchange().feed(said)
            known = as_h11(said)[: len(one.requests)]
            assert [(m, t, b) for m, t, _, b in known] == [(m, t, b) for m, t, _, b in one.requests], said
            assert [_lower(h) for *_, h, _ in known] == [_lower(h) for *_, h, _ in one.requests], said
            served += len(one.requests)
            one.connection.connection_lost(None)
            await one.rest()

    asyncio.run(compare())
    return served


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_served_h11_would_have_served_alike(seed: int) -> None:
    assert differences(seed, 300) > 20


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_whatever_is_served_h11_would_have_served_alike_thousands_of_times(seed: int) -> None:
    assert differences(seed, 5000) > 500
