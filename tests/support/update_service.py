"""An update service on loopback that answers as a test tells it, well or badly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from outrider.core.omaha import (
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaRequest,
    OmahaResponse,
    Report,
    UpdateCheck,
    answer_app,
    downloaded,
    parse_request,
    render_response,
)
from outrider.demo.programs import free_ports
from outrider.omaha_client import Upstream

APP = "{E96281A6-d1af-4bde-9a0a-97b76e56dc57}"
OFFER = Offer(
    version="1.2.3",
    codebases=("http://payloads.example/",),
    packages=(OfferedPackage(name="a.tar", size_bytes=8, sha256="ab" * 32),),
)
REPORT = Report(
    update="update-1",
    request_id="update-1/downloaded",
    at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    version="1.0.0",
    event=downloaded(previous_version="1.0.0", next_version="1.2.3"),
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server says next. ``body`` None: the ordinary answer of an update service with ``check``."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/xml"})
    body: bytes | None = None
    check: UpdateCheck = field(default_factory=NoUpdate)
    app_status: str = "ok"


class Service:
    """An update service that answers as it is told and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.requests: list[OmahaRequest] = []
        self.heads: list[tuple[str, str, dict[str, str]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.heads.append(("POST", self.path, {name.lower(): value for name, value in self.headers.items()}))
                service.requests.append(parse_request(body))
                self._say(service.answer)

            def do_GET(self) -> None:
                service.heads.append(("GET", self.path, {}))
                self._say(Answer())

            def _say(self, answer: Answer) -> None:
                body = answer.body
                if body is None:
                    apps = service.requests[-1].apps
                    answers = tuple(answer_app(app, answer.check, status=answer.app_status) for app in apps)
                    body = render_response(OmahaResponse(apps=answers))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def upstream(*urls: str, timeout_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> Upstream:
    return Upstream(
        urls=urls,
        app_id=APP,
        group="canary",
        instance="web-1",
        alias="the first",
        boot_id="boot-1",
        timeout_s=timeout_s,
        clock=clock,
    )


def check(client: Upstream, *, on_demand: bool = False) -> Offer | NoUpdate:
    return client.check(version="1.0.0", previous_version="0.9.0", update="update-1", on_demand=on_demand)


def dead_url() -> str:
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads one request per connection and then does to the connection what ``talk`` does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while b"</request>" not in connection.recv(65536):
                            continue
                        talk(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        assert not thread.is_alive()


def hang_up(connection: socket.socket) -> None:
    """For ``raw_server``: end the connection without a word."""
