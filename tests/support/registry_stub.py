"""A registry in this process, whose habits a test can change: what Debian's real one doesn't do."""

import base64
import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.servers import TlsFiles

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USER, PASSWORD = "deploy", "open-sesame"

Handle = Callable[[http.server.BaseHTTPRequestHandler], bool]
"""Answers a request before the stub does; False leaves it to the stub."""


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class RegistryStub:
    """A registry on a port of loopback.

    Attributes:
        auth: ``""``, ``basic`` or ``bearer``.
        silent: It takes a request and never answers until this is set.
        before: Asked first for each request.
        seen: Path and Authorization of the requests, in order.
    """

    def __init__(self, tls: TlsFiles | None = None) -> None:
        """With ``tls`` it speaks nothing else."""
        self.auth = ""
        self.before: Handle | None = None
        self.silent: threading.Event | None = None
        self.page: int | None = None
        self.seen: list[tuple[str, str]] = []
        self._manifests: dict[str, tuple[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._tags: dict[str, list[str]] = {}
        stub = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.seen.append((self.path, self.headers.get("Authorization", "")))
                if stub.silent is not None:
                    stub.silent.wait(60)
                    return
                if stub.before is None or not stub.before(self):
                    stub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, address: Any) -> None:
                """A client that doesn't trust the certificate leaves in the middle: nothing to print."""

        self._server = Server(("127.0.0.1", 0), Answer)
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secured.load_cert_chain(tls.cert, tls.key)
            # the handshake is left to the thread of each connection: one that fails must not end the listener
            self._server.socket = secured.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        if self.silent is not None:
            self.silent.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, tag: str, platforms: tuple[str, ...] = ("linux/amd64",), *, index: bool = True) -> str:
        """Add an image for these platforms under a tag; returns its digest."""
        listed = []
        for platform in platforms:
            os, architecture, *variant = platform.split("/")
            facts = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
            config = json.dumps({**facts, "made": tag}).encode()
            self._blobs[digest_of(config)] = config
            content = _json(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"digest": digest_of(config), "size": len(config)},
                    "layers": [{"digest": digest_of(b"1"), "size": 700}, {"digest": digest_of(b"2"), "size": 42}],
                }
            )
            self._manifests[f"{name}/{digest_of(content)}"] = MANIFEST, content
            listed.append({"digest": digest_of(content), "platform": facts})
        kind, document = MANIFEST, content
        if index:
            listed.append({"digest": digest_of(b"x"), "platform": {"os": "unknown", "architecture": "unknown"}})
            kind, document = INDEX, _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        digest = digest_of(document)
        self._manifests[f"{name}/{digest}"] = self._manifests[f"{name}/{tag}"] = kind, document
        self._tags.setdefault(name, []).append(tag)
        return digest

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        if path == "/token":
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            good = request.headers.get("Authorization") == f"Basic {basic}" and "scope=repository%3A" in query
            reply(request, 200 if good else 401, _json({"token": "t0k3n"} if good else {}))
            return
        if self.auth and not self._is_admitted(request.headers.get("Authorization", "")):
            challenge = 'Basic realm="stub"'
            if self.auth == "bearer":
                challenge = (
                    f'Bearer realm="{self._scheme}://{self.host}/token",service="stub",scope="repository:x:pull"'
                )
            reply(request, 401, b"{}", {"WWW-Authenticate": challenge})
            return
        name, _, rest = path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            kind, content = self._manifests.get(f"{name}/{rest}", ("", b""))
            reply(request, 200 if content else 404, content or b"{}", {"Content-Type": kind or "application/json"})
            return
        blob = path.rpartition("/")[2]
        if "/blobs/" in path and blob in self._blobs:
            reply(request, 200, self._blobs[blob])
            return
        name = path.removeprefix("/v2/").removesuffix("/tags/list")
        tags = self._tags.get(name, [])
        after = query.partition("last=")[2]
        begin = tags.index(after) + 1 if after else 0
        page = tags[begin : begin + self.page] if self.page else tags
        more = self.page is not None and begin + self.page < len(tags)
        link = {"Link": f'</v2/{name}/tags/list?n=1&last={page[-1]}>; rel="next"'} if more else {}
        reply(request, 200 if name in self._tags else 404, _json({"name": name, "tags": page}), link)

    def _is_admitted(self, given: str) -> bool:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return given == ("Bearer t0k3n" if self.auth == "bearer" else f"Basic {basic}")


def reply(
    request: http.server.BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> None:
    request.send_response(status)
    for name, text in (headers or {}).items():
        request.send_header(name, text)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def replied(
    request: http.server.BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> bool:
    """As ``reply``, for ``RegistryStub.before``."""
    reply(request, status, content, headers)
    return True


def credentials(host: str, user: str = USER, password: str = PASSWORD) -> bytes:
    """In the form of Docker's config.json."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return _json({"auths": {host: {"auth": auth}}})


def _json(facts: Any) -> bytes:
    return json.dumps(facts).encode()
