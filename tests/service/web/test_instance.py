"""The page of an instance: what it shows, to whom, and what of it is escaped."""

from datetime import timedelta
from pathlib import Path

import pytest

from outrider.model.documents import Happening, Instance, encode
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.store.store import Store
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.browsers import Browser
from tests.support.histories import APP as SHOP
from tests.support.histories import Instances
from tests.support.in_process import application_over
from tests.support.service_examples import APP, be_alive, make_app, put
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

GROUP = f"/apps/{APP}/groups/beta"
PAGE = f"{GROUP}/instances/web-1"


@pytest.fixture
def browser(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """An operator, and an instance that has updated once and failed once."""
    make_app(store, version="2.0.0")
    be_alive(store, "web-1", clock(), labels={"rack": "<b>7</b>"}, why="<script>alert(1)</script>", state="idle.waking")
    events = (("13:1", 0, "1.0.0", 0), ("14:1", 3, "1.0.0", 0), ("3:2", 90, "2.0.0", 0), ("3:0", 300, "2.0.0", 44))
    history = tuple(
        Happening(at=clock() + timedelta(seconds=after_s), version=version, event=event, error_code=code)
        for event, after_s, version, code in events
    )
    row = Instance(
        app=APP, id="web-1", group="beta", version="1.0.0", first_seen=clock(), last_seen=clock(), history=history,
        had_sidekick=True, alias='"><img src=x>',
    )  # fmt: skip
    put(client, store.context.keys.instance(APP, "web-1"), encode(row))
    return Browser(application_over(client, tmp_path, now=clock, open_to_all=True))


def test_what_an_instance_reported_is_told_with_how_long_each_took(browser: Browser) -> None:
    assert 200 == browser.get(PAGE).status

    rows = browser.text[browser.text.index('id="reports"') :]
    assert ["failed: rolled back (error code 44)", "running", "verified", "downloading"] == sorted(
        ("downloading", "verified", "running", "failed: rolled back (error code 44)"), key=rows.index
    )
    assert 'data-name="until the next">3s<' in rows
    assert 'data-name="until the next">87s<' in rows


def test_an_instance_can_not_write_into_the_page(browser: Browser) -> None:
    browser.get(PAGE)

    assert not {word for word in ("<script>alert", "<b>7", "<img src=x") if word in browser.text}
    assert "&lt;script&gt;alert" in browser.text
    assert "&lt;b&gt;7" in browser.text


def test_an_instance_without_a_history_says_so_and_is_drawn_where_it_is(browser: Browser) -> None:
    browser.get(PAGE)

    assert "nothing is recorded of group beta yet" in browser.text
    drawn = browser.get(f"{PAGE}/statechart.svg?theme=dark")
    assert (200, "image/svg+xml") == (drawn.status, drawn.headers["content-type"])
    assert b">now<" in drawn.body


def test_commands_are_for_operators_and_an_instance_that_is_not_there_is_not_found(
    browser: Browser, store: Store, tmp_path: Path, clock: WallClock
) -> None:
    browser.get(PAGE)
    assert f'href="{PAGE}/drain"' in browser.text
    assert 404 == browser.get(f"{GROUP}/instances/nobody").status
    assert 404 == browser.get(f"{GROUP}/instances/nobody/statechart.svg").status

    browser = logged_in(store, tmp_path, clock, "viewer")
    browser.get(PAGE)

    assert "eve · viewer" in browser.text
    assert f'href="{PAGE}/drain"' not in browser.text


def test_a_limited_user_sees_instances_of_its_apps_alone(store: Store, tmp_path: Path, clock: WallClock) -> None:
    make_app(store)
    be_alive(store, "web-1", clock())
    other = store.apps.create(label="Other").id
    browser = logged_in(store, tmp_path, clock, "operator", apps=[other])

    assert 403 == browser.get(PAGE).status
    assert 403 == browser.get(f"{PAGE}/statechart.svg").status


def test_its_last_update_is_told_from_the_history_and_drawn(
    fake_etcd: FakeEtcd, client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock
) -> None:
    """
    1. web-a has been in two states of a swap, with a local step, and web-b in one
    2. its page tells its own two, in order, how long the first took, and nothing of web-b
    3. the drawing has its steps in the states
    """
    instances, recording = Instances(client, store.context.keys, lambda name: clock()), fake_etcd.client("recorder")
    recorder = HistoryRecorder(recording, store.context.keys, clock, flush_s=0.01)
    recorder.start()
    try:
        eventually(lambda: recorder._watch is not None)
        instances.target("2.0.0")
        instances.is_in("web-b", "swapping.queueing")
        last = instances.is_in("web-a", "swapping.queueing")
        eventually(lambda: [step[0] for step in instances.told()][-1:] == [last])
        clock.advance(7)
        last = instances.is_in("web-a", "swapping.starting")
        eventually(lambda: [step[0] for step in instances.told()][-1:] == [last])
    finally:
        recorder.close()
        recording.close()
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))
    page = f"/apps/{SHOP}/groups/beta/instances/web-a"

    assert 200 == browser.get(page).status
    story = browser.text[browser.text.index('id="story"') :]
    assert "Last update: 2.0.0" in story
    places = [story.index(words) for words in ("target: 2.0.0", "swapping.queueing", "<strong>7s", "swapping.starting")]
    assert sorted(places) == places
    assert 1 == story.count("swapping.queueing")
    drawn = browser.get(f"{page}/statechart.svg").body
    assert b">step 1, 7s<" in drawn
    assert b">step 2<" in drawn
