"""What wakes a watcher through etcd, and what doesn't."""

from collections.abc import Iterator

import pytest

from outrider.clients.wake import Announced
from outrider.etcd.seam import Delete, Put
from outrider.model.keys import Keys
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.waiting import eventually

KEYS = Keys("/outrider/v1")


class Woken:
    """Counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    connection = FakeEtcd().client("watch")
    yield connection
    connection.close()


def put(cluster: FakeCluster, key: str) -> None:
    assert cluster.txn((), (Put(key=key, value=b"{}"),)).succeeded


def remove(cluster: FakeCluster, key: str) -> None:
    assert cluster.txn((), (Delete(key=key),)).succeeded


def test_only_what_may_end_a_hold_of_this_instance_wakes_it(cluster: FakeCluster) -> None:
    target, mine, mark = KEYS.target("app", "beta"), KEYS.wakeup("app", "web-1"), KEYS.block("app", "2.0.0")
    wake = Woken()
    announced = Announced(cluster, KEYS, app="app", group="beta", instance="web-1", wake=wake)
    try:
        eventually(lambda: wake.times == 1)
        put(cluster, target)
        put(cluster, KEYS.target("app", "other"))
        put(cluster, mine)
        put(cluster, KEYS.wakeup("app", "web-10"))
        remove(cluster, mine)
        put(cluster, mark)
        # The last event of each watch counts, so that one which must not is seen by then.
        remove(cluster, mark)
        put(cluster, mine)
        put(cluster, target)
        eventually(lambda: wake.times == 6)
    finally:
        announced.close()
    put(cluster, target)

    assert 6 == wake.times
