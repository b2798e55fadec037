"""A cgroup for each workload, where a cgroup (version 2) has been delegated to the sidekick.

A process can leave its session, its parent and its environment, but not its cgroup. systemd delegates the cgroup of the
sidekick's unit with ``Delegate=yes``. No controller is used, so the sidekick itself may stay beside its workloads.

Source: kernel Documentation/admin-guide/cgroup-v2.rst (Delegation); systemd.resource-control(5), Delegate=.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from outrider.runtimes.process.identity import PROC

_LEAF = "workload-"
_DELEGATED = ("user.delegate", "trusted.delegate")
"""Extended attributes by which systemd marks a delegated cgroup."""


class Cgroups:
    """The cgroups of workloads below one that was delegated to this process."""

    def __init__(self, folder: Path) -> None:
        """Work below ``folder``, a cgroup that this process may write."""
        self._folder = folder

    def put(self, workload_id: str, pid: int) -> bool:
        """Move a process into its workload's cgroup; what it starts from then on is born there.

        Returns:
            False when the kernel refuses: then the workload's processes are found by other marks. The log says why.
        """
        leaf = self._leaf(workload_id)
        try:
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:  # it has ended already
            return True
        except OSError as error:
            logger.bind(workload=workload_id, cause=str(error)).warning("workload has no cgroup of its own")
            return False
        return True

    def pids(self, workload_id: str) -> frozenset[int]:
        """Pids in the workload's cgroup and below it."""
        found: set[int] = set()
        for folder in self._folders(workload_id):
            with contextlib.suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return frozenset(found)

    def remove(self, workload_id: str) -> None:
        """Remove the workload's cgroup; one that is not empty stays."""
        for folder in reversed(list(self._folders(workload_id))):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _leaf(self, workload_id: str) -> Path:
        return self._folder / f"{_LEAF}{workload_id}"

    def _folders(self, workload_id: str) -> Iterator[Path]:
        """The workload's cgroup, then those below it; parents come first."""
        for folder, _, _ in os.walk(self._leaf(workload_id)):
            yield Path(folder)


def find_delegated(proc: Path = PROC) -> Cgroups | None:
    """The cgroup that was delegated to this process; None when there is none, or when it may not be written."""
    folder = own_cgroup(proc)
    if folder is None or not _is_delegated(folder):
        return None
    writable = os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)
    return Cgroups(folder) if writable else None


def own_cgroup(proc: Path = PROC) -> Path | None:
    """Folder of the cgroup (version 2) that this process is in; None for the root, and where there is no version 2."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::/")), "/")
    return _mounted(path, proc)


def cgroup_folder(line: str, proc: Path = PROC) -> Path | None:
    """Folder of a unit's cgroup, named as ``cgroup_line`` does; None where systemd doesn't go by version 2 alone."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    if any(each.split(":")[1:2] == ["name=systemd"] for each in lines):
        return None
    return _mounted(line, proc)


def cgroup_line(pid: int | str) -> str:
    """The cgroup of a process that systemd goes by: version 2, or else systemd's own hierarchy; empty when unknown."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return ""
    found = [line.split(":", 2) for line in lines]
    paths = {controllers: path for _, controllers, path in (one for one in found if len(one) == 3)}
    systemd = paths.get("name=systemd", "")
    return systemd if systemd not in ("", "/") else paths.get("", systemd)


def _mounted(path: str, proc: Path) -> Path | None:
    """Where a cgroup of version 2 lies in the file system; None for the root."""
    try:
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        fields = before.split()  # id, parent, device, root, mount point, options: proc(5)
        if after.split()[:1] == ["cgroup2"] and len(fields) > 4:
            relative = path.removeprefix(fields[3].rstrip("/")).strip("/")
            return Path(fields[4]) / relative if relative else None
    return None


def _is_delegated(folder: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False
