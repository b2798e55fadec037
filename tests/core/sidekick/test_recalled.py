"""What a sidekick does when the update service takes its permission back, and what it says of an update it gave up."""

from typing import Any

import pytest

from outrider.core.chart.machine import Perform
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import AcquireLock
from tests.core.sidekick.test_sidekick import NOON, TURN, Sidekick


def offered(version: str = "2.0.0") -> dict[str, Any]:
    return {"version": version, "urls": ("http://x/2",), "sha256": "2" * 64, "size_bytes": 9, "update": "u1"}


def downloading() -> Sidekick:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    sidekick.answer("release.check", ev.ReleaseFound, **offered())
    return sidekick


def verifying() -> Sidekick:
    sidekick = downloading()
    sidekick.answer("release.download", ev.ReleaseDownloaded)
    return sidekick


@pytest.mark.parametrize("begin", [downloading, verifying])
def test_before_the_queue_it_asks_again_at_once(begin: Any) -> None:
    sidekick = begin()

    step = sidekick.tell(ev.GrantEnded)

    assert ("checking", 0) == (step.target, sidekick.memory.failures)


def test_in_the_queue_it_leaves_and_then_asks_again() -> None:
    sidekick = Sidekick().queue()

    left = sidekick.tell(ev.GrantEnded).target
    after = sidekick.answer("lock.release", ev.LockReleased).target

    assert ("swapping.withdrawing", "checking", 0) == (left, after, sidekick.memory.failures)


@pytest.mark.parametrize("recalled", [True, False])
def test_a_turn_that_is_refused_for_want_of_permission_is_no_failure(recalled: bool) -> None:
    sidekick = Sidekick().queue()
    sidekick.answer("lock.acquire", ev.LockRefused, cause="gone", recalled=recalled)

    after = sidekick.answer("lock.release", ev.LockReleased).target

    assert ("checking" if recalled else "idle.cooling") == after


@pytest.mark.parametrize("begin", [Sidekick.start, Sidekick.probe, Sidekick.switch])
def test_under_its_turn_the_end_of_the_grant_changes_nothing(begin: Any) -> None:
    sidekick = begin(Sidekick())
    before = sidekick.machine.state, sidekick.memory

    sidekick.tell(ev.GrantEnded)

    assert before == (sidekick.machine.state, sidekick.memory)


def test_an_end_of_which_nothing_is_under_way_is_ignored() -> None:
    sidekick = Sidekick().come_up()

    assert "idle.waiting" == sidekick.tell(ev.GrantEnded).target


@pytest.mark.parametrize(
    ("word", "state"),
    [(ev.OperatorPaused, "idle.paused"), (ev.OperatorRolledBack, "idle.waiting")],
)
def test_an_update_that_an_operator_stops_is_given_up(word: Any, state: str) -> None:
    sidekick = downloading()
    facts = {"revision": 1} | ({"update": "u9"} if word is ev.OperatorRolledBack else {})

    step = sidekick.tell(word, **facts)

    assert (state, "2.0.0") == (step.target, sidekick.memory.given_up)


def test_one_that_is_called_off_in_the_queue_is_given_up() -> None:
    sidekick = Sidekick().queue()
    sidekick.promote(paused=True, revision=41)
    sidekick.answer("lock.release", ev.LockReleased)

    assert "2.0.0" == sidekick.memory.given_up


def test_one_that_is_refused_by_this_machine_is_given_up() -> None:
    sidekick = Sidekick(allow_downgrade=False).come_up()
    sidekick.promote("0.9.0")

    sidekick.answer("release.check", ev.ReleaseFound, **offered("0.9.0"))

    assert ("idle.deferred", "0.9.0") == (sidekick.machine.state, sidekick.memory.given_up)


def test_what_was_taken_back_or_has_a_result_was_not_given_up() -> None:
    recalled, failed = downloading(), verifying()
    recalled.tell(ev.GrantEnded)
    failed.answer("release.verify", ev.ReleaseFailed, cause="size", error_code=11)
    failed.answer("report.result", ev.ReportQueued)

    assert ("", "") == (recalled.memory.given_up, failed.memory.given_up)


def test_the_next_offer_forgets_it() -> None:
    sidekick = downloading()
    sidekick.tell(ev.OperatorPaused, revision=1)
    sidekick.tell(ev.OperatorResumed, revision=2)
    sidekick.answer("release.check", ev.ReleaseFound, **offered())

    assert "" == sidekick.memory.given_up


def test_the_way_to_a_floor_is_bound_to_the_target_too() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote("3.0.0", revision=44)
    sidekick.answer("release.check", ev.ReleaseFound, **offered("2.0.0"))
    sidekick.answer("release.download", ev.ReleaseDownloaded)

    step = sidekick.answer("release.verify", ev.ReleaseVerified)

    effects = [action.effect for action in step.actions if isinstance(action, Perform)]
    (asked,) = [effect for effect in effects if isinstance(effect, AcquireLock)]
    assert ("2.0.0", 44) == (asked.version, asked.target_revision)


def test_a_turn_that_crossed_with_the_end_of_the_permission_is_given_back() -> None:
    sidekick = Sidekick().queue()
    request = sidekick.asked["lock.acquire"]
    sidekick.tell(ev.GrantEnded)

    step = sidekick.machine.step(ev.LockAcquired(at=NOON, request=request, turn=TURN))

    assert "swapping.withdrawing" == step.target
