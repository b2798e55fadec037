"""A payload of a kind that the runtime here can't run: refused as this machine's trouble, and waited out."""

from typing import Any

import msgspec
import pytest

from outrider.core.chart.machine import Machine, Step
from outrider.core.images import PayloadKind
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import CheckRelease, ReportResult
from outrider.core.sidekick.memory import NO_PAYLOAD, Fault, Installed, Memory, Release
from outrider.core.sidekick.rules import make_rules
from outrider.core.sidekick.words import why
from outrider.sidekick.workers.report import reports
from tests.core.sidekick.test_sidekick import CHART, NOON, Sidekick, effect, effects

REASON = (
    "2.0.0 is a container image; this machine's runtime (process) runs archives only: serve this group an archive,"
    " or set instance.runtime to one that runs container images"
)


def offer(sidekick: Sidekick, version: str = "2.0.0", kind: PayloadKind = "image") -> Step:
    return sidekick.answer(
        "release.check", ev.ReleaseFound, version=version, urls=("http://x/2",), sha256="2" * 64, size_bytes=9,
        update=f"u-{version}", kind=kind,
    )  # fmt: skip


def refused(**known: Any) -> Sidekick:
    """An instance that was offered an image, has reported that it can't run it, and waits."""
    sidekick = Sidekick(**known).come_up()
    sidekick.promote()
    offer(sidekick)
    sidekick.answer("report.result", ev.ReportQueued)
    return sidekick


def said(sidekick: Sidekick) -> str:
    return why(sidekick.memory, CHART.states[sidekick.machine.state].why)


def test_an_image_is_refused_before_any_download_and_reported_as_this_machines_trouble() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()

    step = offer(sidekick)

    assert (["report.result"], "reporting") == (effects(step), step.target)
    report = effect(step, ReportResult)
    assert Fault(blame="machine", cause=REASON, error_code=FailureCode.UNSUPPORTED, lasts=True) == report.fault
    (told,) = reports(report, NOON)
    assert ("3:0", FailureCode.UNSUPPORTED, "2.0.0") == (
        told.event.code,
        told.event.error_code,
        told.event.next_version,
    )


def test_it_waits_with_the_reason_and_neither_blames_the_release_nor_tries_again() -> None:
    sidekick = refused()

    assert ("idle.deferred", REASON) == (sidekick.machine.state, said(sidekick))
    assert ({}, 0, "", None) == (
        sidekick.memory.blocked, sidekick.memory.failures, sidekick.memory.update, sidekick.memory.candidate,
    )  # fmt: skip
    assert {"poll-deferred"} == {timer.id for timer in sidekick.machine.snapshot().timers}


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (ev.TargetChanged, {"version": "2.0.0", "paused": False, "slots": 3, "revision": 41}),
        (ev.BlockChanged, {"versions": {"9.9.9": "x"}}),
    ],
)
def test_news_that_changes_nothing_about_it_does_not_ask_again(kind: type[Any], facts: dict[str, Any]) -> None:
    step = refused().tell(kind, **facts)

    assert ("idle.deferred", []) == (step.target, effects(step))


@pytest.mark.parametrize("word", [ev.OperatorRetried, ev.WakeupReceived])
def test_who_is_told_to_asks_again(word: type[Any]) -> None:
    sidekick = refused()

    step = sidekick.tell(word)

    assert ("checking", "1.0.0") == (step.target, effect(step, CheckRelease).version)


def test_it_asks_again_at_the_poll() -> None:
    sidekick = refused()

    assert "checking" == sidekick.expire("poll.due").target


def test_a_new_target_is_followed_and_an_archive_taken() -> None:
    sidekick = refused()

    assert "checking" == sidekick.promote("2.0.1", revision=41).target
    step = offer(sidekick, "2.0.1", "archive")

    assert ("downloading.fetching", False) == (step.target, sidekick.memory.unfit)
    assert "release.download" in effects(step)


def test_a_target_that_moves_while_the_refusal_is_reported_is_followed() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offer(sidekick)

    assert "reporting" == sidekick.promote("2.0.1", revision=41).target
    assert "checking" == sidekick.answer("report.result", ev.ReportQueued).target


def test_a_retry_that_is_said_while_the_refusal_is_reported_asks_again() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offer(sidekick)
    sidekick.tell(ev.OperatorRetried)

    assert "checking" == sidekick.answer("report.result", ev.ReportQueued).target


