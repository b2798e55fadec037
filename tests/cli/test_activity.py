"""``outrider activity --follow`` prints each record once, whatever happens to its watch."""

from datetime import UTC, datetime

from outrider.cli.commands.activity import Unprinted
from outrider.etcd.seam import Entry, KeyChanged, Listing, Resynced
from outrider.model.activity import Activity
from outrider.model.documents import encode

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def entry(name: str, revision: int) -> Entry:
    record = Activity(at=NOON, app="shop", severity="success", kind="rollout-started", text=name)
    return Entry(key=f"/activity/{name}", value=encode(record), create_revision=revision, mod_revision=revision)


def written(name: str, revision: int) -> KeyChanged:
    return KeyChanged(key=f"/activity/{name}", entry=entry(name, revision), revision=revision)


def resynced(*names: str) -> Resynced:
    entries = tuple(entry(name, 10 - at) for at, name in enumerate(names))
    return Resynced(listing=Listing(entries=entries, revision=20))


def texts(unprinted: Unprinted, event: KeyChanged | Resynced) -> list[str]:
    return [record.text for record in unprinted.of(event)]


def test_what_was_read_before_the_watch_began_is_not_printed_again() -> None:
    unprinted = Unprinted(["/activity/a"])

    assert [] == texts(unprinted, written("a", 3))
    assert ["b"] == texts(unprinted, written("b", 4))
    assert [] == texts(unprinted, written("b", 4))


def test_after_a_compaction_or_a_restore_what_is_new_is_printed_oldest_first() -> None:
    unprinted = Unprinted(["/activity/a"])

    assert ["c", "b"] == texts(unprinted, resynced("b", "c", "a"))
    assert [] == texts(unprinted, resynced("b", "c", "a"))


def test_what_is_removed_is_no_news_and_may_come_again() -> None:
    unprinted = Unprinted(["/activity/a"])

    assert [] == texts(unprinted, KeyChanged(key="/activity/a", entry=None, revision=5))
    assert ["a"] == texts(unprinted, written("a", 6))


def test_a_record_that_cannot_be_read_hides_no_other() -> None:
    damaged = Entry(key="/activity/0", value=b"{", create_revision=1, mod_revision=1)
    both = Resynced(listing=Listing(entries=(damaged, entry("a", 2)), revision=9))

    assert ["a"] == texts(Unprinted([]), both)
