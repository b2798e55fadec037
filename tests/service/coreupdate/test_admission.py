"""Who is let in: a signature of a user with a Hawk key, of now, and once."""

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from outrider.service.coreupdate.auth import NONCE_TTL_S
from outrider.service.store.audit import Wanted
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.coreupdate import HOST, Signer, over_network, sign
from tests.support.in_process import application_over, ask
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

APPS = "/_ah/api/update/v1/apps?alt=json"


def test_a_user_with_a_hawk_key_is_let_in_and_audited(admin: Signer, store: Store, application: FastAPI) -> None:
    made = admin.api("POST", "apps", {"id": "app-1", "label": "One"})

    assert 200 == made.status
    log = application.state.context.stores.audit_log
    (entry,) = [one.entry for one in log.list(Wanted(), limit=10) if one.entry.noun == "app"]
    assert ("admin", "admin", "127.0.0.1") == (entry.who, entry.role, entry.address)


@pytest.mark.parametrize("key", ["", "or_x", "another key"])
def test_another_key_is_refused(admin: Signer, key: str) -> None:
    answer = replace(admin, key=key).api("GET", "apps")

    assert 401 == answer.status
    assert "Hawk" == answer.headers["www-authenticate"]
    assert b'{"error":{"code":401,"message":"invalid Hawk signature' == answer.body[:54]


def test_the_token_is_no_hawk_key_and_who_has_none_is_refused(admin: Signer, store: Store) -> None:
    made = store.users.create("bob", "operator")

    answers = [replace(admin, user="bob", key=key).api("GET", "apps") for key in (made.token, "", "no key")]

    assert [401] * 3 == [answer.status for answer in answers]


def test_a_new_token_without_hawk_ends_the_hawk_key(admin: Signer, store: Store) -> None:
    key = store.users.create("bob", "operator", hawk=True).hawk_key
    bob = replace(admin, user="bob", key=key)
    eventually(lambda: bob.api("GET", "apps").status == 200)

    store.users.create("bob")

    eventually(lambda: bob.api("GET", "apps").status == 401)


@pytest.mark.parametrize(("off_s", "status"), [(-61, 401), (-60, 200), (60, 200), (61, 401)])
def test_a_minute_either_way_counts(admin: Signer, off_s: int, status: int) -> None:
    answer = replace(admin, at=admin.at + off_s).api("GET", "apps")

    assert status == answer.status
    if status == 401:
        assert "Stale timestamp" in answer.headers["www-authenticate"]
        assert b"61 s" in answer.body


def test_a_nonce_counts_once_also_at_another_process(
    admin: Signer, application: FastAPI, etcd: FakeEtcd, clock: WallClock, tmp_path: Path
) -> None:
    other = application_over(etcd.client("other"), tmp_path / "other", coreupdate_api=True, now=clock)
    signed = {"authorization": sign("admin", admin.key, "GET", APPS, at=admin.at, nonce="once"), "host": HOST}

    first = ask(over_network(application), "GET", APPS, b"", **signed)
    repeats = [ask(over_network(one), "GET", APPS, b"", **signed) for one in (application, other)]

    assert [200, 401, 401] == [one.status for one in (first, *repeats)]
    assert all(b"the request is a repeat" in one.body for one in repeats)


def test_a_nonce_is_forgotten_when_its_time_counts_no_more(admin: Signer, etcd: FakeEtcd, store: Store) -> None:
    prefix = f"{store.context.keys.prefix}/hawk-nonces/"
    assert 200 == admin.api("GET", "apps").status
    assert 1 == len(store.context.cluster.list(prefix).entries)

    etcd.clock.advance(NONCE_TTL_S + 1)
    etcd.expire()

    assert () == tuple(store.context.cluster.list(prefix).entries)


def test_a_refused_signature_uses_no_nonce_up(admin: Signer, store: Store) -> None:
    replace(admin, key="another").api("GET", "apps")
    replace(admin, at=admin.at - 100).api("GET", "apps")

    assert () == tuple(store.context.cluster.list(f"{store.context.keys.prefix}/hawk-nonces/").entries)


