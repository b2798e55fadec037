"""Which processes belong to which workload, also when the workload's first process has ended.

Theory. An orphan can change everything that it was born with, so each of these is evidence alone:

- its environment has the workload's marks;
- it is in the workload's cgroup, where cgroups are delegated to us, or below the unit that apps are moved to;
- it is in the session that the workload's first process began. While a session has a member, the kernel gives its
  number to no other process. A session without a leader must also lie in the cgroup in which the workload was started,
  since the number of an empty session is used again;
- what it prints goes to the workload's output file;
- it descends from one of these.

A daemon with two forks, a session of its own, no environment and no output keeps none of them. It still descends from
the sidekick, if that is a child subreaper, or it is in the cgroup of the sidekick's unit, or of the unit that its apps
are moved to. Such *kin* belong to some workload of this sidekick. They count for one if no other is there, or if they
are older than all others.

Source: prctl(2) PR_SET_CHILD_SUBREAPER, setsid(2), proc(5), systemd.exec(5) ($SYSTEMD_EXEC_PID).
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from outrider.runtimes import TASK
from outrider.runtimes.process.apart import AppsUnit
from outrider.runtimes.process.cgroups import Cgroups, cgroup_line
from outrider.runtimes.process.identity import PROC, Process, environment_of, look_at, processes

WORKLOAD, FOLDER = "OUTRIDER_WORKLOAD", "OUTRIDER_INSTANCE_DIR"
"""Variables that mark a workload's processes: its id, and the state folder of its instance."""
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The first process of a workload on this boot, whether it runs or not.

    Attributes:
        pid, started: Which process it is. It leads a session of its own.
        cgroup: Its line of cgroups when it was started; empty when unknown.
    """

    pid: int
    started: int
    cgroup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """Finds the processes of workloads.

    Attributes:
        folder: The instance's state folder.
        cgroups: Where each workload has one of its own; None when none was delegated.
        apart: The unit that workloads are moved to, out of the sidekick's; None when there is none.
        owns_process: This process does nothing but run one sidekick: all its descendants belong to its workloads.
        strangers: Pid and start time of descendants that it had when it began, as a shell leaves them that ends with
            ``exec outrider``. They and what they start are not ours.
    """

    folder: Path
    cgroups: Cgroups | None = None
    apart: AppsUnit | None = None
    owns_process: bool = False
    strangers: frozenset[tuple[int, int]] = frozenset()

    def of(self, workload_id: str, origins: Mapping[str, Origin]) -> tuple[Process, ...]:
        """All running processes of a workload, oldest first.

        Args:
            origins: First processes by workload id, of all workloads of this instance that were started on this boot.
        """
        look = _Look(self, workload_id, origins)
        found = look.members(workload_id)
        if self.owns_process:
            found |= look.kin_of(workload_id, found)
        return tuple(sorted((look.table[pid] for pid in found), key=lambda each: (each.started, each.pid)))

    def claim(self, workload_id: str, process: Process) -> None:
        """A first process was started a moment ago: move it, and what it has started since, into its cgroup."""
        if self.apart is not None and self.apart.take(workload_id, lambda: _session_of(process)):
            return
        if self.cgroups is None or not self.cgroups.put(workload_id, process.pid):
            return
        for pid in _session_of(process):
            if pid != process.pid:
                self.cgroups.put(workload_id, pid)

    def forget(self, workload_id: str) -> None:
        """The workload was removed: so is its cgroup."""
        for place in (self.cgroups, self.apart):
            if place is not None:
                place.remove(workload_id)


class _Look:
    """One look at all processes."""

    def __init__(self, families: Families, workload_id: str, origins: Mapping[str, Origin]) -> None:
        self._families, self._origins = families, origins
        self._names = {workload_id, *origins}
        self.table = {each.pid: each for each in processes()}
        self._environments = {pid: environment_of(each) for pid, each in self.table.items()}
        self._children: dict[int, list[int]] = {}
        for each in self.table.values():
            self._children.setdefault(each.parent, []).append(each.pid)
        self._marked: dict[int, str] = {}
        folder = str(families.folder)
        for pid, environment in self._environments.items():
            if environment.get(FOLDER) == folder and WORKLOAD in environment:
                self._marked[pid] = environment[WORKLOAD]
        self._outputs = {pid: _outputs_of(pid) for pid in self.table if pid not in self._marked}

    def members(self, workload_id: str) -> set[int]:
        """Those with evidence, and their descendants that don't belong to another workload."""
        families, origin = self._families, self._origins.get(workload_id)
        own = {pid for pid, name in self._marked.items() if name == workload_id}
        for place in (families.cgroups, families.apart):
            if place is not None:
                own |= place.pids(workload_id) & self.table.keys()
        if origin is not None:
            own |= {pid for pid, each in self.table.items() if self._in_session(each, origin)}
        output = str(families.folder / "workloads" / workload_id / "output.log")
        # also after the file was renamed or removed
        own |= {pid for pid, several in self._outputs.items() if any(each.startswith(output) for each in several)}
        own.discard(os.getpid())
        return own | self.descendants(own, workload_id)

    def kin_of(self, workload_id: str, known: set[int]) -> set[int]:
        """Processes of this sidekick without evidence that can belong to no other workload."""
        others = self._names - {workload_id}
        elsewhere = {name: self.members(name) for name in others}
        taken = {pid for several in elsewhere.values() for pid in several}
        tasks = {pid for pid, environment in self._environments.items() if TASK in environment}
        tasks |= self.descendants(tasks, "")
        strangers = {pid for pid, each in self.table.items() if (pid, each.started) in self._families.strangers}
        strangers |= self.descendants(strangers, "")
        kin = (self.descendants({os.getpid()}, "") | self._unit()) - known - taken - tasks - strangers
        kin -= self._marked.keys() | {os.getpid()}
        # one that is older than another workload can't be of that one
        living = [
            self._origins[name].started for name, several in elsewhere.items() if several and name in self._origins
        ]
        oldest = min(living, default=None)
        found = {pid for pid in kin if oldest is None or self.table[pid].started < oldest}
        if left := kin - found:
            logger.bind(workload=workload_id, pids=sorted(left)).warning("processes of an unknown workload left alone")
        return found

    def _in_session(self, each: Process, origin: Origin) -> bool:
        if each.session != origin.pid or each.started < origin.started:
            return False
        leader = look_at(origin.pid)
        if leader is not None:
            return leader.started == origin.started
        return not origin.cgroup or cgroup_line(each.pid) in ("", origin.cgroup)

    def descendants(self, roots: Iterable[int], workload_id: str) -> set[int]:
        """Everything below ``roots``; what is marked as another workload's is left out, with all below it."""
        found: set[int] = set()
        open_ = list(roots)
        while open_:
            for pid in self._children.get(open_.pop(), ()):
                foreign = workload_id and self._marked.get(pid, workload_id) != workload_id
                if pid not in found and not foreign:
                    found.add(pid)
                    open_.append(pid)
        return found

    def _unit(self) -> set[int]:
        """Processes in the cgroup of our own unit, when systemd started this process as the unit's main one.

        Those in the unit that our apps are moved to are among them.
        """
        own, apart = unit_cgroup(), self._families.apart
        if not own:
            return set()
        places = [own, *([apart.cgroup] if apart is not None and apart.cgroup else [])]
        return {pid for pid in self.table if any(_is_below(cgroup_line(pid), place) for place in places)}


