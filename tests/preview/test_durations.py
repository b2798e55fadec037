"""What the rows of the instances say of how long an update takes."""

from datetime import timedelta
from random import Random

import pytest

from outrider.preview.durations import Durations, Update, measured, updates_in
from tests.preview.groups import MONDAY


def update(number: int, *, waited_s: float, ended_s: float) -> Update:
    at = [MONDAY + timedelta(seconds=one) for one in (waited_s - 3.0, waited_s, ended_s)]
    return Update(instance=f"web-{number}", began=at[0], waited=at[1], ended=at[2])


def test_who_waited_for_others_took_no_longer_than_its_own_turn() -> None:
    found = measured([update(number, waited_s=number, ended_s=20.0 * (number + 1)) for number in range(4)], slots=1)

    assert (20.0, 20.0, 20.0, 20.0) == found.turn_s
    assert (3.0, 3.0, 3.0, 3.0) == found.prepare_s


def test_with_two_slots_two_turns_go_side_by_side() -> None:
    updates = [update(number, waited_s=0.0, ended_s=20.0 * (number // 2 + 1)) for number in range(4)]

    assert (20.0, 20.0, 20.0, 20.0) == measured(updates, slots=2).turn_s


def test_another_days_rollout_does_not_lend_its_slots() -> None:
    day = 86_400.0
    updates = [update(0, waited_s=0.0, ended_s=20.0), update(1, waited_s=day, ended_s=day + 30.0)]

    assert (20.0, 30.0) == measured(updates, slots=1).turn_s


def test_updates_are_read_from_the_events_of_a_row() -> None:
    codes = ["3:2", "13:1", "14:1", "800:1", "3:1", "3:2", "13:1", "14:1", "800:1", "3:0", "13:1", "800:1"]
    history = [(MONDAY + timedelta(seconds=number), code) for number, code in enumerate(codes)]

    (found,) = updates_in("web-0", history)

    assert [1.0, 3.0, 4.0] == [
        (at - MONDAY).total_seconds() for at in (found.began or MONDAY, found.waited, found.ended)
    ]


def test_without_a_record_the_defaults_are_named() -> None:
    turn, prepare = Durations().words("stop-first")

    assert "no update of this group is on record" in turn
    assert "soak 20 s" in turn
    assert "default" in prepare


@pytest.mark.parametrize("durations", [Durations(), Durations(turn_s=(10.0, 30.0), prepare_s=(1.0,))])
def test_what_is_drawn_adds_up_to_a_turn(durations: Durations) -> None:
    for seed in range(20):
        drawn = dict(durations.draw("start-first", Random(seed)))
        drawn.pop("prepare")
        total = sum(drawn.values())
        if durations.turn_s:
            assert any(total == pytest.approx(one) for one in durations.turn_s)
        else:
            assert 28.0 < total < 36.0
