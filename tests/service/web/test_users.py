"""The page of users: for admins alone, and with a token that is shown once."""

import json
import re
from pathlib import Path

import pytest

from outrider.service.store.store import Store
from outrider.service.store.users import digest_of
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster
from tests.support.browsers import Browser
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

TOKEN = re.compile(r"or_[A-Za-z0-9_-]{40,}")


@pytest.fixture
def browser(store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """An admin, ann; there is another one, root."""
    make_app(store)
    return logged_in(store, tmp_path, clock, "admin", name="ann")


def fill(browser: Browser, path: str, **form: str) -> dict[str, str]:
    """The fields of an action's form, filled in."""
    assert 200 == browser.get(path).status
    return browser.fields() | form


def test_a_new_token_is_shown_once_and_kept_nowhere(browser: Browser, store: Store, client: FakeCluster) -> None:
    """
    1. a user is made: the answer itself has the token, which lets that user in
    2. neither a cookie nor a page after it has it, nor etcd with its audit log
    """
    answer = browser.post("/users/create", fill(browser, "/users/create", name="bob", role="viewer"))

    assert (200, "no-store") == (answer.status, answer.headers["cache-control"])
    token = TOKEN.search(browser.text)
    assert token is not None
    assert digest_of(token[0]) == store.users.get("bob").token_sha256
    assert not [value for value in browser.cookies.values() if token[0] in value]
    for page in ("/users", "/audit", "/users/create"):
        browser.get(page)
        assert token[0] not in browser.text
    assert not [entry.key for entry in client.list("/").entries if token[0].encode() in entry.value]
    browser.get("/audit?noun=user")
    assert "POST /users/create" in browser.text


def test_a_script_gets_the_token_in_its_answer(browser: Browser) -> None:
    form = fill(browser, "/users/create", name="bob", role="viewer", apps=APP)

    answer = browser.post("/users/create", form, x_outrider_script="1")

    told = json.loads(answer.body)["notes"]
    assert f"user bob (viewer for {APP} alone) is made" == told[0]
    assert TOKEN.search(told[1])


def test_users_are_listed_and_get_new_tokens_and_roles(browser: Browser, store: Store) -> None:
    before = store.users.create("bob", "viewer")

    eventually(lambda: browser.get("/users").status == 200 and "3 users" in browser.text)
    assert before.user.token_end in browser.text
    form = fill(browser, "/users/of/bob/token", role="operator")
    assert f"ends with {before.user.token_end}" in browser.text
    assert 200 == browser.post("/users/of/bob/token", form).status

    after = store.users.get("bob")
    assert "operator" == after.role
    assert before.user.token_sha256 != after.token_sha256
    assert 303 == browser.post("/users/of/bob/delete", fill(browser, "/users/of/bob/delete")).status
    assert ["ann", "root"] == [user.name for user in store.users.list()]


def test_a_name_that_is_taken_loses_no_token(browser: Browser, store: Store) -> None:
    before = store.users.create("bob", "viewer").user

    answer = browser.post("/users/create", fill(browser, "/users/create", name="bob", role="admin"))

    assert 409 == answer.status
    assert "there is a user bob already" in browser.text
    assert before == store.users.get("bob")
    assert 404 == browser.get("/users/of/nobody/token").status
    assert 404 == browser.get("/users/of/nobody/delete").status


def test_the_last_admin_stays(browser: Browser, store: Store) -> None:
    store.users.delete("root")

    eventually(lambda: browser.get("/users/of/ann/delete").status == 200 and "the last admin" in browser.text)
    form = fill(browser, "/users/of/ann/delete")
    assert "this is the last admin" in browser.text
    assert "this is you" in browser.text
    assert 409 == browser.post("/users/of/ann/delete", form).status
    assert 409 == browser.post("/users/of/ann/token", fill(browser, "/users/of/ann/token", role="viewer")).status

    assert "admin" == store.users.get("ann").role


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": "<b>"}, "1 to 64"),
        ({"name": ""}, "1 to 64"),
        ({"name": "bob", "role": "admin", "apps": APP}, "can&#39;t be limited"),
        ({"name": "bob", "role": "king"}, "role"),
    ],
)
def test_a_wrong_form_says_what_is_wrong(browser: Browser, store: Store, form: dict[str, str], words: str) -> None:
    answer = browser.post("/users/create", fill(browser, "/users/create", role="viewer") | form)

    assert 400 == answer.status
    assert words in browser.text
    assert ["ann", "root"] == [user.name for user in store.users.list()]


@pytest.mark.parametrize("role", ["viewer", "approver", "operator"])
def test_users_are_for_admins_alone(store: Store, tmp_path: Path, clock: WallClock, role: str) -> None:
    browser = logged_in(store, tmp_path, clock, role)

    browser.get("/")
    assert ">Activity<" in browser.text
    assert ">Users<" not in browser.text
    for path in ("/users", "/live/users", "/users/create", "/users/of/root/token", "/users/of/root/delete"):
        assert 403 == browser.get(path).status
    for path in ("/users/create", "/users/of/root/token", "/users/of/root/delete", "/users/create/lint"):
        assert 403 == browser.post(path, {"csrf": "x"}).status


def test_a_page_of_many_users_has_another_one(browser: Browser, store: Store) -> None:
    for number in range(101):
        store.users.create(f"u{number:03}", "viewer")

    browser.get("/users")
    assert 'id="u-u097"' in browser.text
    assert 'id="u-u098"' not in browser.text
    browser.get(browser.text.split('">Next<')[0].rpartition('href="')[2])

    assert 'id="u-u098"' in browser.text
    assert 'id="u-u100"' in browser.text
    assert ">Next<" not in browser.text
