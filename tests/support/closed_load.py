"""A load with a fixed number of requests, over few kept connections, as fast as they are answered (closed loop).

Half of the workers send GETs, one of them such that take a while, the others POST. Nothing is repeated, but a GET whose
kept connection was closed while it was idle (``Requester``).
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from outrider.demo.requester import Failed, Requester

WORKERS = 8
POSTING = WORKERS - WORKERS // 2
"""How many of them send POSTs, one at a time."""
SLOW_S = 0.4
TIMEOUT_S = 10.0
END_S = 180.0


class ClosedLoad:
    """Counts what became of the requests.

    Attributes:
        failures: By method and kind; empty when none failed.
        versions: Answers by the version that gave them.
        slow, posts: Answers to slow requests, and to POSTs.
    """

    def __init__(self, url: str, host: str, *, requests: int, fresh_posts: bool = False) -> None:
        """Nothing is sent yet.

        Args:
            requests: How many at least; it goes on beyond that until ``finish``.
            fresh_posts: Each POST on a connection of its own.
        """
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers = {"Host": host}
        self._wanted, self._fresh_posts = requests, fresh_posts
        self.failures: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.sent = self.slow = self.posts = 0
        self._stop = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="closed-load", daemon=True)

    def start(self) -> "ClosedLoad":
        self._thread.start()
        return self

    def finish(self) -> None:
        """Return when all requests were sent and answered."""
        self._stop = True
        self._thread.join(END_S)
        assert not self._thread.is_alive(), f"{self.sent} requests only"

    async def _all(self) -> None:
        await asyncio.gather(*(self._work(number) for number in range(WORKERS)))

    async def _work(self, number: int) -> None:
        requester = Requester(self._host, self._port, timeout_s=TIMEOUT_S)
        slow, post = number == 0, number >= WORKERS // 2
        while not (self._stop and self.sent >= self._wanted):
            self.sent += 1
            if post and self._fresh_posts:
                requester.close()
            try:
                reply = await requester.request(
                    "POST" if post else "GET",
                    f"/slow/{SLOW_S}" if slow else "/",
                    self._headers,
                    b"knock knock\n" if post else b"",
                )
                if reply.status != 200:
                    raise Failed(f"status {reply.status}", "")
            except Failed as failed:
                self.failures[f"{'POST' if post else 'slow GET' if slow else 'GET'}: {failed.kind}"] += 1
                await asyncio.sleep(0.01)
                continue
            self.versions[reply.headers.get("x-version", "?")] += 1
            self.slow += slow
            self.posts += post
        requester.close()


@contextmanager
def closed_load(url: str, host: str, *, requests: int, fresh_posts: bool = False) -> Iterator[ClosedLoad]:
    """A load during the block, and after it until ``requests`` were sent."""
    load = ClosedLoad(url, host, requests=requests, fresh_posts=fresh_posts).start()
    try:
        yield load
    finally:
        load.finish()
