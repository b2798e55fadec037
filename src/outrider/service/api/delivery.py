"""A payload file as an answer: the kernel sends it where the connection lets it (``sending.py``), and parts of it too.

What is common is done here: the whole file, or one range of it. Everything else, such as several ranges at once, one
beyond the end, or a connection with TLS, is done by Starlette, a small piece at a time.
"""

import os
import re
from email.utils import formatdate
from functools import partial

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from outrider.service.sending import ZERO_COPY

_ONE_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class PayloadResponse(FileResponse):
    """A file that never changes, with an ``ETag``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope["method"] != "GET" or ZERO_COPY not in scope.get("extensions", {}):
            await super().__call__(scope, receive, send)
            return
        file = await anyio.to_thread.run_sync(partial(os.open, self.path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            facts = os.fstat(file)
            first, end = _part(Headers(scope=scope), self.headers["etag"], facts.st_size)
            if end > first:
                await self._send(send, file, first, end, facts)
                return
        finally:
            os.close(file)
        await super().__call__(scope, receive, send)

    async def _send(self, send: Send, file: int, first: int, end: int, facts: os.stat_result) -> None:
        is_whole = (first, end) == (0, facts.st_size)
        self.headers["content-length"] = str(end - first)
        self.headers["last-modified"] = formatdate(facts.st_mtime, usegmt=True)
        if not is_whole:
            self.headers["content-range"] = f"bytes {first}-{end - 1}/{facts.st_size}"
        status = 200 if is_whole else 206
        await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})
        await send({"type": ZERO_COPY, "file": file, "offset": first, "count": end - first, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _part(headers: Headers, etag: str, size_bytes: int) -> tuple[int, int]:
    """The bytes to send, from the first until before the last number; nothing: it isn't that simple."""
    wanted = headers.getlist("range")
    if not wanted or headers.get("if-range", etag) != etag:
        return (0, size_bytes) if len(wanted) < 2 and headers.get("if-range", etag) == etag else (0, 0)
    one = _ONE_RANGE.fullmatch(wanted[0]) if len(wanted) == 1 else None
    if one is None:
        return 0, 0
    first, last = int(one[1]), int(one[2]) if one[2] else size_bytes - 1
    return (first, min(last + 1, size_bytes)) if first <= last else (0, 0)
