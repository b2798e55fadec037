"""Puts an app's processes into a systemd unit of their own, so that what is done to the sidekick's unit spares them.

``KillMode=process`` keeps a stop and a restart from the app. A plain ``systemctl kill`` signals all that is in the
unit's cgroup, and those below it, so the app has to leave that cgroup. No process without privileges may move another
one out of its unit, as it may not write the cgroup above both. systemd does it when it is asked to: for processes and a
unit of the caller's own user, and a unit that is active and has ``Delegate=yes``. That takes no rule of polkit.

The unit is made for this: ``units/outrider-apps@.service``. Where it is missing, or D-Bus, the app stays where it was
started, and the log says so.

Source: org.freedesktop.systemd1(5), AttachProcessesToUnit; kernel Documentation/admin-guide/cgroup-v2.rst (Delegation
Containment). Measured with systemd 252 and 257.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Collection
from typing import Protocol

from loguru import logger

from outrider.core.errors import DriverError
from outrider.runtimes.process.cgroups import Cgroups, cgroup_folder, cgroup_line
from outrider.runtimes.process.identity import look_at

STAYS = "app stays in the sidekick's unit: systemctl kill would end it too"
_TIMEOUT_S = 5.0
_ROUNDS = 10
"""How often it is looked for processes that were started meanwhile; an app that forks without end is left at that."""


class UnitCalls(Protocol):
    """What is asked of systemd (``systemd.bus.Manager``)."""

    def attach(self, unit: str, pid: int) -> None:
        """Move a process into the unit's cgroup."""

    def cgroup_of(self, unit: str) -> str:
        """The unit's cgroup, as /proc shows it; empty while nothing is in it."""


class AppsUnit:
    """The unit that apps are moved to."""

    def __init__(self, unit: str, calls: UnitCalls) -> None:
        """Ask nothing yet."""
        self._unit, self._calls = unit, calls
        self._cgroup = ""

    @property
    def cgroup(self) -> str:
        """Its cgroup as in ``cgroup_line``; empty when nothing is in it, or when nobody says."""
        if not self._cgroup:
            with contextlib.suppress(DriverError):
                self._cgroup = self._calls.cgroup_of(self._unit)
        return self._cgroup

    def take(self, workload_id: str, members: Callable[[], Collection[int]]) -> bool:
        """Move a workload's processes there, and those that they start meanwhile.

        Where cgroups are of version 2, the workload gets one of its own below the unit's, which is delegated to us.

        Args:
            members: The pids of those that run.

        Returns:
            False when some are left where they were; the log says why.
        """
        try:
            self._take(members)
        except DriverError as error:
            logger.bind(workload=workload_id, unit=self._unit, cause=str(error)).warning(STAYS)
            return False
        if (cgroups := self._cgroups()) is not None:
            for pid in members():
                cgroups.put(workload_id, pid)
        return True

    def pids(self, workload_id: str) -> frozenset[int]:
        """Pids in the workload's cgroup there, and below it; none where that can't be told from those of others."""
        cgroups = self._cgroups()
        return cgroups.pids(workload_id) if cgroups is not None else frozenset()

    def remove(self, workload_id: str) -> None:
        """Remove the workload's cgroup."""
        if (cgroups := self._cgroups()) is not None:
            cgroups.remove(workload_id)

    def _take(self, members: Callable[[], Collection[int]]) -> None:
        for _ in range(_ROUNDS):
            left = [pid for pid in members() if not self._is_there(pid) and _runs(pid)]
            if not left:
                return
            for pid in left:
                try:
                    self._calls.attach(self._unit, pid)
                except DriverError:
                    if _runs(pid):
                        raise
        raise DriverError(f"processes of the app are outside of it after {_ROUNDS} times")

    def _is_there(self, pid: int) -> bool:
        line = cgroup_line(pid)
        return bool(self.cgroup) and (line == self.cgroup or line.startswith(f"{self.cgroup}/"))

    def _cgroups(self) -> Cgroups | None:
        folder = cgroup_folder(self.cgroup) if self.cgroup else None
        return Cgroups(folder) if folder is not None else None


def apps_unit(name: str) -> AppsUnit | None:
    """The unit of ``workload.unit``; None when it names none."""
    if not name:
        return None
    if importlib.util.find_spec("jeepney") is None:
        logger.bind(unit=name, cause="the package jeepney is missing: pip install 'outrider[systemd]'").warning(STAYS)
        return None
    from outrider.runtimes.systemd.bus import Manager

    return AppsUnit(name, Manager(_TIMEOUT_S))


def _runs(pid: int) -> bool:
    found = look_at(pid)
    return found is not None and not found.zombie
