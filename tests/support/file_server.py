"""A file server on loopback for tests of downloads."""

import http.server
import threading


class Files:
    """A file server whose habits a test can change.

    Attributes:
        content: What it serves.
        cut_at: Close the connection after so many bytes of an answer; None sends all.
        ranges: Whether it understands ``Range``.
        pause: Waits for this before the second half of an answer.
        seen: Header fields of the requests, in order.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.etag, self.status = content, '"v1"', 200
        self.cut_at: int | None = None
        self.ranges = self.length = True
        self.pause: threading.Event | None = None
        self.seen: list[dict[str, str]] = []
        files = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                files.seen.append(dict(self.headers))
                files.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/app.tar.gz"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        unchanged = request.headers.get("If-Range", self.etag) == self.etag
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges and unchanged else 0
        if start >= len(self.content) > 0:
            request.send_response(416)
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else self.status)
        request.send_header("ETag", self.etag)
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.end_headers()
        try:
            request.wfile.write(body[: self.cut_at][: len(body) // 2 if self.pause else None])
            if self.pause:
                self.pause.wait(30)
                request.wfile.write(body[len(body) // 2 :])
        except ConnectionError:
            return

    def close(self) -> None:
        if self.pause:
            self.pause.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
