"""HTTP/1.1 requests over kept connections, which tell exactly how a request failed.

``requests`` and its kin repair and repeat in silence; a load that has to count every lost request can't use them.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_IDLE = 16
MAX_HEAD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Failed(Exception):
    """A request got no complete response.

    Attributes:
        kind: ``connect``, ``timeout``, ``broken`` (the connection ended before the response's head), ``short`` (its
            body ended early) or ``garbage`` (that was no HTTP).
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.reused = False

    def is_open(self) -> bool:
        return not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()


class Requester:
    """Sends requests to one server and keeps its connections.

    Attributes:
        opened: Connections that were opened.
        closed_idle: GETs sent anew because a kept connection had been closed before any byte of the answer. That is
            HTTP's own rule (RFC 9112, 9.3.1) for a server that closes while it is idle; nothing else is repeated.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float) -> None:
        """``timeout_s`` is the limit for one request, connecting included."""
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._idle: deque[_Connection] = deque()
        self.opened = 0
        self.closed_idle = 0

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Reply:
        """Send one request and read its whole response.

        Raises:
            Failed: there was no complete response in time.
        """
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(message, repeatable=method == "GET")
        except TimeoutError:
            raise Failed("timeout", f"no answer within {self._timeout_s:g} s") from None

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.popleft().writer.close()

    async def _exchange(self, message: bytes, *, repeatable: bool) -> Reply:
        connection = self._kept() or await self._open()
        try:
            return await self._one(connection, message)
        except Failed as failed:
            if not (repeatable and connection.reused and failed.kind == "broken"):
                raise
        self.closed_idle += 1
        return await self._one(await self._open(), message)

    async def _one(self, connection: _Connection, message: bytes) -> Reply:
        kept = False
        try:
            connection.writer.write(message)
            reply, kept = await _read_reply(connection.reader)
        except (OSError, EOFError) as error:
            raise Failed("broken", f"{type(error).__name__}: {error}") from error
        finally:
            # also when cancelled by the time limit: a late answer must not be read as the next one's
            if kept and len(self._idle) < MAX_IDLE:
                connection.reused = True
                self._idle.append(connection)
            else:
                connection.writer.close()
        return reply

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open():
                return connection
            connection.writer.close()
        return None

    async def _open(self) -> _Connection:
        try:
            connection = _Connection(*await asyncio.open_connection(self._host, self._port, limit=MAX_HEAD_BYTES))
        except OSError as error:
            raise Failed("connect", str(error)) from error
        self.opened += 1
        return connection


async def _read_reply(reader: asyncio.StreamReader) -> tuple[Reply, bool]:
    """The response, and whether the connection may be used again."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise Failed("garbage", f"more than {MAX_HEAD_BYTES} bytes of headers") from error
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Failed("short", f"the answer ended in its head, after {len(error.partial)} bytes") from error
        raise
    first, *rest = head.split("\r\n")[:-2]
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        raise Failed("garbage", f"not HTTP: {first[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await _read_chunks(reader)
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif status[:3] in ("204", "304"):
            body = b""
        else:
            body, keep = await reader.read(), False
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Failed("short", f"the body ended early: {error}") from error
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise Failed("garbage", f"the body's length: {error}") from error
    return Reply(status=int(status[:3]), headers=headers, body=body), keep


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return body
