"""The two fixtures that hold ``Cluster`` to its promises: a fake etcd, and a real one behind a wire."""

from typing import Protocol

from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Cluster, Endpoint, EtcdAddress
from tests.sim.fake_etcd import FakeEtcd
from tests.support.servers import EtcdServer
from tests.support.wire import Wire

TIMEOUT_S = 1.0  # of one call, here: short, because these tests wait for it


class EtcdFixture(Protocol):
    """What a contract test may do to the world around a client.

    Attributes:
        cluster: The client that is examined.
        other: A second client, which no trouble reaches.
    """

    cluster: Cluster
    other: Cluster

    def cut_off(self) -> None:
        """No call of ``cluster`` gets through."""

    def freeze(self) -> None:
        """Calls of ``cluster`` get no answer and don't happen."""

    def lose_answers(self) -> None:
        """The next call that writes happens, and its answer is lost."""

    def mend(self) -> None:
        """No more trouble."""

    def compact(self) -> None:
        """Forget all history up to now."""

    def pass_time(self, seconds: float) -> None:
        """Let the time of leases pass; a real store is simply waited for by the test."""


class FakeFixture:
    def __init__(self) -> None:
        self._store = FakeEtcd()
        self._client = self._store.client("examined", timeout_s=TIMEOUT_S)
        self.cluster: Cluster = self._client
        self.other: Cluster = self._store.client("other")
        self._store.apply([])

    def cut_off(self) -> None:
        self._client.cut_off()

    def freeze(self) -> None:
        self._client.hold()

    def lose_answers(self) -> None:
        self._client.lose_answers()

    def mend(self) -> None:
        self._client.release()
        self._client.mend()

    def compact(self) -> None:
        self._store.compact()

    def pass_time(self, seconds: float) -> None:
        self._store.clock.advance(seconds)

    def close(self) -> None:
        self.cluster.close()
        self.other.close()


class RealFixture:
    def __init__(self, server: EtcdServer) -> None:
        self._server = server
        self._wire = Wire(server.port)
        endpoint = Endpoint(host="127.0.0.1", port=self._wire.port)
        self.cluster: Cluster = connect(EtcdAddress(endpoints=(endpoint,), timeout_s=TIMEOUT_S))
        self.other: EtcdCluster = connect(server.address())

    def cut_off(self) -> None:
        self._wire.cut()

    def freeze(self) -> None:
        self._wire.freeze()

    def lose_answers(self) -> None:
        self._wire.mute()

    def mend(self) -> None:
        self._wire.mend()

    def compact(self) -> None:
        self._server.control("compact", str(self.other.list("/nothing/here").revision))

    def pass_time(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self.cluster.close()
        self.other.close()
        self._wire.close()