def test_an_image_on_the_way_to_the_target_is_not_asked_for_in_a_loop() -> None:
    """A floor of the channel: offered is another version than the one that is wanted."""
    sidekick = Sidekick().come_up()
    sidekick.promote("3.0.0")

    offer(sidekick, "2.0.0")
    step = sidekick.answer("report.result", ev.ReportQueued)

    assert ("idle.deferred", REASON) == (step.target, said(sidekick))
    assert "release.check" not in effects(step)


def test_an_instance_that_is_down_does_not_ask_for_the_cure_that_it_can_not_run_again_and_again() -> None:
    """
    1. what should run can't be started, so the service is asked for a cure, and offers an image
    2. the instance tries once more to start what it has
    3. that fails again: it tries again after a while, and the service isn't asked any more
    """
    sidekick = Sidekick(wanted="2.0.0", down=True)
    failed = {"evidence": "unknown", "cause": "no memory"}
    sidekick.answer("workload.ensure", ev.WorkloadFailed, **failed)
    offer(sidekick)

    assert "idle.waking" == sidekick.answer("report.result", ev.ReportQueued).target
    step = sidekick.answer("workload.ensure", ev.WorkloadFailed, **failed)

    assert ("idle.degraded", ["sidekick.alarm"]) == (step.target, effects(step))


def test_a_foreign_service_without_targets_is_refused_with_the_reason_too() -> None:
    sidekick = Sidekick().come_up()
    sidekick.tell(ev.WakeupReceived)

    offer(sidekick)
    sidekick.answer("report.result", ev.ReportQueued)
    held = said(sidekick)
    sidekick.tell(ev.OperatorPaused)
    sidekick.tell(ev.OperatorResumed)

    assert (REASON, "idle.waiting", REASON) == (held, sidekick.machine.state, said(sidekick))


def test_a_runtime_that_runs_images_takes_one() -> None:
    sidekick = Sidekick(runtime="other", kinds=("archive", "image")).come_up()
    sidekick.promote()

    assert "downloading.fetching" == offer(sidekick).target
    assert sidekick.memory.candidate is not None
    assert "image" == sidekick.memory.candidate.release.kind


def test_a_restart_asks_again_for_the_runtime_may_be_another_now() -> None:
    sidekick = refused()

    sidekick.tell(ev.SidekickRestarted)

    assert not sidekick.memory.unfit
    sidekick.answer("workload.ensure", ev.WorkloadStarted, workload_id="a-1", url="http://one")
    sidekick.answer("probe.confirm", ev.ProbePassed, url="http://one")
    assert "checking" == sidekick.answer("balancer.return", ev.BalancerJoined).target


def test_a_restart_while_the_refusal_is_reported_reports_it_again() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offer(sidekick)

    step = sidekick.tell(ev.SidekickRestarted)

    assert ("reporting", FailureCode.UNSUPPORTED) == (step.target, effect(step, ReportResult).fault.error_code)


def test_no_way_leads_back_to_an_image_after_the_runtime_was_changed() -> None:
    release = Release(version="0.9.0", urls=("http://x/0",), sha256="9" * 64, size_bytes=1, kind="image")
    sidekick = Sidekick(previous=Installed(release=release, workload_id="a-0")).come_up()

    step = sidekick.tell(ev.OperatorRolledBack, update="u9")

    assert ("idle.waiting", None, None) == (step.target, sidekick.memory.candidate, sidekick.memory.undone)
    assert sidekick.memory.deferred_reason.startswith("can't go back: 0.9.0 is a container image;")


def test_a_memory_that_knows_no_kinds_is_one_of_archives() -> None:
    """Journals of before: without the kind of a release, the runtime's name and its kinds."""
    plain = msgspec.to_builtins(Sidekick().memory)
    for name in ("runtime", "kinds", "unfit"):
        del plain[name]
    del plain["running"]["release"]["kind"]

    memory = msgspec.convert(plain, type=Memory)

    assert Sidekick().memory == memory
    assert Machine(CHART, make_rules({}), memory).memory.kinds == ("archive",)


def test_no_rollback_goes_to_what_something_else_had_started() -> None:
    """It was adopted: its payload was never here, and nobody can be asked for it."""
    adopted = Installed(
        release=Release(version="1.0.0", urls=(), sha256=NO_PAYLOAD, size_bytes=0, kind="archive"), workload_id="old"
    )
    sidekick = Sidekick(previous=adopted).come_up()

    assert "idle.waiting" == sidekick.tell(ev.OperatorRolledBack, update="u2").target

    assert "can't go back: no payload of 1.0.0 was ever here" in sidekick.memory.deferred_reason
