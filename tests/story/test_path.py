"""The way that an update took, as it is marked in a picture of the statechart."""

from pathlib import Path

import pytest

from outrider.core.chart.model import Chart
from outrider.statechart import load_sidekick_chart
from outrider.story import StoryError, read_lines
from outrider.story.path import last_path

JOURNALS = Path(__file__).parent.parent / "data" / "journals"


@pytest.fixture(scope="module")
def chart() -> Chart:
    return load_sidekick_chart()


@pytest.mark.parametrize("journal", sorted(JOURNALS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_each_stay_follows_from_a_transition_that_was_taken(chart: Chart, journal: Path) -> None:
    lines = read_lines(journal)

    path = last_path(lines, chart)

    ways = {(one.source, one.line): one for one in chart.transitions}
    left = {leaf for leaf, _ in path.taken}
    assert {stay.state for stay in path.stays[:-1]} <= left
    for leaf, line in path.taken:
        (way,) = (way for (_, number), way in ways.items() if number == line)
        assert chart.within(leaf, way.source)
    assert "checking" == path.stays[0].state
    assert lines[-1].record.target == path.stays[-1].state
    assert all(stay.seconds is not None and 0 <= stay.seconds < 60 for stay in path.stays[:-1])
    assert path.stays[-1].seconds is None


def test_what_a_step_passes_on_its_way_is_taken_too(chart: Chart) -> None:
    path = last_path(read_lines(JOURNALS / "good_update.jsonl"), chart)

    taken = {(way.source, way.target) for way in chart.transitions for _, line in path.taken if way.line == line}
    assert {("swapping.soaking", "swapping.committing"), ("swapping.committing", "swapping.retiring")} <= taken
    assert ("swapping.soaking", "swapping.analysing") not in taken


def test_a_bad_release_leaves_the_path_where_its_health_check_fails(chart: Chart) -> None:
    path = last_path(read_lines(JOURNALS / "bad_release.jsonl"), chart)

    states = [stay.state for stay in path.stays]
    assert ["swapping.probing", "rollback.removing", "rollback.blocking", "reporting"] == states[-5:-1]
    failed = [way for way in chart.states["swapping.probing"].transitions if "probe.failed" in way.events]
    taken = [way for way in failed if ("swapping.probing", way.line) in path.taken]
    assert [()] == [way.conditions for way in taken], "it wasn't exposed: the guard refused the other one"
    assert ("web-a", "2.0.0") == (path.instance, path.version)


def test_an_update_that_a_crash_cut_in_two_is_one_way(chart: Chart) -> None:
    path = last_path(read_lines(JOURNALS / "killed_in_soaking.jsonl"), chart)

    states = [stay.state for stay in path.stays]
    assert 2 == states.count("swapping.soaking")
    assert "swapping.reclaiming" in states


def test_a_journal_without_an_update_has_no_way(chart: Chart) -> None:
    lines = read_lines(JOURNALS / "good_update.jsonl")

    with pytest.raises(StoryError, match="no update in it yet"):
        last_path(lines[:1], chart)
