"""The first commit of a release in etcd, and what it keeps from being blocked."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import pytest

from outrider.core.sidekick.effects import BlockLock, ProveLock, ReleaseLock, ResignLock
from outrider.core.sidekick.events import AnyEvent, LockReleased
from outrider.core.sidekick.memory import Release, Turn
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Delete, Put
from outrider.model.documents import Block, Contender, Proof, decode, encode
from outrider.model.keys import Keys, group_scope
from outrider.sidekick.workers.lock import LockWork
from outrider.turns.lock import TurnLock
from outrider.turns.turns import read_scope
from tests.sim.fake_etcd import FakeCluster, FakeEtcd

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEYS = Keys()
SCOPE = group_scope("app", "g")
RELEASE = Release(version="2.0.0", urls=(), sha256="2" * 64, size_bytes=1)
PROOF = KEYS.proof("app", "2.0.0")


class Work:
    """The lock's worker of one instance, with a turn that it holds."""

    def __init__(self, client: FakeCluster, instance: str) -> None:
        self.client, self.events = client, list[AnyEvent]()
        contender = Contender(app="app", group="g", instance=instance)
        lock = TurnLock(client, KEYS, contender, clock=lambda: NOON)
        self.resigned: list[int] = []
        self.work = LockWork(
            client, KEYS, lock, cast(LeaseKeeper, None), app="app", group="g", instance=instance,
            post=self.events.append, resigned=lambda: self.resigned.append(len(self.events)),
        )  # fmt: skip
        lease, number = client.grant(60.0), "ab".index(instance)
        waiter = contender.waiter(release="2.0.0", since=NOON)
        slot = contender.slot(release="2.0.0", since=NOON, update="u1")
        keys = KEYS.waiter(SCOPE, instance), KEYS.slot(SCOPE, number, instance)
        made = client.txn(
            (), (Put(key=keys[0], value=encode(waiter), lease=lease), Put(key=keys[1], value=encode(slot)))
        )
        self.turn = Turn(
            scope=SCOPE, number=number, slot_revision=made.revision, waiter_revision=made.revision, update="u1"
        )

    def block(self) -> LockReleased:
        effect = BlockLock(turn=self.turn, update="u1", version="2.0.0", sha256="2" * 64, cause="503")
        self.work.perform(effect, 1)
        return cast(LockReleased, self.events[-1])

    @property
    def blocked(self) -> bool:
        return self.client.get(KEYS.block("app", "2.0.0")) is not None

    @property
    def turns(self) -> int:
        scope = read_scope(self.client, KEYS, SCOPE)
        return len(scope.slots) + len(scope.queue)


@pytest.fixture
def client(no_thread_left: None) -> Iterator[FakeCluster]:
    client = FakeEtcd().client()
    yield client
    client.close()


def prove(client: FakeCluster, instance: str = "web-9") -> None:
    proof = Proof(version="2.0.0", sha256="2" * 64, instance=instance, at=NOON)
    client.txn((), (Put(key=PROOF, value=encode(proof)),))


def test_a_fault_blocks_a_release_that_nobody_has_committed(client: FakeCluster) -> None:
    work = Work(client, "a")

    assert ("", True, 0) == (work.block().proved_by, work.blocked, work.turns)


def test_a_release_that_an_instance_has_committed_is_not_blocked_and_the_turn_ends(client: FakeCluster) -> None:
    prove(client)
    work = Work(client, "a")

    assert ("web-9", False, 0) == (work.block().proved_by, work.blocked, work.turns)


