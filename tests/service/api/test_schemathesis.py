"""schemathesis asks the real service whatever its OpenAPI document allows, and what it forbids.

Never a 5xx, and every answer is one that the document describes. Each operation gets a service of its own with
something of everything in it, so what one finds doesn't hang on what another did. The seed is fixed.
The short form asks as an admin, each operation with its example, and each sixth one with one request per way of asking.
The long form asks as everybody, with ``OUTRIDER_TEST_SCHEMATHESIS`` requests.
"""

import copy
import os
import uuid
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.openapi.checks import UndefinedStatusCode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from outrider.etcd.seam import Cluster
from outrider.model.documents import Gone, Instance, Role, Served, encode
from outrider.model.history import Chunk, Content, Step, pack, rollouts_in
from outrider.model.history import Group as HistoryGroup
from outrider.model.identity import StoredToken
from outrider.model.oldest import Oldest
from outrider.service.api.auth import API, OPEN, role_needed
from outrider.service.history.webhooks import Webhooks
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.store.environments import EnvironmentEdit
from outrider.service.store.packages import Payload
from outrider.service.store.users import ROLES, may
from tests.service.api.test_openapi import DOCUMENT
from tests.support.rings import mostly_long
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, LOOPBACK, be_alive, block, lost_task, make_app, payload_of, put
from tests.support.waiting import eventually
from tests.trust.envelopes import envelope_for, key_list_of

