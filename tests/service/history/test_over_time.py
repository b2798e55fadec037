"""A group over time: what its chunks say of versions, states and turns."""

import pytest

from outrider.etcd.seam import Put
from outrider.model.documents import encode
from outrider.model.history import Chunk, Content, Group, Known, Step, moment, pack
from outrider.model.keys import Keys
from outrider.service.history.over_time import AWAY, Held, Past, Point, points_in, stays_in, turns_in
from outrider.service.store.context import StoreContext
from tests.sim.fake_etcd import FakeCluster
from tests.support.wall_clock import NOON, WallClock


def state(instance: str, at: int, name: str, version: str = "1") -> Step:
    return Step(revision=at, instance=instance, at=at, state=name, version=version)


CONTENT = Content(
    before=Group(instances={"a": Known(version="1", state="idle.waiting", is_there=True), "gone": Known(version="1")}),
    steps=(
        state("b", 20, "idle.waiting"),
        state("a", 30, "swapping.queueing"),
        Step(revision=31, kind="turn", instance="a", at=31, number=0),
        state("a", 40, "swapping.starting"),
        state("a", 50, "swapping.starting", "2"),
        Step(revision=60, kind="left", instance="a", at=60, state="swapping.starting", version="2"),
        Step(revision=70, kind="turn-ended", instance="a", at=70, number=0),
        Step(revision=71, kind="turn", instance="b", at=71, number=0),
        state("a", 80, "idle.waiting", "2"),
    ),
)


def test_versions_are_counted_of_living_instances_at_the_beginning_and_after_each_change() -> None:
    assert [
        Point(at=10, counts={"1": 1}),
        Point(at=20, counts={"1": 2}),
        Point(at=50, counts={"1": 1, "2": 1}),
        Point(at=60, counts={"1": 1}),
        Point(at=80, counts={"1": 1, "2": 1}),
    ] == [*points_in(CONTENT, 10)]


def test_what_nobody_recorded_is_no_number() -> None:
    gap = Content(before=CONTENT.before, steps=(Step(revision=9, kind="gap", at=40, number=3, text="compacted"),))

    assert [{"1": 1}, None, {"1": 1}] == [point.counts for point in points_in(gap, 10)]


def test_states_are_told_from_the_rollouts_beginning_on_and_an_instance_that_left_is_away() -> None:
    stays = stays_in([CONTENT], 30)

    assert ["swapping.queueing", "swapping.starting", AWAY, "idle.waiting"] == [one.state for one in stays["a"]]
    assert [30, 40, 60, 80] == [one.at for one in stays["a"]]
    assert "b" not in stays


def test_turns_have_their_holders_and_the_last_one_is_open() -> None:
    assert (
        Held(slot=0, instance="a", began=31, ended=70),
        Held(slot=0, instance="b", began=71, ended=None),
    ) == turns_in([CONTENT], 20)


def test_a_turn_that_was_held_before_the_rollout_began_is_in_it_and_one_that_ended_is_not() -> None:
    holds = Group(instances={"a": Known(turn=1), "b": Known(turn=0)})
    ends = tuple(Step(revision=at, kind="turn-ended", instance=name, at=at) for name, at in (("b", 5), ("a", 50)))

    assert (Held(slot=1, instance="a", began=30, ended=50),) == turns_in([Content(before=holds, steps=ends)], 30)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys() -> Keys:
    return Keys("/outrider")


def put(client: FakeCluster, keys: Keys, first: int, content: Content) -> None:
    at = moment(max(step.at for step in content.steps))
    chunk = Chunk(
        app="shop", group="beta", first=first, last=0, earliest=first, began=moment(content.steps[0].at), ended=at,
        steps=len(content.steps), packed=pack(content),
    )  # fmt: skip
    client.txn((), (Put(key=keys.chunk("shop", "beta", first), value=encode(chunk)),))


def test_the_past_is_read_now_and_then_and_kept_while_etcd_is_away(
    client: FakeCluster, keys: Keys, clock: WallClock
) -> None:
    """
    1. a look reads the history; another one at once doesn't
    2. after a while what was added is there
    3. while etcd isn't known to answer it is not asked; without an answer the past stays, and says so
    """
    ticks, answers = Clock(), [True]
    context = StoreContext(cluster=client, keys=keys, now=clock)
    past = Past(context, lambda: answers[0], ticks)
    put(client, keys, 1, CONTENT)
    seen = past.of("shop", "beta", moment(0))
    assert 5 == len(seen.points)
    assert {"a", "b"} == seen.stays.keys()

    put(client, keys, 100, Content(before=Group(), steps=(state("c", 100, "idle.waiting", "3"),)))
    assert seen is past.of("shop", "beta", moment(0))
    ticks.now += 60
    assert {"3": 1} == past.of("shop", "beta", moment(0)).points[-1].counts

    ticks.now += 60
    client.cut_off()
    answers[0] = False
    assert "" == past.of("shop", "beta", moment(0)).problem
    answers[0] = True
    kept = past.of("shop", "beta", moment(0))
    assert "c" in kept.stays
    assert kept.problem


def test_a_damaged_chunk_is_left_out(client: FakeCluster, keys: Keys, clock: WallClock) -> None:
    put(client, keys, 1, CONTENT)
    client.txn((), (Put(key=keys.chunk("shop", "beta", 50), value=b"{"),))

    seen = Past(StoreContext(cluster=client, keys=keys, now=lambda: NOON), lambda: True).of("shop", "beta", None)

    assert 5 == len(seen.points)
    assert {} == seen.stays
