"""The page of a group of 1,000 living instances in Chromium: ``make bench-page``, a quarter of an hour.

Real etcd and service; the instances are what a thousand sidekicks have in etcd, under one lease. Ten of them are in
another state each second, as in a busy rollout.

- *first paint*: from the request to the first contents on the screen, over loopback
- *update*: from the write in etcd until the screen shows it
- *heap*, *nodes*: JavaScript's heap and the nodes of the document after a collection of garbage, at minute 1 and later
"""

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.live.live_fixture import LiveFixture
from tests.support.chromium import Page, sync_playwright
from tests.support.servers import etcd_binary

from outrider.demo.fleet import APP_ID, GROUP
from outrider.etcd.seam import Put
from outrider.model.documents import Presence, encode

ROOT = Path(__file__).parent.parent
INSTANCES = 1_000
PER_S = 10
FIRST_PAINT_S, UPDATE_S, GROWTH = 1.5, 1.0, 0.10
"""The budgets: of a median; of a growth, from minute 1 to the end."""
STATES = (
    "downloading.fetching",
    "verifying",
    "swapping.queueing",
    "swapping.starting",
    "swapping.probing",
    "idle.waiting",
)
LEASE_S = 7200.0


@dataclass(frozen=True)
class Memory:
    heap_bytes: int
    nodes: int


class Instances:
    """What the sidekicks of a group have in etcd."""

    def __init__(self, fixture: LiveFixture, known: int) -> None:
        self.fixture, self.known, self.lease = fixture, known, fixture.cluster.grant(LEASE_S)
        self.ended = threading.Event()

    def put(self, number: int, state: str, version: str, why: str = "") -> None:
        name = f"web-{number:04}"
        presence = Presence(
            instance=name,
            app=APP_ID,
            group=GROUP,
            state=state,
            version=version,
            wanted="2.0.0",
            process=f"{number:032x}",
            since=datetime.now(UTC),
            serving=True,
            why=why,
            machine=f"machine-{number:04}",
        )
        key = self.fixture.keys.presence(APP_ID, GROUP, name)
        self.fixture.cluster.txn((), (Put(key=key, value=encode(presence), lease=self.lease),))

    def are_busy(self) -> None:
        """They go from state to state, until ``ended``."""
        for number in itertools.count():
            instance, stay = number // len(STATES) % (self.known - 1), number % len(STATES)
            version = "2.0.0" if stay == len(STATES) - 1 else "1.0.0"
            self.put(instance, STATES[stay], version, why=f"step {number}")
            if self.ended.wait(1 / PER_S):
                return


def first_paints(page: Page, url: str, times: int) -> list[float]:
    found = []
    for _ in range(times):
        page.goto(url)
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        found.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000)
    return found


def updates(page: Page, instances: Instances, times: int) -> list[float]:
    """Seconds until the last row says what was written."""
    found = []
    for number in range(times):
        words = f"update {number}"
        began = time.monotonic()
        instances.put(instances.known - 1, "swapping.soaking", "1.0.0", why=words)
        page.wait_for_function(
            "([row, words]) => document.getElementById(row).textContent.includes(words)",
            arg=[f"i-web-{instances.known - 1:04}", words],
        )
        found.append(time.monotonic() - began)
        time.sleep(0.5)
    return found


def memory(page: Page) -> Memory:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return Memory(heap_bytes=int(found["JSHeapUsedSize"]), nodes=int(found["Nodes"]))


def measure(known: int, minutes: float) -> list[str]:
    """Measure, print, and return what is beyond its budget."""
    folder = Path(tempfile.mkdtemp(prefix="outrider-bench-"))
    fixture = LiveFixture(folder, (), environment={"PYTHONPATH": str(ROOT)})
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no Chromium: apt-get install chromium")
    try:
        fixture.start()
        fixture.create()
        fixture.publish("2.0.0")
        instances = Instances(fixture, known)
        for number in range(known):
            instances.put(number, "idle.waiting", "1.0.0")
        assert sync_playwright is not None, "make bench-page installs it"
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.set_default_timeout(120_000)
            page.goto(fixture.outrider("page").strip())
            page.get_by_role("button", name="Log in as").click()
            page.wait_for_url(f"{fixture.service_url}/")
            url = f"{fixture.service_url}/apps/{APP_ID}/groups/{GROUP}"
            paints = first_paints(page, url, 7)
            page.wait_for_function("document.getElementById('freshness').textContent === 'live'")
            print(f"first paints: {', '.join(f'{one:.2f}' for one in paints)} s", file=sys.stderr, flush=True)
            quiet = updates(page, instances, 10)
            busy = threading.Thread(target=instances.are_busy)
            busy.start()
            try:
                began = time.monotonic()
                time.sleep(60)
                first = memory(page)
                under_load = updates(page, instances, 10)
                time.sleep(max(0.0, 60 * minutes - (time.monotonic() - began)))
                last = memory(page)
                rows = page.locator("#rows tr").count()
            finally:
                instances.ended.set()
                busy.join()
            browser.close()
    finally:
        fixture.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if rows != known:
        raise SystemExit(f"the page has {rows} rows of {known}")
    lines = [
        ("first paint", statistics.median(paints), f"{max(paints):.2f} s at most", FIRST_PAINT_S),
        ("update, quiet group", statistics.median(quiet), f"{max(quiet):.2f} s at most", UPDATE_S),
        ("update, busy rollout", statistics.median(under_load), f"{max(under_load):.2f} s at most", UPDATE_S),
    ]
    bad = []
    for what, median_s, more, budget_s in lines:
        print(f"{what:22} {median_s:6.2f} s  ({more}; budget {budget_s} s)")
        if median_s > budget_s:
            bad.append(what)
    for what, before, after in (("heap", first.heap_bytes, last.heap_bytes), ("nodes", first.nodes, last.nodes)):
        growth = after / before - 1
        print(f"{what:22} {growth:+6.1%}  ({before} at minute 1, {after} at minute {minutes:g}; budget {GROWTH:+.0%})")
        if growth > GROWTH:
            bad.append(what)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=INSTANCES, help="the budgets are for the default")
    parser.add_argument("--minutes", type=float, default=10, help="of the busy rollout")
    arguments = parser.parse_args()
    os.environ["OUTRIDER_DEMO_ETCD"] = str(etcd_binary())
    bad = measure(arguments.instances, arguments.minutes)
    if bad:
        print(f"beyond the budget: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
