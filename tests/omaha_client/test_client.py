"""The Omaha client against a real HTTP server on loopback."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from outrider import __version__
from outrider.core.errors import ConfigError, DriverError, OmahaError, Refused, Throttled, Unknown
from outrider.core.omaha import (
    CheckError,
    NoUpdate,
    Offer,
    OmahaEvent,
)
from outrider.omaha_client import Upstream
from outrider.sidekick.outbox import Outbox
from tests.support.captures import read_http
from tests.support.update_service import (
    APP,
    OFFER,
    REPORT,
    Answer,
    Service,
    check,
    dead_url,
    hang_up,
    raw_server,
    upstream,
)
from tests.support.waiting import eventually


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.fixture
def second() -> Iterator[Service]:
    with Service() as running:
        yield running


def test_a_check_is_one_request_with_ping_update_check_and_the_running_version(service: Service) -> None:
    service.answer = Answer(check=OFFER)

    offered = check(upstream(service.url))

    assert OFFER == offered
    (request,) = service.requests
    (app,) = request.apps
    assert (APP, "1.0.0", "canary", "web-1", "boot-1", "the first") == (
        app.app_id,
        app.version,
        app.track,
        app.machine_id,
        app.boot_id,
        app.alias,
    )
    assert (True, True) == (app.ping, app.update_check)
    assert (OmahaEvent(type=3, result=2, previous_version="0.9.0"),) == app.events
    assert ("update-1", "scheduler", f"outrider-{__version__}") == (
        request.session_id,
        request.install_source,
        request.updater_version,
    )
    method, path, headers = service.heads[0]
    assert ("POST", "/v1/update/") == (method, path)
    assert "text/xml; charset=utf-8" == headers["content-type"]
    assert f"outrider/{__version__}" == headers["user-agent"]


def test_a_check_that_a_person_asked_for_says_so(service: Service) -> None:
    check(upstream(service.url), on_demand=True)

    assert service.requests[0].on_demand


def test_every_check_has_a_request_id_of_its_own(service: Service) -> None:
    client = upstream(service.url)

    check(client)
    check(client)

    one, two = (request.request_id for request in service.requests)
    assert one
    assert one != two


def test_a_report_is_one_event_and_a_repeat_keeps_its_request_id(service: Service) -> None:
    client = upstream(service.url)

    client.send(REPORT)
    client.send(REPORT)

    for request in service.requests:
        (app,) = request.apps
        assert (False, False, (REPORT.event,), "1.0.0") == (app.ping, app.update_check, app.events, app.version)
        assert ("update-1", "update-1/downloaded") == (request.session_id, request.request_id)
    assert 2 == len(service.requests)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", "/v1/update/"),
        ("/", "/v1/update/"),
        ("/v1/update/secret", "/v1/update/secret"),
        ("/omaha?x=1", "/omaha?x=1"),
    ],
)
def test_only_an_address_without_a_path_gets_the_usual_one(service: Service, given: str, asked: str) -> None:
    check(upstream(service.url + given))

    assert asked == service.heads[0][1]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://h/", "http://", "http://h:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"service\.urls"):
        upstream(url)


def test_no_address_at_all_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        upstream()


def test_no_update_carries_the_reason(service: Service) -> None:
    service.answer = Answer(check=NoUpdate(reason="paused by anna", poll_interval_s=90))

    assert NoUpdate(reason="paused by anna", poll_interval_s=90) == check(upstream(service.url))


def test_the_time_of_each_answer_is_told(service: Service) -> None:
    service.answer = Answer(check=NoUpdate())
    dates: list[str] = []

    Upstream(urls=(service.url,), app_id=APP, group="g", instance="i", on_date=dates.append).check(
        version="1.0.0", previous_version="", update="u"
    )

    assert 1 == len([parsedate_to_datetime(date) for date in dates])


@pytest.mark.parametrize("name", ["01-ok", "60-flatcar-ok"])
def test_nebraskas_recorded_offer_is_taken(service: Service, name: str) -> None:
    recorded = read_http(f"nebraska-responses/{name}.response.bin").body
    service.answer = Answer(body=recorded)
    app_id = "da7508e2-9b33-490a-bead-60919b1acd76" if name == "01-ok" else APP.lower()

    found = Upstream(urls=(service.url,), app_id=app_id, group="g", instance="i").check(
        version="1.0.0", previous_version="", update="u"
    )

    assert isinstance(found, Offer)
    assert found.version in ("1.2.3", "9999.0.0")


@pytest.mark.parametrize(
    "status",
    ["error-noPackageFound", "error-updatesDisabled", "error-maxUpdatesPerPeriodLimitReached"],
)
def test_nebraskas_way_to_hold_back_is_no_error(service: Service, status: str) -> None:
    service.answer = Answer(check=CheckError(status="error-internal"), app_status=status)

    found = check(upstream(service.url))

    assert isinstance(found, NoUpdate)
    assert status in found.reason


@pytest.mark.parametrize(
    "status", ["error-unknownApplication", "error-failedToRetrieveUpdatePackageInfo", "restricted"]
)
def test_an_app_that_the_service_does_not_know_is_refused(service: Service, status: str) -> None:
    service.answer = Answer(check=NoUpdate(reason="no such app here"), app_status=status)

    with pytest.raises(Refused, match=f"{status}.*no such app here"):
        check(upstream(service.url))


def test_an_internal_error_of_the_service_may_be_tried_again(service: Service) -> None:
    service.answer = Answer(check=CheckError(status="error-internal"))

    with pytest.raises(DriverError, match="couldn't decide: error-internal") as caught:
        check(upstream(service.url))

    assert caught.value.retry


def test_a_report_about_an_app_that_is_not_known_can_wait(service: Service) -> None:
    service.answer = Answer(app_status="error-unknownApplication")

    with pytest.raises(DriverError, match="report not taken") as caught:
        upstream(service.url).send(REPORT)

    assert caught.value.retry


def test_an_offered_version_that_is_not_semver_is_not_believed(service: Service) -> None:
    service.answer = Answer(
        check=Offer(version="1.2", codebases=OFFER.codebases, packages=OFFER.packages),
    )

    with pytest.raises(OmahaError, match=r"offers version '1\.2': not semver"):
        check(upstream(service.url))


def test_the_next_address_is_asked_when_one_is_dead(service: Service) -> None:
    service.answer = Answer(check=OFFER)

    assert OFFER == check(upstream(dead_url(), service.url))


def test_the_address_that_last_worked_is_asked_first(service: Service, second: Service) -> None:
    client = upstream(service.url, second.url)
    service.answer = Answer(status=500)
    check(client)
    service.answer = Answer()

    check(client)

    assert (1, 2) == (len(service.requests), len(second.requests))


def test_all_addresses_see_the_same_request_id(service: Service, second: Service) -> None:
    service.answer = Answer(status=502)

    check(upstream(service.url, second.url))

    assert service.requests[0].request_id == second.requests[0].request_id


def test_a_refusal_is_not_asked_for_again_elsewhere(service: Service, second: Service) -> None:
    service.answer = Answer(status=400, body=b"no")

    with pytest.raises(Refused):
        check(upstream(service.url, second.url))

    assert [] == second.requests


def test_when_all_addresses_fail_each_has_its_word(service: Service) -> None:
    service.answer = Answer(status=500, body=b"out of order")
    dead = dead_url()

    with pytest.raises(DriverError) as caught:
        check(upstream(dead, service.url))

    assert f"{dead}/v1/update/: can't connect" in str(caught.value)
    assert "HTTP 500: out of order" in str(caught.value)


def test_one_unanswered_request_among_failures_is_what_counts(service: Service) -> None:
    with raw_server(hang_up) as url, pytest.raises(Unknown):
        check(upstream(url, dead_url()))


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (500, {"X-Retry-After": "120"}, 120),
        (404, {"X-Retry-After": "120"}, 120),
        (503, {"Retry-After": "30"}, 30),
        (429, {"X-Retry-After": "60", "Retry-After": "30"}, 60),
        (503, {"X-Retry-After": "999999999"}, 86_400),
    ],
)
def test_the_wait_that_an_error_asks_for_is_told(
    service: Service, status: int, headers: dict[str, str], seconds: int
) -> None:
    service.answer = Answer(status=status, headers=headers)

    with pytest.raises(Throttled) as caught:
        check(upstream(service.url))

    assert seconds == caught.value.retry_after_s


@pytest.mark.parametrize("value", ["", "soon", "-5", "0", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "\u0663"])
def test_a_wait_that_is_no_number_is_ignored(service: Service, value: str) -> None:
    service.answer = Answer(status=503, headers={"X-Retry-After": value.encode().decode("latin-1")})

    with pytest.raises(DriverError) as caught:
        check(upstream(service.url))

    assert type(caught.value) is DriverError


def test_no_request_is_made_before_the_wait_is_over(service: Service) -> None:
    clock = Clock()
    client = upstream(service.url, clock=clock)
    service.answer = Answer(status=503, headers={"X-Retry-After": "120"})
    with pytest.raises(Throttled):
        check(client)
    service.answer = Answer()

    clock.now += 100
    with pytest.raises(Throttled) as caught:
        client.send(REPORT)
    assert 20 == caught.value.retry_after_s
    assert 1 == len(service.requests)

    clock.now += 20
    client.send(REPORT)
    assert 2 == len(service.requests)


def test_a_wait_holds_also_when_it_came_with_a_good_answer(service: Service) -> None:
    clock = Clock()
    client = upstream(service.url, clock=clock)
    service.answer = Answer(headers={"Content-Type": "text/xml", "X-Retry-After": "45"})

    assert NoUpdate(poll_interval_s=45) == check(client)
    with pytest.raises(Throttled):
        check(client)

    assert 1 == len(service.requests)


def test_a_wait_for_one_address_leaves_the_others_free(service: Service, second: Service) -> None:
    client = upstream(service.url, second.url, clock=Clock())
    service.answer = Answer(status=503, headers={"X-Retry-After": "120"})
    check(client)
    second.answer = Answer(status=500)

    with pytest.raises(DriverError):
        check(client)

    assert (1, 2) == (len(service.requests), len(second.requests))


def test_proxies_and_passwords_of_the_environment_are_not_used(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead_url())
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    check(upstream(service.url))

    assert "authorization" not in service.heads[0][2]


def test_a_check_and_a_report_may_be_under_way_at_once(service: Service) -> None:
    client = upstream(service.url)

    def report() -> None:
        for _ in range(5):
            client.send(REPORT)

    def ask() -> None:
        for _ in range(5):
            check(client)

    threads = [threading.Thread(target=report), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert 10 == len(service.requests)


def test_no_thread_is_left_behind_by_a_request(service: Service) -> None:
    check(upstream(service.url))

    assert [] == [thread.name for thread in threading.enumerate() if thread.name == "upstream-deadline"]


def test_reports_wait_in_the_outbox_until_the_service_is_back(service: Service, tmp_path: Path) -> None:
    """Outbox and client together: errors, then all reports in order, the repeats under their first request id."""
    service.answer = Answer(status=500)
    client = upstream(service.url)
    outbox = Outbox(tmp_path, client.send, retry_min_s=0.01, retry_max_s=0.02)
    reports = [replace(REPORT, request_id=f"update-1/{number}") for number in range(3)]
    for one in reports:
        outbox.put(one)
    eventually(lambda: len(service.requests) >= 2)

    service.answer = Answer()

    assert outbox.flush(60)
    outbox.close()
    seen = [request.request_id for request in service.requests]
    assert [one.request_id for one in reports] == list(dict.fromkeys(seen))
    assert len(seen) > len(reports)


def test_a_report_that_the_service_refuses_is_set_aside_by_the_outbox(service: Service, tmp_path: Path) -> None:
    service.answer = Answer(status=400, body=b"bad request")
    outbox = Outbox(tmp_path, upstream(service.url).send)

    outbox.put(REPORT)

    assert outbox.flush(60)
    outbox.close()
    assert 1 == len(list((tmp_path / "refused").iterdir()))
