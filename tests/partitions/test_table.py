"""The table of partitions is whole, and so is the page that a run wrote: nothing is run here."""

import pytest

from outrider.statechart import load_sidekick_chart
from tests.partitions import report, table
from tests.partitions.cut_points import CUT_POINTS, ELSEWHERE
from tests.partitions.cuts import THINGS, Thing
from tests.partitions.harness import ALL, CELLS


def test_every_substate_has_its_place() -> None:
    leaves = {leaf.id for leaf in load_sidekick_chart().leaves}
    substates = {leaf for leaf in leaves if leaf.startswith(("swapping.", "rollback."))}

    assert {one.state for one in CUT_POINTS if one.state in substates} == substates - ELSEWHERE.keys()
    assert ELSEWHERE.keys() <= substates
    assert {one.state for one in CUT_POINTS} <= leaves
    assert len({one.name for one in CUT_POINTS}) == len(CUT_POINTS)


@pytest.mark.parametrize("thing", THINGS)
def test_the_table_says_something_of_every_cell_and_nothing_of_none(thing: Thing) -> None:
    for one in CUT_POINTS:
        table.expected(thing, one)
    first = {next(name for name, _ in table.TABLE[thing] if name in (one.name, one.phase)) for one in CUT_POINTS}

    assert {name for name, _ in table.TABLE[thing]} <= table.names()
    if thing not in ("network", "etcd's answers"):  # which are etcd's row with exceptions before it
        assert first == {name for name, _ in table.TABLE[thing]}, "a rule that another hides"


def test_the_run_has_a_cell_for_every_thing_and_phase() -> None:
    things = set(THINGS) if ALL else set(THINGS) - {"etcd's answers"}

    assert {(thing, app.cut_point.phase) for thing, app in CELLS} == {(t, p) for t in things for p in table.phases()}


def test_the_page_has_a_row_for_every_cell() -> None:
    assert report.cells() == report.read().keys()
