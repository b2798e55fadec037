"""What the update service is told in the end: every way to ``reporting`` says how the update came out."""

import pytest

from outrider.core.chart.machine import Perform, Step
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import ReportResult
from outrider.sidekick.workers.report import reports
from tests.core.sidekick.test_sidekick import NOON, Sidekick


def results(step: Step) -> list[ReportResult]:
    """The results that a step reports."""
    effects = [action.effect for action in step.actions if isinstance(action, Perform)]
    return [effect for effect in effects if isinstance(effect, ReportResult)]


def fetch() -> Sidekick:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    sidekick.answer(
        "release.check",
        ev.ReleaseFound,
        version="2.0.0",
        urls=("http://x/2",),
        sha256="2" * 64,
        size_bytes=9,
        update="u1",
    )
    return sidekick


def test_a_download_that_took_too_long_is_reported_as_failed() -> None:
    (result,) = results(fetch().expire("download.expired"))

    assert result.fault is not None
    assert "the download took too long" == result.fault.cause
    assert ("1.0.0", "2.0.0") == (result.version, result.next_version)


@pytest.mark.parametrize("error_code", [FailureCode.ERROR, FailureCode.HASH_MISMATCH, FailureCode.SIZE_MISMATCH])
def test_a_payload_that_cannot_be_had_is_reported_with_its_code(error_code: FailureCode) -> None:
    (result,) = results(
        fetch().answer("release.download", ev.ReleaseFailed, cause="no such payload", error_code=error_code)
    )

    assert result.fault is not None
    assert error_code == result.fault.error_code
    (told,) = reports(result, NOON)
    assert ("3:0", error_code) == (told.event.code, told.event.error_code)


def test_a_payload_that_proves_wrong_is_reported_as_failed() -> None:
    sidekick = fetch()
    sidekick.answer("release.download", ev.ReleaseDownloaded)

    (result,) = results(
        sidekick.answer("release.verify", ev.ReleaseFailed, cause="other bytes", error_code=FailureCode.HASH_MISMATCH)
    )

    assert result.fault is not None
    assert "other bytes" == result.fault.cause


def test_a_failure_is_reported_once_more_after_a_restart_and_is_still_one() -> None:
    sidekick = fetch()
    sidekick.expire("download.expired")

    (result,) = results(sidekick.tell(ev.SidekickRestarted))

    assert result.fault is not None
    assert "the download took too long" == result.fault.cause


def test_a_good_update_is_reported_without_a_fault() -> None:
    sidekick = Sidekick().retire()
    sidekick.answer("workload.retire", ev.WorkloadRetired)

    (result,) = results(sidekick.answer("lock.release", ev.LockReleased))

    assert result.fault is None
    assert ("2.0.0", "1.0.0") == (result.version, result.previous_version)
