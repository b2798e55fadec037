"""A task is claimed by one sidekick, under the target, the grant and its presence; and its result is what it says."""

import errno
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from outrider.core.errors import DriverError
from outrider.core.sidekick.effects import LeaveTask, RunTask
from outrider.core.sidekick.events import AnyEvent, TaskFailed, TaskFinished
from outrider.core.sidekick.memory import Release
from outrider.core.tasks import TaskSpec
from outrider.etcd.seam import Delete, Put
from outrider.model.documents import Block, Brake, OpenGrant, Package, Presence, Target, decode, encode
from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.payloads.store import PayloadStore
from outrider.runtimes import Given
from outrider.sidekick import task_programs
from outrider.sidekick.task_claims import AllDone, Claimed, HasFailed, Pending, Result, TaskClaims
from outrider.sidekick.task_programs import Interrupted, TaskPrograms
from outrider.sidekick.workers.task import Follow, TaskWork
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.waiting import eventually

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEYS = Keys()
RELEASE = Release(version="2.0.0", urls=(), sha256="2" * 64, size_bytes=1)
MIGRATE = TaskSpec(name="migrate", kind="pre", command=("bin/migrate",))
KEY = KEYS.task("app", "g", "2" * 64, "migrate")
GOOD, BAD = Result(code=0, why="exit 0", output="ok"), Result(code=3, why="exit 3", output="no such table")


@pytest.fixture
def client(no_thread_left: None) -> Iterator[FakeCluster]:
    client = FakeEtcd().client()
    yield client
    client.close()


def put(client: FakeCluster, key: str, document: object, lease: int = 0) -> int:
    return client.txn((), (Put(key=key, value=encode(document), lease=lease),)).revision  # type: ignore[arg-type]


class Instance:
    """One sidekick's claims, with all that a claim compares."""

    def __init__(self, client: FakeCluster, name: str = "a") -> None:
        self.client, self.name = client, name
        self.claims = TaskClaims(
            client, KEYS, app="app", group="g", instance=name, process=f"p-{name}", clock=lambda: NOON
        )
        self.appear(f"p-{name}")
        target = client.get(KEYS.target("app", "g"))
        if target is None:
            self.revision = put(client, KEYS.target("app", "g"), Target(version="2.0.0", sha256="2" * 64))
        else:
            self.revision = target.mod_revision
        put(client, KEYS.grant("app", "g", name), OpenGrant(version="2.0.0", at=NOON, takes_turns=True))

    def appear(self, process: str) -> None:
        presence = Presence(
            instance=self.name, app="app", group="g", state="", version="1.0.0", since=NOON, process=process
        )
        put(self.client, KEYS.presence("app", "g", self.name), presence)

    def effect(self, *specs: TaskSpec) -> RunTask:
        return RunTask(release=RELEASE, tasks=specs or (MIGRATE,), target_revision=self.revision)

    def look(self, *specs: TaskSpec) -> object:
        return self.claims.look(self.effect(*specs))

    def claim(self) -> Claimed:
        claimed = self.look()
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def finish(self, claimed: Claimed, result: Result) -> bool:
        return self.claims.finish(claimed, result, self.effect())


def stored(client: FakeCluster) -> Task:
    entry = client.get(KEY)
    assert entry is not None
    return decode(Task, KEY, entry.value)


def test_of_two_instances_one_claims_and_the_other_waits_until_it_is_done(client: FakeCluster) -> None:
    a, b = Instance(client, "a"), Instance(client, "b")

    claimed, waits = a.claim(), b.look()
    assert isinstance(waits, Pending)
    assert "runs on a" in waits.words
    assert a.finish(claimed, GOOD)

    done = b.look()
    assert isinstance(done, AllDone)
    assert KEY == done.done[0][0]
    assert ("done", 0, "ok", "a") == (stored(client).state, stored(client).code, stored(client).output, "a")


def move_target(client: FakeCluster) -> None:
    put(client, KEYS.target("app", "g"), Target(version="3.0.0", sha256="3" * 64))


def brake(client: FakeCluster) -> None:
    put(client, KEYS.brake("app", "g"), Brake(verb="pause", at=NOON))


