"""Our attribute ``release``: in the app, in each event and in an offer; nothing where nobody speaks of releases."""

import pytest

from outrider.core.errors import OmahaError
from outrider.core.omaha import (
    AppAnswer,
    AppRequest,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    parse_request,
    parse_response,
    render_request,
    render_response,
)
from outrider.core.release import ReleaseId

OLD = ReleaseId(version="2.4.0", sha256="a" * 64, environment=6, environment_digest="6" * 64)
NEW = ReleaseId(version="2.4.0", sha256="a" * 64, environment=7, environment_digest="7" * 64, generation=2)


def request(release: ReleaseId | None) -> OmahaRequest:
    event = OmahaEvent(type=13, result=1, next_version="2.4.0", release=None if release is None else NEW)
    app = AppRequest(app_id="web", version="2.4.0", release=release, update_check=True, events=(event,))
    return OmahaRequest(apps=(app,))


def response(release: ReleaseId | None) -> OmahaResponse:
    package = OfferedPackage(name="web.tar", size_bytes=9, sha256="a" * 64)
    offer = Offer(version="2.4.0", codebases=("http://x/",), packages=(package,), release=release)
    return OmahaResponse(apps=(AppAnswer(app_id="web", update_check=offer),))


def test_what_runs_and_what_an_event_is_about_arrive_as_they_were_sent() -> None:
    (app,) = parse_request(render_request(request(OLD))).apps

    assert OLD == app.release
    assert (NEW, "2.4.0 with environment 7, generation 2") == (app.events[0].release, app.events[0].next_release)


def test_an_offer_says_which_release_it_is() -> None:
    answer = parse_response(render_response(response(NEW))).apps[0]

    assert isinstance(answer.update_check, Offer)
    assert NEW == answer.update_check.release


def test_whoever_names_versions_only_sends_and_gets_no_such_attribute() -> None:
    assert b"release=" not in render_request(request(None))
    assert b"release=" not in render_response(response(None))
    (app,) = parse_request(render_request(request(None))).apps
    assert (None, "2.4.0") == (app.release, app.events[0].next_release)


def test_what_can_not_be_read_is_refused_and_not_guessed() -> None:
    with pytest.raises(OmahaError, match=r"release '2\.4\.0 with 7'"):
        parse_request(render_request(request(OLD)).replace(OLD.as_word().encode(), b"2.4.0 with 7"))
    with pytest.raises(OmahaError, match=r"its release is one of '9\.9\.9'"):
        parse_response(render_response(response(NEW)).replace(b'release="2.4.0', b'release="9.9.9'))
