"""What keeps a version from running, and whether the release or this machine is at fault."""

import errno
import os
import platform
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from outrider.core.blame import Evidence, judge
from outrider.core.errors import DriverError, Refused
from outrider.runtimes import WorkloadSpec
from outrider.runtimes.process.command import check_program, exec_problem, missing_program
from outrider.runtimes.process.runtime import ProcessRuntime
from tests.support.workloads import SHARED, make_process_runtime, payload, release, state_dir

__all__ = ["state_dir"]

SCRIPT = "#!/bin/sh\nexec sleep 60\n"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00"
"""The head of a 64-bit little-endian program; its machine follows."""


@dataclass(frozen=True)
class Trouble:
    """A payload and a command that can't run; what is said of it, and what it shows."""

    command: str
    files: dict[str, str]
    said: str
    evidence: Evidence
    mode: int = 0o755


OF_THE_RELEASE = (
    Trouble("server", {"server": SCRIPT}, "server can't be started: not executable", "no-exec-bit", 0o644),
    Trouble("server", {"server": "hello"}, "server can't be started: neither a program", "not-a-program"),
    Trouble("server", {"server": "#!/bin/sh\r\n"}, "#! line ends with a carriage return", "not-a-program"),
    Trouble("server", {"server": "#!\nx"}, "#! line names no interpreter", "not-a-program"),
    Trouble("server", {"server": "#!/bin/sh\necho no licence >&2; exit 3\n"}, "exit 3; it said: no licence", "ended"),
)
OF_THE_MACHINE = (
    Trouble(
        "./sever", {"server": SCRIPT}, r"no program '\./sever' in the payload: did you mean 'server'\?", "wrong-setting"
    ),
    Trouble("no-such-program", {"app.py": ""}, "in the payload or on PATH: the payload has app.py", "wrong-setting"),
    Trouble("bin/run", {"bin/ran": SCRIPT}, "did you mean 'bin/ran'", "wrong-setting"),
    Trouble("server", {"server": "#!/no/such/sh\n"}, "/no/such/sh, which it needs, is not on", "no-interpreter"),
    Trouble("server", {"server": "#!/usr/bin/env no-such-9\n"}, "no-such-9, which it needs", "no-interpreter"),
    Trouble(
        "server", {"server": "#!/bin/sh\nexec no-such-9 app.py\n"}, "no-such-9 is not on this machine", "no-interpreter"
    ),
)


@pytest.fixture
def runtime_of(state_dir: Path) -> Iterator[Callable[..., ProcessRuntime]]:
    made: list[ProcessRuntime] = []

    def make(command: str, **shared: Any) -> ProcessRuntime:
        made.append(make_process_runtime(state_dir, shared.pop("shared", SHARED), command=(command,), **shared))
        return made[-1]

    yield make
    for one in made:
        one.close()


def of(folder: Path, trouble: Trouble, workload_id: str = "bad", version: str = "2.0.0") -> WorkloadSpec:
    return WorkloadSpec(
        workload_id=workload_id, release=release(version, payload(folder, trouble.files, mode=trouble.mode))
    )


@pytest.mark.parametrize("trouble", [*OF_THE_RELEASE, *OF_THE_MACHINE], ids=lambda one: one.said[:24])
def test_what_keeps_it_from_running_is_told_with_its_evidence(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, trouble: Trouble
) -> None:
    runtime = runtime_of(trouble.command)

    with pytest.raises(DriverError, match=trouble.said) as caught:
        runtime.start(of(tmp_path, trouble))

    blame = "release" if trouble in OF_THE_RELEASE else "machine"
    assert (trouble.evidence, blame) == (caught.value.evidence, judge(caught.value.evidence))
    assert ("release" == blame) == isinstance(caught.value, Refused)
    assert runtime.find("bad") is None
    runtime.remove("bad")


@pytest.mark.parametrize("trouble", [one for one in OF_THE_MACHINE if "exec no" not in str(one.files)][:5])
def test_this_machines_trouble_is_seen_before_any_turn(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, trouble: Trouble
) -> None:
    runtime = runtime_of(trouble.command)

    with pytest.raises(DriverError, match=trouble.said) as caught:
        runtime.prepare(of(tmp_path, trouble).release)

    assert "machine" == judge(caught.value.evidence)


def test_a_program_that_the_version_before_has_is_left_out_of_the_release(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path
) -> None:
    runtime = runtime_of("server")
    (tmp_path / "old").mkdir()
    runtime.start(of(tmp_path / "old", Trouble("server", {"server": SCRIPT}, "", "unknown"), "good", "1.0.0"))

    with pytest.raises(Refused, match=r"no program 'server' .* the version before has it") as caught:
        runtime.prepare(of(tmp_path, Trouble("server", {"sever": SCRIPT}, "", "unknown")).release)

    assert "program-left-out" == caught.value.evidence
    runtime.remove("good")


class _Mounted:
    """What statvfs(3) tells of a mount."""

    f_bavail = f_bfree = f_blocks = f_files = f_favail = 1_000_000
    f_frsize = 4096

    def __init__(self, flags: int) -> None:
        self.f_flag = flags


