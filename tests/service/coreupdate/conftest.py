"""The application with CoreUpdate's API over an etcd in memory, and a user who may do everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.coreupdate import Signer, over_network
from tests.support.in_process import application_over
from tests.support.service_examples import open_store
from tests.support.wall_clock import WallClock


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def store(etcd: FakeEtcd, clock: WallClock) -> Iterator[Store]:
    connection = etcd.client("test")
    yield open_store(connection, now=clock)
    connection.close()


@pytest.fixture
def application(etcd: FakeEtcd, clock: WallClock, tmp_path: Path) -> Iterator[FastAPI]:
    connection = etcd.client("service")
    yield application_over(connection, tmp_path / "payloads", coreupdate_api=True, now=clock)
    connection.close()


@pytest.fixture
def admin(application: FastAPI, store: Store, clock: WallClock) -> Signer:
    """Signs as the user ``admin``, an admin."""
    store.users.begin("admin")
    key = store.users.create("admin", hawk=True).hawk_key
    return Signer(application=over_network(application), user="admin", key=key, at=int(clock().timestamp()))
