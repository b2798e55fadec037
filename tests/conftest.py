"""What every test may ask for: a real etcd, a connection to it, a part of its keys that nobody else writes.

Invariant at teardown of every test that talks to etcd: no thread of ours is left running.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadScopeScheduling

from outrider.demo import programs
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster
from tests.support.rings import FIRST_RING, FLEET, FLEET_RING, OUTER_TIMEOUT_S, ROOT, ring_of, sample_of
from tests.support.servers import EtcdServer
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.service"]

UNDER_LOAD = (*FLEET, "tests/live/test_traefik.py", "tests/live/test_balancer_agents.py")
"""Fleets whose every request counts: one after the other on one worker, beside all other tests."""


ONE_AFTER_THE_OTHER = ("tests/verify/test_checker.py", "tests/live/test_demo.py")
"""Files for one worker: their tests share something that takes a minute to make, or choose ports without asking us."""


ON_ONE_WORKER = ("tests/service/api/test_schemathesis.py",)
"""Files for one worker of the first ring: the first test of each takes two seconds longer than the others."""

TOGETHER = 8
"""Tests of one file that a worker of the first ring is given at once: thousands of pieces would cost too much."""


class FleetsApart(LoadScopeScheduling):  # type: ignore[misc]
    """pytest-xdist's scheduler, to which the fleets under load are one piece of work, and any other test is one.

    In a ring of fleets alone, which wait most of the time, each is a piece of its own. In the first ring, whose tests
    are quick, a piece is some tests of one file, so that they share what their file makes once.
    """

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        self._is_first_ring = config.option.markexpr == FIRST_RING
        self._pieces: dict[str, str] = {}
        self._seen: Counter[str] = Counter()
        if self._is_first_ring:
            config.option.loadscopereorder = False  # by size, what is slow would come last

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(UNDER_LOAD) and self.config.option.markexpr != FLEET_RING:
            return "under load"
        file = nodeid.partition("::")[0]
        if nodeid.startswith(ONE_AFTER_THE_OTHER):
            return file
        if self._is_first_ring and nodeid.startswith(ON_ONE_WORKER):
            return file
        if not self._is_first_ring or nodeid.startswith(SLOW_FIRST):
            return nodeid
        if nodeid not in self._pieces:
            self._pieces[nodeid] = f"{file} {self._seen[file] // TOGETHER}"
            self._seen[file] += 1
        return self._pieces[nodeid]

    def mark_test_complete(self, node: object, item_index: int, duration: float = 0) -> None:
        """As xdist's own, which looks through all that a worker has ever done after each test, so it grows slower."""
        super().mark_test_complete(node, item_index, duration)
        piece = self._split_scope(self.registered_collections[node][item_index])
        if all(self.assigned_work[node][piece].values()):
            del self.assigned_work[node][piece]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FleetsApart:
    """Marks of ``xdist_group`` would do, but xdist 3.8 writes them where pytest 9.2 doesn't look any more."""
    return FleetsApart(config, log)


SLOW_FIRST = ("tests/verify/", "tests/core/chart/test_oracle.py", "tests/service/api/test_schemathesis.py")
"""Files with tests of many seconds: begun last, one would keep one worker busy while the others have nothing left."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't even import what a run of the first ring leaves out: each worker would, which takes seconds."""
    whole_ring = config.option.markexpr == FIRST_RING and collection_path.suffix == ".py"
    return True if whole_ring and ring_of(collection_path.relative_to(ROOT).as_posix()) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Each worker begins with a part of its own of the tests, and finds what the others have compiled on the disk.

    In a fresh clone pytest rewrites and compiles all tests, 10 s of CPU. Workers that collect in the same order come to
    each file at the same time, and each does all of it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and session.config.option.markexpr == FIRST_RING and not sys.dont_write_bytecode:
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        paths = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
        for path in [path for path in paths if not ring_of(path.as_posix())][int(worker.removeprefix("gw")) :: workers]:
            # what can't be imported is told when it is collected
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(path.with_suffix("").parts))
    return (yield)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its ring, and those of the outer rings the time that a busy machine takes."""
    for item in items:
        # a kit of a contract test may need a program of the outer ring, and says so itself
        ring = ring_of(item.nodeid) or ("live" if item.get_closest_marker("live") else "")
        if ring in ("live", "fleet"):
            item.add_marker(ring)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(OUTER_TIMEOUT_S))
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW_FIRST))


@pytest.hookimpl(specname="pytest_collection_modifyitems", trylast=True)  # after -m has chosen
def pytest_keep_sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a ring that takes too long as a whole, keep one part (``OUTRIDER_TEST_SAMPLE``): all parts together are it."""
    if given := os.environ.get("OUTRIDER_TEST_SAMPLE"):
        part, parts = sample_of(given)
        config.hook.pytest_deselected(items=[item for at, item in enumerate(items) if at % parts != part])
        items[:] = items[part::parts]


def pytest_collection_finish() -> None:
    """What was collected stays until the end: looking through it again and again takes a ninth of the CPU."""
    gc.collect()
    gc.freeze()


# How fast a machine is, is no fact about the code: on a busy one a strategy that takes milliseconds takes seconds.
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")


def pytest_configure() -> None:
    """Each worker gives its programs ports of its own: two that look at the same time find the same port free.

    What runs in the background of a shell, or of a CI job, ignores Ctrl-C, and so would each program that a test
    starts and ends with it: a signal that is ignored stays so across ``exec``, one with a handler doesn't.
    """
    gc.set_threshold(50_000, 10, 10)  # what is imported and collected stays, so there is little to find
    os.environ["XDG_CONFIG_HOME"] = str(ROOT / ".cache" / "no-config")  # no test reads or writes contexts of its user
    os.environ.pop("OUTRIDER_CONTEXT", None)
    runtime = ROOT / ".cache" / "no-services"
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # no test finds the socket of a service of its user
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    workers, mine = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    programs.PORTS = programs.PORTS[int(mine.removeprefix("gw")) :: workers]


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One real etcd for the whole run. Tests share it: write below ``prefix`` only, and leave it running."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd")).start().wait_ready()
    yield server
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A prefix of keys that no other test uses, with a slash at its end."""
    return f"/test/{uuid.uuid4().hex[:12]}/"


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Fails when a thread of ours outlives the test."""
    before = set(threading.enumerate())
    yield

    def none_left() -> bool:
        assert [] == our_threads(before), "still running"
        return True

    eventually(none_left)


def our_threads(before: set[threading.Thread]) -> list[str]:
    """Names of outrider's threads that run now and did not run ``before``."""
    return [t.name for t in threading.enumerate() if t.name.startswith("outrider") and t not in before]


@pytest.fixture
def cluster(etcd_server: EtcdServer, no_thread_left: None) -> Iterator[Cluster]:
    """A connection to the shared etcd."""
    connection = connect(etcd_server.address())
    yield connection
    connection.close()
