"""Nebraska on loopback: its state machine as the reference describes it, and its own captured answers as templates.

Source: flatcar/nebraska@30a488d, backend/pkg/omaha/omaha.go and pkg/api/{updates,events}.go; what was seen of it.
"""

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from outrider.core import versions
from outrider.core.omaha import AppRequest, OmahaEvent, parse_request
from tests.support.captures import read_http

APP = "da7508e2-9b33-490a-bead-60919b1acd76"
_PROGRESS = {"13:1": "downloading", "14:1": "downloaded", "800:1": "installed"}
_OFFER, _PLAIN_OFFER, _NONE = (
    read_http(f"nebraska-responses/{name}.response.bin").body.decode()
    for name in ("60-flatcar-ok", "01-ok", "09-noupdate")
)


@dataclass
class Package:
    """What the channel points at. ``with_sha256``: it is of type Flatcar, so its action has the digest."""

    version: str
    url: str
    content: bytes
    with_sha256: bool = True


@dataclass
class Row:
    """An instance, with its history as Nebraska's page shows it: status and version."""

    status: str = "undefined"
    version: str = ""
    granted: str = ""
    in_progress: bool = False
    history: list[tuple[str, str]] = field(default_factory=list)

    def become(self, status: str, version: str) -> None:
        if (self.history[-1] if self.history else None) != (status, version):
            self.history.append((status, version))
        self.status = status
        self.in_progress = status not in ("complete", "error", "undefined", "on-hold")


class Nebraska:
    """One app with one group.

    Attributes:
        package: What is offered.
        hold: App status with which checks are answered that would be granted; empty: none.
        rows: By machine id.
        requests: All requests for the app, oldest first.
    """

    def __init__(self, package: Package | None = None) -> None:
        self.package, self.hold = package, ""
        self.rows: dict[str, Row] = {}
        self.requests: list[AppRequest] = []
        self._lock = threading.Lock()
        nebraska = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                (app,) = parse_request(self.rfile.read(int(self.headers["Content-Length"]))).apps
                body = nebraska.answer(app).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                assert nebraska.package is not None
                self.send_response(200)
                self.send_header("Content-Length", str(len(nebraska.package.content)))
                self.end_headers()
                self.wfile.write(nebraska.package.content)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> "Nebraska":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def offer(self, version: str, content: bytes, *, with_sha256: bool = True) -> None:
        """Point the channel at a package, whose payload is served here, too."""
        name = f"web-{version}.tar"
        self.package = Package(version=version, url=f"{self.url}/{name}", content=content, with_sha256=with_sha256)

    @property
    def checks(self) -> list[AppRequest]:
        return [one for one in self.requests if one.update_check]

    def history(self, instance: str) -> list[tuple[str, str]]:
        with self._lock:
            return list(self.rows[instance].history) if instance in self.rows else []

    def answer(self, app: AppRequest) -> str:
        """One app of a request: events first, then the check (omaha.go:107-226)."""
        with self._lock:
            self.requests.append(app)
            row = self.rows.get(app.machine_id)
            for event in app.events:
                if row is not None and row.in_progress:  # an event alone from an unknown instance is dropped
                    self._book(row, event)
            if not app.update_check:
                return _head(app.app_id) + '<event status="ok"></event>' * len(app.events) + _TAIL
            row = self.rows.setdefault(app.machine_id, Row())
            row.version = app.version
            return self._check(app.app_id, row)

    def _book(self, row: Row, event: OmahaEvent) -> None:
        if event.code in _PROGRESS:
            row.become(_PROGRESS[event.code], row.granted)
        elif event.code in ("3:1", "3:2"):
            row.become("complete", row.granted)
        elif event.code == "3:0":
            row.become("error", row.granted)

    def _check(self, app_id: str, row: Row) -> str:
        package = self.package
        if row.status in ("downloading", "downloaded", "installed"):
            return _refusal(app_id, "error-updateInProgressOnInstance")
        if row.status == "update-granted" and not versions.is_newer(row.granted, row.version):
            row.become("complete", row.granted)
            return _NONE.replace(APP, app_id)
        if package is None or not versions.is_newer(package.version, row.version):
            return _NONE.replace(APP, app_id)
        if row.status != "update-granted":
            if self.hold:
                row.become("on-hold", "")
                return _refusal(app_id, self.hold)
            row.granted = package.version
            row.become("update-granted", row.granted)
        return _offer(app_id, package)


_TAIL = "</app></response>"


def _head(app_id: str, status: str = "ok") -> str:
    """As the captured answers begin."""
    head = _NONE.partition("<app ")[0]
    return f'{head}<app appid="{app_id}" status="{status}">'


def _refusal(app_id: str, status: str) -> str:
    """An error where others say noupdate (omaha.go:238-266), in the form of the captured answers."""
    return _head(app_id, status) + '<updatecheck status="error-internal"><urls></urls></updatecheck>' + _TAIL


def _offer(app_id: str, package: Package) -> str:
    folder, _, name = package.url.rpartition("/")
    sha1, sha256 = (
        base64.b64encode(hashlib.new(kind, package.content).digest()).decode() for kind in ("sha1", "sha256")
    )
    size = str(len(package.content))
    text = (_OFFER if package.with_sha256 else _PLAIN_OFFER).replace("\n", "")
    text = _set(text, "app", "appid", app_id)
    text = _set(_set(text, "url", "codebase", folder + "/"), "manifest", "version", package.version)
    for attribute, value in (("name", name), ("hash", sha1), ("size", size)):
        text = _set(text, "package", attribute, value)
    return _set(text, "action", "sha256", sha256) if package.with_sha256 else text


def _set(text: str, element: str, attribute: str, value: str) -> str:
    """The text with another value of an attribute of the first such element."""
    start = text.index(f"<{element} ")
    begin = text.index(f' {attribute}="', start) + len(attribute) + 3
    assert begin < text.index(">", start), f"the captured answer has no {attribute} of {element}"
    return text[:begin] + value + text[text.index('"', begin) :]
