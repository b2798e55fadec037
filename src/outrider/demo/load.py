"""A steady load that counts every request: a fixed rate per second (open loop), without retries.

``LoadGenerator`` runs it in a process of its own, ``python -m outrider.demo.load``, so that neither the demo's work nor
its table delays a request. Most requests are GETs; every fifth is a POST with a body: Traefik's HTTP client repeats a
GET whose connection to the app broke, and would hide that loss.
"""

import argparse
import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from outrider.core.errors import DriverError
from outrider.demo.requester import Failed, Reply, Requester

TIMEOUT_S = 10.0
POST_EVERY = 5
REPORT_S = 0.25
KEPT_FAILURES = 20
START_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one version answered; times are Unix time in seconds, taken when an answer was complete."""

    requests: int
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed request, for people. ``started_at`` is Unix time."""

    started_at: float
    took_s: float
    method: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """What the load has counted so far.

    Attributes:
        duration_s: Time since the first request was due.
        requests: Answered and failed ones; those under way are in ``open``.
        failed: All that got no complete 2xx response.
        failures: The failed ones by kind: those of ``requester.Failed``, or ``status 502``.
        examples: The first failures.
        versions: The answered ones by the ``X-Version`` they came with; ``?`` without one.
        closed_idle: GETs sent anew because the balancer had closed the kept connection; see ``Requester``.
        opened: Connections opened.
        median_ms, p99_ms, slowest_ms: Time of answered requests.
        latest_ms: The longest that a request was sent after it was due: how honest the rate is.
    """

    duration_s: float = 0.0
    requests: int = 0
    open: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    examples: tuple[Failure, ...] = ()
    versions: dict[str, Served] = field(default_factory=dict)
    closed_idle: int = 0
    opened: int = 0
    median_ms: int = 0
    p99_ms: int = 0
    slowest_ms: int = 0
    latest_ms: int = 0


