"""Promises of ``etcd/seam.py``: watches."""

import threading
from typing import cast

import pytest

from outrider.etcd.seam import (
    Cluster,
    Delete,
    KeyChanged,
    Put,
    Resynced,
    Watch,
    WatchEvent,
)
from tests.contracts.etcd.fixture import EtcdFixture
from tests.contracts.etcd.words import Diary, entry, now, put, watch
from tests.support.waiting import eventually


def test_a_watch_delivers_every_change_once_in_order_on_a_thread_of_its_own(store: Cluster, prefix: str) -> None:
    diary = Diary()
    started = watch(store, prefix, diary)

    revisions = [put(store, f"{prefix}{number % 7}", str(number).encode()) for number in range(100)]

    eventually(lambda: len(diary.events) >= 100)
    assert [(f"{prefix}{number % 7}", str(number).encode()) for number in range(100)] == diary.told()
    assert revisions == [event.revision for event in diary.events if isinstance(event, KeyChanged)]
    assert len(diary.threads) == 1
    assert threading.current_thread().name not in diary.threads
    started.close()


def test_a_change_carries_the_entry_as_it_was_written(store: Cluster, prefix: str) -> None:
    diary = Diary()
    lease = store.grant(60)
    started = watch(store, prefix, diary)

    revision = put(store, prefix + "a", b"1", lease=lease)
    written = entry(store, prefix + "a")
    removed = store.txn((), (Delete(key=prefix + "a"),)).revision

    eventually(lambda: len(diary.events) >= 2)
    assert [
        KeyChanged(key=prefix + "a", entry=written, revision=revision),
        KeyChanged(key=prefix + "a", entry=None, revision=removed),
    ] == diary.events
    started.close()


def test_a_watch_that_is_to_look_again_lists_everything_and_goes_on_from_there(store: Cluster, prefix: str) -> None:
    put(store, prefix + "a", b"1")
    put(store, prefix + "b", b"1")
    diary = Diary()
    started = watch(store, prefix, diary)
    put(store, prefix + "a", b"2")
    eventually(lambda: len(diary.events) == 1)

    started.look_again()
    eventually(lambda: any(isinstance(event, Resynced) for event in diary.events))
    put(store, prefix + "c", b"3")
    store.txn((), (Delete(key=prefix + "a"),))

    eventually(lambda: len(diary.events) >= 4)
    (resynced,) = [event for event in diary.events if isinstance(event, Resynced)]
    assert [(prefix + "a", b"2"), (prefix + "b", b"1")] == [(one.key, one.value) for one in resynced.listing.entries]
    after = diary.events[diary.events.index(resynced) + 1 :]
    assert [(prefix + "c", True), (prefix + "a", False)] == [
        (event.key, event.entry is not None) for event in after if isinstance(event, KeyChanged)
    ]
    started.close()
    started.look_again()


def test_a_watch_from_an_old_revision_delivers_what_happened_since(store: Cluster, prefix: str) -> None:
    put(store, prefix + "a", b"before")
    second = put(store, prefix + "a", b"second")
    put(store, prefix + "a", b"third")
    diary = Diary()

    started = store.watch(prefix, second, diary)

    eventually(lambda: diary.told() == [(prefix + "a", b"second"), (prefix + "a", b"third")])
    put(store, prefix + "b", b"new")
    eventually(lambda: diary.told()[2:] == [(prefix + "b", b"new")])
    started.close()


def test_a_watch_from_a_revision_to_come_skips_what_happens_before_it(store: Cluster, prefix: str) -> None:
    diary = Diary()
    started = store.watch(prefix, now(store, prefix) + 3, diary)

    for number in range(4):
        put(store, f"{prefix}{number}")

    eventually(lambda: diary.told() == [(prefix + "2", b"x"), (prefix + "3", b"x")])
    started.close()


def test_a_watch_does_not_hear_of_other_prefixes(store: Cluster, prefix: str) -> None:
    diary = Diary()
    started = watch(store, prefix + "a/", diary)

    for key in ("a", "a0", "b/1", "a/1"):
        put(store, prefix + key)

    eventually(lambda: diary.told() == [(prefix + "a/1", b"x")])
    started.close()


def test_an_exact_watch_hears_of_one_key_only(store: Cluster, prefix: str) -> None:
    diary = Diary()
    started = watch(store, prefix + "a", diary, exact=True)

    for key in ("a/1", "ab", "a"):
        put(store, prefix + key)

    eventually(lambda: diary.told() == [(prefix + "a", b"x")])
    started.close()


def test_the_changes_of_one_transaction_come_one_by_one_with_one_revision(store: Cluster, prefix: str) -> None:
    diary = Diary()
    started = watch(store, prefix, diary)

    revision = store.txn((), tuple(Put(key=f"{prefix}{number}", value=b"") for number in range(100))).revision

    eventually(lambda: len(diary.events) >= 100)
    assert {f"{prefix}{number}" for number in range(100)} == {key for key, _ in diary.told()}
    assert [revision] * 100 == [event.revision for event in diary.events if isinstance(event, KeyChanged)]
    started.close()


def test_a_write_that_follows_the_return_of_watch_is_delivered(fixture: EtcdFixture, prefix: str) -> None:
    diary = Diary()
    started = watch(fixture.cluster, prefix, diary)

    put(fixture.other, prefix + "a")

    eventually(lambda: diary.told() == [(prefix + "a", b"x")])
    started.close()


