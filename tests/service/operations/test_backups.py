"""Backup and restore of what the service keeps."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from outrider.core.errors import ConfigError, Conflict, OutriderError, Unknown
from outrider.etcd.seam import Put
from outrider.model.documents import Command, Instance, encode
from outrider.service.operations.backups import MAX_BATCH_KEYS, backup_lines, read_backup, restore, restoring_key
from outrider.service.rollouts.wakeups import look
from outrider.service.store.audit import AuditLog, Wanted
from outrider.service.store.changes import Audited
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.packages import Payload
from outrider.service.store.request import Principal, RequestContext
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON, WallClock
from tests.support.service_examples import (
    APP,
    SHA256,
    be_alive,
    block,
    hold_turn,
    make_app,
    open_store,
    put,
    stand_in_line,
)
from tests.support.service_fleets import Fleet


def request_on(store: Store) -> Audited:
    principal = Principal(name="(ann@here)", role="admin")
    request = RequestContext(principal=principal, did="restore", request_id="1")
    return Audited(request=request, log=AuditLog(context=store.context))


def lived_in(store: Store) -> None:
    """A store with something of everything."""
    make_app(store, version="2.0.0")
    store.packages.create(APP, "3.0.0", Payload(size_bytes=6, sha256=SHA256, name="web.tar"))
    store.users.create("ann", "admin")
    block(store, "1.0.0", "it crashed", NOON)
    for number in range(2 * MAX_BATCH_KEYS + 20):
        row = Instance(app=APP, id=f"web-{number}", group="beta", version="1.0.0", first_seen=NOON, last_seen=NOON)
        put(store.context.cluster, store.context.keys.instance(APP, row.id), encode(row))
    be_alive(store, "web-1", NOON)
    hold_turn(store, "web-1", NOON)
    stand_in_line(store, "web-2", NOON)
    command = Command(verb="pause", by="ann", at=NOON)
    put(store.context.cluster, store.context.keys.command(APP, "web-1"), encode(command))
    lease = store.context.cluster.grant(60)
    grant = Put(key=f"{store.context.keys.group(APP, 'beta')}/grants/web-1", value=b"{}", lease=lease)
    store.context.cluster.txn((), (grant,))


def kept(etcd: FakeEtcd) -> dict[str, bytes]:
    """What a backup has, and the audit log hasn't of the restore itself."""
    moment = ("/presence/", "/turns/", "/shared-turns/", "/commands/", "/audit/", "/grants/", "/cluster/")
    return {key: entry.value for key, entry in etcd.entries.items() if not any(part in key for part in moment)}


@pytest.fixture
def lines(store: Store) -> list[bytes]:
    lived_in(store)
    return list(backup_lines(store.context))


@pytest.fixture
def other_etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def other(other_etcd: FakeEtcd, clock: WallClock) -> Store:
    return open_store(other_etcd.client("other"), "/elsewhere", now=clock)


def test_what_is_restored_is_what_there_was(
    lines: list[bytes], fake_etcd: FakeEtcd, other: Store, other_etcd: FakeEtcd
) -> None:
    replaced = restore(other.context, read_backup(lines), request_on(other))

    before = {key.removeprefix("/outrider/v1"): value for key, value in kept(fake_etcd).items()}
    after = {key.removeprefix("/elsewhere"): value for key, value in kept(other_etcd).items()}
    assert before == after
    assert 0 == replaced
    assert "2.0.0" == other.groups.target(APP, "beta").version
    assert "/elsewhere/cluster/epoch" in other_etcd.entries, "every process notices that etcd was set back"


def test_what_belongs_to_the_moment_is_not_in_it(lines: list[bytes]) -> None:
    text = b"".join(lines)

    for moment in (b"presence/", b"turns/", b"shared-turns/", b"commands/", b"grants/"):
        assert moment not in text
    for kept_key in (b"apps/", b"users/ann", b"blocks/", b"instances/", b"/target"):
        assert kept_key in text


