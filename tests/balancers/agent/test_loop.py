"""The agent's rounds, on the fake etcd, with a balancer in memory: what is applied when, and what is said of it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from outrider.balancers.agent.claim import NameTaken, ProcessId
from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow, Report
from outrider.balancers.agent.loop import RESTORED_S, BalancerAgent, ServiceRound
from outrider.core.errors import Unknown
from outrider.etcd.seam import DeletePrefix, Put
from outrider.failpoints import AGENT_FAILPOINTS, FailpointHit, observe
from outrider.model.balancer_agents import Agent, Applied, ServerEntry
from outrider.model.documents import WriteGuard, decode, encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.waiting import eventually

OLD, NEW = "http://127.0.0.1:8085", "http://127.0.0.1:8086"
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
KEYS = Keys()
HERE = ProcessId("boot", "ns", 1, "100")


@dataclass
class Memory:
    """A balancer that takes one server in or out at a command, and counts open requests as it is told.

    Attributes:
        before: Called with each command before it is done.
    """

    name: str = "memory"
    serving: set[str] = field(default_factory=set)
    open: dict[str, int] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    trouble: Exception | None = None
    before: Callable[[str], None] = lambda _: None

    def look(self) -> frozenset[str]:
        if self.trouble is not None:
            raise self.trouble
        return frozenset(self.serving)

    def plan(self, servers: tuple[AgentServer, ...], state: frozenset[str]) -> tuple[str, ...]:
        wanted = {server.url for server in servers}
        return (
            *(f"add {url}" for url in sorted(wanted - state)),
            *(f"drain {url}" for url in sorted(state - wanted)),
        )

    def perform(self, command: str) -> None:
        self.before(command)
        verb, url = command.split()
        self.commands.append(command)
        if verb == "add":
            self.serving.add(url)
            self.open.pop(url, None)
        else:
            self.serving.discard(url)
            self.open.setdefault(url, 0)

    def report(self, servers: tuple[AgentServer, ...], state: frozenset[str]) -> Report:
        return Report(serving=state, draining=dict(self.open), version="1")


class Keeper:
    """A lease that is there as long as the test says so."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.lease: int | None = cluster.grant(60)


class Time:
    """Seconds that pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    """One service of one agent, round by round."""

    def __init__(self) -> None:
        self.store = FakeEtcd()
        self.cluster = self.store.client()
        self.balancer, self.time = Memory(), Time()
        self.keeper = Keeper(self.cluster)
        self.round = self.another(HERE)

    def another(self, process: ProcessId, balancer: Memory | None = None) -> ServiceRound:
        return ServiceRound(
            self.cluster,
            KEYS,
            balancer or self.balancer,
            self.keeper,  # type: ignore[arg-type]
            service="hello",
            name="lb-1",
            process=process,
            clock=self.time,
            ttl_s=10,
        )

    def tend(self) -> bool:
        assert self.keeper.lease is not None
        return self.round.tend(self.keeper.lease)

    def put(self, url: str | None, id: str = "web-1") -> int:
        """What a sidekick's transaction writes; returns its revision."""
        guard = Put(key=KEYS.server("hello", id), value=encode(WriteGuard(url=url)))
        if url is None:
            return self.cluster.txn((), (guard, DeletePrefix(prefix=f"{KEYS.server('hello', id)}/"))).revision
        entry = Put(key=KEYS.server_entry("hello", id), value=encode(ServerEntry(url=url)))
        return self.cluster.txn((), (guard, entry)).revision

    @property
    def applied(self) -> Applied:
        key = KEYS.applied("hello", "lb-1")
        found = self.cluster.get(key)
        assert found is not None
        assert found.lease == self.keeper.lease
        return decode(Applied, key, found.value)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_entries_are_applied_and_what_is_applied_is_said_with_their_revision(fixture: Fixture) -> None:
    fixture.put(OLD)
    fixture.tend()
    first = fixture.applied
    written = fixture.put(NEW)
    fixture.tend()

    assert ((OLD,), ()) == (first.serving, tuple(first.draining))
    assert ["add " + OLD, "add " + NEW, "drain " + OLD] == fixture.balancer.commands
    told = fixture.applied
    assert (written, (NEW,), "", "1") == (told.revision, told.serving, told.problem, told.version)
    assert {OLD: 0} == told.draining


