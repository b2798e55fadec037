"""What only shows with a real terminal, or with a real Ctrl-C."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outrider.cli.rollout_bar import rollout_bar
from tests.support.service import Service
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually


def environment(service: Service) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTRIDER_", "UPDATECTL_"))}
    return kept | {"OUTRIDER_SERVER": service.url, "TERM": "xterm", "COLUMNS": "100"}


def run_on_terminal(service: Service, *words: str) -> tuple[int, str, str]:
    """Run a command with stderr on a terminal; returns exit code, stdout, and what the terminal saw."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "outrider", *words],
            env=environment(service),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
        )
        os.close(slave)
        seen = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready, _, _ = select.select([master], [], [], 1)
            if not ready:
                continue
            try:
                piece = os.read(master, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
            if not piece:
                break
            seen += piece
        stdout, _ = process.communicate(timeout=60)
        return process.returncode, stdout, seen.decode()
    finally:
        os.close(master)


def test_a_bar_shows_on_a_terminal_while_a_payload_travels(service: Service, tmp_path: Path) -> None:
    service.store.apps.create(app=APP, label="")
    (tmp_path / "web.tar").write_bytes(os.urandom(5_000_000))

    sent = run_on_terminal(
        service, "package", "create", f"--app-id={APP}", "--version=1.0.0", f"--file={tmp_path}/web.tar"
    )
    fetched = run_on_terminal(service, "package", "download", f"--dir={tmp_path}/down")

    for code, stdout, seen in (sent, fetched):
        assert code == 0, seen
        assert re.search(r"━+\S*\s+\S*100%", seen)
        assert "━" not in stdout


def test_no_bar_shows_elsewhere(service: Service, tmp_path: Path) -> None:
    (tmp_path / "web.tar").write_bytes(b"x" * 3_000_000)

    done = subprocess.run(
        [sys.executable, "-m", "outrider", "package", "upload", str(tmp_path / "web.tar")],
        env=environment(service),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "" == done.stderr


def test_ctrl_c_ends_simulated_instances_with_a_summary(service: Service, tmp_path: Path) -> None:
    make_app(service.store, version="1.0.0")
    words = ["instance", "fake", f"--app-id={APP}", "--group-id=beta", "--version=1.0.0", "--clients-per-app=10"]
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "outrider", *words, "--min-sleep=0", "--max-sleep=0.2"],
            env=environment(service),
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: len(service.store.fleet.instances(APP)) == 10)
        process.send_signal(signal.SIGINT)

        assert 0 == process.wait(60)
    finally:
        process.kill()
        process.wait()
    *told, summary = (tmp_path / "printed").read_text().splitlines()
    assert re.fullmatch(r"10 clients: \d+ checks, 0 updates, 0 failures", summary)
    assert all("noupdate: up to date" in line for line in told)


def test_a_rollout_that_is_watched_on_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    with rollout_bar("group web", 3) as show:
        show(2)

    assert "group web" in screen.getvalue()
    assert "2/3" in screen.getvalue()


@pytest.mark.parametrize(("terminal", "instances"), [(False, 3), (True, 0)])
def test_there_is_no_bar_in_a_file_nor_for_nobody(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, instances: int
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)

    with rollout_bar("group web", instances) as show:
        show(2)

    assert "" == screen.getvalue()
