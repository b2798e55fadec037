"""Every call that the real updateservicectl was seen to make gets an answer that it can read."""

import json

import pytest

from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.support.captures import captured_files
from tests.support.coreupdate import CapturedCall, Signer, read_call, response_of, sign, unreadable
from tests.support.service_examples import SHA256

CALLS = captured_files("coreupdate-api/*.txt")
BASE = "/_ah/api/update/v1/"
GROUP = {
    "id": "testing", "appId": "app-1", "channelId": "master", "label": "testing", "oemBlacklist": "",
    "updatesPaused": False, "updatePercent": 100.0, "rolloutActive": False,
}  # fmt: skip
EMPTY: dict[str, object] = {"items": []}
ANSWERS: dict[str, object] = {
    "001": {"items": [{"id": "app-1", "label": "L", "description": "D"}]},
    "003": {"id": "app-1", "label": "L2", "description": "D2"},
    "009": {"items": [GROUP]},
    "011": GROUP,
    "013": GROUP,
    "015": GROUP,
    "017": {"appId": "app-1", "id": "testing", "updatePercent": 25.0},
    "019": EMPTY,
    "027": EMPTY,
    "029": {
        "appId": "app-1",
        "groupId": "testing",
        "rollout": [
            {"duration": "60", "percent": 50.0},
            {"duration": "60", "percent": 100.0},
            {"duration": "0", "percent": 100.0},
        ],
    },
    "031": {"appId": "app-1", "groupId": "testing", "active": False},
    "033": {"users": [{"user": "admin"}, {"user": "u@x"}]},
    "034": {"user": "u@x"},
}  # fmt: skip
"""Whole answers, where no time is in them."""
UPSTREAM = ("035", "037", "039")


@pytest.fixture
def filled(store: Store, admin: Signer) -> Store:
    """What the calls are about."""
    store.apps.create(app="app-1", label="L", description="D")
    for version in ("1.0.0", "1.0.1"):
        payload = Payload(url=f"http://files.example/web-{version}.tar", size_bytes=6, sha256=SHA256)
        store.packages.create("app-1", version, payload)
    store.channels.create("app-1", "master", version="1.0.0")
    store.groups.create("app-1", "testing", channel="master")
    store.users.create("u@x", "operator")
    return store


def replay(admin: Signer, call: CapturedCall, **changed: str) -> tuple[int, bytes]:
    """The call as it was, signed anew."""
    sent = {name.replace("-", "_"): value for name, value in call.headers.items() if name != "content-length"}
    sent["authorization"] = sign("admin", admin.key, call.method, call.target, at=admin.at, host=call.headers["host"])
    answer = admin.call(call.method, call.target, call.body or None, **(sent | changed))
    return answer.status, answer.body


@pytest.mark.parametrize("name", CALLS)
def test_a_captured_call_gets_an_answer_that_the_real_client_reads(admin: Signer, filled: Store, name: str) -> None:
    call, number = read_call(name), name.removeprefix("coreupdate-api/").removesuffix(".txt")

    status, body = replay(admin, call)

    if number in UPSTREAM:
        assert (501, True) == (status, b"outrider package download" in body)
        return
    assert 200 == status, body
    if not call.target.startswith(BASE):
        return  # the client looks at the status, and of a backup it keeps the bytes
    answer = json.loads(body)
    path = call.target.removeprefix(BASE).partition("?")[0]
    assert [] == unreadable(answer, response_of(call.method, path))
    assert ANSWERS.get(number, answer) == answer


def test_the_captured_calls_as_they_were_signed_are_refused(admin: Signer, filled: Store) -> None:
    """By another key, and long ago."""
    calls = [read_call(name) for name in CALLS]

    statuses = [replay(admin, call, authorization=call.headers["authorization"])[0] for call in calls]

    assert [401] * len(CALLS) == statuses


def test_what_the_captured_calls_change_is_changed(admin: Signer, filled: Store) -> None:
    for number in ("007", "017", "023", "029", "034"):
        if number == "023":  # 1.0.1 is in use by the channel since 007
            filled.channels.save("app-1", "master", version="1.0.0")
        assert 200 == replay(admin, read_call(f"coreupdate-api/{number}.txt"))[0]

    assert ("1.0.0", True) == ((master := filled.channels.get("app-1", "master")).version, master.publish)
    assert 25.0 == filled.rollouts.policy("app-1", "testing").percent
    assert ["1.0.0"] == [package.version for package in filled.packages.list("app-1")]
    assert ["admin"] == [user.name for user in filled.users.list()]
    assert [(60, 50.0), (60, 100.0), (0, 100.0)] == list(filled.frames.get("app-1", "testing").frames)


def test_the_captured_upload_is_stored_by_its_digest(admin: Signer, filled: Store) -> None:
    digest = "cd2eca3535741f27a8ae40c31b0c41d4057a7a7b912b33b9aed86485d1c84676"  # of "hello\r\n"

    status, body = replay(admin, read_call("coreupdate-api/025.txt"))

    assert (200, f"{digest}\n".encode()) == (status, body)
    made = admin.api("POST", "apps/app-1/packages/2.0.0", {"sha256Sum": digest, "size": "7"})
    assert (200, "app-1-2.0.0") == (made.status, filled.packages.get("app-1", "2.0.0").name)


def test_the_captured_backup_is_whole(admin: Signer, filled: Store) -> None:
    _, body = replay(admin, read_call("coreupdate-api/041.txt"))

    lines = [json.loads(line) for line in body.splitlines()]
    assert "outrider backup" == lines[0]["format"]
    assert any(line.get("key") == "apps/app-1" for line in lines)
