"""An app whose worker outlives it, in several shapes, and a program that runs it as a sidekick does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from outrider.runtimes import WorkloadSpec
from outrider.runtimes.process.cgroups import Cgroups
from outrider.runtimes.process.family import Families
from outrider.runtimes.process.runtime import ProcessRuntime
from tests.support.waiting import eventually
from tests.support.workloads import SETTINGS, SHARED, payload, release

Shape = Literal["blank", "group", "daemon", "printing", "stubborn", "double-fork"]

APP = '''
import ctypes, os, signal, sys, time

shape, notes = os.environ["SHAPE"], os.environ["NOTES"]

def blank():
    """As nginx and setproctitle do: the environment that others see is gone."""
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    first, last = int(fields[47]), int(fields[48])
    ctypes.memset(first, 0, last - first)

def silent():
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

def worker():
    if shape != "daemon":
        blank()
    if shape == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if shape == "group":
        os.setpgid(0, 0)
    if shape in ("daemon", "printing", "double-fork"):
        os.setsid()
        os.chdir("/")
    if shape != "printing":
        silent()
    if shape == "double-fork" and os.fork():
        os._exit(0)
    with open(notes + ".partial", "w") as file:
        file.write(str(os.getpid()))
    os.rename(notes + ".partial", notes)
    time.sleep(600)

child = os.fork()
if not child:
    worker()
elif shape == "double-fork":
    os.waitpid(child, 0)
time.sleep(600)
'''
"""Writes its worker's pid to ``NOTES``. ``/proc/PID/stat`` has the bounds of the environment in fields 50 and 51."""


def orphan_spec(folder: Path, workload_id: str = "app-1.0.0-aa") -> WorkloadSpec:
    """What starts that app."""
    return WorkloadSpec(workload_id=workload_id, release=release("1.0.0", payload(folder, {"app.py": APP})))


def orphan_runtime(
    state_dir: Path, shape: Shape, notes: Path, *, cgroup: Path | None = None, owns_process: bool = False
) -> ProcessRuntime:
    """A process runtime whose app makes workers of ``shape``."""
    shared = replace(SHARED, env={"SHAPE": shape, "NOTES": str(notes)}, stop_grace_s=0.2)
    made = ProcessRuntime(SETTINGS, shared, state_dir=state_dir, instance="web1", owns_process=owns_process)
    if cgroup is not None:
        made._families = Families(folder=state_dir.resolve(), cgroups=Cgroups(cgroup))
    return made


def worker_of(notes: Path) -> int:
    """The pid of the app's worker, once it is what it wants to be."""
    pid = eventually(lambda: int(notes.read_text()) if notes.exists() else 0)
    notes.unlink()
    with notes.with_suffix(".seen").open("a") as file:
        file.write(f"{pid}\n")
    return pid


def end_workers(notes: Path) -> None:
    """End the workers that ``worker_of`` has seen and that a failed test has left."""
    seen = notes.with_suffix(".seen")
    for pid in map(int, seen.read_text().split() if seen.exists() else ()):
        with contextlib.suppress(OSError):
            if b"app.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


class Program:
    """A process of its own that runs workloads as a sidekick does: it is a child subreaper."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, verb: str, workload_id: str = "app-1.0.0-aa") -> str:
        """``start`` answers the pid, ``stop`` and ``find`` what ``ProcessRuntime`` says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, workload_id]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        return str(json.loads(line))


@contextmanager
def program(
    state_dir: Path, shape: Shape, notes: Path, folder: Path, *, before: tuple[str, ...] = ()
) -> Iterator[Program]:
    """Run the program until the end of the block; then it is killed, as a sidekick may be.

    Args:
        before: A command that ends by executing the rest of its arguments.
    """
    arguments = [*before, sys.executable, "-m", "tests.support.orphans", str(state_dir), shape, str(notes), str(folder)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Program(process)
    finally:
        process.kill()
        process.communicate()


def _main(state_dir: str, shape: Shape, notes: str, folder: str) -> None:
    runtime = orphan_runtime(Path(state_dir), shape, Path(notes), owns_process=True)
    for line in sys.stdin:
        verb, workload_id = json.loads(line)
        match verb:
            case "start":
                said = runtime.start(orphan_spec(Path(folder), workload_id)).handle.removeprefix("pid ")
            case "stop":
                runtime.stop(workload_id, 0.2)
                said = "stopped"
            case _:
                said = str(runtime.find(workload_id))
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])  # type: ignore[arg-type]
    os._exit(0)