def descendants() -> frozenset[tuple[int, int]]:
    """Pid and start time of all processes below this one."""
    look = _Look(Families(folder=Path("/")), "", {})
    return frozenset((pid, look.table[pid].started) for pid in look.descendants({os.getpid()}, ""))


def become_subreaper() -> bool:
    """Let orphans among our descendants become our children; False when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if done != 0:
        logger.bind(cause=os.strerror(ctypes.get_errno())).warning("orphans of the app may not be found")
    return done == 0


def reap(seen: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Let the kernel forget children that ended and that no one waits for; call it every few seconds.

    A child that this program started itself is waited for at once. So a child that is a zombie in two calls in a row is
    an orphan that we got as subreaper.

    Args:
        seen: What the call before returned.

    Returns:
        Zombies to look at in the next call, as pid and start time.
    """
    try:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return set()
    except ChildProcessError:
        return set()
    ours = os.getpid()
    zombies = {(each.pid, each.started) for each in processes(zombies=True) if each.zombie and each.parent == ours}
    for pid, _ in zombies & seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return zombies - seen


def unit_cgroup() -> str:
    """The cgroup of the systemd unit whose main process we are; empty without one."""
    own = cgroup_line("self")
    is_main = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    return own if is_main and own.rpartition("/")[2].endswith(".service") else ""


def _is_below(path: str, own: str) -> bool:
    # systemd's control processes (ExecReload and the like) are in ``.control``
    return path == own or (path.startswith(f"{own}/") and not path.startswith(f"{own}/.control"))


def _session_of(leader: Process) -> tuple[int, ...]:
    """Pids of a session that its leader has just begun, the leader's first."""
    return (leader.pid, *(each.pid for each in processes() if each.session == leader.pid != each.pid))


def _outputs_of(pid: int) -> tuple[str, ...]:
    """The files that are standard output and error of a process; none when it may not be looked at."""
    found = []
    for descriptor in ("1", "2"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(PROC / str(pid) / "fd" / descriptor))
    return tuple(found)
