"""Every action of the page in Chromium, with real sidekicks: each says what it does and to how many, then asks.

A second tab has the audit log open all the time: each action is its first row, without the page being loaded again.
"""

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP
from outrider.model.documents import Served, decode
from tests.live.live_fixture import HEALTHY_ANSWERS, LiveFixture
from tests.live.test_page import CHECKOUT, NAMES, PAGE, WITHIN_MS, Tab, chromium
from tests.support.chromium import Browser, expect
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

__all__ = ["chromium"]
RELEASES = {"2.0.0": "good", "3.0.0": "unhealthy"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFixture]:
    """Three instances on 1.0.0; 2.0.0 is good, 3.0.0 never proves healthy, and no channel points at either."""
    folder = tmp_path_factory.mktemp("actions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
        fleet = LiveFixture(folder, list(NAMES), environment={"PYTHONPATH": str(CHECKOUT)})
        try:
            fleet.start()
            fleet.create()
            for name in NAMES:
                fleet.start_sidekick(name)
            eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
            for version, kind in RELEASES.items():
                package = build_package(folder, version, healthy_answers=HEALTHY_ANSWERS[kind])
                fleet.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
            yield fleet
        finally:
            fleet.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet_on_two(fleet: LiveFixture) -> LiveFixture:
    """The fleet with 2.0.0 finished, whichever tests ran before: a worker may be given one of them alone."""
    fleet.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", "--version=2.0.0")
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=180, every_s=0.2)
    key = fleet.keys.served(APP_ID, GROUP)

    def is_booked() -> bool:
        entry = fleet.cluster.get(key)
        return entry is not None and "2.0.0" in decode(Served, key, entry.value).versions

    eventually(is_booked, within_s=60, every_s=0.2)
    return fleet


class Operator:
    """Two tabs: the group, and the audit log."""

    def __init__(self, chromium: Browser, fleet: LiveFixture) -> None:
        self.group, self.audit = Tab(chromium, fleet, viewport={"width": 1280, "height": 900}), Tab(chromium, fleet)
        self.group.open(PAGE)
        self.audit.open("/audit")
        for tab in (self.group, self.audit):
            tab.page.evaluate("window.loadedOnce = true")

    def does(
        self, link: str, *, says: str, instances: int | None, path: str, fields: dict[str, str] | None = None
    ) -> None:
        """Click on an action; read what it says; confirm it; find it in the audit log."""
        page = self.group.page
        page.get_by_role("link", name=re.compile(f"^{link}$")).first.click()
        dialog = page.get_by_role("dialog")
        for label, value in (fields or {}).items():
            field = dialog.get_by_label(label, exact=True)
            if field.evaluate("each => each.tagName") == "SELECT":
                field.select_option(value)
            else:
                field.fill(value)
        expect(dialog.locator(".effect")).to_contain_text(re.compile(says), timeout=WITHIN_MS)
        if instances is not None:
            expect(dialog.locator(".instances")).to_contain_text(f"{instances} instance")
        dialog.locator(".buttons button").click()
        expect(dialog).to_be_hidden()
        row = self.audit.page.locator("#changes tr", has_text=f"POST {PAGE}/{path}")
        expect(row.first).to_be_visible(timeout=WITHIN_MS)

    def sees(self, where: str, words: str) -> None:
        expect(self.group.page.locator(where)).to_contain_text(words, timeout=WITHIN_MS)

    def finds_nothing_wrong(self) -> None:
        for tab in (self.group, self.audit):
            assert tab.page.evaluate("window.loadedOnce")
            assert not tab.said


def policy_of(operator: Operator) -> dict[str, object]:
    """What the policy's form says, read as somebody reads it."""
    page = operator.group.page
    page.get_by_role("link", name="Change the policy…").click()
    text = page.get_by_role("dialog").get_by_label("Policy", exact=True).input_value()
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    policy: dict[str, object] = json.loads(text)
    return policy


