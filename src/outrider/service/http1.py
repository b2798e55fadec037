"""HTTP/1.1 on one connection: llhttp reads it, and what llhttp lets through is refused here.

Built on uvicorn's protocol over httptools. Whatever two programs could read differently ends the connection, because
one of them may be a proxy in front of us (request smuggling): two ``Host``, a ``Transfer-Encoding`` that isn't exactly
``chunked``, trailers, versions other than 1.0 and 1.1, a target that is no path.

One request at a time: whoever sends a second one before the answer is answered once, and then hung up on, as RFC 9112
(9.3.2) allows. A request for another protocol (``Upgrade``) is answered in this one, and is the last one.
"""

import asyncio
import re
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from outrider.service.sending import ZERO_COPY, Cycle

MAX_HEAD_BYTES = 16 * 1024
"""Of a request line and its header; also of what stands between the parts of a body, such as extensions of chunks."""
MAX_DROPPED_BYTES = 64 * 1024
"""What a client may send beside the point before it is hung up on."""
_INVALID = "Invalid HTTP request received."
_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]\r?\n")


class Fault(Exception):
    """Why a request is refused. ``status``: of the answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


Answer = tuple[int, bytes, bytes]
"""Status, header lines with their line ends, body."""


class Shortcut(Protocol):
    """Answers some requests without a task and without the application."""

    def is_for(self, scope: Scope) -> bool:
        """Whether it may answer a request, by its head alone; its body is no larger than 64 KiB then."""
        ...

    def answer(self, scope: Scope, body: bytes, pending: "Pending") -> "Answer | Pending | None":
        """Answer a whole request. ``pending``: it is told later; None: the application must answer."""
        ...


class Pending:
    """A request whose answer comes later. Used in the event loop, but for ``is_wanted``."""

    __slots__ = ("_cycle", "_protocol", "is_told")

    def __init__(self, protocol: "StrictProtocol", cycle: Cycle) -> None:
        self._protocol, self._cycle = protocol, cycle
        self.is_told = False

    def is_wanted(self) -> bool:
        """Whether the client still waits for an answer."""
        return not (self.is_told or self._cycle.disconnected)

    def tell(self, answer: Answer | None) -> None:
        """Send the answer, once; None: the application must answer."""
        if self.is_told:
            return
        self.is_told = True
        if not self._cycle.disconnected:
            self._protocol.finish(self._cycle, answer)


class StrictProtocol(HttpToolsProtocol):
    """Requests of one connection, one at a time."""

    shortcut: ClassVar[Shortcut | None] = None
    cycle: Cycle | None  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.is_inside = False
        """A request has begun, and isn't whole yet."""
        self._in_head = False
        self._for_shortcut = False
        self._has_ended = False
        """A request has ended in what was received last: the next one begins in a piece of its own."""
        self._is_deaf = False
        self._line = bytearray()
        """The request line, as far as it has come, of a request that has not begun for llhttp, or has just begun."""
        self._awaits_line = True
        self._head_bytes = self._idle_bytes = self._dropped_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Read on; answer what has a shortcut."""
        if self._is_deaf or self.transport.is_closing():
            self._drop(data)
            return
        self._idle_bytes += len(data)
        self._has_ended = False
        try:
            if self._awaits_line:
                self._check_line(data)
            self.parser.feed_data(data)
        except Fault as fault:
            self._refuse_rest(fault)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # what follows is in another protocol, which we don't speak
        except httptools.HttpParserCallbackError as error:
            # httptools keeps the exception of ours as the context of its own
            cause = error.__context__
            self._refuse_rest(cause if isinstance(cause, Fault) else Fault(400, _INVALID))
        except httptools.HttpParserError:
            self._refuse_rest(Fault(400, _INVALID))
        else:
            if self._idle_bytes > MAX_HEAD_BYTES:
                self._refuse_rest(Fault(431 if self._in_head else 400, "too much beside the body of a request"))
        if self._for_shortcut and self.cycle is not None and not self.cycle.more_body:
            self._take_shortcut(self.cycle)

    def refuse(self, status: int, words: str) -> None:
        """Answer with ``words``, unless an answer has begun, and close."""
        raise NotImplementedError

    def _check_line(self, data: bytes) -> None:
        """Look at the request line as it came: llhttp takes several blanks for one.

        Raises:
            Fault: it isn't exactly one.
        """
        self._line += data[: MAX_HEAD_BYTES - len(self._line)]
        if b"\n" not in self._line:
            return
        if not _LINE.match(self._line):
            raise Fault(400, _INVALID)
        self._line.clear()
        self._awaits_line = False

    def _refuse_rest(self, fault: Fault) -> None:
        """Read nothing more; what was whole before is still answered."""
        self._is_deaf = True
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        self.refuse(fault.status, str(fault))

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.is_inside or self._has_ended or (self.cycle is not None and not self.cycle.response_complete):
            raise Fault(400, "one request at a time")
        super().on_message_begin()
        self.is_inside = self._in_head = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the header, or of trailers."""
        if not self._in_head:
            raise Fault(400, "trailers are not accepted")
        self._count(len(name) + len(value) + 4)
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of a request: serve it, if there is no doubt what it means."""
        self._in_head, self._idle_bytes = False, 0
        scope, version = self.scope, self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Fault(505, "HTTP/1.1 is spoken here")
        _check(self.headers, version)
        target, _, query = self.url.partition(b"?")
        method = self.parser.get_method().decode("ascii")
        if not target.startswith(b"/") and (target, method) != (b"*", "OPTIONS"):
            raise Fault(400, "the target of a request is a path")
        path = target.decode("ascii")
        scope["method"], scope["http_version"] = method, version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = target, query
        if self.scheme == "http":
            scope["extensions"] = {ZERO_COPY: {}}
        is_last = version == "1.0" or self.parser.should_upgrade() or not self.parser.should_keep_alive()
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=not is_last,
            on_response=self.on_response_complete,
        )
        cycle.connection = self
        self._for_shortcut = (
            self.shortcut is not None and not self.expect_100_continue and self.shortcut.is_for(scope)  # type: ignore[arg-type]
        )
        if not self._for_shortcut:
            self._start_asgi_task(cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """A part of the body; what comes after the answer is for nobody."""
        cycle = self.cycle
        assert cycle is not None, "a body follows a head"
        self._idle_bytes = 0
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        cycle = self.cycle
        assert cycle is not None, "an end follows a head"
        self.is_inside, self._idle_bytes = False, 0
        self._has_ended = self._awaits_line = True
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()

    def _take_shortcut(self, cycle: Cycle) -> None:
        self._for_shortcut = False
        answer: Answer | Pending | None = None
        if self.shortcut is not None and not self.flow.write_paused and not cycle.disconnected:
            answer = self.shortcut.answer(self.scope, bytes(cycle.body), Pending(self, cycle))  # type: ignore[arg-type]
        if not isinstance(answer, Pending):
            self.finish(cycle, answer)

    def finish(self, cycle: Cycle, answer: Answer | None) -> None:
        """Send a whole answer; None: let the application answer."""
        if answer is None:
            self._start_asgi_task(cycle, self.app)
            return
        status, lines, body = answer
        head = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head += (lines, b"content-length: ", str(len(body)).encode(), b"\r\n")
        head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join((*head, body)))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise Fault(431, f"the header of a request is longer than {MAX_HEAD_BYTES} bytes")


def _check(headers: list[tuple[bytes, bytes]], version: str) -> None:
    """What llhttp lets through.

    Raises:
        Fault: two programs could read the request differently.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
            raise Fault(501, "no transfer encoding but chunked is understood")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise Fault(400, "a request names one Host")
