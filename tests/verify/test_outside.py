"""The outside view that ships: in step with the chart, and what it says of one sidekick."""

from pathlib import Path

import pytest

from outrider.core.errors import ChartError
from outrider.core.sidekick.memory import Strategy
from outrider.statechart import find_sidekick_chart, load_sidekick_chart
from outrider.verify import outside
from outrider.verify.check import STRATEGIES
from outrider.verify.explore import BLOCKED, TOUCHED, TURN
from outrider.verify.outside import RELEASES, SERVES, digest_of, make_view, read_views, shipped_views, written
from outrider.verify.world import Badness

SCXML = find_sidekick_chart().read_bytes()


def test_the_views_that_ship_were_made_of_this_chart() -> None:
    """Else: python tools/outside_view.py, some minutes."""
    views = shipped_views(SCXML)

    assert {(strategy, badness) for strategy in STRATEGIES for badness in RELEASES} == set(views)


def test_another_chart_has_another_digest_and_other_words_have_not() -> None:
    words = SCXML.replace(b"is being downloaded", b"comes over the network").replace(b"<!--", b"<!-- again: ", 1)
    moved = SCXML.replace(b'target="swapping.draining"', b'target="swapping.soaking"', 1)

    assert words != SCXML != moved
    assert digest_of(SCXML) == digest_of(words)
    assert digest_of(SCXML) != digest_of(moved)
    with pytest.raises(ChartError, match=r"was made of another chart: run tools/outside_view\.py"):
        shipped_views(moved)


def test_a_missing_view_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    views = shipped_views(SCXML)
    del views["stop-first", "dies"]
    (tmp_path / outside.FILE).write_text(written(digest_of(SCXML), views))
    monkeypatch.setattr(outside, "files", lambda package: tmp_path)

    with pytest.raises(ChartError, match="lacks stop-first dies"):
        shipped_views(SCXML)


def test_what_is_written_is_read_again() -> None:
    chart, views = read_views(written("abc", shipped_views(SCXML)))

    assert ("abc", shipped_views(SCXML)) == (chart, views)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("badness", RELEASES)
def test_who_does_not_serve_has_a_turn_and_a_turn_of_a_bad_release_ends_with_its_block(
    strategy: Strategy, badness: Badness
) -> None:
    view = shipped_views(SCXML)[strategy, badness]

    for state, look in enumerate(view.looks):
        assert look & (SERVES | TURN)
        for after in view.moves[state]:
            gives_back = look & TURN and not view.looks[after] & TURN
            if gives_back and view.looks[after] & TOUCHED:
                assert view.looks[after] & BLOCKED


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_views_are_what_the_chart_gives_today(strategy: Strategy) -> None:
    shipped = shipped_views(SCXML)

    assert {badness: shipped[strategy, badness] for badness in RELEASES} == {
        badness: make_view(load_sidekick_chart(), strategy, badness) for badness in RELEASES
    }
