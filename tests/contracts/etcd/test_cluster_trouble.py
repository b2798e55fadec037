"""Promises of ``etcd/seam.py``: what holds when calls, answers and connections are lost."""

import time

import pytest

from outrider.core.errors import Unknown
from outrider.etcd.seam import (
    Cluster,
    Delete,
    Resynced,
)
from tests.contracts.etcd.fixture import TIMEOUT_S, EtcdFixture
from tests.contracts.etcd.words import Diary, entry, now, put, watch
from tests.support.waiting import eventually


def calls(cluster: Cluster, prefix: str, lease: int) -> list[tuple[str, object]]:
    return [
        ("get", lambda: cluster.get(prefix)),
        ("list", lambda: cluster.list(prefix)),
        ("txn", lambda: put(cluster, prefix + "never")),
        ("grant", lambda: cluster.grant(60)),
        ("keep_alive", lambda: cluster.keep_alive(lease)),
        ("revoke", lambda: cluster.revoke(lease)),
    ]


@pytest.mark.parametrize("trouble", ["cut_off", "freeze"])
@pytest.mark.parametrize("name", ["get", "list", "txn", "grant", "keep_alive", "revoke"])
def test_every_call_without_an_answer_ends_as_unknown_within_its_time_limit(
    fixture: EtcdFixture, prefix: str, name: str, trouble: str
) -> None:
    lease = fixture.cluster.grant(60)
    getattr(fixture, trouble)()
    call = dict(calls(fixture.cluster, prefix, lease))[name]
    began = time.monotonic()

    with pytest.raises(Unknown, match=name):
        call()  # type: ignore[operator]

    assert time.monotonic() - began < TIMEOUT_S + 0.5
    fixture.mend()
    eventually(lambda: works(fixture.cluster, prefix))
    assert fixture.other.get(prefix + "never") is None


def works(cluster: Cluster, prefix: str) -> bool:
    try:
        cluster.get(prefix)
    except Unknown:
        return False
    return True


def test_a_write_whose_answer_was_lost_is_unknown_and_has_happened(fixture: EtcdFixture, prefix: str) -> None:
    put(fixture.cluster, prefix + "a", b"before")
    fixture.lose_answers()

    with pytest.raises(Unknown):
        put(fixture.cluster, prefix + "a", b"after")

    fixture.mend()
    assert entry(fixture.other, prefix + "a").value == b"after"
    eventually(lambda: works(fixture.cluster, prefix))
    assert entry(fixture.cluster, prefix + "a").value == b"after"


def test_a_watch_that_was_cut_off_delivers_what_it_missed_once_and_in_order(fixture: EtcdFixture, prefix: str) -> None:
    diary = Diary()
    started = watch(fixture.cluster, prefix, diary)
    put(fixture.other, prefix + "a", b"0")
    eventually(lambda: diary.events)

    for round_ in range(3):
        fixture.cut_off()
        for number in range(3):
            put(fixture.other, prefix + "a", f"{round_}.{number}".encode())
        fixture.mend()
        expected = 1 + 3 * (round_ + 1)
        eventually(lambda expected=expected: len(diary.events) >= expected)  # type: ignore[misc]

    assert [b"0"] + [f"{r}.{n}".encode() for r in range(3) for n in range(3)] == [value for _, value in diary.told()]
    started.close()


def test_a_watch_that_was_cut_off_over_a_compaction_resyncs_and_goes_on(fixture: EtcdFixture, prefix: str) -> None:
    diary = Diary()
    put(fixture.other, prefix + "gone")
    started = watch(fixture.cluster, prefix, diary)
    put(fixture.other, prefix + "a", b"1")
    eventually(lambda: diary.events)
    fixture.cut_off()
    put(fixture.other, prefix + "a", b"2")
    fixture.other.txn((), (Delete(key=prefix + "gone"),))
    put(fixture.other, prefix + "b", b"3")
    put(fixture.other, prefix + "elsewhere/c", b"4")
    fixture.compact()

    fixture.mend()

    eventually(lambda: len(diary.events) == 2)
    resynced = diary.events[1]
    assert isinstance(resynced, Resynced)
    assert [prefix + "a", prefix + "b", prefix + "elsewhere/c"] == [each.key for each in resynced.listing.entries]
    put(fixture.other, prefix + "a", b"5")
    eventually(lambda: diary.told()[1:] == [(prefix + "a", b"5")])
    started.close()


def test_a_watch_that_begins_while_the_store_is_away_goes_on_trying(fixture: EtcdFixture, prefix: str) -> None:
    diary = Diary()
    revision = now(fixture.cluster, prefix)
    fixture.cut_off()
    began = time.monotonic()
    started = fixture.cluster.watch(prefix, revision + 1, diary)
    took_s = time.monotonic() - began
    put(fixture.other, prefix + "a")

    fixture.mend()

    eventually(lambda: diary.told() == [(prefix + "a", b"x")])
    assert took_s < TIMEOUT_S + 20
    started.close()


def test_closing_the_cluster_ends_its_watches_and_later_calls(fixture: EtcdFixture, prefix: str) -> None:
    diary = Diary()
    watch(fixture.cluster, prefix, diary)

    fixture.cluster.close()
    put(fixture.other, prefix + "a")

    with pytest.raises(Unknown):
        fixture.cluster.get(prefix)
    assert diary.events == []
