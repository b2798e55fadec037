"""Every recorded file is understood, and says what was seen when it was recorded."""

import hashlib

import pytest

from outrider.core.omaha import (
    AppRequest,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    parse_request,
    parse_response,
    render_request,
)
from tests.support.captures import CAPTURES, FleetExchange, captured_files, read_fleet_exchange, read_http

FLATCAR = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
WEB = "da7508e2-9b33-490a-bead-60919b1acd76"
MACHINE = "4965a491e0b14faaa11f153cd1625586"

DOWNLOADING = OmahaEvent(type=13, result=1)
DOWNLOADED = OmahaEvent(type=14, result=1)
INSTALLED = OmahaEvent(type=3, result=1)
RUNNING = OmahaEvent(type=3, result=2)


def watch(boot_id: str) -> OmahaRequest:
    """updatectl ``watch``: braces, a new boot id per request, and an error event that means nothing."""
    app = AppRequest(
        app_id="{" + FLATCAR + "}",
        version="0.0.0",
        track="beta",
        machine_id="client-1",
        boot_id=boot_id,
        update_check=True,
        events=(OmahaEvent(type=1, result=0),),
    )
    return OmahaRequest(apps=(app,), platform="CoreOS", os_version="lsb")


def fake(
    version: str, *events: OmahaEvent, ping: bool = False, check: bool = False, second_boot: bool = False
) -> OmahaRequest:
    """updatectl ``instance fake``: no braces, a new boot id after a completed update."""
    app = AppRequest(
        app_id=FLATCAR,
        version=version,
        track="beta",
        machine_id="deadbeef7f30ec9686b6c106e433ab6e",
        boot_id="c52007a8-9b60-4cdf-8554-33f02e0ed68a" if second_boot else "631fb3da-517a-40fc-b9d6-574cc38a854d",
        oem="fakeclient",
        ping=ping,
        update_check=check,
        events=events,
    )
    return OmahaRequest(apps=(app,), install_source="scheduler", platform="CoreOS", os_version="lsb")


def go_client(version: str, *events: OmahaEvent, ping: bool = False, check: bool = False) -> OmahaRequest:
    """go-omaha's own client."""
    session, user = "622dccec-fc85-449e-b670-2a4dd2cc055b", "8b10fc6d-30ca-49b2-b1a2-8185f03d522b"
    app = AppRequest(
        app_id=WEB,
        version=version,
        track="open",
        machine_id=user,
        boot_id=session,
        oem="studyoem",
        ping=ping,
        update_check=check,
        events=events,
    )
    return OmahaRequest(
        apps=(app,), updater="study-0.0.1", session_id=session, user_id=user, platform="linux", arch="x64"
    )


def library(*events: OmahaEvent, check: bool = False) -> OmahaRequest:
    """Nebraska's updater library."""
    session = "459d488a-758a-4289-8c7c-6a64edf005fe"
    app = AppRequest(
        app_id=WEB,
        version="1.0.0",
        track="open",
        machine_id="lib-updater-apply",
        boot_id=session,
        update_check=check,
        events=events,
    )
    return OmahaRequest(
        apps=(app,),
        updater="go-omaha",
        session_id=session,
        user_id="lib-updater-apply",
        platform="linux",
        arch="x64",
    )


REQUESTS = {
    "go-omaha-client/001.request.bin": go_client("1.0.0", RUNNING, ping=True, check=True),
    "go-omaha-client/002.request.bin": go_client("1.0.0", DOWNLOADING),
    "go-omaha-client/003.request.bin": go_client("1.0.0", DOWNLOADED),
    "go-omaha-client/004.request.bin": go_client("1.0.0", INSTALLED),
    "go-omaha-client/005.request.bin": go_client("1.2.3", RUNNING),
    "go-omaha-client/006.request.bin": go_client("1.2.3", ping=True),
    "go-omaha-client/007.request.bin": go_client("1.2.3", OmahaEvent(type=3, result=0, error_code=9)),
    "instance-fake-update/001.request.bin": fake("1.0.0", RUNNING, check=True),
    "instance-fake-update/002.request.bin": fake("1.0.0", DOWNLOADING),
    "instance-fake-update/003.request.bin": fake("1.0.0", DOWNLOADED),
    "instance-fake-update/004.request.bin": fake("1.0.0", INSTALLED),
    "instance-fake-update/005.request.bin": fake("1.0.0", ping=True),
    "instance-fake-update/006.request.bin": fake("1.0.0", ping=True),
    "instance-fake-update/007.request.bin": fake("1.2.3", RUNNING),
    "instance-fake-update/008.request.bin": fake("1.2.3", RUNNING, check=True, second_boot=True),
    "instance-fake-update/009.request.bin": fake("1.2.3", DOWNLOADING, second_boot=True),
    "nebraska-updater-library/001.request.bin": library(check=True),
    "nebraska-updater-library/002.request.bin": library(DOWNLOADED),
    "nebraska-updater-library/003.request.bin": library(OmahaEvent(type=3, result=0)),
    "watch-noupdate/001.request.bin": watch("84c3d141-f17c-4ad6-aaf1-f3c6616850ae"),
    "watch-noupdate/002.request.bin": watch("54d141c7-460f-4692-9363-0103f1027a3b"),
    "watch-noupdate/003.request.bin": watch("6bf564bc-8c9e-4518-bf15-6564944e931e"),
    "watch-noupdate/004.request.bin": watch("99da097f-d7a2-4b4d-acb3-410de840d86e"),
}

