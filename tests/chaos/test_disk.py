"""The harness's own disk: full means full, also while somebody gives room back."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.disk import Disk, FaultFailed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "state")
    yield made
    made.close()


def test_a_full_disk_takes_not_a_byte_and_a_freed_one_does(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left") as full:
        (disk.folder / "journal").write_bytes(b"x")
    assert errno.ENOSPC == full.value.errno

    disk.free()
    (disk.folder / "journal").write_bytes(b"x")


def test_what_is_removed_while_it_is_filled_is_filled_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidekick that removed a report just then left its disk full for good: nobody ended a fault that had failed."""
    report = disk.folder / "report"
    looks: list[int] = []
    report.write_bytes(b"x" * 8192)
    room = disk.room

    def look() -> int:
        if not looks:
            report.unlink()
        looks.append(room())
        return looks[-1]

    monkeypatch.setattr(disk, "room", look)
    disk.fill()

    assert looks[0] > 0 == looks[-1]


def test_one_that_cannot_be_filled_is_said_at_once_and_not_taken_for_not_yet(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "room", lambda: 1)

    with pytest.raises(FaultFailed, match="isn't full after 100 attempts"):
        disk.fill()

    assert not issubclass(FaultFailed, AssertionError)
