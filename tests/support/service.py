"""A store over an etcd in memory, a clock of the test's own, and the running service over the real etcd."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from outrider import unix_sockets
from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.service.context import Context
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.server import configuration
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.applications import new_application
from tests.support.servers import EtcdServer
from tests.support.service_examples import make_app, open_store
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON, WallClock


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def fake_etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def client(fake_etcd: FakeEtcd) -> Iterator[FakeCluster]:
    connection = fake_etcd.client("service")
    yield connection
    connection.close()


@pytest.fixture
def store(client: FakeCluster, clock: WallClock) -> Store:
    return open_store(client, now=clock)


__all__ = ["NOON", "WallClock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The update service, running."""

    url: str
    host: str
    port: int
    store: Store
    prefix: str
    etcd: str
    payload_dir: Path


class RunningServer:
    """One uvicorn on a free port, on a thread of its own.

    Unless told otherwise it is open to all until there is a user, as with ``--insecure-listen``: most tests are about
    what is behind the door. Those about the door (``tests/security/``) say ``open_to_all=False``.
    """

    def __init__(
        self, cluster: Cluster, payload_dir: Path, prefix: str, *, local: Path | None = None, **options: Any
    ) -> None:
        """``local``: where its Unix socket is."""
        options = {"open_to_all": True} | options
        payloads = PayloadFolder(folder=payload_dir)
        payloads.prepare()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.socket.getsockname()[:2]
        sockets = [self.socket, *([unix_sockets.listen(local)] if local else [])]
        application = new_application(cluster, payloads, prefix=prefix, **options)
        self.context: Context = application.state.context
        config = configuration(application)
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": sockets}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def connections(self) -> list[Any]:
        """Those that are open now."""
        return list(self._server.server_state.connections)

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *reason: object) -> None:
        """Let it end: uvicorn sleeps 0.2 s meanwhile, and the next test needn't wait for that."""
        self._server.should_exit = True
        _ending[:] = [server for server in (*_ending, self) if server._thread.is_alive()]

    def wait_ended(self) -> None:
        self._thread.join(60)
        self.socket.close()
        assert not self._thread.is_alive(), "the service didn't end"


_ending: list[RunningServer] = []


@pytest.fixture(scope="session", autouse=True)
def every_server_ends() -> Iterator[None]:
    """Fails the last test when a service that was left hasn't ended."""
    yield
    for server in _ending:
        server.wait_ended()


@pytest.fixture
def service(cluster: Cluster, etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Service]:
    """The service over the real etcd, below keys of its own."""
    below = prefix.rstrip("/")
    with RunningServer(cluster, tmp_path / "payloads", below) as running:
        yield Service(
            url=running.url,
            host=running.host,
            port=running.port,
            store=open_store(cluster, below),
            prefix=below,
            etcd=f"127.0.0.1:{etcd_server.port}",
            payload_dir=tmp_path / "payloads",
        )


@pytest.fixture
def fleet(store: Store, fake_etcd: FakeEtcd, clock: WallClock) -> Fleet:
    """A group whose channel points at 2.0.0, and its clients."""
    make_app(store, versions=("1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    return Fleet(store=store, etcd=fake_etcd, clock=clock)


@pytest.fixture
def keys(store: Store) -> Keys:
    return store.context.keys
