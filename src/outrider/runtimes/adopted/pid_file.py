"""A process that somebody else has started, known by its pid file.

It can't be started again: what started it, with which environment and as whom, isn't written anywhere. If that starts
it again by itself, the pid file says so, and it is found as long as it is the same program.

What ends with it: its session when it leads one, else its process group when it leads that, and always what descends
from it. A group or session that it doesn't lead may be that of the shell in which somebody typed its name.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from outrider.config.sections import Settings
from outrider.core.blame import Evidence
from outrider.core.errors import ConfigError, DriverError
from outrider.runtimes import ExitWatch
from outrider.runtimes.adopted import AdoptedRecord, Candidate, Sighting
from outrider.runtimes.adopted.listening import family, listening_urls
from outrider.runtimes.process.cgroups import cgroup_line
from outrider.runtimes.process.exits import GONE, Exits
from outrider.runtimes.process.family import WORKLOAD
from outrider.runtimes.process.identity import PROC, Process, environment_of, is_running, look_at, processes
from outrider.runtimes.process.signals import send, wait_for_end

_KILL_S = 10.0
_MOST_BYTES = 4096
"""A pid file has a line; PostgreSQL's has eight."""


def look(name: str, settings: Settings, environment: Mapping[str, str], *, url: str) -> Candidate:
    """As ``Adopter.look``: ``name`` is the path of the pid file."""
    path = Path(name).absolute()
    try:
        pid = _pid_in(path)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    process = look_at(pid) if pid else None
    if process is None or process.zombie:
        raise ConfigError(f"{path}: names no process that runs ({f'pid {pid}' if pid else 'no number in it'})")
    try:
        os.kill(pid, 0)
        program = os.readlink(PROC / str(pid) / "exe")
    except PermissionError:
        raise ConfigError(
            f"{path}: pid {pid} is another user's, and could not be stopped; run the sidekick, and this, as that user"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: pid {pid}: {error.strerror or error}") from error
    if WORKLOAD in environment_of(process):
        raise ConfigError(f"{path}: pid {pid} belongs to a workload that a sidekick started")
    unit = re.search(r"([^/]+\.service)$", cgroup_line(pid))
    again = f"what starts {program} at boot, or when it ends, must be told not to: it would run beside its successor"
    return Candidate(
        kind="pid-file",
        id=str(path),
        name=str(path),
        handle=f"pid {pid} ({program}), by {path}",
        urls={url: ""} if url else dict.fromkeys(listening_urls(pid, settings.workload.host), ""),
        program=program,
        no_restart="only what started it knows how",
        after=f"SIGTERM, and SIGKILL after {settings.workload.stop_grace_s:g} s",
        notes=(f"it is in the unit {unit[1]}; {again}" if unit else again,),
    )


def foreign(record: AdoptedRecord, settings: Settings, environment: Mapping[str, str]) -> "ForeignProcess":
    """As ``Adopter.foreign``."""
    return ForeignProcess(record)


class ForeignProcess:
    """Implements ``Foreign``."""

    def __init__(self, record: AdoptedRecord) -> None:
        self._record = record
        self._exits = Exits()

    def find(self) -> Sighting | None:
        """As ``Foreign.find``: whatever the pid file names, if it runs the recorded program."""
        process = self._process()
        return None if process is None else Sighting(handle=f"pid {process.pid}", url=self._record.url)

    def stop(self, grace_s: float) -> None:
        """As ``Foreign.stop``."""
        process = self._process()
        if process is None:
            return
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_S)):
            deadline = time.monotonic() + wait_s
            members = _members(process)
            while members:
                try:
                    send(None, members, number)
                except PermissionError as error:
                    raise DriverError(
                        f"{self._record.name}: pid {process.pid} may not be stopped by this user",
                        evidence="no-permission",
                    ) from error
                if not wait_for_end(members, deadline):
                    break
                members = tuple(each for each in _members(process) if is_running(each.pid, each.started))
            else:
                return
        left = ", ".join(str(each.pid) for each in members if is_running(each.pid, each.started))
        if left:
            raise DriverError(f"{self._record.name}: still runs {_KILL_S:g} s after SIGKILL: pid {left}")

    def start(self) -> None:
        """It can't be; ``no_restart`` says so before this is asked."""
        raise DriverError(f"{self._record.name}: {self._record.no_restart}", evidence="not-now")

    def watch(self, deliver: Callable[[str, Evidence], None]) -> ExitWatch:
        """As ``Foreign.watch``."""
        process = self._process()

        def tell(status: str) -> None:
            deliver(status, "ended")

        return (
            self._exits.ended(tell, GONE) if process is None else self._exits.watch(process.pid, process.started, tell)
        )

    def health(self) -> str:
        """As ``Foreign.health``: a process has none."""
        raise DriverError(f"{self._record.name} is no container: choose another probe.kind", evidence="wrong-setting")

    def close(self) -> None:
        """Stop looking."""
        self._exits.close()

    def _process(self) -> Process | None:
        try:
            pid = _pid_in(Path(self._record.id))
            process = look_at(pid) if pid else None
            if process is None or process.zombie or os.readlink(PROC / str(pid) / "exe") != self._record.program:
                return None
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            raise DriverError(
                f"{self._record.name}: can't be looked at: {error.strerror or error}", evidence="no-permission"
            ) from error
        return process


def _pid_in(path: Path) -> int:
    """The first number in the file; 0 without one."""
    with path.open("rb") as file:
        words = file.read(_MOST_BYTES).decode("ascii", errors="replace").split()
    return int(words[0]) if words and words[0].isdigit() else 0


def _members(process: Process) -> tuple[Process, ...]:
    """What ends with it; this process never does."""
    found = {each.pid: each for each in family(process.pid)}
    for each in processes():
        in_session = process.session == process.pid and each.session == process.pid
        in_group = process.group == process.pid and each.group == process.pid
        if in_session or in_group:
            found[each.pid] = each
    found.pop(os.getpid(), None)
    return tuple(sorted(found.values(), key=lambda each: (each.started, each.pid)))
