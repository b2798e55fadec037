"""Runs one of the operator's programs to its end, within a time limit, with its output in a file and in the log.

The output is a file and no pipe: what ``start`` leaves running keeps it as its standard output. A program is noted in
``program.json`` while it runs. One that a killed sidekick left is ended before the next one runs in its place.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from loguru import logger

from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import DriverError
from outrider.files import as_bytes, clear_file, make_folder, open_file, read_file, write_file
from outrider.runtimes.process.identity import boot_id, look_at, open_process, processes
from outrider.runtimes.process.signals import send, wait_for_end

NOT_NOW = 75
"""EX_TEMPFAIL of sysexits.h: the program can't now, and wants to be called again later."""
_SAYS: Mapping[int, Evidence] = {
    65: "bad-payload",  # EX_DATAERR
    69: "unreachable",  # EX_UNAVAILABLE
    71: "no-resources",  # EX_OSERR
    73: "no-permission",  # EX_CANTCREAT
    NOT_NOW: "not-now",
    77: "no-permission",  # EX_NOPERM
    78: "wrong-setting",  # EX_CONFIG
    # what shells and env(1) exit with when they can't run a program
    126: "no-permission",
    127: "no-interpreter",
}
"""Exit codes that say what is wrong (sysexits.h); any other says nothing about whose fault it is."""

_TERM_S = 5.0
_KILL_S = 10.0
_POLL_S = 0.05
_SLOWEST_POLL_S = 0.5
_LINE = 500
_LINES = 200
"""Of one run's output, in the log; the rest is in the file."""
_TOLD = 200


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """``program.json``: the program that runs now in this folder."""

    action: str
    pid: int
    started: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a program ended.

    Attributes:
        code: Exit code; below 0 the number of the signal.
        lines: What it printed, without blank lines.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def said(self) -> str:
        """Its last line, shortened."""
        return self.lines[-1][:_TOLD] if self.lines else ""

    @property
    def evidence(self) -> Evidence:
        """What the exit code says."""
        return _SAYS.get(self.code, "unknown")

    def told(self, action: str, program: str) -> str:
        """``start (example-update) exit 3; it said: no such image``, for a person."""
        status = f"exit {self.code}" if self.code >= 0 else f"signal {-self.code}"
        what = "not now" if self.code == NOT_NOW else status
        return f"{action} ({Path(program).name}): {what}" + (f"; it said: {self.said}" if self.said else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to run.

    Attributes:
        action: ``prepare``, ``check``, ``start``, ``find`` or ``stop``.
        home: Its working folder, made when it is missing; a quiet program has none made.
        output: File that gets what it prints, behind what it holds; for a quiet program instead of that.
        limit_s: It is ended after so many seconds.
        is_logged: Whether what it prints goes to the log line by line. A program that isn't logged changes nothing,
            and one that a killed sidekick left does no harm.
    """

    action: str
    words: Sequence[str]
    environment: Mapping[str, str]
    home: Path
    output: Path
    limit_s: float
    is_logged: bool = True


def run(call: Call) -> Done:
    """Run it and wait for its end.

    Raises:
        DriverError: it isn't there or can't be run here, or has not ended in time; nothing of it runs any more.
    """
    try:
        if call.is_logged:
            make_folder(call.home)
            end_left(call.home)
        clear_file(call.output, keep=call.is_logged)
        with open(open_file(call.output, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+b", buffering=0) as output:
            return _run(call, _Tail(output.fileno(), call))
    except OSError as error:
        evidence = seen_in(error.errno)
        program = call.words[0]
        text = f"{call.action}: can't run {program}: {error.strerror or error}"
        if isinstance(error, FileNotFoundError | PermissionError) and not os.access(program, os.X_OK):
            evidence = "wrong-setting"
        raise DriverError(text, evidence=evidence) from error


def _run(call: Call, tail: "_Tail") -> Done:
    note = call.home / "program.json"
    process = subprocess.Popen(
        [as_bytes(word) for word in call.words],
        cwd=call.home,
        env={as_bytes(name): as_bytes(text) for name, text in call.environment.items()},
        stdin=subprocess.DEVNULL,
        stdout=tail.descriptor,
        stderr=tail.descriptor,
        start_new_session=True,
    )
    found = look_at(process.pid)
    assert found is not None, "a child stays in /proc until its status is read"
    try:
        if call.is_logged:
            record = Running(action=call.action, pid=process.pid, started=found.started, boot_id=boot_id())
            write_file(note, msgspec.json.encode(record))
        code = _wait(process, time.monotonic() + call.limit_s, tail)
    except BaseException:
        end_program(process.pid, found.started)
        process.wait()
        raise
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
    tail.read(last=True)
    if code is None:
        end_program(process.pid, found.started)
        process.wait()
        raise DriverError(f"{call.action} ({Path(call.words[0]).name}): has not ended within {call.limit_s:g} s")
    return Done(code=code, lines=tail.lines)


def _wait(process: "subprocess.Popen[bytes]", deadline: float, tail: "_Tail") -> int | None:
    """The exit code; None at the deadline (monotonic)."""
    poll_s = _POLL_S / 10
    while (left_s := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(poll_s, left_s))
        tail.read()
        poll_s = min(_SLOWEST_POLL_S, poll_s * 2)
    return None


def end_left(home: Path) -> None:
    """End the program that a sidekick which was killed has left running in ``home``."""
    try:
        record = msgspec.json.decode(read_file(home / "program.json"), type=Running)
    except (OSError, msgspec.MsgspecError):
        return
    found = look_at(record.pid) if record.boot_id == boot_id() else None
    if found is not None and found.started == record.started and not found.zombie:
        logger.bind(action=record.action, pid=record.pid).warning("program of an earlier sidekick is ended")
        end_program(record.pid, record.started)


def end_program(pid: int, started: int) -> None:
    """SIGTERM, then SIGKILL to the program and to what it has started in its session.

    Raises:
        DriverError: it outlives that.
    """
    members = tuple(each for each in processes() if each.session == pid and each.started >= started)
    for number, wait_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        send((pid, started), members, number)
        if wait_for_end(members, time.monotonic() + wait_s):
            return
        members = tuple(each for each in processes() if each.session == pid and each.started >= started)
    with open_process(pid, started) as pidfd:
        if pidfd is not None:
            raise DriverError(f"pid {pid} still runs {_KILL_S:g} s after SIGKILL")


class _Tail:
    """Follows what a run writes to its output file, and hands it to the log."""

    def __init__(self, descriptor: int, call: Call) -> None:
        self.descriptor, self._call = descriptor, call
        self._at = os.fstat(descriptor).st_size
        self._rest = b""
        self._lines: list[str] = []
        self._left_out = 0

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def read(self, *, last: bool = False) -> None:
        """Take what was written since; with ``last`` also a line without its end."""
        while chunk := os.pread(self.descriptor, 64 * 1024, self._at):
            self._at += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            self._rest = self._rest[-64 * 1024 :]
            for line in whole:
                self._take(line)
        if last:
            self._take(self._rest)
            self._rest = b""
            if self._left_out:
                logger.bind(action=self._call.action, lines=self._left_out, path=str(self._call.output)).info(
                    "more of a program's output is in the file"
                )

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        self._lines = [*self._lines[-_LINES:], text[:_LINE]]
        if not self._call.is_logged:
            return
        if len(self._lines) > _LINES:
            self._left_out += 1
            return
        workload = self._call.environment.get("OUTRIDER_WORKLOAD", "")
        logger.bind(action=self._call.action, workload=workload, said=text[:_LINE]).info("program says")
