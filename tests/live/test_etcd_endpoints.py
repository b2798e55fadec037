"""Two ways to one etcd, one of them in trouble: what may be asked again on the other way, and what may not."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from outrider.core.errors import Unknown
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Endpoint, EtcdAddress, Put
from tests.live.etcd_fixture import create
from tests.support.servers import EtcdServer
from tests.support.waiting import eventually
from tests.support.wire import Wire

TIMEOUT_S = 2.0


@pytest.fixture
def wire(etcd_server: EtcdServer) -> Iterator[Wire]:
    """The way that is asked first."""
    built = Wire(etcd_server.port)
    yield built
    built.close()


@pytest.fixture
def cluster(etcd_server: EtcdServer, wire: Wire, prefix: str, no_thread_left: None) -> Iterator[EtcdCluster]:
    """Connected, and used once, over the wire; the second way is direct."""
    ways = (Endpoint(host="127.0.0.1", port=wire.port), etcd_server.endpoint)
    connection = connect(EtcdAddress(endpoints=ways, timeout_s=TIMEOUT_S))
    create(connection, prefix + "first")
    yield connection
    connection.close()


def writes(cluster: EtcdCluster, prefix: str) -> int:
    """How often ``prefix + "a"`` has been written; each write is one revision here."""
    listing = cluster.list(prefix)
    return listing.revision - next(entry.mod_revision for entry in listing.entries if entry.key.endswith("first"))


def test_a_write_whose_answer_was_lost_is_not_given_to_another_node(
    cluster: EtcdCluster, wire: Wire, prefix: str
) -> None:
    wire.mute()

    with pytest.raises(Unknown, match="no answer in time"):
        cluster.txn((), (Put(key=prefix + "a", value=b""),))

    assert writes(cluster, prefix) == 1


def test_a_write_whose_connection_broke_before_the_answer_is_not_given_to_another_node(
    cluster: EtcdCluster, etcd_server: EtcdServer, wire: Wire, prefix: str
) -> None:
    """There is time enough left for the other node, which would take the write gladly."""
    direct = connect(etcd_server.address())
    wire.mute()
    with ThreadPoolExecutor() as pool:
        outcome = pool.submit(cluster.txn, (), (Put(key=prefix + "a", value=b""),))
        eventually(lambda: direct.get(prefix + "a"))
        wire.cut()

        assert isinstance(outcome.exception(), Unknown)

    assert writes(direct, prefix) == 1
    direct.close()


def test_a_write_that_was_not_sent_is_given_to_another_node(cluster: EtcdCluster, wire: Wire, prefix: str) -> None:
    """Only the write that finds the connection broken may be unknown, for all the client can tell."""
    wire.close()
    with contextlib.suppress(Unknown):
        cluster.txn((), (Put(key=prefix + "b", value=b""),))

    for number in range(10):
        assert cluster.txn((), (Put(key=f"{prefix}{number}", value=b""),)).succeeded


def test_a_read_whose_answer_was_lost_is_asked_again_on_another_node(
    cluster: EtcdCluster, wire: Wire, prefix: str
) -> None:
    lease = cluster.grant(30)
    wire.mute()
    began = time.monotonic()

    found = cluster.get(prefix + "first")

    assert found is not None
    assert time.monotonic() - began < TIMEOUT_S
    assert cluster.keep_alive(lease) == 30.0
    cluster.revoke(lease)


def test_a_node_that_failed_is_not_asked_first_again_at_once(cluster: EtcdCluster, wire: Wire, prefix: str) -> None:
    wire.freeze()
    cluster.get(prefix + "first")
    began = time.monotonic()

    for _ in range(20):
        cluster.get(prefix + "first")

    assert time.monotonic() - began < 3 * TIMEOUT_S, "none of them waited for the frozen node"


def test_with_both_ways_closed_the_error_names_both_in_one_line(wire: Wire, prefix: str) -> None:
    wire.close()
    ways = (Endpoint(host="127.0.0.1", port=wire.port), Endpoint(host="127.0.0.1", port=1))
    cluster = connect(EtcdAddress(endpoints=ways, timeout_s=TIMEOUT_S))

    with pytest.raises(Unknown) as caught:
        cluster.get(prefix)

    cluster.close()
    assert (
        str(caught.value) == f"etcd doesn't answer (get): 127.0.0.1:{wire.port}: connection refused; "
        "127.0.0.1:1: connection refused"
    )