RESPONSES = {
    "nebraska-responses/01-ok.response.bin": (
        WEB,
        True,
        0,
        Offer(
            version="1.2.3",
            codebases=("http://127.0.0.1:9/pkgs/",),
            packages=(
                # Nebraska names no SHA-256 for the payload of an app that isn't Flatcar.
                OfferedPackage(name="web-1.2.3.tar", size_bytes=8, sha1="mAFznarkTsUpPU4fU9P00tQm2Rw="),
                OfferedPackage(
                    name="web-1.2.3.json",
                    size_bytes=12,
                    sha1="2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
                    # In base64 on the wire: the SHA-256 of nothing.
                    sha256=hashlib.sha256(b"").hexdigest(),
                    required=False,
                ),
            ),
        ),
        ("http://127.0.0.1:9/pkgs/web-1.2.3.tar",),
    ),
    "nebraska-responses/09-noupdate.response.bin": (WEB, False, 0, NoUpdate(), ()),
    "nebraska-responses/60-flatcar-ok.response.bin": (
        "{" + FLATCAR + "}",
        True,
        1,
        Offer(
            version="9999.0.0",
            codebases=("http://127.0.0.1:9/flatcar/",),
            packages=(
                OfferedPackage(
                    name="flatcar_production_update.gz",
                    size_bytes=67546213,
                    sha1="+LXvjiaPkeYDLHoNKlf9qbJwvnk=",
                    sha256="d15025416dd113df521ad481e51e26d3c6a7b401cef170e804c283cb1413fcc8",
                ),
            ),
        ),
        ("http://127.0.0.1:9/flatcar/flatcar_production_update.gz",),
    ),
}

EXAMPLE, SIDEKICK = "example@A.service", "sidekick@A.service"
UNITS, STATE = "/fleet/v1/units", "/fleet/v1/state"
MISSING = {"error": {"code": 404, "message": "unit does not exist"}}


def exec_start(command: str) -> dict[str, str]:
    return {"section": "Service", "name": "ExecStart", "value": command}


EXAMPLE_UNIT = {
    "currentState": "launched",
    "desiredState": "launched",
    "machineID": MACHINE,
    "name": EXAMPLE,
    "options": [exec_start("/bin/sleep 100000")],
}
SIDEKICK_OPTIONS = [
    {"section": "Unit", "name": "BindsTo", "value": EXAMPLE},
    exec_start("/bin/sleep 100001"),
    {"section": "X-Fleet", "name": "MachineOf", "value": EXAMPLE},
]


def running_state(name: str, digest: str) -> dict[str, str]:
    return {
        "hash": digest,
        "machineID": MACHINE,
        "name": name,
        "systemdActiveState": "active",
        "systemdLoadState": "loaded",
        "systemdSubState": "running",
    }


EXAMPLE_STATE = running_state(EXAMPLE, "f2c95611864379c4747edbab79167477cc7566d3")
SIDEKICK_STATE = running_state(SIDEKICK, "57f007b916137a2301c6ad5ee068181d237f0ccb")


def fleet(
    method: str,
    path: str,
    status: str,
    answer: object = None,
    *,
    sent: object = None,
    query: dict[str, str] | None = None,
) -> FleetExchange:
    code, _, reason = status.partition(" ")
    return FleetExchange(
        method=method,
        path=path,
        query=query or {},
        sent=sent,
        status=int(code),
        reason=reason,
        content_type=None if answer is None else "application/json",
        answer=answer,
    )


def wanted(state: str, *options: dict[str, str]) -> dict[str, object]:
    return {"desiredState": state, "options": list(options)}


