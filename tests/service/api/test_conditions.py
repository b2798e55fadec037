"""Two operators at once: entity tags, conditions, and who is told of whom."""

import threading

import pytest
import requests

from outrider.service.api.resources import resource_of
from tests.support.service import Service
from tests.support.service_examples import APP, make_app, open_store
from tests.support.waiting import eventually

GROUP = f"/apps/{APP}/groups/beta"


def ask(service: Service, method: str, path: str, body: object = None, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, f"{service.url}/api/v1{path}", json=body, headers=named, timeout=60)


@pytest.fixture(autouse=True)
def app(service: Service) -> None:
    make_app(service.store)


@pytest.mark.parametrize("path", [f"/apps/{APP}", GROUP, f"/apps/{APP}/channels/beta", f"/apps/{APP}/packages/1.0.0"])
def test_a_document_has_the_same_etag_until_it_changes(service: Service, path: str) -> None:
    first, again = (ask(service, "GET", path).headers["etag"] for _ in range(2))

    assert first == again
    assert 304 == ask(service, "GET", path, If_None_Match=first).status_code
    assert 304 == ask(service, "GET", path, If_None_Match=f'"x", W/{first}').status_code
    assert 200 == ask(service, "GET", path, If_None_Match='"x"').status_code


def test_304_has_the_tag_and_no_body(service: Service) -> None:
    tag = ask(service, "GET", GROUP).headers["etag"]

    answer = ask(service, "GET", GROUP, If_None_Match=tag)

    assert (304, tag, b"") == (answer.status_code, answer.headers["etag"], answer.content)
    assert "content-length" not in answer.headers


def test_a_change_answers_with_the_tag_that_a_reader_then_gets(service: Service) -> None:
    changed = ask(service, "PATCH", GROUP, {"paused": True})

    assert changed.headers["etag"] == ask(service, "GET", GROUP).headers["etag"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"/apps/{APP}", {"label": "mine"}),
        ("PATCH", GROUP, {"label": "mine"}),
        ("DELETE", GROUP, None),
        ("PUT", f"/apps/{APP}/channels/beta", {"version": "2.0.0"}),
        ("DELETE", f"/apps/{APP}/packages/2.0.0", None),
    ],
)
def test_a_change_of_what_somebody_else_has_changed_is_refused(
    service: Service, method: str, path: str, body: object
) -> None:
    """
    1. an operator reads a document
    2. another one changes it
    3. the first one's change is refused, does nothing, and names the other
    4. after reading again it goes through
    """
    before = ask(service, "GET", path)
    stale = f'"{"0" * 32}"'

    refused = ask(service, method, path, body, If_Match=stale)
    after = ask(service, "GET", path)
    done = ask(service, method, path, body, If_Match=after.headers["etag"])

    assert (412, "precondition-failed") == (refused.status_code, refused.json()["kind"])
    assert before.content == after.content
    assert done.ok, done.text


def test_the_refusal_says_who_changed_it_when_and_how(service: Service) -> None:
    token = service.store.users.begin("ann").token
    bearer = {"Authorization": f"Bearer {token}"}
    eventually(lambda: ask(service, "GET", GROUP, **bearer).ok)
    tag = ask(service, "GET", GROUP, **bearer).headers["etag"]
    ask(service, "PATCH", GROUP, {"slots": 3}, **bearer)

    refused = ask(service, "PATCH", GROUP, {"slots": 2}, If_Match=tag, **bearer)

    assert "changed by ann at 20" in refused.json()["detail"]
    assert f"(PATCH /api/v1{GROUP})" in refused.json()["detail"]
    assert 3 == service.store.groups.get(APP, "beta").slots


def test_being_referred_to_is_no_change(service: Service) -> None:
    """A new group touches its app and its channel, so that nobody removes them meanwhile; it doesn't change them."""
    tags = [ask(service, "GET", path).headers["etag"] for path in (f"/apps/{APP}", f"/apps/{APP}/channels/beta")]

    ask(service, "POST", f"/apps/{APP}/groups", {"id": "other", "channel": "beta"})

    assert ask(service, "PUT", f"/apps/{APP}", {"label": "x"}, If_Match=tags[0]).ok
    assert ask(service, "PUT", f"/apps/{APP}/channels/beta", {"version": "2.0.0"}, If_Match=tags[1]).ok


def test_without_a_condition_the_last_one_wins(service: Service) -> None:
    assert ask(service, "PATCH", GROUP, {"slots": 2}).ok
    assert ask(service, "PATCH", GROUP, {"slots": 3}).ok
    assert ask(service, "PATCH", GROUP, {"slots": 4}, If_Match="*").ok


