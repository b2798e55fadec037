"""Who may use the API: real service, real etcd, real tokens."""

import base64
import re

import pytest
import requests
from fastapi import FastAPI

from outrider.model.documents import Role
from outrider.service.api.auth import OPEN, role_needed
from outrider.service.application import create_application
from outrider.service.payloads.folder import PayloadFolder
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, block, make_app
from tests.support.waiting import eventually

ROLES: tuple[Role, ...] = ("viewer", "approver", "operator", "admin")


@pytest.fixture
def tokens(service: Service) -> dict[str, str]:
    """A user of every role, and the token of each."""
    made = {"admin": service.store.users.begin("the-admin").token}
    made |= {role: service.store.users.create(f"the-{role}", role).token for role in ROLES if role != "admin"}
    eventually(lambda: all(ask(service, "GET", "/whoami", token=token).ok for token in made.values()))
    return made


def ask(
    service: Service, method: str, path: str, body: object = None, *, token: str | None = None
) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.request(method, f"{service.url}/api/v1{path}", json=body, headers=headers, timeout=60)


def operations(application: FastAPI) -> list[tuple[str, str]]:
    """Every method and path of the API, with some name in place of every parameter."""
    paths = application.openapi()["paths"]
    return [
        (method.upper(), re.sub(r"\{[a-z]+\}", "x", path))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/api/") and path not in OPEN
    ]