FLEET = {
    "fleet-api/01-machines.txt": fleet(
        "GET",
        "/fleet/v1/machines",
        "200 OK",
        {"machines": [{"id": MACHINE, "metadata": {"region": "here"}, "primaryIP": "10.0.0.1"}]},
    ),
    "fleet-api/02-create-unit.txt": fleet(
        "PUT",
        f"{UNITS}/{EXAMPLE}",
        "201 Created",
        sent=wanted("launched", exec_start("/bin/sleep 100000")),
    ),
    "fleet-api/03-create-sidekick-unit.txt": fleet(
        "PUT",
        f"{UNITS}/{SIDEKICK}",
        "201 Created",
        sent=wanted("launched", *SIDEKICK_OPTIONS),
    ),
    "fleet-api/04-list-units.txt": fleet(
        "GET",
        UNITS,
        "200 OK",
        {"units": [EXAMPLE_UNIT, EXAMPLE_UNIT | {"name": SIDEKICK, "options": SIDEKICK_OPTIONS}]},
    ),
    "fleet-api/05-get-unit.txt": fleet("GET", f"{UNITS}/{EXAMPLE}", "200 OK", EXAMPLE_UNIT),
    "fleet-api/06-list-state.txt": fleet("GET", STATE, "200 OK", {"states": [EXAMPLE_STATE, SIDEKICK_STATE]}),
    "fleet-api/07-state-of-unit.txt": fleet(
        "GET", STATE, "200 OK", {"states": [EXAMPLE_STATE]}, query={"unitName": EXAMPLE}
    ),
    "fleet-api/08-unload-unit.txt": fleet(
        "PUT", f"{UNITS}/{EXAMPLE}", "204 No Content", sent={"desiredState": "inactive"}
    ),
    "fleet-api/09-create-without-options.txt": fleet(
        "PUT",
        f"{UNITS}/bad@A.service",
        "409 Conflict",
        {"error": {"code": 409, "message": "unit does not exist and options field empty"}},
        sent=wanted("launched"),
    ),
    "fleet-api/10-create-bad-name.txt": fleet(
        "PUT",
        f"{UNITS}/bad.sock",
        "400 Bad Request",
        {"error": {"code": 400, "message": 'invalid unit type: "sock"'}},
        sent=wanted("launched", exec_start("/bin/true")),
    ),
    "fleet-api/11-get-missing.txt": fleet("GET", f"{UNITS}/none.service", "404 Not Found", MISSING),
    "fleet-api/12-create-bad-state.txt": fleet(
        "PUT",
        f"{UNITS}/x.service",
        "500 Internal Server Error",
        {"error": {"code": 500, "message": ""}},
        sent=wanted("nope", exec_start("/bin/true")),
    ),
    "fleet-api/13-change-options-of-existing.txt": fleet(
        "PUT",
        f"{UNITS}/{EXAMPLE}",
        "201 Created",
        sent=wanted("launched", exec_start("/bin/sleep 7")),
    ),
    "fleet-api/14-destroy.txt": fleet("DELETE", f"{UNITS}/{EXAMPLE}", "204 No Content"),
    "fleet-api/15-destroy-missing.txt": fleet("DELETE", f"{UNITS}/{EXAMPLE}", "404 Not Found", MISSING),
}


def test_every_recorded_file_has_its_facts_here() -> None:
    # calls of CoreUpdate's API have theirs in tests/service/coreupdate/test_captured_calls.py
    coreupdate = captured_files("coreupdate-api/*.txt")
    assert 22 == len(coreupdate)

    assert sorted([*REQUESTS, *RESPONSES, *FLEET, *coreupdate]) == captured_files()


def test_no_recorded_byte_has_changed() -> None:
    lines = (CAPTURES / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}

    found = {name: hashlib.sha256((CAPTURES / name).read_bytes()).hexdigest() for name in captured_files()}

    assert stated == found


@pytest.mark.parametrize("name", REQUESTS)
def test_a_recorded_request_is_read_as_what_it_was(name: str) -> None:
    message = read_http(name)

    request = parse_request(message.body)

    assert REQUESTS[name] == request
    path = "/v1/update" if name.startswith("watch") else "/v1/update/"
    assert f"POST {path} HTTP/1.1" == message.start
    assert message.headers["content-type"] in ("text/xml", "text/xml; charset=utf-8")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_recorded_request_survives_being_written_again(name: str) -> None:
    assert REQUESTS[name] == parse_request(render_request(REQUESTS[name]))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_app_of_a_recorded_request_is_found_however_it_is_spelled(name: str) -> None:
    (app,) = parse_request(read_http(name).body).apps

    assert app.app_key in (FLATCAR, WEB)


@pytest.mark.parametrize("name", RESPONSES)
def test_a_recorded_response_is_read_as_what_it_was(name: str) -> None:
    app_id, ping, events, check, urls = RESPONSES[name]
    message = read_http(name)

    response = parse_response(message.body)

    assert ("HTTP/1.1 200 OK", "text/xml") == (message.start, message.headers["content-type"])
    assert ("nebraska", 0) == (response.server, response.elapsed_seconds)
    (answer,) = response.apps
    assert (app_id, "ok", ping, events) == (answer.app_id, answer.status, answer.ping, answer.events)
    assert check == answer.update_check
    if isinstance(answer.update_check, Offer):
        assert urls == answer.update_check.urls()


@pytest.mark.parametrize("name", FLEET)
def test_a_recorded_exchange_with_fleet_is_read_as_what_it_was(name: str) -> None:
    assert FLEET[name] == read_fleet_exchange(name)


def test_every_error_of_fleet_carries_its_status_and_a_message() -> None:
    failed = [exchange for name in FLEET if (exchange := read_fleet_exchange(name)).status >= 400]

    assert 5 == len(failed)
    for exchange in failed:
        assert isinstance(exchange.answer, dict)
        assert exchange.status == exchange.answer["error"]["code"]
        assert isinstance(exchange.answer["error"]["message"], str)