def test_a_delivery_may_call_the_store(store: Cluster, prefix: str) -> None:
    def copy(event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged)
        put(store, event.key.replace("/in/", "/out/"), b"copied")

    started = watch(store, prefix + "in/", cast(Diary, copy))
    put(store, prefix + "in/a")

    eventually(lambda: store.get(prefix + "out/a"))
    started.close()


def test_a_slow_delivery_delays_the_next_one_and_loses_nothing(store: Cluster, prefix: str) -> None:
    let_go, inside, diary = threading.Event(), [0], Diary()

    def slow(event: WatchEvent) -> None:
        inside[0] += 1
        assert inside[0] == 1, "two deliveries at once"
        let_go.wait(60)
        diary(event)
        inside[0] -= 1

    started = watch(store, prefix, cast(Diary, slow))
    for number in range(5):
        put(store, f"{prefix}{number}")
    assert diary.events == []

    let_go.set()

    eventually(lambda: [key for key, _ in diary.told()] == [f"{prefix}{number}" for number in range(5)])
    started.close()


def test_a_delivery_that_fails_does_not_cost_the_next_ones(store: Cluster, prefix: str) -> None:
    diary = Diary()

    def clumsy(event: WatchEvent) -> None:
        diary(event)
        if len(diary.events) == 1:
            raise KeyError("a bug in the delivery")

    started = watch(store, prefix, cast(Diary, clumsy))
    put(store, prefix + "a")
    put(store, prefix + "b")

    eventually(lambda: len(diary.events) == 2)
    started.close()


def test_after_close_nothing_is_delivered_and_closing_twice_is_safe(store: Cluster, prefix: str) -> None:
    closed, open_ = Diary(), Diary()
    first, second = watch(store, prefix, closed), watch(store, prefix, open_)
    put(store, prefix + "a")
    eventually(lambda: closed.told() and open_.told())

    first.close()
    first.close()
    put(store, prefix + "b")

    eventually(lambda: len(open_.events) == 2)
    assert [(prefix + "a", b"x")] == closed.told()
    second.close()


def test_close_waits_for_the_delivery_under_way(store: Cluster, prefix: str) -> None:
    entered, let_go, done = threading.Event(), threading.Event(), threading.Event()

    def slow(event: WatchEvent) -> None:
        entered.set()
        let_go.wait(60)
        done.set()

    started = watch(store, prefix, cast(Diary, slow))
    put(store, prefix + "a")
    assert entered.wait(60)
    threading.Timer(0.1, let_go.set).start()

    started.close()

    assert done.is_set()


def test_a_watch_may_be_closed_from_its_own_delivery(store: Cluster, prefix: str) -> None:
    diary = Diary()
    box: list[Watch] = []

    def last(event: WatchEvent) -> None:
        diary(event)
        eventually(lambda: box)[0].close()

    box.append(watch(store, prefix, cast(Diary, last)))
    store.txn((), tuple(Put(key=f"{prefix}{number}", value=b"") for number in range(3)))
    eventually(lambda: diary.events)
    reference = Diary()
    after = watch(store, prefix, reference)
    put(store, prefix + "b")

    eventually(lambda: reference.events)
    assert len(diary.events) == 1
    after.close()


def test_a_watch_from_a_revision_below_one_is_a_mistake(store: Cluster, prefix: str) -> None:
    with pytest.raises(ValueError, match="list first"):
        store.watch(prefix, 0, Diary())


def test_a_watch_from_a_revision_that_was_compacted_away_begins_with_the_whole_prefix(
    fixture: EtcdFixture, prefix: str
) -> None:
    store, diary = fixture.cluster, Diary()
    first = put(store, prefix + "a", b"1")
    put(store, prefix + "a", b"2")
    put(store, prefix + "b", b"3")
    fixture.compact()

    started = store.watch(prefix, first, diary)

    eventually(lambda: diary.events)
    put(store, prefix + "c", b"4")
    eventually(lambda: len(diary.events) == 2)
    resynced = diary.events[0]
    assert isinstance(resynced, Resynced)
    assert [b"2", b"3"] == [each.value for each in resynced.listing.entries]
    assert [(prefix + "c", b"4")] == diary.told()
    started.close()


def test_an_exact_watch_resyncs_with_its_one_key(fixture: EtcdFixture, prefix: str) -> None:
    store, diary = fixture.cluster, Diary()
    first = put(store, prefix + "a", b"1")
    put(store, prefix + "a", b"2")
    put(store, prefix + "ab", b"3")
    fixture.compact()

    started = store.watch(prefix + "a", first, diary, exact=True)

    resynced = eventually(lambda: diary.events)[0]
    assert isinstance(resynced, Resynced)
    assert [prefix + "a"] == [each.key for each in resynced.listing.entries]
    started.close()


def test_a_compaction_does_not_disturb_a_watch_that_is_connected(fixture: EtcdFixture, prefix: str) -> None:
    store, diary = fixture.cluster, Diary()
    started = watch(store, prefix, diary)
    for number in range(20):
        put(store, f"{prefix}{number}")

    fixture.compact()
    put(store, prefix + "after")

    eventually(lambda: len(diary.events) == 21)
    assert [f"{prefix}{number}" for number in range(20)] + [prefix + "after"] == [key for key, _ in diary.told()]
    started.close()