def test_the_header_says_what_is_in_it_and_which_files_are_not(lines: list[bytes], fake_etcd: FakeEtcd) -> None:
    header, end = json.loads(lines[0]), json.loads(lines[-1])

    assert ("outrider backup", 1, "/outrider/v1") == (header["format"], header["schema"], header["prefix"])
    assert fake_etcd.revision == header["revision"]
    assert [{"app": APP, "version": "3.0.0", "sha256": SHA256}] == header["payloads"]
    assert len(lines) - 2 == end["keys"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[:-2] + lines[-1:],
        lambda lines: lines[1:],
        lambda lines: [*lines[:-1], lines[-1][:10]],
        lambda lines: [*lines, b"{}\n"],
        lambda lines: [line.replace(b'\\"slots\\":1', b'\\"slots\\":9') for line in lines],
        lambda lines: [lines[0].replace(b'"schema":1', b'"schema":2'), *lines[1:]],
        lambda lines: [],
        lambda lines: [b"hello\n", b"world\n"],
        lambda lines: [b"[]\n", b"[]\n"],
        lambda lines: [b"\xff\n", b"{}\n"],
    ],
)
def test_a_backup_that_is_not_whole_is_refused(
    lines: list[bytes], damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    damaged = damage(lines)
    assert damaged != lines

    with pytest.raises(ConfigError, match="backup"):
        read_backup(damaged)


@pytest.mark.parametrize("key", ["turns/x/y/slots/0", "shared-turns/x/slots/0", "/apps/x", "", "restoring"])
def test_a_backup_with_a_key_that_is_never_kept_is_refused(store: Store, key: str) -> None:
    """Somebody wrote it by hand, with a right checksum."""
    body = [b'{"format":"outrider backup","schema":1}\n', json.dumps({"key": key, "value": "{}"}).encode() + b"\n"]
    end = {"keys": 1, "sha256": hashlib.sha256(b"".join(body)).hexdigest()}

    with pytest.raises(ConfigError, match="line 2"):
        read_backup([*body, json.dumps(end).encode()])


def test_a_restore_over_something_is_refused_and_does_nothing(
    lines: list[bytes], other: Store, other_etcd: FakeEtcd
) -> None:
    other.apps.create(app="mine")
    before = dict(other_etcd.entries)

    with pytest.raises(Conflict, match="1 keys exist already; --replace"):
        restore(other.context, read_backup(lines), request_on(other))

    assert before == other_etcd.entries


def test_living_sidekicks_are_nothing_that_is_in_the_way_and_stay(
    lines: list[bytes], other: Store, other_etcd: FakeEtcd
) -> None:
    be_alive(other, "web-9", NOON)
    hold_turn(other, "web-9", NOON)
    before = dict(other_etcd.entries)

    restore(other.context, read_backup(lines), request_on(other))

    assert before.items() <= other_etcd.entries.items()


def test_replacing_leaves_nothing_of_what_was(
    lines: list[bytes], fake_etcd: FakeEtcd, other: Store, other_etcd: FakeEtcd
) -> None:
    make_app(other)
    other.apps.create(app="mine")
    other.users.create("eve", "admin")

    replaced = restore(other.context, read_backup(lines), request_on(other), replace=True)

    assert 7 == replaced - 1  # two apps, two packages, channel, group, target, user
    assert {key.removeprefix("/outrider/v1") for key in kept(fake_etcd)} == {
        key.removeprefix("/elsewhere") for key in kept(other_etcd)
    }


def test_the_audit_log_comes_back_and_says_that_it_did(store: Store, other: Store, clock: WallClock) -> None:
    lived_in(replace(store, auditing=request_on(store)))
    clock.advance(60)

    restore(other.context, read_backup(backup_lines(store.context)), request_on(other))

    entries = [one.entry for one in AuditLog(context=other.context).list(Wanted(), limit=1000)]
    assert ("(ann@here)", "database") == (entries[0].who, entries[0].noun)
    assert "app" in {entry.noun for entry in entries}


@pytest.mark.parametrize("breaks_at", range(1, 6))
def test_a_restore_that_breaks_off_shows_no_target_and_can_be_begun_again(
    lines: list[bytes], fake_etcd: FakeEtcd, clock: WallClock, other_etcd: FakeEtcd, breaks_at: int
) -> None:
    """
    1. etcd gives no answer to one of the transactions, and it doesn't happen
    2. nobody sees a target: no sidekick acts on the half of it; a backup of the half is refused
    3. beginning again needs --replace, and then everything is there
    """
    client = other_etcd.client("other")
    other = open_store(client, "/elsewhere", now=clock)
    count = 0

    def break_off(call: str, moment: str) -> None:
        nonlocal count
        if (call, moment) == ("txn", "before"):
            count += 1
            if count == breaks_at:
                raise Unknown("no answer")

    client.trouble = break_off
    try:
        restore(other.context, read_backup(lines), request_on(other))
        finished = True
    except Unknown:
        finished = False
    client.trouble = None
    assert finished == (count < breaks_at), "every transaction of the restore was tried"
    if finished:
        return

    assert not [key for key in other_etcd.entries if key.endswith("/target")]
    if breaks_at > 1:
        with pytest.raises(Conflict, match="interrupted"):
            list(backup_lines(other.context))
        with pytest.raises(Conflict, match="--replace starts again"):
            restore(other.context, read_backup(lines), request_on(other))
    restore(other.context, read_backup(lines), request_on(other), replace=True)
    assert {key.removeprefix("/outrider/v1") for key in kept(fake_etcd)} == {
        key.removeprefix("/elsewhere") for key in kept(other_etcd)
    }


def test_who_writes_at_the_same_time_breaks_the_restore_off_and_is_named(
    lines: list[bytes], clock: WallClock, other_etcd: FakeEtcd
) -> None:
    client = other_etcd.client("other")
    other, rival = open_store(client, "/elsewhere", now=clock), open_store(other_etcd.client("rival"), "/elsewhere")
    count = 0

    def write_between(call: str, moment: str) -> None:
        nonlocal count
        if (call, moment) == ("txn", "before"):
            count += 1
            if count == 2:
                rival.apps.create(app=APP)

    client.trouble = write_between

    with pytest.raises(Conflict, match=f"/elsewhere/apps/{APP}"):
        restore(other.context, read_backup(lines), request_on(other))
    assert restoring_key(other.context.keys) in other_etcd.entries


def test_a_second_restore_stops_the_first(lines: list[bytes], clock: WallClock, other_etcd: FakeEtcd) -> None:
    client = other_etcd.client("first")
    first, second = open_store(client, "/elsewhere", now=clock), open_store(other_etcd.client("second"), "/elsewhere")
    count = 0

    def overtake(call: str, moment: str) -> None:
        nonlocal count
        if (call, moment) == ("txn", "before"):
            count += 1
            if count == 3:
                restore(second.context, read_backup(lines), request_on(second), replace=True)

    client.trouble = overtake
    with pytest.raises(OutriderError, match="another program wrote"):
        restore(first.context, read_backup(lines), request_on(first))

    assert "2.0.0" == second.groups.target(APP, "beta").version
    assert restoring_key(second.context.keys) not in other_etcd.entries


def test_a_restored_roll_out_goes_on_and_takes_nobody_for_failed(
    fleet: Fleet, other: Store, other_etcd: FakeEtcd, clock: WallClock
) -> None:
    """
    1. one has succeeded, one has failed, one is under way, and one waits; a second failure would halt the rollout
    2. a backup is restored elsewhere, where no grant lives
    3. who succeeded and who failed is known; who was under way is neither, and the one that waited is granted
    """
    fleet.set(max_in_progress=1, max_failures=2)
    for instance in ("web-1", "web-2", "web-3", "web-4"):
        fleet.checks(instance)
        if instance == "web-1":
            fleet.succeeds(instance)
        if instance == "web-2":
            fleet.fails(instance)
    restore(other.context, read_backup(backup_lines(fleet.store.context)), request_on(other))
    there = Fleet(store=other, etcd=other_etcd, clock=clock)
    look(other.context, GroupLock(), APP, "beta")
    granted = there.granted("web-4")

    assert (["web-3"], ["web-4"]) == (fleet.under_way, fleet.line)
    assert ("running", 1, ["web-2"]) == (
        there.progress.state, there.progress.succeeded, [one.instance for one in there.progress.failures],
    )  # fmt: skip
    assert "2.0.0" == granted


def test_values_that_are_no_text_survive(client: FakeCluster, store: Store, other: Store, other_etcd: FakeEtcd) -> None:
    put(client, "/outrider/v1/something/odd", b"\xff\x00")
    put(client, "/outrider/v1/alone", b"1")

    restore(other.context, read_backup(backup_lines(store.context)), request_on(other))
    restore(other.context, read_backup(backup_lines(store.context)), request_on(other), replace=True)

    assert b"\xff\x00" == other_etcd.entries["/elsewhere/something/odd"].value
    assert b"1" == other_etcd.entries["/elsewhere/alone"].value
