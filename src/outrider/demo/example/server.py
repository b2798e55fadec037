"""The demo's app: a small HTTP server that says which version it is. Standard library only: ``python server.py``.

``/`` greets, ``/slow/SECONDS`` greets later, ``/inflight`` is the number of greetings under way, ``/counts`` says how
many greetings there were, and how many failed: with a file ``FAILING_SHARE`` so many do. ``/health`` is 200 as
often as the file ``HEALTHY_ANSWERS`` says and 503 from then on; without that file it is 200 forever. PORT and HOST
come from the environment, the version from the file ``VERSION``. On SIGTERM it stops listening, finishes what is under
way and exits 0.
"""

import itertools
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
VERSION = (HERE / "VERSION").read_text(encoding="utf-8").strip()
LIMIT = HERE / "HEALTHY_ANSWERS"
FAILING = HERE / "FAILING_SHARE"
FAILING_SHARE = float(FAILING.read_text()) if FAILING.exists() else 0.0
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ["PORT"])


class UnderWay:
    """Counts the greetings that have begun and not ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0
        self.requests = self.errors = 0
        self.stopping = False

    def __enter__(self) -> None:
        with self._changed:
            self.count += 1

    def __exit__(self, *ended_by: object) -> None:
        with self._changed:
            self.count -= 1
            self._changed.notify_all()

    def fails(self) -> bool:
        """Count a greeting, and say whether it is one of those that fail: spread evenly."""
        with self._changed:
            self.requests += 1
            fails = int(self.requests * FAILING_SHARE) > self.errors
            self.errors += fails
            return fails

    def wait_for_none(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.count == 0)


UNDER_WAY = UnderWay()
HEALTHY_ANSWERS = iter(range(int(LIMIT.read_text()))) if LIMIT.exists() else itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Traefik keeps idle connections to us for 90 s. If we closed one first, a request on its way would become a 502.
    timeout = 120
    # head and body in one packet; in two, Nagle and delayed acknowledgements make 40 ms of a loopback request
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/health":
            self.answer(*((200, "ok\n") if next(HEALTHY_ANSWERS, None) is not None else (503, "unhealthy\n")))
        elif self.path == "/inflight":
            self.answer(200, f"{UNDER_WAY.count}\n")
        elif self.path == "/counts":
            self.answer(200, f'{{"requests": {UNDER_WAY.requests}, "errors": {UNDER_WAY.errors}}}\n')
        else:
            with UNDER_WAY:
                self.greet()

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def greet(self) -> None:
        if self.path.startswith("/slow/"):
            try:
                seconds = min(60.0, max(0.0, float(self.path.removeprefix("/slow/"))))
            except ValueError:
                self.answer(400, "write /slow/SECONDS\n")
                return
            time.sleep(seconds)
        if UNDER_WAY.fails():
            self.answer(500, "no greeting\n")
            return
        self.answer(200, f"hello from {VERSION} on {PORT}\n")

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        if UNDER_WAY.stopping:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the balancer's log has every request."""


class ExampleServer(ThreadingHTTPServer):
    daemon_threads = True  # a thread that waits for the next request of an idle connection must not hold us up
    request_queue_size = 128


def main() -> None:
    # Blocked in every thread and awaited here. A handler would run in the main thread, which nothing wakes from its
    # wait when the kernel gave the signal to another thread: now and then SIGTERM went unheard.
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    server = ExampleServer((HOST, PORT), Handler)
    # checks every 50 ms whether it must end: the default of half a second would be the longest part of a quick swap
    threading.Thread(target=server.serve_forever, args=(0.05,), name="accept", daemon=True).start()
    signal.sigwait(stopping)
    UNDER_WAY.stopping = True
    server.shutdown()
    server.server_close()
    UNDER_WAY.wait_for_none()


if __name__ == "__main__":
    main()
