"""A journal that is none, and a disk that is full."""

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outrider.journal import reserve
from outrider.journal.journal import Journal, JournalError, Record

RESERVE_BYTES = 64 * 1024


def record(number: int) -> Record:
    return Record(
        number=number, at=datetime(2026, 1, 1, tzinfo=UTC), event={"name": "x"}, source="a", target="b",
        machine={"state": "b"}, memory={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (bytes(4096), "holds nothing but zeros"),
        (b"\x7fELF" + os.urandom(500), "holds no record of a sidekick"),
        (b"Nov 29 16:00:01 host app: started\n" * 20, "holds no record of a sidekick"),
        (b'{"journal": 1}\n', "holds no record of a sidekick"),
        (b"half a line", "holds no record of a sidekick"),
    ],
)
def test_what_is_no_journal_is_set_aside_and_a_new_one_begins(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)

    journal = Journal(tmp_path)

    assert (None, f"{path}: {what}") == (journal.last, journal.lost)
    assert content == (tmp_path / "journal.jsonl.damaged-1").read_bytes()
    journal.append(record(1))
    journal.close()
    again = Journal(tmp_path)
    assert (record(1), "") == (again.last, again.lost)
    again.close()


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing", "pipe"])
def test_something_else_in_its_place_is_set_aside_and_never_followed(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "journal.jsonl", tmp_path / "precious"
    precious.write_text("keep me")
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("precious")
        case "link to nothing":
            path.symlink_to("nothing")
        case _:
            os.mkfifo(path)

    journal = Journal(tmp_path)
    journal.append(record(1))
    journal.close()

    assert journal.lost.endswith("is not a file")
    assert ("keep me", 0o600) == (precious.read_text(), stat.S_IMODE(path.lstat().st_mode))
    assert not (tmp_path / "nothing").exists()


def test_an_empty_journal_is_lost_where_an_instance_has_run_and_new_where_none_has(tmp_path: Path) -> None:
    for name, lost in (("new", False), ("used", True)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"")
        if lost:
            (folder / "workloads").mkdir()

        journal = Journal(folder)

        assert lost == bool(journal.lost), name
        journal.close()


class Full:
    """A disk on which nothing more can be written while ``reserve`` is there."""

    def __init__(self, folder: Path, *also: Path) -> None:
        self._taken = (folder / reserve.NAME, *also)
        self._write = os.write

    def write(self, descriptor: int, content: bytes) -> int:
        if all(path.exists() for path in self._taken):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(descriptor, content)


def test_on_a_full_disk_the_reserve_gives_the_journal_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, reserve_bytes=RESERVE_BYTES)
    assert RESERVE_BYTES == (tmp_path / "reserve").stat().st_size
    monkeypatch.setattr(reserve, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(os, "write", Full(tmp_path).write)

    journal.append(record(1))

    assert record(1) == journal.last
    assert not (tmp_path / "reserve").exists()
    journal.close()


def test_the_reserve_comes_back_when_there_is_room_for_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, reserve_bytes=RESERVE_BYTES)
    (tmp_path / "reserve").unlink()
    for free, there in ((RESERVE_BYTES, False), (2 * RESERVE_BYTES - 1, False), (2 * RESERVE_BYTES, True)):
        monkeypatch.setattr(reserve, "free_bytes", lambda folder, free=free: free)

        journal.append(record(1))

        assert there == (tmp_path / "reserve").exists(), free
    journal.close()


def test_without_a_reserve_the_older_journal_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "journal.1.jsonl"
    journal = Journal(tmp_path)
    older.write_bytes(b"old")
    real = os.write

    def write(descriptor: int, content: bytes) -> int:
        if older.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", write)

    journal.append(record(1))

    assert not older.exists()
    journal.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_another_trouble_than_a_full_disk_costs_no_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = Journal(tmp_path, reserve_bytes=RESERVE_BYTES)

    def write(descriptor: int, content: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", write)

    with pytest.raises(JournalError, match=os.strerror(number)):
        journal.append(record(1))

    assert (tmp_path / "reserve").exists()
    journal.close()
