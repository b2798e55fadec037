"""The watcher against what a real Nebraska has sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from outrider.core.omaha import parse_request
from tests.support.captures import read_http
from tests.support.waiting import eventually
from tests.support.watched import APP, Program, Watching


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "program")


@contextmanager
def replaying(*names: str) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers update checks with captured answers, the last one again and again; reports with it too."""
    bodies = [read_http(name) for name in names]
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(body)
            (app,) = parse_request(body).apps
            message = bodies[0] if len(bodies) == 1 or not app.update_check else bodies.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", message.headers["content-type"])
            self.send_header("Content-Length", str(len(message.body)))
            self.end_headers()
            self.wfile.write(message.body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_nebraska_really_sends_runs_the_program_with_what_it_names(program: Program) -> None:
    """Nebraska names no SHA-256 for what isn't Flatcar: the variable is absent rather than empty."""
    answers = ("nebraska-responses/01-ok.response.bin", "nebraska-responses/09-noupdate.response.bin")
    with replaying(*answers) as (url, asked), Watching(url, program, app="da7508e2-9b33-490a-bead-60919b1acd76"):
        eventually(lambda: sum(b"<updatecheck" in body for body in asked) >= 3)

    assert [
        {
            "VERSION": "1.2.3",
            "APP_ID": "da7508e2-9b33-490a-bead-60919b1acd76",
            "URL": "http://127.0.0.1:9/pkgs/web-1.2.3.tar",
            "SIZE": "8",
            "PACKAGE": "web-1.2.3.tar",
        }
    ] == program.environments


def test_nebraskas_flatcar_answer_gives_the_sha256_of_its_action(program: Program) -> None:
    app = "{e96281a6-d1af-4bde-9a0a-97b76e56dc57}"
    with replaying("nebraska-responses/60-flatcar-ok.response.bin") as (url, _), Watching(url, program, app=app):
        eventually(lambda: program.runs)

    (found,) = program.environments
    assert "9999.0.0" == found["VERSION"]
    assert "d15025416dd113df521ad481e51e26d3c6a7b401cef170e804c283cb1413fcc8" == found["SHA256"]
    assert APP == found["APP_ID"]


def test_nebraskas_no_update_runs_nothing(program: Program) -> None:
    app = "da7508e2-9b33-490a-bead-60919b1acd76"
    with replaying("nebraska-responses/09-noupdate.response.bin") as (url, asked), Watching(url, program, app=app):
        eventually(lambda: len(asked) >= 3)

    assert [] == program.runs
