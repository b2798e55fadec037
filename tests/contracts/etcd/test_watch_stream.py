"""The watch against a server that misbehaves by script: what real servers do rarely, and old ones do by mistake."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest
from etcd3 import etcdrpc

from outrider.etcd import watch as etcd_watch
from outrider.etcd import watch_stream
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import EtcdAddress, KeyChanged, PermissionDenied, Resynced, WatchEvent
from tests.conftest import our_threads
from tests.contracts.etcd.scripted_etcd import (
    Script,
    ScriptedEtcd,
    ScriptedStream,
    canceled,
    compacted,
    created,
    header,
    progress,
    stored,
    written,
)
from tests.contracts.etcd.words import Diary
from tests.live.etcd_fixture import log_lines
from tests.support.waiting import eventually

StartScripted = Callable[..., tuple[EtcdCluster, list[ScriptedEtcd]]]


@pytest.fixture
def start_scripted(no_thread_left: None) -> Iterator[StartScripted]:
    """Starts scripted servers and connects to them, in this order."""
    servers: list[ScriptedEtcd] = []
    clusters: list[EtcdCluster] = []

    def start(*scripts: ScriptedEtcd, timeout_s: float = 1.0) -> tuple[EtcdCluster, list[ScriptedEtcd]]:
        servers.extend(scripts)
        clusters.append(connect(EtcdAddress(endpoints=tuple(p.endpoint for p in scripts), timeout_s=timeout_s)))
        return clusters[-1], list(scripts)

    yield start
    for cluster in clusters:
        cluster.close()
    for server in servers:
        server.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog ten times as quick."""
    monkeypatch.setattr(watch_stream, "LOOK_S", 0.05)
    monkeypatch.setattr(watch_stream, "PROBE_S", 0.25)
    monkeypatch.setattr(watch_stream, "SILENT_S", 0.7)


def stays_open(*responses: Any) -> Script:
    """A stream that sends this, answers every request for progress, and stays."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield from responses
        while not stream.ended.is_set():
            if stream.progress.acquire(timeout=0.05):
                yield progress(1)

    return script


def goes_silent(*responses: Any) -> Script:
    """A stream that sends this, and nothing more, on a connection that works."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield from responses
        stream.ended.wait()

    return script


def breaks(*responses: Any) -> Script:
    """A stream that breaks after this."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield from responses
        yield "break"

    return script


def ends(*responses: Any) -> Script:
    """A stream that the server ends, politely, after this."""
    return lambda stream: iter(responses)


def test_a_silent_stream_on_a_working_connection_is_replaced_on_the_next_node(
    start_scripted: StartScripted, impatient: None
) -> None:
    diary = Diary()
    cluster, (silent, good) = start_scripted(
        ScriptedEtcd(goes_silent(created(), written(("/k/a", 2)))),
        ScriptedEtcd(stays_open(created(3), written(("/k/a", 2), ("/k/b", 3)))),
    )
    began = time.monotonic()
    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: diary.told() == [("/k/a", b""), ("/k/b", b"")])

    assert 0.6 < time.monotonic() - began < 30
    assert (1, 1) == (len(silent.streams), len(good.streams))
    assert silent.streams[0].progress.acquire(timeout=60), "it was asked"
    assert silent.streams[0].progress.acquire(timeout=60), "twice"
    watch.close()


def test_a_stream_that_is_never_created_is_replaced_after_the_time_limit(
    start_scripted: StartScripted, impatient: None
) -> None:
    diary = Diary()
    cluster, (server,) = start_scripted(
        ScriptedEtcd(goes_silent(), stays_open(created(2), written(("/k/a", 2)))), timeout_s=0.5
    )

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: diary.told() == [("/k/a", b"")])
    assert 2 == len(server.streams)
    watch.close()


def test_a_quiet_stream_that_answers_is_never_replaced(start_scripted: StartScripted, impatient: None) -> None:
    cluster, (server,) = start_scripted(ScriptedEtcd(stays_open(created())))
    watch = cluster.watch("/k/", 1, Diary())
    began = time.monotonic()

    eventually(lambda: time.monotonic() - began > 2.5)

    assert 1 == len(server.streams)
    watch.close()


def serves(last: int, *before: Any) -> Script:
    """A stream that registers every watch under the next number, and sends it all revisions up to ``last``."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield from before
        create, number = stream.create, 0
        while not stream.ended.is_set():
            if create is not None:
                key = create.key.decode()
                yield created(last, watch_id=number)
                for revision in range(create.start_revision, last + 1):
                    yield written((f"{key}{revision}", revision), number=number)
                number += 1
            while stream.progress.acquire(blocking=False):
                yield progress(1)
            try:
                create = stream.creates.get(timeout=0.05)
            except Empty:
                create = None

    return script


