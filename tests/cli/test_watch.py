"""``outrider watch`` as a process, with a real program, against the real ``outrider serve`` over the real etcd."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.programs import free_ports
from outrider.model.documents import Instance
from tests.service.test_serve import serving
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, block, make_app, payload_of
from tests.support.waiting import eventually
from tests.support.watched import Program


class WatchProcess:
    """``outrider watch`` running; its environment names no servers but those given."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OUTRIDER_", "UPDATE"))}
        self._log = (folder / f"watch-{os.urandom(4).hex()}.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outrider", "watch", *words],
            env=inherited | environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def printed(self) -> str:
        return Path(self._log.name).read_text()

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "program")


@pytest.fixture
def started() -> Iterator[list[WatchProcess]]:
    running: list[WatchProcess] = []
    yield running
    for one in running:
        one.close()


def row_of(service: Service, instance: str) -> Instance | None:
    context = service.store.context
    return context.get(Instance, context.keys.instance(APP, instance))


def test_an_update_reaches_the_program_and_its_end_the_service(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="1.0.0")
    with serving(tmp_path, "--etcd", service.etcd, "--prefix", service.prefix) as serve:
        watch = WatchProcess(
            tmp_path,
            f"--server={serve.url}",
            f"--app-id={APP}",
            "--group-id=beta",
            "--client-id=web-1",
            "--interval=0.1",
            str(program.path),
            "--not-ours",
        )
        started.append(watch)
        eventually(
            lambda: (row := row_of(service, "web-1")) and row.version == "1.0.0" and row.status == "complete", 20
        )
        service.store.channels.save(APP, "beta", version="2.0.0")
        eventually(lambda: (row := row_of(service, "web-1")) and row.version == "2.0.0")
        code = watch.end()

    assert 0 == code
    assert [["--not-ours"]] * 2 == [run["arguments"] for run in program.runs]
    first, second = program.environments
    package = payload_of("2.0.0")
    assert "1.0.0" == first["VERSION"]
    assert {
        "VERSION": "2.0.0",
        "OLD_VERSION": "1.0.0",
        "APP_ID": APP,
        "URL": package.url,
        "SHA256": package.sha256,
        "SIZE": "1000",
        "PACKAGE": "web-2.0.0.tar",
    } == second
    assert "program: 2.0.0" in watch.printed
    row = row_of(service, "web-1")
    assert row is not None
    seen = [(line.event, line.version) for line in row.history]
    assert [("13:1", "1.0.0"), ("14:1", "1.0.0"), ("3:1", "1.0.0"), ("3:2", "2.0.0")] == seen[-4:]


def test_with_etcd_the_update_comes_at_once_though_nothing_is_polled(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="1.0.0")
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--client-id=web-1", "--version=1.0.0")
    watch = WatchProcess(
        tmp_path,
        *words,
        "--interval=3600",
        str(program.path),
        OUTRIDER_ETCD=service.etcd,
        OUTRIDER_PREFIX=service.prefix,
    )
    started.append(watch)
    eventually(lambda: "up to date" in watch.printed)

    service.store.channels.save(APP, "beta", version="2.0.0")

    eventually(lambda: (row := row_of(service, "web-1")) and row.version == "2.0.0")
    assert ["2.0.0"] == [each["VERSION"] for each in program.environments]
    assert 0 == watch.end()


def test_a_held_instance_is_woken_when_the_hold_ends(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="2.0.0")
    service.store.groups.update(APP, "beta", paused=True)
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--client-id=web-1", "--version=1.0.0")
    watch = WatchProcess(
        tmp_path, *words, "--etcd", service.etcd, "--prefix", service.prefix, "--interval=3600", str(program.path)
    )
    started.append(watch)
    eventually(lambda: "no update: group is paused" in watch.printed)
    held = list(program.runs)

    service.store.groups.update(APP, "beta", paused=False)

    eventually(lambda: program.runs)
    assert [] == held
    assert ["2.0.0"] == [each["VERSION"] for each in program.environments]


def test_a_mark_that_is_lifted_wakes_it_too(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="2.0.0")
    block(service.store, "2.0.0", "health check failed", NOON)
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--client-id=web-1", "--version=1.0.0")
    watch = WatchProcess(
        tmp_path, *words, "--etcd", service.etcd, "--prefix", service.prefix, "--interval=3600", str(program.path)
    )
    started.append(watch)
    eventually(lambda: "2.0.0 is blocked" in watch.printed)

    service.store.fleet.unblock(APP, "2.0.0")

    eventually(lambda: program.runs)
    assert ["2.0.0"] == [each["VERSION"] for each in program.environments]


def test_without_the_etcd_that_was_named_the_interval_goes_on(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="2.0.0")
    (port,) = free_ports(1)
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--version=1.0.0", "--interval=0.2")
    watch = WatchProcess(tmp_path, *words, f"--etcd=127.0.0.1:{port}", str(program.path))
    started.append(watch)

    eventually(lambda: "1.0.0 -> 2.0.0: done" in watch.printed)

    assert 0 == watch.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_then_the_watch(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess], number: signal.Signals
) -> None:
    make_app(service.store, version="2.0.0")
    program.hang()
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--version=1.0.0")
    watch = WatchProcess(tmp_path, *words, "--interval=0.1", str(program.path))
    started.append(watch)
    eventually(lambda: "program: 2.0.0" in watch.printed)

    watch.process.send_signal(number)

    assert 0 == watch.process.wait(60)
    assert "SIGTERM" == program.ended_by
    assert "stopped during the update to 2.0.0" in watch.printed


def test_a_failing_program_is_an_error_at_the_service(
    service: Service, tmp_path: Path, program: Program, started: list[WatchProcess]
) -> None:
    make_app(service.store, version="2.0.0")
    program.leave_with(3)
    words = (f"--server={service.url}", f"--app-id={APP}", "--group-id=beta", "--client-id=web-1", "--version=1.0.0")
    watch = WatchProcess(tmp_path, *words, "--interval=0.1", str(program.path))
    started.append(watch)

    row = eventually(lambda: (row := row_of(service, "web-1")) and row.status == "error" and row)

    assert isinstance(row, Instance)
    assert (5, "1.0.0") == (row.error_code, row.version)
    assert "left with 3; again in 10 s" in watch.printed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--app-id=x", "--group-id=y", "/no/such/program"], 1, "Error: program '/no/such/program' doesn't exist"),
        (["--app-id=x", "--group-id=y", "--version=1.0", "true"], 1, "Error: version '1.0': not semver"),
        (["--app-id=x", "--group-id=y"], 2, "Missing argument"),
        (["--app-id=x", "true"], 2, "Missing option '--group-id'"),
        (["--app-id=x", "--group-id=y", "--etcd=nonsense", "true"], 1, "'nonsense': no port; write HOST:PORT"),
    ],
)
def test_what_cannot_be_watched_is_one_clear_line(
    tmp_path: Path, started: list[WatchProcess], words: list[str], code: int, said: str
) -> None:
    (port,) = free_ports(1)
    watch = WatchProcess(tmp_path, f"--server=http://127.0.0.1:{port}", *words)
    started.append(watch)

    assert code == watch.process.wait(60)
    assert said in watch.printed


def test_an_app_that_nobody_knows_is_one_clear_line(
    service: Service, tmp_path: Path, started: list[WatchProcess]
) -> None:
    watch = WatchProcess(tmp_path, f"--server={service.url}", "--app-id=absent", "--group-id=y", "true")
    started.append(watch)

    assert 1 == watch.process.wait(60)
    assert watch.printed.startswith("Error: ")
    assert "error-unknownApplication" in watch.printed