def test_no_operation_of_the_api_is_open(service: Service, tokens: dict[str, str], client: FakeCluster) -> None:
    every = operations(create_application(client, PayloadFolder(folder=service.payload_dir)))
    assert len(every) > 30

    answers = {
        (method, path): requests.request(method, service.url + path, json={}, timeout=60).status_code
        for method, path in every
    }

    assert dict.fromkeys(every, 401) == answers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer or_nobodys"},
        {"Authorization": "Hawk id=ann"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
        {"Authorization": "Bearer \xff"},
    ],
)
def test_who_shows_no_good_token_is_told_how(service: Service, tokens: dict[str, str], headers: dict[str, str]) -> None:
    answer = requests.get(f"{service.url}/api/v1/apps", headers=headers, timeout=60)

    scheme = "Basic" if headers.get("Authorization", "").startswith("Basic") else "Bearer"
    assert (401, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert f'{scheme} realm="outrider"' == answer.headers["www-authenticate"]
    assert "unauthorized" == answer.json()["kind"]


def test_updatectls_user_and_key_are_a_name_and_its_token(service: Service, tokens: dict[str, str]) -> None:
    def as_user(name: str, token: str) -> int:
        return requests.get(f"{service.url}/api/v1/whoami", auth=(name, token), timeout=60).status_code

    assert 200 == as_user("the-viewer", tokens["viewer"])
    assert 401 == as_user("the-admin", tokens["viewer"])
    assert 401 == as_user("the-viewer", "or_wrong")


@pytest.mark.parametrize(
    ("method", "path", "body", "needed"),
    [
        ("GET", "/apps", None, "viewer"),
        ("GET", f"/apps/{APP}/instances", None, "viewer"),
        ("POST", f"/apps/{APP}/groups/beta/rollout/approve", {}, "approver"),
        ("POST", f"/apps/{APP}/groups/beta/rollout/reject", {"why": "not yet"}, "approver"),
        ("POST", f"/apps/{APP}/groups/beta/rollout/pause", {}, "operator"),
        ("POST", f"/apps/{APP}/groups/beta/rollout/override", {"why": "x"}, "operator"),
        ("POST", "/apps", {"id": "other"}, "operator"),
        ("PUT", f"/apps/{APP}", {"label": "x"}, "operator"),
        ("PUT", f"/apps/{APP}/channels/beta", {"version": "2.0.0"}, "operator"),
        ("PATCH", f"/apps/{APP}/groups/beta", {"paused": True}, "operator"),
        ("POST", f"/apps/{APP}/packages", {"version": "9.0.0"}, "operator"),
        ("POST", f"/apps/{APP}/instances/web-1/command", {"verb": "pause"}, "operator"),
        ("DELETE", f"/apps/{APP}/blocks/2.0.0", None, "operator"),
        ("DELETE", f"/apps/{APP}/channels/beta", None, "operator"),
        ("POST", "/payloads", None, "operator"),
        ("DELETE", f"/apps/{APP}", None, "admin"),
        ("GET", "/users", None, "admin"),
        ("POST", "/users", {"name": "eve"}, "admin"),
        ("GET", "/users/the-viewer", None, "admin"),
        ("DELETE", "/users/the-viewer", None, "admin"),
    ],
)
def test_a_role_may_do_what_is_its_own_and_is_told_what_it_lacks(
    service: Service, tokens: dict[str, str], method: str, path: str, body: object, needed: Role
) -> None:
    make_app(service.store)
    block(service.store, "2.0.0", "it crashed", NOON)

    answers = {role: ask(service, method, path, body, token=tokens[role]) for role in ROLES}

    for role, answer in answers.items():
        if ROLES.index(role) >= ROLES.index(needed):
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert (403, "forbidden") == (answer.status_code, answer.json()["kind"])
            assert f"needs the role {needed}; the-{role} has the role {role}" in answer.json()["detail"]


def test_users_are_made_shown_and_removed_over_the_api(service: Service, tokens: dict[str, str]) -> None:
    def as_admin(method: str, path: str, body: object = None) -> requests.Response:
        return ask(service, method, path, body, token=tokens["admin"])

    made = as_admin("POST", "/users", {"name": "eve", "role": "viewer"})
    eventually(lambda: ask(service, "GET", "/whoami", token=made.json()["token"]).ok)
    rotated = as_admin("POST", "/users", {"name": "eve"})
    eventually(lambda: ask(service, "GET", "/whoami", token=made.json()["token"]).status_code == 401)
    shown = as_admin("GET", "/users")
    gone = as_admin("DELETE", "/users/eve")
    eventually(lambda: ask(service, "GET", "/whoami", token=rotated.json()["token"]).status_code == 401)

    assert (201, 200, 200) == (made.status_code, rotated.status_code, gone.status_code)
    assert "no-store" == made.headers["cache-control"]
    assert ["eve", "the-admin", "the-approver", "the-operator", "the-viewer"] == [
        one["name"] for one in shown.json()["items"]
    ]
    for secret in (made.json()["token"], rotated.json()["token"], "token_sha256"):
        assert secret not in shown.text + gone.text


@pytest.mark.parametrize("path", ["/v1/update", "/healthz", "/readyz", "/api/v1/openapi.json"])
def test_what_is_no_operators_business_needs_no_token(service: Service, tokens: dict[str, str], path: str) -> None:
    method = "POST" if path == "/v1/update" else "GET"

    assert requests.request(method, service.url + path, timeout=60).status_code in (200, 400)


def test_payloads_are_fetched_without_a_token(service: Service, tokens: dict[str, str]) -> None:
    make_app(service.store)
    bearer = {"Authorization": f"Bearer {tokens['operator']}"}
    stored = requests.post(f"{service.url}/api/v1/payloads", data=b"hello", headers=bearer, timeout=60).json()
    new = {"version": "3.0.0", "stored": stored["sha256"], "name": "web.tar"}
    package = ask(service, "POST", f"/apps/{APP}/packages", new, token=tokens["operator"]).json()

    assert b"hello" == requests.get(package["download_url"], timeout=60).content


@pytest.mark.parametrize("path", ["/api/v1/users", "/api/v1/users/", "/api/v1/users/x\ny", "/api/v1/database/backup"])
def test_admins_alone_reach_whatever_is_below_users_and_database(path: str) -> None:
    assert {"admin"} == {role_needed(method, path) for method in ("GET", "POST", "DELETE", "HEAD")}


def test_a_request_keeps_the_id_that_its_client_gave_it(service: Service) -> None:
    given = requests.get(f"{service.url}/api/v1/apps", headers={"X-Request-ID": "deploy-17"}, timeout=60)
    made_up = requests.get(f"{service.url}/api/v1/apps", headers={"X-Request-ID": "a b\tc"}, timeout=60)

    assert "deploy-17" == given.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made_up.headers["x-request-id"])
