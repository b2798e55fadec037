"""An app to run, its payload, and the folder that a process runtime works in."""

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.config.sections import WorkloadSettings
from outrider.runtimes import RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.process import ProcessSettings
from outrider.runtimes.process.identity import marked
from outrider.runtimes.process.runtime import ProcessRuntime
from tests.support.waiting import eventually

APP = """
import http.server, json, os, signal, subprocess, sys

if "STUBBORN" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "WITH_CHILD" in os.environ:
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
print("started", sys.argv[1:], flush=True)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({**os.environ, "ARGS": sys.argv[1:], "CWD": os.getcwd(), "PID": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):  # the original asks the resolver for a name
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address

Server((os.environ["HOST"], int(os.environ["PORT"])), Answer).serve_forever()
"""
SETTINGS = ProcessSettings(command=(sys.executable, "app.py", "--port={port}", "{host}", "v{version}"))
SHARED = WorkloadSettings(stop_grace_s=5)


def payload(folder: Path, files: dict[str, str] | None = None, *, mode: int = 0o644) -> Path:
    path = folder / "some.payload"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (files or {"app.py": APP}).items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), mode
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def release(version: str, payload: Path) -> RunnableRelease:
    return RunnableRelease(version=version, sha256=hashlib.sha256(payload.read_bytes()).hexdigest(), payload=payload)


def spec(folder: Path, workload_id: str = "app-1.0.0-aa", version: str = "1.0.0") -> WorkloadSpec:
    return WorkloadSpec(workload_id=workload_id, release=release(version, payload(folder)))


def make_process_runtime(
    state_dir: Path,
    shared: WorkloadSettings = SHARED,
    *,
    command: tuple[str, ...] = SETTINGS.command,
    instance: str = "web1",
    environment: dict[str, str] | None = None,
) -> ProcessRuntime:
    return ProcessRuntime(
        ProcessSettings(command=command), shared, state_dir=state_dir, instance=instance, environment=environment
    )


def answer(workload: Workload) -> dict[str, object]:
    """What the app says of itself, once it listens."""

    def ask() -> dict[str, object]:
        try:
            with urllib.request.urlopen(workload.url, timeout=60) as response:
                told: dict[str, object] = json.loads(response.read())
                return told
        except OSError as error:
            raise AssertionError(f"no answer: {error}") from error

    return eventually(ask)


def pid_of(workload: Workload) -> int:
    return int(workload.handle.removeprefix("pid "))


def ours(folder: Path) -> tuple[int, ...]:
    return tuple(process.pid for process in marked({"OUTRIDER_INSTANCE_DIR": str(folder.resolve())}))


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """Where a runtime works; at the end nothing that was started from it may be left."""
    folder = tmp_path / "state"
    folder.mkdir()
    yield folder
    eventually(lambda: _none_left(folder))


def _none_left(folder: Path) -> bool:
    """End what is left; what started something right before its end needs a second look."""
    left = ours(folder)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not left


@pytest.fixture
def process_runtime(state_dir: Path) -> Iterator[ProcessRuntime]:
    made = make_process_runtime(state_dir)
    yield made
    made.close()
