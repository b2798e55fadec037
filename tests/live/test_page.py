"""The web page in Debian's Chromium, with a real service, etcd and sidekicks. Its policy is never bypassed.

With OUTRIDER_TEST_SCREENSHOTS=FOLDER the pictures are kept there: those of the documentation are made so.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, GROUP
from tests.live.live_fixture import LiveFixture
from tests.support.chromium import Browser, Page, expect, sync_playwright
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
NAMES = ("web-a", "web-b", "web-c")
PAGE = f"/apps/{APP_ID}/groups/{GROUP}"
LABEL = "Production"
"""What people call the group."""
WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFixture]:
    """Three instances on 1.0.0; 2.0.0 is a package, and no channel points at it."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
        fleet = LiveFixture(folder, list(NAMES), environment={"PYTHONPATH": str(CHECKOUT)})
        try:
            fleet.start()
            fleet.create()
            for name in NAMES:
                fleet.start_sidekick(name)
            eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
            package = build_package(folder, "2.0.0")
            fleet.outrider("package", "create", f"--app-id={APP_ID}", "--version=2.0.0", f"--file={package}")
            yield fleet
        finally:
            fleet.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        skip_or_fail("there is no Chromium: apt-get install chromium")
    if sync_playwright is None:
        skip_or_fail("Playwright isn't installed: make setup")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A tab that somebody is logged in with, and what its console said."""

    def __init__(self, chromium: Browser, fleet: LiveFixture, **options: object) -> None:
        self.url, self.said = fleet.service_url, list[str]()
        self.page: Page = chromium.new_context(**options).new_page()
        self.page.set_default_timeout(WITHIN_MS)
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(fleet.outrider("page").strip())
        self.page.get_by_role("button", name="Log in as").click()
        self.page.wait_for_url(f"{self.url}/")

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)
        expect(self.page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)

    def confirm(self, link: str, button: str, **fields: str) -> None:
        """Click on an action, fill in its form in the dialog, and confirm it."""
        self.page.get_by_role("link", name=re.compile(f"^{link}\\b.*…$")).click()
        dialog = self.page.get_by_role("dialog")
        for label, value in fields.items():
            field = dialog.get_by_label(label, exact=True)
            if field.evaluate("each => each.tagName") == "SELECT":
                field.select_option(value)
            else:
                field.fill(value)
        dialog.get_by_role("button", name=button, exact=True).click()
        expect(dialog).to_be_hidden()

    def expect_rows(self, version: str) -> None:
        """Every row says this version."""
        for name in NAMES:
            cell = self.page.locator(f"#i-{name} [data-name=version]")
            expect(cell).to_have_text(version, timeout=WITHIN_MS)


def shoot(tab: Tab, name: str) -> None:
    folder = os.environ.get("OUTRIDER_TEST_SCREENSHOTS")
    if folder:
        tab.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_an_operator_promotes_pauses_resumes_and_undoes_without_loading_the_page_again(
    chromium: Browser, fleet: LiveFixture
) -> None:
    """
    1. a link of `outrider page` lets the operator in; the group's three rows say 1.0.0
    2. 2.0.0 is promoted in a dialog; three rows change by themselves
    3. pause and resume are said on the page; undo takes the rows back
    4. nothing was loaded again, the console said nothing, and all of it is in the audit log
    5. a restart of the service is survived, with what was typed into the filter
    """
    tab = Tab(chromium, fleet, viewport={"width": 1280, "height": 900})
    tab.open(PAGE)
    tab.expect_rows("1.0.0")
    tab.page.evaluate("window.loadedOnce = true")

    tab.confirm("Promote to", "Promote", Version="2.0.0")
    tab.expect_rows("2.0.0")
    shoot(tab, "page-group")
    tab.confirm("Pause", "Pause", Why="lunch")
    expect(tab.page.locator("#head .chip")).to_have_text("paused")
    tab.confirm("Resume", "Resume")
    expect(tab.page.locator("#head .chip")).to_have_text("up to date")
    tab.confirm("Undo", "Undo", Why="a test")
    tab.expect_rows("1.0.0")

    assert tab.page.evaluate("window.loadedOnce")
    assert not tab.said
    entries = fleet.cluster.list(f"{fleet.keys.prefix}/audit/entries/").entries
    audit = " ".join(entry.value.decode() for entry in entries)
    assert [True] * 4 == [f"POST {PAGE}/{verb}" in audit for verb in ("promote/stable", "pause", "resume", "undo")]

    tab.page.get_by_label("Filter").fill("web-b")
    expect(tab.page.locator("#rows tr")).to_have_count(1)
    fleet.service.kill()
    expect(tab.page.locator("#freshness")).to_contain_text("what you see is old", timeout=WITHIN_MS)
    fleet.start_service()
    expect(tab.page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)
    assert "web-b" == tab.page.get_by_label("Filter").input_value()
    expect(tab.page.locator("#rows tr")).to_have_count(1)
    assert tab.page.evaluate("window.loadedOnce")


def test_six_tabs_of_one_browser_stay_usable(chromium: Browser, fleet: LiveFixture) -> None:
    first = Tab(chromium, fleet)
    first.open(PAGE)
    others = []
    for _ in range(6):
        other = first.page.context.new_page()
        other.set_default_timeout(WITHIN_MS)
        other.goto(first.url + PAGE)
        others.append(other)

    for each in others:
        expect(each.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)
    others[-1].goto(first.url)
    expect(others[-1].get_by_role("heading", name="Overview")).to_be_visible()


def test_the_page_can_be_read_without_javascript(chromium: Browser, fleet: LiveFixture) -> None:
    tab = Tab(chromium, fleet, java_script_enabled=False)

    tab.page.goto(tab.url + PAGE + "?sort=-instance")

    assert [*reversed(NAMES)] == tab.page.locator("#rows tr th").all_inner_texts()
    tab.page.get_by_role("link", name="Pause…").click()
    tab.page.get_by_role("button", name="Pause", exact=True).click()
    expect(tab.page.locator("#head .chip")).to_have_text("paused")
    tab.page.get_by_role("link", name="Resume…").click()
    tab.page.get_by_role("button", name="Resume", exact=True).click()
    expect(tab.page.locator("#notes")).to_contain_text("group")


@pytest.mark.parametrize(
    ("name", "scheme", "width"), [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)]
)
def test_no_page_is_wider_than_its_screen(
    chromium: Browser, fleet: LiveFixture, name: str, scheme: str, width: int
) -> None:
    tab = Tab(chromium, fleet, color_scheme=scheme, viewport={"width": width, "height": 844})
    for path, what in (("/", "overview"), (PAGE, "group"), (f"{PAGE}/policy", "policy")):
        tab.page.goto(tab.url + path)
        if what != "policy":
            expect(tab.page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)
        shoot(tab, f"page-{what}-{name}")

        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert not tab.said


def test_with_the_keyboard_alone_a_group_is_reached_and_a_dialog_is_left(chromium: Browser, fleet: LiveFixture) -> None:
    tab = Tab(chromium, fleet)
    tab.open("/")
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.textContent") == LABEL:
            break
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**{PAGE}")
    expect(tab.page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)

    tab.page.get_by_role("link", name="Promote to").press("Enter")
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    tab.page.keyboard.press("Escape")

    expect(tab.page.get_by_role("dialog")).to_be_hidden()
