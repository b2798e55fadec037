"""How a unit ended, in words, and what that is evidence of.

Source: systemd.exec(5) "Process Exit Codes" and ``$SERVICE_RESULT``; org.freedesktop.systemd1(5).
"""

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outrider.core.blame import Evidence

GONE = "gone"
_EXITED, _KILLED, _DUMPED = 1, 2, 3  # waitid(2): CLD_EXITED, CLD_KILLED, CLD_DUMPED
_LINES = 20
_JOURNAL_S = 5.0
_QUIET_S = 5.0
"""How long the journal is asked for lines that it has not yet: what they say decides whose fault it was."""
_SHOWN = 200

_SETUP: Mapping[int, tuple[str, Evidence]] = {
    200: ("CHDIR", "wrong-setting"), 202: ("FDS", "no-resources"), 203: ("EXEC", "no-interpreter"),
    204: ("MEMORY", "no-resources"), 205: ("LIMITS", "wrong-setting"), 206: ("OOM_ADJUST", "wrong-setting"),
    207: ("SIGNAL_MASK", "unfit"), 208: ("STDIN", "unfit"), 209: ("STDOUT", "no-resources"),
    210: ("CHROOT", "wrong-setting"), 214: ("SETSCHEDULER", "wrong-setting"), 216: ("GROUP", "wrong-setting"),
    217: ("USER", "wrong-setting"), 218: ("CAPABILITIES", "wrong-setting"), 219: ("CGROUP", "no-resources"),
    220: ("SETSID", "unfit"), 222: ("STDERR", "no-resources"), 224: ("PAM", "unfit"),
    225: ("NETWORK", "unfit"), 226: ("NAMESPACE", "wrong-setting"), 227: ("NO_NEW_PRIVILEGES", "unfit"),
    228: ("SECCOMP", "wrong-setting"), 229: ("SELINUX_CONTEXT", "unfit"), 231: ("APPARMOR_PROFILE", "unfit"),
    232: ("ADDRESS_FAMILIES", "wrong-setting"), 233: ("RUNTIME_DIRECTORY", "no-permission"),
    235: ("CHOWN", "no-permission"), 237: ("KEYRING", "unfit"), 238: ("STATE_DIRECTORY", "no-permission"),
    239: ("CACHE_DIRECTORY", "no-permission"), 240: ("LOGS_DIRECTORY", "no-permission"),
    241: ("CONFIGURATION_DIRECTORY", "no-permission"), 242: ("NUMA_POLICY", "wrong-setting"),
    243: ("CREDENTIALS", "wrong-setting"), 245: ("BPF", "unfit"),
}  # fmt: skip
"""Exit codes by which systemd says that it could not set a process up: this machine's trouble, not the app's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a unit ended.

    Attributes:
        status: ``exit 3``, ``signal 9 (SIGKILL)``, ``killed for memory``, ``gone``.
    """

    status: str
    evidence: Evidence = "ended"


def result_of(service: Mapping[str, Any]) -> Result:
    """Read it from the unit's properties; ``gone`` when systemd has forgotten the unit."""
    code, number = int(service.get("ExecMainCode", 0)), int(service.get("ExecMainStatus", 0))
    match service.get("Result", "success"):
        case "oom-kill":
            limit = int(service.get("MemoryMax", 0))
            told = f" (MemoryMax {limit // 1024**2} MiB)" if 0 < limit < 2**63 else ""
            return Result(status=f"killed for memory{told}", evidence="no-resources")
        case "resources":
            return Result(status="systemd had no resources to start it", evidence="no-resources")
        case "timeout":
            return Result(status="systemd's time limit passed", evidence="no-answer")
        case "start-limit-hit":
            return Result(status="started too often: systemd's start limit", evidence="unknown")
        case "exec-condition":
            return Result(status="its ExecCondition said no", evidence="not-now")
        case "watchdog":
            return Result(status="its watchdog had no sign of life")
    if code == _EXITED and number in _SETUP:
        name, evidence = _SETUP[number]
        return Result(status=f"systemd could not set it up: {number}/{name}", evidence=evidence)
    if code == _EXITED:
        return Result(status=f"exit {number}")
    if code in (_KILLED, _DUMPED):
        # nobody sends SIGKILL to itself: the kernel for memory (with cgroups version 1 systemd isn't told), or a person
        evidence = "unknown" if number == signal.SIGKILL else "ended"
        return Result(status=f"signal {number} ({_signal_name(number)})", evidence=evidence)
    return Result(status=GONE)


def said(unit: str, invocation: str, within_s: float = _QUIET_S) -> tuple[str, ...]:
    """The last lines that this run of the unit wrote to the journal; none when it may not be read.

    journald takes its time on a busy machine. Who may (root) lets it store first what it was sent; others ask again,
    for at most ``within_s`` seconds, until it has something.
    """
    deadline = time.monotonic() + (0 if _is_synced() else within_s)
    while (lines := _journal(unit, invocation)) == () and time.monotonic() < deadline:
        time.sleep(0.1)
    return lines or ()


def invocation_of(unit: Mapping[str, Any]) -> str:
    """The id of the unit's present run, 32 hex digits; empty when it has none."""
    return bytes(unit.get("InvocationID", b"")).hex()


def _is_synced() -> bool:
    """Whether journald has stored all that was sent to it before now (journalctl(1), ``--sync``)."""
    words = ["journalctl", "--quiet", "--sync"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return not subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_JOURNAL_S, check=False
        ).returncode
    return False


def _journal(unit: str, invocation: str) -> tuple[str, ...] | None:
    """The lines that are there now; None when there is no journal to read."""
    words = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={_LINES}", f"_SYSTEMD_UNIT={unit}"]
    if invocation:
        words.append(f"_SYSTEMD_INVOCATION_ID={invocation}")
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_JOURNAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (line.strip() for line in done.stdout.decode(errors="replace").splitlines())
    return tuple(line[:_SHOWN] for line in lines if line) if done.returncode == 0 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
