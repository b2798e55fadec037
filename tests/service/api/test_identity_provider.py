"""Requests with tokens of an identity provider: who is let in, as whom, and as far as which role."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from outrider.etcd.seam import DeletePrefix
from outrider.service.store.store import Store
from tests.oidc.issuer import Issuer
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import RunningServer
from tests.support.service_examples import make_app
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def running(client: FakeCluster, store: Store, issuer: Issuer, tmp_path: Path) -> Iterator[RunningServer]:
    make_app(store)
    options: dict[str, Any] = {"open_to_all": False, "tokens": issuer.tokens()}
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", **options) as found:
        yield found


def ask(running: RunningServer, method: str, path: str, token: str = "", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
    return requests.request(method, f"{running.url}/api/v1/{path}", headers=headers, timeout=30, **options)


def test_a_token_of_the_provider_lets_in_where_there_are_no_users_yet(running: RunningServer, issuer: Issuer) -> None:
    answer = ask(running, "GET", "whoami", issuer.token())

    assert {"name": "oidc:u-1", "role": "viewer", "apps": []} == answer.json()
    assert 401 == ask(running, "GET", "whoami").status_code, "and nobody else"


def test_roles_and_apps_are_those_of_the_rules(running: RunningServer, issuer: Issuer) -> None:
    viewer, admin, limited = (issuer.token(groups=[group]) for group in ("staff", "sre", "shop-devs"))

    assert 403 == ask(running, "POST", "apps", viewer, json={"id": "new"}).status_code
    assert 201 == ask(running, "POST", "apps", admin, json={"id": "shop"}).status_code
    assert 200 == ask(running, "GET", "users", admin).status_code
    assert 403 == ask(running, "GET", "users", limited).status_code
    assert 200 == ask(running, "GET", "apps/shop", limited).status_code
    assert 403 == ask(running, "GET", "apps/web", limited).status_code
    assert ["shop"] == [app["id"] for app in ask(running, "GET", "apps", limited).json()["items"]]


def test_who_has_no_role_is_known_and_not_let_in(running: RunningServer, issuer: Issuer) -> None:
    answer = ask(running, "GET", "whoami", issuer.token(groups=[]))

    assert 403 == answer.status_code
    assert "oidc:u-1 has no role here" in answer.json()["detail"]


def test_the_audit_log_has_the_name(running: RunningServer, issuer: Issuer) -> None:
    admin = issuer.token(groups=["sre"])
    ask(running, "POST", "apps", admin, json={"id": "new"})

    (entry,) = ask(running, "GET", "audit?name=new", admin).json()["items"]
    assert ("oidc:u-1", "admin", "create") == (entry["who"], entry["role"], entry["verb"])


def test_users_that_were_wiped_out_do_not_keep_the_provider_s_out(
    running: RunningServer, issuer: Issuer, store: Store, client: FakeCluster
) -> None:
    token = store.users.begin("ann").token
    eventually(lambda: ask(running, "GET", "whoami", token).status_code == 200)
    client.txn((), (DeletePrefix(prefix=store.context.keys.users()),))

    eventually(lambda: ask(running, "GET", "whoami", token).status_code == 403)
    assert 200 == ask(running, "GET", "whoami", issuer.token()).status_code


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_a_name_that_was_made_to_lead_here_is_refused_with_a_good_token(
    running: RunningServer, issuer: Issuer, host: str
) -> None:
    assert 421 == ask(running, "GET", "whoami", issuer.token(), headers={"Host": host}).status_code


def test_a_provider_that_gives_no_answer_lets_nobody_in(client: FakeCluster, tmp_path: Path) -> None:
    away = Issuer(away=True)
    options: dict[str, Any] = {"open_to_all": False, "tokens": away.tokens()}
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", **options) as running:
        answer = ask(running, "GET", "whoami", away.token(groups=["sre"]))

    assert 503 == answer.status_code
    assert "gives no answer" in answer.json()["detail"]


def test_without_a_provider_such_a_token_is_an_invalid_one(client: FakeCluster, store: Store, tmp_path: Path) -> None:
    store.users.begin("ann")
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1", open_to_all=False) as running:
        answer = ask(running, "GET", "whoami", Issuer().token(groups=["sre"]))
        unknown = ask(running, "GET", "identity-provider")

    assert (401, "invalid or revoked token") == (answer.status_code, answer.json()["detail"])
    assert 404 == unknown.status_code


def test_where_to_log_in_is_told_to_everybody_and_a_link_to_nobody_of_the_provider_s(
    running: RunningServer, issuer: Issuer
) -> None:
    found = requests.get(f"{running.url}/api/v1/identity-provider", timeout=30).json()

    assert {"issuer": issuer.metadata["issuer"], "client_id": "outrider-cli", "scopes": []} == found
    assert 403 == ask(running, "POST", "page-links", issuer.token()).status_code
