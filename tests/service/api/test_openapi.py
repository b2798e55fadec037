"""The API's description of itself is complete: a client can be made with it, and a person can read it."""

from pathlib import Path
from typing import Any

import pytest

from outrider.service.api.auth import API, OPEN, READING
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import application_over

Json = dict[str, Any]
WITHOUT_A_TOKEN = {
    "/api/v1/identity-provider",
    "/v1/update",
    "/packages/{app}/{version}/{name}",
    "/healthz",
    "/readyz",
    "/metrics",
}
"""Stated here, one by one: whatever else is added needs one."""


def described() -> Json:
    client: FakeCluster = FakeEtcd().client()
    return application_over(client, Path("/nonexistent"), prepare=False).openapi()


DOCUMENT = described()
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)


def test_every_operation_has_an_id_of_its_own() -> None:
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]

    assert len(ids) == len(set(ids))
    assert all(one.isidentifier() for one in ids)


@every_operation
def test_an_operation_says_what_it_does_and_where_it_belongs(path: str, method: str, operation: Json) -> None:
    assert 8 <= len(operation["summary"]) <= 120
    assert "\n" not in operation["summary"]
    assert 1 == len(operation["tags"])


@every_operation
def test_an_operation_needs_a_token_or_is_a_stated_exception(path: str, method: str, operation: Json) -> None:
    open_ = path in WITHOUT_A_TOKEN

    assert ([] if open_ else [{"bearer": []}, {"basic": []}]) == operation["security"]
    assert open_ == (not path.startswith(API) or path in OPEN)
    assert open_ == ("401" not in operation["responses"])
    assert open_ == ("Needs the role `" not in operation["description"])


@every_operation
def test_what_goes_wrong_is_a_problem_in_the_whole_api(path: str, method: str, operation: Json) -> None:
    if not path.startswith(API):
        return
    for status, response in operation["responses"].items():
        if status >= "400":
            schema = response["content"]["application/problem+json"]["schema"]
            assert "#/components/schemas/Problem" == schema["$ref"]
            assert ["application/problem+json"] == list(response["content"])


@every_operation
def test_every_success_is_described(path: str, method: str, operation: Json) -> None:
    successes = {status: one for status, one in operation["responses"].items() if status < "300"}

    assert successes
    assert all(one["content"] for one in successes.values())


@every_operation
def test_conditions_are_shown_where_the_middleware_takes_them(path: str, method: str, operation: Json) -> None:
    headers = {one["name"] for one in operation.get("parameters", []) if one["in"] == "header"}

    assert ("412" in operation["responses"]) == ("If-Match" in headers)
    assert ("If-None-Match" in headers) == (
        path.startswith(API) and ("304" in operation["responses"] or method == "put")
    )
    assert ("ETag" in operation["responses"].get("200", {}).get("headers", {})) == (
        bool(headers) and method != "delete"
    )
    if method.upper() not in READING and path.endswith("}") and path.startswith(API):
        assert "If-Match" in headers, "a document that two operators may overwrite"


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_model_is_described(name: str) -> None:
    assert DOCUMENT["components"]["schemas"][name].get("description")


@every_operation
def test_every_request_body_has_an_example_or_is_raw_bytes(path: str, method: str, operation: Json) -> None:
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        if media != "application/json":
            continue
        name = content["schema"]["$ref"].rpartition("/")[2]
        schema = DOCUMENT["components"]["schemas"][name]
        assert schema.get("examples") or all(one.get("examples") for one in list(schema["properties"].values())[:1])


def test_both_ways_to_show_a_token_are_declared() -> None:
    assert {"bearer", "basic"} == set(DOCUMENT["components"]["securitySchemes"])
