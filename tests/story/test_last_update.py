"""What a sidekick reads of its own journal at the end of each update: the same as of the whole, never more of it."""

import tracemalloc
from pathlib import Path

import pytest

from outrider.journal import journal
from outrider.journal.journal import JournalError, read, read_backwards
from outrider.statechart import load_sidekick_chart
from outrider.story.lines import read_last_update, read_lines
from outrider.story.local import EARLIER, last_story

JOURNALS = Path(__file__).parent.parent / "data/journals"
NAMES = sorted(path.stem for path in JOURNALS.glob("*.jsonl"))
CHART = load_sidekick_chart()
ROTATED_BYTES = 4 * 1024 * 1024
MOST_BYTES = 1024 * 1024
"""In memory at once; a whole journal of four megabytes takes forty."""


def bytes_of(name: str) -> bytes:
    return (JOURNALS / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("block_bytes", [1, 7, 1000, 64 * 1024])
@pytest.mark.parametrize("tail", [b"", b"torn", b"deadbeef {}\n", b"deadbeef {}\ntorn"])
def test_backwards_it_is_the_same_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, tail: bytes
) -> None:
    monkeypatch.setattr(journal, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "journal.jsonl"
    whole = bytes_of("good_update")
    path.write_bytes(whole[: whole.index(b"\n", 20_000) + 1] + tail)

    backwards = list(read_backwards(path))

    assert len(backwards) > 3
    assert read(path) == backwards[::-1]


@pytest.mark.parametrize("content", [b"", b"torn", b"\n", b"deadbeef {}\n"])
def test_backwards_an_empty_journal_is_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)

    assert [] == read(path) == list(read_backwards(path))


def test_backwards_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = bytes_of("good_update")
    path.write_bytes(whole + b"deadbeef {}\n" + whole)

    with pytest.raises(JournalError, match="damaged line"):
        list(read_backwards(path))
    with pytest.raises(JournalError):
        list(read_backwards(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("names", [[one] for one in NAMES] + [NAMES, NAMES[::-1]], ids="+".join)
def test_the_last_update_is_told_as_from_the_whole_journal(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(map(bytes_of, names)))

    told = last_story(read_last_update(path, earlier=EARLIER), CHART)

    whole = last_story(read_lines(path), CHART)
    assert (whole is None) == (told is None)
    if whole is not None and told is not None:
        assert (whole.update, whole.outcome, whole.moments) == (told.update, told.outcome, told.moments)


@pytest.mark.parametrize("at", [3, 10, 25])
def test_the_last_update_may_have_begun_before_the_journal_was_rotated(tmp_path: Path, at: int) -> None:
    lines = (bytes_of("bad_release") + bytes_of("good_update")).splitlines(keepends=True)
    (tmp_path / "journal.1.jsonl").write_bytes(b"".join(lines[:-at]))
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[-at - 1 :]))

    told = last_story(read_last_update(tmp_path / "journal.jsonl", earlier=EARLIER), CHART)

    whole = last_story(read_lines(tmp_path / "journal.jsonl"), CHART)
    assert whole is not None
    assert told is not None
    assert whole.moments == told.moments


def test_without_an_update_that_has_ended_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(bytes_of("good_update").splitlines(keepends=True)[:5]))

    assert () == read_last_update(path, earlier=EARLIER)


@pytest.mark.parametrize("ends_with", ["an update", "half of one"])
def test_a_long_journal_takes_no_more_memory_than_a_short_one(tmp_path: Path, ends_with: str) -> None:
    """Before, a sidekick grew by a megabyte a minute of rollouts, until its journal was rotated."""
    one = bytes_of("good_update")
    more = b"".join(one.splitlines(keepends=True)[:12]) if ends_with == "half of one" else b""
    long, short = tmp_path / "long.jsonl", tmp_path / "short.jsonl"
    long.write_bytes(one * (ROTATED_BYTES // len(one)) + more)
    short.write_bytes(one * 2 + more)

    def peak_of(path: Path) -> int:
        tracemalloc.start()
        try:
            assert read_last_update(path, earlier=EARLIER)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(short)
    assert peak_of(long) < MOST_BYTES
    assert peak_of(long) < 1.2 * peak_of(short)
