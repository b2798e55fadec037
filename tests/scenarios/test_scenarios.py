"""What judges the scenarios can say no: an excuse holds for its balancer and its time alone."""

import pytest

from outrider.demo.load import Failure
from tests.scenarios.apps import API, WEB
from tests.scenarios.report import BEGIN, END, PAGE, table
from tests.scenarios.run import Excuse, Result, unexplained
from tests.scenarios.scenarios import QUICK, SCENARIOS

EXCUSE = Excuse(app=WEB, since=100.0, until=102.0, why="m2 is lost")


def failure(at: float) -> Failure:
    return Failure(started_at=at, took_s=0.1, method="GET", kind="status 502", text="")


@pytest.mark.parametrize(("at", "explained"), [(99.9, False), (100.0, True), (102.0, True), (102.1, False)])
def test_an_excuse_is_for_requests_that_were_sent_in_its_time(at: float, explained: bool) -> None:
    assert ([] if explained else [failure(at)]) == unexplained(WEB, [failure(at)], [EXCUSE])


def test_an_excuse_is_for_its_own_balancer() -> None:
    assert [failure(101.0)] == unexplained(API, [failure(101.0)], [EXCUSE])


def test_a_scenario_that_broke_once_is_told_so_and_one_that_was_not_run_too() -> None:
    good = Result(scenario="clean", seconds=20.0, requests=800, failed={"web": 0, "api": 0}, revisions=90)
    bad = Result(scenario="clean", seconds=31.0, requests=900, failed={"web": 2, "api": 0}, problems=["x"], unexcused=2)

    lines = {line.split("|")[1].strip(): line for line in table([good, bad]).splitlines()}

    assert lines["`clean`"].endswith("| **1 of 2** | 1700 | 2 | 0 | 2 | 90 | 20 to 31 |")
    assert "*not run*" in lines["`leader`"]
    assert len({line.count("|") for line in lines.values()}) == 1


def test_the_quick_ones_are_some_of_all_and_the_page_has_room_for_the_table() -> None:
    assert set(QUICK) < set(SCENARIOS)
    assert PAGE.read_text().index(BEGIN) < PAGE.read_text().index(END)
