"""Releases that are unpacked ahead: used once, never half, never of another boot, and gone when nobody needs them."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.core.errors import DriverError
from outrider.payloads import archive
from outrider.runtimes import RunnableRelease
from outrider.runtimes.process import prepared as module
from outrider.runtimes.process.prepared import Prepared
from tests.support.workloads import APP, payload, release


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return Prepared(tmp_path / "prepared")


@pytest.fixture
def app(tmp_path: Path) -> RunnableRelease:
    return release("1.0.0", payload(tmp_path))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "workloads" / "web-1"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where something was unpacked, in order."""
    seen: list[Path] = []

    def unpack(payload: Path, into: Path, *, room_bytes: int | None = None) -> None:
        seen.append(into)
        archive.unpack(payload, into, room_bytes=room_bytes)

    monkeypatch.setattr(module, "unpack", unpack)
    return seen


def test_what_was_prepared_is_moved_and_not_unpacked_again(
    prepared: Prepared, app: RunnableRelease, home: Path, unpacked: list[Path], tmp_path: Path
) -> None:
    for _ in range(2):
        prepared.make(app)
    assert 1 == len(unpacked)

    for _ in range(2):
        prepared.move(app, home)

    assert APP == (home / "root/app.py").read_text()
    assert 1 == len(unpacked)
    assert [] == os.listdir(tmp_path / "prepared")


def test_two_workloads_of_one_release_share_nothing(
    prepared: Prepared, app: RunnableRelease, home: Path, unpacked: list[Path]
) -> None:
    """The app may write into its folder."""
    other = home.with_name("web-2")
    other.mkdir()
    prepared.make(app)
    prepared.move(app, home)
    (home / "root/app.py").write_text("changed")

    prepared.move(app, other)

    assert APP == (other / "root/app.py").read_text()
    assert "changed" == (home / "root/app.py").read_text()
    assert 2 == len(unpacked)


def test_nothing_of_another_boot_is_used(
    prepared: Prepared, app: RunnableRelease, home: Path, monkeypatch: pytest.MonkeyPatch, unpacked: list[Path]
) -> None:
    """After a power cut files may be empty that were whole before."""
    prepared.make(app)
    monkeypatch.setattr(module, "boot_id", lambda: "the next boot")

    prepared.move(app, home)

    assert 2 == len(unpacked)
    assert "the next boot" == (home / "unpacked").read_text()
    prepared.make(app)
    assert 3 == len(unpacked)


@pytest.mark.parametrize("left", ["moved", "partial", "half pruned"])
def test_what_a_kill_left_behind_is_made_good(
    prepared: Prepared, app: RunnableRelease, home: Path, tmp_path: Path, left: str
) -> None:
    folder = tmp_path / "prepared" / app.sha256
    prepared.make(app)
    match left:
        case "moved":  # and not said on which boot it was unpacked
            (folder / "root").rename(home / "root")
            (home / "root/app.py").write_text("")
        case "partial":
            folder.rename(folder.with_name(f"{folder.name}.partial"))
        case "half pruned":
            folder.rename(folder.with_name(f"{folder.name}.removed"))
            shutil.copytree(folder.with_name(f"{folder.name}.removed"), folder)

    prepared.move(app, home)
    assert APP == (home / "root/app.py").read_text()

    prepared.prune([app.sha256])
    assert {app.sha256} >= set(os.listdir(tmp_path / "prepared"))


def test_only_what_is_needed_stays(prepared: Prepared, app: RunnableRelease, tmp_path: Path) -> None:
    other = replace(app, sha256="2" * 64)
    prepared.prune([])  # before there is anything
    for one in (app, other):
        prepared.make(one)

    prepared.prune([other.sha256])
    assert [other.sha256] == os.listdir(tmp_path / "prepared")

    prepared.prune([])
    assert [] == os.listdir(tmp_path / "prepared")


def test_what_does_not_fit_is_this_machines_trouble_before_the_disk_is_full(
    prepared: Prepared, app: RunnableRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(APP) - 1))

    with pytest.raises(DriverError, match=f"no room to unpack it to .*: {len(APP) - 1} bytes are free") as caught:
        prepared.make(app)

    assert caught.value.retry
    assert [] == os.listdir(tmp_path / "prepared")


def test_a_file_in_the_way_is_this_machines_trouble(prepared: Prepared, app: RunnableRelease, tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("")

    with pytest.raises(DriverError, match=r"1\.0\.0: can't unpack to"):
        prepared.make(app)


def test_a_start_uses_what_was_prepared(tmp_path: Path, unpacked: list[Path]) -> None:
    from tests.support.workloads import make_process_runtime, spec

    runtime = make_process_runtime(tmp_path / "state", command=(sys.executable, "app.py"))
    wanted = spec(tmp_path)
    try:
        runtime.prepare(wanted.release)
        runtime.start(wanted)

        assert [tmp_path / "state/prepared" / f"{wanted.release.sha256}.partial/root"] == unpacked
    finally:
        runtime.remove(wanted.workload_id)
        runtime.close()
