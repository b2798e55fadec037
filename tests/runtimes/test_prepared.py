"""Releases that are unpacked ahead: used once, never half, never of another boot, and gone when nobody needs them."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

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

    def unpack(payload: Path, into: Path, **limits: Any) -> None:
        seen.append(into)
        archive.unpack(payload, into, **limits)

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
    monkeypatch.setattr(module, "free_bytes", lambda folder: len(APP) - 1)

    with pytest.raises(DriverError, match=f"no room to unpack it to .* and {len(APP) - 1} may be used there") as caught:
        prepared.make(app)

    assert (True, "disk-full") == (caught.value.retry, caught.value.evidence)
    assert [] == os.listdir(tmp_path / "prepared")


def test_the_reserve_is_left_free_by_what_is_prepared_and_used_by_what_must_run(
    tmp_path: Path, app: RunnableRelease, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Prepared(tmp_path / "prepared", reserve_bytes=50_000)
    monkeypatch.setattr(module, "free_bytes", lambda folder: 40_000)
    monkeypatch.setattr(module, "wanted_bytes", lambda folder, limit_bytes: limit_bytes)

    with pytest.raises(DriverError, match="no room to unpack it") as caught:
        prepared.make(app)
    prepared.move(app, home)

    assert "disk-full" == caught.value.evidence
    assert APP == (home / "root/app.py").read_text()


def test_no_inode_left_is_a_full_disk(
    prepared: Prepared, app: RunnableRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_files", lambda folder: 0)

    with pytest.raises(DriverError, match="and 0 inodes are free there") as caught:
        prepared.make(app)

    assert "disk-full" == caught.value.evidence


@pytest.mark.parametrize("kind", ["a file", "a link", "a link to nothing", "a pipe"])
def test_what_stands_in_the_place_of_the_folder_is_set_aside(
    prepared: Prepared, app: RunnableRelease, tmp_path: Path, kind: str
) -> None:
    place, other = tmp_path / "prepared", tmp_path / "other"
    other.mkdir()
    match kind:
        case "a file":
            place.write_text("mine")
        case "a link":
            place.symlink_to(other)
        case "a link to nothing":
            place.symlink_to("nothing")
        case _:
            os.mkfifo(place)

    prepared.make(app)

    assert place.is_dir()
    assert not place.is_symlink()
    assert [] == os.listdir(other)
    assert os.path.lexists(tmp_path / "prepared.damaged-1")


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