def test_a_commit_between_the_look_and_the_block_wins(client: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction compares the record as absent: the look before it is only there for the better way."""
    work = Work(client, "a")
    look, seen = work.work._proved_by, list[str]()

    def late(version: str) -> str:
        found = look(version)
        if not seen:
            prove(client)
        seen.append(found)
        return found

    monkeypatch.setattr(work.work, "_proved_by", late)

    assert ("web-9", False, 0) == (work.block().proved_by, work.blocked, work.turns)
    assert ["", "web-9"] == seen


def test_blocking_may_be_repeated_after_its_answer_was_lost(client: FakeCluster) -> None:
    work = Work(client, "a")
    work.block()

    assert ("", True) == (work.block().proved_by, work.blocked)


def test_a_block_that_was_there_before_the_proof_stands(client: FakeCluster) -> None:
    block = Block(version="2.0.0", sha256="2" * 64, instance="b", why="503", at=NOON)
    client.txn((), (Put(key=KEYS.block("app", "2.0.0"), value=encode(block)),))
    prove(client)

    assert "" == Work(client, "a").block().proved_by


@pytest.mark.parametrize(
    "effect", [ProveLock(committed=RELEASE), ReleaseLock(turn=None, update="u1", committed=RELEASE)]
)
def test_the_first_commit_is_recorded_and_stays(client: FakeCluster, effect: ProveLock | ReleaseLock) -> None:
    Work(client, "a").work.perform(effect, None)
    Work(client, "b").work.perform(effect, None)

    entry = client.get(PROOF)
    assert entry is not None
    assert ("a", "2" * 64) == (decode(Proof, PROOF, entry.value).instance, decode(Proof, PROOF, entry.value).sha256)


@pytest.mark.parametrize("effect", [ProveLock(committed=None), ReleaseLock(turn=None, update="u1")])
def test_nothing_is_recorded_where_nothing_was_committed(client: FakeCluster, effect: ProveLock | ReleaseLock) -> None:
    Work(client, "a").work.perform(effect, None)

    assert client.get(PROOF) is None


def test_a_record_that_cannot_be_read_counts_all_the_same(client: FakeCluster) -> None:
    client.txn((), (Put(key=PROOF, value=b"\xff"),))

    assert "another instance" == Work(client, "a").block().proved_by


def test_one_that_removes_itself_looks_anew_whether_it_is_the_instance_after_it_has_answered() -> None:
    holder = Work(FakeEtcd().client(), "a")

    holder.work.perform(ResignLock(turn=holder.turn, update="u1", at=NOON, by="ann"), 1)

    assert ["lock.released"] == [event.name for event in holder.events]
    assert [1] == holder.resigned


def test_without_its_turn_nothing_is_removed_and_that_is_refused() -> None:
    client = FakeEtcd().client()
    holder = Work(client, "a")
    client.txn((), (Delete(key=KEYS.slot(SCOPE, 0, "a")), Delete(key=KEYS.waiter(SCOPE, "a"))))

    holder.work.perform(ResignLock(turn=holder.turn, update="u1", at=NOON, by="ann"), 1)

    assert ["lock.refused"] == [event.name for event in holder.events]
    assert [] == holder.resigned
    assert client.get(KEYS.gone("app", "a")) is None


# --- what may still run ---------------------------------------------------------------------------------------------

OLDER = Release(version="1.0.0", urls=(), sha256="1" * 64, size_bytes=1)


def runs(client: FakeCluster, instance: str = "a") -> list[str]:
    """Group and version of each release that may run on an instance."""
    prefix = KEYS.running("app")
    keys = [entry.key.removeprefix(prefix) for entry in client.list(prefix).entries]
    parts = [key.split("/") for key in keys]
    return [f"{group}/{release}" for group, whose, release in parts if whose == instance]


def test_a_commit_records_what_may_run_beside_what_ran_until_the_turn_ends(client: FakeCluster) -> None:
    work = Work(client, "a").work
    work.perform(ProveLock(committed=OLDER), None)
    work.perform(ReleaseLock(turn=None, update="u0", committed=OLDER), 1)

    work.perform(ProveLock(committed=RELEASE), None)
    under_the_turn = runs(client)
    work.perform(ReleaseLock(turn=None, update="u1", committed=RELEASE), 2)

    assert (["g/1.0.0", "g/2.0.0"], ["g/2.0.0"]) == (under_the_turn, runs(client))


def test_what_could_not_be_stopped_stays_recorded(client: FakeCluster) -> None:
    work = Work(client, "a").work
    work.perform(ProveLock(committed=OLDER), None)

    work.perform(ReleaseLock(turn=None, update="u1", committed=RELEASE, left=OLDER), 1)

    assert ["g/1.0.0", "g/2.0.0"] == runs(client)


def test_what_another_instance_runs_and_what_is_of_an_earlier_group_is_told_apart(client: FakeCluster) -> None:
    Work(client, "b").work.perform(ProveLock(committed=OLDER), None)
    client.txn((), (Put(key=KEYS.running_at("app", "before", "1.0.0", "a"), value=b"{}"),))

    Work(client, "a").work.perform(ReleaseLock(turn=None, update="u1", committed=RELEASE), 1)

    assert (["g/2.0.0"], ["g/1.0.0"]) == (runs(client, "a"), runs(client, "b"))


def test_recording_what_may_run_may_be_repeated_and_removes_nothing_that_has_changed(client: FakeCluster) -> None:
    work = Work(client, "a")
    work.work.perform(ReleaseLock(turn=None, update="u1", committed=RELEASE), 1)
    revision = client.list(KEYS.running("app")).entries[0].mod_revision
    work.work.perform(ReleaseLock(turn=None, update="u1", committed=RELEASE), 2)

    assert [revision] == [entry.mod_revision for entry in client.list(KEYS.running("app")).entries]


def test_a_first_start_that_came_to_nothing_leaves_nothing(client: FakeCluster) -> None:
    work = Work(client, "a").work
    work.perform(ProveLock(committed=RELEASE), None)

    work.perform(ReleaseLock(turn=None, update="u1", given_up=RELEASE), 1)

    assert [] == runs(client)


def test_a_bad_first_release_leaves_nothing_but_its_block(client: FakeCluster) -> None:
    work = Work(client, "a")
    client.txn((), (Put(key=KEYS.running_at("app", "g", "2.0.0", "a"), value=b"{}"),))

    work.work.perform(
        BlockLock(turn=work.turn, update="u1", version="2.0.0", sha256="2" * 64, cause="503", given_up=RELEASE), 1
    )

    assert (True, []) == (work.blocked, runs(client))


def test_whoever_removes_itself_runs_nothing_any_more(client: FakeCluster) -> None:
    holder = Work(client, "a")
    client.txn((), (Put(key=KEYS.running_at("app", "g", "2.0.0", "a"), value=b"{}"),))
    client.txn((), (Put(key=KEYS.running_at("app", "g", "2.0.0", "b"), value=b"{}"),))

    holder.work.perform(ResignLock(turn=holder.turn, update="u1", at=NOON, by="ann"), 1)
    holder.work.perform(ProveLock(committed=RELEASE), None)

    assert ([], ["g/2.0.0"]) == (runs(client, "a"), runs(client, "b"))
