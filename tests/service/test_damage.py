"""A value that can't be read, in any family of keys, affects only itself: it is skipped, logged and counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from loguru import logger
from prometheus_client.parser import text_string_to_metric_families

from outrider.cli.commands.lock import Named, budget
from outrider.core.errors import Conflict
from outrider.etcd.seam import Delete, Put
from outrider.model.activity import Activity, activity_key
from outrider.model.documents import encode
from outrider.service.history.activity_log import read_activity
from outrider.service.history.webhook_sender import WebhookSender
from outrider.service.history.webhooks import Delivery, Webhooks
from outrider.service.operations.backups import backup_lines, read_backup
from outrider.service.rollouts.explain import explain, read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store.audit import Wanted
from outrider.service.store.changes import Unaudited
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import Store, open_stores
from outrider.turns.turns import read_scope
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import application_over, ask
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, be_alive, hold_turn, make_app, put
from tests.support.waiting import eventually

GARBAGE = [b"", b"\x00\xff\xfe", b"{}", b"[]", b'"text"', b'{"schema": 99}', b"{" * 5000]
P = "/outrider/v1"
DAMAGED = {
    "app": f"{P}/apps/broken",
    "package": f"{P}/apps/{APP}/packages/9.9.9",
    "channel": f"{P}/apps/{APP}/channels/broken",
    "group": f"{P}/apps/{APP}/groups/broken",
    "policy of a group": f"{P}/apps/{APP}/groups/worse",
    "target": f"{P}/apps/{APP}/groups/other/target",
    "rollout": f"{P}/apps/{APP}/groups/other/rollout",
    "grant": f"{P}/apps/{APP}/groups/beta/grants/web-9",
    "deferral": f"{P}/apps/{APP}/groups/beta/deferrals/web-9",
    "instance row": f"{P}/instances/{APP}/web-9",
    "presence": f"{P}/presence/{APP}/beta/web-9",
    "command": f"{P}/commands/{APP}/web-9",
    "wake-up": f"{P}/wakeups/{APP}/web-9",
    "block": f"{P}/blocks/{APP}/9.9.9",
    "slot of another group": f"{P}/turns/{APP}/other/slots/0/a",
    "queue": f"{P}/turns/{APP}/beta/queue/web-9",
    "shared slot": f"{P}/shared-turns/many/slots/0/a",
    "shared queue": f"{P}/shared-turns/many/queue/{APP}/web-9",
    "activity": f"{P}/activity/{APP}/zz-broken",
    "webhook": f"{P}/webhooks/broken",
    "delivery": f"{P}/webhook-outbox/hook/broken",
    "user": f"{P}/users/broken",
    "product": f"{P}/products/org.broken",
    "audit entry": f"{P}/audit/entries/{NOON:%Y-%m-%d}/broken",
    "marker of removal": f"{P}/gone/{APP}/web-9",
    "crash": f"{P}/crashes/{APP}/web-9",
    "write guard": f"{P}/servers/web/broken",
}


@pytest.fixture
def application(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> FastAPI:
    """An app with two groups, one instance each; the channel moves to 2.0.0."""
    make_app(store, version="2.0.0")
    store.groups.create(APP, "other", channel="beta")
    be_alive(store, "web-1", NOON)
    be_alive(store, "web-2", NOON, group="other")
    return application_over(client, tmp_path, now=clock)


def check(machine: str, track: str = "beta", version: str = "1.0.0") -> bytes:
    return (
        f'<?xml version="1.0"?><request protocol="3.0"><app appid="{APP}" version="{version}" track="{track}"'
        f' machineid="{machine}"><updatecheck/></app></request>'
    ).encode()


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(f"{message.record['extra']} {message.record['message']}"), level=0)
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize("family", DAMAGED)
def test_neighbours_are_served_as_if_the_value_were_not_there(
    application: FastAPI, store: Store, client: FakeCluster, family: str
) -> None:
    put(client, f"{store.context.keys.audit_days()}{NOON:%Y-%m-%d}", b"{}")
    for value in GARBAGE:
        put(client, DAMAGED[family], value)

        answer = ask(application, "POST", "/v1/update/", check("web-1"))
        assert (200, True) == (answer.status, b'status="ok"' in answer.body), f"{value!r}: {answer.body!r}"
        overview = next(one for one in read_overviews(store.context, APP) if one.name == "beta")
        assert {"web-1"} <= set(overview.instances)
        assert "2.0.0" == overview.target.version
        assert "" == overview.problem
        assert explain(store.context, APP, "web-1")
        assert b'outrider_sidekicks_alive{app="' in ask(application, "GET", "/metrics").body
        assert b"outrider_etcd_up 1.0" in ask(application, "GET", "/metrics").body
        look(store.context, GroupLock(), APP, "beta")
        assert {"1.0.0", "2.0.0"} <= {package.version for package in store.packages.list(APP)}
        assert {"beta"} <= {channel.name for channel in store.channels.list(APP)}
        assert {"beta"} <= {group.id for group in store.groups.list(APP)}
        assert {APP} <= {app.id for app in store.apps.list()}
        assert read_activity(store.context) == []
        stores = open_stores(client)
        assert stores.audit_log.list(Wanted(), limit=5) == ()
        assert read_backup(list(backup_lines(store.context))).values
        assert 1 == budget(client, store.context.keys, Named(app=APP, group="beta"))


@pytest.mark.parametrize("family", DAMAGED)
def test_the_channel_still_moves_every_group_that_can_be_read(
    application: FastAPI, store: Store, client: FakeCluster, family: str
) -> None:
    put(client, DAMAGED[family], b"\x00garbage")

    store.channels.save(APP, "beta", version="1.0.0")

    assert "1.0.0" == store.groups.target(APP, "beta").version
    assert "1.0.0" == store.groups.target(APP, "other").version, "a damaged target is written anew"


@pytest.mark.parametrize("family", ["instance row", "grant", "deferral", "presence", "wake-up"])
def test_what_an_instance_writes_itself_is_mended_by_its_next_check_in(
    application: FastAPI, client: FakeCluster, family: str
) -> None:
    put(client, DAMAGED[family], b"garbage")

    assert b'status="ok"' in ask(application, "POST", "/v1/update/", check("web-9")).body


def test_the_group_with_the_damage_says_so_and_no_other(
    application: FastAPI, store: Store, client: FakeCluster
) -> None:
    for key in (DAMAGED["group"], DAMAGED["target"]):
        put(client, key, b"{")

    problems = {one.name: one.problem for one in read_overviews(store.context, APP)}

    assert problems["beta"] == ""
    assert "the group's document can't be read" in problems["broken"]
    assert "groups/other/target: not a target document" in problems["other"]
    assert "groups/other/target: not a target document" in "\n".join(explain(store.context, APP, "web-2"))


@pytest.mark.parametrize("value", GARBAGE)
def test_a_block_that_can_not_be_read_still_blocks(
    application: FastAPI, store: Store, client: FakeCluster, value: bytes
) -> None:
    put(client, f"{P}/blocks/{APP}/2.0.0", value)

    assert b"can't be read" in ask(application, "POST", "/v1/update/", check("web-1")).body.replace(b"&apos;", b"'")
    assert "blocked" in "\n".join(explain(store.context, APP, "web-1"))

    store.fleet.unblock(APP, "2.0.0")

    assert b'status="ok"' in ask(application, "POST", "/v1/update/", check("web-1")).body


@pytest.mark.parametrize("value", GARBAGE)
def test_a_marker_of_removal_that_can_not_be_read_still_keeps_the_instance_out(
    application: FastAPI, store: Store, client: FakeCluster, value: bytes
) -> None:
    put(client, store.context.keys.gone(APP, "web-9"), value)

    assert b'status="noupdate"' in ask(application, "POST", "/v1/update/", check("web-9")).body
    assert b'status="ok"' in ask(application, "POST", "/v1/update/", check("web-1")).body

    put(client, store.context.keys.gone(APP, "web-9"), value)
    assert "web-9" == store.fleet.admit(APP, "web-9").instance

    assert b'status="ok"' in ask(application, "POST", "/v1/update/", check("web-9")).body


def test_a_slot_that_can_not_be_read_is_taken_and_the_others_are_free(store: Store, client: FakeCluster) -> None:
    keys = store.context.keys
    scope = f"turns/{APP}/beta"
    hold_turn(store, "web-1", NOON, number=1)
    put(client, keys.slot(scope, 0, "web-9"), b"garbage")

    seen = read_scope(client, keys, scope)

    assert {0, 1} == set(seen.slots)
    assert "web-1" == seen.slots[1].slot.member
    assert {0, 1} == {one.number for one in seen.holding}


def test_a_key_that_names_no_slot_stops_its_scope_alone(store: Store, client: FakeCluster) -> None:
    put(client, f"{P}/turns/{APP}/beta/slots/first", b"garbage")

    with pytest.raises(Conflict, match="names no slot number"):
        read_scope(client, store.context.keys, f"turns/{APP}/beta")
    assert not read_scope(client, store.context.keys, f"turns/{APP}/other").slots


def test_a_grant_that_can_not_be_read_counts_as_an_update_under_way(store: Store, client: FakeCluster) -> None:
    make_app(store, version="2.0.0")
    put(client, DAMAGED["grant"], b"garbage")

    snapshot = next(iter(read_overviews(store.context, APP, "beta"))).snapshot

    assert snapshot is not None
    assert {"web-9": ""} == snapshot.living


def test_a_delivery_that_can_not_be_read_does_not_hold_up_the_ones_behind_it(
    store: Store, client: FakeCluster, fake_etcd: FakeEtcd, clock: WallClock
) -> None:
    hooks = Webhooks(context=store.context, auditing=Unaudited("a test"))
    hooks.create("hook", "http://receiver.example/")
    put(client, f"{hooks.outbox}hook/0", b"garbage")
    activity = Activity(at=NOON, severity="info", kind="test", app=APP, text="it works")
    put(client, f"{hooks.outbox}hook/1", encode(Delivery(activity=activity)))
    put(client, f"{hooks.outbox}broken/1", encode(Delivery(activity=activity)))
    put(client, f"{hooks.prefix}broken", b"garbage")
    sent: list[bytes] = []

    def send(url: str, body: bytes, headers: dict[str, str]) -> int:
        sent.append(body)
        return 204

    sender = WebhookSender(hooks, send=send)
    sender.start()
    try:
        eventually(lambda: not hooks.pending("hook"))
    finally:
        sender.close()

    assert 1 == len(sent)
    assert b"it works" in sent[0]
    assert 1 == hooks.pending("broken"), "its deliveries wait until its document is mended"
    hooks.delete("broken")
    assert not hooks.pending("broken")


def test_activity_that_can_not_be_read_hides_no_other(store: Store, client: FakeCluster) -> None:
    one = Activity(at=NOON, severity="info", kind="test", app=APP, text="it works")
    put(client, activity_key(store.context.keys, one, 1), encode(one))
    put(client, DAMAGED["activity"], b"garbage")

    assert ["it works"] == [found.text for _, found in read_activity(store.context)]


def test_each_damaged_value_is_logged_once_and_counted(
    application: FastAPI, client: FakeCluster, said: list[str]
) -> None:
    def counted() -> float:
        page = ask(application, "GET", "/metrics").body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "outrider_documents_unreadable_total" and sample.labels["kind"] == "package"
        )

    before = counted()
    put(client, f"{P}/apps/{APP}/packages/7.7.7", b"counted once")
    for _ in range(3):
        assert 200 == ask(application, "GET", f"/api/v1/apps/{APP}/packages").status

    told = [line for line in said if "document not understood" in line and "7.7.7" in line]
    assert 1 == len(told)
    assert 1 == counted() - before


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("late", [False, True])
def test_users_that_can_not_be_read_close_the_door(
    client: FakeCluster, store: Store, tmp_path: Path, value: bytes, late: bool
) -> None:
    """
    1. the only user is damaged: before the service starts, or while it runs
    2. nobody is let in, not even a program of this machine without a token
    3. an operator with access to etcd gives the user a new token, and it works
    """
    store.users.begin("ann")
    application = application_over(client, tmp_path)
    if late:
        assert 401 == ask(application, "GET", "/api/v1/apps").status
    put(client, f"{P}/users/ann", value)

    for method, path in (("GET", "/api/v1/apps"), ("POST", "/api/v1/users"), ("DELETE", "/api/v1/users/ann")):
        eventually(lambda m=method, p=path: 403 == ask(application, m, p).status)  # type: ignore[misc]
    assert b"no user can be read (ann)" in ask(application, "GET", "/api/v1/apps").body
    with pytest.raises(Conflict, match="users exist already"):
        store.users.begin("eve")

    token = store.users.create("ann", "admin").token

    eventually(lambda: 200 == ask(application, "GET", "/api/v1/apps", Authorization=f"Bearer {token}").status)
    assert 401 == ask(application, "GET", "/api/v1/apps").status


def test_a_damaged_user_among_others_is_refused_and_the_others_work(
    client: FakeCluster, store: Store, tmp_path: Path
) -> None:
    ann, bob = store.users.begin("ann").token, store.users.create("bob").token
    put(client, f"{P}/users/bob", b"{}")
    application = application_over(client, tmp_path)

    assert 200 == ask(application, "GET", "/api/v1/apps", Authorization=f"Bearer {ann}").status
    assert 401 == ask(application, "GET", "/api/v1/apps", Authorization=f"Bearer {bob}").status
    with pytest.raises(Conflict, match="last admin"):
        store.users.delete("ann")
    with pytest.raises(Conflict, match="can't be read"):
        store.users.delete("bob")


def test_a_turn_in_the_name_of_another_is_nobodys(store: Store, client: FakeCluster) -> None:
    """etcd's roles let an instance write its own slot keys alone: the key counts, and not what is in it."""
    keys, scope = store.context.keys, f"turns/{APP}/beta"
    hold_turn(store, "web-1", NOON, number=0)
    forged = client.get(keys.slot(scope, 0, "web-1"))
    assert forged is not None
    client.txn((), (Delete(key=forged.key), Put(key=keys.slot(scope, 1, "web-9"), value=forged.value)))

    seen = read_scope(client, keys, scope)

    assert (None, "unreadable-turn") == (seen.slot_of("web-1"), seen.slots[1].slot.member)


def test_two_keys_of_one_slot_stop_their_scope(store: Store, client: FakeCluster) -> None:
    for name in ("web-1", "web-2"):
        hold_turn(store, name, NOON, number=0)

    with pytest.raises(Conflict, match=r"slots/0/web-1 and .*slots/0/web-2: two keys of one slot"):
        read_scope(client, store.context.keys, f"turns/{APP}/beta")
