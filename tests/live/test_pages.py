"""Every page in Debian's Chromium: no serious fault that axe-core finds, no wider than the screen, upload, users.

The Content-Security-Policy is never bypassed: axe-core is evaluated as a debugger does it, not as a script of the page.
"""

import re
from pathlib import Path

from outrider.demo.fleet import APP_ID
from tests.live.live_fixture import LiveFixture
from tests.live.test_page import NAMES, PAGE, WITHIN_MS, Tab, chromium, fleet, shoot
from tests.support.chromium import Browser, expect

__all__ = ["chromium", "fleet"]
AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
PACKAGES = f"/apps/{APP_ID}/packages"
PAGES = {
    "overview": "/",
    "group": PAGE,
    "at": f"{PAGE}/at",
    "instance": f"{PAGE}/instances/{NAMES[0]}",
    "packages": PACKAGES,
    "activity": "/activity",
    "audit": "/audit",
    "users": "/users",
    "policy": f"{PAGE}/policy",
    "drain": f"{PAGE}/instances/{NAMES[0]}/drain",
    "create-user": "/users/create",
    "not-found": "/users/of/nobody/token",
}


def faults(tab: Tab, *rules: str) -> list[str]:
    """What axe-core finds on the page that is serious or critical, by all its rules or by those."""
    tab.page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = tab.page.evaluate("options => axe.run(document, options)", options)
    assert found["passes"], "axe-core has looked at nothing"
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_axe_finds_a_fault_that_is_there(chromium: Browser, fleet: LiveFixture) -> None:
    tab = Tab(chromium, fleet)
    tab.page.evaluate("document.querySelector('main').append(document.createElement('input'))")

    assert ["critical: label"] == [line[:15] for line in faults(tab)]


def look(tab: Tab, what: str) -> list[str]:
    """What axe-core finds in the light, and of contrasts in the dark; and whether a phone's screen is too narrow."""
    found = faults(tab)
    shoot(tab, f"page-{what}-light")
    tab.page.emulate_media(color_scheme="dark")
    found += [f"dark: {line}" for line in faults(tab, "color-contrast")]
    shoot(tab, f"page-{what}-dark")
    tab.page.emulate_media(color_scheme="light")
    tab.page.set_viewport_size({"width": 390, "height": 844})
    if tab.page.evaluate("document.documentElement.scrollWidth") > 390:
        found.append("wider than a phone")
    shoot(tab, f"page-{what}-phone")
    tab.page.set_viewport_size({"width": 1280, "height": 844})
    return found


def test_axe_finds_no_serious_fault_on_any_page(chromium: Browser, fleet: LiveFixture) -> None:
    tab = Tab(chromium, fleet, viewport={"width": 1280, "height": 844})
    found = {}
    for what, path in PAGES.items():
        tab.page.goto(tab.url + path)
        if tab.page.locator("main[data-stream]").count():
            expect(tab.page.locator("#freshness")).to_have_text("live", timeout=WITHIN_MS)
        tab.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found[what] = look(tab, what)
    tab.page.goto(tab.url + PAGE)
    tab.page.get_by_role("link", name="Undo…").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    found["dialog"] = look(tab, "dialog")

    assert {} == {what: lines for what, lines in found.items() if lines}
    assert not [line for line in tab.said if "404" not in line]  # the browser says that a page was not found


