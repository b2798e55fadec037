"""When a task that follows a rollout is due, and when not."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from outrider.core.errors import Conflict
from outrider.core.rollout.rollout import Progress
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import Delete
from outrider.model.documents import Rollout, Served, decode, encode
from outrider.model.oldest import Oldest
from outrider.model.running import Running
from outrider.model.tasks import Task
from outrider.service.rollouts.explain import read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import Store
from outrider.service.store.task_states import end_lost
from tests.sim.fake_etcd import FakeCluster
from tests.support.service_examples import APP, block, make_app, payload_of, put
from tests.support.wall_clock import NOON

WARM, TELL = (TaskSpec(name=name, kind="post", command=(f"bin/{name}",)) for name in ("warm", "tell"))
MEND = TaskSpec(name="mend", kind="on-failure", command=("bin/mend",))


@pytest.fixture
def group(store: Store) -> Store:
    """A group whose target has tasks of both kinds."""
    make_app(store, versions=("1.0.0",))
    store.packages.create(APP, "2.0.0", payload_of("2.0.0"), tasks=[WARM, MEND, TELL])
    store.channels.save(APP, "beta", version="2.0.0")
    return store


def finish(store: Store, client: FakeCluster, version: str = "2.0.0") -> None:
    progress = Progress(version=version, state="running", since=NOON, started=NOON, succeeded=3, finished=NOON)
    put(client, store.context.keys.rollout(APP, "beta"), encode(Rollout(progress=progress)))


def still_runs(store: Store, client: FakeCluster, version: str, instance: str = "web-9") -> str:
    key = store.context.keys.running_at(APP, "beta", version, instance)
    sha256 = payload_of(version).sha256
    document = Running(app=APP, group="beta", instance=instance, version=version, sha256=sha256, since=NOON)
    put(client, key, encode(document))
    return key


def key(store: Store, name: str) -> str:
    return store.context.keys.task(APP, "beta", payload_of("2.0.0").sha256, name)


def states(store: Store, client: FakeCluster) -> dict[str, str]:
    look(store.context, GroupLock(), APP, "beta")
    entries = client.list(store.context.keys.all_tasks()).entries
    return {task.name: task.state for task in (decode(Task, entry.key, entry.value) for entry in entries)}


def end(store: Store, client: FakeCluster, name: str, state: str) -> None:
    entry = client.get(key(store, name))
    assert entry is not None
    task = decode(Task, entry.key, entry.value)
    put(client, entry.key, encode(msgspec.structs.replace(task, state=state, instance="web-1", why="exit 3")))


def test_nothing_is_due_while_the_rollout_goes_on(group: Store, client: FakeCluster) -> None:
    assert {} == states(group, client)


def test_post_tasks_are_due_one_after_the_other_once_the_rollout_is_finished(group: Store, client: FakeCluster) -> None:
    finish(group, client)

    assert {"warm": "due"} == states(group, client)
    end(group, client, "warm", "done")
    assert {"warm": "done", "tell": "due"} == states(group, client)


@pytest.mark.parametrize("state", ["running", "failed", "unknown"])
def test_what_comes_behind_a_task_waits_until_that_is_done(group: Store, client: FakeCluster, state: str) -> None:
    finish(group, client)
    states(group, client)
    end(group, client, "warm", state)

    assert {"warm": state} == states(group, client)


def test_post_tasks_wait_for_what_may_still_run_elsewhere(group: Store, client: FakeCluster) -> None:
    finish(group, client)
    still_runs(group, client, "2.0.0", "web-1")
    older = still_runs(group, client, "1.0.0")

    assert {} == states(group, client)
    assert look(group.context, GroupLock(), APP, "beta").again_at is not None
    client.txn((), (Delete(key=older),))
    assert {"warm": "due"} == states(group, client)


def test_a_finished_rollout_of_something_else_makes_nothing_due(group: Store, client: FakeCluster) -> None:
    finish(group, client, "1.0.0")

    assert {} == states(group, client)


def test_a_blocked_target_makes_its_on_failure_task_due_and_is_known_once(group: Store, client: FakeCluster) -> None:
    block(group, "2.0.0", "503", NOON)

    assert {"mend": "due"} == states(group, client)
    end(group, client, "mend", "done")
    assert {"mend": "done"} == states(group, client)


def test_what_was_unblocked_before_anybody_ran_it_is_not_due_any_more(group: Store, client: FakeCluster) -> None:
    block(group, "2.0.0", "503", NOON)
    states(group, client)

    client.txn((), (Delete(key=group.context.keys.block(APP, "2.0.0")),))

    assert {} == states(group, client)


def test_a_release_that_was_undone_in_the_group_has_failed_there(group: Store, client: FakeCluster) -> None:
    group.rollouts.undo(APP, "beta", to="1.0.0", why="wrong prices")

    assert {"mend": "due"} == states(group, client)


def test_the_same_target_of_another_payload_has_no_tasks(group: Store, client: FakeCluster) -> None:
    entry = client.get(group.context.keys.target(APP, "beta"))
    assert entry is not None
    put(client, entry.key, entry.value.replace(payload_of("2.0.0").sha256.encode(), b"f" * 64))
    finish(group, client)

    assert {} == states(group, client)


def test_a_failed_post_task_blocks_nothing_and_is_shown(group: Store, client: FakeCluster) -> None:
    finish(group, client)
    states(group, client)
    end(group, client, "warm", "failed")

    (overview,) = read_overviews(group.context, APP, "beta")

    assert overview.block is None
    (words,) = overview.tasks
    assert words.startswith("task warm of 2.0.0 failed on web-1: exit 3; `outrider task retry` runs it again")


@pytest.mark.parametrize(("verb", "state"), [("retry", "due"), ("done", "done"), ("failed", "failed")])
def test_an_operator_says_what_becomes_of_a_post_task_of_an_unknown_end(
    group: Store, client: FakeCluster, verb: str, state: str
) -> None:
    finish(group, client)
    states(group, client)
    end(group, client, "warm", "unknown")

    said = group.tasks.say(APP, "beta", "2.0.0", "warm", verb, why="looked", by="ann")  # type: ignore[arg-type]

    assert (state, state) == (said.state, states(group, client)["warm"])
    assert client.get(group.context.keys.block(APP, "2.0.0")) is None


def test_a_post_task_of_a_release_that_the_group_has_left_runs_no_more(group: Store, client: FakeCluster) -> None:
    finish(group, client)
    states(group, client)
    end(group, client, "warm", "failed")
    group.channels.save(APP, "beta", version="1.0.0")

    with pytest.raises(Conflict, match=r"group 'beta' wants 1\.0\.0 now"):
        group.tasks.say(APP, "beta", "2.0.0", "warm", "retry")


def test_a_repeatable_one_whose_runner_has_ended_is_due_again(group: Store, client: FakeCluster) -> None:
    store, spec = group, replace(WARM, repeatable=True)
    store.packages.create(APP, "3.0.0", payload_of("3.0.0"), tasks=[spec])
    store.channels.save(APP, "beta", version="3.0.0")
    finish(store, client, "3.0.0")
    states(store, client)
    where = store.context.keys.task(APP, "beta", payload_of("3.0.0").sha256, "warm")
    entry = client.get(where)
    assert entry is not None
    running = msgspec.structs.replace(decode(Task, where, entry.value), state="running", instance="web-1", process="p")
    put(client, where, encode(running))

    end_lost(store.context)

    assert {"warm": "due"} == states(store, client)


def test_what_waits_for_the_end_of_the_rollout_is_listed_with_what_it_waits_for(group: Store) -> None:
    listed = {one.name: (one.state, one.why) for one in group.tasks.list(APP, "beta")}

    assert ("waiting", "runs once the whole group has the release") == listed["warm"]
    assert ("waiting", "runs only if the release is blocked") == listed["mend"]


def test_what_was_due_and_never_began_is_left_behind_with_its_release(group: Store, client: FakeCluster) -> None:
    finish(group, client)
    assert {"warm": "due"} == states(group, client)
    group.channels.save(APP, "beta", version="1.0.0")

    assert {} == states(group, client)


def test_what_runs_is_not_left_behind(group: Store, client: FakeCluster) -> None:
    finish(group, client)
    states(group, client)
    end(group, client, "warm", "running")
    group.channels.save(APP, "beta", version="1.0.0")

    assert {"warm": "running"} == states(group, client)


DROP = TaskSpec(name="drop", kind="contract", command=("bin/drop",))


@pytest.fixture
def contracting(store: Store) -> Store:
    """A group whose target has a contract task before a post task in its package."""
    make_app(store, versions=("1.0.0",))
    store.packages.create(APP, "2.0.0", payload_of("2.0.0"), tasks=[DROP, WARM])
    store.channels.save(APP, "beta", version="2.0.0")
    return store


def oldest_is(store: Store, client: FakeCluster, version: str, group: str = "beta") -> None:
    document = Oldest(app=APP, group=group, version=version, task="drop", instance="web-1", since=NOON)
    put(client, store.context.keys.oldest(APP, group), encode(document))


def test_a_contract_task_is_due_after_the_post_tasks_and_when_nothing_older_runs(
    contracting: Store, client: FakeCluster
) -> None:
    finish(contracting, client)
    older = still_runs(contracting, client, "1.0.0")

    assert {} == states(contracting, client)
    client.txn((), (Delete(key=older),))
    assert {"warm": "due"} == states(contracting, client)
    end(contracting, client, "warm", "done")
    assert {"warm": "done", "drop": "due"} == states(contracting, client)


OLDER: dict[str, Callable[[Store], object]] = {
    "undo": lambda store: store.rollouts.undo(APP, "beta"),
    "undo --to": lambda store: store.rollouts.undo(APP, "beta", to="1.0.0"),
    "channel update": lambda store: store.channels.save(APP, "beta", version="1.0.0"),
    "group update": lambda store: store.groups.update(APP, "beta", channel="old"),
    "channel of another group": lambda store: store.channels.save(APP, "empty", version="1.0.0"),
}


@pytest.mark.parametrize("scope", ["beta", ""])
@pytest.mark.parametrize("verb", OLDER)
def test_what_is_older_than_the_oldest_version_is_wanted_no_more(
    contracting: Store, client: FakeCluster, verb: str, scope: str
) -> None:
    """The same whether the task ran for the group or for the whole app; 2.0.0 itself and newer ones go on."""
    contracting.packages.create(APP, "3.0.0", payload_of("3.0.0"))
    contracting.channels.create(APP, "old", version="1.0.0")
    contracting.channels.create(APP, "empty")
    contracting.groups.create(APP, "other", channel="empty")
    put(client, contracting.context.keys.served(APP, "beta"), encode(Served(versions=("1.0.0",))))
    for each in (scope, "other" if scope else ""):
        oldest_is(contracting, client, "2.0.0", each)
    before = contracting.groups.get(APP, "beta")

    with pytest.raises(Conflict, match=r"1\.0\.0 is older than 2\.0\.0, the oldest version that may run in .*drop"):
        OLDER[verb](contracting)

    assert before == contracting.groups.get(APP, "beta")
    contracting.channels.save(APP, "beta", version="3.0.0")
    contracting.rollouts.undo(APP, "beta", to="2.0.0")


def test_lifted_older_versions_run_again_and_not_while_the_task_runs(contracting: Store, client: FakeCluster) -> None:
    finish(contracting, client)
    states(contracting, client)
    end(contracting, client, "warm", "done")
    states(contracting, client)
    with pytest.raises(Conflict, match="no contract task has begun"):
        contracting.tasks.lift(APP, "beta")
    oldest_is(contracting, client, "2.0.0")
    end(contracting, client, "drop", "running")
    with pytest.raises(Conflict, match=r"task drop of 2\.0\.0 runs on web-1"):
        contracting.tasks.lift(APP, "beta")
    end(contracting, client, "drop", "done")

    (lifted,) = contracting.tasks.lift(APP, "beta")

    assert "2.0.0" == lifted.version
    assert () == contracting.tasks.oldest(APP, "beta")
    contracting.channels.save(APP, "beta", version="1.0.0")


def test_a_contract_task_that_was_done_by_hand_counts_as_if_it_had_run(contracting: Store, client: FakeCluster) -> None:
    finish(contracting, client)
    states(contracting, client)
    end(contracting, client, "warm", "done")
    states(contracting, client)

    contracting.tasks.say(APP, "beta", "2.0.0", "drop", "done", by="ann")

    (oldest,) = contracting.tasks.oldest(APP, "beta")
    assert ("2.0.0", "drop", "beta") == (oldest.version, oldest.task, oldest.group)