def test_all_watches_of_a_connection_share_one_stream(start_scripted: StartScripted) -> None:
    cluster, (server,) = start_scripted(ScriptedEtcd(serves(3)))
    diaries = [Diary() for _ in range(5)]

    for number, diary in enumerate(diaries):
        cluster.watch(f"/{number}/", 1 + number % 3, diary)

    for number, diary in enumerate(diaries):
        keys = [f"/{number}/{revision}" for revision in range(1 + number % 3, 4)]
        eventually(lambda keys=keys, diary=diary: keys == [key for key, _ in diary.told()])  # type: ignore[misc]
    assert 1 == len(server.streams)


def test_thirty_watches_take_as_many_threads_as_one(start_scripted: StartScripted) -> None:
    cluster, (server,) = start_scripted(ScriptedEtcd(serves(1)))
    before = set(threading.enumerate())

    for number in range(30):
        cluster.watch(f"/{number}/", 2, Diary())

    assert ["outrider-watch", "outrider-watchdog"] == sorted(our_threads(before))
    assert 1 == len(server.streams)


def test_a_watch_with_slow_deliveries_leaves_the_stream_and_holds_up_no_other(
    start_scripted: StartScripted, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mailbox is full for three times as long as a server may be silent; nobody blames the server for that."""
    monkeypatch.setattr(etcd_watch, "MAILBOX", 2)
    slow, quick, began = Diary(), Diary(), time.monotonic()

    def deliver(event: Any) -> None:
        eventually(lambda: time.monotonic() - began > 2.1)
        slow(event)

    cluster, (server,) = start_scripted(ScriptedEtcd(serves(9)), timeout_s=5.0)
    cluster.watch("/quick/", 1, quick)
    cluster.watch("/slow/", 1, deliver)
    cluster.watch("/late/", 1, quick)

    eventually(lambda: len(quick.events) == 18)
    assert [] == slow.events, "the others have all theirs meanwhile"
    eventually(lambda: [f"/slow/{number}" for number in range(1, 10)] == [key for key, _ in slow.told()])
    assert 1 == len(server.streams)


@pytest.fixture
def signed_in(no_thread_left: None) -> Iterator[tuple[EtcdCluster, ScriptedEtcd]]:
    """A server that denies each stream's second watch, until there is a new stream."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield created(1, watch_id=0)
        number = 0
        while not stream.ended.is_set():
            try:
                stream.creates.get(timeout=0.05)
            except Empty:
                continue
            number += 1
            if len(server.streams) == 1:
                yield canceled("etcdserver: permission denied", watch_id=-1)
            else:
                yield created(1, watch_id=number)

    server = ScriptedEtcd(script)
    cluster = connect(EtcdAddress(endpoints=(server.endpoint,), timeout_s=3.0, user="u", password="p"))
    yield cluster, server
    cluster.close()
    server.stop()


def test_a_denial_for_a_token_that_died_with_its_stream_gets_a_new_stream(
    signed_in: tuple[EtcdCluster, ScriptedEtcd],
) -> None:
    """etcd before 3.5.6 answers so to a watch on a stream that is older than the token's five idle minutes."""
    cluster, server = signed_in
    cluster.watch("/a/", 1, Diary())

    watch = cluster.watch("/b/", 1, Diary())

    assert not watch.is_over
    assert 2 == len(server.streams)
    assert server.listings >= 1, "it was asked whether we may read it"


def test_a_denial_that_is_meant_so_is_told_and_the_other_watch_goes_on(
    signed_in: tuple[EtcdCluster, ScriptedEtcd],
) -> None:
    cluster, server = signed_in
    cluster.watch("/a/", 1, Diary())
    server.denies = True

    with pytest.raises(PermissionDenied):
        cluster.watch("/b/", 1, Diary())

    assert 1 == len(server.streams)


def test_what_ends_one_watch_leaves_the_others_on_the_stream(start_scripted: StartScripted) -> None:
    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield created(1, watch_id=0)
        stream.creates.get(timeout=60)
        yield created(1, watch_id=1)
        yield etcdrpc.WatchResponse(header=header(9), watch_id=1, canceled=True, compact_revision=5)
        assert 9 == stream.creates.get(timeout=60).start_revision
        yield created(9, watch_id=2)
        yield written(("/a/x", 10), number=0)
        yield written(("/b/x", 11), number=2)
        stream.ended.wait()

    server = ScriptedEtcd(script)
    server.store = (9, [stored("/b/y", 4)])
    a, b = Diary(), Diary()
    cluster, _ = start_scripted(server)
    cluster.watch("/a/", 1, a)
    cluster.watch("/b/", 1, b)

    eventually(lambda: ["/a/x"] == [key for key, _ in a.told()] and len(b.events) == 2)
    assert [True, False] == [isinstance(event, Resynced) for event in b.events]
    assert (1, 1) == (len(a.events), len(server.streams))


def test_a_watch_that_was_closed_before_etcd_answered_is_taken_back_there(start_scripted: StartScripted) -> None:
    """Its answer must not be taken for that of the watch that asked after it."""
    let_go = threading.Event()

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield created(1, watch_id=0)
        stream.creates.get(timeout=60)
        stream.creates.get(timeout=60)
        let_go.wait(60)
        yield created(1, watch_id=1)
        yield created(1, watch_id=2)
        yield written(("/gone/x", 2), number=1)
        yield written(("/after/x", 2), number=2)
        stream.ended.wait()

    gone, after = Diary(), Diary()
    cluster, _ = start_scripted(ScriptedEtcd(script), timeout_s=0.3)
    cluster.watch("/first/", 1, Diary())

    cluster.watch("/gone/", 1, gone).close()
    cluster.watch("/after/", 1, after)
    let_go.set()

    eventually(lambda: ["/after/x"] == [key for key, _ in after.told()])
    assert [] == gone.events


def test_a_server_that_tells_no_progress_but_answers_is_not_replaced(
    start_scripted: StartScripted, impatient: None
) -> None:
    """etcd from 3.5.21 on, while one of the watches begins later than its newest revision."""

    def script(stream: ScriptedStream) -> Iterator[Any]:
        yield created(1, watch_id=0)
        for number in itertools.count(1):
            try:
                asked = stream.creates.get(timeout=30)
            except Empty:
                return
            answered.append(asked)
            yield created(1, watch_id=number)

    answered: list[Any] = []
    cluster, (server,) = start_scripted(ScriptedEtcd(script), timeout_s=5.0)
    cluster.watch("/k/", 2, Diary())

    eventually(lambda: len(answered) >= 4)

    assert 1 == len(server.streams)


def test_the_second_half_of_a_revision_is_not_lost_when_the_stream_breaks_between(
    start_scripted: StartScripted,
) -> None:
    whole = tuple((f"/k/{key}", 10) for key in "abcd")
    diary = Diary()
    cluster, (server,) = start_scripted(
        ScriptedEtcd(
            breaks(created(9), written(("/k/z", 9)), written(*whole[:2])),
            stays_open(created(10), written(("/k/z", 9), *whole), written(("/k/e", 11))),
        )
    )

    watch = cluster.watch("/k/", 5, diary)

    eventually(lambda: len(diary.events) >= 6)
    assert ["/k/z", "/k/a", "/k/b", "/k/c", "/k/d", "/k/e"] == [key for key, _ in diary.told()]
    assert [5, 9] == [stream.create.start_revision for stream in server.streams]
    watch.close()


def test_what_a_server_repeats_is_delivered_once(start_scripted: StartScripted) -> None:
    """etcd before 3.5.8 may send events again, and a member that got a snapshot may go back in time."""
    diary = Diary()
    cluster, _ = start_scripted(
        ScriptedEtcd(
            stays_open(
                created(1),
                written(("/k/a", 2), ("/k/b", 3)),
                written(("/k/b", 3), ("/k/c", 3)),
                written(("/k/a", 2)),
                written(("/k/d", 4)),
            )
        )
    )

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: len(diary.events) >= 4)
    assert ["/k/a", "/k/b", "/k/c", "/k/d"] == [key for key, _ in diary.told()]
    watch.close()


