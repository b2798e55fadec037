"""A task that follows a rollout: claimed by one sidekick when it is due, run as its package says, and never twice."""

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.core.errors import DriverError, Unknown
from outrider.core.sidekick.memory import Release
from outrider.core.tasks import TaskKind, TaskSpec
from outrider.etcd.seam import Delete
from outrider.model.documents import Package, Presence, Target, decode, encode
from outrider.model.keys import Keys, group_scope
from outrider.model.tasks import Task
from outrider.sidekick.due_tasks import DueTasks
from outrider.sidekick.task_claims import Claimed, Result, TaskClaims
from outrider.turns.oldest import OldestVersion
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service_examples import put
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

KEYS, SHA = Keys(), "2" * 64
WARM = TaskSpec(name="warm", kind="post", command=("bin/warm",))
MEND = TaskSpec(name="mend", kind="on-failure", command=("/usr/bin/mend",))
GOOD, BAD = Result(code=0, why="exit 0", output="ok"), Result(code=3, why="exit 3", output="")


@pytest.fixture
def client(no_thread_left: None) -> Iterator[FakeCluster]:
    client = FakeEtcd().client()
    package = Package(
        app="app", version="2.0.0", url="http://x/1", name="1", size_bytes=1, sha256=SHA, tasks=(WARM, MEND),
        created=NOON,
    )  # fmt: skip
    put(client, KEYS.package("app", "2.0.0"), encode(package))
    put(client, KEYS.target("app", "g"), encode(Target(version="2.0.0", sha256=SHA)))
    yield client
    client.close()


def key(spec: TaskSpec) -> str:
    return KEYS.task("app", "g", SHA, spec.name)


def due(client: FakeCluster, spec: TaskSpec = WARM, command: tuple[str, ...] = ("bin/warm",)) -> None:
    kind: TaskKind = spec.kind
    task = Task(
        app="app", group="g", name=spec.name, kind=kind, command=command, version="2.0.0", release="2.0.0", key="2.0.0",
        sha256=SHA, state="due", instance="", process="", claim="", limit_s=60.0, started=NOON,
    )  # fmt: skip
    put(client, key(spec), encode(task))


def stored(client: FakeCluster, spec: TaskSpec = WARM) -> Task:
    entry = client.get(key(spec))
    assert entry is not None
    return decode(Task, key(spec), entry.value)


class Programs:
    """Programs that end at once, as the test says."""

    def __init__(self) -> None:
        self.result: Result | DriverError = GOOD
        self.ran = list[tuple[str, ...]]()

    def run(self, claimed: Claimed, release: Release) -> Result:
        if isinstance(self.result, DriverError):
            raise self.result
        self.ran.append(claimed.spec.command)
        return self.result

    def close(self) -> None:
        """Nothing runs."""


