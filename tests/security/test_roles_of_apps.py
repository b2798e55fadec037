"""A role that holds for some apps alone reaches nothing else: no other app, and nothing that belongs to no app."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from outrider.core.errors import ConfigError, Forbidden
from outrider.model.documents import User
from outrider.service.api.app_limits import check_apps
from outrider.service.api.auth import OPEN
from outrider.service.store.store import Store
from tests.service.api.test_auth import operations
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import Answer, application_over, ask
from tests.support.service_examples import open_store
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

OPEN_TO_ALL = {
    ("GET", "/api/v1/whoami"),
    ("GET", "/api/v1/apps"),
    ("POST", "/api/v1/payloads"),
    ("POST", "/api/v1/page-links"),
}
WITH_PARAMETER = {
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/versions"),
    ("GET", "/api/v1/activity"),
    ("GET", "/api/v1/audit"),
}


@pytest.fixture
def store(client: FakeCluster) -> Store:
    return open_store(client)


@pytest.fixture
def application(client: FakeCluster, tmp_path: Path) -> FastAPI:
    return application_over(client, tmp_path / "payloads")


@pytest.fixture
def limited(store: Store, application: FastAPI) -> dict[str, str]:
    """The headers of an operator of the app ``web``."""
    for app in ("web", "shop"):
        store.apps.create(app=app)
    store.users.begin("root")
    headers = {"authorization": f"Bearer {store.users.create('ann', 'operator', ['WEB']).token}"}
    eventually(lambda: ask(application, "GET", "/api/v1/whoami", b"", **headers).status == 200)
    return headers


def test_every_operation_of_another_app_or_of_none_is_refused(application: FastAPI, limited: dict[str, str]) -> None:
    """``operations`` puts the app ``x`` into every path; a new operation that isn't refused stands in neither list."""
    every = [(method, path) for method, path in operations(application) if path not in OPEN]
    let_in = {
        (method, path)
        for method, path in every
        if ask(application, method, path, b"", **limited).status not in (401, 403)
    }

    assert OPEN_TO_ALL == let_in
    assert len(every) > 60


def test_the_own_app_is_reached(application: FastAPI, limited: dict[str, str]) -> None:
    def as_ann(method: str, path: str, body: bytes = b"") -> Answer:
        return ask(application, method, path, body, content_type="application/json", **limited)

    assert 200 == as_ann("PUT", "/api/v1/apps/web", b'{"label": "The web"}').status
    assert 201 == as_ann("POST", "/api/v1/apps/Web/groups", b'{"id": "beta", "channel": "stable"}').status
    assert b'"apps":["web"]' in as_ann("GET", "/api/v1/whoami").body
    listed = as_ann("GET", "/api/v1/apps").body
    assert (True, False) == (b'"web"' in listed, b'"shop"' in listed)
    for _, path in WITH_PARAMETER:
        assert [200, 403, 403, 403] == [
            as_ann("GET", f"{path}{query}").status
            for query in ("?app=web", "?app=shop", "?app=web&app=shop", "?app=shop&app=web")
        ]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/apps/shop",
        "/api/v1/apps//groups",
        "/api/v1/apps/",
        "/api/v1/apps/{web}x",
        "/api/v1/apps/we b",
        "/api/v1/apps/shop\n/web",
        "/api/v1/whoami/",
        "/api/v1/something-new",
        "/metrics",
    ],
)
def test_a_path_that_only_looks_like_the_own_app_is_not(path: str) -> None:
    ann = User(
        name="ann", role="operator", token_sha256="0" * 64, token_end="0000", apps=("web",), created=NOON,
        token_created=NOON,
    )  # fmt: skip

    with pytest.raises(Forbidden, match="holds for web alone"):
        check_apps(ann, "GET", path, b"")


def test_an_admin_is_never_limited_and_a_new_token_keeps_the_limit(store: Store) -> None:
    store.users.begin("root")
    store.users.create("ann", "operator", ["web", "web"])

    with pytest.raises(ConfigError, match="can't be limited to apps"):
        store.users.create("ann", "admin")
    with pytest.raises(ConfigError, match="can't be limited to apps"):
        store.users.create("eve", "admin", ["web"])
    assert ("web",) == store.users.create("ann").user.apps
    assert () == store.users.create("ann", apps=[]).user.apps