def lose_presence(client: FakeCluster) -> None:
    client.txn((), (Delete(key=KEYS.presence("app", "g", "a")),))


def end_grant(client: FakeCluster) -> None:
    client.txn((), (Delete(key=KEYS.grant("app", "g", "a")),))


def block(client: FakeCluster) -> None:
    put(client, KEYS.block("app", "2.0.0"), Block(version="2.0.0", sha256="2" * 64, instance="b", why="503", at=NOON))


@pytest.mark.parametrize("harm", [move_target, brake, lose_presence, end_grant, block])
def test_nothing_is_claimed_without_target_grant_presence_or_under_a_block(
    client: FakeCluster, harm: Callable[[FakeCluster], None]
) -> None:
    a = Instance(client)
    harm(client)

    assert isinstance(a.look(), Pending)
    assert client.get(KEY) is None


@pytest.mark.parametrize("harm", [move_target, brake, lose_presence, end_grant, block])
def test_what_changes_between_the_look_and_the_claim_is_compared(
    client: FakeCluster, harm: Callable[[FakeCluster], None]
) -> None:
    a = Instance(client)

    def before_the_claim(name: str, moment: str) -> None:
        if (name, moment) == ("txn", "before"):
            client.trouble = None
            harm(client)

    client.trouble = before_the_claim
    assert a.look() is None
    assert client.get(KEY) is None


def test_a_failure_blocks_the_release_in_the_same_transaction_and_everybody_hears_of_it(client: FakeCluster) -> None:
    a, b = Instance(client, "a"), Instance(client, "b")
    a.finish(a.claim(), BAD)

    entry = client.get(KEYS.block("app", "2.0.0"))
    assert entry is not None
    found = decode(Block, entry.key, entry.value)
    assert ("a", KEY.removeprefix(f"{KEYS.prefix}/")) == (found.instance, found.task)
    assert client.get(KEY).mod_revision == entry.mod_revision  # type: ignore[union-attr]
    failed = b.look()
    assert isinstance(failed, HasFailed)
    assert "exit 3" in failed.cause


def test_another_environment_of_a_payload_whose_task_failed_is_blocked_too(client: FakeCluster) -> None:
    a = Instance(client)
    a.finish(a.claim(), BAD)
    other = Release(version="2.0.0", urls=(), sha256="2" * 64, size_bytes=1, environment=7, environment_digest="7" * 64)

    outcome = a.claims.look(RunTask(release=other, tasks=(MIGRATE,), target_revision=a.revision))

    assert isinstance(outcome, HasFailed)
    assert client.get(KEYS.block("app", other.id.key("g"))) is not None


def test_a_claim_whose_answer_was_lost_is_found_again_by_the_one_who_made_it(client: FakeCluster) -> None:
    a, b = Instance(client, "a"), Instance(client, "b")
    client.lose_answers()
    with pytest.raises(DriverError):
        a.look()

    assert isinstance(b.look(), Pending)
    assert isinstance(a.look(), Claimed)
    assert isinstance(a.look(), Pending)


def test_a_result_counts_when_the_task_was_thought_lost_and_nobody_has_spoken_since(client: FakeCluster) -> None:
    a = Instance(client)
    claimed = a.claim()
    put(client, KEY, unknown(stored(client)))

    assert a.finish(claimed, GOOD)
    assert "done" == stored(client).state


def test_a_result_after_an_operators_word_or_another_claim_counts_for_nothing(client: FakeCluster) -> None:
    a, b = Instance(client, "a"), Instance(client, "b")
    claimed = a.claim()
    client.txn((), (Delete(key=KEY),))
    b.claim()

    assert not a.finish(claimed, BAD)
    assert ("running", "b") == (stored(client).state, stored(client).instance)
    assert client.get(KEYS.block("app", "2.0.0")) is None


def unknown(task: Task) -> Task:
    import msgspec

    return msgspec.structs.replace(task, state="unknown", why="its runner a has ended")


