"""One answer on its way to its client: as uvicorn sends it, and files without a copy in this process.

A file goes from the page cache into the socket (``sendfile``), a piece at a time, on a few threads that all downloads
share: a piece ends where the client's window does, so no download keeps a thread, and a slow disk stops no other
answer. The event loop waits until a client takes more. The message is that of ASGI's zero copy send; a connection with
TLS doesn't offer it, because there every byte is encrypted here.
"""

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

ZERO_COPY = "http.response.zerocopysend"
"""ASGI extension: ``file`` (a descriptor), ``offset``, ``count``, ``more_body``."""
PIECE_BYTES = 1024 * 1024
SENDERS = 2
"""Threads for the pieces of all downloads: a piece takes no longer than the kernel needs to copy it."""
_FLUSH_S = 0.001

_pool = ThreadPoolExecutor(max_workers=SENDERS, thread_name_prefix="download")


class Stallable(Protocol):
    """Whose client may stop reading: the connection."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    connection: Stallable | None = None

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """ASGI's ``send``."""
        if message["type"] != ZERO_COPY:
            await super().send(message)  # type: ignore[arg-type]
            return
        if self.disconnected:
            return
        if not self.response_started or self.response_complete:
            raise RuntimeError("a file is sent after the head of an answer, and before its end")
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        else:
            await self._send_file(message["file"], message.get("offset", 0), message["count"])
        if not message.get("more_body", False) and not self.disconnected:
            await super().send({"type": "http.response.body", "body": b""})

    async def _send_file(self, file: int, offset: int, count: int) -> None:
        if count > self.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        wait_s = 0.0
        while self.transport.get_write_buffer_size() and not self.transport.is_closing():
            # the head: it has gone with the next turn of the loop, unless the client reads nothing at all
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2 or _FLUSH_S, 0.1)
        if self.transport.is_closing():
            return
        connected: Any = self.transport.get_extra_info("socket")
        pipe = _Pipe(connected.fileno(), file)
        try:
            end = offset + count
            while offset < end:
                sent = await pipe.send(offset, min(PIECE_BYTES, end - offset))
                offset += sent
                self.expected_content_length -= sent
                if not sent:
                    await self._ready(pipe.out)
        except OSError:
            self.disconnected = True  # the connection hears of it by itself
            self.transport.abort()
        finally:
            pipe.close()

    async def _ready(self, out: int) -> None:
        """Wait until the client takes more."""
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not writable.done():
                writable.set_result(None)

        loop.add_writer(out, wake)
        if self.connection is not None:
            self.connection.pause_writing()
        try:
            await writable
        finally:
            loop.remove_writer(out)
            if self.connection is not None:
                self.connection.resume_writing()


class _Pipe:
    """Descriptors of our own for a file and a connection; no thread ever uses one that was closed meanwhile."""

    def __init__(self, out: int, file: int) -> None:
        self.out, self._file = os.dup(out), os.dup(file)
        self._job: Future[int] | None = None

    async def send(self, offset: int, count: int) -> int:
        """Send so much at most; 0: the client takes nothing now.

        Raises:
            OSError: the client has gone, or the file is shorter or can't be read.
        """
        self._job = _pool.submit(_send, self.out, self._file, offset, count)
        return await asyncio.wrap_future(self._job)

    def close(self) -> None:
        if self._job is None or self._job.cancel() or self._job.done():
            self._close()
        else:
            self._job.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        os.close(self.out)
        os.close(self._file)


def _send(out: int, file: int, offset: int, count: int) -> int:
    sent = 0
    while sent < count:
        try:
            piece = os.sendfile(out, file, offset + sent, count - sent)
        except BlockingIOError:
            break
        if not piece:
            raise OSError(f"the file ends at {offset + sent}")
        sent += piece
    return sent
