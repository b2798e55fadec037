"""The rollout as lanes, and versions over time: what is drawn of a group's history."""

import functools
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from outrider.model.history import milliseconds
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.history.over_time import GroupPast, Point
from outrider.service.store.store import Store
from outrider.service.web.timeline import style_of
from outrider.service.web.versions import HEIGHT, OTHERS, chart_of, sampled, usual_span
from outrider.statechart import load_sidekick_chart
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.browsers import Browser
from tests.support.histories import Instances
from tests.support.in_process import application_over
from tests.support.service_examples import APP as EXAMPLE
from tests.support.service_examples import make_app
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON, WallClock

MINUTE = 60_000
HOUR_BEFORE_NOON = milliseconds(NOON) - 60 * MINUTE


def past_of(*points: tuple[int, dict[str, int] | None]) -> GroupPast:
    """Minutes after eleven, and how many ran each version from then on."""
    return GroupPast(points=tuple(Point(at=HOUR_BEFORE_NOON + at * MINUTE, counts=counts) for at, counts in points))


def test_every_state_of_the_chart_has_a_colour_of_its_meaning() -> None:
    styles = {leaf.id: style_of(leaf.id) for leaf in load_sidekick_chart().leaves}

    assert {"calm", "fetch", "tone-held", "tone-busy", "tone-bad", "tone-good"} <= set(styles.values())
    assert {"tone-bad"} == {style for state, style in styles.items() if state.startswith("rollback")}
    assert {"calm"} == {style for state, style in styles.items() if state.startswith("idle")}


