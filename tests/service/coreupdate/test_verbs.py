"""CoreUpdate's verbs: each method of its discovery document, and what the client's habits ask for."""

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.store.store import Store
from tests.support.coreupdate import Signer, methods, response_of, unreadable
from tests.support.service_examples import APP, SHA256, make_app
from tests.support.wall_clock import WallClock

NAMES = {
    "{id}": "beta", "{appId}": APP, "{groupId}": "beta", "{label}": "beta", "{version}": "2.0.0", "{dateStart}": "0",
    "{dateEnd}": "0", "{userName}": "bob",
}  # fmt: skip
BODIES: dict[str, object] = {
    "update.admin.createUser": {"userName": "carl"},
    "update.app.insert": {"id": "more", "label": "More"},
    "update.app.patch": {"label": "New", "description": "D"},
    "update.app.update": {"label": "New", "description": "D"},
    "update.app.package.insert": {"url": "http://files.example/a.tar", "size": "6", "sha256Sum": SHA256},
    "update.channel.insert": {"appId": APP, "label": "new", "version": "1.0.0"},
    "update.channel.update": {"version": "1.0.0", "publish": True},
    "update.group.insert": {"id": "new", "channelId": "beta", "label": "New"},
    "update.group.percent.set": {"appId": APP, "id": "beta", "updatePercent": 12.5},
    "update.group.rollout.set": {"rollout": [{"duration": "60", "percent": 50}, {"percent": 100}]},
}


@pytest.fixture
def filled(store: Store, admin: Signer) -> Store:
    make_app(store, versions=("1.0.0", "2.0.0"))
    store.users.create("bob", "operator")
    store.apps.create(app="unused")
    store.channels.create(APP, "unused")
    return store


def ask(admin: Signer, method: str, path: str, body: object = None) -> Any:
    answer = admin.api(method, path, body)
    assert 200 == answer.status, answer.body
    found = json.loads(answer.body)
    assert [] == unreadable(found, response_of(method, path.partition("?")[0]))
    return found


def refused(admin: Signer, method: str, path: str, body: object = None) -> tuple[int, str]:
    answer = admin.api(method, path, body)
    error = json.loads(answer.body)["error"]
    assert answer.status == error["code"]
    return answer.status, error["message"]


@pytest.mark.parametrize("method", methods(), ids=lambda one: one.id)
def test_every_method_of_the_discovery_document_has_an_answer(admin: Signer, filled: Store, method: Any) -> None:
    path = method.path
    names = NAMES | {"update.app.delete": {"{id}": "unused"}, "update.channel.delete": {"{label}": "unused"}}.get(
        method.id, {"{id}": APP} if method.id.startswith("update.app.") else {}
    )
    if method.id == "update.app.package.insert":
        names = names | {"{version}": "3.0.0"}
    for name, value in names.items():
        path = path.replace(name, value)
    assert "{" not in path

    answer = admin.api(
        method.verb, path, BODIES.get(method.id, {} if method.verb in ("POST", "PUT", "PATCH") else None)
    )

    if "upstream" in method.id:
        assert 501 == answer.status
        return
    assert 200 == answer.status, answer.body
    # the client reads a group where the document says that it reads a percentage
    schema = "Group" if method.id == "update.group.percent.get" else method.response
    schema = "AppChannel" if method.id == "update.channel.delete" else schema
    assert [] == unreadable(json.loads(answer.body), schema)


def test_a_channel_is_created_with_the_app_of_the_body(admin: Signer, filled: Store) -> None:
    """updateservicectl writes the channel's name where the app belongs."""
    ask(admin, "POST", "apps/fresh/channels", {"appId": APP, "label": "fresh", "version": "1.0.0"})

    assert "1.0.0" == filled.channels.get(APP, "fresh").version


def test_what_the_client_leaves_out_is_false(admin: Signer, filled: Store) -> None:
    ask(admin, "PATCH", f"apps/{APP}/channels/beta", {"version": "2.0.0", "publish": True})
    paused = ask(admin, "PATCH", f"apps/{APP}/groups/beta", {"id": "beta", "updatesPaused": True})
    assert (True, True) == (filled.channels.get(APP, "beta").publish, paused["updatesPaused"])

    ask(admin, "PATCH", f"apps/{APP}/channels/beta", {"version": "2.0.0"})
    unpaused = ask(admin, "PATCH", f"apps/{APP}/groups/beta", {"id": "beta", "label": "Beta"})

    assert (False, False) == (filled.channels.get(APP, "beta").publish, unpaused["updatesPaused"])
    assert "Beta" == unpaused["label"]


def test_a_percentage_of_zero_is_left_out_too(admin: Signer, filled: Store) -> None:
    ask(admin, "POST", f"apps/{APP}/groups/beta", {"appId": APP, "id": "beta"})

    assert 0.0 == filled.rollouts.policy(APP, "beta").percent
    ask(admin, "PATCH", f"apps/{APP}/groups/beta", {"id": "beta", "updatesPaused": True})
    assert 0.0 == filled.rollouts.policy(APP, "beta").percent, "a pause changed the percentage"


