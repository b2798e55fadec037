"""Real etcd in real trouble: killed, frozen, compacted, wiped, one of three; nothing may be lost or told twice (P8)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.errors import Refused, Unknown
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import KeyChanged, Put, ReadOnly
from outrider.model.keys import Keys
from outrider.service.operations.readiness import unready
from outrider.service.store.context import StoreContext
from outrider.service.store.store import utc_now
from tests.live.etcd_fixture import Diary, create, log_lines, writing
from tests.support.servers import EtcdNodes, EtcdServer
from tests.support.waiting import eventually


@pytest.fixture
def server(tmp_path: Path, no_thread_left: None) -> Iterator[EtcdServer]:
    started = EtcdServer(tmp_path / "etcd").start().wait_ready()
    yield started
    started.stop()


@pytest.fixture
def cluster(server: EtcdServer) -> Iterator[EtcdCluster]:
    connection = connect(server.address())
    yield connection
    connection.close()


@pytest.fixture
def nodes(tmp_path: Path, no_thread_left: None) -> Iterator[EtcdNodes]:
    started = EtcdNodes(tmp_path / "nodes").start().wait_ready()
    yield started
    started.stop()


def test_a_watch_loses_nothing_when_etcd_is_killed_while_thousands_of_keys_are_written(
    server: EtcdServer, cluster: EtcdCluster
) -> None:
    count, diary = 3000, Diary()
    watch = cluster.watch("/k/", 1, diary)

    with writing(cluster, "/k/", count) as written:
        for part in (0.3, 0.6):
            eventually(lambda part=part: len(written) > part * count, within_s=60)  # type: ignore[misc]
            server.restart()

    eventually(lambda: len(diary.events) >= count)
    assert written == diary.keys()
    assert sorted(set(diary.revisions())) == diary.revisions(), "each revision once, in order"
    watch.close()


def test_a_watch_loses_nothing_when_etcd_is_killed_while_it_catches_up(
    server: EtcdServer, cluster: EtcdCluster
) -> None:
    """The backlog is 30 MB, so that much of it is still on the way when etcd dies after 500 deliveries."""
    count = 3000
    for number in range(count // 100):
        puts = tuple(Put(key=f"/k/{number * 100 + n:05}", value=os.urandom(10_000)) for n in range(100))
        cluster.txn((), puts)

    def kill_early(seen: int) -> None:
        if seen in (500, 1600):
            server.restart()

    diary = Diary(kill_early)
    watch = cluster.watch("/k/", 1, diary)

    eventually(lambda: len(diary.events) >= count)
    create(cluster, "/k/last")
    eventually(lambda: diary.keys()[-1] == "/k/last")
    assert [f"/k/{number:05}" for number in range(count)] + ["/k/last"] == diary.keys()
    watch.close()


def test_a_silent_watch_is_noticed_in_eight_seconds_and_goes_on_where_it_was(
    server: EtcdServer, cluster: EtcdCluster
) -> None:
    diary = Diary()
    watch = cluster.watch("/k/", 1, diary)
    create(cluster, "/k/before")
    eventually(lambda: diary.events)
    with log_lines() as lines:
        paused = time.monotonic()
        server.pause()
        eventually(lambda: [line for line in lines if "watch interrupted" in line])
        noticed_s = time.monotonic() - paused
        server.resume()

        create(cluster, "/k/after")
        eventually(lambda: len(diary.events) == 2)
        eventually(lambda: [line for line in lines if "watch resumed" in line])

    create(cluster, "/k/last")
    eventually(lambda: diary.keys()[2:] == ["/k/last"])
    assert ["/k/before", "/k/after", "/k/last"] == diary.keys()
    assert noticed_s > 2.5, "a short pause is no reason to give up a stream"
    watch.close()


def test_a_quiet_watch_is_left_alone(cluster: EtcdCluster) -> None:
    """Silence with answered progress requests is no silence: the stream of a quiet prefix is never replaced."""
    diary = Diary()
    with log_lines() as lines:
        watch = cluster.watch("/quiet/", 1, diary)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 9, every_s=0.2)
        create(cluster, "/quiet/a")
        eventually(lambda: diary.keys() == ["/quiet/a"])
        watch.close()
    assert [] == [line for line in lines if "watch" in line]


def test_a_progress_answer_moves_a_quiet_watch_past_a_compaction(server: EtcdServer, cluster: EtcdCluster) -> None:
    """
    1. a prefix is quiet while others write; the progress answers say how far the store is
    2. etcd compacts, and is restarted
    3. the watch resumes without having to resync: it had missed nothing
    """
    diary = Diary()
    watch = cluster.watch("/quiet/", 1, diary)
    for number in range(5):
        create(cluster, f"/busy/{number}")
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 4, every_s=0.2)  # one progress request and its answer
    server.control("compact", "6")
    server.restart()

    create(cluster, "/quiet/a")

    eventually(lambda: diary.events)
    assert (["/quiet/a"], []) == (diary.keys(), diary.resynced())
    watch.close()


def test_history_lost_while_etcd_was_away_comes_as_a_resync(server: EtcdServer, cluster: EtcdCluster) -> None:
    diary = Diary()
    watch = cluster.watch("/k/", 1, diary)
    create(cluster, "/k/a")
    eventually(lambda: diary.events)
    server.kill()
    other_port = EtcdServer(server.folder)  # the same data on another port, where our watch can't see it
    other_port.start().wait_ready()
    with_other = connect(other_port.address())
    for key in "bcd":
        create(with_other, f"/k/{key}")
    other_port.control("compact", str(with_other.list("/k/").revision))
    with_other.close()
    other_port.stop()

    server.start().wait_ready()

    eventually(diary.resynced)
    create(cluster, "/k/e")
    eventually(lambda: diary.keys() == ["/k/a", "/k/e"])
    assert [["/k/a", "/k/b", "/k/c", "/k/d"]] == [[e.key for e in r.listing.entries] for r in diary.resynced()]
    watch.close()


def test_a_store_that_came_back_empty_is_a_resync_too(server: EtcdServer, cluster: EtcdCluster) -> None:
    diary = Diary()
    watch = cluster.watch("/k/", 1, diary)
    for number in range(20):
        create(cluster, f"/k/{number}")
    eventually(lambda: len(diary.events) == 20)
    server.kill()
    server.wipe()

    server.start().wait_ready()

    resynced = eventually(diary.resynced)
    create(cluster, "/k/new")
    eventually(lambda: diary.keys()[20:] == ["/k/new"])
    assert () == resynced[0].listing.entries
    watch.close()


@pytest.mark.parametrize(("count", "size"), [(1100, 5_000), (800, 100_000)], ids=["5.5MB", "80MB"])
def test_a_prefix_larger_than_a_message_is_listed_and_caught_up_with(
    cluster: EtcdCluster, count: int, size: int
) -> None:
    """gRPC stops at 4 MiB by itself, and our channels at 64 MiB."""
    for number in range(count):
        create(cluster, f"/big/{number:05}", number.to_bytes(4, "big") * (size // 4))
    keys = [f"/big/{number:05}" for number in range(count)]
    diary = Diary()

    listing = cluster.list("/big/")
    watch = cluster.watch("/big/", 1, diary)

    assert keys == [entry.key for entry in listing.entries]
    assert [number.to_bytes(4, "big") for number in range(count)] == [e.value[:4] for e in listing.entries]
    eventually(lambda: len(diary.events) >= count)
    assert keys == diary.keys()
    assert {size} == {len(e.entry.value) for e in diary.events if isinstance(e, KeyChanged) and e.entry}
    watch.close()


def test_a_listing_in_pages_is_of_one_revision(cluster: EtcdCluster) -> None:
    """2500 keys are three pages; every transaction writes all of a pair, so a mixed listing would show."""
    for number in range(1250):
        cluster.txn((), (Put(key=f"/p/a{number:04}", value=b"0"), Put(key=f"/p/z{number:04}", value=b"0")))

    with writing(cluster, "/other/", 300) as written:
        for turn in range(1, 20):
            value = str(turn).encode()
            cluster.txn((), (Put(key="/p/a0000", value=value), Put(key="/p/z1249", value=value)))
            listing = cluster.list("/p/")
            assert len(listing.entries) == 2500
            assert listing.entries[0].value == listing.entries[-1].value
            assert max(entry.mod_revision for entry in listing.entries) <= listing.revision
    assert len(written) == 300


@pytest.mark.parametrize(("role", "unknown"), [("follower", 1), ("leader", 2)])
def test_calls_and_watches_go_on_when_the_node_in_use_is_killed(nodes: EtcdNodes, role: str, unknown: int) -> None:
    """
    The write that is under way may be unknown; one that wasn't sent goes to another node by itself. When the leader
    dies, that other node may give one more write to the dead one.
    """
    used = member_that_is(role, nodes)
    cluster, diary = connect(nodes.address(first=used)), Diary()
    watch = cluster.watch("/k/", 1, diary)
    outcomes: list[str] = []
    for number in range(30):
        if number == 10:
            used.kill()
        outcomes.append(_try(cluster, f"/k/{number}"))
    used.start()

    stored = [entry.key for entry in sorted(cluster.list("/k/").entries, key=lambda entry: entry.mod_revision)]
    eventually(lambda: len(diary.events) >= len(stored))
    watch.close()
    cluster.close()
    assert outcomes.count("unknown") <= unknown
    assert outcomes[-15:] == ["done"] * 15
    assert stored == diary.keys()


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_calls_and_watches_go_on_when_the_node_in_use_freezes(nodes: EtcdNodes, role: str) -> None:
    """Writes: two unknown outcomes at most. The watch: on another node within ten seconds, nothing lost."""
    used = member_that_is(role, nodes)
    cluster, diary = connect(nodes.address(first=used)), Diary()
    watch = cluster.watch("/k/", 1, diary)
    create(cluster, "/k/first")
    eventually(lambda: diary.events)

    used.pause()
    paused = time.monotonic()
    outcomes = [_try(cluster, f"/k/{number}") for number in range(20)]
    stored = [entry.key for entry in sorted(cluster.list("/k/").entries, key=lambda entry: entry.mod_revision)]
    eventually(lambda: len(diary.events) >= len(stored))
    moved_s = time.monotonic() - paused
    used.resume()

    watch.close()
    cluster.close()
    assert outcomes.count("unknown") <= (1 if role == "follower" else 2)
    assert outcomes[2:] == ["done"] * 18
    assert stored == diary.keys()
    assert moved_s < 10


def test_a_frozen_follower_costs_a_read_a_moment_and_no_error(nodes: EtcdNodes) -> None:
    used = member_that_is("follower", nodes)
    cluster = connect(nodes.address(first=used))
    create(cluster, "/k/first")
    used.pause()

    began = time.monotonic()
    found = [cluster.get("/k/first") for _ in range(50)]
    took_s = time.monotonic() - began
    used.resume()
    cluster.close()

    assert None not in found
    assert took_s < 20, "one share of the time limit, once"


def test_a_member_without_the_others_is_not_believed(nodes: EtcdNodes) -> None:
    """A lone member of three keeps its connections open, and could serve stale reads and silent watches forever."""
    cluster = connect(nodes.address(timeout_s=2.0))
    create(cluster, "/k/first")
    diary = Diary()
    watch = cluster.watch("/k/", 1, diary)
    for member in nodes.members[1:]:
        member.kill()

    with pytest.raises(Unknown):
        cluster.get("/k/first")

    for member in nodes.members[1:]:
        member.start()
    create(cluster, "/k/second")
    eventually(lambda: diary.keys() == ["/k/first", "/k/second"])
    watch.close()
    cluster.close()


def test_a_lost_lease_is_told_at_its_deadline_while_etcd_is_frozen(server: EtcdServer, cluster: EtcdCluster) -> None:
    told: list[tuple[str, int, float]] = []
    keeper = LeaseKeeper(
        cluster,
        5.0,
        on_granted=lambda lease: told.append(("granted", lease, time.monotonic())),
        on_lost=lambda lease, why: told.append(("lost", lease, time.monotonic())),
    )
    keeper.start()
    eventually(lambda: told)
    first = told[0][1]
    eventually(lambda: keeper.lease == first)

    server.pause()
    paused = time.monotonic()
    eventually(lambda: len(told) == 2)
    server.resume()

    assert told[1][:2] == ("lost", first)
    assert 3.0 - 1.0 - 0.2 < told[1][2] - paused < 4.5, "60 % of 5 s after the last answered keep-alive was sent"
    eventually(lambda: len(told) == 3)
    assert told[2][0] == "granted"
    assert cluster.keep_alive(first) == 0.0, "the old one was revoked, not left to live on"
    keeper.close(revoke=True)


def test_a_process_that_stood_still_tells_of_the_loss_before_it_does_anything_else(
    server: EtcdServer, tmp_path: Path
) -> None:
    """The child writes every call and every piece of news to its output; it is stopped for longer than its lease."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.live.lease_child", "127.0.0.1", str(server.port)],
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[2],
    )
    lines: list[str] = []
    assert child.stdout is not None

    def read_until(word: str) -> None:
        assert child.stdout is not None
        while not lines or not lines[-1].startswith(word):
            lines.append(child.stdout.readline())
            assert lines[-1], f"the child ended: {lines}"

    try:
        read_until("granted")
        read_until("answered keep_alive")
        os.kill(child.pid, signal.SIGSTOP)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 3, every_s=0.1)
        stopped_at = len(lines)
        os.kill(child.pid, signal.SIGCONT)
        read_until("granted")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()

    after = [line.split()[0] + " " + line.split()[1] for line in lines[stopped_at:]]
    lost = next(index for index, line in enumerate(after) if line.startswith("lost"))
    assert not [line for line in after[:lost] if line.startswith("call")], after
    assert [line for line in after[lost + 1 :] if line.startswith("call")][:2] == ["call revoke", "call grant"]