def test_it_is_registered_without_a_lease(fixture: Fixture) -> None:
    fixture.tend()

    key = KEYS.agent("hello", "lb-1")
    found = fixture.cluster.get(key)
    assert found is not None
    assert 0 == found.lease
    told = decode(Agent, key, found.value)
    assert ("memory", "lb-1", False) == (told.balancer, told.name, told.had_servers)


def test_a_round_that_changes_nothing_writes_nothing(fixture: Fixture) -> None:
    fixture.put(OLD)
    fixture.tend()
    before = fixture.store.revision
    for _ in range(3):
        fixture.time.now += 1
        fixture.cluster.txn((), (Put(key="/somebody/else", value=str(fixture.time.now).encode()),))
        fixture.tend()

    assert before + 3 == fixture.store.revision
    assert ["add " + OLD] == fixture.balancer.commands


def test_what_somebody_else_did_to_the_balancer_is_put_right(fixture: Fixture) -> None:
    fixture.put(OLD)
    fixture.tend()
    fixture.balancer.serving = {"http://127.0.0.1:666"}
    fixture.tend()

    assert {OLD} == fixture.balancer.serving


def test_open_requests_are_told_at_most_once_a_second(fixture: Fixture) -> None:
    fixture.put(OLD)
    fixture.tend()
    fixture.put(NEW)
    fixture.tend()
    told = []
    for count in (5, 4, 3):
        fixture.balancer.open[OLD] = count
        fixture.time.now += 0.4
        fixture.tend()
        told.append(fixture.applied.draining[OLD])

    assert [0, 0, 3] == told


