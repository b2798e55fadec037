"""The model checker can fail: each fault that is seeded is found, and told so that a person understands it."""

import pytest

from outrider.core.errors import ChartError
from outrider.verify.check import Result, check
from outrider.verify.explore import explore
from outrider.verify.fleet import Looks, explore_fleet
from outrider.verify.steps import Steps
from outrider.verify.story import tell_fleet
from outrider.verify.world import World
from tests.support.rings import mostly_long
from tests.verify.faults import FAULTS, SHIPPED, Fault, edited, loaded


def in_order(parts: tuple[str, ...], lines: tuple[str, ...]) -> list[str]:
    """Those of ``parts`` that no line has, each looked for behind the one before."""
    missing, place = [], 0
    for part in parts:
        found = next((number for number in range(place, len(lines)) if part in lines[number]), None)
        if found is None:
            missing.append(part)
        else:
            place = found + 1
    return missing


def checked(fault: Fault) -> Result:
    return list(check(loaded(fault.text), fault.plan))[-1]


FIRST = next(fault for fault in FAULTS if fault.name == "a swap before its task is done")

SHORT = {
    "fetching what the runtime can't run",
    "leaving without a fence",
    "blocking a release for this machine's trouble",
    "blocking what an instance has committed",
    "a second verdict",
    "a swap before its task is done",
    "a turn that is taken without permission",
    "a contract task that compares nothing",
    "a task that is given back after its beginning",
}
"""One fault of each kind that shows in a life of a few steps: the others are the long form."""


def test_the_short_form_names_faults_that_there_are() -> None:
    assert SHORT <= {fault.name for fault in FAULTS}


@pytest.mark.parametrize(
    "fault",
    mostly_long(FAULTS, short=lambda fault: fault.name in SHORT),
    ids=lambda fault: fault.name.replace(" ", "-"),
)
def test_a_seeded_fault_is_found_and_told(fault: Fault) -> None:
    result = checked(fault)

    assert result.promise.startswith(fault.promise)
    assert [] == in_order(fault.story, result.story), "\n".join(result.story)
    assert result.story[-1].strip() == result.promise


def test_a_story_numbers_what_happened_and_says_what_is_so_after_it() -> None:
    result = checked(FIRST)

    assert [f"{number:3}" for number in range(1, len(result.story))] == [line[:3] for line in result.story[:-1]]
    assert all("[balancer to " in line and ", runs " in line for line in result.story[:-1])
    assert "idle.waking" in result.story[0]


def test_a_wait_without_a_deadline_does_not_even_load() -> None:
    text = edited(SHIPPED, "swapping.probing", '<send event="probe.expired" id="probe" delay="90s"/>', "")

    with pytest.raises(ChartError, match=r"seeded\.scxml:\d+"):
        loaded(text)


@pytest.mark.long
def test_a_lock_that_lets_anybody_in_breaks_p1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock itself has tests of its own; here the fleet must notice what it depends on."""
    plan = FAULTS[-1].plan[0]
    looks = Looks(explore(World(Steps(loaded(SHIPPED), plan.strategy), plan.setting), limit=1_000_000))
    assert not explore_fleet(looks, 3, 2).promise

    monkeypatch.setattr("outrider.verify.fleet._may_take", lambda *_: True)
    fleet = explore_fleet(looks, 3, 2)

    assert "P1: 3 turns at once, and there are 2 slots" == fleet.promise
    story = tell_fleet(looks, fleet.moves, fleet.promise)
    taken = ("web-1: ", "web-2: ", "web-3: ")
    assert all(any(line[5:].startswith(name) and "has a turn" in line for line in story) for name in taken)
