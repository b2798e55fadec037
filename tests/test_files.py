"""Our files: private whatever the umask is, and never through a link."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.files import clear_file, make_folder, open_file, read_file, set_aside, write_file


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_files_and_folders_are_private_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    make_folder(tmp_path / "a/b")
    write_file(tmp_path / "a/b/file", b"x")
    os.close(open_file(tmp_path / "a/b/other", os.O_WRONLY | os.O_CREAT))

    assert [0o700, 0o700] == [mode(tmp_path / "a"), mode(tmp_path / "a/b")]
    assert [0o600, 0o600] == [mode(tmp_path / "a/b/file"), mode(tmp_path / "a/b/other")]


def test_what_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o644)

    make_folder(tmp_path / "folder")
    os.close(open_file(tmp_path / "file", os.O_RDONLY))

    assert (0o700, 0o600) == (mode(tmp_path / "folder"), mode(tmp_path / "file"))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT])
def test_a_link_is_neither_followed_nor_truncated(tmp_path: Path, flags: int) -> None:
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "link").symlink_to("precious")

    with pytest.raises(OSError, match="symbolic links"):
        open_file(tmp_path / "link", flags)

    assert "keep me" == (tmp_path / "precious").read_text()


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing", "pipe"])
def test_what_stands_in_a_files_place_is_set_aside_and_kept(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "file", tmp_path / "precious"
    precious.write_text("keep me")
    match kind:
        case "folder":
            (path / "inside").mkdir(parents=True)
        case "link":
            path.symlink_to("precious")
        case "link to nothing":
            path.symlink_to("nothing")
        case _:
            os.mkfifo(path)

    write_file(path, b"new")

    assert (b"new", "keep me") == (read_file(path), precious.read_text())
    assert os.path.lexists(tmp_path / "file.damaged-1")
    assert not (tmp_path / "nothing").exists()


def test_a_second_one_set_aside_does_not_hide_the_first(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "file").write_text(content)
        set_aside(tmp_path / "file")

    assert ["one", "two"] == [(tmp_path / f"file.damaged-{number}").read_text() for number in (1, 2)]


def test_clearing_keeps_a_file_only_when_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    clear_file(tmp_path / "file", keep=True)
    assert (tmp_path / "file").exists()
    clear_file(tmp_path / "file")
    assert not (tmp_path / "file").exists()
