"""Every change of an operator's has a principal, and an audit entry: over all operations that the API describes."""

import getpass
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from fastapi import FastAPI
from loguru import logger

from outrider.core.omaha import AppRequest, OmahaRequest
from outrider.model.documents import Instance, Served, encode
from outrider.model.identity import StoredToken
from outrider.model.oldest import Oldest
from outrider.service.api.auth import API, OPEN, READING, AuthMiddleware
from outrider.service.rollouts.checkins import CHECK_IN, Caller, Checkins
from outrider.service.store.audit import AuditEntry, AuditLog, Wanted
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import application_over, ask
from tests.support.service_examples import APP, be_alive, block, lost_task, make_app, payload_of, put
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON
from tests.trust.envelopes import envelope_for, key_list_of

SOURCE = Path(__file__).parents[3] / "src" / "outrider"
OF_APP = "/api/v1/apps/{app}"
OF_GROUP = "/api/v1/apps/{app}/groups/{group}"
OF_CHANNEL = "/api/v1/apps/{app}/channels/{channel}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One writing operation, with names and a body with which it changes something.

    Attributes:
        noun: Of the audit entry that it leaves.
    """

    operation: str
    noun: str
    body: object = None
    names: dict[str, str] = field(default_factory=dict)


WRITES = (
    Write(operation="POST /api/v1/apps", noun="app", body={"id": "new"}),
    Write(operation=f"PUT {OF_APP}", noun="app", body={"label": "other"}),
    Write(operation=f"DELETE {OF_APP}", noun="app", names={"app": "unused"}),
    Write(operation=f"POST {OF_APP}/channels", noun="channel", body={"name": "new"}),
    Write(operation=f"PUT {OF_CHANNEL}", noun="channel", body={"version": "2.0.0"}),
    Write(operation=f"DELETE {OF_CHANNEL}", noun="channel", names={"channel": "unused"}),
    Write(operation=f"PUT {OF_CHANNEL}/floors/{{version}}", noun="channel", body={"reason": "why"}),
    Write(operation=f"DELETE {OF_CHANNEL}/floors/{{version}}", noun="channel", names={"version": "1.0.5"}),
    Write(operation=f"PUT {OF_CHANNEL}/excluded/{{version}}", noun="channel", names={"version": "0.3.0"}),
    Write(operation=f"DELETE {OF_CHANNEL}/excluded/{{version}}", noun="channel", names={"version": "0.2.0"}),
    Write(operation=f"POST {OF_APP}/groups", noun="group", body={"id": "new", "channel": "beta"}),
    Write(operation=f"PATCH {OF_GROUP}", noun="group", body={"slots": 2}),
    Write(operation=f"DELETE {OF_GROUP}", noun="group", names={"group": "unused"}),
    Write(operation=f"PUT {OF_GROUP}/policy", noun="group", body={"canary": 1}),
    Write(operation=f"PATCH {OF_GROUP}/environment", noun="environment", body={"variables": {"LOG_LEVEL": "debug"}}),
    Write(operation=f"POST {OF_GROUP}/rollout/restart", noun="group", body={"why": "a new password"}),
    Write(operation=f"POST {OF_GROUP}/rollout/pause", noun="rollout", body={"why": "lunch"}),
    Write(operation=f"POST {OF_GROUP}/rollout/halt", noun="rollout", body={}),
    Write(operation=f"POST {OF_GROUP}/rollout/resume", noun="rollout", body={}),
    Write(operation=f"POST {OF_GROUP}/rollout/reject", noun="rollout", body={"why": "not yet"}),
    Write(operation=f"POST {OF_GROUP}/rollout/approve", noun="rollout", body={"why": "seen on staging"}),
    Write(operation=f"POST {OF_GROUP}/rollout/override", noun="rollout", body={"why": "it is exploited"}),
    Write(operation=f"POST {OF_GROUP}/rollout/undo", noun="rollout", body={"why": "it fails"}, names={"group": "back"}),
    Write(operation=f"POST {OF_GROUP}/rollout/follow", noun="group", body={}, names={"group": "back"}),
    Write(operation=f"POST {OF_APP}/packages", noun="package", body={"version": "3.0.0", "image": "web:3.0.0"}),
    Write(
        operation=f"POST {OF_APP}/packages/{{version}}/resolve",
        noun="package",
        body={"digest": f"sha256:{'d' * 64}"},
        names={"version": "3.0.0"},
    ),
    Write(
        operation=f"POST {OF_APP}/packages/{{version}}/signatures",
        noun="signature",
        body={"envelope": envelope_for("1.0.0")},
        names={"version": "1.0.0"},
    ),
    Write(operation=f"POST {OF_APP}/key-lists", noun="key list", body={"envelope": key_list_of(APP)}),
    Write(operation=f"DELETE {OF_APP}/key-lists", noun="key list"),
    Write(operation=f"POST {OF_APP}/client-tokens", noun="client token", body={"group": "beta"}),
    Write(operation=f"DELETE {OF_APP}/client-tokens/{{token}}", noun="client token", names={"token": "a" * 12}),
    Write(operation=f"DELETE {OF_APP}/packages/{{version}}", noun="package", names={"version": "0.1.0"}),
    Write(operation=f"DELETE {OF_APP}/instances/{{instance}}", noun="instance", names={"instance": "gone"}),
    Write(operation=f"POST {OF_APP}/instances/{{instance}}/admit", noun="removal", names={"instance": "gone"}),
    Write(operation=f"POST {OF_APP}/instances/{{instance}}/command", noun="command", body={"verb": "retry"}),
    Write(operation=f"DELETE {OF_APP}/blocks/{{version}}", noun="release", names={"version": "9.0.0"}),
    *(
        Write(
            operation=f"POST {OF_GROUP}/tasks/{{version}}/{{task}}/{verb}",
            noun="task",
            body={"why": "looked at it"},
            names={"task": verb},
        )
        for verb in ("done", "failed", "retry")
    ),
    Write(operation=f"POST {OF_GROUP}/oldest-version/lift", noun="oldest version"),
    Write(operation="POST /api/v1/payloads", noun="payload", body="a file"),
    Write(operation="POST /api/v1/webhooks", noun="webhook", body={"name": "ops", "url": "https://example.org/x"}),
    Write(operation="PUT /api/v1/webhooks/{name}", noun="webhook", body={"least": "warning"}, names={"name": "ops"}),
    Write(operation="DELETE /api/v1/webhooks/{name}", noun="webhook", names={"name": "ops"}),
    Write(operation="POST /api/v1/page-links", noun="page link", body={}),
    # The users come last: from the first one on, a request needs a token.
    Write(operation="POST /api/v1/users", noun="user", body={"name": "ann", "role": "admin"}),
    Write(operation="DELETE /api/v1/users/{name}", noun="user", names={"name": "bob"}),
)
JSON = {"content_type": "application/json"}
NAMES = {"app": APP, "channel": "beta", "group": "beta", "version": "1.0.0", "instance": "web-1", "name": "ann"}


def writing_operations(application: FastAPI) -> set[str]:
    """Every operation of the API that may change something, as the OpenAPI document names it."""
    return {
        f"{method.upper()} {path}"
        for path, methods in application.openapi()["paths"].items()
        for method in methods
        if path.startswith(API) and method.upper() not in READING
    }


def path_of(write: Write) -> str:
    names = NAMES | write.names
    return re.sub(r"\{(\w+)\}", lambda name: names[name.group(1)], write.operation.partition(" ")[2])


def body_of(write: Write) -> bytes:
    return b"" if write.body is None else json.dumps(write.body).encode()


@pytest.fixture
def application(client: FakeCluster, tmp_path: Path, store: Store) -> FastAPI:
    """The application over something of everything."""
    make_app(store, versions=("1.0.0", "2.0.0"))
    store.packages.create(APP, "0.1.0", payload_of("0.1.0"))
    store.packages.create(APP, "1.0.5", payload_of("1.0.5"))
    store.floors.set(APP, "beta", "1.0.5")
    store.floors.exclude(APP, "beta", "0.2.0")
    store.channels.create(APP, "unused")
    store.groups.create(APP, "unused", channel="beta")
    store.groups.create(APP, "back", channel="beta")
    put(client, store.context.keys.served(APP, "back"), encode(Served(versions=("0.1.0", "1.0.0"))))
    store.apps.create(app="unused")
    be_alive(store, "web-1", NOON)
    block(store, "9.0.0", "it crashed", NOON)
    for name in ("done", "failed", "retry"):
        put(client, store.context.keys.task(APP, "beta", "1" * 64, name), encode(lost_task(name, NOON)))
    oldest = Oldest(app=APP, group="beta", version="0.0.1", task="drop", instance="web-1", since=NOON)
    put(client, store.context.keys.oldest(APP, "beta"), encode(oldest))
    row = Instance(app=APP, id="gone", group="beta", version="1.0.0", first_seen=NOON, last_seen=NOON)
    put(client, store.context.keys.instance(APP, "gone"), encode(row))
    token = StoredToken(app=APP, id="a" * 12, group="beta", token_sha256="1" * 64, token_end="x7Qa", created=NOON)
    put(client, store.context.keys.client_token(APP, token.id), encode(token))
    return application_over(client, tmp_path)


def is_known(application: FastAPI, headers: dict[str, str]) -> bool:
    """Whether the service's watch has seen the user of this token."""
    return ask(application, "GET", "/api/v1/whoami", b"", **headers).status == 200


