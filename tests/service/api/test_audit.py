"""The audit log: every change of an operator's is in it, with its transaction or not at all."""

from datetime import timedelta

import pytest

from outrider.core.errors import Conflict, Unknown
from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest
from outrider.model.documents import Role
from outrider.service.history.webhooks import Webhooks
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.store.audit import MAX_TEXT, AuditEntry, AuditLog, Wanted
from outrider.service.store.audit_nouns import noun_of
from outrider.service.store.request import Principal, RequestContext
from outrider.service.store.store import Store, Stores
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, be_alive, block, make_app, payload_of

ALL = Wanted()


@pytest.fixture
def log(store: Store) -> AuditLog:
    return AuditLog(context=store.context)


def bound(store: Store, log: AuditLog, name: str = "ann", role: Role = "operator") -> Store:
    """The store, on behalf of a request of ``name``'s."""
    principal = Principal(name=name, role=role, address="10.0.0.7")
    request = RequestContext(principal=principal, did="PATCH /there", request_id="request-1")
    return Stores(context=store.context, audit_log=log).on_behalf_of(request)


@pytest.fixture
def ann(store: Store, log: AuditLog) -> Store:
    """The store, on behalf of a request of ann's."""
    return bound(store, log)


def entries(log: AuditLog, wanted: Wanted = ALL) -> list[AuditEntry]:
    """Oldest first."""
    return [one.entry for one in reversed(log.list(wanted, limit=1000))]


def changes(log: AuditLog, wanted: Wanted = ALL) -> list[tuple[str, str, str]]:
    return [(entry.verb, entry.noun, entry.name) for entry in entries(log, wanted)]


def test_an_entry_says_who_did_what_from_what_into_what(store: Store, log: AuditLog, clock: WallClock) -> None:
    make_app(store)
    clock.advance(60)

    bound(store, log).groups.update(APP, "beta", paused=True)

    (entry,) = entries(log)
    assert ("ann", "operator", "10.0.0.7") == (entry.who, entry.role, entry.address)
    assert ("PATCH /there", "request-1", clock.time) == (entry.did, entry.request_id, entry.at)
    assert ("update", "group", "beta", APP) == (entry.verb, entry.noun, entry.name, entry.app)
    assert f"apps/{APP}/groups/beta" == entry.key
    assert entry.before is not None
    assert entry.after is not None
    assert {"paused": True} == {name: fact for name, fact in entry.after.items() if entry.before[name] != fact}


def test_every_noun_is_recorded_and_what_follows_from_it_is_not(ann: Store, log: AuditLog) -> None:
    make_app(ann, versions=("1.0.0",))
    ann.channels.save(APP, "beta", version="2.0.0")
    be_alive(ann, "web-1", NOON)
    ann.fleet.command(APP, "web-1", "pause", "ann")
    block(ann, "1.0.0", "it crashed", NOON)
    ann.fleet.unblock(APP, "1.0.0")
    ann.users.create("bob", "admin")

    assert [
        ("create", "app", APP),
        ("create", "package", "1.0.0"),
        ("create", "channel", "beta"),
        ("create", "group", "beta"),
        ("update", "channel", "beta"),
        ("create", "command", "web-1"),
        ("delete", "release", "1.0.0"),
        ("create", "user", "bob"),
    ] == changes(log)


def test_a_group_that_makes_its_channel_too_is_two_entries_of_one_request(ann: Store, log: AuditLog) -> None:
    ann.apps.create(app=APP)

    ann.groups.create(APP, "web", channel="stable")

    made = entries(log)[1:]
    assert {("create", "group", "web"), ("create", "channel", "stable")} == {
        (entry.verb, entry.noun, entry.name) for entry in made
    }
    assert {"request-1"} == {entry.request_id for entry in made}


def test_what_changes_nothing_leaves_no_entry(ann: Store, log: AuditLog) -> None:
    make_app(ann)
    before = changes(log)

    ann.groups.update(APP, "beta", paused=False)
    ann.channels.save(APP, "beta", version="1.0.0")
    with pytest.raises(Conflict):
        ann.apps.create(app=APP)

    assert before == changes(log)


