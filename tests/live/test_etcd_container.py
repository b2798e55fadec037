"""The etcd client against an etcd in a container: another network path than loopback, and a whole machine that dies."""

from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from outrider.core.errors import DriverError
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, CreatedAt, Entry, KeyChanged, Put, Resynced, WatchEvent
from tests.support.containers import EtcdContainer
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def etcd_container() -> Iterator[EtcdContainer]:
    container = EtcdContainer()
    try:
        yield container.start()
    finally:
        container.remove()


@pytest.fixture
def cluster(etcd_container: EtcdContainer, no_thread_left: None) -> Iterator[Cluster]:
    connected = connect(etcd_container.address())
    yield connected
    connected.close()


def put(cluster: Cluster, key: str, value: bytes, *, lease: int = 0) -> None:
    assert cluster.txn((), (Put(key=key, value=value, lease=lease),)).succeeded


def taken(events: SimpleQueue[WatchEvent]) -> list[WatchEvent]:
    return [events.get() for _ in range(events.qsize())]


def test_a_key_is_read_as_it_was_written(cluster: Cluster) -> None:
    put(cluster, "/written/a", b"\x00 bytes \xff")

    entry = cluster.get("/written/a")

    assert entry is not None
    assert entry.value == b"\x00 bytes \xff"


def test_of_two_creations_of_one_key_only_the_first_succeeds(cluster: Cluster) -> None:
    absent = CreatedAt(key="/created/a", revision=0)
    first = cluster.txn((absent,), (Put(key="/created/a", value=b"first"),))

    second = cluster.txn((absent,), (Put(key="/created/a", value=b"second"),))

    assert (first.succeeded, second.succeeded) == (True, False)
    assert [entry.value for entry in second.found] == [b"first"]


def test_a_key_goes_with_its_lease(cluster: Cluster) -> None:
    lease = cluster.grant(60)
    put(cluster, "/leased/a", b"here", lease=lease)
    assert cluster.keep_alive(lease) > 0

    cluster.revoke(lease)

    assert cluster.get("/leased/a") is None
    assert cluster.keep_alive(lease) == 0


def read_if_there(cluster: Cluster, key: str) -> Entry | None:
    """None too while etcd isn't there: starting a container takes a while, and says nothing when it is done."""
    try:
        return cluster.get(key)
    except DriverError:
        return None


def test_a_watch_delivers_what_is_written_after_the_container_was_killed(
    etcd_container: EtcdContainer, cluster: Cluster
) -> None:
    """
    1. a watch has delivered a first change
    2. the container gets SIGKILL and is started again; what it had stored is still there
    3. the same watch delivers the next change, and neither loses nor repeats one
    """
    events: SimpleQueue[WatchEvent] = SimpleQueue()
    delivered: list[WatchEvent] = []

    def seen(count: int) -> bool:
        delivered.extend(taken(events))
        return len(delivered) >= count

    watch = cluster.watch("/survives/", cluster.list("/survives/").revision + 1, events.put)
    put(cluster, "/survives/a", b"before")
    eventually(lambda: seen(1))

    etcd_container.kill()
    etcd_container.start_again()
    kept = eventually(lambda: read_if_there(cluster, "/survives/a"))
    put(cluster, "/survives/b", b"after")

    eventually(lambda: seen(2))
    watch.close()
    assert kept is not None
    assert kept.value == b"before"
    assert not any(isinstance(event, Resynced) for event in delivered)
    changes = [(event.key, event.entry and event.entry.value) for event in delivered if isinstance(event, KeyChanged)]
    assert changes == [("/survives/a", b"before"), ("/survives/b", b"after")]