def entries_of(store: Store, request_id: str) -> list[AuditEntry]:
    log = AuditLog(context=store.context)
    return [one.entry for one in log.list(Wanted(), limit=1000) if one.entry.request_id == request_id]


def test_every_write_of_the_api_is_driven_here(application: FastAPI) -> None:
    assert writing_operations(application) == {write.operation for write in WRITES}


def test_every_write_of_the_api_leaves_its_audit_entry(application: FastAPI, store: Store) -> None:
    headers: dict[str, str] = {}
    for number, write in enumerate(WRITES):
        if write.operation.startswith("DELETE /api/v1/users"):
            store.users.create("bob")
            headers = {"authorization": f"Bearer {store.users.create('root', 'admin').token}"}
            eventually(partial(is_known, application, headers), within_s=30)
        method, path = write.operation.partition(" ")[0], path_of(write)

        answer = ask(application, method, path, body_of(write), **headers, **JSON, x_request_id=f"request-{number}")

        assert 200 <= answer.status < 300, (write.operation, answer.status, answer.body)
        entries = entries_of(store, f"request-{number}")
        assert write.noun in {entry.noun for entry in entries}, write.operation
        assert {f"{method} {path}"} == {entry.did for entry in entries}
        assert {"root" if headers else f"({getpass.getuser()})"} == {entry.who for entry in entries}