def test_a_package_of_another_digest_or_none_has_no_tasks(client: FakeCluster) -> None:
    a = Instance(client)
    package = Package(
        app="app", version="2.0.0", url="http://x/1", name="1", size_bytes=1, sha256="2" * 64, tasks=(MIGRATE,),
        created=NOON,
    )  # fmt: skip
    assert () == a.claims.tasks_of("2.0.0", "2" * 64)

    put(client, KEYS.package("app", "2.0.0"), package)

    assert ((MIGRATE,), ()) == (a.claims.tasks_of("2.0.0", "2" * 64), a.claims.tasks_of("2.0.0", "3" * 64))


# --- the worker ------------------------------------------------------------------------------------------------------


class Programs:
    """Programs that end when the test says so."""

    def __init__(self, result: Result | DriverError = GOOD) -> None:
        self.result, self.ran = result, list[str]()
        self.may_end = threading.Event()
        self.may_end.set()

    def run(self, claimed: Claimed, release: Release) -> Result:
        self.ran.append(claimed.spec.name)
        self.may_end.wait(20.0)
        if isinstance(self.result, DriverError):
            raise self.result
        return self.result

    def close(self) -> None:
        self.may_end.set()


class Working:
    def __init__(self, instance: Instance, programs: Programs) -> None:
        self.events, self.instance = list[AnyEvent](), instance
        self.work = TaskWork(
            instance.client,
            instance.claims,
            programs,
            post=self.events.append,
            crash=self.events.append,  # type: ignore[arg-type]
        )

    def run(self, request: int = 1) -> None:
        self.work.perform(self.instance.effect(), request)

    def last(self, kind: type[AnyEvent]) -> AnyEvent:
        return cast(
            AnyEvent, eventually(lambda: next((one for one in reversed(self.events) if isinstance(one, kind)), None))
        )


def test_one_runs_it_and_both_go_on_when_it_is_done(client: FakeCluster) -> None:
    programs = Programs()
    programs.may_end.clear()
    a, b = Working(Instance(client, "a"), programs), Working(Instance(client, "b"), programs)
    a.run()
    eventually(lambda: programs.ran)
    b.run()
    eventually(lambda: any("runs on a" in getattr(event, "words", "") for event in b.events))
    programs.may_end.set()

    a.last(TaskFinished)
    b.last(TaskFinished)
    for one in (a, b):
        one.work.close()

    assert ["migrate"] == programs.ran


def test_leaving_cuts_nothing_short_and_the_result_is_written(client: FakeCluster) -> None:
    programs = Programs()
    programs.may_end.clear()
    a = Working(Instance(client), programs)
    a.run()
    eventually(lambda: programs.ran)

    a.work.interrupt(LeaveTask())
    a.work.perform(LeaveTask(), None)
    programs.may_end.set()
    eventually(lambda: stored(client).state == "done")
    a.work.close()

    assert not [event for event in a.events if isinstance(event, TaskFinished)]


def test_what_this_machine_cannot_begin_is_given_back_and_blocks_nothing(client: FakeCluster) -> None:
    a = Working(Instance(client), Programs(DriverError("/var is noexec", evidence="noexec")))
    a.run()
    failed = a.last(TaskFailed)
    a.work.close()

    assert isinstance(failed, TaskFailed)
    assert "noexec" == failed.evidence
    assert client.get(KEY) is None
    assert client.get(KEYS.block("app", "2.0.0")) is None


def test_an_etcd_that_is_away_as_the_task_ends_gets_the_result_later(client: FakeCluster) -> None:
    follow = Follow(Instance(client).claims, Programs(), Instance(client).effect(), 1, lambda event: None)
    follow.round()
    follow.round()
    client.cut_off()
    with pytest.raises(DriverError):
        follow.round()
    client.mend()
    follow.round()

    assert "done" == stored(client).state


# --- programs --------------------------------------------------------------------------------------------------------