class TestAfterAPause:
    def test_a_process_that_stood_still_between_reading_and_applying_reads_again_first(self, fixture: Fixture) -> None:
        """
        1. the agent reads OLD -> NEW, and stands still before its second command
        2. meanwhile the sidekick takes the change back
        3. nothing more of what was read is applied; the next round applies what is stored now
        """
        fixture.put(OLD)
        fixture.tend()
        fixture.put(NEW)

        def stand_still(command: str) -> None:
            if command.startswith("add"):
                fixture.balancer.before = lambda _: None
                fixture.put(OLD)
                fixture.time.now += 5

        fixture.balancer.before = stand_still
        settled = fixture.tend()

        assert settled is False
        assert OLD in fixture.balancer.serving, "what was taken back is not applied late"
        fixture.tend()
        assert {OLD} == fixture.balancer.serving
        assert (OLD,) == fixture.applied.serving

    def test_without_its_lease_it_applies_nothing(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        fixture.put(NEW)
        lease = fixture.keeper.lease
        assert lease is not None

        def lose(command: str) -> None:
            fixture.keeper.lease = None

        fixture.balancer.before = lose
        fixture.round.tend(lease)

        assert ["add " + OLD, "add " + NEW] == fixture.balancer.commands, "the command under way was the last one"

    def test_with_a_new_lease_it_takes_its_name_again_and_reads_before_it_applies(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        assert fixture.keeper.lease is not None
        fixture.cluster.revoke(fixture.keeper.lease)
        assert fixture.cluster.get(KEYS.applied("hello", "lb-1")) is None
        fixture.put(NEW)
        fixture.keeper.lease = fixture.cluster.grant(60)
        fixture.tend()

        assert (NEW,) == fixture.applied.serving


class TestName:
    def test_another_process_that_lives_longer_than_a_lease_is_not_taken_over_from(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        other = fixture.another(ProcessId("other-boot", "ns", 2, "200"), Memory())
        lease = fixture.cluster.grant(60)

        assert other.tend(lease) is False
        fixture.time.now += 20
        with pytest.raises(NameTaken, match=r"another process is balancer agent lb-1 of hello.*--name of its own"):
            other.tend(lease)

        assert str(HERE) == fixture.applied.process

    def test_what_surely_ended_is_taken_over_from_at_once(self, fixture: Fixture) -> None:
        own = ProcessId.own()
        gone = ProcessId(own.boot, own.namespace, own.pid, "1")
        fixture.put(OLD)
        first = fixture.another(gone)
        assert fixture.keeper.lease is not None
        first.tend(fixture.keeper.lease)

        second = fixture.another(own)
        assert second.tend(fixture.keeper.lease)

        assert str(own) == fixture.applied.process

    def test_a_process_of_another_boot_or_namespace_is_never_surely_gone(self) -> None:
        own = ProcessId.own()

        assert not own.surely_ended(own)
        assert ProcessId(own.boot, own.namespace, own.pid, "1").surely_ended(own)
        assert not ProcessId("other", own.namespace, own.pid, "1").surely_ended(own)
        assert not ProcessId(own.boot, "other", own.pid, "1").surely_ended(own)
        assert own == ProcessId.parse(str(own))
        assert ProcessId.parse("nonsense") is None

    def test_whoever_loses_its_name_in_the_middle_ends(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        taken = encode(Applied(service="hello", name="lb-1", process="other", revision=0, at=NOON))
        fixture.cluster.txn((), (Put(key=KEYS.applied("hello", "lb-1"), value=taken),))
        fixture.put(NEW)

        with pytest.raises(NameTaken):
            fixture.tend()


class TestTrouble:
    @pytest.mark.parametrize(
        ("error", "away"), [(Away("HAProxy doesn't answer"), True), (CannotFollow("all slots are taken"), False)]
    )
    def test_a_balancer_that_does_not_follow_is_told_and_the_revision_stays(
        self, fixture: Fixture, error: Exception, away: bool
    ) -> None:
        first = fixture.put(OLD)
        fixture.tend()
        fixture.put(NEW)
        fixture.balancer.trouble = error
        fixture.tend()
        told = fixture.applied
        fixture.balancer.trouble = None
        fixture.tend()

        assert (first, str(error), away) == (told.revision, told.problem, told.away)
        assert ("", False, (NEW,)) == (fixture.applied.problem, fixture.applied.away, fixture.applied.serving)

    def test_nothing_stored_at_all_takes_no_server_out(self, fixture: Fixture) -> None:
        """A new agent beside a balancer that serves, with an etcd in which nobody has written anything yet."""
        fixture.balancer.serving = {OLD}
        fixture.tend()

        assert {OLD} == fixture.balancer.serving
        fixture.put(NEW)
        fixture.tend()
        assert {NEW} == fixture.balancer.serving

    def test_an_etcd_that_was_emptied_takes_no_server_out(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        fixture.cluster.txn((), (DeletePrefix(prefix="/outrider/v1/"),))
        for _ in range(3):
            fixture.tend()

        assert {OLD} == fixture.balancer.serving
        fixture.put(NEW)
        fixture.tend()
        assert {NEW} == fixture.balancer.serving

    def test_the_last_server_that_leaves_is_taken_out(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        fixture.put(None)
        fixture.tend()

        assert set() == fixture.balancer.serving
        assert () == fixture.applied.serving

    def test_a_lost_answer_to_what_is_told_is_found_out(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        fixture.put(NEW)

        def lose(call: str, moment: str) -> None:
            if (call, moment) == ("txn", "after"):
                fixture.cluster.trouble = None
                raise Unknown("no answer")

        fixture.cluster.trouble = lose
        with pytest.raises(Unknown):
            fixture.tend()
        for _ in range(3):
            fixture.tend()

        assert (NEW,) == fixture.applied.serving
        assert "" == fixture.applied.problem

    def test_another_token_of_the_epoch_is_told(self, fixture: Fixture) -> None:
        fixture.put(OLD)
        fixture.tend()
        fixture.cluster.txn((), (Put(key=KEYS.epoch(), value=encode(Epoch(token="e2", at=NOON))),))
        fixture.tend()

        assert "e2" == fixture.applied.epoch


class TestRestore:
    """etcd says what was so once. The sidekicks put it right, and until then the balancer stays as it is."""

    def swapped(self, fixture: Fixture) -> dict[str, tuple[bytes, int]]:
        """What etcd held before the last swap."""
        fixture.put(OLD)
        fixture.tend()
        entry = KEYS.server_entry("hello", "web-1")
        found = fixture.cluster.get(entry)
        assert found is not None
        fixture.put(NEW)
        fixture.tend()
        assert {NEW} == fixture.balancer.serving
        return {entry: (found.value, found.mod_revision)}

    def another_epoch(self, fixture: Fixture) -> None:
        epoch = Epoch(token="of another history", at=NOON)
        fixture.cluster.txn((), (Put(key=KEYS.epoch(), value=encode(epoch)),))

    def with_an_epoch(self, fixture: Fixture) -> None:
        fixture.cluster.txn((), (Put(key=KEYS.epoch(), value=encode(Epoch(token="first", at=NOON))),))

    def test_an_address_of_before_is_not_sent_to_while_the_sidekick_puts_it_right(self, fixture: Fixture) -> None:
        self.with_an_epoch(fixture)
        self.swapped(fixture)
        self.another_epoch(fixture)
        fixture.put(OLD)  # what was restored
        fixture.tend()

        assert {NEW} == fixture.balancer.serving
        assert (0, True) == (fixture.applied.revision, fixture.applied.away)
        assert "etcd was restored" in fixture.applied.problem
        fixture.put(NEW)
        fixture.time.now += RESTORED_S + 0.1
        fixture.tend()
        assert ["add " + OLD, "add " + NEW, "drain " + OLD] == fixture.balancer.commands
        assert ("", False) == (fixture.applied.problem, fixture.applied.away)

    def test_what_nobody_puts_right_is_applied_in_the_end(self, fixture: Fixture) -> None:
        self.with_an_epoch(fixture)
        self.swapped(fixture)
        self.another_epoch(fixture)
        fixture.put(OLD)
        fixture.tend()
        fixture.time.now += RESTORED_S + 0.1
        fixture.tend()

        assert {OLD} == fixture.balancer.serving

    def test_the_next_token_of_the_same_history_holds_nothing_up(self, fixture: Fixture) -> None:
        self.with_an_epoch(fixture)
        self.swapped(fixture)
        following = Epoch(token="first", at=NOON).followed_by("second", NOON)
        fixture.cluster.txn((), (Put(key=KEYS.epoch(), value=encode(following)),))
        fixture.put(OLD)
        fixture.tend()

        assert {OLD} == fixture.balancer.serving


class TestWhole:
    @pytest.fixture
    def running(self) -> Iterator[tuple[FakeEtcd, Memory]]:
        store, balancer = FakeEtcd(), Memory()
        agent = BalancerAgent(store.client(), KEYS, {"hello": balancer}, name="lb-1", ttl_s=10)
        thread = threading.Thread(target=agent.run, name="agent")
        thread.start()
        yield store, balancer
        agent.stop()
        thread.join(10)
        assert not thread.is_alive()
        assert store.client().get(KEYS.applied("hello", "lb-1")) is None, "an agent that ended says nothing any more"

    def test_a_change_is_applied_when_it_is_announced(self, running: tuple[FakeEtcd, Memory]) -> None:
        store, balancer = running
        cluster = store.client()
        for url in (OLD, NEW):
            entry = Put(key=KEYS.server_entry("hello", "web-1"), value=encode(ServerEntry(url=url)))
            cluster.txn((), (entry,))
            eventually(lambda url=url: {url} == balancer.serving)  # type: ignore[misc]


def test_every_failpoint_of_an_agent_is_met(fixture: Fixture) -> None:
    met: list[FailpointHit] = []
    observe(met.append)
    try:
        fixture.put(OLD)
        fixture.tend()
    finally:
        observe(None)

    assert set(AGENT_FAILPOINTS) == {hit.point for hit in met}
