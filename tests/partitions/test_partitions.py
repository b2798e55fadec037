"""A machine is cut from one thing after the other, in every substate of a swap: what it does is what the table says."""

from collections.abc import Iterator

import pytest

from tests.partitions import report
from tests.partitions.cut_points import CUT_POINTS, ELSEWHERE, cut_point
from tests.partitions.cuts import Thing
from tests.partitions.fleet import App
from tests.partitions.harness import ALL, CELLS, PLANS, Cuts, Harness


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    made = Harness(tmp_path_factory.mktemp("partitions"))
    try:
        yield made
        if ALL:
            report.write(seen for seen in made.all_seen() if not seen.problems)
    finally:
        made.close()


@pytest.mark.parametrize(
    ("thing", "app"), [pytest.param(thing, app, id=f"{thing}-{app.cut_point.name}") for thing, app in CELLS]
)
def test_a_cut_machine_does_what_the_table_says(harness: Harness, thing: Thing, app: App) -> None:
    """
    1. a release is under way, and the machine's sidekick stands at the place
    2. the thing is cut off; what is seen then is what the table says, and no promise is broken
    3. the thing comes back; with nobody's help the fleet ends where it should be, and no turn is left
    """
    seen = harness.seen(thing, app)

    assert [] == seen.problems, f"path: {seen.path} | {seen.after}"
    assert seen.healed


@pytest.mark.parametrize(
    "cuts", [pytest.param(cuts, id="+".join(cut.thing for cut in cuts)) for plan in PLANS for cuts in plan.rounds]
)
def test_requests_fail_only_where_the_balancer_cannot_reach_a_machine(harness: Harness, cuts: Cuts) -> None:
    """The load is on all along; nothing is repeated and nothing forgiven."""
    assert [] == harness.failures(cuts)


def test_what_is_cut_nowhere_was_passed(harness: Harness) -> None:
    """The reason that ``ELSEWHERE`` gives holds."""
    probing = cut_point("probing")
    cell = next((thing, app) for thing, app in CELLS if thing == "etcd" and app.cut_point == probing)

    seen = harness.seen(*cell)

    assert {"swapping.retreating", "swapping.reclaiming"} <= {*seen.path}


def test_whatever_was_passed_has_its_place(harness: Harness) -> None:
    """Also for the strategy that it was passed with: the list of places is held to what journals show."""
    harness.seen(*CELLS[0])
    passed = {
        (seen.app.cut_point.strategy, state) for seen in harness.all_seen() for state in (*seen.path, *seen.after)
    }
    swaps = {(strategy, state) for strategy, state in passed if state.startswith(("swapping.", "rollback."))}

    assert {one for one in swaps if one[1] not in ELSEWHERE} <= {(one.strategy, one.state) for one in CUT_POINTS}
