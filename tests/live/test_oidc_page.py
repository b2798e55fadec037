"""Logging in at a real identity provider with Debian's Chromium, which keeps and sends cookies as browsers do.

The provider is on another site than the page (``localhost`` beside ``127.0.0.1``): the browser comes back from there
without the session's cookie, which is of the page's own site alone.
"""

from collections.abc import Iterator

import pytest

from tests.live.test_oidc import World, trusting
from tests.live.test_page import WITHIN_MS, chromium
from tests.support.chromium import Browser, Page, expect
from tests.support.oidc_provider import PASSWORD
from tests.support.servers import EtcdServer

__all__ = ["chromium"]


@pytest.fixture(scope="module")
def world(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with trusting(etcd_server, tmp_path_factory.mktemp("oidc-page"), "localhost") as world:
        yield world


@pytest.fixture(params=[True, False], ids=["javascript", "no-javascript"])
def has_script(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def person_at(chromium: Browser, world: World, name: str, path: str, *, has_script: bool) -> tuple[Page, list[str]]:
    """A new browser that asked for ``path``, was led to the login, and logged in at the provider as ``name``."""
    page: Page = chromium.new_context(java_script_enabled=has_script).new_page()
    page.set_default_timeout(WITHIN_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(world.url + path)
    page.get_by_role("link", name="Log in at localhost:").click()
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{world.url}/**")
    return page, said


def test_a_person_of_the_provider_logs_in_sees_the_role_and_logs_out(
    chromium: Browser, world: World, has_script: bool
) -> None:
    """
    1. whoever asks for a page without a session is led to the login, and from the provider back to that page
    2. name and role are those that the provider's groups give; an operator has no page of users
    3. after the logout the page asks for a login again, also when the browser goes back
    """
    page, said = person_at(chromium, world, "ann", "/activity", has_script=has_script)

    page.wait_for_url(f"{world.url}/activity")
    expect(page.get_by_role("heading", name="Activity")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator(".who")).to_contain_text("oidc:ann · operator", timeout=WITHIN_MS)
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Users")).to_have_count(0)
    if has_script:
        expect(page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)
    said.clear()  # of the provider's pages, and of the page that was asked for before the login
    page.reload()
    expect(page.locator(".who")).to_contain_text("oidc:ann · operator", timeout=WITHIN_MS)
    assert not said

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{world.url}/login")
    page.goto(f"{world.url}/activity")
    expect(page.get_by_role("link", name="Log in at localhost:")).to_be_visible(timeout=WITHIN_MS)
    expect(page.get_by_role("heading", name="Activity")).to_have_count(0)


def test_a_role_of_some_apps_is_seen_and_keeps_from_the_rest(chromium: Browser, world: World, has_script: bool) -> None:
    page, _ = person_at(chromium, world, "ben", "/", has_script=has_script)

    page.wait_for_url(f"{world.url}/")
    expect(page.locator(".who")).to_contain_text("oidc:ben · viewer", timeout=WITHIN_MS)
    page.goto(f"{world.url}/users")
    expect(page.locator("main")).to_contain_text("admin", timeout=WITHIN_MS)
    expect(page.get_by_role("link", name="Create a user…")).to_have_count(0)


def test_who_has_no_role_is_told_so_and_has_no_session(chromium: Browser, world: World, has_script: bool) -> None:
    page, _ = person_at(chromium, world, "cat", "/", has_script=has_script)

    expect(page.get_by_role("alert")).to_contain_text("oidc:cat has no role here", timeout=WITHIN_MS)
    assert not [one for one in page.context.cookies() if one["name"] == "outrider_session"]
    page.goto(f"{world.url}/activity")
    expect(page.get_by_role("link", name="Log in at localhost:")).to_be_visible(timeout=WITHIN_MS)