def test_a_release_that_needs_approval_is_rejected_then_approved_and_an_instance_drained(
    chromium: Browser, fleet: LiveFixture
) -> None:
    """
    1. the policy's form says what is wrong while somebody types, and takes what is right
    2. 2.0.0 is promoted, waits, is rejected, then approved; three rows change
    3. halt and resume; drain and undrain an instance; retry it
    4. the environment's form shows what would be different, and rolls it out
    5. all of it is in the audit log, which follows by itself; nothing was loaded again
    """
    operator = Operator(chromium, fleet)
    policy = policy_of(operator)
    page = operator.group.page
    page.get_by_role("link", name="Change the policy…").click()
    page.get_by_label("Policy", exact=True).press_sequentially("!")
    expect(page.locator("[data-lint-result] li")).not_to_have_count(0, timeout=WITHIN_MS)
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    asks = {"Policy": json.dumps(policy | {"approval": True})}
    operator.does("Change the policy…", says="policy of 3 instances", instances=3, path="policy", fields=asks)
    operator.sees("#policy", "approval")

    operator.does(
        "Promote to .*…", says="1.0.0 → 2.0.0", instances=3, path="promote/stable", fields={"Version": "2.0.0"}
    )
    operator.sees("#head .chip", "waits for approval")
    operator.does("Reject…", says="keep what they run", instances=3, path="reject", fields={"Why": "not today"})
    operator.sees("#head", "1.0.0")
    operator.does("Approve…", says="update as the policy allows", instances=3, path="approve")
    if page.get_by_role("link", name="Resume…").count():
        operator.does("Resume…", says="update as the policy allows", instances=3, path="resume")
    operator.group.expect_rows("2.0.0")
    operator.sees("#head .chip", "up to date")

    operator.does("Halt…", says="keep what they run until it is resumed", instances=0, path="halt")
    operator.sees("#head .chip", "halted")
    operator.does("Resume…", says="update as the policy allows", instances=0, path="resume")
    operator.sees("#head .chip", "up to date")

    one = f"instances/{NAMES[0]}"
    operator.does(f"Drain {NAMES[0]}", says="2 of 3 serve then", instances=1, path=f"{one}/drain")
    operator.sees(f"#i-{NAMES[0]} [data-name=state]", "drained")
    operator.does(f"Undrain {NAMES[0]}", says="comes back into the balancer", instances=1, path=f"{one}/undrain")
    operator.sees(f"#i-{NAMES[0]} [data-name=state]", "waiting")
    operator.does(f"Retry {NAMES[0]}", says="tries again what failed", instances=1, path=f"{one}/retry")
    operator.sees("#notes", f"retry requested for {NAMES[0]}")

    operator.does(
        "Change the environment…",
        says="COLOUR: .not there. → green",
        instances=None,
        path="environment",
        fields={"Variables": "COLOUR=green"},
    )
    operator.sees("#policy", "environment")
    operator.does(
        "Change the policy…", says="policy", instances=3, path="policy", fields={"Policy": json.dumps(policy)}
    )
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=120, every_s=0.2)
    operator.finds_nothing_wrong()


def test_a_bad_release_leaves_a_turn_behind_is_blocked_unblocked_and_undone(
    chromium: Browser, fleet_on_two: LiveFixture
) -> None:
    """
    1. 3.0.0 is promoted; the sidekick that holds the turn is killed while it probes
    2. the page says whose turn was left behind; releasing it lets the next instance try, which blocks 3.0.0
    3. unblock lifts that; 3.0.0 is blocked again, and undo takes the group back to 2.0.0
    """
    fleet = fleet_on_two
    operator = Operator(chromium, fleet)
    operator.does("Promote to .*…", says="→ 3.0.0", instances=3, path="promote/stable", fields={"Version": "3.0.0"})

    def holder() -> str:
        return next((name for name, one in fleet.presences().items() if one.state == "swapping.probing"), "")

    killed = eventually(holder, within_s=120)
    fleet.sidekicks[killed].kill()
    operator.sees("#turns .turn-dirty", killed)
    operator.does("Release…", says=f"{killed} loses its turn", instances=1, path="turns/0/release")
    expect(operator.group.page.locator("#turns .turn-dirty")).to_have_count(0, timeout=WITHIN_MS)
    operator.sees("#head .chip", "target blocked")
    operator.sees("#why", "blocked by")

    operator.does("Unblock 3.0.0.*…", says="blocked 3.0.0", instances=3, path="unblock/")
    operator.does("Undo…", says="goes back from 3.0.0.* to 2.0.0", instances=None, path="undo", fields={"Why": "bad"})
    operator.sees("#head", "2.0.0")

    fleet.start_sidekick(killed)
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=180, every_s=0.2)
    operator.sees("#head .chip", "up to date")
    for name in NAMES:
        operator.sees(f"#i-{name} [data-name=version]", "2.0.0")
    operator.finds_nothing_wrong()
