"""An operator's last word counts: whoever is let back after it had gone doesn't remove itself once more (P12)."""

from collections.abc import Iterator

import pytest

from outrider.core.sidekick.effects import ResignLock, RetakeLock
from outrider.etcd.seam import Compare, Delete, Put
from outrider.model.documents import Admission, Gone, decode, encode
from tests.sidekick.test_lock_proofs import KEYS, NOON, Work
from tests.sim.fake_etcd import FakeCluster, FakeEtcd

GONE, ADMISSION = KEYS.gone("app", "a"), KEYS.admission("app", "a")
OTHER = "another removal"


@pytest.fixture
def client(no_thread_left: None) -> Iterator[FakeCluster]:
    client = FakeEtcd().client()
    yield client
    client.close()


def admit(client: FakeCluster, removal: str) -> int:
    """What the service writes; returns the revision."""
    document = Admission(app="app", instance="a", removal=removal, at=NOON)
    return client.txn((), (Delete(key=GONE), Put(key=ADMISSION, value=encode(document)))).revision


def resign(work: Work, *, said: int) -> list[str]:
    """Leave for good, as was said at the revision ``said``; returns the answers."""
    effect = ResignLock(turn=work.turn, update="u1", at=NOON, by="ann", removal_revision=said)
    work.work.perform(effect, 1)
    return [event.name for event in work.events]


def test_the_marker_names_the_removal(client: FakeCluster) -> None:
    assert ["lock.released"] == resign(Work(client, "a"), said=5)

    entry = client.get(GONE)
    assert entry is not None
    assert ("u1", "ann") == (decode(Gone, GONE, entry.value).removal, decode(Gone, GONE, entry.value).by)


def test_an_admission_from_before_the_word_to_leave_counts_no_more_and_goes_with_the_instance(
    client: FakeCluster,
) -> None:
    before = admit(client, OTHER)

    assert ["lock.released"] == resign(Work(client, "a"), said=before + 1)

    assert client.get(GONE) is not None
    assert client.get(ADMISSION) is None


def test_one_that_was_admitted_since_removes_nothing_and_gives_its_turn_back(client: FakeCluster) -> None:
    """It was deleted while its machine was down, say: the marker named no removal."""
    work = Work(client, "a")
    said = admit(client, "") - 1

    assert ["identity.admitted"] == resign(work, said=said)

    assert (None, 0) == (client.get(GONE), work.turns)
    assert [1] == work.resigned, "and it asks anew whether it is the instance"


def test_a_removal_whose_answer_was_lost_is_not_repeated_after_the_admission(client: FakeCluster) -> None:
    work = Work(client, "a")
    resign(work, said=1)
    admit(client, "u1")

    assert ["lock.released", "identity.admitted"] == resign(work, said=1)

    assert client.get(GONE) is None


def test_after_a_restore_the_admission_is_known_by_the_removal_that_it_lifted(client: FakeCluster) -> None:
    """The restored etcd counts from an earlier revision than that at which the word to leave was said."""
    work = Work(client, "a")
    admit(client, "u1")

    assert ["identity.admitted"] == resign(work, said=1_000_000)


def test_an_admission_between_the_look_and_the_removal_wins(
    client: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both had been lost before: the removal of an earlier attempt, and the turn that another one has taken since."""
    work = Work(client, "a")
    look = work.work._read_admission

    def late(effect: RetakeLock | ResignLock) -> Compare | None:
        seen = look(effect)
        if client.get(ADMISSION) is None:
            admit(client, "u1")
        return seen

    monkeypatch.setattr(work.work, "_read_admission", late)

    assert ["identity.admitted"] == resign(work, said=1_000_000)
    assert (None, 0) == (client.get(GONE), work.turns)


def test_an_admission_that_cannot_be_read_counts_by_its_revision(client: FakeCluster) -> None:
    written = client.txn((), (Put(key=ADMISSION, value=b"\xff"),)).revision

    assert ["lock.released"] == resign(Work(client, "a"), said=written + 1)
    client.txn((), (Delete(key=GONE), Put(key=ADMISSION, value=b"\xff")))
    work = Work(client, "a")
    assert ["identity.admitted"] == resign(work, said=written + 1)


@pytest.mark.parametrize("knows_its_turn", [True, False])
def test_no_turn_is_taken_to_leave_once_it_was_admitted(client: FakeCluster, knows_its_turn: bool) -> None:
    work = Work(client, "a")
    said = admit(client, "u1") - 1
    turn = work.turn if knows_its_turn else None
    effect = RetakeLock(turn=turn, update="u1", version="2.0.0", slots=1, removal_revision=said)

    work.work._take(effect, 1, client.grant(60.0))

    assert ["identity.admitted"] == [event.name for event in work.events]
    assert 0 == work.turns


def test_an_admission_says_nothing_of_a_drain_or_a_rollback(client: FakeCluster) -> None:
    work = Work(client, "a")
    admit(client, "u1")
    entry = client.get(KEYS.waiter(work.turn.scope, "a"))
    assert entry is not None
    assert entry.lease is not None
    effect = RetakeLock(turn=work.turn, update="u1", version="2.0.0", slots=1)

    work.work._take(effect, 1, entry.lease)

    assert ["lock.acquired"] == [event.name for event in work.events]
