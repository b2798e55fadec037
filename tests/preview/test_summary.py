"""What an operator is told of many runs."""

import json

import pytest

from outrider.core.rollout.windows import Window
from outrider.preview.run import Trouble
from outrider.preview.summary import as_json, duration_words, foresee
from tests.preview.groups import MEASURED, MONDAY, group

NIGHT = Window(days=("mon",), opens="10:00", closes="10:02")


def test_it_says_how_long_and_in_which_order() -> None:
    found = foresee(group(5, strategy="stop-first"), MEASURED, Trouble(), MONDAY, runs=6)

    assert 6 == found.runs
    assert 104.0 == pytest.approx(found.p50_s, rel=0.05)
    assert found.p50_s <= found.p95_s
    assert 4 == found.lowest
    assert 5 == found.updated == len(found.order)
    assert list(found.order) == sorted(found.order, key=lambda one: one.began_s)
    assert MONDAY < found.ends


def test_it_says_whether_the_rollout_ends_inside_its_window() -> None:
    short = foresee(group(2, windows=(NIGHT,)), MEASURED, Trouble(), MONDAY, runs=3)
    long = foresee(group(9, windows=(NIGHT,)), MEASURED, Trouble(), MONDAY, runs=3)

    assert "it ends inside the window, which closes 2026-11-30 10:02 UTC" == short.window
    assert long.window.startswith("it does not end inside the window: when that closes 2026-11-30 10:02 UTC, 5 of 9")


def test_it_names_what_it_assumed() -> None:
    found = foresee(group(3), MEASURED, Trouble(fails_at=1, away_s=60.0), MONDAY, runs=2)

    said = "\n".join(found.assumed)
    assert "the median of 1 updates of this group" in said
    assert "all instances swap start-first" in said
    assert "number 1 to swap does not prove healthy" in said
    assert "etcd is away for 60 s" in said


def test_a_program_gets_all_of_it() -> None:
    found = foresee(group(3), MEASURED, Trouble(), MONDAY, runs=2)
    bad = foresee(group(3), MEASURED, Trouble(fails_at=1), MONDAY, runs=2)

    read = json.loads(json.dumps(as_json(found, {"number 1 fails": bad}, 3)))

    assert 3 == len(read["order"]) == read["updated"]
    assert 1 == read["if"]["number 1 fails"]["reached"]
    assert [{"at_s": 0.0, "serving": 3}] == read["capacity"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(48.2, "48 s"), (245.0, "4 min 05 s"), (7800.0, "2 h 10 min"), (200_000.0, "2 d 7 h")]
)
def test_durations_are_written_for_people(seconds: float, words: str) -> None:
    assert words == duration_words(seconds)
