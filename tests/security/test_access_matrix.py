"""Every operation of the service with every role: a new one without a row in ``access.txt`` fails.

A row is the lowest role that may do it; ``anybody`` needs no token. Each role includes those before it.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from outrider.service.api.auth import AccessRules, AuthMiddleware
from outrider.service.store.store import Store
from outrider.service.store.users import ROLES, KnownUsers
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import application_over, ask
from tests.support.waiting import eventually

ROWS: Mapping[str, str] = {
    operation: role
    for role, operation in (
        line.split(maxsplit=1) for line in (Path(__file__).parent / "access.txt").read_text().splitlines()
    )
}
LIMITED_MAY = {"GET /api/v1/apps", "GET /api/v1/whoami", "POST /api/v1/payloads", "POST /api/v1/page-links"}
"""Of what belongs to no app, what an operator of some apps may do (``test_roles_of_apps.py``)."""
LET_IN = 204


@pytest.fixture
def application(client: FakeCluster, tmp_path: Path) -> FastAPI:
    return application_over(client, tmp_path / "payloads")


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the application: whoever is let in sees that."""
    await send({"type": "http.response.start", "status": LET_IN, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def door(client: FakeCluster, store: Store) -> AuthMiddleware:
    """The auth middleware of a service with its defaults."""
    return AuthMiddleware(behind, KnownUsers(client, store.context.keys), store.context.keys, AccessRules())


@pytest.fixture
def tokens(store: Store, door: AuthMiddleware) -> dict[str, str]:
    """The token of a user of each role, of one who was removed, and of an operator of another app alone."""
    made = {"admin": store.users.begin("the-admin").token}
    made |= {role: store.users.create(f"the-{role}", role).token for role in ROLES if role != "admin"}
    made["limited"] = store.users.create("the-limited", "operator", ["shop"]).token
    made["removed"] = store.users.create("the-removed", "admin").token
    eventually(lambda: all(status(door, "GET /api/v1/whoami", token) == LET_IN for token in made.values()))
    store.users.delete("the-removed")
    eventually(lambda: status(door, "GET /api/v1/whoami", made["removed"]) == 401)
    return made


def operations(application: FastAPI) -> set[str]:
    """Method and path of all that the service answers."""
    paths = application.openapi()["paths"].items()
    return {f"{method.upper()} {path}" for path, methods in paths for method in methods}


def status(door: AuthMiddleware, operation: str, token: str | None) -> int:
    """The door's answer, for an app that only unlimited users may reach."""
    method, _, path = operation.partition(" ")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return ask(door, method, path.replace("{app}", "web"), b"", **headers).status


def test_every_operation_has_a_row_and_every_row_an_operation(application: FastAPI) -> None:
    assert operations(application) == set(ROWS), "write the lowest role of a new operation into access.txt"


def test_each_role_may_do_what_its_row_says_and_nothing_else(door: AuthMiddleware, tokens: dict[str, str]) -> None:
    wrong = []
    for operation, needed in ROWS.items():
        for who in ("nobody", "stranger", "removed", *ROLES, "limited"):
            token = "or_" + "x" * 43 if who == "stranger" else tokens.get(who)
            answer = status(door, operation, token)
            if needed == "anybody":
                expected = answer == LET_IN
            elif who in ("nobody", "stranger", "removed"):
                expected = answer == 401
            elif who == "limited":
                expected = answer == (LET_IN if operation in LIMITED_MAY else 403)
            else:
                may = ROLES.index(who) >= ROLES.index(needed)
                expected = answer == (LET_IN if may else 403)
            if not expected:
                wrong.append((operation, who, answer))

    assert [] == wrong
    assert {"anybody", *ROLES} == set(ROWS.values())


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"])
def test_omaha_has_one_verb_and_asks_nobody_for_a_token(application: FastAPI, verb: str) -> None:
    assert (400 if verb == "POST" else 405) == ask(application, verb, "/v1/update").status
