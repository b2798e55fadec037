"""Promises of ``etcd/seam.py``: reading, transactions, leases."""

import threading

import pytest

from outrider.core.errors import Refused
from outrider.etcd.seam import (
    Cluster,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    KeyChanged,
    Listing,
    ModifiedAt,
    NotNewer,
    Put,
    TxnResult,
)
from tests.contracts.etcd.fixture import EtcdFixture
from tests.contracts.etcd.words import Diary, entry, now, put, watch
from tests.support.waiting import eventually


def test_a_key_that_does_not_exist_is_none(store: Cluster, prefix: str) -> None:
    assert store.get(prefix + "nothing") is None


def test_a_key_is_read_with_its_value_revisions_and_lease(store: Cluster, prefix: str) -> None:
    lease = store.grant(60)
    created = put(store, prefix + "a", b"1")
    modified = put(store, prefix + "a", b"\x00\xff", lease=lease)

    assert store.get(prefix + "a") == Entry(
        key=prefix + "a", value=b"\x00\xff", create_revision=created, mod_revision=modified, lease=lease
    )


def test_writing_a_key_without_a_lease_takes_it_off_its_lease(store: Cluster, prefix: str) -> None:
    lease = store.grant(60)
    put(store, prefix + "a", lease=lease)
    put(store, prefix + "a")

    store.revoke(lease)

    assert entry(store, prefix + "a").lease == 0


def test_the_create_revision_restarts_when_a_removed_key_is_written_anew(store: Cluster, prefix: str) -> None:
    first = put(store, prefix + "a")
    store.txn((), (Delete(key=prefix + "a"),))

    again = put(store, prefix + "a")

    assert (again, again) == (entry(store, prefix + "a").create_revision, entry(store, prefix + "a").mod_revision)
    assert again > first


def test_a_listing_holds_the_keys_below_the_prefix_by_key_and_no_others(store: Cluster, prefix: str) -> None:
    outside = prefix.rstrip("/") + "0"  # the first key after all keys below the prefix
    for key in ("b", "a", "b/c", "ä"):
        put(store, prefix + key)
    put(store, outside)

    listing = store.list(prefix)

    assert [prefix + key for key in ("a", "b", "b/c", "ä")] == [each.key for each in listing.entries]
    assert entry(store, outside).mod_revision == listing.revision


def test_a_listing_of_nothing_still_names_the_revision(store: Cluster, prefix: str) -> None:
    revision = put(store, prefix + "a")

    assert Listing(entries=(), revision=revision) == store.list(prefix + "nothing/")


def test_a_transaction_does_all_or_nothing(store: Cluster, prefix: str) -> None:
    put(store, prefix + "a", b"old")
    ops = (Put(key=prefix + "a", value=b"new"), Put(key=prefix + "b", value=b"new"))

    failed = store.txn((CreatedAt(key=prefix + "a", revision=0),), ops)
    unwritten = (entry(store, prefix + "a").value, store.get(prefix + "b"))
    done = store.txn((CreatedAt(key=prefix + "b", revision=0),), ops)

    assert (False, b"old", None) == (failed.succeeded, *unwritten)
    assert done.succeeded
    assert [b"new", b"new"] == [each.value for each in store.list(prefix).entries]
    assert {done.revision} == {each.mod_revision for each in store.list(prefix).entries}


def test_a_failed_transaction_returns_the_compared_entries_that_exist(store: Cluster, prefix: str) -> None:
    revision = put(store, prefix + "a", b"1")
    compares = (
        ModifiedAt(key=prefix + "a", revision=revision + 1),
        CreatedAt(key=prefix + "a", revision=revision),
        CreatedAt(key=prefix + "b", revision=7),
    )

    result = store.txn(compares, (Put(key=prefix + "b", value=b""),))

    found = Entry(key=prefix + "a", value=b"1", create_revision=revision, mod_revision=revision)
    assert TxnResult(succeeded=False, revision=revision, found=(found,)) == result