@pytest.mark.parametrize(("version", "resumed_at"), [("3.5.16", 50), ("3.5.8", 50), ("3.5.7", 2), ("3.4.23", 2)])
def test_a_progress_answer_that_may_have_overtaken_events_is_not_believed(
    start_scripted: StartScripted, version: str, resumed_at: int
) -> None:
    """Before 3.5.8 the revision of an asked-for answer may be later than events that are still to come (#15220)."""
    diary = Diary()
    cluster, (server,) = start_scripted(
        ScriptedEtcd(
            breaks(created(2), written(("/k/a", 3)), progress(50)),
            stays_open(created(50), written(("/k/b", 51))),
            version=version,
        )
    )

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: len(diary.events) == 2)
    assert resumed_at == server.streams[1].create.start_revision
    watch.close()


def test_created_and_canceled_is_no_success(start_scripted: StartScripted) -> None:
    diary = Diary()
    cluster, (server,) = start_scripted(
        ScriptedEtcd(
            *[ends(canceled("some reason"))] * 3,
            stays_open(created(2), written(("/k/a", 2))),
        )
    )
    began = time.monotonic()

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: diary.told() == [("/k/a", b"")])
    assert 4 == len(server.streams)
    assert time.monotonic() - began > 0.5 * (0.05 + 0.1 + 0.2), "each attempt waits longer than the one before"
    watch.close()


