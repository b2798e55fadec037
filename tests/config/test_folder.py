"""A folder with a settings file for each instance: one that can't be used keeps no other from being read."""

import os
from pathlib import Path

import pytest

from outrider.config.folder import Folder
from outrider.core.errors import ConfigError

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
MINIMAL = f'[instance]\napp = "{APP}"\ngroup = "web"\nbalancer = "none"\n[process]\ncommand = ["./run"]\n'


def folder_with(path: Path, common: tuple[Path, ...] = (), **files: str) -> Folder:
    for name, text in files.items():
        (path / f"{name}.toml").write_text(text)
    return Folder(path, common, {})


def test_an_instance_is_called_like_its_file_unless_the_file_names_it(tmp_path: Path) -> None:
    named = MINIMAL.replace("[instance]", '[instance]\nid = "front"')
    folder = folder_with(tmp_path, a=MINIMAL, b=named)

    assert folder.read()

    assert {"a.toml": "a", "b.toml": "front"} == {
        path.name: loaded.settings.instance.id for path, loaded in folder.loaded.items()
    }
    assert {"a", "front"} == {loaded.settings.instance.state_dir.name for loaded in folder.loaded.values()}


def test_common_files_come_before_each_instances_own(tmp_path: Path) -> None:
    common = tmp_path / "common.toml"
    common.write_text('[service]\nurls = ["http://update.example:8000"]\n[soak]\nduration_s = 9\n')
    (tmp_path / "instances").mkdir()
    folder = folder_with(tmp_path / "instances", (common,), a=MINIMAL, b=MINIMAL + "[soak]\nduration_s = 3\n")

    folder.read()

    assert [9.0, 3.0] == [loaded.settings.soak.duration_s for loaded in folder.loaded.values()]
    assert {("http://update.example:8000",)} == {loaded.settings.service.urls for loaded in folder.loaded.values()}


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("nonsense", "b.toml"),
        (MINIMAL.replace("group", "gruop"), "gruop"),
        (MINIMAL.replace("[instance]", '[instance]\nid = "a"'), "b.toml: is instance 'a' of the same app as in a.toml"),
        (MINIMAL + '[etcd]\nendpoints = ["10.0.0.9:2379"]\n', r"b.toml: \[etcd\] differs from a.toml"),
        (MINIMAL + "[lock]\nttl_s = 99\n", "b.toml: lock.ttl_s differs from a.toml"),
        (MINIMAL.replace("[instance]", '[instance]\nstate_dir = "/var/lib/outrider/a"'), "state_dir is that of a.toml"),
    ],
)
def test_one_that_cannot_be_used_is_one_line_and_the_others_are_read(tmp_path: Path, second: str, why: str) -> None:
    folder = folder_with(tmp_path, a=MINIMAL, b=second, c=MINIMAL)

    folder.read()

    assert ["a.toml", "c.toml"] == [path.name for path in folder.loaded]
    (problem,) = folder.problems.values()
    with pytest.raises(ConfigError, match=why):
        raise ConfigError(problem)


def test_it_is_read_again_only_when_a_file_has_changed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=MINIMAL)
    assert folder.read()
    assert not folder.read()
    assert folder.read(again=True)

    (tmp_path / "b.toml").write_text(MINIMAL)
    assert folder.read()
    (tmp_path / "b.toml").write_text(MINIMAL + "# longer\n")
    assert folder.read()
    os.utime(tmp_path / "b.toml", (1, 1))
    assert folder.read()
    (tmp_path / "b.toml").unlink()
    assert folder.read()
    assert not folder.read()


def test_what_editors_and_installers_leave_beside_a_file_for_a_moment_is_no_instance(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=MINIMAL)
    (tmp_path / ".ansible_tmp1a.toml").write_text(MINIMAL)
    (tmp_path / ".#a.toml").symlink_to("somebody@host.4711")
    (tmp_path / "a.toml~").write_text(MINIMAL)

    folder.read()

    assert (["a.toml"], {}) == ([path.name for path in folder.loaded], folder.problems)


@pytest.mark.parametrize("name", ["OUTRIDER_INSTANCE_ID", "OUTRIDER_INSTANCE_STATE_DIR", "OUTRIDER_INSTANCE_ALIAS"])
def test_a_variable_that_names_one_instance_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} names one instance, and --config-dir runs several: unset it"):
        Folder(tmp_path, (), {name: "a"}).read()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; make it"):
        Folder(tmp_path / "instances", (), {}).read()
