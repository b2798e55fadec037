"""Whole lives of clients, replayed from what real programs sent: check, download, install, reboot, next version.

updatectl's ``instance fake`` imitates update_engine, but doesn't name itself; with update_engine's name in ``version``
its requests are those of a machine that runs an update only after a reboot.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest, parse_request
from outrider.model.documents import Rollout
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.support.captures import captured_files, read_http
from tests.support.service_examples import APP, SHA256, make_app

CALLER = Caller(address="10.0.0.7", base_url="http://updates.example")
UPDATE_ENGINE = "update_engine-0.4.10"
FAKE = captured_files("instance-fake-update/*.request.bin")
GO = captured_files("go-omaha-client/*.request.bin")
GO_APP = "da7508e2-9b33-490a-bead-60919b1acd76"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One client of the service, as the store sees it."""

    store: Store
    app: str
    group: str
    name: str

    def sends(self, request: OmahaRequest) -> Offer | NoUpdate | None:
        (answer,) = Checkins(context=self.store.context).answer(request, CALLER).apps
        assert answer.update_check is None or isinstance(answer.update_check, Offer | NoUpdate)
        return answer.update_check

    @property
    def seen(self) -> tuple[str, int, int]:
        """Status, the succeeded updates of its group's rollout, and the open ones of the group."""
        row, keys = self.store.fleet.instance(self.app, self.name), self.store.context.keys
        stored = self.store.context.get(Rollout, keys.rollout(self.app, self.group))
        grants = self.store.context.cluster.list(keys.grants(self.app, self.group)).entries
        return row.status, 0 if stored is None else stored.progress.succeeded, len(grants)


@pytest.fixture
def machine(store: Store) -> Machine:
    make_app(store, version="1.2.3", versions=("1.2.3",))
    return Machine(store=store, app=APP, group="beta", name="deadbeef7f30ec9686b6c106e433ab6e")


def recorded(name: str, updater: str = "") -> OmahaRequest:
    request = parse_request(read_http(name).body)
    return replace(request, updater=updater or request.updater, updater_version=updater)


def test_update_engine_has_succeeded_only_after_its_reboot(machine: Machine) -> None:
    life = [(machine.sends(recorded(name, UPDATE_ENGINE)), machine.seen)[1] for name in FAKE]

    assert [
        ("update-granted", 0, 1),
        ("downloading", 0, 1),
        ("downloaded", 0, 1),
        ("installed", 0, 1),  # 3:1: written; it waits for its reboot
        ("installed", 0, 1),  # pings
        ("installed", 0, 1),
        ("complete", 1, 0),  # 3:2 at 1.2.3
        ("complete", 1, 0),
        ("downloading", 1, 0),
    ] == life


def test_every_other_client_has_succeeded_with_3_1(machine: Machine) -> None:
    life = [(machine.sends(recorded(name)), machine.seen)[1] for name in FAKE]

    assert [("downloaded", 0, 1), ("complete", 1, 0)] == life[2:4]
    assert ("complete", 1, 0) == life[6]


def test_go_omahas_client_lives_the_same_life(store: Store) -> None:
    store.apps.create(app=GO_APP)
    store.packages.create(GO_APP, "1.2.3", Payload(url="http://files.example/a.tar", size_bytes=9, sha256=SHA256))
    store.channels.create(GO_APP, "open", version="1.2.3")
    store.groups.create(GO_APP, "open", channel="open")
    machine = Machine(store=store, app=GO_APP, group="open", name="8b10fc6d-30ca-49b2-b1a2-8185f03d522b")

    life = [(machine.sends(recorded(name)), machine.seen)[1] for name in GO]

    assert ["update-granted", "downloading", "downloaded", "complete", "complete", "complete", "error"] == [
        status for status, _, _ in life
    ]
    assert (1, 0) == life[4][1:]


Check = Callable[..., OmahaRequest]


@pytest.fixture
def check(machine: Machine) -> Check:
    """update_engine's full check, by its source: the event that every check carries tells what ran before."""

    def make(version: str, *events: tuple[int, int, int], previous: str = "") -> OmahaRequest:
        app = AppRequest(
            app_id="{" + APP + "}",
            version=version,
            track="beta",
            machine_id=machine.name,
            board="amd64-usr",
            ping=True,
            update_check=True,
            events=tuple(
                OmahaEvent(type=kind, result=result, error_code=code, previous_version=previous)
                for kind, result, code in events or ((3, 2, 0),)
            ),
        )
        return OmahaRequest(
            apps=(app,), updater=UPDATE_ENGINE, updater_version=UPDATE_ENGINE, install_source="scheduler",
            platform="CoreOS", os_version="Chateau", service_pack=f"{version}_x86_64",
        )  # fmt: skip

    return make


def test_the_very_first_check_of_update_engine_is_no_success_of_a_rollout(machine: Machine, check: Check) -> None:
    offer = machine.sends(check("1.0.0", previous="0.0.0.0"))

    assert isinstance(offer, Offer)
    assert ("update-granted", 0, 1) == machine.seen


def test_a_check_before_the_reboot_still_gets_its_update_and_ends_nothing(machine: Machine, check: Check) -> None:
    machine.sends(check("1.0.0"))
    for name in FAKE[1:4]:
        machine.sends(recorded(name, UPDATE_ENGINE))

    offer = machine.sends(check("1.0.0"))

    assert isinstance(offer, Offer)
    assert ("installed", 0, 1) == machine.seen


def test_after_the_reboot_the_check_itself_is_the_success(machine: Machine, check: Check) -> None:
    machine.sends(check("1.0.0"))
    machine.sends(recorded(FAKE[3], UPDATE_ENGINE))

    answer = machine.sends(check("1.2.3", previous="1.0.0"))

    assert isinstance(answer, NoUpdate)
    assert ("complete", 1, 0) == machine.seen


def test_a_machine_that_boots_back_into_the_old_version_has_failed(machine: Machine, check: Check) -> None:
    """``previousversion`` equals what runs: update_engine says 3:0 with code 44 in place of 3:2."""
    machine.sends(check("1.0.0"))
    machine.sends(recorded(FAKE[3], UPDATE_ENGINE))

    machine.sends(check("1.0.0", (3, 0, 44), previous="1.0.0"))

    stored = machine.store.context.get(Rollout, machine.store.context.keys.rollout(APP, "beta"))
    assert stored is not None
    assert (0, [machine.name]) == (
        stored.progress.succeeded,
        [one.instance for one in stored.progress.failures],
    )


def test_the_next_canary_waits_until_the_first_has_rebooted(machine: Machine, check: Check) -> None:
    group = machine.store.groups.get(APP, "beta")
    machine.store.rollouts.set_policy(APP, "beta", replace(group.policy, canary=1))
    other = AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="other", update_check=True)
    machine.sends(check("1.0.0"))
    machine.sends(recorded(FAKE[3], UPDATE_ENGINE))

    before = machine.sends(OmahaRequest(apps=(other,)))
    machine.sends(check("1.2.3", previous="1.0.0"))
    after = machine.sends(OmahaRequest(apps=(other,)))

    assert isinstance(before, NoUpdate)
    assert "canary first: 0 of 1 succeeded" in before.reason
    assert isinstance(after, Offer)
