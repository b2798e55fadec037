"""What the REST API refuses to take, and how: each case here was once taken, or ended in a 500."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from outrider.model.activity import Activity, activity_key
from outrider.model.documents import encode
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import application_over, ask
from tests.support.service import NOON
from tests.support.service_examples import APP, SHA256, make_app, put

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


HALF = b'"\\ud800"'


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/apps", b'{"id": "web", "label": ' + HALF + b"}"),
        ("PUT", f"/api/v1/apps/{APP}", b'{"description": ' + HALF + b"}"),
        ("POST", f"/api/v1/apps/{APP}/instances/web-1/command", b'{"verb": "retry", "by": ' + HALF + b"}"),
        ("POST", "/api/v1/webhooks", b'{"name": "ops", "url": "http://x/\\udfff"}'),
    ],
)
def test_half_a_character_is_refused(application: FastAPI, method: str, path: str, body: bytes) -> None:
    answer = send(application, method, path, body)

    assert (422, "application/problem+json") == (answer.status, answer.headers["content-type"])
    assert json.loads(answer.body)["detail"].startswith("body.")


def test_a_whole_character_may_be_spelled_in_halves(application: FastAPI, store: Store) -> None:
    answer = send(application, "PATCH", GROUP, rb'{"label": "\ud83d\ude80"}')

    assert (200, "\N{ROCKET}") == (answer.status, store.groups.get(APP, "beta").label)


BAD_ADDRESSES = [
    "http://[::1/y",
    "http://\N{ACCOUNT OF}.example/y",
    "http://x:99999/y",
    "http://x:0/y",
    "http://x/\ny",
    "http://x/" + "y" * 3000,
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_an_address_that_is_none_is_refused(application: FastAPI, url: str) -> None:
    package = {"version": "3.0.0", "url": url, "size_bytes": 1, "sha256": SHA256}
    asked = {f"/api/v1/apps/{APP}/packages": package, "/api/v1/webhooks": {"name": "ops", "url": url}}

    answers = [send(application, "POST", path, json.dumps(body).encode()) for path, body in asked.items()]

    assert [400, 400] == [answer.status for answer in answers]
    assert all(len(answer.body) < 3000 for answer in answers)


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00"])
@pytest.mark.parametrize("path", ["/audit?", "/activity?", f"/apps/{APP}/instances?seen_"])
def test_a_time_that_no_calendar_has_in_utc_is_refused(application: FastAPI, path: str, since: str) -> None:
    answer = ask(application, "GET", f"/api/v1{path}since={since}")

    assert 422 == answer.status


def test_everything_is_since_the_year_900(application: FastAPI) -> None:
    send(application, "PATCH", GROUP, b'{"slots": 2}')

    answer = ask(application, "GET", "/api/v1/audit?since=0900-01-01T00:00:00Z")

    assert 1 == len(json.loads(answer.body)["items"])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/apps", "GET, POST"),
        (f"/api/v1/apps/{APP}", "DELETE, GET, PUT"),
        (GROUP, "DELETE, GET, PATCH"),
        ("/api/v1/whoami", "GET"),
        ("/api/v1/payloads", "POST"),
        (f"/packages/{APP}/1.0.0/x", "GET, HEAD"),
        ("/v1/update", "POST"),
        ("/healthz", "GET"),
    ],
)
def test_who_uses_a_wrong_method_is_told_every_right_one(application: FastAPI, path: str, allowed: str) -> None:
    answer = ask(application, "OPTIONS", path)

    assert (405, allowed) == (answer.status, answer.headers["allow"])
    assert "application/problem+json" == answer.headers["content-type"]


def test_activity_comes_in_pages(application: FastAPI, store: Store) -> None:
    keys, cluster = store.context.keys, store.context.cluster
    for number in range(5):
        record = Activity(at=NOON, severity="info", kind="group-paused", app=f"app-{number % 2}", text=str(number))
        put(cluster, activity_key(keys, record, number), encode(record))

    texts, after = [], ""
    for _ in range(3):
        page = json.loads(ask(application, "GET", f"/api/v1/activity?limit=2{after}").body)
        texts.append([one["text"] for one in page["items"]])
        after = f"&after={page['next']}"

    assert [["4", "3"], ["2", "1"], ["0"]] == texts
    assert page["next"] is None
