"""What the nouns' workers keep in order when threads meet: requests for turns, waits, and an operator's words."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import cast

import pytest

from outrider.balancers.drain import Drain
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.traefik import TraefikKeys, TraefikObserver, TraefikSettings
from outrider.config.sections import DownloadSettings, DrainSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, OutriderError, Throttled
from outrider.core.omaha import FailureCode, failed
from outrider.core.sidekick.effects import (
    AcquireLock,
    BalancerEffect,
    DrainBalancer,
    EnsureWorkload,
    ReleaseLock,
    StartWorkload,
    UndrainBalancer,
)
from outrider.core.sidekick.events import (
    AnyEvent,
    BalancerDrained,
    BlockChanged,
    LockReleased,
    OperatorPaused,
    ReleaseFailed,
    WorkloadFailed,
)
from outrider.core.sidekick.memory import Installed, Release
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Put
from outrider.model.documents import Block, Command, Contender, encode
from outrider.model.keys import Keys, group_scope
from outrider.model.oldest import Oldest
from outrider.payloads.store import PayloadStore
from outrider.payloads.transfer import PayloadError, TransferFailed, WriteFailed
from outrider.sidekick.announcements import KEPT_BLOCKS, Announcements
from outrider.sidekick.workers.balancer import BalancerWork
from outrider.sidekick.workers.lock import LockWork
from outrider.sidekick.workers.worker import failure
from outrider.sidekick.workers.workload import WorkloadWork
from outrider.turns.lock import TurnLock
from outrider.turns.oldest import OldestVersion, TooOld
from outrider.turns.running import RunningKeys
from outrider.turns.turns import read_scope
from tests.sim.agenda import Agenda
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.sim.host import Host, SimRuntime
from tests.sim.store import FaultProfile
from tests.support.waiting import eventually

KEYS = Keys("/outrider/v1")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
REQUEST = AcquireLock(update="u1", version="2.0.0", slots=1, target_revision=-1)


class Keeper:
    """Has a lease when the test says so."""

    lease: int | None = None


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def client(etcd: FakeEtcd, no_thread_left: None) -> Iterator[FakeCluster]:
    client = etcd.client()
    yield client
    client.close()


def test_a_request_that_waited_for_a_lease_is_not_taken_up_after_the_turn_was_given_back(client: FakeCluster) -> None:
    """
    1. a turn is requested without a lease
    2. there is a lease again: its keeper fetches the request, and is held up right then
    3. the sidekick changes its mind and leaves the queue
    4. the keeper hands in the request: an instance at rest would hold a turn that nobody gives back
    """
    events: list[AnyEvent] = []
    keeper = Keeper()
    lock = TurnLock(client, KEYS, Contender(app="app", group="g", instance="a"), clock=lambda: NOON)
    work = LockWork(
        client, KEYS, lock, cast(LeaseKeeper, keeper), app="app", group="g", instance="a", post=events.append
    )
    try:
        work.perform(REQUEST, 5)
        keeper.lease = client.grant(60.0)
        late = work.take_pending()
        assert late is not None
        work.perform(ReleaseLock(turn=None, update="u1"), 6)

        work.perform(*late)

        assert [LockReleased] == [type(event) for event in events]
    finally:
        work.close()
    scope = read_scope(client, KEYS, group_scope("app", "g"))
    assert ({}, {}) == (dict(scope.queue), dict(scope.slots))


@pytest.mark.parametrize(
    ("effect", "clock", "least_s"),
    [
        # no time passes, so nothing is waited for
        (DrainBalancer(present="http://127.0.0.1:2", absent="http://127.0.0.1:1"), lambda: 0.0, 0.0),
        (UndrainBalancer(present="http://127.0.0.1:1", absent="http://127.0.0.1:2"), time.monotonic, 0.5),
    ],
)
def test_a_balancer_is_believed_at_once_but_not_when_a_change_is_taken_back(
    client: FakeCluster, effect: BalancerEffect, clock: Callable[[], float], least_s: float
) -> None:
    """
    1. the balancer has not followed a switch, which is taken back
    2. it sends to the old address: that is no sign that it has heard of either
    3. the switch reaches it late; a candidate that is gone by then would get requests
    """
    events: list[AnyEvent] = []
    settings = TraefikSettings(throttle_s=0.0)
    traefik = TraefikObserver(settings, service="app")
    traefik.confirm = lambda *, present, absent: True  # type: ignore[method-assign]
    entry = EtcdEntry(client, TraefikKeys(settings, service="app"), service="app", server_id="a")
    drain = Drain(traefik, DrainSettings(wait_s=0.0), clock=clock)
    work = BalancerWork(entry, drain, KEYS, member="a", inflight_path="", post=events.append)
    work.interrupt(effect)

    work.perform(effect, 1)

    (drained,) = events
    assert isinstance(drained, BalancerDrained)
    said = re.search(r"after (\d+\.\d) s", drained.how)
    assert said is not None
    assert least_s <= float(said[1])


def test_what_the_runtime_can_not_run_is_no_fault_of_the_release_that_is_asked_for(tmp_path: Path) -> None:
    """The runtime was changed since the release was taken: a rolled-back or running image on a machine of archives."""
    host = Host(
        name="a", agenda=Agenda(), random=Random(1), faults=FaultProfile(), bad={}, ports=1,
        changed=lambda host: None, started=lambda host, version: None,
    )  # fmt: skip
    runtime = SimRuntime(host, lambda seconds: None, lambda delay_s, action: host.agenda.at(delay_s, action))
    payloads = PayloadStore(tmp_path, DownloadSettings())
    work = WorkloadWork(runtime, payloads, stop_grace_s=1.0, post=lambda event: None)
    release = Release(version="2.0.0", urls=("http://x/2",), sha256="2" * 64, size_bytes=1, kind="image")

    with pytest.raises(DriverError, match=r"of a kind \(image\) that this machine's runtime") as caught:
        work.perform(StartWorkload(installed=Installed(release=release, workload_id="a-2")), 1)

    event = failure("workload.start", caught.value, 1)
    assert isinstance(event, WorkloadFailed)
    assert "world" == judge(event.evidence)


def test_a_command_that_is_listed_again_is_told_once(etcd: FakeEtcd, client: FakeCluster) -> None:
    """
    1. an operator's word is heard, and the loop hasn't written it down yet
    2. the watch falls behind a compaction, and everything is listed anew
    3. told twice, a rollback would roll itself back
    """
    events: list[AnyEvent] = []
    watching = etcd.client("sidekick")
    heard = Announcements(watching, KEYS, app="app", group="g", instance="a", post=events.append)
    heard.start(command_revision=0, default_slots=1)
    key = KEYS.command("app", "a")
    client.txn((), (Put(key=key, value=encode(Command(verb="pause", by="test", at=NOON))),))
    eventually(lambda: pauses(events) == 1)
    before = len(events)

    watching.cut_off()
    for number in range(3):
        client.txn((), (Put(key=f"{KEYS.wakeup('app', 'a')}/{number}", value=b"{}"),))
    etcd.compact()
    watching.mend()
    client.txn((), (Put(key=f"{KEYS.blocks('app')}9.9.9", value=b"{}"),))

    eventually(lambda: len(events) > before + 1)
    heard.close()
    watching.close()
    assert 1 == pauses(events)


def test_a_command_that_was_taken_is_removed_once_etcd_answers_again(etcd: FakeEtcd, client: FakeCluster) -> None:
    events: list[AnyEvent] = []
    taking = etcd.client("sidekick")
    heard = Announcements(taking, KEYS, app="app", group="g", instance="a", post=events.append)
    heard.start(command_revision=0, default_slots=1)
    key = KEYS.command("app", "a")
    client.txn((), (Put(key=key, value=encode(Command(verb="pause", by="test", at=NOON))),))
    eventually(lambda: pauses(events) == 1)
    told = next(event for event in events if isinstance(event, OperatorPaused))
    calls = len(taking.calls)

    taking.cut_off()
    heard.consumed(told)
    eventually(lambda: len(taking.calls) > calls)
    taking.mend()

    eventually(lambda: client.get(key) is None)
    heard.close()
    taking.close()


def test_only_the_newest_marks_are_told(etcd: FakeEtcd, client: FakeCluster) -> None:
    """Every record of the journal has them, and a fleet has more of them every year."""
    for number in range(KEPT_BLOCKS + 5):
        block = Block(version=f"1.0.{number}", sha256="", instance="b", why="503", at=NOON)
        client.txn((), (Put(key=KEYS.block("app", block.version), value=encode(block)),))
    events: list[AnyEvent] = []
    listening = etcd.client("sidekick")
    heard = Announcements(listening, KEYS, app="app", group="g", instance="a", post=events.append)

    heard.start(command_revision=0, default_slots=1)

    told = eventually(lambda: [event for event in events if isinstance(event, BlockChanged)])[0]
    heard.close()
    listening.close()
    assert {f"1.0.{number}" for number in range(5, KEPT_BLOCKS + 5)} == set(told.versions)


def pauses(events: list[AnyEvent]) -> int:
    return sum(isinstance(event, OperatorPaused) for event in events)


@pytest.mark.parametrize(
    ("error", "code", "retry_after_s"),
    [
        (DriverError("no answer"), FailureCode.ERROR, 0.0),
        (Throttled("busy", retry_after_s=7.0), FailureCode.ERROR, 7.0),
        (PayloadError("gone"), FailureCode.ERROR, 0.0),
        (TransferFailed("cut"), FailureCode.TRANSFER, 0.0),
        (WriteFailed("full"), FailureCode.WRITE, 0.0),
    ],
)
def test_what_a_release_failed_with_has_a_code_that_can_be_reported(
    error: OutriderError, code: FailureCode, retry_after_s: float
) -> None:
    event = failure("release.download", error, 1)

    assert isinstance(event, ReleaseFailed)
    assert (code, retry_after_s) == (event.error_code, event.retry_after_s)
    assert code == failed(event.error_code).error_code


OLDEST = Oldest(app="app", group="g", version="2.0.0", task="drop", instance="b", since=NOON)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_what_is_older_than_what_may_run_is_not_started_again_and_stopped(
    client: FakeCluster, tmp_path: Path, known: bool, runs: bool
) -> None:
    """Unless it is written that it may run here: then the task that made it too old has not begun."""
    host = Host(
        name="a", agenda=Agenda(), random=Random(1), faults=FaultProfile(), bad={}, ports=1,
        changed=lambda host: None, started=lambda host, version: None,
    )  # fmt: skip
    runtime = SimRuntime(host, lambda seconds: None, lambda delay_s, action: host.agenda.at(delay_s, action))
    events: list[AnyEvent] = []
    old = Release(version="1.0.0", urls=("http://x/1",), sha256="1" * 64, size_bytes=1)
    installed = Installed(release=old, workload_id="a-1")
    payloads = PayloadStore(tmp_path, DownloadSettings())
    payloads.find = lambda sha256: tmp_path  # type: ignore[method-assign]
    oldest = OldestVersion(client, KEYS, app="app", group="g", scope=group_scope("app", "g"))
    running = RunningKeys(client, KEYS, app="app", group="g", instance="a", oldest=oldest)
    work = WorkloadWork(
        runtime, payloads, stop_grace_s=1.0, post=events.append, permit=lambda release: running.note(release, NOON)
    )
    if runs:
        work.perform(StartWorkload(installed=installed), 1)
    if known:
        running.note(old, NOON)
    client.txn((), (Put(key=KEYS.oldest("app", "g"), value=encode(OLDEST)),))

    if known:
        work.perform(EnsureWorkload(installed=installed), 2)
    else:
        with pytest.raises(TooOld, match=r"1\.0\.0 is older than 2\.0\.0") as caught:
            work.perform(EnsureWorkload(installed=installed), 2)
        assert "machine" == judge(caught.value.evidence)

    assert known == (runtime.find("a-1") is not None)
    assert known == bool(client.list(KEYS.running("app")).entries)


def test_while_etcd_is_away_what_ran_here_is_started(etcd: FakeEtcd, tmp_path: Path) -> None:
    host = Host(
        name="a", agenda=Agenda(), random=Random(1), faults=FaultProfile(), bad={}, ports=1,
        changed=lambda host: None, started=lambda host, version: None,
    )  # fmt: skip
    runtime = SimRuntime(host, lambda seconds: None, lambda delay_s, action: host.agenda.at(delay_s, action))
    away = etcd.client("a")
    payloads = PayloadStore(tmp_path, DownloadSettings())
    payloads.find = lambda sha256: tmp_path  # type: ignore[method-assign]
    oldest = OldestVersion(away, KEYS, app="app", group="g", scope=group_scope("app", "g"))
    running = RunningKeys(away, KEYS, app="app", group="g", instance="a", oldest=oldest)
    events: list[AnyEvent] = []
    work = WorkloadWork(
        runtime, payloads, stop_grace_s=1.0, post=events.append, permit=lambda release: running.note(release, NOON)
    )
    release = Release(version="1.0.0", urls=("http://x/1",), sha256="1" * 64, size_bytes=1)
    away.cut_off()

    work.perform(EnsureWorkload(installed=Installed(release=release, workload_id="a-1")), 1)

    assert ["WorkloadStarted"] == [type(event).__name__ for event in events]
    away.close()