class Sidekick:
    def __init__(self, client: FakeCluster, name: str, *, payload: Path | None = Path("/p")) -> None:
        self.client, self.name, self.programs = client, name, Programs()
        self.time_s, self.crashed = 0.0, threading.Event()
        claims = TaskClaims(client, KEYS, app="app", group="g", instance=name, process=name, clock=lambda: NOON)
        self.due = DueTasks(
            client,
            KEYS,
            claims,
            self.programs,
            OldestVersion(client, KEYS, app="app", group="g", scope=group_scope("app", "g")),
            app="app",
            group="g",
            instance=name,
            process=name,
            find_payload=lambda sha256: payload,
            clock=lambda: NOON,
            crash=lambda error: self.crashed.set(),
            monotonic=lambda: self.time_s,
        )
        presence = Presence(instance=name, app="app", group="g", state="", version="2.0.0", since=NOON, process=name)
        put(client, KEYS.presence("app", "g", name), encode(presence))

    def see(self) -> None:
        prefix = KEYS.tasks("app", "g")
        self.due.tell(prefix, {entry.key: entry for entry in self.client.list(prefix).entries})

    def work(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.see()
            self.due.round()


def test_of_two_one_claims_it_and_runs_what_the_package_names(client: FakeCluster) -> None:
    a, b = Sidekick(client, "a"), Sidekick(client, "b")
    due(client, command=("/bin/evil",))  # whoever may write the key makes nobody run another program
    b.see()
    a.work()
    b.due.round()
    b.work()

    assert ([("bin/warm",)], []) == (a.programs.ran, b.programs.ran)
    assert ("done", "a", "ok") == (stored(client).state, stored(client).instance, stored(client).output)


def test_a_failure_is_written_and_blocks_nothing(client: FakeCluster) -> None:
    a = Sidekick(client, "a")
    a.programs.result = BAD
    due(client)

    a.work()

    assert ("failed", "exit 3") == (stored(client).state, stored(client).why)
    assert () == client.list(KEYS.blocks("app")).entries


@pytest.mark.parametrize(
    "target", [Target(version="3.0.0", sha256="3" * 64), Target(version="2.0.0", sha256=SHA, paused=True)]
)
def test_a_post_task_waits_while_the_group_is_elsewhere_or_paused(client: FakeCluster, target: Target) -> None:
    a = Sidekick(client, "a")
    due(client)
    due(client, MEND)
    put(client, KEYS.target("app", "g"), encode(target))

    a.work(8)

    assert ("due", "done") == (stored(client).state, stored(client, MEND).state)


def test_a_program_of_the_payload_runs_only_where_the_payload_is(client: FakeCluster) -> None:
    a = Sidekick(client, "a", payload=None)
    due(client)
    due(client, MEND)  # of the machine

    a.work(8)

    assert ("due", "done") == (stored(client).state, stored(client, MEND).state)


def test_what_this_machine_cannot_begin_is_for_others_and_says_why(client: FakeCluster) -> None:
    a, b = Sidekick(client, "a"), Sidekick(client, "b")
    a.programs.result = DriverError("/var is noexec", evidence="noexec")
    due(client)
    a.work()

    assert ("due", "a: /var is noexec") == (stored(client).state, stored(client).why)
    a.programs.result = GOOD
    a.work()
    assert "due" == stored(client).state
    b.work()
    assert ("done", "b") == (stored(client).state, stored(client).instance)


def test_the_same_machine_tries_again_later(client: FakeCluster) -> None:
    a = Sidekick(client, "a")
    a.programs.result = DriverError("disk full", evidence="disk-full")
    due(client)
    a.work()
    a.programs.result = GOOD

    a.time_s += 61.0
    a.work()

    assert "done" == stored(client).state


def test_without_a_presence_nothing_is_claimed(client: FakeCluster) -> None:
    a = Sidekick(client, "a")
    due(client)
    client.txn((), (Delete(key=KEYS.presence("app", "g", "a")),))

    a.work()

    assert "due" == stored(client).state


def test_a_claim_without_an_answer_that_was_made_is_run_once(
    client: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = Sidekick(client, "a")
    due(client)
    a.see()
    true_txn = client.txn

    def lost(*args: object) -> object:
        true_txn(*args)  # type: ignore[arg-type]
        raise Unknown("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(client, "txn", lost)
        with pytest.raises(Unknown):
            a.due.round()
    assert "running" == stored(client).state

    a.work()

    assert ("done", 1) == (stored(client).state, len(a.programs.ran))


def test_what_an_operator_has_said_meanwhile_stands(client: FakeCluster) -> None:
    a = Sidekick(client, "a")
    due(client)
    a.see()
    a.due.round()
    a.due.round()
    put(client, key(WARM), encode(msgspec.structs.replace(stored(client), state="due", claim="")))

    a.due.round()

    assert "due" == stored(client).state


def test_the_thread_runs_what_becomes_due_and_ends(client: FakeCluster) -> None:
    a = Sidekick(client, "a")
    a.due.start()
    due(client)

    eventually(lambda: stored(client).state == "done")
    a.due.close()

    assert not a.crashed.is_set()