def test_a_file_is_uploaded_with_and_without_javascript(chromium: Browser, fleet: LiveFixture, tmp_path: Path) -> None:
    """
    1. with JavaScript the row appears on the live page, which is not loaded again
    2. without it the same form leads to the page, which says what was made
    """
    file = tmp_path / "web.tar"
    file.write_bytes(b"outrider" * 500_000)
    tab = Tab(chromium, fleet)
    tab.open(PACKAGES)
    tab.page.evaluate("window.loadedOnce = true")
    for script, version in ((True, "3.0.0"), (False, "3.1.0")):
        tab = tab if script else Tab(chromium, fleet, java_script_enabled=False)
        if not script:
            tab.page.goto(tab.url + PACKAGES)
        tab.page.get_by_text("Upload a package").click()
        tab.page.get_by_label("Version").fill(version)
        tab.page.get_by_label("Release notes").fill("what is new")
        tab.page.get_by_label("File").set_input_files(file)
        tab.page.get_by_role("button", name="Upload").click()

        expect(tab.page.locator("#notes")).to_contain_text(f"package {version}: web.tar, 4000000 bytes")
        expect(tab.page.locator(f"[id='p-{version}']")).to_contain_text("what is new", timeout=WITHIN_MS)
        if script:
            assert tab.page.evaluate("window.loadedOnce")
            assert not tab.said


def test_an_instance_tells_its_last_update_and_is_found_from_its_group(chromium: Browser, fleet: LiveFixture) -> None:
    tab = Tab(chromium, fleet)
    tab.open(PAGE)

    tab.page.get_by_role("link", name=NAMES[0], exact=True).click()

    tab.page.wait_for_url(f"**{PAGE}/instances/{NAMES[0]}")
    expect(tab.page.locator("#reports")).to_contain_text("running")
    expect(tab.page.locator("#story")).to_contain_text("revision")
    tab.page.get_by_text("Its way through the statechart").click()
    drawn = tab.page.locator("details img")
    drawn.scroll_into_view_if_needed()
    expect(drawn).to_have_js_property("complete", True)
    assert drawn.evaluate("each => each.naturalWidth") > 100


def test_the_slider_shows_the_group_as_it_was_without_loading_the_page_again(
    chromium: Browser, fleet: LiveFixture
) -> None:
    """
    1. moved to its left end, the slider shows the beginning of the history, and the address says so
    2. the step after leads on; without JavaScript the slider is a form
    """
    tab = Tab(chromium, fleet)
    tab.page.goto(f"{tab.url}{PAGE}/at")
    tab.page.evaluate("window.loadedOnce = true")
    shown = tab.page.locator("#then h2")
    now = shown.inner_text()

    tab.page.get_by_label("Time").press("Home")
    expect(shown).not_to_have_text(now, timeout=WITHIN_MS)
    tab.page.wait_for_url("**/at?t=*")
    assert tab.page.evaluate("window.loadedOnce")
    tab.page.get_by_role("link", name="Step after").click()
    tab.page.wait_for_url("**/at?when=*")
    assert not tab.said

    plain = Tab(chromium, fleet, java_script_enabled=False)
    plain.page.goto(f"{plain.url}{PAGE}/at?when=1s")
    plain.page.get_by_role("button", name="Show").first.click()
    plain.page.wait_for_url("**/at?t=*")
    expect(plain.page.locator("#then")).to_contain_text("UTC")


def test_the_first_users_token_is_shown_once_and_lets_in(chromium: Browser, fleet: LiveFixture) -> None:
    """The last test of the file: from the first user on, nobody comes in without a token."""
    tab = Tab(chromium, fleet)
    tab.open("/users")
    tab.page.get_by_role("link", name="Create a user…").click()
    tab.page.get_by_label("Name").fill("ann")
    tab.page.get_by_label("Role").select_option("admin")
    tab.page.get_by_role("button", name="Create").click()
    expect(tab.page.get_by_text("token, shown only now")).to_be_visible()
    token = re.search(r"or_[\w-]{40,}", tab.page.content())
    assert token is not None

    tab.page.goto(f"{tab.url}/login")
    tab.page.get_by_label("Your token").fill(token[0])
    tab.page.get_by_role("button", name="Log in").click()
    tab.page.wait_for_url(f"{tab.url}/")
    tab.page.get_by_role("link", name="Users").click()

    expect(tab.page.locator("#u-ann")).to_contain_text("admin", timeout=WITHIN_MS)
    assert token[0] not in tab.page.content()
    assert [] == faults(tab)
    shoot(tab, "page-users-one")
