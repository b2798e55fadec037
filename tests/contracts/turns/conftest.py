"""Every test here runs twice: on the fake etcd and on the real one."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from tests.contracts.turns.words import Instance, Start
from tests.sim.fake_etcd import FakeEtcd
from tests.support.servers import EtcdServer


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest, no_thread_left: None) -> Iterator[Cluster]:
    """A client that no trouble reaches."""
    if request.param == "fake":
        built: Cluster = FakeEtcd().client()
    else:
        built = connect(cast(EtcdServer, request.getfixturevalue("etcd_server")).address())
    yield built
    built.close()


@pytest.fixture
def keys(prefix: str) -> Keys:
    return Keys(prefix.rstrip("/"))


@pytest.fixture
def start(store: Cluster, keys: Keys) -> Iterator[Start]:
    """Starts a process of the instance of that name."""
    started: list[Instance] = []

    def start_one(name: str, **where: Any) -> Instance:
        started.append(Instance(store, keys, name, **where))
        return started[-1]

    yield start_one
    for instance in started:
        instance.client.away = False
        instance.lock.close()
        store.revoke(instance.lease)