def test_a_column_has_what_was_so_at_its_end() -> None:
    points = past_of((0, {"1": 2}), (30, {"1": 1, "2": 1}), (40, None)).points

    columns = sampled(points, HOUR_BEFORE_NOON, MINUTE // 4)

    assert [{"1": 2}, {"1": 2}, {"1": 1, "2": 1}, None] == [columns[at] for at in (0, 119, 120, 160)]


def test_layers_stand_on_one_another_to_scale() -> None:
    chart = chart_of(past_of((0, {"1": 4}), (30, {"1": 1, "2": 3})), "1h", "2", NOON)

    old, new = chart.layers
    assert ("1", 0, 4) == (old.version, old.shade, old.most)
    assert ("2", None, 3) == (new.version, new.shade, new.most)
    assert f"M0 0H480V{HEIGHT * 3 // 4}H960V{HEIGHT}H0Z" == old.path
    assert f"M480 0H960V{HEIGHT * 3 // 4}H480Z" == new.path
    assert "at the beginning 4 with 1; at the end 1 with 1, 3 with 2" == chart.words
    assert "" == chart.note


def test_the_picture_stays_the_same_until_a_column_is_over() -> None:
    past = past_of((0, {"1": 4}))

    assert chart_of(past, "1h", "1", NOON - timedelta(seconds=14)) == chart_of(past, "1h", "1", NOON)
    assert chart_of(past, "1h", "1", NOON - timedelta(seconds=16)) != chart_of(past, "1h", "1", NOON)


def test_many_versions_are_few_and_others_and_none_is_lost() -> None:
    chart = chart_of(past_of((0, {f"1.{number}.0": number for number in range(1, 11)})), "1h", "1.10.0", NOON)

    assert ["1.5.0", "1.6.0", "1.7.0", "1.8.0", "1.9.0", "1.10.0", OTHERS] == [layer.version for layer in chart.layers]
    assert chart.most == sum(range(1, 11)) == sum(layer.most for layer in chart.layers)


def test_what_is_not_known_of_the_span_is_said() -> None:
    assert "the history begins at 2026-11-23 11:20 UTC" == chart_of(past_of((20, {"1": 1})), "1h", "", NOON).note
    assert "nothing is recorded of some parts" == chart_of(past_of((-5, {"1": 1}), (9, None)), "1h", "", NOON).note
    assert "nothing is recorded of this time" == chart_of(GroupPast(), "1h", "", NOON).words


def test_a_young_history_is_shown_over_an_hour() -> None:
    assert "1h" == usual_span(past_of((1, {"1": 1})), NOON)
    assert "1d" == usual_span(past_of((-1, {"1": 1})), NOON)
    assert "1d" == usual_span(GroupPast(), NOON)


@pytest.fixture
def instances(client: FakeCluster, store: Store, clock: WallClock) -> Instances:
    make_app(store, version="2.0.0")
    return Instances(client, store.context.keys, lambda name: clock(), app=EXAMPLE)


@pytest.fixture
def recorder(fake_etcd: FakeEtcd, store: Store, clock: WallClock) -> Iterator[HistoryRecorder]:
    recording = fake_etcd.client("recorder")
    recorder = HistoryRecorder(recording, store.context.keys, clock, flush_s=0.01)
    recorder.start()
    eventually(lambda: recorder._watch is not None)
    yield recorder
    recorder.close()
    recording.close()


def lane(text: str, name: str) -> str:
    found = re.search(rf'aria-label="{name}: ([^"]*)"', text)
    assert found is not None, f"no lane {name}"
    return found[1]


def test_a_rollout_is_drawn_as_lanes_of_turns_and_of_instances(
    instances: Instances, recorder: HistoryRecorder, client: FakeCluster, tmp_path: Path, clock: WallClock
) -> None:
    """
    1. web-a waits 3 s for its turn, holds it, starts for 20 s and is done; then web-b has the turn
    2. the page has a lane for the turn with both, one for each instance, and none for web-c, which only serves
    3. the widths are to scale
    """
    instances.is_in("web-c", "idle.waiting")

    def is_last(revision: int) -> bool:
        return [one[0] for one in instances.told()][-1:] == [revision]

    steps: tuple[tuple[int, Callable[[], int]], ...] = (
        (0, lambda: instances.is_in("web-a", "swapping.queueing")),
        (3, lambda: instances.takes_turn("web-a")),
        (0, lambda: instances.is_in("web-a", "swapping.starting")),
        (20, lambda: instances.is_in("web-a", "reporting", version="2.0.0")),
        (0, lambda: instances.ends_turn("web-a")),
        (1, lambda: instances.is_in("web-a", "idle.waiting", version="2.0.0")),
        (0, lambda: instances.takes_turn("web-b")),
        (0, lambda: instances.is_in("web-b", "swapping.starting")),
    )
    for after_s, step in steps:
        clock.advance(after_s)
        eventually(functools.partial(is_last, step()))
    clock.advance(2)
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))

    assert 200 == browser.get(f"/apps/{EXAMPLE}/groups/beta").status

    assert "web-a for 20s, web-b since 12:00:24 UTC" == lane(browser.text, "turn 1")
    said = "swapping.queueing for 3.0s, swapping.starting for 20s, reporting for 1.0s, idle.waiting"
    assert said == lane(browser.text, "web-a")
    assert "swapping.starting since 12:00:24 UTC" == lane(browser.text, "web-b")
    assert 'aria-label="web-c:' not in browser.text
    widths = {
        words: int(width)
        for width, words in re.findall(r'width="(\d+)" height="10" class="[^"]*"><title>([^<]*)<', browser.text)
    }
    assert abs(widths["swapping.starting for 20s"] / widths["swapping.queueing for 3.0s"] - 20 / 3) < 0.5


def test_a_rollout_in_which_nobody_does_anything_ends_at_its_last_change(
    instances: Instances, recorder: HistoryRecorder, client: FakeCluster, tmp_path: Path, clock: WallClock
) -> None:
    """
    1. web-a goes back after 10 s, and an hour passes
    2. the picture is of those seconds, not of the hour
    """
    clock.advance(1)
    instances.is_in("web-a", "rollback.removing")
    eventually(lambda: instances.told()[-1:] != [])
    clock.advance(9)
    last = instances.is_in("web-a", "idle.waiting")
    eventually(lambda: instances.told()[-1][0] == last)
    clock.advance(3600)
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))

    browser.get(f"/apps/{EXAMPLE}/groups/beta")

    assert "rollback.removing for 9.0s, idle.waiting" == lane(browser.text, "web-a")
    assert "last change:" in browser.text
    width = re.search(r'width="(\d+)" height="10" class="tone-bad', browser.text)
    assert width is not None
    assert int(width[1]) > 800


def test_a_span_is_chosen_by_the_address_and_the_filter_keeps_it(
    client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock
) -> None:
    make_app(store)
    browser = logged_in(store, tmp_path, clock, "viewer")

    browser.get(f"/apps/{EXAMPLE}/groups/beta?span=7d")

    assert 'span=7d" aria-current="true"' in browser.text
    assert '<input type="hidden" name="span" value="7d">' in browser.text
    assert 1 == browser.text.count('aria-current="true"')
