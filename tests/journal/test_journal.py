"""The journal keeps every step, whatever happens to the process or the disk."""

import errno
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import outrider.journal.journal
from outrider.journal.journal import Journal, JournalError, Record, read


def record(number: int, size: int = 10) -> Record:
    return Record(
        number=number,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        event={"name": "x", "text": "y" * size},
        source="a",
        target="b",
        machine={"state": "b"},
        memory={},
    )


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2, 3):
        journal.append(record(number))
    journal.close()

    again = Journal(tmp_path)

    assert again.last == record(3)
    assert [1, 2, 3] == [one.number for one in read(again.path)]
    again.close()


@pytest.mark.parametrize("cut", [1, 2, 9, 10, 50])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.append(record(1))
    whole = journal.path.stat().st_size
    journal.append(record(2))
    journal.close()
    with journal.path.open("rb+") as file:
        file.truncate(whole + cut)

    again = Journal(tmp_path)
    assert again.last == record(1)
    again.append(record(2))
    again.close()

    assert [1, 2] == [one.number for one in read(journal.path)]


def test_a_damaged_last_line_was_never_acted_upon(tmp_path: Path) -> None:
    """Sectors of one write may reach the disk in any order, so the end can be there without the middle."""
    journal = Journal(tmp_path)
    journal.append(record(1))
    whole = journal.path.stat().st_size
    journal.append(record(2))
    journal.close()
    content = bytearray(journal.path.read_bytes())
    content[whole + 30] ^= 0xFF
    journal.path.write_bytes(bytes(content))

    again = Journal(tmp_path)

    assert again.last == record(1)
    again.close()


def test_damage_in_the_middle_is_named_by_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2, 3):
        journal.append(record(number))
    journal.close()
    content = bytearray(journal.path.read_bytes())
    content[20] ^= 0xFF
    journal.path.write_bytes(bytes(content))

    with pytest.raises(JournalError, match=r"journal.jsonl:1: damaged line"):
        read(journal.path)


def test_two_sidekicks_cannot_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    with pytest.raises(JournalError, match="another sidekick"):
        Journal(tmp_path)
    journal.close()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(Record(**{**{name: getattr(record(1), name) for name in Record.__struct_fields__}, "schema": 99}))
    journal.close()

    for _ in range(2):  # the second attempt finds the file free
        with pytest.raises(JournalError, match="schema 99"):
            Journal(tmp_path)


def test_the_file_is_rotated_and_the_last_record_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outrider.journal.journal, "ROTATE_BYTES", 2000)
    journal = Journal(tmp_path)
    for number in range(1, 40):
        journal.append(record(number, size=100))
    journal.close()

    again = Journal(tmp_path)

    assert again.last == record(39, size=100)
    assert again.path.stat().st_size < 4000
    older = read(tmp_path / "journal.1.jsonl")
    assert older[-1].number == read(again.path)[0].number, "the story has no gap"
    again.close()


def test_a_rotation_that_fails_loses_nothing_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outrider.journal.journal, "ROTATE_BYTES", 1000)
    journal = Journal(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "link", full)
        for number in range(1, 10):
            journal.append(record(number, size=300))

    assert list(range(1, 10)) == [one.number for one in read(journal.path)]
    assert ["journal.jsonl"] == [path.name for path in tmp_path.iterdir()]
    journal.append(record(10, size=300))
    journal.close()
    assert [10] == [one.number for one in read(journal.path)]


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.journal.test_journal import record
from outrider.journal.journal import Journal, JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.append(record(1))
size = journal.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    journal.append(record(2, size=5000))
except JournalError as error:
    print(error)
assert journal.path.stat().st_size == size, "half a record was left"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(record(2, size=5000))
"""


def test_a_full_disk_leaves_no_half_record_and_the_next_try_succeeds(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert [1, 2] == [one.number for one in read(tmp_path / "journal.jsonl")]
