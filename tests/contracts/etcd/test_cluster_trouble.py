"""Promises of ``etcd/seam.py``: what holds when calls, answers and connections are lost."""

import time

import pytest

from outrider.core.errors import Unknown
from outrider.etcd.seam import (
    Cluster,
    Delete,
    Resynced,
)
from tests.contracts.etcd.stage import TIMEOUT_S, Stage
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
    stage: Stage, prefix: str, name: str, trouble: str
) -> None:
    lease = stage.cluster.grant(60)
    getattr(stage, trouble)()
    call = dict(calls(stage.cluster, prefix, lease))[name]
    began = time.monotonic()

    with pytest.raises(Unknown, match=name):
        call()  # type: ignore[operator]

    assert time.monotonic() - began < TIMEOUT_S + 0.5
    stage.mend()
    eventually(lambda: works(stage.cluster, prefix))
    assert stage.other.get(prefix + "never") is None


def works(cluster: Cluster, prefix: str) -> bool:
    try:
        cluster.get(prefix)
    except Unknown:
        return False
    return True


def test_a_write_whose_answer_was_lost_is_unknown_and_has_happened(stage: Stage, prefix: str) -> None:
    put(stage.cluster, prefix + "a", b"before")
    stage.lose_answers()

    with pytest.raises(Unknown):
        put(stage.cluster, prefix + "a", b"after")

    stage.mend()
    assert entry(stage.other, prefix + "a").value == b"after"
    eventually(lambda: works(stage.cluster, prefix))
    assert entry(stage.cluster, prefix + "a").value == b"after"


def test_a_watch_that_was_cut_off_delivers_what_it_missed_once_and_in_order(stage: Stage, prefix: str) -> None:
    diary = Diary()
    started = watch(stage.cluster, prefix, diary)
    put(stage.other, prefix + "a", b"0")
    eventually(lambda: diary.events)

    for round_ in range(3):
        stage.cut_off()
        for number in range(3):
            put(stage.other, prefix + "a", f"{round_}.{number}".encode())
        stage.mend()
        expected = 1 + 3 * (round_ + 1)
        eventually(lambda expected=expected: len(diary.events) >= expected)  # type: ignore[misc]

    assert [b"0"] + [f"{r}.{n}".encode() for r in range(3) for n in range(3)] == [value for _, value in diary.told()]
    started.close()


def test_a_watch_that_was_cut_off_over_a_compaction_resyncs_and_goes_on(stage: Stage, prefix: str) -> None:
    diary = Diary()
    put(stage.other, prefix + "gone")
    started = watch(stage.cluster, prefix, diary)
    put(stage.other, prefix + "a", b"1")
    eventually(lambda: diary.events)
    stage.cut_off()
    put(stage.other, prefix + "a", b"2")
    stage.other.txn((), (Delete(key=prefix + "gone"),))
    put(stage.other, prefix + "b", b"3")
    put(stage.other, prefix + "elsewhere/c", b"4")
    stage.compact()

    stage.mend()

    eventually(lambda: len(diary.events) == 2)
    resynced = diary.events[1]
    assert isinstance(resynced, Resynced)
    assert [prefix + "a", prefix + "b", prefix + "elsewhere/c"] == [each.key for each in resynced.listing.entries]
    put(stage.other, prefix + "a", b"5")
    eventually(lambda: diary.told()[1:] == [(prefix + "a", b"5")])
    started.close()


def test_a_watch_that_begins_while_the_store_is_away_goes_on_trying(stage: Stage, prefix: str) -> None:
    diary = Diary()
    revision = now(stage.cluster, prefix)
    stage.cut_off()
    began = time.monotonic()
    started = stage.cluster.watch(prefix, revision + 1, diary)
    took_s = time.monotonic() - began
    put(stage.other, prefix + "a")

    stage.mend()

    eventually(lambda: diary.told() == [(prefix + "a", b"x")])
    assert took_s < TIMEOUT_S + 0.5
    started.close()


def test_closing_the_cluster_ends_its_watches_and_later_calls(stage: Stage, prefix: str) -> None:
    diary = Diary()
    watch(stage.cluster, prefix, diary)

    stage.cluster.close()
    put(stage.other, prefix + "a")

    with pytest.raises(Unknown):
        stage.cluster.get(prefix)
    assert diary.events == []
