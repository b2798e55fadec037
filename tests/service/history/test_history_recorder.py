"""The history of a group is recorded once, whoever records it, and what is missing is said."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outrider.etcd.seam import Cluster, Put
from outrider.model.history import Content, LocalStep
from outrider.model.keys import Keys
from outrider.service.history.history_recorder import BEGINS, HistoryRecorder
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.histories import APP, GROUP, Instances
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

KEYS = Keys()
Recorders = Callable[..., HistoryRecorder]


@pytest.fixture
def recorders(fake_etcd: FakeEtcd, clock: WallClock) -> Iterator[Recorders]:
    """Starts one, each with a connection of its own; those that still run are closed in the end."""
    running: list[tuple[HistoryRecorder, FakeCluster]] = []

    def start(*, client: FakeCluster | None = None, flush_s: float = 0.02, **options: Any) -> HistoryRecorder:
        connection = client or fake_etcd.client("recorder")
        one = HistoryRecorder(connection, KEYS, clock, flush_s=flush_s, **options)
        one.start()
        running.append((one, connection))
        eventually(lambda: one._watch is not None)
        return one

    yield start
    for one, connection in running:
        one.close()
        connection.close()


@pytest.fixture
def web(client: Cluster) -> Instances:
    return Instances(client, KEYS)


def chunk_keys(web: Instances) -> list[str]:
    return [entry.key for entry in web.cluster.list(KEYS.history(APP, GROUP)).entries]


def first_content(web: Instances) -> Content:
    history = web.history()
    content = history.content(history.chunks[0])
    assert content is not None
    return content


def states(web: Instances) -> list[str]:
    return [what for _, kind, _, what in web.told() if kind == "state"]


def test_each_step_has_the_revision_of_its_write(web: Instances, recorders: Recorders) -> None:
    recorders()
    revisions = [
        web.target("2.0.0"),
        web.is_in("web-a", "idle.waiting"),
        web.takes_turn("web-a"),
        web.is_in("web-a", "swapping.starting", serving=False),
        web.ends_turn("web-a"),
        web.leaves("web-a"),
    ]

    eventually(lambda: len(web.told()) == 6)

    assert revisions == [step[0] for step in web.told()]
    assert [("target", "2.0.0"), ("state", "idle.waiting"), ("turn", "")] == [step[1::2] for step in web.told()[:3]]
    assert ["state", "turn-ended", "left"] == [step[1] for step in web.told()[3:]]


def test_a_presence_that_says_nothing_new_is_no_step(web: Instances, recorders: Recorders) -> None:
    recorders()
    web.is_in("web-a", "idle.waiting")
    web.is_in("web-a", "idle.waiting", notice="look at the disk")
    web.is_in("web-a", "checking")
    web.is_in("web-a", "idle.waiting")
    web.is_in("web-a", "swapping.queueing")

    eventually(lambda: "swapping.queueing" in states(web))

    assert ["idle.waiting", "swapping.queueing"] == states(web)


def test_another_process_in_the_same_state_is_told_as_a_restart(web: Instances, recorders: Recorders) -> None:
    recorders()
    web.is_in("web-a", "idle.waiting")
    web.is_in("web-a", "idle.waiting", process="another-process")

    eventually(lambda: len(web.told()) == 2)

    assert "the sidekick was started again" == web.steps()[1].text


def test_two_processes_record_everything_once(web: Instances, recorders: Recorders) -> None:
    recorders()
    recorders()
    written = [web.is_in(f"web-{number % 7}", f"swapping.s{number}") for number in range(200)]

    eventually(lambda: len(web.told()) >= 200)

    assert written == [step[0] for step in web.told()]


def test_when_one_process_is_gone_the_other_goes_on_where_it_ended(
    web: Instances, recorders: Recorders, fake_etcd: FakeEtcd
) -> None:
    """
    1. two processes record; the quicker one writes
    2. it is cut off from etcd with steps that it hasn't written
    3. the other one writes them, and the first, back again, writes nothing twice
    """
    quick = fake_etcd.client("quick")
    recorders(client=quick)
    recorders(flush_s=0.2)
    first = web.is_in("web-a", "swapping.starting")
    eventually(lambda: len(web.told()) == 1)

    quick.cut_off()
    second = web.is_in("web-a", "swapping.probing")
    eventually(lambda: len(web.told()) == 2)
    quick.mend()
    third = web.is_in("web-a", "swapping.switching")
    eventually(lambda: len(web.told()) == 3)

    assert [first, second, third] == [step[0] for step in web.told()]
    quick.close()


def test_a_process_that_starts_again_misses_nothing_and_repeats_nothing(web: Instances, recorders: Recorders) -> None:
    first = recorders()
    one = web.is_in("web-a", "swapping.starting")
    eventually(lambda: len(web.told()) == 1)
    first.close()
    two = [web.is_in("web-a", "swapping.probing"), web.leaves("web-a")]
    three = web.is_in("web-a", "swapping.reclaiming", process="again")

    recorders()

    eventually(lambda: len(web.told()) == 4)
    assert [one, *two, three] == [step[0] for step in web.told()]


def test_a_killed_process_leaves_no_gap(web: Instances, recorders: Recorders, fake_etcd: FakeEtcd) -> None:
    client = fake_etcd.client("killed")
    recorders(client=client, flush_s=60.0)
    revisions = [web.is_in("web-a", "swapping.starting"), web.is_in("web-a", "swapping.probing")]
    client.cut_off()

    recorders()

    eventually(lambda: len(web.told()) == 2)
    assert revisions == [step[0] for step in web.told()]
    client.mend()
    client.close()


def test_what_was_compacted_while_nobody_recorded_is_a_gap(
    web: Instances, recorders: Recorders, fake_etcd: FakeEtcd
) -> None:
    first = recorders()
    web.is_in("web-a", "swapping.starting")
    web.is_in("web-b", "idle.waiting")
    web.takes_turn("web-a")
    eventually(lambda: len(web.told()) == 3)
    first.close()
    seen = web.cluster.get(KEYS.history_seen())
    assert seen is not None
    web.is_in("web-a", "swapping.probing")
    web.ends_turn("web-a")
    last = web.is_in("web-a", "idle.waiting", "2.0.0")
    web.leaves("web-b")
    fake_etcd.compact(fake_etcd.revision)

    recorders()

    eventually(lambda: len(web.told()) == 7)
    gap, *rest = web.told()[3:]
    assert ("gap", "", "etcd had compacted it before anybody recorded it") == gap[1:]
    assert {(last, "state", "web-a", "idle.waiting"), ("left", "web-b"), ("turn-ended", "web-a")} == {
        rest[0],
        *(step[1:3] for step in rest[1:]),
    }
    assert int(seen.value) == next(step.number for step in web.steps() if step.kind == "gap")


def test_the_first_process_says_where_the_history_begins(web: Instances, recorders: Recorders) -> None:
    web.target("1.0.0")
    web.is_in("web-a", "idle.waiting")

    recorders()

    eventually(lambda: web.told())
    assert [("gap", "", BEGINS)] == [step[1:] for step in web.told()]
    content = first_content(web)
    assert ("1.0.0", "idle.waiting") == (content.before.target, content.before.instances["web-a"].state)


def test_a_damaged_chunk_is_left_alone_and_the_next_one_knows_the_group(web: Instances, recorders: Recorders) -> None:
    first = recorders()
    web.is_in("web-a", "idle.waiting", "1.0.0")
    eventually(lambda: len(web.told()) == 1)
    first.close()
    (key,) = chunk_keys(web)
    web.cluster.txn((), (Put(key=key, value=b'{"schema":1,"app":"shop"'),))

    recorders()
    web.is_in("web-b", "idle.waiting")

    eventually(lambda: len(chunk_keys(web)) == 2)
    history = web.history()
    (chunk,) = history.chunks
    content = history.content(chunk)
    assert content is not None
    assert ["web-a"] == list(content.before.instances)
    (said,) = history.damaged(0, None)
    assert said.startswith(f"{key} is damaged: the steps from revision ")


def test_the_oldest_chunks_go_when_there_is_no_more_room(web: Instances, recorders: Recorders) -> None:
    recorders(max_bytes=40_000)
    last = 0
    for number in range(60):
        for step in range(60):
            noise = f"{number * 7919 % 1009}-{step * 104729 % 10007}-{hash((number, step))}"
            last = web.is_in(f"web-{step}", f"swapping.s{number}", wanted=f"1.{number}.0", why=noise)
    eventually(lambda: [step[0] for step in web.told()][-1:] == [last], within_s=20)
    eventually(
        lambda: sum(len(one.value) + len(one.key) for one in web.cluster.list(KEYS.all_history()).entries) <= 40_000
    )

    assert 60 == len(first_content(web).before.instances), "the first chunk that is left knows the whole group"


def test_an_update_has_only_so_much_room(web: Instances, recorders: Recorders) -> None:
    """
    1. an instance goes on and on, at one update
    2. its steps are left out from a point on, which is marked
    3. it comes to rest with the new version: that is recorded, and the next update has room again
    """
    recorders(update_bytes=1000)
    for number in range(300):
        web.is_in("web-a", f"swapping.s{number}", why=f"{hash(number)}")
    web.is_in("web-a", "idle.waiting", "2.0.0")
    last = web.is_in("web-a", "swapping.starting", "2.0.0", wanted="3.0.0")

    eventually(lambda: [step[0] for step in web.told()][-1:] == [last])

    steps = web.steps()
    assert 5 < len(steps) < 60
    assert [False, True, False, False] == [step.omits for step in steps[-4:]]
    assert ["idle.waiting", "swapping.starting"] == [step.state for step in steps[-2:]]


def test_what_a_sidekick_tells_is_recorded_once(web: Instances, recorders: Recorders) -> None:
    recorders()
    web.is_in("web-a", "swapping.starting")
    steps = [LocalStep(number=5, state="verifying", seen=2, text="size and SHA-256 verified")]
    web.tells("web-a", steps)
    web.tells("web-a", steps)
    web.tells("web-a", steps, update="ef56ab78")

    eventually(lambda: len(web.told()) == 5)

    assert ["state", "told", "local", "told", "local"] == [step[1] for step in web.told()]


def test_events_of_the_activity_log_stand_at_the_revision_of_what_happened(
    web: Instances, recorders: Recorders
) -> None:
    recorders()
    at = web.is_in("web-a", "rollback.blocking")
    web.is_in("web-a", "reporting")
    web.event("release-blocked", "release 2.0.0 is blocked by web-a", at, instance="web-a", version="2.0.0")
    web.event("channel-moved", "channel stable points at 2.0.0", at)

    eventually(lambda: len(web.told()) == 3)

    assert (at, "event", "web-a", "release 2.0.0 is blocked by web-a") == web.told()[-1]


def test_a_chunk_that_the_watch_brings_before_its_own_answer_loses_nothing(
    web: Instances, recorders: Recorders, fake_etcd: FakeEtcd
) -> None:
    """
    1. a chunk is written, and its answer is slow
    2. meanwhile the watch brings the chunk, and further steps
    """
    client = fake_etcd.client("slow")
    recorder = recorders(client=client)
    written = [web.is_in("web-a", "swapping.s0")]

    def wait(call: str, moment: str) -> None:
        stored = [tail.revision for tail in recorder._tails.values()]
        if (call, moment) == ("txn", "after") and len(written) == 1 and chunk_keys(web) and stored:
            eventually(lambda: any(tail.revision for tail in recorder._tails.values()))
            written.append(web.is_in("web-a", "swapping.s1"))
            eventually(lambda: any(tail.pending for tail in recorder._tails.values()))

    client.trouble = wait
    eventually(lambda: len(written) == 2 and len(web.told()) == 2)

    assert written == [step[0] for step in web.told()]
