"""Tasks as operators see them, what they may say, and what becomes of a task whose runner has ended."""

import msgspec
import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.rollout.policy import Defer, Grant
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import Delete
from outrider.model.documents import Block, decode, encode
from outrider.model.tasks import Task
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.store.changes import Change
from outrider.service.store.judging import judge
from outrider.service.store.packages import Payload
from outrider.service.store.snapshot import CheckingInstance, read_snapshot
from outrider.service.store.store import Store
from outrider.service.store.task_states import end_lost
from tests.sim.fake_etcd import FakeCluster
from tests.support.service_examples import APP, be_alive, lost_task, make_app, payload_of, put
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

MIGRATE = TaskSpec(name="migrate", kind="pre", command=("bin/migrate",))


@pytest.fixture
def group(store: Store) -> Store:
    """A group whose target has a task."""
    make_app(store, versions=("1.0.0",))
    store.packages.create(APP, "2.0.0", payload_of("2.0.0"), tasks=[MIGRATE])
    store.channels.save(APP, "beta", version="2.0.0")
    return store


def key(store: Store) -> str:
    return store.context.keys.task(APP, "beta", payload_of("2.0.0").sha256, "migrate")


def claim(store: Store, client: FakeCluster, **facts: object) -> Task:
    task = lost_task("migrate", NOON, version="2.0.0", release="2.0.0", key="2.0.0", sha256=payload_of("2.0.0").sha256)
    task = msgspec.structs.replace(task, **{"process": "web-1", **facts})
    put(client, key(store), encode(task))
    return task


def stored(store: Store, client: FakeCluster) -> Task | None:
    entry = client.get(key(store))
    return None if entry is None else decode(Task, entry.key, entry.value)


def verdict(store: Store, *, takes_turns: bool = True) -> object:
    snapshot = read_snapshot(store.context, Change(store.context.cluster), APP, "beta")
    assert snapshot is not None
    return judge(snapshot, CheckingInstance(instance="web-2", running="1.0.0", takes_turns=takes_turns))


def test_what_the_target_waits_for_is_listed_before_anybody_has_claimed_it(group: Store) -> None:
    (one,) = group.tasks.list(APP, "beta")

    assert ("migrate", "2.0.0", "waiting", "bin/migrate") == (one.name, one.version, one.state, one.command)


def test_a_package_with_a_task_that_cannot_be_is_refused(store: Store) -> None:
    make_app(store)
    image = Payload(url="http://x/image.json", size_bytes=1, sha256="4" * 64, image="web:3.0.0")

    with pytest.raises(ConfigError, match="a task can't run in it"):
        store.packages.create(APP, "3.0.0", image, tasks=[MIGRATE])


@pytest.mark.parametrize(("verb", "state"), [("done", "done"), ("failed", "failed"), ("retry", None)])
def test_an_operator_says_what_an_unknown_task_is(
    group: Store, client: FakeCluster, verb: str, state: str | None
) -> None:
    claim(group, client)

    said = group.tasks.say(APP, "beta", "2.0.0", "migrate", verb, why="looked at it", by="ann")  # type: ignore[arg-type]

    found = stored(group, client)
    assert state == (found.state if found is not None else None)
    assert ("waiting" if verb == "retry" else verb) == said.state
    block = client.get(group.context.keys.block(APP, "2.0.0"))
    assert (verb == "failed") == (block is not None)


def test_a_failed_task_that_may_run_again_unblocks_its_release_and_no_other(group: Store, client: FakeCluster) -> None:
    claim(group, client)
    group.tasks.say(APP, "beta", "2.0.0", "migrate", "failed")
    other = group.context.keys.block(APP, "1.5.0")
    put(client, other, encode(Block(version="1.5.0", sha256="5" * 64, instance="b", why="503", at=NOON)))

    group.tasks.say(APP, "beta", "2.0.0", "migrate", "retry")

    assert client.get(group.context.keys.block(APP, "2.0.0")) is None
    assert client.get(other) is not None


@pytest.mark.parametrize(("state", "said"), [("running", "runs on web-1, at most until"), ("done", "is done already")])
def test_nobody_says_anything_of_a_task_that_runs_or_is_done(
    group: Store, client: FakeCluster, state: str, said: str
) -> None:
    claim(group, client, state=state)

    with pytest.raises(Conflict, match=said):
        group.tasks.say(APP, "beta", "2.0.0", "migrate", "retry")


def test_a_task_that_nobody_has_claimed_cannot_be_spoken_of(group: Store) -> None:
    with pytest.raises(NotFound, match="`outrider task list` shows them"):
        group.tasks.say(APP, "beta", "2.0.0", "migrate", "done")


def test_a_document_that_cannot_be_read_can_be_removed_and_nothing_else(group: Store, client: FakeCluster) -> None:
    put(client, key(group), b"{")
    with pytest.raises(Conflict, match="can't be read"):
        group.tasks.say(APP, "beta", "2.0.0", "migrate", "done")

    group.tasks.say(APP, "beta", "2.0.0", "migrate", "retry")

    assert client.get(key(group)) is None


@pytest.mark.parametrize(
    ("presence", "repeatable", "state"),
    [("", False, "unknown"), ("another process", False, "unknown"), ("", True, None), ("web-1", False, "running")],
)
def test_a_task_whose_runner_has_ended_is_unknown_or_free_again(
    group: Store, client: FakeCluster, presence: str, repeatable: bool, state: str | None
) -> None:
    claim(group, client, state="running", repeatable=repeatable)
    if presence:
        be_alive(group, "web-1", NOON, process=presence)

    runners = end_lost(group.context)

    found = stored(group, client)
    assert state == (found.state if found is not None else None)
    assert (state == "running") == bool(runners)


@pytest.mark.parametrize(
    ("state", "granted"), [("running", True), ("done", True), ("unknown", False), ("failed", False)]
)
def test_nobody_is_granted_a_release_whose_task_is_unknown_or_failed(
    group: Store, client: FakeCluster, state: str, granted: bool
) -> None:
    claim(group, client, state=state)

    said = verdict(group)

    assert granted == isinstance(said, Grant)
    assert granted or (isinstance(said, Defer) and said.by == "task" and "migrate" in said.reason)
    # as a deferred instance is judged, which would be woken again and again otherwise
    assert said == verdict(group, takes_turns=False)


def test_the_rollout_controller_notices_the_end_of_a_runner(group: Store, client: FakeCluster) -> None:
    be_alive(group, "web-1", NOON, process="web-1")
    with rollout_controller(group.context):
        claim(group, client, state="running")
        eventually(lambda: stored(group, client) is not None)
        client.txn((), (Delete(key=group.context.keys.presence(APP, "beta", "web-1")),))

        eventually(lambda: (found := stored(group, client)) is not None and found.state == "unknown")
