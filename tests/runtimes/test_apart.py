"""Which processes are moved to the unit for apps, and what becomes of those that systemd doesn't move."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from outrider.core.errors import DriverError
from outrider.runtimes.process import apart
from outrider.runtimes.process.apart import AppsUnit, apps_unit
from outrider.runtimes.systemd.bus import BusError

UNIT, CGROUP = "outrider-apps@a.service", "/system.slice/outrider-apps@a.service"


class Systemd:
    """Knows the cgroup of each process, and moves them; a name of ``refuses`` is the error instead."""

    def __init__(self) -> None:
        self.refuses = ""
        self.where: dict[int, str] = {}

    def attach(self, unit: str, pid: int) -> None:
        assert UNIT == unit
        if self.refuses:
            raise BusError(self.refuses, f"systemd: AttachProcessesToUnit: {self.refuses}")
        self.where[pid] = CGROUP

    def cgroup_of(self, unit: str) -> str:
        """A unit that nothing was moved to has none."""
        assert UNIT == unit
        return CGROUP if self.where else ""


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(
        apart, "cgroup_line", lambda pid: made.where.get(pid, "/system.slice/outrider-sidekick@a.service")
    )
    monkeypatch.setattr(apart, "cgroup_folder", lambda line: None)
    return made


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def test_what_was_started_while_it_was_moved_is_moved_too(systemd: Systemd, sleeper: int) -> None:
    seen = iter([{os.getpid()}, {os.getpid(), sleeper}, {os.getpid(), sleeper}])

    assert AppsUnit(UNIT, systemd).take("app", lambda: next(seen))

    assert {os.getpid(): CGROUP, sleeper: CGROUP} == systemd.where


def test_where_cgroups_have_a_folder_a_workload_gets_one_of_its_own(
    systemd: Systemd, sleeper: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "cgroup_folder", lambda line: tmp_path if line == CGROUP else None)
    unit = AppsUnit(UNIT, systemd)

    assert unit.take("app", lambda: {sleeper})

    assert {sleeper: CGROUP} == systemd.where
    assert frozenset({sleeper}) == unit.pids("app")
    assert frozenset() == unit.pids("other")
    (tmp_path / "workload-app/cgroup.procs").unlink()
    unit.remove("app")
    assert [] == list(tmp_path.iterdir())


def test_what_is_not_moved_is_told(systemd: Systemd, sleeper: int) -> None:
    systemd.refuses = "AccessDenied"
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    try:
        assert not AppsUnit(UNIT, systemd).take("app", lambda: {sleeper})
    finally:
        logger.remove(sink)

    assert {} == systemd.where
    assert [apart.STAYS] == told


def test_a_process_that_has_ended_meanwhile_is_no_failure(systemd: Systemd) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    systemd.refuses = "UnixProcessIdUnknown"

    assert AppsUnit(UNIT, systemd).take("app", lambda: {process.pid})


def test_an_app_that_starts_others_without_end_is_left_at_that(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "attach", lambda unit, pid: None)

    assert not AppsUnit(UNIT, systemd).take("app", lambda: {os.getpid()})


def test_without_systemd_the_app_stays_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    made = apps_unit(UNIT)
    assert made is not None

    assert not made.take("app", lambda: {os.getpid()})
    assert "" == made.cgroup
    assert frozenset() == made.pids("app")
    assert apps_unit("") is None


def test_no_other_error_is_taken_for_a_process_that_ended(systemd: Systemd, sleeper: int) -> None:
    def refuse(unit: str, pid: int) -> None:
        raise ValueError("a fault of ours")

    systemd.attach = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="ours"):
        AppsUnit(UNIT, systemd).take("app", lambda: {sleeper})
    assert issubclass(BusError, DriverError)