class LoadGenerator:
    """The load in a process of its own. The process ends with ``stop``, and by itself when ours ends."""

    def __init__(
        self,
        url: str,
        host_header: str,
        rate_per_s: float,
        *,
        timeout_s: float = TIMEOUT_S,
        kept_failures: int = KEPT_FAILURES,
        fresh_posts: bool = False,
        posts: bool = True,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: ``http://HOST:PORT/PATH``.
            host_header: What the balancer routes by.
            fresh_posts: Each POST goes over a connection of its own: for a balancer that closes kept ones at a reload.
            posts: Whether there are any.
            kept_failures: How many of the first failures ``LoadFigures.examples`` holds.
        """
        self._command = [
            *(sys.executable, "-m", "outrider.demo.load", url, "--host", host_header),
            *("--rate", str(rate_per_s), "--timeout", str(timeout_s), "--json"),
            *("--kept-failures", str(kept_failures)),
            *(("--fresh-posts",) if fresh_posts else ()),
            *(() if posts else ("--no-posts",)),
        ]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._figures: LoadFigures | None = None
        self._running = threading.Event()

    def start(self) -> "LoadGenerator":
        """Return once the first request was sent.

        Raises:
            DriverError: the process didn't start; the text says why.
        """
        # a session of its own: Ctrl-C in the demo's terminal must not end it before it was asked for its figures
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="outrider-load", daemon=True)
        self._reader.start()
        if not self._running.wait(START_S):
            self._process.kill()
            self._process.wait()
            raise DriverError(f"the load generator did not start within {START_S:g} s: {self._complaint()}")
        if self._figures is None:
            self._process.wait(START_S)
            raise DriverError(f"the load generator did not start: {self._complaint()}")
        return self

    def snapshot(self) -> LoadFigures:
        """The figures of at most a quarter of a second ago."""
        assert self._figures is not None, "the load isn't started"
        return self._figures

    def stop(self) -> LoadFigures:
        """Send no more requests, wait for those under way (each has its time limit), and return the last figures.

        Raises:
            DriverError: the process ended before it was asked to, so its figures are not whole.
        """
        assert self._process is not None, "the load isn't started"
        assert self._reader is not None
        assert self._process.stdin is not None
        early = self._process.poll() is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(self._timeout_s + 10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(5.0)
        status = self._process.wait()
        if early or status:
            raise DriverError(
                f"the load generator ended with status {status}, so its figures are incomplete: {self._complaint()}"
            )
        return self.snapshot()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        decoder = msgspec.json.Decoder(LoadFigures)
        for line in self._process.stdout:
            self._figures = decoder.decode(line)
            self._running.set()
        self._running.set()  # also when it ended without a word: nobody waits for it any longer

    def _complaint(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        lines = self._process.stderr.read().strip().splitlines()
        return lines[-1] if lines else "no output"


class _Run:
    """One run of the load, inside its process."""

    def __init__(
        self,
        url: str,
        host_header: str,
        rate_per_s: float,
        timeout_s: float,
        kept_failures: int,
        *,
        fresh_posts: bool,
        posts: bool,
    ) -> None:
        parts = urlsplit(url)
        self._posts = posts
        self._fresh_posts, self._server = fresh_posts, (parts.hostname or "", parts.port or 80, timeout_s)
        self._path = parts.path or "/"
        self._headers = {"Host": host_header, "User-Agent": "outrider-demo-load"}
        self._requester = Requester(parts.hostname or "", parts.port or 80, timeout_s=timeout_s)
        self._rate_per_s, self._kept_failures = rate_per_s, kept_failures
        self._began = time.monotonic()
        self._open: set[asyncio.Task[None]] = set()
        self._took_ms: Counter[int] = Counter()
        self._latest_s = 0.0
        self._failures: Counter[str] = Counter()
        self._examples: list[Failure] = []
        self._versions: dict[str, Served] = {}

    async def run(self, stopped: asyncio.Event) -> None:
        """Send until ``stopped``, then wait for what is under way."""
        self._began = time.monotonic()
        number = 0
        while not stopped.is_set():
            due = self._began + number / self._rate_per_s
            ahead = due - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
                continue
            self._latest_s = max(self._latest_s, -ahead)
            task = asyncio.create_task(self._request("POST" if self._posts and number % POST_EVERY == 0 else "GET"))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0)  # when late, what is due goes out at once, but answers are read meanwhile
        while self._open:
            await asyncio.wait(self._open)
        self._requester.close()

    def figures(self) -> LoadFigures:
        """The figures now."""
        answered = self._took_ms.total()
        failed = self._failures.total()
        return LoadFigures(
            duration_s=round(time.monotonic() - self._began, 3),
            requests=answered + failed,
            open=len(self._open),
            failed=failed,
            failures=dict(self._failures),
            examples=tuple(self._examples),
            versions=self._versions,
            closed_idle=self._requester.closed_idle,
            opened=self._requester.opened,
            median_ms=_percentile(self._took_ms, 0.5),
            p99_ms=_percentile(self._took_ms, 0.99),
            slowest_ms=max(self._took_ms, default=0),
            latest_ms=round(self._latest_s * 1000),
        )

    async def _send(self, method: str, body: bytes) -> Reply:
        if method != "POST" or not self._fresh_posts:
            return await self._requester.request(method, self._path, self._headers, body)
        host, port, timeout_s = self._server
        requester = Requester(host, port, timeout_s=timeout_s)
        try:
            return await requester.request(method, self._path, self._headers, body)
        finally:
            requester.close()

    async def _request(self, method: str) -> None:
        started, started_at = time.monotonic(), time.time()
        try:
            body = b"knock knock\n" if method == "POST" else b""
            reply = await self._send(method, body)
            if not 200 <= reply.status < 300:
                raise Failed(f"status {reply.status}", reply.body[:200].decode(errors="replace").strip())
        except Failed as failed:
            self._failures[failed.kind] += 1
            if len(self._examples) < self._kept_failures:
                took_s = round(time.monotonic() - started, 3)
                self._examples.append(
                    Failure(started_at=started_at, took_s=took_s, method=method, kind=failed.kind, text=str(failed))
                )
            return
        self._took_ms[round((time.monotonic() - started) * 1000)] += 1
        version, now = reply.headers.get("x-version", "?"), time.time()
        known = self._versions.get(version)
        self._versions[version] = Served(
            requests=known.requests + 1 if known else 1, first_at=known.first_at if known else now, last_at=now
        )


def _percentile(counted: Counter[int], share: float) -> int:
    """The value that ``share`` of all don't exceed; 0 for none."""
    wanted = share * counted.total()
    so_far = 0
    for value in sorted(counted):
        so_far += counted[value]
        if so_far >= wanted:
            return value
    return 0


async def _main(options: argparse.Namespace) -> LoadFigures:
    host = options.host or urlsplit(options.url).netloc
    run = _Run(
        options.url,
        host,
        options.rate,
        options.timeout,
        options.kept_failures,
        fresh_posts=options.fresh_posts,
        posts=not options.no_posts,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    if options.seconds is not None:
        loop.call_later(options.seconds, stopped.set)
    else:
        threading.Thread(target=_until_closed, args=(loop, stopped), daemon=True).start()
    sending = asyncio.create_task(run.run(stopped))
    while not sending.done():
        await asyncio.wait({sending}, timeout=REPORT_S)
        if options.json and not sending.done():
            _print(run.figures())
    await sending
    return run.figures()


def _until_closed(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Whoever started us closes our input, or ends and so closes it too."""
    while sys.stdin.read(4096):
        pass
    loop.call_soon_threadsafe(stopped.set)


def _print(figures: LoadFigures) -> None:
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the load by itself: for ``LoadGenerator``, and by hand."""
    parser = argparse.ArgumentParser(prog="python -m outrider.demo.load", description="A steady, counted HTTP load.")
    parser.add_argument("url", help="http://HOST:PORT/PATH")
    parser.add_argument("--host", help="Host header (default: as in the URL)")
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second (default: 120)")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, help="limit of one request in seconds (default: 10)"
    )
    parser.add_argument("--seconds", type=float, help="how long (default: until the input is closed, Ctrl-D)")
    parser.add_argument("--kept-failures", type=int, default=KEPT_FAILURES, help="how many to keep (default: 20)")
    parser.add_argument("--no-posts", action="store_true", help="GETs only")
    parser.add_argument("--fresh-posts", action="store_true", help="each POST over a connection of its own")
    parser.add_argument("--json", action="store_true", help="print figures as a line of JSON, four times a second")
    options = parser.parse_args(arguments)
    if urlsplit(options.url).scheme != "http" or options.rate <= 0 or options.timeout <= 0:
        parser.error("write an http:// address, and a rate and a timeout above 0")
    figures = asyncio.run(_main(options))
    if options.json:
        _print(figures)
        return
    served = ", ".join(f"{version}: {of.requests}" for version, of in sorted(figures.versions.items()))
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(figures.failures.items())) or "none"
    sys.stdout.write(
        f"{figures.requests} requests in {figures.duration_s:.1f} s, failed: {figures.failed} ({kinds}), versions:"
        f" {served or 'none'}, median {figures.median_ms} ms, 99 % {figures.p99_ms} ms, slowest {figures.slowest_ms}"
        " ms\n"
    )


if __name__ == "__main__":
    main()