def _try(cluster: EtcdCluster, key: str) -> str:
    began = time.monotonic()
    try:
        cluster.txn((), (Put(key=key, value=b"x"),))
    except Unknown:
        outcome = "unknown"
    else:
        outcome = "done"
    # a steady pace of ten writes a second, as the wait between two steps of a fleet
    eventually(lambda: time.monotonic() - began > 0.1, every_s=0.02)
    return outcome


def member_that_is(role: str, nodes: EtcdNodes) -> EtcdServer:
    leader = nodes.leader()
    return leader if role == "leader" else next(member for member in nodes.members if member is not leader)


def fill(cluster: EtcdCluster) -> None:
    """Write more than the quota."""
    for number in range(40):
        cluster.txn((), (Put(key=f"/junk/{number}", value=bytes(1_000_000)),))


def test_a_full_etcd_is_told_by_a_question_that_writes_nothing(tmp_path: Path, no_thread_left: None) -> None:
    """
    1. the database is at its quota: etcd raises NOSPACE and refuses writes and leases
    2. the check says so, also when its own comparison could never hold
    3. a person makes room and ends the alarm: the check says nothing more, and no key was written by it
    """
    server = EtcdServer(tmp_path / "etcd", options=("--quota-backend-bytes", str(16 << 20))).start().wait_ready()
    cluster = connect(server.address())
    context = StoreContext(cluster=cluster, keys=Keys("/x"), now=utc_now)
    try:
        assert () == unready(context)
        with pytest.raises(Refused):
            fill(cluster)

        eventually(lambda: "etcd takes no writes: mvcc: database space exceeded" in "".join(unready(context)))
        with pytest.raises(ReadOnly):
            cluster.grant(10)

        server.control("del", "--prefix", "/junk/")
        server.control("compact", str(cluster.list("/").revision))
        server.control("defrag")
        server.control("alarm", "disarm")
        eventually(lambda: unready(context) == ())
        assert () == cluster.list("/x/").entries
    finally:
        cluster.close()
        server.stop()
