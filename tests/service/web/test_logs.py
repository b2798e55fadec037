"""The pages of activity and audit: filters, paging, roles, and what is escaped."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from outrider.model.activity import Activity, Severity, activity_key
from outrider.model.documents import encode
from outrider.service.history.webhooks import Webhooks
from outrider.service.store.request import Principal, RequestContext
from outrider.service.store.store import Store, open_stores
from outrider.service.web.pages.activity import ON_A_PAGE
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster
from tests.support.browsers import Browser
from tests.support.in_process import application_over
from tests.support.service_examples import APP, LOOPBACK, make_app, put
from tests.support.wall_clock import WallClock


@pytest.fixture
def browser(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """An operator who looks at one app."""
    make_app(store)
    return Browser(application_over(client, tmp_path, now=clock, open_to_all=True))


def happen(store: Store, clock: WallClock, number: int, text: str, **facts: object) -> None:
    severity: Severity = "warning" if number % 2 else "info"
    event = Activity(at=clock() + timedelta(seconds=number), severity=severity, kind="noted", app=APP, text=text)
    event = type(event)(**{name: getattr(event, name) for name in event.__struct_fields__} | facts)
    put(store.context.cluster, activity_key(store.context.keys, event, number), encode(event))


def change(client: FakeCluster, clock: WallClock, who: str, channel: str) -> None:
    """Somebody makes a channel, a second after what was before."""
    clock.advance(1)
    asked = RequestContext(
        principal=Principal(name=who, role="operator", address="10.1.1.1"), did="a test", request_id="r1"
    )
    open_stores(client, now=clock).on_behalf_of(asked).channels.create(APP, channel)


def told(browser: Browser, pattern: str = r"<br>(event \d+)") -> list[str]:
    return re.findall(pattern, browser.text)


def older(browser: Browser) -> str | None:
    found = re.search(r'href="([^"]*)">Older<', browser.text)
    return None if found is None else found[1].replace("&amp;", "&")


def test_activity_is_told_page_by_page_without_a_gap(browser: Browser, store: Store, clock: WallClock) -> None:
    for number in range(ON_A_PAGE + 3):
        happen(store, clock, number, f"event {number}")

    assert 200 == browser.get("/activity").status
    first, following = told(browser), older(browser)
    assert following is not None
    assert 200 == browser.get(following).status
    second = told(browser)

    assert ON_A_PAGE == len(first)
    assert [f"event {number}" for number in reversed(range(ON_A_PAGE + 3))] == first + second
    assert older(browser) is None
    assert ">Newest<" in browser.text


def test_activity_is_filtered(browser: Browser, store: Store, clock: WallClock) -> None:
    happen(store, clock, 1, "event 1", group="beta")
    happen(store, clock, 2, "event 2", group="beta", instance="web-1")
    happen(store, clock, 3, "event 3", kind="other")

    def asked(query: str) -> list[str]:
        assert 200 == browser.get(f"/activity?{query}").status
        return told(browser)

    assert ["event 3", "event 1"] == asked("severity=warning")
    assert ["event 2", "event 1"] == asked("group=beta")
    assert ["event 2"] == asked("instance=web-1")
    assert ["event 3"] == asked("kind=other")
    assert [] == asked("since=2099-01-01")
    assert [] == asked("kind=%22%3E%3Cscript%3E")
    assert "<script>" not in browser.text.replace('<script type="module"', "")


@pytest.mark.parametrize("page", ["/activity", "/audit"])
@pytest.mark.parametrize("query", ["after=***", "since=yesterday", "app=%00", "severity=bad"])
def test_what_a_query_says_wrongly_is_said(browser: Browser, page: str, query: str) -> None:
    if page == "/audit" and query.startswith("severity"):
        query = "after=%FF"
    answer = browser.get(f"{page}?{query}")

    assert 400 <= answer.status < 500
    assert 'class="problem"' in browser.text


def test_what_happened_can_not_write_into_the_page(browser: Browser, store: Store, clock: WallClock) -> None:
    happen(store, clock, 1, "<img src=x>", group="<b>", instance='"><i>', by="<u>")

    assert 200 == browser.get("/activity").status

    assert not {word for word in ("<img src=x>", "<b>", "<i>", "<u>") if word in browser.text}


def test_a_limited_user_sees_its_own_apps_alone(
    store: Store, client: FakeCluster, clock: WallClock, tmp_path: Path
) -> None:
    make_app(store)
    other = store.apps.create(label="Other").id
    happen(store, clock, 1, "event 1")
    happen(store, clock, 2, "event 2", app=other)
    change(client, clock, "ann", "edge")
    browser = logged_in(store, tmp_path, clock, "viewer", apps=[other])

    assert 200 == browser.get("/activity").status
    assert ["event 2"] == told(browser)
    assert 200 == browser.get("/audit").status
    assert "edge" not in browser.text
    for page in ("/activity", "/audit", "/live/activity"):
        assert 403 == browser.get(f"{page}?app={APP}").status


def test_the_audit_log_says_who_changed_what_with_both_sides(
    browser: Browser, client: FakeCluster, clock: WallClock
) -> None:
    change(client, clock, "ann", "edge")
    change(client, clock, "bob", "nightly")

    assert 200 == browser.get("/audit").status
    assert browser.text.index("nightly") < browser.text.index("edge")
    assert "ann · operator" in browser.text
    assert "10.1.1.1" in browser.text
    assert "<ins>edge</ins>" in browser.text

    browser.get("/audit?who=ann")
    assert "nightly" not in browser.text
    browser.get("/audit?noun=group")
    assert "nothing was found" in browser.text


def test_the_audit_log_is_told_page_by_page_without_a_gap(
    browser: Browser, client: FakeCluster, clock: WallClock
) -> None:
    for number in range(ON_A_PAGE + 2):
        change(client, clock, "ann", f"c{number}")
    pattern = r"<strong>(c\d+)</strong>"

    browser.get("/audit?who=ann")
    first, following = told(browser, pattern), older(browser)
    assert following is not None
    assert "who=ann" in following
    browser.get(following)

    assert ON_A_PAGE == len(first)
    assert [f"c{number}" for number in reversed(range(ON_A_PAGE + 2))] == first + told(browser, pattern)
    assert older(browser) is None


def test_the_address_of_a_webhook_is_masked_for_a_viewer(
    browser: Browser, store: Store, client: FakeCluster, clock: WallClock, tmp_path: Path
) -> None:
    stores = open_stores(client, now=clock)
    asked = RequestContext(principal=Principal(name="ann", role="operator"), did="a test", request_id="r1")
    hooks = Webhooks(context=stores.context, auditing=stores.audited(asked), destinations=LOOPBACK, most=9)
    hooks.create("ops", "http://127.0.0.1/deep-secret", app="", least="info", kind="webhook", secret="")

    browser.get("/audit?noun=webhook")
    assert "deep-secret" in browser.text
    browser = logged_in(store, tmp_path, clock, "viewer")
    browser.get("/audit?noun=webhook")

    assert "ops" in browser.text
    assert "deep-secret" not in browser.text


def test_a_change_comes_to_an_open_audit_page_as_the_first_row(
    browser: Browser, client: FakeCluster, clock: WallClock
) -> None:
    change(client, clock, "ann", "edge")
    first = browser.get("/live/audit", accept="application/json")
    had = json.loads(first.body)
    clock.advance(1)
    browser.application.state.web.live._turns.clear()  # type: ignore[attr-defined] # as if its time was over
    change(client, clock, "bob", "nightly")

    told = json.loads(browser.get(f"/live/audit?have={had['have']}", accept="application/json").body)

    assert had["lists"]["changes"] == told["lists"]["changes"][1:]
    assert {told["lists"]["changes"][0]} == told["html"].keys()
    assert "nightly" in told["html"][told["lists"]["changes"][0]]
