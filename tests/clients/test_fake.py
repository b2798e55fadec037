"""Simulated instances: their requests are updatectl's own, byte for byte, and they end when they are told to."""

import re
import threading
from dataclasses import replace

import pytest

from outrider.clients import FakeFleet, FakeSettings
from outrider.clients.fake import render
from outrider.core.omaha import CheckError, NoUpdate, parse_request
from tests.support.captures import captured_files, read_http
from tests.support.update_service import OFFER, Answer, Service, dead_url

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
CAPTURES = captured_files("instance-fake-update/*.request.bin")


def quick(url: str, **changes: object) -> FakeSettings:
    settings = FakeSettings(
        url=f"{url}/v1/update/",
        app_id=APP,
        group="beta",
        version="1.0.0",
        clients=1,
        min_sleep_s=0,
        max_sleep_s=0,
        error_percent=0,
        step_s=0,
        updates=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def run(settings: FakeSettings) -> list[str]:
    """Simulate to the end; returns what was told, without the clients' names."""
    told: list[str] = []
    FakeFleet(settings, lambda _, text: told.append(text)).run()
    return told


@pytest.mark.parametrize("name", CAPTURES)
def test_a_request_is_the_captured_one_byte_for_byte(name: str) -> None:
    captured = read_http(name)
    (app,) = parse_request(captured.body).apps
    event = app.events[0].code if app.events else ""

    ours = render(
        quick("http://x"),
        version=app.version,
        boot=app.boot_id,
        name=app.machine_id,
        event=event,
        check=app.update_check,
        ping=app.ping,
    )

    assert captured.body == ours
    assert captured.start == "POST /v1/update/ HTTP/1.1"


def test_a_whole_update_is_the_captured_conversation() -> None:
    """The same requests in the same order, but for the ids that are random there too."""
    with Service() as service:
        service.answer = Answer(check=OFFER)
        sent: list[bytes] = []
        fleet = FakeFleet(quick(service.url, pings=2), lambda *_: None, lambda _, body: sent.append(body))
        tally = fleet.run()
    bodies = [body for body in sent if body.startswith(b"<request")]

    def anonymous(body: bytes) -> bytes:
        return re.sub(rb'(bootid|machineid)="[^"]*"', rb'\1=""', body)

    assert [anonymous(read_http(name).body) for name in CAPTURES[:7]] == [anonymous(body) for body in bodies]
    assert {"text/xml"} == {headers["content-type"] for _, _, headers in service.heads}
    assert {"/v1/update/"} == {path for _, path, _ in service.heads}
    assert (1, 1, 0) == (tally.checks, tally.updates, tally.failures)
    assert 1 == len({request.apps[0].boot_id for request in service.requests})


def test_ids_are_recognised_and_those_of_one_run_begin_alike() -> None:
    fleet = FakeFleet(quick("http://x", clients=50), lambda *_: None)

    assert 50 == len(set(fleet.ids))
    assert all(re.fullmatch(r"deadbeef[0-9a-f]{24}", each) for each in fleet.ids)
    assert 1 == len({each[:14] for each in fleet.ids})


def test_a_failure_is_reported_then_the_meant_event_and_the_update_is_given_up() -> None:
    with Service() as service:
        service.answer = Answer(check=OFFER)
        fleet = FakeFleet(quick(service.url, error_percent=100), lambda _, text: fleet.stop())
        tally = fleet.run()
    events = [(event.code, event.error_code) for request in service.requests for event in request.apps[0].events]

    assert [("3:2", 0), ("3:0", 2000)] == events[:2]
    assert {"1.0.0"} == {request.apps[0].version for request in service.requests}
    assert (0, 1) == (tally.updates, tally.failures)


def test_after_a_failure_the_client_tries_again() -> None:
    with Service() as service:
        service.answer = Answer(check=OFFER)
        failures = iter(range(3))
        fleet = FakeFleet(
            quick(service.url, error_percent=100), lambda *_: fleet.stop() if next(failures, None) is None else None
        )
        fleet.run()
    codes = [event.code for request in service.requests for event in request.apps[0].events]

    assert ["3:2", "3:0", "13:1"] * 3 == codes[:9]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(check=NoUpdate(reason="group is paused")), "noupdate: group is paused"),
        (Answer(check=NoUpdate(), app_status="error-updatesDisabled"), "noupdate (error-updatesDisabled)"),
        (Answer(check=CheckError(status="error-internal")), "error-internal"),
        (Answer(status=503), "HTTP 503"),
        (Answer(body=b"<html>"), "omaha response"),
    ],
)
def test_every_other_answer_is_told_and_asked_again(answer: Answer, told: str) -> None:
    lines: list[str] = []

    def note(client: str, text: str) -> None:
        lines.append(text)
        if len(lines) == 2:
            fleet.stop()

    with Service() as service:
        service.answer = answer
        fleet = FakeFleet(quick(service.url), note)
        fleet.run()

    assert all(told in line for line in lines[:2])
    assert {("3:2", True)} == {(r.apps[0].events[0].code, r.apps[0].update_check) for r in service.requests}


def test_a_service_that_is_away_ends_nobody() -> None:
    lines: list[str] = []

    def note(client: str, text: str) -> None:
        lines.append(text)
        fleet.stop()

    fleet = FakeFleet(quick(dead_url()), note)
    fleet.run()

    assert "can't connect" in lines[0]


def test_stop_ends_clients_that_sleep() -> None:
    fleet = FakeFleet(quick(dead_url(), clients=20, min_sleep_s=3600, max_sleep_s=3600), lambda *_: None)
    thread = threading.Thread(target=fleet.run)
    thread.start()

    fleet.stop()
    thread.join(60)

    assert not thread.is_alive()


def test_force_update_says_that_a_person_asked() -> None:
    with Service() as service:
        service.answer = Answer(check=OFFER)
        run(quick(service.url, on_demand=True))

    assert all(request.on_demand for request in service.requests)


def test_words_that_xml_would_stumble_over_arrive_whole() -> None:
    with Service() as service:
        service.answer = Answer(check=OFFER)
        run(quick(service.url, group="a<b&\"c'", oem=""))

    assert {("a<b&\"c'", "")} == {(r.apps[0].track, r.apps[0].oem) for r in service.requests}
