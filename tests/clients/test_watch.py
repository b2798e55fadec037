"""The watcher: when its program runs, what it is given, and what is reported of it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.clients.watch import environment
from outrider.core.errors import Refused
from outrider.core.omaha import CheckError, NoUpdate, Offer
from tests.support.update_service import OFFER, Answer, Service, dead_url
from tests.support.waiting import eventually
from tests.support.watched import APP, Program, Watching

NEWER = replace(OFFER, version="2.0.0")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "program")


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


def reported(service: Service) -> list[tuple[str, str, int]]:
    """Event, version and error code of each report, in order; checks left out."""
    return [
        (event.code, request.apps[0].version, event.error_code)
        for request in service.requests
        if not request.apps[0].update_check
        for event in request.apps[0].events
    ]


def checks(service: Service) -> int:
    return sum(request.apps[0].update_check for request in service.requests)


def test_an_update_runs_the_program_once_and_is_reported_from_download_to_running(
    service: Service, program: Program
) -> None:
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program, version="1.0.0") as watching:
        eventually(lambda: ("3:2", "1.2.3", 0) in reported(service))
        asked = checks(service)
        eventually(lambda: checks(service) >= asked + 3)

    assert [{"environment": program.runs[0]["environment"], "arguments": ["now"]}] == [
        {key: run[key] for key in ("environment", "arguments")} for run in program.runs
    ]
    assert [
        {
            "VERSION": "1.2.3",
            "OLD_VERSION": "1.0.0",
            "APP_ID": APP,
            "URL": "http://payloads.example/a.tar",
            "SHA256": "ab" * 32,
            "SIZE": "8",
            "PACKAGE": "a.tar",
        }
    ] == program.environments
    steps = [("13:1", "1.0.0", 0), ("14:1", "1.0.0", 0), ("3:1", "1.0.0", 0), ("3:2", "1.2.3", 0)]
    assert steps == reported(service)
    assert "1.0.0 -> 1.2.3: done" in watching.told


def test_the_reports_of_one_update_share_its_session(service: Service, program: Program) -> None:
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program):
        eventually(lambda: len(reported(service)) == 4)

    first = service.requests[0]
    assert {first.session_id} == {one.session_id for one in service.requests if not one.apps[0].update_check}
    events = [
        (event.previous_version, event.next_version) for one in service.requests[1:4] for event in one.apps[0].events
    ]
    assert [("0.0.0", "1.2.3")] * 3 == events


def test_nothing_ran_before_so_there_is_no_old_version_at_first_and_one_afterwards(
    service: Service, program: Program
) -> None:
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program):
        eventually(lambda: len(program.runs) == 1)
        service.answer = Answer(check=NEWER)
        eventually(lambda: len(program.runs) == 2)

    first, second = program.environments
    assert ("1.2.3", None) == (first["VERSION"], first.get("OLD_VERSION"))
    assert ("2.0.0", "1.2.3") == (second["VERSION"], second["OLD_VERSION"])


def test_what_the_watcher_inherited_does_not_pass_for_news(
    service: Service, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPDATE_SERVICE_OLD_VERSION", "0.9.0")
    monkeypatch.setenv("UPDATE_SERVICE_SOMETHING", "else")
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program):
        eventually(lambda: program.runs)

    assert {"VERSION", "APP_ID", "URL", "SHA256", "SIZE", "PACKAGE"} == set(program.environments[0])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(check=NoUpdate(reason="group is paused")),
        Answer(check=CheckError(status="error-internal")),
        Answer(check=NoUpdate(), app_status="error-maxUpdatesPerPeriodLimitReached"),
        Answer(status=503),
        Answer(body=b"not xml"),
        Answer(check=replace(OFFER, version="0.0.0")),
    ],
    ids=["noupdate", "error-internal", "nebraska-limit", "http-503", "garbage", "same-version"],
)
def test_what_is_no_update_never_runs_the_program(service: Service, program: Program, answer: Answer) -> None:
    service.answer = answer

    with Watching(service.url, program):
        eventually(lambda: checks(service) >= 3)

    assert [] == program.runs
    assert [] == reported(service)


def test_the_same_reason_is_told_once(service: Service, program: Program) -> None:
    service.answer = Answer(check=NoUpdate(reason="group is paused"))

    with Watching(service.url, program) as watching:
        eventually(lambda: checks(service) >= 4)

    assert ["no update: group is paused"] == watching.told


def test_a_failing_program_is_reported_run_again_later_and_not_advanced_over(
    service: Service, program: Program
) -> None:
    program.leave_with(7)
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program, version="1.0.0") as watching:
        eventually(lambda: len(program.runs) == 3)
        program.leave_with(0)
        eventually(lambda: ("3:2", "1.2.3", 0) in reported(service))

    failed = [("13:1", "1.0.0", 0), ("3:0", "1.0.0", 5)]
    assert failed * 3 == reported(service)[:6]
    assert {"1.0.0"} == {each["OLD_VERSION"] for each in program.environments}
    pauses = [line.rpartition("again in ")[2] for line in watching.told if "left with 7" in line]
    assert ["0.2 s", "0.4 s", "0.4 s"] == pauses


def test_another_version_need_not_wait_for_the_pause_after_a_failure(service: Service, program: Program) -> None:
    program.leave_with(1)
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program, retry_min_s=3600, retry_max_s=3600) as watching:
        eventually(lambda: any("again in 3600 s" in line for line in watching.told))
        program.leave_with(0)
        watching.watcher.wake()
        eventually(lambda: checks(service) == 2)
        service.answer = Answer(check=NEWER)
        watching.watcher.wake()
        eventually(lambda: ("3:2", "2.0.0", 0) in reported(service))

    assert ["1.2.3", "2.0.0"] == [each["VERSION"] for each in program.environments]


def test_a_program_that_takes_too_long_is_ended_and_counts_as_failed(service: Service, program: Program) -> None:
    program.hang()
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program, time_limit_s=1.0, retry_min_s=3600, retry_max_s=3600) as watching:
        eventually(lambda: ("3:0", "0.0.0", 5) in reported(service))

    assert "SIGTERM" == program.ended_by
    assert any("didn't end within 1 s" in line for line in watching.told)


def test_a_program_that_cannot_be_started_counts_as_failed(service: Service, program: Program) -> None:
    program.path.chmod(0o644)
    service.answer = Answer(check=OFFER)

    with Watching(service.url, program) as watching:
        eventually(lambda: ("3:0", "0.0.0", 5) in reported(service))

    assert any("can't run" in line for line in watching.told)


def test_stop_ends_the_program_first_and_reports_neither_success_nor_failure(
    service: Service, program: Program
) -> None:
    program.hang()
    service.answer = Answer(check=OFFER)
    with Watching(service.url, program) as watching:
        eventually(lambda: program.runs)
        watching.watcher.stop()
        watching.join()

    assert "SIGTERM" == program.ended_by
    assert [("13:1", "0.0.0", 0)] == reported(service)


def test_a_program_that_ignores_sigterm_is_killed(service: Service, tmp_path: Path) -> None:
    deaf = Program(tmp_path / "deaf")
    deaf.path.write_text(
        "#!/bin/sh\ntrap '' TERM\necho $$ > " + str(tmp_path / "pid") + "\nwhile :; do sleep 0.1; done\n"
    )
    service.answer = Answer(check=OFFER)
    with Watching(service.url, deaf) as watching:
        pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        watching.watcher.stop()
        watching.join()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_reports_wait_for_a_service_that_is_away_and_no_check_overtakes_them(
    service: Service, program: Program
) -> None:
    service.answer = Answer(check=OFFER)
    program.hang()

    with Watching(service.url, program) as watching:
        run = eventually(lambda: program.runs)[0]
        service.answer = Answer(status=500)
        os.kill(int(str(run["pid"])), signal.SIGTERM)
        eventually(lambda: any("report 14:1 waits" in line for line in watching.told))
        refused = len(service.requests)
        service.answer = Answer(check=NoUpdate())
        eventually(lambda: checks(service) >= 2)

    later = [(one.apps[0].update_check, [e.code for e in one.apps[0].events]) for one in service.requests[refused:]]
    first_check = next(number for number, (check, _) in enumerate(later) if check)
    sent = [codes[0] for check, codes in later[:first_check] if codes]
    assert ["14:1", "3:1", "3:2"] == list(dict.fromkeys(sent))


def test_the_first_answer_that_refuses_the_app_ends_it_and_a_later_one_does_not(
    service: Service, program: Program
) -> None:
    service.answer = Answer(app_status="error-unknownApplication")
    with Watching(service.url, program) as refused:
        refused.join()
    service.answer = Answer()
    with Watching(service.url, program) as watching:
        eventually(lambda: watching.told)
        service.answer = Answer(app_status="error-unknownApplication")
        eventually(lambda: any("update check failed" in line for line in watching.told))

    assert isinstance(refused.error, Refused)
    assert watching.error is None


def test_a_service_that_is_away_is_asked_again_more_rarely(program: Program) -> None:
    with Watching(dead_url(), program, interval_s=0.01) as watching:
        eventually(lambda: any("can't connect" in line for line in watching.told))
        waits = [watching.watcher._trouble_s() for _ in range(40)]

    assert sorted(waits) == waits
    assert 60.0 == waits[-1]


def test_a_service_that_asks_for_quiet_is_left_alone(service: Service, program: Program) -> None:
    service.answer = Answer(check=NoUpdate(poll_interval_s=3600))

    with Watching(service.url, program) as watching:
        eventually(lambda: watching.told)
        service.answer = Answer(check=OFFER)
        woken = checks(service)
        watching.watcher.wake()
        eventually(lambda: checks(service) == woken + 1)

    assert 1 == woken


def test_wake_asks_at_once(service: Service, program: Program) -> None:
    with Watching(service.url, program, interval_s=3600) as watching:
        eventually(lambda: checks(service) == 1)
        service.answer = Answer(check=OFFER)
        watching.watcher.wake()
        eventually(lambda: program.runs)

    assert "1.2.3" == program.environments[0]["VERSION"]


def test_the_first_address_of_several_is_given() -> None:
    offer = Offer(version="2.0.0", codebases=("http://a.example/x", "http://b.example/"), packages=OFFER.packages)

    assert "http://a.example/x/a.tar" == environment("{" + APP + "}", "1.0.0", offer)["UPDATE_SERVICE_URL"]
