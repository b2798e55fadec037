"""What a sidekick tells of its last update: its states from its journal, once, in a bounded size."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.etcd.seam import Cluster
from outrider.journal.journal import Journal
from outrider.model.documents import decode, encode
from outrider.model.history import LocalSteps, local_steps_of
from outrider.model.keys import Keys
from outrider.sidekick.steps import StepsWriter
from outrider.story import lines_of, tell
from outrider.story.local import MAX_BYTES, last_story, local_steps
from tests.sim.fake_etcd import FakeCluster
from tests.support.journals import CHART, JOURNALS, RECORDED, recorded
from tests.support.waiting import eventually

KEYS = Keys()
KEY = KEYS.steps("shop", "beta", "web-a")


def told_of(cluster: Cluster) -> LocalSteps | None:
    entry = cluster.get(KEY)
    return None if entry is None else decode(LocalSteps, KEY, entry.value)


@pytest.mark.parametrize("name", RECORDED)
def test_the_last_update_that_has_ended_is_told_in_a_bounded_size(name: str) -> None:
    lines = lines_of(recorded(name))
    ended = [story for story in tell(lines, CHART) if story.outcome != "under way"]

    story = last_story(lines, CHART)

    assert (ended[-1].update if ended else None) == (story.update if story is not None else None)
    if story is not None:
        told = local_steps(story, app="shop", group="beta")
        steps = local_steps_of(KEY, told)
        assert len(encode(told)) <= MAX_BYTES
        assert len(story.moments) == len(steps) + told.left_out
        assert [step.number for step in steps] == sorted(step.number for step in steps)
        assert (story.outcome, story.version) == (told.outcome, told.version)


def test_what_has_no_room_is_counted_and_explanations_go_first() -> None:
    story = last_story(lines_of(recorded("good_update")), CHART)
    assert story is not None
    whole = local_steps(story, app="shop", group="beta", most_bytes=10**6)
    small = local_steps(story, app="shop", group="beta", most_bytes=len(encode(whole)) - 100)
    none = local_steps(story, app="shop", group="beta", most_bytes=1)

    assert 0 == whole.left_out < small.left_out < none.left_out == len(story.moments)
    assert [] == local_steps_of(KEY, none)
    stays = [step for step in local_steps_of(KEY, whole) if step.stays]
    kept = [step for step in local_steps_of(KEY, small) if step.stays]
    assert len(stays) - len(kept) == min(small.left_out, len(stays))


def test_a_state_is_told_with_the_revision_that_was_seen_when_it_began() -> None:
    records = [msgspec.structs.replace(record, seen=100 + record.number) for record in recorded("good_update")]
    story = last_story(lines_of(records), CHART)
    assert story is not None

    steps = [step for step in local_steps_of(KEY, local_steps(story, app="shop", group="beta")) if not step.stays]

    at = {record.number: record for record in records}
    entered = [
        max(n for n in at if n < step.number and at[n].target == step.state != at[n].source) for step in steps[1:]
    ]
    assert [100 + number for number in entered] == [step.seen for step in steps[1:]]


@pytest.fixture
def writer(tmp_path: Path, client: FakeCluster) -> Iterator[StepsWriter]:
    (tmp_path / "journal.jsonl").write_bytes((JOURNALS / "good_update.jsonl").read_bytes())
    made = StepsWriter(
        client, KEYS, CHART, tmp_path / "journal.jsonl", lambda: LEASE[0], app="shop", group="beta", instance="web-a"
    )
    LEASE[:] = [client.grant(30.0)]
    made.start()
    yield made
    made.close()


LEASE: list[int | None] = [None]


def test_an_update_is_told_once_under_the_lease(writer: StepsWriter, client: FakeCluster) -> None:
    writer.ended()
    eventually(lambda: told_of(client) is not None)
    first = client.get(KEY)
    writer.ended()
    eventually(lambda: not writer._due)

    assert first is not None
    assert (LEASE[0], first) == (first.lease, client.get(KEY))


def test_it_is_told_again_under_the_next_lease(writer: StepsWriter, client: FakeCluster) -> None:
    """
    1. it was told, and the lease is lost: the key is gone
    2. a new lease is granted: it is told again, without another update
    """
    writer.ended()
    eventually(lambda: told_of(client) is not None)
    lost, LEASE[0] = LEASE[0], None
    assert lost is not None
    client.revoke(lost)
    assert told_of(client) is None

    LEASE[0] = client.grant(30.0)
    writer.lease_granted()

    eventually(lambda: told_of(client) is not None)
    entry = client.get(KEY)
    assert entry is not None
    assert LEASE[0] == entry.lease


def test_a_lease_tells_nothing_of_an_update_that_is_under_way(writer: StepsWriter, client: FakeCluster) -> None:
    """Nothing was told yet: what has ended is told by its own end, and not by the first lease."""
    writer.lease_granted()

    assert not writer._due
    assert told_of(client) is None


def test_it_is_told_when_etcd_is_back(
    writer: StepsWriter, client: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.sidekick.steps.RETRY_S", 0.01)
    client.cut_off()
    writer.ended()
    client.mend()

    eventually(lambda: told_of(client) is not None)


def test_a_journal_without_an_update_tells_nothing(tmp_path: Path, client: FakeCluster) -> None:
    journal = Journal(tmp_path)
    writer = StepsWriter(client, KEYS, CHART, journal.path, lambda: 1, app="shop", group="beta", instance="web-a")
    writer.start()
    writer.ended()
    eventually(lambda: not writer._due)
    writer.close()
    journal.close()

    assert told_of(client) is None