SHORT, REQUESTS = 1, int(os.environ.get("OUTRIDER_TEST_SCHEMATHESIS", "10"))
BLOCKED = "2.0.0"
STORED = "3.0.0"
TASK = "migrate"
TOKEN = "0123456789ab"
SIGNED: dict[str, Any] = {
    f"POST /api/v1/apps/{{app}}/{path}": {"body": {"envelope": envelope}, "media_type": "application/json"}
    for path, envelope in (
        ("packages/{version}/signatures", envelope_for("1.1.0")),
        ("key-lists", key_list_of(APP)),
    )
}
SIGNED["GET /api/v1/apps/{app}/status"] = {"query": {"at": "0m"}}
"""What the document can't show: a statement about what this service has."""
OMAHA = "POST /v1/update"
"""Its body is XML, which test_omaha_fuzz.py makes up."""
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [
    pytest.param(SCHEMA[path][method.upper()], id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
]
every_operation = pytest.mark.parametrize("operation", OPERATIONS)
bounded = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(slots=True, kw_only=True)
class Api:
    """The running service, somebody's token (empty for none), and the statuses that came back.

    Attributes:
        times: How often one operation is asked in one way.
    """

    url: str
    token: str
    times: int = SHORT
    checks: list[Any] = field(default_factory=lambda: CHECKS)
    statuses: list[int] = field(default_factory=list)

    def ask(self, case: Any) -> requests.Response:
        """Send one case and judge the answer."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = case.call(base_url=self.url, headers=authorization, timeout=60)
        case.validate_response(answer, checks=self.checks)
        self.statuses.append(answer.status_code)
        return answer  # type: ignore[no-any-return]

    def ask_many(self, operation: Any, known: dict[str, str] | None = None, **options: Any) -> None:
        """Ask one operation as often as ``times`` says; names in the path that are ``known`` are those."""

        @settings(bounded, max_examples=self.times)
        @given(case=operation.as_strategy(**options))
        def ask(case: Any) -> None:
            for name in set(case.path_parameters or ()) & set(known or {}):
                case.path_parameters[name] = (known or {})[name]
            self.ask(case)

        ask()


def known_names(operation: Any) -> dict[str, str]:
    """Names of what exists, for one operation's path; to be deleted, of what nothing uses."""
    path = operation.path
    names = {"app": APP, "channel": "beta", "group": "beta", "version": "1.1.0", "instance": "web-1", "name": "ann"}
    names |= {"number": "1", "token": TOKEN}
    if operation.method.upper() == "DELETE":
        names |= {"channel": "unused", "group": "unused", "version": "0.1.0", "instance": "gone"}
        if path.endswith("{app}"):
            names["app"] = "unused"
    if "/floors/" in path or "/excluded/" in path:
        names |= {"channel": "beta", "version": "0.2.0" if "/excluded/" in path else "1.0.5"}
    if path.endswith("/resolve"):
        names["version"] = "7.0.0"
    if path.endswith("/admit"):
        names["instance"] = "removed"
    if path.endswith("/follow"):
        names["group"] = "pinned"
    if "/webhooks/" in path:
        names["name"] = "pager"
    if "/blocks/" in path:
        names["version"] = BLOCKED
    if "/tasks/" in path:
        names |= {"version": "1.0.0", "task": TASK}
    if path.startswith("/packages/"):
        names |= {"version": STORED, "name": "web.tar"}
    return names


def example_of(operation: Any) -> dict[str, Any]:
    """The body that the document shows, as options of a case; empty when it takes none."""
    for content in operation.definition.raw.get("requestBody", {}).get("content", {}).values():
        if "$ref" in content.get("schema", {}):
            shown = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            fields = {name: one["examples"][0] for name, one in shown["properties"].items() if "examples" in one}
            return {"body": shown.get("examples", [fields])[0], "media_type": "application/json"}
    return {}


@pytest.fixture
def filled(service: Service, cluster: Cluster) -> Service:
    """The service over something of everything."""
    store = service.store
    make_app(store, versions=("1.1.0", "2.0.0"), version="1.1.0")
    store.packages.create(APP, "0.1.0", payload_of("0.1.0"))
    be_alive(store, "web-1", NOON)
    block(store, BLOCKED, "it crashed", NOON)
    for instance in ("web-1", "gone"):
        row = Instance(app=APP, id=instance, group="beta", version="1.0.0", first_seen=NOON, last_seen=NOON)
        put(cluster, store.context.keys.instance(APP, instance), encode(row))
    oldest = Oldest(app=APP, group="beta", version="0.0.1", task="drop", instance="web-1", since=NOON)
    put(cluster, store.context.keys.oldest(APP, "beta"), encode(oldest))
    steps = (Step(revision=1, kind="target", version="1.1.0"), Step(revision=2, instance="web-1", state="idle"))
    content = Content(before=HistoryGroup(), steps=steps)
    told = Chunk(
        app=APP, group="beta", first=1, last=2, earliest=1, began=NOON, ended=NOON, steps=2, packed=pack(content),
        rollouts=rollouts_in(steps),
    )  # fmt: skip
    put(cluster, store.context.keys.history(APP, "beta") + "1", encode(told))
    gone = Gone(app=APP, group="beta", instance="removed", how="deleted", at=NOON)
    put(cluster, store.context.keys.gone(APP, "removed"), encode(gone))
    put(cluster, store.context.keys.task(APP, "beta", "1" * 64, TASK), encode(lost_task(TASK, NOON)))
    token = StoredToken(app=APP, id=TOKEN, group="beta", token_sha256="ab" * 32, token_end="wxyz", created=NOON)
    put(cluster, store.context.keys.client_token(APP, TOKEN), encode(token))
    store.apps.create(app="unused")
    store.groups.create(APP, "unused", channel="beta")
    store.channels.create(APP, "unused")
    store.packages.create(APP, "1.0.5", payload_of("1.0.5"))
    store.groups.create(APP, "pinned", channel="beta")
    for group in ("beta", "pinned"):
        put(cluster, store.context.keys.served(APP, group), encode(Served(versions=("1.0.5", "1.1.0"))))
    store.rollouts.undo(APP, "pinned", why="it fails", by="ann")
    store.environments.change(APP, "beta", EnvironmentEdit(variables={"LOG": "info"}))
    store.floors.set(APP, "beta", "1.0.5")
    store.floors.exclude(APP, "beta", "0.2.0")
    with PayloadFolder(folder=service.payload_dir).receive() as arriving:
        arriving.write(b"a payload")
        stored = arriving.finish()
    payload = Payload(size_bytes=stored.size_bytes, sha256=stored.sha256, name="web.tar")
    store.packages.create(APP, STORED, payload)
    image = Payload(size_bytes=9, sha256="ab" * 32, name="image.json", image="coreos/example:7.0.0", unresolved="away")
    store.packages.create(APP, "7.0.0", image)
    Webhooks(context=store.context, auditing=store.auditing, destinations=LOOPBACK).create(
        "pager", "http://127.0.0.1:9/pager"
    )
    return service


def token_of(service: Service, role: Role) -> str:
    """The token of a new user whom no generated request names by chance; the service knows it."""
    if not service.store.users.list():
        service.store.users.begin(f"root-{uuid.uuid4().hex}")
        service.store.users.create("ann")
    token = service.store.users.create(f"{role}-{uuid.uuid4().hex}", role).token
    bearer = {"Authorization": f"Bearer {token}"}
    eventually(lambda: requests.get(f"{service.url}/api/v1/whoami", headers=bearer, timeout=60).ok)
    return token


ABSENT_HERE = {("GET /api/v1/identity-provider", 404)}
"""What the service under test has none of, and says so: tests/service/api/test_identity_provider.py has the rest."""

ASKING = (("admin", SHORT), ("admin", REQUESTS), ("nobody yet", REQUESTS))


@pytest.fixture(params=mostly_long(ASKING, short=ASKING[0].__eq__), ids=lambda asking: f"{asking[0]}-{asking[1]}")
def api(request: pytest.FixtureRequest, filled: Service) -> Api:
    """The service as an admin has it, and as everybody on its machine has it before there are users."""
    who, number = request.param
    return Api(url=filled.url, token=token_of(filled, "admin") if who == "admin" else "", times=number)


@every_operation
def test_every_answer_is_described(api: Api, operation: Any) -> None:
    """
    1. the document's own example works, where there is one
    2. names of what exists, with anything that the document allows
    3. names that are made up
    4. what the document forbids is refused

    The short form does 2 to 4 for each sixth operation.
    """
    if not api.token and "/users" in operation.path:
        pytest.skip("the first user ends the state that there is none; test_users.py has that")
    known = known_names(operation)
    if operation.label != OMAHA:
        example = SIGNED.get(operation.label) or example_of(operation)
        if operation.label == "POST /api/v1/payloads":
            example = {"body": b"a file", "media_type": "application/octet-stream"}
        path_parameters = {name: known[name] for name in _names(operation.path)}
        status = api.ask(operation.Case(path_parameters=path_parameters, **example)).status_code
        assert status < 300 or (operation.label, status) in ABSENT_HERE

    if api.times == SHORT and zlib.crc32(operation.label.encode()) % 6:
        return  # the long form asks each operation in each way
    api.ask_many(operation, known)
    api.ask_many(operation)
    assert {401, 403}.isdisjoint(api.statuses)

    if any(one.media_type == "application/json" for one in operation.body):
        api.checks = [*CHECKS, negative_data_rejection]
        api.ask_many(operation, known, generation_mode=schemathesis.GenerationMode.NEGATIVE)


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


@pytest.mark.long
def test_a_role_may_do_what_the_document_says_and_strangers_nothing(filled: Service) -> None:
    """All operations with all roles over HTTP; ``test_auth.py`` has strangers and roles in its short form."""
    asking = {role: Api(url=filled.url, token=token_of(filled, role)) for role in ROLES}
    strangers = {token: Api(url=filled.url, token=token) for token in ("", "or_nobodys")}

    for operation in SCHEMA.get_all_operations():
        case = operation.ok().Case(path_parameters=dict.fromkeys(_names(operation.ok().path), "absent"))
        path, method = case.operation.path, case.operation.method.upper()
        behind_the_middleware = path.startswith(API) and path not in OPEN
        refused = {role for role in ROLES if behind_the_middleware and not may(role, role_needed(method, path))}

        assert refused == {role for role, api in asking.items() if api.ask(case).status_code == 403}, path
        assert {behind_the_middleware} == {api.ask(case).status_code == 401 for api in strangers.values()}, path


def test_a_check_that_fails_is_seen(filled: Service) -> None:
    """The checks above can fail: an answer that the document doesn't describe is refused by them."""
    document = copy.deepcopy(DOCUMENT)
    del document["paths"]["/api/v1/apps/{app}"]["get"]["responses"]["404"]
    operation = schemathesis.openapi.from_dict(document)["/api/v1/apps/{app}"]["GET"]

    with pytest.RaisesGroup(UndefinedStatusCode):
        Api(url=filled.url, token="").ask(operation.Case(path_parameters={"app": "absent"}))
