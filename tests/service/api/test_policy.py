"""Policies, rollouts, floors and exclusions over HTTP: real uvicorn, real etcd."""

from dataclasses import fields
from typing import Any

import pytest
import requests

from outrider.core.rollout.policy_settings import Policy
from outrider.service.api.models_policy import PolicyGiven, PolicyShown
from tests.service.api.test_http import CHECK, post
from tests.support.service import Service
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually

GROUP = f"/api/v1/apps/{APP}/groups/beta"
CHANNEL = f"/api/v1/apps/{APP}/channels/beta"
EVERYTHING = {
    "enabled": True,
    "max_per_interval": {"count": 1, "interval_s": 300},
    "max_in_progress": 2,
    "percent": 12.5,
    "canary": 1,
    "windows": [{"days": ["mon", "tue"], "opens": "22:00", "closes": "04:00"}],
    "time_zone": "Europe/Berlin",
    "update_timeout_s": 1800,
    "max_failures": 2,
    "count_new": True,
    "count_timeouts": False,
    "min_healthy": 3,
    "pin": "1.2",
    "downgrade": "asked",
    "deny_windows": [{"days": ["fri"], "opens": "12:00", "closes": "24:00"}],
    "freezes": [{"begins": "2026-12-20", "ends": "2027-01-03", "why": "holidays"}],
    "approval": True,
    "approve_after_s": 600,
    "canary_selector": "site=a",
    "budgets": [{"label": "rack", "max_out": 1, "min_serving": 2}],
    "waves": [
        {
            "selector": "site=a",
            "count": None,
            "percent": 25.0,
            "soak_s": 60,
            "success_percent": 90.0,
            "approval": True,
            "analyses": ["errors"],
        }
    ],
    "analyses": [
        {
            "name": "errors",
            "kind": "http",
            "url": "https://93.184.215.14/verdict",
            "query": "",
            "condition": "< 0.01",
            "field": "stats.rate",
            "timeout_s": 3,
            "failures": 2,
            "interval_s": 30,
            "deadline_s": 900,
            "undecided": "fail",
        }
    ],
}


@pytest.fixture
def api(service: Service) -> Service:
    make_app(service.store, versions=("1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    return service


def call(service: Service, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer = requests.request(method, service.url + path, json=body, timeout=30)
    return answer.status_code, answer.json()


def test_the_api_knows_every_setting_of_a_policy_with_its_default() -> None:
    assert {one.name for one in fields(Policy)} == set(PolicyGiven.model_fields)
    assert set(PolicyGiven.model_fields) | {"warnings", "notes"} == set(PolicyShown.model_fields)
    assert Policy() == PolicyGiven.model_validate({}).to_policy()


def test_a_group_begins_with_a_policy_that_holds_nobody_back(api: Service) -> None:
    status, policy = call(api, "GET", f"{GROUP}/policy")

    assert 200 == status
    assert PolicyGiven.model_validate({}).model_dump() | {"warnings": [], "notes": []} == policy


def test_a_policy_is_shown_as_it_was_given(api: Service) -> None:
    _, put = call(api, "PUT", f"{GROUP}/policy", EVERYTHING)
    _, got = call(api, "GET", f"{GROUP}/policy")

    assert put == got | {"notes": ["group beta: target 2.0.0; no instances yet"]}
    assert EVERYTHING == {name: value for name, value in got.items() if name not in ("warnings", "notes")}


def test_what_is_left_out_has_its_default_again(api: Service) -> None:
    call(api, "PUT", f"{GROUP}/policy", EVERYTHING)
    _, policy = call(api, "PUT", f"{GROUP}/policy", {"canary": 1})

    notes = ["group beta: target 2.0.0; no instances yet"]
    assert PolicyGiven.model_validate({"canary": 1}).model_dump() | {"warnings": [], "notes": notes} == policy


def test_what_cannot_work_is_warned_of_and_written_all_the_same(api: Service) -> None:
    _, policy = call(api, "PUT", f"{GROUP}/policy", {"update_timeout_s": 5})

    assert ["update_timeout_s 5: shorter than drain"] == [warning[:38] for warning in policy["warnings"]]
    assert 5 == api.store.rollouts.policy(APP, "beta").update_timeout_s


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"time_zone": "Mars/Olympus"}, 400, "time zone"),
        ({"percent": 101}, 400, "percent 101"),
        ({"windows": [{"opens": "25:00"}]}, 400, "opens '25:00'"),
        ({"windows": [{"days": ["noday"]}]}, 422, "days"),
        ({"freezes": [{"begins": "tomorrow", "ends": "2027-01-03"}]}, 400, "freeze 'tomorrow'"),
        ({"approve_after_s": 60}, 400, "nothing waits for an approval"),
        ({"downgrade": "maybe"}, 422, "downgrade"),
        ({"max_in_progres": 1}, 422, "max_in_progres"),
        ({"max_per_interval": {"count": 1}}, 422, "interval_s"),
    ],
)
def test_a_policy_that_cannot_be_carried_out_is_refused(api: Service, body: Any, status: int, words: str) -> None:
    found, problem = call(api, "PUT", f"{GROUP}/policy", body)

    assert status == found
    assert words in problem["detail"]
    assert Policy() == api.store.rollouts.policy(APP, "beta")


