"""What an app prints doesn't fill the disk."""

import errno
import os
from pathlib import Path

import pytest

from outrider.runtimes.process import output as module
from outrider.runtimes.process.output import Outputs


def grown(folder: Path, size_bytes: int) -> Path:
    home = folder / "app-1"
    home.mkdir()
    path = home / "output.log"
    path.write_bytes(b"x" * (size_bytes - 4) + b"end\n")
    return path


def look(folder: Path, max_bytes: int) -> None:
    outputs = Outputs(folder, max_bytes)
    outputs.look()
    outputs.close()


def test_a_large_output_begins_anew_and_its_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    path = grown(tmp_path, 1000)
    with path.open("ab", buffering=0) as app:
        look(tmp_path, 999)
        app.write(b"on")

    assert (b"on", b"xxxxxxend\n") == (path.read_bytes(), path.with_name("output.log.1").read_bytes())


@pytest.mark.parametrize("size_bytes", [4, 999, 1000])
def test_a_small_one_stays(tmp_path: Path, size_bytes: int) -> None:
    path = grown(tmp_path, size_bytes)

    look(tmp_path, 1000)

    assert size_bytes == path.stat().st_size


def test_on_a_full_disk_it_is_emptied_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_file", full)
    path = grown(tmp_path, 1000)

    look(tmp_path, 10)

    assert 0 == path.stat().st_size


def test_a_link_in_its_place_is_not_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"y" * 1000)
    (tmp_path / "app-1").mkdir()
    (tmp_path / "app-1/output.log").symlink_to(precious)

    look(tmp_path, 10)

    assert 1000 == precious.stat().st_size
