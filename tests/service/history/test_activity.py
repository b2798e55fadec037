"""What happens is told once, whoever tells it: on a real etcd, with processes that come and go."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from outrider.cli.main import main
from outrider.etcd.seam import Cluster, Put
from outrider.model.activity import Activity
from outrider.model.documents import Block, Instance, encode
from outrider.model.keys import Keys
from outrider.service.history.activity_log import read_activity
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.store.store import Store, utc_now
from tests.support.service import Service
from tests.support.service_examples import APP, make_app, open_store
from tests.support.waiting import eventually

ActivityRecorders = Callable[[], ActivityRecorder]


@pytest.fixture
def below(prefix: str) -> str:
    return prefix.rstrip("/")


@pytest.fixture
def real(cluster: Cluster, below: str) -> Store:
    """A store over the real etcd, whose clock is the real one: records of an age are not told."""
    return open_store(cluster, below, utc_now)


@pytest.fixture
def activity_recorder(cluster: Cluster, below: str) -> Iterator[ActivityRecorders]:
    """Starts one; those that still run are closed in the end."""
    running: list[ActivityRecorder] = []

    def start() -> ActivityRecorder:
        one = ActivityRecorder(cluster, Keys(below), utc_now)
        one.start()
        running.append(one)
        eventually(lambda: one._watch is not None)
        return one

    yield start
    for one in running:
        one.close()


def kinds(store: Store) -> list[str]:
    return [record.kind for _, record in reversed(read_activity(store.context))]


def row(store: Store, **fields: Any) -> None:
    now = utc_now()
    document = msgspec.structs.replace(
        Instance(app=APP, id="web-1", group="beta", version="1.0.0", first_seen=now, last_seen=now), **fields
    )
    store.context.cluster.txn((), (Put(key=store.context.keys.instance(APP, "web-1"), value=encode(document)),))


def test_a_release_is_told_from_package_to_failure(real: Store, activity_recorder: ActivityRecorders) -> None:
    activity_recorder()
    make_app(real, version="1.0.0")
    row(real)
    row(real, status="update-granted", granted_version="2.0.0")
    row(real, status="error", error_code=44)
    row(real, version="2.0.0", status="complete")
    real.groups.update(APP, "beta", paused=True, slots=2)

    eventually(lambda: "group-slots" in kinds(real))

    told = [record for _, record in reversed(read_activity(real.context))]
    assert {"app-created", "package-created", "channel-moved", "group-created"} <= {one.kind for one in told}
    assert ["instance-appeared", "update-granted", "instance-failed", "instance-updated"] == [
        one.kind for one in told if one.instance
    ]
    failed = next(one for one in told if one.kind == "instance-failed")
    assert ("error", "2.0.0", {"error_code": "44"}) == (failed.severity, failed.version, failed.facts)
    assert {"group-paused", "group-slots"} <= {one.kind for one in told}


def test_two_processes_tell_everything_once(real: Store, activity_recorder: ActivityRecorders) -> None:
    activity_recorder()
    activity_recorder()
    make_app(real, version="1.0.0")
    for number in range(30):
        real.groups.update(APP, "beta", paused=number % 2 == 0)

    eventually(lambda: kinds(real).count("group-resumed") >= 15)

    assert (15, 15) == (kinds(real).count("group-paused"), kinds(real).count("group-resumed"))


def test_what_happened_while_nobody_looked_is_told_by_the_next_process(
    real: Store, activity_recorder: ActivityRecorders
) -> None:
    activity_recorder().close()
    make_app(real, version="1.0.0")
    block = Block(version="1.0.0", sha256="0" * 64, instance="web-1", why="it crashed", at=utc_now())
    real.context.cluster.txn((), (Put(key=real.context.keys.block(APP, "1.0.0"), value=encode(block)),))
    assert [] == kinds(real)

    activity_recorder()

    eventually(lambda: "release-blocked" in kinds(real))
    assert 1 == kinds(real).count("channel-moved"), "the channel says itself where it points"


def test_a_restart_tells_nothing_again(real: Store, activity_recorder: ActivityRecorders) -> None:
    first = activity_recorder()
    make_app(real, version="1.0.0")
    eventually(lambda: "channel-moved" in kinds(real) and "group-created" in kinds(real))
    before = kinds(real)
    first.close()

    second = activity_recorder()
    real.groups.update(APP, "beta", slots=3)

    eventually(lambda: "group-slots" in kinds(real))
    assert [*before, "group-slots"] == kinds(real)
    second.close()


def test_what_was_there_before_the_first_process_is_no_news(real: Store, activity_recorder: ActivityRecorders) -> None:
    make_app(real, version="1.0.0")

    activity_recorder()

    real.groups.update(APP, "beta", paused=True)
    eventually(lambda: kinds(real))
    assert ["group-paused"] == kinds(real)


def test_the_command_prints_oldest_first_and_filters(
    real: Store, activity_recorder: ActivityRecorders, service: Service
) -> None:
    activity_recorder()
    make_app(real, version="1.0.0")
    row(real)
    row(real, status="error", error_code=9)
    eventually(lambda: "instance-failed" in kinds(real))
    where = ["--etcd", service.etcd, "--prefix", service.prefix]

    every = CliRunner().invoke(main, ["activity", *where])
    failures = CliRunner().invoke(main, ["activity", *where, "--severity=error", "--since=1h", "--json"])
    nonsense = CliRunner().invoke(main, ["activity", *where, "--since=yesterday"])

    assert every.exit_code == 0
    assert every.stdout.splitlines()[0].split() == ["AT", "SEVERITY", "GROUP", "INSTANCE", "WHAT"]
    assert every.stdout.index("was added") < every.stdout.index("failed: download failed (error code 9)")
    assert ["instance-failed"] == [one["kind"] for one in json.loads(failures.stdout)]
    assert 1 == nonsense.exit_code
    assert "Error: --since 'yesterday': write 30m, 12h, 3d" in nonsense.stderr


def test_a_document_that_cannot_be_read_stops_nothing(real: Store, activity_recorder: ActivityRecorders) -> None:
    activity_recorder()
    real.context.cluster.txn((), (Put(key=real.context.keys.block(APP, "9.9.9"), value=b"garbage"),))

    make_app(real, version="1.0.0")

    eventually(lambda: "group-created" in kinds(real))


def test_records_of_one_transaction_have_keys_of_their_own() -> None:
    from outrider.model.activity import activity_key

    at = datetime(2026, 1, 1, tzinfo=UTC)
    keys = Keys("/x")
    about = [
        Activity(at=at, severity="info", kind="group-moved", app="a", group=group, text="") for group in ("g1", "g2")
    ]

    assert 2 == len({activity_key(keys, one, 7) for one in about})