def test_a_condition_on_what_is_not_there(service: Service) -> None:
    new = f"/apps/{APP}/channels/new"

    assert 412 == ask(service, "PUT", new, {}, If_Match="*").status_code
    assert 412 == ask(service, "PUT", new, {}, If_Match='"abc"').status_code
    assert 404 == ask(service, "GET", new).status_code
    assert 201 == ask(service, "PUT", new, {}, If_None_Match="*").status_code
    assert 412 == ask(service, "PUT", new, {"publish": True}, If_None_Match="*").status_code
    assert not ask(service, "GET", new).json()["publish"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/apps", {"If_Match": "*"}),
        ("PATCH", GROUP, {"If_None_Match": '"abc"'}),
        ("PATCH", GROUP, {"If_None_Match": "*", "If_Match": "*"}),
    ],
)
def test_a_condition_that_cannot_be_compared_is_refused_and_not_ignored(
    service: Service, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = ask(service, method, path, {}, **headers)

    assert (400, "config") == (answer.status_code, answer.json()["kind"])


def test_a_weak_tag_is_not_enough_to_change_something(service: Service) -> None:
    tag = ask(service, "GET", GROUP).headers["etag"]

    assert 412 == ask(service, "PATCH", GROUP, {"slots": 2}, If_Match=f"W/{tag}").status_code


def test_of_many_at_once_with_the_same_tag_one_gets_through(service: Service) -> None:
    for round_ in range(5):
        tag = ask(service, "GET", GROUP).headers["etag"]
        start = threading.Barrier(8)
        statuses: list[int] = []

        def change(label: str, tag: str = tag, start: threading.Barrier = start, to: list[int] = statuses) -> None:
            start.wait(60)
            to.append(ask(service, "PATCH", GROUP, {"label": label}, If_Match=tag).status_code)

        threads = [threading.Thread(target=change, args=(f"{round_}-{each}",)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [200] + [412] * 7 == sorted(statuses)


def test_a_list_is_not_sent_again_until_something_in_it_changes_or_goes(service: Service) -> None:
    tag = ask(service, "GET", f"/apps/{APP}/groups").headers["etag"]
    same = ask(service, "GET", f"/apps/{APP}/groups", If_None_Match=tag)
    service.store.groups.create(APP, "other", channel="beta")
    more = ask(service, "GET", f"/apps/{APP}/groups", If_None_Match=tag)
    service.store.groups.delete(APP, "other")
    as_before = ask(service, "GET", f"/apps/{APP}/groups", If_None_Match=tag)

    assert [304, 200, 304] == [answer.status_code for answer in (same, more, as_before)]


def test_the_audit_log_is_shown_newest_first_page_by_page(service: Service) -> None:
    for slots in range(2, 7):
        ask(service, "PATCH", GROUP, {"slots": slots}, X_Request_ID=f"to-{slots}")

    first = ask(service, "GET", "/audit?limit=2&noun=group").json()
    second = ask(service, "GET", f"/audit?limit=2&noun=group&after={first['next']}").json()
    last = ask(service, "GET", f"/audit?limit=2&noun=group&after={second['next']}").json()

    items = [*first["items"], *second["items"], *last["items"]]
    assert ["to-6", "to-5", "to-4", "to-3", "to-2"] == [one["request_id"] for one in items]
    assert last["next"] is None
    assert (6, 5) == (items[0]["after"]["slots"], items[0]["before"]["slots"])
    assert "(anybody)" == items[0]["who"]
    assert "127.0.0.1" == items[0]["address"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "after=%FF", "after=%21", "since=yesterday", "app=a/b"]
)
def test_a_query_of_the_log_that_cannot_be_is_refused(service: Service, query: str) -> None:
    assert ask(service, "GET", f"/audit?{query}").status_code in (400, 422)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/v1/webhooks/ops", "webhooks/ops"),
        ("/api/v1/apps/{WEB}", "apps/web"),
        ("/api/v1/apps/web/groups/beta", "apps/web/groups/beta"),
        ("/api/v1/apps/web/groups/beta/policy", "apps/web/groups/beta"),
        ("/api/v1/apps/web/groups/beta/target", "apps/web/groups/beta/target"),
        ("/api/v1/apps/web/groups/beta/rollout/halt", "apps/web/groups/beta/rollout"),
        ("/api/v1/apps/web/channels/beta/floors/1.0.0", "apps/web/channels/beta"),
        ("/api/v1/apps", None),
        ("/api/v1/apps/web/groups", None),
        ("/api/v1/apps/a b", None),
        ("/api/v1/apps/web/instances/web-1/command", None),
    ],
)
def test_a_path_names_its_document(service: Service, path: str, key: str | None) -> None:
    keys = open_store(service.store.context.cluster).context.keys

    assert (None if key is None else f"{keys.prefix}/{key}") == resource_of(keys, path)