class Payloads:
    """A store with one archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, sha256: str) -> Path:
        return self.path


def programs_of(tmp_path: Path, script: str, mode: int = 0o755) -> TaskPrograms:
    archive = tmp_path / "p.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("bin/migrate")
        member.size, member.mode = len(script), mode
        tar.addfile(member, io.BytesIO(script.encode()))
    return TaskPrograms(
        cast(PayloadStore, Payloads(archive)),
        folder=tmp_path / "state" / "tasks",
        names={"OUTRIDER_INSTANCE": "a"},
        variables={"DATABASE": "from-settings"},
        given=lambda release: Given(variables={"TOKEN": "secret"}),
        environment={"PATH": "/usr/bin:/bin", "OUTRIDER_ETCD_PASSWORD": "x"},
    )


def claimed_of(spec: TaskSpec = MIGRATE) -> Claimed:
    task = Task(
        app="app", group="g", name=spec.name, kind="pre", command=spec.command, version="2.0.0", release="2.0.0",
        key="2.0.0", sha256="2" * 64, state="running", instance="a", process="p", claim="c", limit_s=spec.limit_s,
        started=NOON,
    )  # fmt: skip
    return Claimed(spec=spec, key=KEY, task=task, revision=1)


@pytest.mark.parametrize(
    ("script", "state", "why"),
    [
        ("#!/bin/sh\necho migrated\n", "done", "exit 0; it said: migrated"),
        ("#!/bin/sh\necho no such table >&2\nexit 3\n", "failed", "exit 3; it said: no such table"),
        ("#!/bin/sh\nkill -9 $$\n", "unknown", "signal 9: somebody ended it"),
        ("#!/bin/sh\nkill -11 $$\n", "failed", "signal 11"),
    ],
)
def test_a_program_of_the_payload_runs_to_its_end(tmp_path: Path, script: str, state: str, why: str) -> None:
    result = programs_of(tmp_path, script).run(claimed_of(), RELEASE)

    assert state == result.state
    assert result.why.startswith(why)
    assert [] == list((tmp_path / "state" / "tasks").iterdir())


def test_it_sees_its_settings_and_its_release_and_nothing_of_the_sidekicks_own(tmp_path: Path) -> None:
    result = programs_of(tmp_path, "#!/bin/sh\nenv\n").run(claimed_of(), RELEASE)

    seen = dict(line.partition("=")[::2] for line in result.output.splitlines())
    expected = {"DATABASE": "from-settings", "TOKEN": "secret", "OUTRIDER_VERSION": "2.0.0", "OUTRIDER_TASK": "migrate"}
    assert expected.items() <= seen.items()
    assert "OUTRIDER_ETCD_PASSWORD" not in seen


def test_its_time_limit_ends_it_with_what_it_has_started(tmp_path: Path) -> None:
    programs = programs_of(tmp_path, "#!/bin/sh\nsleep 600 &\necho begun\nwait\n")

    result = programs.run(
        claimed_of(TaskSpec(name="migrate", kind="pre", command=("bin/migrate",), limit_s=0.3)), RELEASE
    )

    assert ("failed", None) == (result.state, result.code)
    assert "not ended within 0.3 s; it said: begun" == result.why


def test_a_program_that_its_payload_lacks_is_the_releases_fault(tmp_path: Path) -> None:
    result = programs_of(tmp_path, "").run(
        claimed_of(TaskSpec(name="migrate", kind="pre", command=("bin/other",))), RELEASE
    )

    assert ("failed", "no program 'bin/other' in the payload") == (result.state, result.why)


def test_a_program_that_this_machine_lacks_is_this_machines_trouble(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as raised:
        programs_of(tmp_path, "").run(
            claimed_of(TaskSpec(name="migrate", kind="pre", command=("/nowhere/backup",))), RELEASE
        )

    assert "wrong-setting" == raised.value.evidence


@pytest.mark.parametrize("fails", ["look_at", "boot_id", "wait"])
def test_what_has_begun_is_never_given_back_whatever_this_machine_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Else another instance would run it again: an error after the start is no error of the start."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    if fails == "wait":
        monkeypatch.setattr(TaskPrograms, "_wait", fail)
    else:
        monkeypatch.setattr(task_programs, fails, fail)
    result = programs_of(tmp_path, "#!/bin/sh\nexec sleep 600\n").run(claimed_of(), RELEASE)

    assert "unknown" == result.state
    assert "it had begun when this machine failed, and was ended: Too many open files" == result.why


def test_a_sidekick_that_ends_ends_its_program_and_says_nothing_of_it(tmp_path: Path) -> None:
    programs = programs_of(tmp_path, "#!/bin/sh\nsleep 600\n")
    threading.Timer(0.3, programs.close).start()

    with pytest.raises(Interrupted):
        programs.run(claimed_of(), RELEASE)