def test_over_plain_http_it_is_for_this_machine_alone(admin: Signer, application: FastAPI) -> None:
    afar = replace(admin, application=over_network(application, address="10.0.0.7"))
    proxied = {"x_forwarded_for": "10.0.0.7"}

    assert 403 == afar.api("GET", "apps").status
    assert b"Hawk doesn't sign what a request carries" in afar.api("GET", "apps").body
    assert 403 == admin.call("GET", APPS, **proxied).status
    https = over_network(application, address="10.0.0.7", scheme="https")
    assert 200 == replace(admin, application=https).api("GET", "apps").status


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("viewer", [200, 403, 403, 403, 403]), ("operator", [200, 200, 403, 403, 403]), ("admin", [200] * 5)],
)
def test_roles_are_those_of_the_api(admin: Signer, store: Store, role: str, allowed: list[int]) -> None:
    make_app(store)
    store.apps.create(app="unused")
    key = store.users.create("bob", role, hawk=True).hawk_key  # type: ignore[arg-type]
    bob = replace(admin, user="bob", key=key)
    eventually(lambda: bob.api("GET", "apps").status == 200)

    answers = [
        bob.api("GET", f"apps/{APP}/groups"),
        bob.api("POST", f"apps/{APP}/groups/beta", {"updatePercent": 25}),
        bob.api("GET", "admin/user"),
        bob.api("DELETE", "apps/unused"),
        bob.call("GET", "/db/backup"),
    ]

    assert allowed == [answer.status for answer in answers]


def test_a_role_for_some_apps_reaches_no_others(admin: Signer, store: Store) -> None:
    make_app(store)
    store.apps.create(app="mine")
    key = store.users.create("bob", "operator", ["mine"], hawk=True).hawk_key
    bob = replace(admin, user="bob", key=key)
    eventually(lambda: bob.api("GET", "apps").status == 200)
    create = {"appId": APP, "label": "new"}

    refused = [
        bob.api("GET", f"apps/{APP}/channels"),
        bob.api("POST", "apps/new/channels", create),
        bob.api("POST", "apps", {"id": "more"}),
        bob.api("GET", f"clientupdates?appId={APP}"),
    ]

    assert [403] * 4 == [answer.status for answer in refused]
    assert b'"mine"' in bob.api("GET", "apps").body
    assert APP.encode() not in bob.api("GET", "apps").body
    assert 200 == bob.api("POST", "apps/new/channels", create | {"appId": "mine"}).status
    assert b'{"items":[]}' == bob.api("GET", "clientupdates").body


def test_before_the_first_user_the_network_is_refused_as_everywhere(application: FastAPI) -> None:
    answer = ask(over_network(application), "GET", APPS, host=HOST)

    assert 401 == answer.status
    assert b"there are no users yet" in answer.body


def test_it_is_off_unless_it_is_asked_for(etcd: FakeEtcd, store: Store, clock: WallClock, tmp_path: Path) -> None:
    store.users.begin("admin")
    key = store.users.create("admin", hawk=True).hawk_key
    off = over_network(application_over(etcd.client("off"), tmp_path / "off", now=clock))
    signer = Signer(application=off, user="admin", key=key, at=int(clock().timestamp()))

    for target in (APPS, "/package-upload", "/db/backup", "/admin/v1/init"):
        answer = signer.call("GET", target)
        assert (404, True) == (answer.status, b"--coreupdate-api" in answer.body)


def test_the_database_says_ok_to_this_machine_until_there_is_a_user(application: FastAPI, store: Store) -> None:
    near, afar = over_network(application), over_network(application, address="10.0.0.7")

    assert (200, b"ok") == ((found := ask(near, "GET", "/admin/v1/init")).status, found.body)
    assert 403 == ask(afar, "GET", "/admin/v1/init").status
    store.users.begin("ann")
    eventually(lambda: ask(near, "GET", "/admin/v1/init").status == 409)


def test_no_key_is_in_the_audit_log_or_a_list_of_users(admin: Signer, application: FastAPI, store: Store) -> None:
    made = admin.api("POST", "admin/user", {"userName": "u@x"})

    assert b'"token":"orh_' in made.body
    entries = application.state.context.stores.audit_log.list(Wanted(), limit=50)
    assert any(one.entry.noun == "user" for one in entries)
    assert "orh_" not in str(entries)
    assert b'{"users":[{"user":"admin"},{"user":"u@x"}]}' == admin.api("GET", "admin/user").body
