"""A rollout with a crash, a cut and a rollback in it, on a real etcd, with clocks an hour apart."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import Block, encode
from outrider.model.keys import Keys
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.history.stories import read_story
from outrider.service.store.context import StoreContext
from outrider.service.store.store import utc_now
from outrider.story.merged import StoryLine
from tests.support.histories import APP, GROUP, Instances
from tests.support.waiting import eventually

BEGAN = utc_now()
CLOCKS = {"web-a": timedelta(hours=1), "web-b": timedelta(0), "web-c": timedelta(hours=-1)}


class Clocks:
    """The machines' clocks; time passes by what is done."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def __call__(self, instance: str) -> datetime:
        self.passed_s += 0.5
        return BEGAN + CLOCKS[instance] + timedelta(seconds=self.passed_s)


@pytest.fixture
def keys(prefix: str) -> Keys:
    return Keys(prefix.rstrip("/"))


@pytest.fixture
def web(cluster: Cluster, keys: Keys) -> Iterator[Instances]:
    """Two processes of the service record."""
    running: list[HistoryRecorder | ActivityRecorder] = [ActivityRecorder(cluster, keys, utc_now)]
    running += [HistoryRecorder(cluster, keys, utc_now, flush_s=0.01) for _ in range(2)]
    for one in running:
        one.start()
    eventually(lambda: all(one._watch is not None for one in running))
    yield Instances(cluster, keys, Clocks())
    for one in running:
        one.close()


def test_events_stand_as_etcd_ordered_them(web: Instances, cluster: Cluster, keys: Keys) -> None:
    """
    1. web-a (an hour ahead) takes the turn; its sidekick is killed: its presence ends, the turn stays
    2. it is started again, reclaims the turn and commits
    3. web-b is cut off while it probes: its presence ends, it undoes on its own, and comes back
    4. web-c (an hour behind) proves the release bad: it blocks it, and rolls back
    5. each tells its local steps when it is done
    """
    order = [("target", "", web.target("2.0.0"))]

    def did(kind: str, instance: str, revision: int) -> int:
        order.append((kind, instance, revision))
        return revision

    for name in CLOCKS:
        did("state", name, web.is_in(name, "idle.waiting"))
    did("state", "web-a", web.is_in("web-a", "swapping.starting", serving=False))
    did("turn", "web-a", web.takes_turn("web-a"))
    did("left", "web-a", web.leaves("web-a"))
    did("state", "web-b", web.is_in("web-b", "swapping.queueing", serving=False))
    did("state", "web-a", web.is_in("web-a", "swapping.reclaiming", serving=False, process="a-again"))
    did("state", "web-a", web.is_in("web-a", "idle.waiting", "2.0.0", process="a-again"))
    did("turn-ended", "web-a", web.ends_turn("web-a"))
    did("turn", "web-b", web.takes_turn("web-b"))
    seen = did("state", "web-b", web.is_in("web-b", "swapping.probing", serving=False))
    did("left", "web-b", web.leaves("web-b"))
    alone = web.stay(31, "rollback.removing", "web-b", took_s=0.4, seen=seen, text="2.0.0 removed")
    did("state", "web-c", web.is_in("web-c", "swapping.queueing", serving=False))
    back = did("state", "web-b", web.is_in("web-b", "idle.waiting"))
    did("turn-ended", "web-b", web.ends_turn("web-b"))
    did("turn", "web-c", web.takes_turn("web-c"))
    did("state", "web-c", web.is_in("web-c", "rollback.blocking", serving=False))
    block = Block(version="2.0.0", sha256="0" * 64, instance="web-c", why="47 of 47 answers were 503", at=utc_now())
    blocked = cluster.txn((), (Put(key=keys.block(APP, "2.0.0"), value=encode(block)),)).revision
    did("event", "web-c", blocked)
    did("turn-ended", "web-c", web.ends_turn("web-c"))
    did("state", "web-c", web.is_in("web-c", "idle.waiting"))
    did("told", "web-b", web.tells("web-b", [alone], update="b0b0b0b0", outcome="rolled back"))

    context = StoreContext(cluster=cluster, keys=keys, now=utc_now)
    eventually(lambda: {"event", "local"} <= {step.kind for step in web.steps()})
    lines = read_story(context, APP, GROUP).lines

    assert order == [(line.kind, line.instance, line.revision) for line in lines if not line.is_local]
    (local,) = [line for line in lines if line.is_local]
    assert (seen, back) == (local.after, local.before)
    at = lines.index(local)
    assert (seen, "web-b") == (lines[at - 1].revision, lines[at - 1].instance)
    assert "left" == lines[at + 1].kind
    assert clocks_disagree(lines), "else the test shows nothing"


def clocks_disagree(lines: tuple[StoryLine, ...]) -> bool:
    """Whether an order by the machines' clocks would be another one."""
    times = [line.machine_at for line in lines if line.machine_at is not None]
    return times != sorted(times)