def test_an_upload_of_the_same_file_is_recorded_each_time(application: FastAPI, store: Store) -> None:
    for request_id in ("first", "second"):
        assert 201 == ask(application, "POST", "/api/v1/payloads", b"a file", x_request_id=request_id).status

    assert [1, 1] == [len(entries_of(store, request_id)) for request_id in ("first", "second")]


@pytest.fixture
def unguarded(application: FastAPI) -> FastAPI:
    """The application without the auth middleware: what a mistake in its assembly would make of it."""
    application.user_middleware = [one for one in application.user_middleware if AuthMiddleware is not one.cls]  # type: ignore[comparison-overlap]
    return application


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.operation)
def test_without_a_principal_nothing_is_written(unguarded: FastAPI, fake_etcd: FakeEtcd, write: Write) -> None:
    before = dict(fake_etcd.entries)

    answer = ask(unguarded, write.operation.partition(" ")[0], path_of(write), body_of(write), **JSON)

    assert 401 == answer.status, answer.body
    assert before == fake_etcd.entries


def test_without_a_principal_nothing_is_read(unguarded: FastAPI) -> None:
    paths = [
        path
        for path, methods in unguarded.openapi()["paths"].items()
        if path.startswith(API) and path not in OPEN and "get" in methods
    ]

    statuses = {path: ask(unguarded, "GET", re.sub(r"\{\w+\}", "x", path)).status for path in paths}

    assert paths
    assert dict.fromkeys(paths, 401) == statuses


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What is logged, with its fields."""
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), level="DEBUG", format="{message} {extra}")
    yield lines
    logger.remove(number)


def test_a_check_in_is_unaudited_and_says_so(store: Store, log_lines: list[str]) -> None:
    make_app(store)
    log_lines.clear()
    app = AppRequest(app_id=APP, version="0.9.0", track="beta", machine_id="web-1", update_check=True)

    Checkins(context=store.context).answer(OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x"))

    assert "0.9.0" == store.fleet.instance(APP, "web-1").version
    assert () == AuditLog(context=store.context).list(Wanted(), limit=10)
    assert any(line.startswith("unaudited change") and CHECK_IN.reason in line for line in log_lines), log_lines


def test_what_may_write_unaudited_is_stated_here_one_by_one() -> None:
    """Another place needs a reason that its reviewers accept; nothing that an operator asks for has one."""
    reasons = {
        (path.relative_to(SOURCE).as_posix(), reason.partition(":")[0])
        for path in SOURCE.rglob("*.py")
        for reason in re.findall(r"[uU]naudited\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8"))
    }

    assert {
        ("service/rollouts/checkins.py", "check-in"),
        ("service/rollouts/wakeups.py", "rollout controller"),
        ("service/rollouts/controller.py", "the instance was decommissioned"),
        ("service/store/task_states.py", "rollout controller"),
        ("service/history/background.py", "webhook sender"),
        ("service/api/payloads.py", "download"),
        ("service/store/packages.py", "resolving an image"),
        ("service/store/finishing.py", "finished"),
        ("service/web/actions/policy.py", "page"),
        ("service/web/pages/packages.py", "a page reads"),
    } == reasons
