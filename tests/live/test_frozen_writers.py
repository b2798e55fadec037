"""A sidekick frozen past its lease changes nothing in a balancer that can't be had here.

What vulcand, confd and APISIX would serve is judged after every change of a real etcd, and what Envoy would serve by
the file that a real agent writes for it. HAProxy, nginx, Caddy and Traefik are there themselves:
``tests/live/test_balancer_agents.py``.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.balancers import Entry
from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.demo.fleet import OUTRIDER
from outrider.demo.programs import Program, start_etcd
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, CreatedAt, Delete, Endpoint, EtcdAddress, Put
from tests.contracts.kits.balancers import BALANCER_KITS
from tests.contracts.kits.settings import SERVICE, settings_with
from tests.live.balancer_stand import KEYS, SLOT
from tests.live.test_balancer_agents import CHECKOUT, process_state
from tests.support.etcd_readers import READERS, Follower, envoy
from tests.support.waiting import eventually

OLD, LATE, RIGHT, AFTER = (f"http://127.0.0.1:808{number}" for number in range(4))
NEIGHBOUR, MOVED = "http://127.0.0.2:8080", "http://127.0.0.2:8081"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    etcd = start_etcd(tmp_path_factory.mktemp("etcd"))
    etcd.wait_ready()
    yield f"{etcd.endpoint.host}:{etcd.endpoint.port}"
    etcd.stop()


@pytest.fixture
def cluster(endpoint: str) -> Iterator[Cluster]:
    host, _, port = endpoint.rpartition(":")
    connection = connect(EtcdAddress(endpoints=(Endpoint(host=host, port=int(port)),)))
    yield connection
    connection.close()


def entry_of(cluster: Cluster, kind: str, server: str = "web-1") -> Entry:
    settings = settings_with(kind, BALANCER_KITS[kind].settings)
    settings = replace(settings, balancer=replace(settings.balancer, server_id=server))
    return BALANCERS.load(kind).make(settings, BalancerContext(cluster=cluster, keys=KEYS)).entry


def take_turn(cluster: Cluster) -> tuple[CreatedAt, ...]:
    """A turn without a lease."""
    cluster.txn((), (Delete(key=SLOT),))
    cluster.txn((), (Put(key=SLOT, value=b"mine"),))
    entry = cluster.get(SLOT)
    assert entry is not None
    return (CreatedAt(key=SLOT, revision=entry.create_revision),)


@contextmanager
def agent_of(kind: str, endpoint: str, folder: Path) -> Iterator[Callable[[], frozenset[str] | None]]:
    """Run Envoy's agent where the balancer has one; gives what Envoy would serve, None for the others."""
    if kind != "agent":
        yield lambda: None
        return
    file = folder / "eds.json"
    words = ("envoy", f"--eds-file={file}", f"--cluster={SERVICE}", f"--service={SERVICE}", "--name=lb-1")
    agent = Program("agent", [*OUTRIDER, "balancer-agent", *words, f"--etcd={endpoint}"], folder)
    try:
        yield lambda: envoy(file)
    finally:
        agent.stop()


@pytest.mark.parametrize("kind", READERS)
def test_a_sidekick_frozen_past_its_lease_changes_nothing_in_the_balancer(
    cluster: Cluster, endpoint: str, kind: str, tmp_path: Path
) -> None:
    """
    1. a sidekick has its turn and stands still right before its transaction
    2. its lease ends; another turn is taken, and the entry is switched in it; another server's entry is changed, too
    3. the first one goes on: it is refused, and at no revision the balancer would have served what it wanted
    """
    entry, neighbour = entry_of(cluster, kind), entry_of(cluster, kind, "web-2")
    entry.ensure_static()
    entry.join(OLD)
    neighbour.join(NEIGHBOUR)
    with Follower(cluster, kind) as balancer, agent_of(kind, endpoint, tmp_path) as own_state:
        eventually(lambda: own_state() in (None, {OLD, NEIGHBOUR}), every_s=0.05)
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.live.switch_child", kind, endpoint, LATE],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            eventually(lambda: process_state(child.pid) == "T", every_s=0.05)
            eventually(lambda: cluster.get(SLOT) is None, every_s=0.1)
            fence = take_turn(cluster)
            entry.switch(RIGHT, fence=fence)
            neighbour.join(MOVED, replacing=(NEIGHBOUR,))
            eventually(lambda: own_state() in (None, {RIGHT, MOVED}), every_s=0.05)
            child.send_signal(signal.SIGCONT)
            said, _ = child.communicate(timeout=60)
        finally:
            child.kill()
            child.wait()
        # whatever was written before this one has been read before it
        entry.switch(AFTER, fence=fence)
        eventually(lambda: balancer.served[-1] == {AFTER, MOVED}, every_s=0.05)
        eventually(lambda: own_state() in (None, {AFTER, MOVED}), every_s=0.05)

    assert "fence" == said.strip()
    assert [{OLD, NEIGHBOUR}, {RIGHT, NEIGHBOUR}, {RIGHT, MOVED}, {AFTER, MOVED}] == balancer.served


@pytest.mark.parametrize("kind", READERS)
def test_negative_control_what_is_written_under_a_turn_that_is_valid_is_served(
    cluster: Cluster, endpoint: str, kind: str
) -> None:
    """The same sidekick, stopped and sent on again before its lease has ended."""
    entry = entry_of(cluster, kind)
    entry.ensure_static()
    entry.join(OLD, replacing=(AFTER,))
    with Follower(cluster, kind) as balancer:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.live.switch_child", kind, endpoint, LATE, "60"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: process_state(child.pid) == "T", every_s=0.05)
        child.send_signal(signal.SIGCONT)
        said, _ = child.communicate(timeout=60)
        eventually(lambda: LATE in balancer.served[-1], every_s=0.05)

    assert "done" == said.strip()
