"""Who gets into the page, and how: sessions, links, cookies, CSRF tokens, roles."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from outrider.service.store.store import Store
from outrider.service.store.users import digest_of
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.browsers import Browser
from tests.support.in_process import application_over, ask
from tests.support.service_examples import APP, be_alive, make_app
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

GROUP = f"/apps/{APP}/groups/beta"
pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def application(client: FakeCluster, tmp_path: Path, clock: WallClock) -> FastAPI:
    return application_over(client, tmp_path, now=clock)


@pytest.fixture
def browser(application: FastAPI) -> Browser:
    return Browser(application)


def token_of(store: Store, name: str, role: str = "operator", **more: object) -> str:
    if not store.users.list():
        store.users.create("root", "admin")
    return store.users.create(name, role, **more).token  # type: ignore[arg-type]


def test_without_a_session_the_page_asks_for_a_token(browser: Browser, store: Store) -> None:
    token_of(store, "ann")

    answer = browser.get(GROUP)

    assert 401 == answer.status
    assert "Your token" in browser.text
    assert GROUP == browser.fields()["to"]


def test_a_token_begins_a_session_whose_cookie_etcd_does_not_have(
    browser: Browser, store: Store, client: FakeCluster
) -> None:
    token = token_of(store, "ann", "viewer")

    answer = browser.log_in(token)

    assert (303, "/") == (answer.status, answer.headers["location"])
    assert 200 == browser.get("/").status
    assert "ann · viewer" in browser.text
    (cookie,) = browser.cookies.values()
    (entry,) = client.list(store.context.keys.sessions()).entries
    assert entry.key.endswith(digest_of(cookie))
    assert entry.lease
    assert cookie.encode() not in entry.value


def test_the_cookie_is_for_this_site_alone_and_no_script_can_read_it(browser: Browser, store: Store) -> None:
    token = token_of(store, "ann")

    plain = browser.log_in(token).cookies
    secure = Browser(browser.application, scheme="https").log_in(token)

    assert all(word in plain[0] for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert "Secure" not in plain[0]
    assert secure.cookies[0].startswith("__Host-outrider_session=")
    assert "Secure" in secure.cookies[0]
    assert "max-age=31536000" == secure.headers["strict-transport-security"]


@pytest.mark.parametrize("token", ["", "or_wrong", "x" * 5000, "ü"])
def test_a_wrong_token_lets_nobody_in(browser: Browser, store: Store, token: str) -> None:
    token_of(store, "ann")

    assert 401 == browser.log_in(token).status
    assert not browser.cookies
    assert "invalid or revoked token" in browser.text


def test_a_session_ends_with_its_users_token(browser: Browser, store: Store) -> None:
    browser.log_in(token_of(store, "ann"))
    assert 200 == browser.get("/").status

    store.users.create("ann")

    eventually(lambda: browser.get("/").status == 401)


def test_a_session_ends_when_its_user_logs_out(browser: Browser, store: Store, client: FakeCluster) -> None:
    browser.log_in(token_of(store, "ann"))
    stolen = dict(browser.cookies)
    browser.get("/")

    browser.post("/logout", {"csrf": browser.fields()["csrf"]})

    assert not client.list(store.context.keys.sessions()).entries
    browser.cookies = stolen
    assert 401 == browser.get("/").status


def test_a_session_ends_after_a_week_however_much_it_is_used(browser: Browser, store: Store, clock: WallClock) -> None:
    browser.log_in(token_of(store, "ann"))

    clock.advance(timedelta(days=7).total_seconds())

    assert 401 == browser.get("/").status


def test_a_session_holds_at_every_service_process(
    browser: Browser, store: Store, fake_etcd: FakeEtcd, tmp_path: Path, clock: WallClock
) -> None:
    browser.log_in(token_of(store, "ann"))

    browser.application = application_over(fake_etcd.client("another"), tmp_path, now=clock)

    assert 200 == browser.get("/").status


def test_a_user_has_twenty_sessions_and_a_further_one_ends_the_oldest(
    browser: Browser, store: Store, client: FakeCluster
) -> None:
    token = token_of(store, "ann")
    browser.log_in(token)
    for _ in range(20):
        Browser(browser.application).log_in(token)

    assert 20 == len(client.list(store.context.keys.sessions()).entries)
    assert 401 == browser.get("/").status


def test_a_login_is_in_the_audit_log_without_its_secrets(browser: Browser, application: FastAPI, store: Store) -> None:
    token = token_of(store, "ann")
    browser.log_in(token)

    audit = ask(application, "GET", "/api/v1/audit?noun=session", authorization=f"Bearer {token}").body.decode()

    assert '"who":"ann"' in audit
    assert '"did":"POST /login"' in audit
    assert digest_of(token) not in audit
    assert browser.cookies["outrider_session"] not in audit


def link_of(application: FastAPI, token: str = "") -> str:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = ask(application, "POST", "/api/v1/page-links", b"{}", content_type="application/json", **headers)
    assert 201 == answer.status, answer.body
    found = re.search(rb'"url":"[^"]*(/login/[^"]+)"', answer.body)
    assert found
    return found[1].decode()


def test_a_link_lets_its_user_in_once(browser: Browser, application: FastAPI, store: Store) -> None:
    link = link_of(application, token_of(store, "ann", "viewer"))

    assert 200 == browser.get(link).status  # a preview of the link, which uses nothing up
    assert 303 == browser.post(link, {}).status
    assert 200 == browser.get("/").status
    assert "ann · viewer" in browser.text
    other = Browser(application)
    assert 401 == other.post(link, {}).status
    assert 401 == other.get(link).status
    assert "used already" in other.text


def test_a_link_is_over_after_a_minute(browser: Browser, application: FastAPI, store: Store, clock: WallClock) -> None:
    link = link_of(application, token_of(store, "ann"))

    clock.advance(60)

    assert 401 == browser.post(link, {}).status


def test_a_link_ends_with_its_users_token(browser: Browser, application: FastAPI, store: Store) -> None:
    link = link_of(application, token_of(store, "ann"))

    token = store.users.create("ann").token
    bearer = {"authorization": f"Bearer {token}"}
    eventually(lambda: ask(application, "GET", "/api/v1/whoami", b"", **bearer).status == 200)

    assert 401 == browser.post(link, {}).status


def test_while_there_never_was_a_user_a_link_of_this_machine_lets_in(
    browser: Browser, application: FastAPI, store: Store
) -> None:
    assert 401 == browser.get("/").status
    assert "there are no users yet" in browser.text
    link = link_of(application)

    browser.post(link, {})

    assert 200 == browser.get("/").status
    store.users.create("root", "admin")
    eventually(lambda: browser.get("/").status == 401)  # that session is of nobody who is known


def test_another_page_can_not_log_anybody_in(browser: Browser, store: Store) -> None:
    token = token_of(store, "ann")

    foreign = browser.post("/login", {"token": token}, origin="http://evil.example")
    fetched = browser.post("/login", {"token": token}, sec_fetch_site="cross-site")

    assert [403, 403] == [foreign.status, fetched.status]
    assert not browser.cookies


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", "/logout"]
)
def test_a_login_leads_to_this_service_alone(browser: Browser, store: Store, to: str) -> None:
    answer = browser.post("/login", {"token": token_of(store, "ann"), "to": to})

    assert "/" == answer.headers["location"]


def test_a_request_to_another_name_is_refused(browser: Browser, store: Store) -> None:
    browser.log_in(token_of(store, "ann"))

    browser.host = "rebound.example"

    assert 421 == browser.get("/").status


def test_who_follows_a_link_of_another_site_is_led_on_by_our_own_page(browser: Browser, store: Store) -> None:
    token_of(store, "ann")

    answer = browser.get(GROUP, sec_fetch_site="cross-site", sec_fetch_mode="navigate")

    assert 200 == answer.status
    assert 'http-equiv="refresh"' in browser.text


@pytest.fixture
def group(store: Store, clock: WallClock) -> None:
    make_app(store, version="2.0.0")
    for number in range(3):
        be_alive(store, f"web-{number}", clock())


def state_of(store: Store) -> str:
    return store.rollouts.get(APP, "beta").state


@pytest.mark.usefixtures("group")
class TestActions:
    """An action says what it does, asks, and is done as the API does it."""

    def test_its_effect_is_shown_and_then_it_is_done_and_audited(self, browser: Browser, store: Store) -> None:
        token = token_of(store, "ann")
        browser.log_in(token)

        browser.get(f"{GROUP}/pause")
        assert "<strong>3</strong> instances" in browser.text
        answer = browser.post(f"{GROUP}/pause", {**browser.fields(), "why": "lunch"})

        assert 303 == answer.status
        assert "paused" == state_of(store)
        browser.get(answer.headers["location"])
        assert "held: the rollout is paused" in browser.text
        browser.get(GROUP)
        assert "held: the rollout is paused" not in browser.text  # a note is shown once
        audit = ask(browser.application, "GET", "/api/v1/audit?noun=rollout", authorization=f"Bearer {token}")
        assert f'"did":"POST {GROUP}/pause"' in audit.body.decode()
        assert '"who":"ann"' in audit.body.decode()

    def test_a_script_gets_its_notes_as_json(self, browser: Browser, store: Store) -> None:
        browser.log_in(token_of(store, "ann"))
        browser.get(f"{GROUP}/pause")

        answer = browser.post(f"{GROUP}/pause", browser.fields(), x_outrider_script="1")

        assert 200 == answer.status
        assert b"held: the rollout is paused" in answer.body

    @pytest.mark.parametrize("csrf", ["", "0" * 64, "ü"])
    def test_a_form_without_this_sessions_token_does_nothing(self, browser: Browser, store: Store, csrf: str) -> None:
        browser.log_in(token_of(store, "ann"))

        assert 403 == browser.post(f"{GROUP}/pause", {"csrf": csrf}).status
        assert "running" == state_of(store)

    def test_a_form_with_another_sessions_token_does_nothing(self, browser: Browser, store: Store) -> None:
        token = token_of(store, "ann")
        browser.log_in(token)
        other = Browser(browser.application)
        other.log_in(token)
        other.get(f"{GROUP}/pause")

        assert 403 == browser.post(f"{GROUP}/pause", other.fields()).status
        assert "running" == state_of(store)

    def test_a_form_from_elsewhere_does_nothing(self, browser: Browser, store: Store) -> None:
        browser.log_in(token_of(store, "ann"))
        browser.get(f"{GROUP}/pause")

        assert 403 == browser.post(f"{GROUP}/pause", browser.fields(), origin="http://localhost:9").status
        assert 403 == browser.post(f"{GROUP}/pause", browser.fields(), origin="null").status
        assert "running" == state_of(store)

    def test_a_viewer_sees_no_button_and_may_not_do_it(self, browser: Browser, store: Store) -> None:
        browser.log_in(token_of(store, "ann", "viewer"))

        browser.get(GROUP)
        assert "Pause" not in browser.text
        assert 403 == browser.get(f"{GROUP}/pause").status
        browser.get("/")
        assert 403 == browser.post(f"{GROUP}/pause", browser.fields()).status
        assert "needs the role operator" in browser.text
        assert "running" == state_of(store)

    def test_a_role_for_other_apps_holds_for_them_alone(self, browser: Browser, store: Store) -> None:
        store.apps.create(app="mail", label="Mail")
        browser.log_in(token_of(store, "ann", apps=["mail"]))

        browser.get("/")
        assert "Mail" in browser.text
        assert "Example" not in browser.text
        assert [403, 403] == [browser.get(path).status for path in (GROUP, f"{GROUP}/pause")]
        assert 403 == browser.get(f"/live{GROUP}", accept="application/json").status


def test_every_answer_has_the_same_strict_policy(browser: Browser, store: Store) -> None:
    make_app(store)
    browser.log_in(token_of(store, "ann"))

    answers = [browser.get(path) for path in ("/", GROUP, f"{GROUP}/pause", "/login", "/apps/none", "/static/page.js")]
    answers.append(Browser(browser.application).get("/"))

    assert 1 == len({answer.headers["content-security-policy"] for answer in answers})
    policy = answers[0].headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not [word for word in ("unsafe", "data:", "http", "*") if word in policy]


def test_no_template_has_a_script_or_a_style_of_its_own(browser: Browser, store: Store) -> None:
    make_app(store)
    browser.log_in(token_of(store, "ann"))
    for path in ("/", GROUP, f"{GROUP}/pause", "/login"):
        browser.get(path)

        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*src=)", browser.text), path


def test_what_is_no_page_is_said_on_a_page(browser: Browser, store: Store) -> None:
    browser.log_in(token_of(store, "ann"))

    assert [404, 404, 405] == [
        browser.get("/apps/none/groups/none").status,
        browser.get("/static/../paths.py").status,
        browser.post("/", {}).status,
    ]
    assert 404 == browser.get("/nothing-of-the-page").status
    assert browser.last is not None
    assert "application/problem+json" == browser.last.headers["content-type"]  # that is the API's to say


def test_open_to_all_the_page_is_open_too_and_still_wants_its_token(
    client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock
) -> None:
    make_app(store, version="2.0.0")
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))

    assert 200 == browser.get(f"{GROUP}/pause").status
    form = browser.fields()
    assert 403 == Browser(browser.application).post(f"{GROUP}/pause", form).status
    assert 303 == browser.post(f"{GROUP}/pause", form).status
    assert "paused" == state_of(store)
