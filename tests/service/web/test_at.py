"""The page of a group as it was: by an age, a revision, a time, and the slider's second."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.model.history import milliseconds
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.store.store import Store
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.browsers import Browser
from tests.support.histories import Instances
from tests.support.in_process import application_over
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON, WallClock

PAGE = f"/apps/{APP}/groups/beta/at"


@pytest.fixture
def revisions(
    fake_etcd: FakeEtcd, client: FakeCluster, store: Store, clock: WallClock
) -> Iterator[list[int]]:  # fmt: skip
    """web-a swaps at noon, runs 2.0.0 a minute later, and leaves after another."""
    make_app(store, version="2.0.0")
    recording = fake_etcd.client("recorder")
    recorder = HistoryRecorder(recording, store.context.keys, clock, flush_s=0.01)
    recorder.start()
    eventually(lambda: recorder._watch is not None)
    web = Instances(client, store.context.keys, lambda name: clock(), app=APP)
    made: list[int] = []

    def is_told(revision: int) -> None:
        eventually(lambda: [one[0] for one in web.told()][-1:] == [revision])
        made.append(revision)
        clock.advance(60)

    is_told(web.is_in("web-a", "swapping.starting"))
    is_told(web.is_in("web-a", "idle.waiting", version="2.0.0", why="<b>all is well"))
    is_told(web.leaves("web-a"))
    yield made
    recorder.close()
    recording.close()


@pytest.fixture
def browser(revisions: list[int], client: FakeCluster, tmp_path: Path, clock: WallClock) -> Browser:
    return Browser(application_over(client, tmp_path, now=clock, open_to_all=True))


def cells(browser: Browser, query: str) -> list[str]:
    """State and version of web-a."""
    assert 200 == browser.get(f"{PAGE}?{query}").status
    return [
        re.sub(r"<[^>]*>", "", one).strip()
        for one in re.findall(r'data-name="(?:state|version)"[^>]*>(.*?)</td>', browser.text)
    ]


def test_a_moment_is_an_age_a_revision_a_time_or_the_sliders_second(browser: Browser, revisions: list[int]) -> None:
    assert ["swapping.starting", "1.0.0"] == cells(browser, f"when={revisions[0]}")
    assert ["swapping.starting", "1.0.0"] == cells(browser, f"t={milliseconds(NOON) // 1000 + 59}")
    assert ["idle.waiting", "2.0.0"] == cells(browser, "when=90s")
    assert ["idle.waiting", "2.0.0"] == cells(browser, "when=2026-11-23T12:01:30Z")
    assert ["away", "2.0.0"] == cells(browser, "")
    assert [] == cells(browser, "when=2d")
    assert "begins later" in browser.text


def test_the_slider_goes_from_the_historys_beginning_to_now(browser: Browser) -> None:
    cells(browser, "when=90s")
    slider = re.search(r'type="range" min="(\d+)" max="(\d+)" step="1" value="(\d+)"', browser.text)

    assert slider is not None
    noon = milliseconds(NOON) // 1000
    assert [noon, noon + 180, noon + 90] == [int(one) for one in slider.groups()]


def test_the_steps_before_and_after_can_be_followed(browser: Browser, revisions: list[int]) -> None:
    cells(browser, f"when={revisions[1]}")

    assert f'rel="prev" href="{PAGE}?when={revisions[0]}"' in browser.text
    assert f'rel="next" href="{PAGE}?when={revisions[2]}"' in browser.text
    cells(browser, f"when={revisions[2]}")
    assert 'rel="next"' not in browser.text


@pytest.mark.parametrize("query", ["when=yesterday", "when=2030-01-01", "t=-1", "t=<script>", "when=%22%3E<b>"])
def test_what_is_no_moment_is_said_and_the_present_is_shown(browser: Browser, query: str) -> None:
    assert ["away", "2.0.0"] == cells(browser, query)
    assert 'class="problem"' in browser.text
    assert "<script>" not in browser.text.replace('<script type="module"', "")


def test_what_an_instance_waits_for_is_escaped(browser: Browser) -> None:
    cells(browser, "when=90s")

    assert "&lt;b&gt;all is well" in browser.text


def test_a_group_without_a_history_says_so_and_a_limited_user_sees_its_apps_alone(
    store: Store, tmp_path: Path, clock: WallClock
) -> None:
    make_app(store)
    other = store.apps.create(label="Other").id
    limited = logged_in(store, tmp_path, clock, "viewer", name="ann", apps=[other])
    assert 403 == limited.get(PAGE).status

    everywhere = logged_in(store, tmp_path, clock, "viewer")
    assert 200 == everywhere.get(PAGE).status
    assert "nothing is recorded of group beta yet" in everywhere.text
    assert 404 == everywhere.get(PAGE.replace("beta", "nowhere")).status