def test_a_transaction_that_succeeds_returns_its_revision_and_finds_nothing(store: Cluster, prefix: str) -> None:
    before = now(store, prefix)

    result = store.txn((CreatedAt(key=prefix + "a", revision=0),), (Put(key=prefix + "a", value=b""),))

    assert TxnResult(succeeded=True, revision=before + 1) == result


@pytest.mark.parametrize("kind", [CreatedAt, ModifiedAt])
def test_revision_zero_means_that_the_key_does_not_exist(
    store: Cluster, prefix: str, kind: type[CreatedAt] | type[ModifiedAt]
) -> None:
    absent = store.txn((kind(key=prefix + "a", revision=0),), (Put(key=prefix + "a", value=b""),))
    present = store.txn((kind(key=prefix + "a", revision=0),), (Put(key=prefix + "a", value=b""),))

    assert (True, False) == (absent.succeeded, present.succeeded)


def test_not_newer_is_about_all_keys_below_a_prefix(store: Cluster, prefix: str) -> None:
    """
    1. nothing is there, then two keys that were written before: it holds
    2. one of them is written again, or another one appears: it doesn't
    3. a removal makes nothing newer; a key beside the prefix does not matter
    """
    below, compared = f"{prefix}budgets/", f"{prefix}budgets/"

    def holds(revision: int) -> bool:
        return store.txn(
            (NotNewer(key=compared, revision=revision),), (Put(key=prefix + "written", value=b""),)
        ).succeeded

    begun = now(store, prefix)
    empty = holds(begun)
    first = put(store, below + "a")
    second = put(store, below + "b")
    both, one_newer = holds(second), holds(first)
    third = put(store, below + "a")
    again = holds(second)
    store.txn((), (Delete(key=below + "a"),))
    gone = holds(second)
    put(store, f"{prefix}budgets0")

    assert [True, True, False, False, True, True] == [empty, both, one_newer, again, gone, holds(third)]


def test_created_at_holds_over_later_writes_and_modified_at_does_not(store: Cluster, prefix: str) -> None:
    created = put(store, prefix + "a")
    put(store, prefix + "a")

    by_creation = store.txn((CreatedAt(key=prefix + "a", revision=created),), ())
    by_change = store.txn((ModifiedAt(key=prefix + "a", revision=created),), ())

    assert (True, False) == (by_creation.succeeded, by_change.succeeded)


def test_removing_what_is_not_there_is_no_error_and_no_new_revision(store: Cluster, prefix: str) -> None:
    before = now(store, prefix)

    result = store.txn((), (Delete(key=prefix + "nothing"), DeletePrefix(prefix=prefix + "none/")))

    assert TxnResult(succeeded=True, revision=before) == result


def test_delete_removes_one_key_and_delete_prefix_all_below(store: Cluster, prefix: str) -> None:
    for key in ("a", "ab", "b/1", "b/2", "c"):
        put(store, prefix + key)

    store.txn((), (Delete(key=prefix + "a"), DeletePrefix(prefix=prefix + "b/")))

    assert [prefix + "ab", prefix + "c"] == [each.key for each in store.list(prefix).entries]


def test_one_key_can_not_be_written_twice_in_a_transaction(store: Cluster, prefix: str) -> None:
    for second in (Put(key=prefix + "a", value=b"2"), Delete(key=prefix + "a"), DeletePrefix(prefix=prefix)):
        with pytest.raises(Refused):
            store.txn((), (Put(key=prefix + "a", value=b"1"), second))

    assert store.get(prefix + "a") is None


def test_a_write_under_a_lease_that_is_gone_is_refused(store: Cluster, prefix: str) -> None:
    lease = store.grant(60)
    store.revoke(lease)

    with pytest.raises(Refused, match="lease not found"):
        put(store, prefix + "a", lease=lease)

    assert store.get(prefix + "a") is None