def test_instances_and_what_no_request_asked_for_are_not_recorded(store: Store, log: AuditLog) -> None:
    make_app(store)
    app = AppRequest(
        app_id=APP,
        version="0.9.0",
        track="beta",
        machine_id="web-1",
        update_check=True,
        events=(OmahaEvent(type=3, result=2),),
    )

    Checkins(context=store.context).answer(OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x"))

    assert [] == changes(log)


def test_a_token_leaves_no_trace(ann: Store, log: AuditLog, fake_etcd: FakeEtcd) -> None:
    made = ann.users.create("bob", "admin")
    ann.users.create("bob")

    logged = b"".join(entry.value for key, entry in fake_etcd.entries.items() if "/audit/" in key)
    assert b"bob" in logged
    for secret in (made.token, made.user.token_sha256, ann.users.get("bob").token_sha256):
        assert secret.encode() not in logged


def test_the_address_of_a_notification_leaves_no_trace(ann: Store, log: AuditLog, fake_etcd: FakeEtcd) -> None:
    hooks = Webhooks(context=ann.context, auditing=ann.auditing)
    hooks.create("chat", "json://ann:letmein@chat.example/rooms/T0KEN", kind="notification")
    hooks.delete("chat")

    logged = b"".join(entry.value for key, entry in fake_etcd.entries.items() if "/audit/" in key)
    assert 2 == logged.count(b"json://...")
    for secret in (b"letmein", b"T0KEN"):
        assert secret not in logged


def test_a_long_text_is_cut(ann: Store, log: AuditLog) -> None:
    ann.apps.create(app=APP)
    ann.packages.create(APP, "1.0.0", payload_of("1.0.0"), release_notes="x" * 200_000)

    after = entries(log)[-1].after
    assert after is not None
    assert str(after["release_notes"]).endswith("(200000 characters)")
    assert len(str(after["release_notes"])) < MAX_TEXT + 100


def test_a_change_whose_answer_was_lost_is_recorded_once(store: Store, log: AuditLog, client: FakeCluster) -> None:
    make_app(store)

    client.lose_answers()
    bound(store, log).groups.update(APP, "beta", paused=True)

    assert [("update", "group", "beta")] == changes(log)
    assert store.groups.get(APP, "beta").paused


def test_a_change_that_never_reached_etcd_is_not_recorded(store: Store, log: AuditLog, client: FakeCluster) -> None:
    make_app(store)

    def never_written(call: str, moment: str) -> None:
        if (call, moment) == ("txn", "before"):
            raise Unknown("it got lost")

    client.trouble = never_written
    with pytest.raises(Conflict):
        bound(store, log).groups.update(APP, "beta", paused=True)
    client.trouble = None

    assert [] == changes(log)
    assert not store.groups.get(APP, "beta").paused


def test_the_log_is_filtered(store: Store, log: AuditLog, clock: WallClock) -> None:
    for who, app in (("ann", "web"), ("bob", "web"), ("ann", "db")):
        clock.advance(60)
        bound(store, log, who).apps.save(app, label=who)

    assert [("create", "app", "web"), ("create", "app", "db")] == changes(log, Wanted(who="ann"))
    assert [("create", "app", "web"), ("update", "app", "web")] == changes(log, Wanted(app="web"))
    assert [("create", "app", "db")] == changes(log, Wanted(since=clock.time))
    assert [("update", "app", "web")] == changes(log, Wanted(name="web", who="bob", noun="app"))
    assert [] == changes(log, Wanted(noun="user"))


def test_pages_go_back_over_days_without_gap_or_repeat(store: Store, log: AuditLog, clock: WallClock) -> None:
    for number in range(25):
        clock.advance(7 * 3600)
        bound(store, log).apps.create(app=f"app-{number:02}")
        bound(store, log).apps.create(app=f"app-{number:02}-b")

    seen: list[str] = []
    before: str | None = None
    while page := log.list(ALL, limit=7, before=before):
        seen += [one.entry.name for one in page]
        before = page[-1].id

    assert 50 == len(seen)
    assert sorted(seen) == sorted(set(seen))
    assert [f"app-{number:02}" for number in reversed(range(25))] == [name[:6] for name in seen[::2]]


def test_old_days_go_when_a_new_one_begins(store: Store, clock: WallClock, fake_etcd: FakeEtcd) -> None:
    log = AuditLog(context=store.context, kept_days=3)
    for day in range(10):
        bound(store, log).apps.create(app=f"app-{day}")
        clock.advance(24 * 3600)

    bound(store, log).apps.create(app="app-10")

    assert [f"app-{day}" for day in range(8, 11)] == [entry.name for entry in entries(log) if entry.noun == "app"]
    assert 3 == len([key for key in fake_etcd.entries if "/audit/days/" in key])
    assert ["(audit log)"] * 3 == [entry.who for entry in entries(log) if entry.noun == "audit-day"]


def test_another_process_purges_as_well(store: Store, clock: WallClock, fake_etcd: FakeEtcd) -> None:
    first, second = (AuditLog(context=store.context, kept_days=1) for _ in range(2))
    bound(store, first).apps.create(app="old")
    clock.advance(3 * 24 * 3600)

    bound(store, second).apps.create(app="new")

    assert ["new"] == [entry.name for entry in entries(first) if entry.noun == "app"]


def test_a_purge_that_fails_fails_nobody(store: Store, log: AuditLog, client: FakeCluster, clock: WallClock) -> None:
    bound(store, log).apps.create(app="old")
    clock.advance(timedelta(days=100).total_seconds())

    def no_listing_of_days(call: str, moment: str) -> None:
        if call == "list":
            raise Unknown("etcd is away")

    client.trouble = no_listing_of_days
    bound(store, log).apps.create(app="new")
    client.trouble = None

    assert ["old", "new"] == [entry.name for entry in entries(log)]


@pytest.mark.parametrize(
    ("below", "named"),
    [
        ("apps/web", ("app", "web", "web")),
        ("apps/apps", ("app", "apps", "apps")),
        ("apps/web/packages/1.0.0", ("package", "1.0.0", "web")),
        ("apps/web/groups/beta", ("group", "beta", "web")),
        ("apps/web/groups/beta/target", None),
        ("apps/web/groups/beta/grants/web-1", None),
        ("apps/web/groups/beta/rollout", ("rollout", "beta", "web")),
        ("instances/web/web-1", ("instance", "web-1", "web")),
        ("users/ann", ("user", "ann", "")),
        ("webhooks/ops", ("webhook", "ops", "")),
        ("payloads/00ff", ("payload", "00ff", "")),
        ("presence/web/beta/web-1", None),
        ("turns/web/beta/slots/0", None),
        ("shared-turns/eu/slots/0", None),
        ("settings", ("settings", "settings", "")),
    ],
)
def test_a_key_names_its_noun(below: str, named: tuple[str, str, str] | None) -> None:
    assert named == noun_of(below)