def test_an_uploaded_package_is_found_by_its_digest_and_the_public_list_has_it(admin: Signer, filled: Store) -> None:
    content = bytes(range(256)) * 1000
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p.bin"\r\n\r\n' + content + b"\r\n--b--\r\n"
    sent = admin.call("POST", "/package-upload", form, content_type="multipart/form-data; boundary=b")
    digest = hashlib.sha256(content)
    assert (200, digest.hexdigest().encode()) == (sent.status, sent.body.strip())

    made = ask(
        admin, "POST", f"apps/{APP}/packages/3.0.0",
        {"size": "256000", "sha256Sum": base64.b64encode(digest.digest()).decode(), "releaseNotes": "N"},
    )  # fmt: skip
    ask(admin, "POST", f"apps/{APP}/channels", {"appId": APP, "label": "pub", "version": "3.0.0", "publish": True})

    assert ("256000", base64.b64encode(digest.digest()).decode()) == (made["size"], made["sha256Sum"])
    assert made["url"].startswith("http://127.0.0.1:18600/packages/")
    (item,) = ask(admin, "GET", "public/packages")["items"]
    assert (APP, ["3.0.0"]) == (item["AppId"], [package["version"] for package in item["packages"]])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "apps/none", None, 404, "no app 'none'"),
        ("PATCH", f"apps/{APP}/channels/none", {"version": "1.0.0"}, 404, "no channel 'none'"),
        ("PATCH", f"apps/{APP}/groups/beta", {"oemBlacklist": "ami"}, 400, "oemBlacklist: a group excludes no OEMs"),
        ("POST", f"apps/{APP}/groups/beta", {"updatePercent": 101}, 400, "percent 101: must be 0 to 100"),
        ("POST", f"apps/{APP}/groups/beta/rollout/active", {"active": True}, 409, "no frames to activate"),
        ("POST", f"apps/{APP}/groups/beta/rollout", {"rollout": []}, 400, "0 frames"),
        ("POST", f"apps/{APP}/groups/beta/rollout", {"rollout": [{"duration": "x"}]}, 400, "duration"),
        ("POST", f"apps/{APP}/packages/9.0.0", {"sha256Sum": SHA256, "size": "1"}, 404, "upload the file first"),
        ("POST", f"apps/{APP}/packages/9.0.0", {"size": "1"}, 400, "sha256Sum: missing"),
        ("POST", f"apps/{APP}/packages/9.0.0", {"metadataSize": "4"}, 400, "leave --meta out"),
        ("DELETE", f"apps/{APP}", None, 409, "is in use by"),
        ("DELETE", "admin/user/admin", None, 409, "is the last admin"),
        ("GET", f"apps/{APP}/groups/beta/requests/events/0/0?resolution=7", None, 400, "resolution 7"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_not_be_done_is_said_in_the_clients_own_form(
    admin: Signer, filled: Store, method: str, path: str, body: object, status: int, words: str
) -> None:
    if "resolution" in path:
        checkin(filled, "web-1", "1.0.0", "3:2")

    found, message = refused(admin, method, path, body)

    assert (status, True) == (found, words in message), message


def checkin(store: Store, instance: str, version: str, event: str) -> None:
    kind, _, result = event.partition(":")
    app = AppRequest(
        app_id=APP, track="beta", machine_id=instance, version=version, update_check=True, oem="ami",
        events=(OmahaEvent(type=int(kind), result=int(result)),),
    )  # fmt: skip
    Checkins(context=store.context).answer(
        OmahaRequest(apps=(app,)), Caller(address="10.0.0.7", base_url="http://updates.example")
    )


def test_figures_come_from_what_the_instances_reported(admin: Signer, filled: Store, clock: WallClock) -> None:
    noon = int(clock().timestamp())
    for name in ("web-1", "web-2"):
        checkin(filled, name, "1.0.0", "3:2")
    clock.advance(90)
    checkin(filled, "web-1", "1.0.0", "3:0")
    admin = replace(admin, at=noon + 90)

    group = f"apps/{APP}/groups/beta/requests"
    versions = ask(admin, "GET", f"{group}/versions/0/0?resolution=60")["items"]
    events = ask(admin, "GET", f"{group}/events/{noon}/{noon + 60}?resolution=60")["items"]
    updates = ask(admin, "GET", f"clientupdates?dateStart=0&dateEnd={noon + 3600}&appId={APP}")["items"]

    counts = [{"timestamp": f"{noon}", "count": "2"}, {"timestamp": f"{noon + 60}", "count": "1"}]
    assert [{"version": "1.0.0", "values": counts}] == versions
    assert [
        {"version": "1.0.0", "type": "3", "result": "2", "values": [{"timestamp": f"{noon}", "count": "2"}]}
    ] == events
    assert [("web-1", "3", "0"), ("web-2", "3", "2")] == [
        (one["clientId"], one["eventType"], one["eventResult"]) for one in updates
    ]
    assert {"ami"} == {one["oem"] for one in updates}
    assert [2] == [one["count"] for one in ask(admin, "GET", "appversions?dateStart=1")["items"]]
    assert {"count": 1} == ask(admin, "GET", f"clientupdatecount?dateStart={noon + 60}")
    history = ask(admin, "GET", "client/history?clientId=web-1")["items"]
    assert [("3", "2"), ("3", "0")] == [(one["eventType"], one["eventResult"]) for one in history]
