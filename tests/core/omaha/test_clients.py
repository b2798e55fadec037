"""What we answer is accepted by every client that is known to exist."""

from dataclasses import replace

import pytest

from outrider.core.omaha import (
    AppAnswer,
    AppRequest,
    CheckError,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaResponse,
    UpdateCheck,
    answer_app,
    render_response,
)
from tests.support.captures import read_http
from tests.support.omaha_clients import CLIENTS, Failed, Idle, Outcome, Taken, check_form, outcomes

EVENT = OmahaEvent(type=3, result=2)
ASKED = AppRequest(app_id="{E96281A6-d1af-4bde-9a0a-97b76e56dc57}", version="1.0.0", ping=True, update_check=True)
SHA256 = "0123456789abcdef" * 4
PAYLOAD = OfferedPackage(name="web-1.2.3.tar", size_bytes=8, sha1="mAFznarkTsUpPU4fU9P00tQm2Rw=", sha256=SHA256)
OFFER = Offer(version="1.2.3", codebases=("http://one.example/web",), packages=(PAYLOAD,))
URL = "http://one.example/web/web-1.2.3.tar"

OFFERS = {
    "with all that is known": OFFER,
    "without SHA-1": replace(OFFER, packages=(replace(PAYLOAD, sha1=""),)),
    "with a fallback address": replace(OFFER, codebases=("http://one.example/web/", "http://two.example")),
    "with an extra file without digests": replace(
        OFFER, packages=(PAYLOAD, OfferedPackage(name="notes.txt", size_bytes=3, required=False))
    ),
}
REQUESTS = {
    "update_engine's check": replace(ASKED, events=(EVENT,)),
    "a bare check": replace(ASKED, ping=False),
    "a check with events in a row": replace(ASKED, events=(EVENT, OmahaEvent(type=14, result=1))),
}


def answer(asked: AppRequest, check: UpdateCheck | None = None, status: str = "ok") -> bytes:
    return render_response(OmahaResponse(apps=(answer_app(asked, check, status=status),), elapsed_seconds=4711))


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_every_client_takes_an_offer(offer: Offer, asked: AppRequest) -> None:
    body = answer(asked, offer)

    everyone = outcomes(body, asked)

    assert {
        "update_engine": Taken(url=URL, sha256=SHA256, size_bytes=8),
        "updatectl watch": Taken(version="1.2.3", url=URL),
        "updatectl fake": Taken(version="1.2.3"),
        "go-omaha": Taken(version="1.2.3"),
        "Nebraska's library": Taken(version="1.2.3"),
        "ue-rs": Taken(version="1.2.3", url=URL, sha256="" if offer.package.sha1 else SHA256, size_bytes=8),
    } == everyone
    check_form(body, asked)


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("no_update", [NoUpdate(), NoUpdate(reason="paused by <ops> & co", poll_interval_s=60)])
def test_every_client_waits_when_there_is_no_update(no_update: NoUpdate, asked: AppRequest) -> None:
    body = answer(asked, no_update)

    assert {name: Idle() for name in CLIENTS} == outcomes(body, asked)
    check_form(body, asked)


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, update_check=False),
        replace(ASKED, update_check=False, ping=False, events=(EVENT,)),
        replace(ASKED, update_check=False, ping=False, events=(EVENT,) * 3),
    ],
    ids=["ping", "one event", "three events"],
)
def test_every_client_is_content_when_it_only_reports(asked: AppRequest) -> None:
    body = answer(asked)

    assert {name: Idle() for name in CLIENTS} == outcomes(body, asked)
    check_form(body, asked)


def test_no_client_crashes_over_an_unknown_app() -> None:
    asked = REQUESTS["update_engine's check"]
    body = answer(asked, NoUpdate(reason="no such app"), status="error-unknownApplication")

    expected: dict[str, Outcome] = {name: Idle() for name in CLIENTS}
    failed = Failed(status="error-unknownApplication")
    assert expected | {"go-omaha": failed, "Nebraska's library": failed} == outcomes(body, asked)
    check_form(body, asked)


def test_an_answer_for_several_apps_keeps_their_order_and_spelling() -> None:
    first = replace(ASKED, app_id="{ABC}", ping=False)
    second = replace(ASKED, app_id=" io.example.Web ", update_check=False, events=(EVENT,))

    body = render_response(OmahaResponse(apps=(answer_app(first, OFFER), answer_app(second))))

    check_form(body, first, second)
    assert Taken(version="1.2.3") == CLIENTS["go-omaha"](body, first)
    assert Idle() == CLIENTS["go-omaha"](body, second)


def test_an_update_check_that_was_asked_for_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="asked for an update check"):
        answer_app(ASKED, None)


def test_an_update_check_that_was_not_asked_for_is_not_sent() -> None:
    asked = replace(ASKED, update_check=False)

    check_form(answer(asked, OFFER), asked)


@pytest.mark.parametrize(
    "broken",
    [
        replace(OFFER, codebases=()),
        replace(OFFER, packages=()),
        replace(OFFER, packages=(replace(PAYLOAD, size_bytes=0),)),
        replace(OFFER, packages=(replace(PAYLOAD, sha256=""),)),
    ],
    ids=["no address", "no package", "no size", "no digest"],
)
def test_an_offer_that_a_client_would_refuse_is_not_written(broken: Offer) -> None:
    with pytest.raises(ValueError):
        answer(ASKED, broken)


@pytest.mark.parametrize("client", ["update_engine", "updatectl watch"])
def test_the_rules_know_what_crashes_a_client(client: str) -> None:
    """Nebraska's way to hold an instance back: seen to crash ``watch`` and to make update_engine report an error."""
    held_back = AppAnswer(
        app_id=ASKED.app_id, status="error-updatesDisabled", update_check=CheckError(status="error-internal")
    )
    body = render_response(OmahaResponse(apps=(held_back,)))

    with pytest.raises(AssertionError):
        CLIENTS[client](body, ASKED)


def test_the_rules_know_that_update_engine_refuses_nebraskas_answer_for_other_apps() -> None:
    """Its actions are empty, so the payload has no SHA-256 that update_engine would look at."""
    body = read_http("nebraska-responses/01-ok.response.bin").body

    with pytest.raises(AssertionError, match="no postinstall action"):
        CLIENTS["update_engine"](body, ASKED)
    assert Taken(version="1.2.3", url="http://127.0.0.1:9/pkgs/web-1.2.3.tar") == CLIENTS["updatectl watch"](
        body, ASKED
    )


def test_the_rules_accept_nebraskas_answer_for_flatcar() -> None:
    asked = replace(ASKED, app_id="{e96281a6-d1af-4bde-9a0a-97b76e56dc57}", events=(EVENT,))
    body = read_http("nebraska-responses/60-flatcar-ok.response.bin").body

    everyone = outcomes(body, asked)

    assert all(isinstance(outcome, Taken) for outcome in everyone.values())
    check_form(body, asked)