def test_a_roll_out_is_paused_halted_and_resumed(api: Service) -> None:
    states: list[Any] = []
    for verb, body in (("pause", {"why": "lunch", "by": "kim"}), ("halt", {"why": "it burns"}), ("resume", {})):
        status, rollout = call(api, "POST", f"{GROUP}/rollout/{verb}", body)
        states.append((status, rollout["state"], rollout["why"], rollout["by"]))
        states.append(b"<manifest" in post(api, CHECK).content)

    assert [
        (200, "paused", "lunch", "kim"), False, (200, "halted", "it burns", ""), False, (200, "running", "", ""), True,
    ] == states  # fmt: skip


def test_a_roll_out_shows_who_is_under_way_and_who_waits(api: Service) -> None:
    call(api, "PUT", f"{GROUP}/policy", {"max_in_progress": 1})
    post(api, CHECK)
    post(api, CHECK.replace(b"web-1", b"web-2"))

    _, rollout = call(api, "GET", f"{GROUP}/rollout")

    assert ("2.0.0", "running", ["web-2"]) == (rollout["version"], rollout["state"], rollout["waiting"])
    assert [("web-1", "2.0.0")] == [(one["instance"], one["version"]) for one in rollout["opened"]]


def test_floors_and_exclusions_are_set_listed_and_taken_back(api: Service) -> None:
    steps = [
        call(api, "PUT", f"{CHANNEL}/floors/1.5.0", {"reason": "migrates the schema"}),
        call(api, "GET", f"{CHANNEL}/floors"),
        call(api, "PUT", f"{CHANNEL}/excluded/1.0.0"),
        call(api, "GET", f"{CHANNEL}/excluded"),
        call(api, "DELETE", f"{CHANNEL}/floors/1.5.0"),
        call(api, "DELETE", f"{CHANNEL}/excluded/1.0.0"),
    ]

    floor, version = {"version": "1.5.0", "reason": "migrates the schema"}, {"version": "1.0.0"}
    assert [(200, each) for each in ([floor], [floor], [version], [version], [], [])] == [
        (status, body["items"]) for status, body in steps
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/v1/apps/{APP}/groups/absent/policy", 404),
        ("GET", "/api/v1/apps/absent/groups/beta/rollout", 404),
        ("PUT", f"{CHANNEL}/floors/9.0.0", 404),
        ("PUT", f"{CHANNEL}/excluded/2.0.0", 409),
        ("DELETE", f"{CHANNEL}/floors/9.0.0", 404),
        ("GET", f"/api/v1/apps/{APP}/channels/absent/floors", 404),
    ],
)
def test_what_is_not_there_or_in_use_says_so(api: Service, method: str, path: str, status: int) -> None:
    found, problem = call(api, method, path, {} if method == "PUT" and "floors" in path else None)

    assert status == found
    assert problem["detail"]


def test_an_app_and_a_package_show_what_is_new_of_them(api: Service) -> None:
    _, app = call(api, "PUT", f"/api/v1/apps/{APP}", {"product_id": "io.example.web"})
    body = {"version": "2.1.0", "url": "http://files.example/web.tar", "size_bytes": 8, "sha256": "ab" * 32}
    _, package = call(api, "POST", f"/api/v1/apps/{APP}/packages", body | {"arch": "arm64", "required": False})

    assert "io.example.web" == app["product_id"]
    assert ("aarch64", False) == (package["arch"], package["required"])


