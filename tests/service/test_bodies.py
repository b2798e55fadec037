"""What the REST API refuses to take: each case here was once taken, or ended in a 500."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from outrider.service.store import Store
from tests.service.examples import APP, make_app
from tests.service.in_process import application_over, ask
from tests.sim.fake_etcd import FakeCluster

GROUP = f"/api/v1/apps/{APP}/groups/beta"


@pytest.fixture
def application(client: FakeCluster, store: Store, tmp_path: Path) -> FastAPI:
    make_app(store)
    return application_over(client, tmp_path)


def send(application: FastAPI, method: str, path: str, body: bytes) -> Any:
    return ask(application, method, path, body, content_type="application/json")


@pytest.mark.parametrize("body", [b'{"slots": true}', b'{"slots": "2"}', b'{"paused": "yes"}', b'{"paused": 1}'])
def test_what_only_looks_like_a_number_or_a_yes_is_refused(application: FastAPI, store: Store, body: bytes) -> None:
    answer = send(application, "PATCH", GROUP, body)

    assert (422, "application/problem+json") == (answer.status, answer.headers["content-type"])
    assert (1, False) == (store.groups.get(APP, "beta").slots, store.groups.get(APP, "beta").paused)
