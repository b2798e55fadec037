"""Which cgroup this process is in, and whether it was delegated."""

import os
from pathlib import Path

import pytest

from outrider.runtimes.process import cgroups as module
from outrider.runtimes.process.cgroups import Cgroups, cgroup_folder, cgroup_line, find_delegated, own_cgroup
from outrider.runtimes.process.family import unit_cgroup

V2 = "26 25 0:23 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def proc(folder: Path, cgroup: str, mountinfo: str) -> Path:
    made = folder / "proc"
    (made / "self").mkdir(parents=True)
    (made / "self/cgroup").write_text(cgroup)
    (made / "self/mountinfo").write_text(mountinfo)
    return made


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "found"),
    [
        ("0::/system.slice/a.service\n", V2, "{mount}/system.slice/a.service"),
        ("9:name=systemd:/x\n0::/system.slice/a.service\n", V2, "{mount}/system.slice/a.service"),
        ("0::/box/a.service\n", V2.replace("/ {mount}", "/box {mount}"), "{mount}/a.service"),
        ("0::/\n", V2, None),
        ("9:name=systemd:/x\n", V2, None),
        ("0::/system.slice/a.service\n", "26 25 0:23 / /sys rw - sysfs sysfs rw\n", None),
    ],
)
def test_the_own_cgroup_is_where_version_2_is_mounted(
    tmp_path: Path, cgroup: str, mountinfo: str, found: str | None
) -> None:
    made = proc(tmp_path, cgroup, mountinfo.format(mount=tmp_path))

    assert (None if found is None else Path(found.format(mount=tmp_path))) == own_cgroup(made)


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("0::/system.slice/a.service\n", "{mount}/system.slice/apps.service"),
        ("9:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n", None),
    ],
)
def test_a_unit_has_a_folder_only_where_systemd_goes_by_version_2_alone(
    tmp_path: Path, own: str, found: str | None
) -> None:
    made = proc(tmp_path, own, V2.format(mount=tmp_path))

    folder = cgroup_folder("/system.slice/apps.service", made)

    assert (None if found is None else Path(found.format(mount=tmp_path))) == folder


@pytest.mark.parametrize(("mark", "is_delegated"), [("user.delegate", True), ("user.other", False)])
def test_only_a_cgroup_that_systemd_delegated_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, is_delegated: bool
) -> None:
    own = tmp_path / "system.slice/a.service"
    own.mkdir(parents=True)
    (own / "cgroup.procs").touch()
    made = proc(tmp_path, "0::/system.slice/a.service\n", V2.format(mount=tmp_path))
    marks = {(str(own), mark): b"1"}

    def getxattr(path: Path, name: str) -> bytes:
        try:
            return marks[str(path), name]
        except KeyError:
            raise OSError(61, "No data available") from None

    monkeypatch.setattr(os, "getxattr", getxattr)

    assert is_delegated == isinstance(find_delegated(made), Cgroups)


def test_a_cgroup_that_the_kernel_refuses_is_no_error(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path / "away")

    assert not cgroups.put("app", os.getpid())
    assert frozenset() == cgroups.pids("app")
    cgroups.remove("app")


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        ("4:memory:/x\n1:name=systemd:/\n0::/y\n", "/y"),
        ("4:memory:/x\n", ""),
    ],
)
def test_the_cgroup_of_a_process_is_systemds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, line: str
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(lines)
    monkeypatch.setattr(module, "PROC", tmp_path)

    assert line == cgroup_line("self")


@pytest.mark.parametrize(
    ("pid", "lines", "unit"),
    [
        ("ours", "0::/system.slice/outrider-sidekick@a.service\n", "/system.slice/outrider-sidekick@a.service"),
        ("1", "0::/system.slice/runner.service\n", ""),
        ("", "0::/system.slice/runner.service\n", ""),
        ("ours", "0::/user.slice/user-0.slice/session-3.scope\n", ""),
    ],
)
def test_a_units_cgroup_is_ours_only_as_its_main_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: str, lines: str, unit: str
) -> None:
    """What a runner of jobs, or a shell, has started beside us is not ours to stop."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(lines)
    monkeypatch.setattr(module, "PROC", tmp_path)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()) if pid == "ours" else pid)

    assert unit == unit_cgroup()
