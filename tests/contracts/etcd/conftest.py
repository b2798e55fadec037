"""Every test here runs twice: on the fake and on the real store."""

from collections.abc import Iterator
from typing import cast

import pytest

from outrider.etcd.seam import Cluster
from tests.contracts.etcd.fixture import EtcdFixture, FakeFixture, RealFixture
from tests.support.servers import EtcdServer


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest, no_thread_left: None) -> Iterator[FakeFixture | RealFixture]:
    built: FakeFixture | RealFixture
    if request.param == "fake":
        built = FakeFixture()
    else:
        built = RealFixture(cast(EtcdServer, request.getfixturevalue("etcd_server")))
    yield built
    built.close()


@pytest.fixture
def store(fixture: EtcdFixture) -> Cluster:
    """The client that is examined."""
    return fixture.cluster
