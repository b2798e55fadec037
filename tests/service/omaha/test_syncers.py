"""Another update service copies from ours: it gets all steps at once, and is no machine."""

from typing import Any
from xml.etree import ElementTree

import pytest

from outrider.core.omaha import (
    AppRequest,
    NoUpdate,
    Offer,
    OmahaRequest,
    OmahaResponse,
    answer_app,
    parse_request,
    render_request,
    render_response,
)
from outrider.model.documents import PackageFile
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.syncers import MOST_FLOORS
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.support.omaha_clients import outcomes
from tests.support.service import NOON
from tests.support.service_examples import APP, SHA256, block, make_app, payload_of

CALLER = Caller(address="10.0.0.7", base_url="http://updates.example")
ASKED = AppRequest(
    app_id="{" + APP + "}", version="1.0.0", track="beta", machine_id="{syncer}", update_check=True,
    multi_manifest_ok=True,
)  # fmt: skip


@pytest.fixture
def channel(store: Store) -> Store:
    """Three versions, of which 1.5.0 is a floor."""
    make_app(store, versions=("1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    store.floors.set(APP, "beta", "1.5.0", reason="schema migration")
    return store


def answered(store: Store, **facts: Any) -> Offer | NoUpdate:
    """What the service says to a syncer that differs in ``facts`` from Nebraska's."""
    request: dict[str, Any] = {"updater": "CoreOSUpdateEngine-0.1.0.0", "install_source": "scheduler", "arch": "x64"}
    request |= {name: facts.pop(name) for name in list(facts) if name in request}
    asked = {name: getattr(ASKED, name) for name in ASKED.__dataclass_fields__} | facts
    sent = parse_request(render_request(OmahaRequest(apps=(AppRequest(**asked),), **request)))
    (answer,) = Checkins(context=store.context).answer(sent, CALLER).apps
    assert isinstance(answer.update_check, Offer | NoUpdate)
    return answer.update_check


def manifests(offer: Offer | NoUpdate) -> list[dict[str, str]]:
    """As they are on the wire."""
    root = ElementTree.fromstring(render_response(OmahaResponse(apps=(answer_app(ASKED, offer),))))
    return [dict(one.attrib) for one in root.findall("app/updatecheck/manifest")]


def test_a_syncer_gets_the_floors_and_the_target_in_one_answer(channel: Store) -> None:
    offer = answered(channel)

    assert [
        {"version": "1.5.0", "is_floor": "true", "floor_reason": "schema migration"},
        {"version": "2.0.0", "is_target": "true"},
    ] == manifests(offer)
    assert isinstance(offer, Offer)
    assert (f"http://updates.example/packages/{APP}/all/1.5.0@web-1.5.0.tar",) == offer.urls()


def test_it_is_no_machine_and_takes_no_place(channel: Store) -> None:
    answered(channel)

    assert () == channel.fleet.instances(APP)
    assert () == channel.context.cluster.list(channel.context.keys.grants(APP, "beta")).entries


def test_every_client_understands_the_first_of_several_manifests(channel: Store) -> None:
    offer = answered(channel)

    body = render_response(OmahaResponse(apps=(answer_app(ASKED, offer),)))

    assert {"1.5.0"} == {getattr(one, "version", "") for one in outcomes(body, ASKED).values()} - {""}


@pytest.mark.parametrize(
    "facts",
    [{"updater": "update_engine-0.4.10"}, {"install_source": "ondemandupdate"}],
    ids=["another program", "by hand"],
)
def test_a_machine_gets_one_manifest_whatever_it_says(channel: Store, facts: dict[str, Any]) -> None:
    assert [{"version": "1.5.0"}] == manifests(answered(channel, **facts))


def test_an_old_syncer_gets_nothing_while_a_floor_is_in_the_way(channel: Store) -> None:
    held, free = answered(channel, multi_manifest_ok=False), answered(channel, multi_manifest_ok=False, version="1.5.0")

    assert isinstance(held, NoUpdate)
    assert "1.5.0 is a floor" in held.reason
    assert [{"version": "2.0.0", "is_target": "true"}] == manifests(free)


def test_the_target_can_be_a_floor_as_well(channel: Store) -> None:
    channel.floors.set(APP, "beta", "2.0.0")

    assert {
        "version": "2.0.0", "is_floor": "true", "floor_reason": "Required intermediate version", "is_target": "true",
    } == manifests(answered(channel))[-1]  # fmt: skip


def test_more_floors_than_an_answer_holds_come_without_the_target(channel: Store) -> None:
    for number in range(1, MOST_FLOORS + 1):
        channel.packages.create(APP, f"1.5.{number}", payload_of(f"1.5.{number}"))
        channel.floors.set(APP, "beta", f"1.5.{number}")

    first = manifests(answered(channel))
    rest = manifests(answered(channel, version=first[-1]["version"]))

    assert ["1.5.0", "1.5.1", "1.5.2", "1.5.3", "1.5.4"] == [one["version"] for one in first]
    assert ["1.5.5", "2.0.0"] == [one["version"] for one in rest]


def test_what_machines_may_not_get_is_not_copied(channel: Store) -> None:
    block(channel, "1.5.0", "loses data", NOON)
    blocked = answered(channel)
    channel.groups.update(APP, "beta", paused=True)
    paused = answered(channel)

    assert NoUpdate(reason="1.5.0 is blocked: loses data") == blocked
    assert NoUpdate(reason="group is paused") == paused


@pytest.mark.parametrize(("version", "why"), [("2.0.0", "up to date"), ("3.0.0", "up to date"), ("x", "isn't semver")])
def test_a_syncer_that_has_it_all_gets_nothing(channel: Store, version: str, why: str) -> None:
    found = answered(channel, version=version)

    assert isinstance(found, NoUpdate)
    assert why.replace("isn't", "is not") in found.reason


def test_the_files_of_a_version_follow_its_payload(store: Store) -> None:
    make_app(store, versions=(), version="2.0.0")
    files = (PackageFile(name="web.sig", size_bytes=3, sha256="1" * 64),)
    store.packages.create(APP, "2.0.0", Payload(name="web.tar", size_bytes=9, sha256=SHA256), files=files)

    machine, syncer = answered(store, updater="somebody", machine_id="web-1"), answered(store)

    assert isinstance(machine, Offer)
    assert [("web.tar", True), ("web.sig", False)] == [(one.name, one.required) for one in machine.packages]
    assert isinstance(syncer, Offer)
    assert ["2.0.0@web.tar", "2.0.0@web.sig"] == [one.name for one in syncer.packages]