def tagged(service: Service, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, service.url + path, json=body, headers=named, timeout=30)


def test_two_operators_cannot_overwrite_each_others_policy_unseen(api: Service) -> None:
    stale = tagged(api, "GET", f"{GROUP}/policy").headers["etag"]
    call(api, "PUT", f"{GROUP}/policy", {"canary": 1})

    refused = tagged(api, "PUT", f"{GROUP}/policy", {"canary": 2}, If_Match=stale)
    fresh = tagged(api, "GET", f"{GROUP}/policy").headers["etag"]
    done = tagged(api, "PUT", f"{GROUP}/policy", {"canary": 3}, If_Match=fresh)

    assert (412, "precondition-failed") == (refused.status_code, refused.json()["kind"])
    assert (200, 3) == (done.status_code, api.store.rollouts.policy(APP, "beta").canary)


def test_a_roll_out_that_moved_meanwhile_is_not_resumed_by_who_has_not_seen_it(api: Service) -> None:
    call(api, "POST", f"{GROUP}/rollout/pause", {"by": "kim"})
    seen = tagged(api, "GET", f"{GROUP}/rollout").headers["etag"]
    call(api, "POST", f"{GROUP}/rollout/halt", {"why": "it burns"})

    refused = tagged(api, "POST", f"{GROUP}/rollout/resume", {}, If_Match=seen)
    fresh = tagged(api, "GET", f"{GROUP}/rollout").headers["etag"]
    done = tagged(api, "POST", f"{GROUP}/rollout/resume", {}, If_Match=fresh)

    assert (412, 200) == (refused.status_code, done.status_code)
    assert "running" == done.json()["state"]


def test_what_depends_on_more_than_its_document_is_always_sent(api: Service) -> None:
    """
    1. one is granted, and the rollout is read
    2. another one is deferred, which the rollout's own document doesn't say
    3. who asks with the tag gets it all the same
    """
    call(api, "PUT", f"{GROUP}/policy", {"max_in_progress": 1})
    post(api, CHECK)
    tag = tagged(api, "GET", f"{GROUP}/rollout").headers["etag"]
    post(api, CHECK.replace(b"web-1", b"web-2"))

    again = tagged(api, "GET", f"{GROUP}/rollout", If_None_Match=tag)

    assert (200, ["web-2"], tag) == (again.status_code, again.json()["waiting"], again.headers["etag"])


def test_the_audit_log_holds_a_policy_before_and_after_and_who_stopped_a_roll_out(api: Service) -> None:
    call(api, "PUT", f"{GROUP}/policy", {"canary": 1})
    call(api, "POST", f"{GROUP}/rollout/halt", {"why": "it burns"})

    _, log = call(api, "GET", "/api/v1/audit?name=beta")

    halt, policy, *_ = log["items"]
    assert ("rollout", f"POST {GROUP}/rollout/halt") == (halt["noun"], halt["did"])
    assert ("halted", "it burns") == (halt["after"]["progress"]["state"], halt["after"]["progress"]["why"])
    assert "group" == policy["noun"]
    assert [0, 1] == [policy[when]["policy"]["canary"] for when in ("before", "after")]


def test_a_viewer_sees_policies_and_changes_none(api: Service) -> None:
    api.store.users.create("root", "admin")
    viewer = api.store.users.create("vera", "viewer").token
    operator = api.store.users.create("olga", "operator").token
    eventually(lambda: 401 == tagged(api, "GET", f"{GROUP}/policy").status_code)
    as_viewer, as_operator = {"Authorization": f"Bearer {viewer}"}, {"Authorization": f"Bearer {operator}"}

    seen = [tagged(api, "GET", f"{GROUP}/{what}", **as_viewer).status_code for what in ("policy", "rollout")]
    refused = [
        tagged(api, method, f"{GROUP}/{what}", {}, **as_viewer).status_code
        for method, what in (("PUT", "policy"), ("POST", "rollout/pause"))
    ]
    paused = tagged(api, "POST", f"{GROUP}/rollout/pause", {"by": "kim"}, **as_operator)

    assert [200, 200] == seen
    assert [403, 403] == refused
    assert "kim, as olga" == paused.json()["by"]
