"""The story of a rollout, and the fleet as it was, read from the chunks in etcd."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from outrider.core.errors import ConfigError, NotFound
from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.keys import Keys
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.history.stories import GroupThen, fleet_at, parse_moment, read_story
from outrider.service.store.context import StoreContext
from tests.sim.fake_etcd import FakeEtcd
from tests.support.histories import APP, GROUP, Instances
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON, WallClock

KEYS = Keys()


@pytest.fixture
def web(client: Cluster) -> Instances:
    return Instances(client, KEYS)


@pytest.fixture
def context(client: Cluster, clock: WallClock) -> StoreContext:
    return StoreContext(cluster=client, keys=KEYS, now=clock)


@pytest.fixture
def recorded(fake_etcd: FakeEtcd, clock: WallClock, web: Instances) -> Iterator[Callable[[], int]]:
    """Waits until everything is recorded; returns the last revision."""
    client = fake_etcd.client("recorder")
    recorder = HistoryRecorder(client, KEYS, clock, flush_s=0.01)
    recorder.start()
    eventually(lambda: recorder._watch is not None)

    def wait() -> int:
        last = web.is_in("web-z", f"swapping.s{fake_etcd.revision}")
        eventually(lambda: [step[0] for step in web.told()][-1:] == [last])
        return last

    yield wait
    recorder.close()
    client.close()


def there(group: GroupThen) -> list[tuple[str, str, str]]:
    return [(one.instance, one.state, one.version) for one in group.instances if one.instance != "web-z"]


def test_the_last_rollout_is_told_unless_another_one_is_named(
    web: Instances, context: StoreContext, recorded: Callable[[], int]
) -> None:
    first = web.target("1.0.0")
    one = web.is_in("web-a", "swapping.starting")
    second = web.target("2.0.0")
    two = web.is_in("web-a", "swapping.probing")
    recorded()

    last = read_story(context, APP, GROUP)
    by_id, by_version = (read_story(context, APP, GROUP, rollout=word) for word in (str(first), "1.0.0"))

    assert ("2.0.0", second, None) == (last.version, last.rollout, last.until)
    assert [second, two] == [line.revision for line in last.lines][:2]
    assert by_id == by_version
    assert [first, one] == [line.revision for line in by_id.lines]
    assert [(first, "1.0.0"), (second, "2.0.0")] == [(mark.revision, mark.version) for mark in last.rollouts]
    with pytest.raises(NotFound, match=rf"no rollout '9' .* it has 1.0.0 \({first}\), 2.0.0 \({second}\)"):
        read_story(context, APP, GROUP, rollout="9")


def test_one_instance_is_told_with_what_concerns_its_group(
    web: Instances, context: StoreContext, recorded: Callable[[], int]
) -> None:
    web.target("2.0.0")
    web.is_in("web-a", "swapping.starting")
    web.is_in("web-b", "swapping.queueing")
    recorded()

    lines = read_story(context, APP, GROUP, instance="web-b").lines

    assert [("target", ""), ("state", "web-b")] == [(line.kind, line.instance) for line in lines]
    with pytest.raises(NotFound, match="says nothing of instance 'web-x'; it knows web-a, web-b, web-z"):
        read_story(context, APP, GROUP, instance="web-x")


def test_what_is_told_after_the_next_rollout_began_stands_in_its_own(
    web: Instances, context: StoreContext, recorded: Callable[[], int]
) -> None:
    web.target("1.0.0")
    seen = web.is_in("web-a", "swapping.starting")
    second = web.target("2.0.0")
    web.tells("web-a", [web.stay(4, "swapping.probing", "web-a", seen=seen, after_s=60)])
    recorded()

    told = read_story(context, APP, GROUP, rollout="1.0.0")

    assert [("local", "swapping.probing")] == [(line.kind, line.state) for line in told.lines if line.is_local]
    assert second == told.until


def test_a_damaged_chunk_is_named_and_its_neighbours_are_told(
    web: Instances, context: StoreContext, recorded: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.service.history.chunks.CHUNK_BYTES", 1)
    web.target("2.0.0")
    recorded()
    web.is_in("web-a", "swapping.starting")
    recorded()
    entries = context.cluster.list(KEYS.history(APP, GROUP)).entries
    first, second, *_ = (entry.key for entry in entries)
    context.cluster.txn((), (Put(key=second, value=entries[1].value.replace(b'"packed":"', b'"packed":"AAAA')),))

    story = read_story(context, APP, GROUP)

    assert first != second
    (note,) = story.notes
    assert note.startswith(f"{second} is damaged: the steps from revision {int(second[-16:], 16)}")
    assert "target" == story.lines[0].kind


def test_a_rollout_whose_beginning_was_removed_says_so(
    web: Instances, context: StoreContext, recorded: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.service.history.chunks.CHUNK_BYTES", 1)
    since = web.target("2.0.0")
    recorded()
    web.is_in("web-a", "swapping.starting")
    recorded()
    oldest, *_ = (entry.key for entry in context.cluster.list(KEYS.history(APP, GROUP)).entries)
    context.cluster.txn((), (Delete(key=oldest),))

    story = read_story(context, APP, GROUP)

    assert ("2.0.0", since) == (story.version, story.rollout)
    assert story.notes[0].startswith(f"its beginning at revision {since} is not in the history, which begins at ")


def test_a_group_without_a_history_is_one_line(web: Instances, context: StoreContext) -> None:
    with pytest.raises(NotFound, match="app shop has no group 'beta'"):
        read_story(context, APP, GROUP)
    with pytest.raises(NotFound, match="nothing is recorded of app shop"):
        fleet_at(context, APP, None, 1)


def test_the_fleet_as_it_was_at_each_revision(
    web: Instances, context: StoreContext, recorded: Callable[[], int]
) -> None:
    target = web.target("2.0.0")
    idle = web.is_in("web-a", "idle.waiting")
    turn = web.takes_turn("web-a", 1)
    busy = web.is_in("web-a", "swapping.starting", serving=False)
    web.ends_turn("web-a", 1)
    left = web.leaves("web-a")
    recorded()

    def at(revision: int) -> GroupThen:
        (group,) = fleet_at(context, APP, GROUP, revision)
        return group

    assert [] == there(at(target))
    assert [("web-a", "idle.waiting", "1.0.0")] == there(at(idle))
    assert [None, 1] == [at(revision).instances[0].turn for revision in (idle, turn)]
    assert ("swapping.starting", False) == (at(busy).instances[0].state, at(busy).instances[0].serving)
    assert ("away", None) == (at(left).instances[0].state, at(left).instances[0].turn)
    assert "2.0.0" == at(left).target
    assert [f"the history of group beta begins later, at revision {target} (2026-11-23 12:00:00 UTC)"] == list(
        at(target - 1).notes
    )
    with pytest.raises(ConfigError, match="revision 99999: etcd is at revision"):
        at(99999)


def test_the_fleet_as_it_was_at_a_time(
    web: Instances, context: StoreContext, recorded: Callable[[], int], clock: WallClock
) -> None:
    web.is_in("web-a", "idle.waiting")
    recorded()
    clock.advance(60)
    web.is_in("web-a", "swapping.starting")
    recorded()
    clock.advance(60)

    def at(seconds: float) -> list[tuple[str, str, str]]:
        (group,) = fleet_at(context, APP, None, NOON + timedelta(seconds=seconds))
        return there(group)

    assert [("web-a", "idle.waiting", "1.0.0")] == at(59)
    assert [("web-a", "swapping.starting", "1.0.0")] == at(60)
    assert [("web-a", "swapping.starting", "1.0.0")] == at(119)
    with pytest.raises(ConfigError, match="that is in the future"):
        at(121)


def test_within_a_gap_the_last_known_state_is_shown_with_a_note(
    web: Instances, context: StoreContext, fake_etcd: FakeEtcd, clock: WallClock
) -> None:
    def record() -> None:
        client = fake_etcd.client("recorder")
        recorder = HistoryRecorder(client, KEYS, clock, flush_s=0.01)
        recorder.start()
        count = len(web.told())
        eventually(lambda: len(web.told()) > count)
        recorder.close()
        client.close()

    web.is_in("web-a", "idle.waiting")
    record()
    hidden = web.is_in("web-a", "swapping.starting")
    after = web.is_in("web-a", "swapping.probing")
    fake_etcd.compact(fake_etcd.revision)
    record()

    (within,), (later,) = (fleet_at(context, APP, GROUP, revision) for revision in (hidden, web.told()[-1][0]))

    assert [("web-a", "idle.waiting", "1.0.0")] == there(within)
    assert "nothing is recorded between the revisions" in within.notes[0]
    assert ([("web-a", "swapping.probing", "1.0.0")], after) == (there(later), web.told()[-1][0])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("815", 815),
        ("30m", NOON - timedelta(minutes=30)),
        ("3d", NOON - timedelta(days=3)),
        ("2026-11-23T11:00:00Z", NOON - timedelta(hours=1)),
        ("2026-11-23T13:00:00+02:00", NOON - timedelta(hours=1)),
        ("2026-11-23T11:00:00", NOON - timedelta(hours=1)),
    ],
)
def test_a_moment_is_a_revision_a_time_or_an_age(text: str, moment: object) -> None:
    assert moment == parse_moment(text, NOON)


@pytest.mark.parametrize("text", ["", "yesterday", "9999999999d", "-1", "99999999999999999999", "٣"])
def test_anything_else_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_moment(text, NOON)