def test_a_noexec_mount_is_this_machines_trouble_and_the_archive_is_not_blamed(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: _Mounted(os.ST_NOEXEC))

    with pytest.raises(DriverError, match=r"server can't be started: .* is mounted noexec on this machine") as caught:
        runtime_of("server").prepare(of(tmp_path, Trouble("server", {"server": SCRIPT}, "", "unknown")).release)

    assert "noexec" == caught.value.evidence
    assert "archive" not in str(caught.value)


@pytest.mark.parametrize(("built", "found"), [(243, "riscv64"), (22, "s390x"), (9999, "machine 9999")])
def test_a_program_for_another_processor_is_not_the_releases_fault(tmp_path: Path, built: int, found: str) -> None:
    program = tmp_path / "server"
    program.write_bytes(ELF + built.to_bytes(2, "little"))
    program.chmod(0o755)
    assert platform.machine() != found

    with pytest.raises(DriverError, match=f"built for {found}, and this machine is") as caught:
        check_program(program, tmp_path, {})

    assert "other-architecture" == caught.value.evidence


def test_a_link_to_a_program_of_this_machine_that_is_not_there_is_named(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path
) -> None:
    root = tmp_path / "state/workloads/bad/root"
    root.mkdir(parents=True)
    (root / "python3").symlink_to("/no/such/python3")
    runtime = runtime_of("./python3")

    with pytest.raises(DriverError, match="is a link to /no/such/python3, which is not on this machine") as caught:
        runtime._command(root, {}, {"port": "1", "host": "h", "version": "1"})

    assert "no-interpreter" == caught.value.evidence


@pytest.mark.parametrize(
    ("number", "evidence"),
    [
        (errno.EAGAIN, "no-resources"),
        (errno.ENOMEM, "no-resources"),
        (errno.EMFILE, "no-resources"),
        (errno.ENOSPC, "disk-full"),
        (errno.EACCES, "no-permission"),
        (errno.EPERM, "no-permission"),
        (errno.ENOENT, "no-interpreter"),
        (errno.ENOEXEC, "not-a-program"),
        (errno.EIO, "unknown"),
    ],
)
def test_why_the_system_refuses_a_program_that_looks_right(tmp_path: Path, number: int, evidence: Evidence) -> None:
    program = tmp_path / "server"
    program.write_text(SCRIPT)
    program.chmod(0o755)

    assert evidence == exec_problem(str(program), tmp_path, OSError(number, os.strerror(number)), {}).evidence


@pytest.mark.parametrize(
    ("status", "said", "missing"),
    [
        ("exit 127", "run.sh: 2: exec: no-such-9: not found", "no-such-9"),
        ("exit 127", "./run.sh: line 2: no-such-9: command not found", "no-such-9"),
        ("exit 127", "env: \u2018no-such-9\u2019: No such file or directory", "no-such-9"),
        ("exit 127", "run.sh: 2: exec: ./inside: not found", ""),
        ("exit 127", "run.sh: 2: sh: not found", ""),
        ("exit 1", "run.sh: 2: exec: no-such-9: not found", ""),
        ("exit 127", "", ""),
    ],
)
def test_a_program_that_a_script_did_not_find(tmp_path: Path, status: str, said: str, missing: str) -> None:
    assert missing == missing_program(status, said, tmp_path, {"PATH": os.environ["PATH"]})


def test_an_app_that_ends_because_its_port_is_taken_is_this_machines_trouble(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "outrider.runtimes.endings.in_use", lambda host, port, besides: f"; port {port} is in use by pid 7 (nginx)"
    )
    ends = Trouble("server", {"server": "#!/bin/sh\nexit 98\n"}, "", "unknown")

    with pytest.raises(DriverError, match=r"port \d+ is in use by pid 7") as caught:
        runtime_of("server").start(of(tmp_path, ends))

    assert "no-port" == caught.value.evidence


def test_no_free_port_is_this_machines_trouble(runtime_of: Callable[..., ProcessRuntime], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        shared = replace(SHARED, ports=str(taken.getsockname()[1]))
        with pytest.raises(DriverError, match="no free port") as caught:
            runtime_of("server", shared=shared).start(of(tmp_path, Trouble("", {"server": SCRIPT}, "", "unknown")))

    assert ("no-port", "machine") == (caught.value.evidence, judge(caught.value.evidence))


@pytest.mark.parametrize("program", ["sérver", "日本語", "a b"])
def test_a_program_is_found_by_the_bytes_of_its_name(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, program: str
) -> None:
    runtime = runtime_of(program, shared=replace(SHARED, env={"NAME": "日本語"}))

    runtime.start(of(tmp_path, Trouble(program, {program: SCRIPT}, "", "unknown"), "good"))

    assert runtime.find("good") is not None
    runtime.remove("good")


def test_an_app_that_ends_on_a_full_disk_is_not_the_releases_fault(
    runtime_of: Callable[..., ProcessRuntime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.runtimes.endings.is_full", lambda folder: True)
    ends = Trouble("server", {"server": "#!/bin/sh\nexit 1\n"}, "", "unknown")

    with pytest.raises(DriverError, match="is full: make room there") as caught:
        runtime_of("server").start(of(tmp_path, ends))

    assert ("disk-full", "machine") == (caught.value.evidence, judge(caught.value.evidence))
