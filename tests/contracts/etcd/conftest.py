"""Every test here runs twice: on the fake and on the real store."""

from collections.abc import Iterator
from typing import cast

import pytest

from outrider.etcd.seam import Cluster
from tests.contracts.etcd.stage import FakeStage, RealStage, Stage
from tests.support.servers import EtcdServer


@pytest.fixture(params=["fake", "real"])
def stage(request: pytest.FixtureRequest, no_thread_left: None) -> Iterator[FakeStage | RealStage]:
    built: FakeStage | RealStage
    if request.param == "fake":
        built = FakeStage()
    else:
        built = RealStage(cast(EtcdServer, request.getfixturevalue("etcd_server")))
    yield built
    built.close()


@pytest.fixture
def store(stage: Stage) -> Cluster:
    """The client that is examined."""
    return stage.cluster
