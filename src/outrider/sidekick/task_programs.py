"""Runs the program of a task to its end, on this machine: out of the payload, or the machine's own."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from loguru import logger

from outrider.core.blame import seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.sidekick.memory import Release
from outrider.failpoints import failpoint
from outrider.files import as_bytes, clear_file, free_bytes, free_files, make_folder, open_file, write_file
from outrider.model.tasks import KEPT_OUTPUT
from outrider.payloads.archive import MAX_MEMBERS, MAX_UNPACKED_BYTES, unpack
from outrider.payloads.store import PayloadStore
from outrider.runtimes import TASK, Given
from outrider.runtimes.command.programs import Running, end_left, end_program
from outrider.runtimes.inherited import passed_on
from outrider.runtimes.process.command import check_program, command_line, exec_problem, last_line
from outrider.runtimes.process.identity import boot_id, look_at
from outrider.sidekick.task_claims import SENT_BY_OTHERS, Claimed, Result

_POLL_S = 0.05


class Interrupted(DriverError):
    """The sidekick ends, and the program with it: nobody knows how far it came."""


class TaskPrograms:
    """The programs of one instance's tasks; each has a folder of its own while it runs."""

    def __init__(
        self,
        payloads: PayloadStore,
        *,
        folder: Path,
        names: Mapping[str, str],
        variables: Mapping[str, str],
        given: Callable[[Release], Given],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; a program that a killed sidekick has left is ended before another one runs.

        Args:
            folder: Where they run, one below the other; nothing else uses it.
            names: Of app, group and instance, for the program: variable -> name.
            variables: ``[workload] env``.
            given: What a release's environment says.
            environment: What programs inherit; our own when None.
        """
        self._payloads, self._folder = payloads, folder
        self._names, self._variables, self._given = names, variables, given
        self._inherited = passed_on(os.environ if environment is None else environment)
        self._closed = threading.Event()

    def close(self) -> None:
        """End what runs; ``run`` raises ``Interrupted``."""
        self._closed.set()

    def run(self, claimed: Claimed, release: Release) -> Result:
        """Run it to its end, at most for its time limit.

        Raises:
            Interrupted: ``close`` ended it.
            DriverError: it could not be begun, through this machine's fault; it hasn't run.
        """
        home = self._folder / claimed.spec.name
        try:
            self._end_leftovers()
            words, root, environment = self._prepared(claimed, release, home)
            return self._run(claimed, words, root, environment, home)
        except Refused as error:  # the payload has no such program, or one that runs nowhere
            return Result(code=None, why=str(error), output="")
        except OSError as error:
            raise DriverError(
                f"task {claimed.spec.name}: can't be run in {home}: {error.strerror or error}",
                evidence=seen_in(error.errno),
            ) from error
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _end_leftovers(self) -> None:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self._folder)):
                end_left(self._folder / name)
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def _prepared(self, claimed: Claimed, release: Release, home: Path) -> tuple[list[str], Path, dict[str, str]]:
        """The words of the command, where it runs, and what it sees."""
        spec, root = claimed.spec, home / "root"
        payload = self._payloads.find(release.sha256)
        with failpoint("task.unpack"):
            make_folder(self._folder)
            make_folder(home)
            if spec.is_of_machine:
                make_folder(root)
            else:
                if payload is None:
                    raise DriverError(f"task {spec.name}: the payload of {release.version} is gone from this machine")
                unpack(
                    payload,
                    root,
                    max_bytes=MAX_UNPACKED_BYTES,
                    max_members=MAX_MEMBERS,
                    room_bytes=free_bytes(home),
                    room_files=free_files(home),
                )
        environment = {
            **self._inherited,
            **self._variables,
            **self._given(release).variables,
            **self._names,
            "OUTRIDER_VERSION": release.version,
            "OUTRIDER_RELEASE": release.label,
            "OUTRIDER_PAYLOAD": str(payload or ""),
            TASK: spec.name,
        }
        if not spec.is_of_machine and not (root / spec.command[0]).is_file():
            # the package names a program that its own payload hasn't got: so it is on every machine
            raise Refused(f"no program {spec.command[0]!r} in the payload", evidence="not-a-program")
        known = {"port": "0", "host": "", "version": release.version}
        words = command_line(spec.command, known, root, environment)
        check_program(Path(words[0]), root, environment)
        return words, root, environment

    def _run(self, claimed: Claimed, words: list[str], root: Path, environment: dict[str, str], home: Path) -> Result:
        output = home / "output.log"
        clear_file(output)
        with open(open_file(output, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+b", buffering=0) as file:
            try:
                with failpoint("task.spawn"):
                    process = subprocess.Popen(
                        [as_bytes(word) for word in words],
                        cwd=root,
                        env={as_bytes(name): as_bytes(text) for name, text in environment.items()},
                        stdin=subprocess.DEVNULL,
                        stdout=file.fileno(),
                        stderr=file.fileno(),
                        start_new_session=True,
                    )
            except OSError as error:
                raise exec_problem(words[0], root, error, environment) from error
            return self._to_its_end(process, claimed, output)

    def _to_its_end(self, process: "subprocess.Popen[bytes]", claimed: Claimed, output: Path) -> Result:
        """From here on it has begun, and nothing that this machine lacks makes that undone."""
        try:
            return self._looked_after(process, claimed, output)
        except OSError as error:
            with contextlib.suppress(OSError, DriverError):
                os.killpg(process.pid, signal.SIGKILL)  # its session is its own, and so is its group
            process.kill()
            process.wait()
            why = f"it had begun when this machine failed, and was ended: {error.strerror or error}"
            logger.bind(task=claimed.spec.name, pid=process.pid, error=str(error)).warning("task ended half way")
            return Result(code=-signal.SIGKILL, why=why, output="")

    def _looked_after(self, process: "subprocess.Popen[bytes]", claimed: Claimed, output: Path) -> Result:
        spec = claimed.spec
        found = look_at(process.pid)
        started = found.started if found is not None else 0
        note = Running(action=spec.name, pid=process.pid, started=started, boot_id=boot_id())
        with contextlib.suppress(OSError):  # without it a killed sidekick's program isn't ended by the next one
            write_file(output.with_name("program.json"), msgspec.json.encode(note))
        logger.bind(task=spec.name, pid=process.pid, limit_s=spec.limit_s).info("task begun")
        code = self._wait(process, time.monotonic() + spec.limit_s)
        stuck = ""
        if code is None:
            try:
                end_program(process.pid, started)
                process.wait()
            except DriverError as error:
                stuck = f"; {error}"
        if code is None and self._closed.is_set():
            raise Interrupted(f"task {spec.name}: the sidekick was stopped while it ran")
        return _result(code, output, spec.limit_s, stuck)

    def _wait(self, process: "subprocess.Popen[bytes]", deadline: float) -> int | None:
        """The exit code; None at the deadline (monotonic), and when the sidekick ends."""
        while (left_s := deadline - time.monotonic()) > 0 and not self._closed.is_set():
            if (code := process.poll()) is not None:
                return code
            self._closed.wait(min(_POLL_S, left_s))
        return process.poll()


def _result(code: int | None, output: Path, limit_s: float, stuck: str) -> Result:
    text, said = "", ""
    with contextlib.suppress(OSError):
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - KEPT_OUTPUT))
            text = file.read().decode(errors="replace")
        said = last_line(output)
    ended = f"exit {code}" if code is not None and code >= 0 else f"signal {-(code or 0)}"
    if code is not None and -code in SENT_BY_OTHERS:
        ended += ": somebody ended it, or this machine did for want of memory"
    status = f"not ended within {limit_s:g} s{stuck}" if code is None else ended
    return Result(code=code, why=f"{status}; it said: {said}" if said else status, output=text[-KEPT_OUTPUT:])