def test_a_comparison_that_fails_is_told_before_a_lease_that_is_gone(store: Cluster, prefix: str) -> None:
    lease = store.grant(60)
    store.revoke(lease)

    result = store.txn((CreatedAt(key=prefix + "a", revision=7),), (Put(key=prefix + "a", value=b"", lease=lease),))

    assert not result.succeeded


def test_what_is_too_large_is_refused(store: Cluster, prefix: str) -> None:
    with pytest.raises(Refused):
        put(store, prefix + "a", bytes(2_000_000))
    with pytest.raises(Refused):
        store.txn((), tuple(Put(key=f"{prefix}{number}", value=b"") for number in range(129)))


def test_of_many_creations_of_one_key_at_once_exactly_one_succeeds(fixture: EtcdFixture, prefix: str) -> None:
    results: list[bool] = []

    def create(cluster: Cluster) -> None:
        done = cluster.txn((CreatedAt(key=prefix + "a", revision=0),), (Put(key=prefix + "a", value=b""),))
        results.append(done.succeeded)

    threads = [threading.Thread(target=create, args=(each,)) for each in [fixture.cluster, fixture.other] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [False] * 7 + [True] == sorted(results)


def test_a_keep_alive_returns_the_seconds_that_the_lease_now_lives(store: Cluster) -> None:
    lease = store.grant(59.2)

    assert store.keep_alive(lease) == 60.0


def test_a_keep_alive_of_a_lease_that_is_gone_returns_zero(store: Cluster) -> None:
    lease = store.grant(60)
    store.revoke(lease)

    assert store.keep_alive(lease) == 0.0
    assert store.keep_alive(12345) == 0.0


def test_revoking_a_lease_removes_its_keys_in_one_revision(store: Cluster, prefix: str) -> None:
    lease = store.grant(60)
    diary = Diary()
    put(store, prefix + "stays")
    started = watch(store, prefix, diary)
    store.txn((), tuple(Put(key=prefix + key, value=b"", lease=lease) for key in "ab"))

    store.revoke(lease)

    assert [prefix + "stays"] == [each.key for each in store.list(prefix).entries]
    eventually(lambda: len(diary.events) == 4)
    gone = [e for e in diary.events if isinstance(e, KeyChanged) and e.entry is None]
    assert {prefix + "a", prefix + "b"} == {change.key for change in gone}
    assert {now(store, prefix)} == {change.revision for change in gone}
    started.close()


def test_revoking_what_is_gone_is_no_error(store: Cluster) -> None:
    lease = store.grant(60)

    store.revoke(lease)
    store.revoke(lease)
    store.revoke(12345)


def test_a_lease_that_nobody_keeps_alive_ends_with_its_keys_and_watches_say_so(
    fixture: EtcdFixture, prefix: str
) -> None:
    store, diary = fixture.cluster, Diary()
    lease = store.grant(2)
    put(store, prefix + "a", lease=lease)
    started = watch(store, prefix, diary)

    fixture.pass_time(2.5)

    eventually(lambda: diary.told() == [(prefix + "a", None)])
    assert store.get(prefix + "a") is None
    assert store.keep_alive(lease) == 0.0
    started.close()


def test_a_lease_that_is_kept_alive_outlives_its_time(fixture: EtcdFixture, prefix: str) -> None:
    """The kept lease is renewed until another one of the same length, granted at the same time, has ended."""
    kept, left = fixture.cluster.grant(2), fixture.cluster.grant(2)
    put(fixture.cluster, prefix + "kept", lease=kept)
    put(fixture.cluster, prefix + "left", lease=left)

    def left_is_gone() -> bool:
        assert fixture.cluster.keep_alive(kept) == 2.0
        fixture.pass_time(0.1)
        return fixture.cluster.get(prefix + "left") is None

    eventually(left_is_gone, every_s=0.1)

    assert entry(fixture.cluster, prefix + "kept").lease == kept


def test_a_lease_without_a_time_to_live_is_a_mistake(store: Cluster) -> None:
    with pytest.raises(ValueError, match="longer than 0"):
        store.grant(0)