def test_a_stream_that_the_server_ends_is_opened_again(start_scripted: StartScripted) -> None:
    diary = Diary()
    cluster, _ = start_scripted(
        ScriptedEtcd(ends(created(2), written(("/k/a", 2))), stays_open(created(3), written(("/k/b", 3))))
    )

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: diary.told() == [("/k/a", b""), ("/k/b", b"")])
    watch.close()


def test_a_connection_that_is_closed_while_a_watch_begins_ends_both(
    start_scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of their own begin watches; one was asked to end between its making and its first step."""
    cluster, _ = start_scripted(ScriptedEtcd(stays_open(created())))
    begin = etcd_watch.EtcdWatch.start

    def begin_late(watch: etcd_watch.EtcdWatch) -> None:
        cluster.close()
        begin(watch)

    monkeypatch.setattr(etcd_watch.EtcdWatch, "start", begin_late)
    told: list[WatchEvent] = []
    watch = cluster.watch("/a/", 1, told.append)

    watch.close()

    assert [] == told


def test_a_compaction_is_listed_and_the_watch_goes_on_behind_the_listing(start_scripted: StartScripted) -> None:
    diary = Diary()
    server = ScriptedEtcd(ends(created(30), compacted(20)), stays_open(created(31), written(("/k/b", 31))))
    server.store = (30, [stored("/k/a", 25)])
    cluster, _ = start_scripted(server)

    watch = cluster.watch("/k/", 5, diary)

    eventually(lambda: len(diary.events) == 2)
    resynced = diary.events[0]
    assert isinstance(resynced, Resynced)
    assert (30, ["/k/a"]) == (resynced.listing.revision, [entry.key for entry in resynced.listing.entries])
    assert 30 == server.streams[1].create.start_revision
    assert [("/k/b", b"")] == diary.told()
    watch.close()


def test_another_store_behind_the_same_address_is_a_resync(start_scripted: StartScripted) -> None:
    """Its revisions mean something else, even when they are higher."""
    diary = Diary()
    server = ScriptedEtcd(
        breaks(created(5), written(("/k/a", 6))),
        ends(created(90, store=8)),
        stays_open(created(91, store=8), written(("/k/c", 91))),
    )
    server.store = (90, [stored("/k/b", 40)])
    cluster, _ = start_scripted(server)

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: len(diary.events) == 3)
    assert [False, True, False] == [isinstance(event, Resynced) for event in diary.events]
    assert ["/k/a", "/k/c"] == [key for key, _ in diary.told()]
    watch.close()


def test_a_member_that_lags_behind_is_no_other_store(start_scripted: StartScripted) -> None:
    """After a fail-over a follower may name an older revision; the store itself, asked, names the newer one."""
    diary = Diary()
    server = ScriptedEtcd(breaks(created(5), written(("/k/a", 6))), stays_open(created(4), written(("/k/b", 7))))
    server.store = (6, [])
    cluster, _ = start_scripted(server)

    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: diary.told() == [("/k/a", b""), ("/k/b", b"")])
    assert 1 == server.listings
    watch.close()


def test_a_stream_asks_for_a_leader_for_fragments_and_for_progress(start_scripted: StartScripted) -> None:
    cluster, (server,) = start_scripted(ScriptedEtcd(stays_open(created())))

    watch = cluster.watch("/k/", 3, Diary())

    (stream,) = server.streams
    assert "true" == stream.metadata["hasleader"]
    assert b"\x40\x01" in stream.create.SerializeToString(), "field 8, fragment"
    assert (b"/k/", b"/k0", 3, True) == (
        stream.create.key,
        stream.create.range_end,
        stream.create.start_revision,
        stream.create.progress_notify,
    )
    watch.close()


def test_a_member_without_a_leader_is_passed_over(start_scripted: StartScripted) -> None:
    cluster, (lone, good) = start_scripted(
        ScriptedEtcd(stays_open(created()), leader=0), ScriptedEtcd(stays_open(created()))
    )

    watch = cluster.watch("/k/", 1, Diary())
    assert cluster.get("/k/a") is None

    assert (0, 0, 1, 1) == (len(lone.streams), lone.listings, len(good.streams), good.listings)
    watch.close()


@pytest.mark.parametrize(
    ("version", "warned"),
    [("3.5.0", 1), ("3.5.2", 1), ("3.5.5", 1), ("3.4.21", 1), ("3.5.3", 0), ("3.5.16", 0), ("3.4.23", 0)],
)
def test_a_server_that_can_lose_changes_is_warned_of_once(
    start_scripted: StartScripted, version: str, warned: int
) -> None:
    cluster, _ = start_scripted(ScriptedEtcd(ends(created()), stays_open(created()), version=version))

    with log_lines() as lines:
        watch = cluster.watch("/k/", 1, Diary())
        cluster.get("/k/a")
        watch.close()

    assert warned == len([line for line in lines if "can lose or corrupt data" in line and version in line])


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("y"), RuntimeError("z")])
def test_a_bug_in_a_delivery_is_told_and_costs_none_of_the_others(no_thread_left: None, bug: Exception) -> None:
    """A sidekick ends with it and says so; without that it would go on, deaf to one announcement."""
    server = ScriptedEtcd(stays_open(created(), written(("/k/a", 2)), written(("/k/b", 3))))
    told: list[BaseException] = []
    heard: list[str] = []

    def deliver(event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged)
        if event.key == "/k/a":
            raise bug
        heard.append(event.key)

    cluster = connect(EtcdAddress(endpoints=(server.endpoint,), timeout_s=1.0), on_bug=told.append)
    try:
        cluster.watch("/k/", 1, deliver)
        eventually(lambda: heard)
    finally:
        cluster.close()
        server.stop()

    assert (["/k/b"], [bug]) == (heard, told)
