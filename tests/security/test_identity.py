"""Strangers at the Omaha address: in another instance's name they change nothing, and they flood nothing (P13).

The attempts of ``03-omaha-spoof``: to take the only place, to halt a rollout, to free another's place, to pass as the
canary, to come with many names; and some more of each kind. Over the whole application, with an etcd in memory.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from loguru import logger

from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest, parse_response, render_request
from outrider.core.release import ReleaseId
from outrider.core.rollout.rollout import Progress
from outrider.etcd.seam import Delete
from outrider.model.documents import Gone, Group, Instance, encode
from outrider.model.identity import UnprovedCheckins
from outrider.service.rollouts.checkins import PROVES_SOON_S
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.status import read_status
from outrider.service.store.changes import Change
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import Answer, application_over, ask
from tests.support.service import WallClock
from tests.support.service_examples import APP, be_alive, make_app, put

SECRETS = {name: f"{name}-".ljust(43, "s") for name in ("web-1", "web-2", "web-3")}
HEADER = "x_outrider_identity"


class Door:
    """The Omaha address, for honest sidekicks and for strangers."""

    def __init__(self, application: FastAPI, store: Store, etcd: FakeEtcd, clock: WallClock) -> None:
        self.application, self.store, self.etcd, self.clock = application, store, etcd, clock

    def begin(self, name: str, group: str = "beta", **facts: Any) -> None:
        """A sidekick starts: its presence has the digest of its secret."""
        digest = hashlib.sha256(SECRETS[name].encode()).hexdigest()
        be_alive(self.store, name, self.clock.time, group=group, secret_sha256=digest, **facts)

    def post(self, *apps: AppRequest, secret: str = "", token: str = "", path: str = "/v1/update") -> Answer:
        headers = {HEADER: secret} if secret else {}
        body = render_request(OmahaRequest(apps=apps, request_id="{r}"))
        return ask(self.application, "POST", f"{path}/{token}" if token else path, body, **headers)

    def sends(
        self,
        name: str,
        version: str = "1.0.0",
        code: str = "",
        *,
        check: bool = True,
        next_version: str = "",
        secret: str = "",
        token: str = "",
        group: str = "beta",
        sidekick: bool = False,
    ) -> Offer | NoUpdate | str:
        """One request of one app: the answer to the update check, or the app's status."""
        events: tuple[OmahaEvent, ...] = ()
        if code:
            numbers = [int(number) for number in code.split(":")]
            events = (OmahaEvent(type=numbers[0], result=numbers[1], error_code=9, next_version=next_version),)
        app = AppRequest(
            app_id=APP,
            track=group,
            machine_id=name,
            version=version,
            update_check=check,
            events=events,
            release=ReleaseId(version=version) if sidekick else None,
        )
        answer = self.post(app, secret=secret, token=token)
        assert 200 == answer.status, answer
        (found,) = parse_response(answer.body).apps
        return found.update_check if isinstance(found.update_check, Offer | NoUpdate) else found.status

    def honest(self, name: str, *args: Any, **options: Any) -> Offer | NoUpdate | str:
        """As ``sends``, with the proof."""
        return self.sends(name, *args, secret=SECRETS[name], **options)

    def set(self, **policy: Any) -> None:
        now = self.store.rollouts.policy(APP, "beta")
        self.store.rollouts.set_policy(APP, "beta", replace(now, **policy))

    @property
    def group(self) -> Group:
        return self.store.groups.get(APP, "beta")

    @property
    def snapshot(self) -> GroupSnapshot:
        found = read_snapshot(self.store.context, Change(self.store.context.cluster), APP, "beta")
        assert found is not None
        return found

    @property
    def progress(self) -> Progress:
        return self.snapshot.progress

    def row(self, name: str) -> Instance:
        return self.store.fleet.instance(APP, name)

    @property
    def rows(self) -> list[str]:
        return [one.id for one in self.store.fleet.instances(APP)]

    @property
    def notes(self) -> UnprovedCheckins | None:
        return self.store.context.get_or_none(UnprovedCheckins, self.store.context.keys.unproved(APP, "beta"))


@pytest.fixture
def door(client: FakeCluster, store: Store, fake_etcd: FakeEtcd, clock: WallClock, tmp_path: Path) -> Door:
    """A group of sidekicks of which web-1 has checked in, on the way to 2.0.0."""
    make_app(store, versions=("1.0.0", "2.0.0"), version="2.0.0")
    made = Door(application_over(client, tmp_path / "payloads", now=clock), store, fake_etcd, clock)
    made.begin("web-1")
    assert isinstance(made.honest("web-1", "2.0.0"), NoUpdate)
    assert (True, True) == (made.row("web-1").proved, made.group.requires_identity)
    return made


def refused(answer: Offer | NoUpdate | str) -> bool:
    return isinstance(answer, NoUpdate) and answer.reason.startswith("unproved check-in: ")


def test_a_sidekick_whose_presence_is_not_there_yet_is_asked_to_come_again_soon(door: Door) -> None:
    """Its lease was lost: nobody wakes it once its presence is written again, and it would ask in an hour."""
    key = door.store.context.keys.presence(APP, "beta", "web-1")
    door.store.context.cluster.txn((), (Delete(key=key),))

    early, stranger = door.honest("web-1"), door.sends("web-1")

    assert refused(early)
    assert isinstance(early, NoUpdate)
    assert PROVES_SOON_S == early.poll_interval_s
    assert isinstance(stranger, NoUpdate)
    assert stranger.poll_interval_s is None
    door.begin("web-1")
    again = door.honest("web-1", "2.0.0")
    assert isinstance(again, NoUpdate)
    assert not refused(again)


# the four attempts of the finding, and one more of each


@pytest.mark.parametrize("name", ["web-2", "zz-made-up"])
def test_a_stranger_cannot_take_the_only_place(door: Door, name: str) -> None:
    door.set(max_in_progress=1)
    door.begin("web-2")

    stolen = door.sends(name)

    assert (True, [], ["web-1"]) == (refused(stolen), list(door.snapshot.living), door.rows)
    assert isinstance(door.honest("web-2"), Offer), "the place was free"
    assert "web-2" in door.rows


def test_a_stranger_cannot_halt_a_rollout_in_the_name_of_who_updates(door: Door) -> None:
    door.set(max_failures=1)
    door.begin("web-2")
    assert isinstance(door.honest("web-2"), Offer)

    for code in ("3:0", "13:0"):
        door.sends("web-2", "1.0.0", code, next_version="2.0.0", check=False)
        door.sends("web-2", "1.0.0", code, next_version="2.0.0")

    assert ("running", (), ["web-2"]) == (door.progress.state, door.progress.failures, list(door.snapshot.living))
    assert "update-granted" == door.row("web-2").status


def test_a_stranger_cannot_free_the_place_of_who_updates(door: Door) -> None:
    door.set(max_in_progress=1)
    door.begin("web-2")
    door.begin("web-3")
    assert isinstance(door.honest("web-2"), Offer)

    door.sends("web-2", "2.0.0", "3:2")  # "done"
    door.sends("web-2", "3.0.0")  # "newer than wanted, so not updating"
    door.sends("web-2", "1.0.0", group="other")
    door.store.groups.create(APP, "open", channel="beta")
    moved = door.sends("web-2", "1.0.0", group="open")  # to a group that asks nobody

    assert refused(moved)
    assert (["web-2"], "beta", "1.0.0") == (
        list(door.snapshot.living),
        door.row("web-2").group,
        door.row("web-2").version,
    )
    waiting = door.honest("web-3")
    assert isinstance(waiting, NoUpdate)
    assert "web-2" in waiting.reason


def test_a_stranger_cannot_pass_as_the_canary(door: Door) -> None:
    door.set(canary=1)
    door.begin("web-2")
    door.begin("web-3")
    assert isinstance(door.honest("web-2"), Offer)

    door.sends("web-2", "2.0.0", "3:2", next_version="2.0.0")
    door.sends("web-9", "2.0.0", "3:2")

    assert 0 == door.progress.succeeded
    assert isinstance(door.honest("web-3"), NoUpdate), "the canary isn't through"
    door.honest("web-2", "2.0.0", "3:2")
    assert (1, True) == (door.progress.succeeded, isinstance(door.honest("web-3"), Offer))


def test_many_names_leave_no_rows_and_one_small_note(door: Door) -> None:
    for number in range(200):
        door.sends(f"zz-{number}", "9.9.9-" + "x" * 400, "3:2")
    door.clock.advance(31)
    for number in range(200):
        door.sends(f"yy-{number}")

    assert ["web-1"] == door.rows
    key = door.store.context.keys.unproved(APP, "beta")
    assert len(door.etcd.entries[key].value) < 4_000
    notes = door.notes
    assert notes is not None
    assert ["zz-0", "yy-0"] == [one.instance for one in notes.others]


def test_notes_in_the_names_of_known_instances_are_bounded_too(door: Door, client: FakeCluster) -> None:
    for number in range(60):
        put(client, door.store.context.keys.instance(APP, f"old-{number}"), encode(Instance(
            app=APP, id=f"old-{number}", group="beta", version="1.0.0", proved=True, had_sidekick=True,
            first_seen=door.clock.time, last_seen=door.clock.time,
        )))  # fmt: skip

    for number in range(120):
        door.sends(f"old-{number % 60}")

    notes = door.notes
    assert notes is not None
    assert 20 == len(notes.known)


# further attempts


@pytest.mark.parametrize("secret", ["", "s" * 43, "web-1", "s" * 42, "s" * 5000, "\x00" * 43, SECRETS["web-2"]])
def test_a_wrong_secret_is_none(door: Door, secret: str) -> None:
    assert refused(door.sends("web-1", "1.0.0", secret=secret))
    assert "2.0.0" == door.row("web-1").version


def test_a_proof_of_one_instance_is_none_of_another_in_the_same_request(door: Door) -> None:
    door.begin("web-2")
    apps = [
        AppRequest(app_id=APP, track="beta", machine_id=name, version="1.0.0", update_check=True)
        for name in ("web-2", "web-1", "web-3")
    ]

    answer = door.post(*apps, secret=SECRETS["web-2"])

    checks = [one.update_check for one in parse_response(answer.body).apps]
    assert [True, False, False] == [isinstance(check, Offer) for check in checks]
    assert ["web-2"] == list(door.snapshot.living)


def test_a_proof_in_one_group_moves_nobody_out_of_another(door: Door) -> None:
    """A machine may write its own presence, in its own group; the same name lives elsewhere."""
    door.store.groups.create(APP, "mine", channel="beta")
    digest = hashlib.sha256(b"m" * 43).hexdigest()
    be_alive(door.store, "web-1", door.clock.time, group="mine", secret_sha256=digest)
    app = AppRequest(app_id=APP, track="mine", machine_id="web-1", version="1.0.0", update_check=True)

    answer = door.post(app, secret="m" * 43)

    assert (429, True) == (answer.status, "retry-after" in answer.headers)
    assert ("beta", "2.0.0") == (door.row("web-1").group, door.row("web-1").version)


def test_the_secret_of_a_process_that_ended_proves_nothing(door: Door) -> None:
    digest = hashlib.sha256(b"n" * 43).hexdigest()
    be_alive(door.store, "web-1", door.clock.time, secret_sha256=digest)  # it has started anew

    assert refused(door.honest("web-1"))
    assert not refused(door.sends("web-1", "2.0.0", secret="n" * 43))


def test_an_instance_that_was_proved_is_nobody_elses_while_its_sidekick_is_away(door: Door) -> None:
    door.store.groups.update(APP, "beta", identity="optional")
    _end(door, "web-1")

    answers = [door.sends("web-1", "1.0.0"), door.sends("web-1", "1.0.0", "3:0", check=False)]

    assert (True, "ok") == (refused(answers[0]), answers[1])
    assert ("2.0.0", "undefined") == (door.row("web-1").version, door.row("web-1").status)


def _end(door: Door, name: str) -> None:
    assert door.store.context.cluster.txn(
        (), (Delete(key=door.store.context.keys.presence(APP, "beta", name)),)
    ).succeeded


def test_a_damaged_digest_in_a_presence_proves_nobody(door: Door) -> None:
    for digest in ("", "0" * 63, "g" * 64, hashlib.sha256(SECRETS["web-2"].encode()).hexdigest().upper()):
        be_alive(door.store, "web-2", door.clock.time, secret_sha256=digest)

        assert refused(door.honest("web-2"))
    assert "web-2" not in door.rows


def test_an_instance_that_is_gone_for_good_stays_gone_for_strangers(door: Door) -> None:
    marker = Gone(app=APP, group="beta", instance="web-7", how="deleted", at=door.clock.time)
    put(door.store.context.cluster, door.store.context.keys.gone(APP, "web-7"), encode(marker))

    answer = door.sends("web-7")

    assert isinstance(answer, NoUpdate)
    assert "web-7" not in door.rows


def test_old_rows_of_strangers_count_for_nothing_once_a_sidekick_proves_itself(door: Door) -> None:
    """
    1. the group asks nobody; strangers check in, and one waits in line
    2. it asks for proofs
    3. they hold no place in line, don't count as serving, and don't keep the rollout from its end
    """
    door.store.groups.update(APP, "beta", identity="optional")
    door.set(max_in_progress=1, min_healthy=1)
    for name in ("s-1", "s-2"):
        door.sends(name)
    before = (bool(door.snapshot.waiting), "s-1" in door.snapshot.serving or "s-2" in door.snapshot.serving)

    door.store.groups.update(APP, "beta", identity="required")

    assert (True, True) == before
    assert ((), frozenset({"web-1"})) == (door.snapshot.waiting, door.snapshot.serving)


@pytest.mark.parametrize(
    ("identity", "expected"), [("auto", True), ("required", True), ("optional", False)]
)  # fmt: skip
def test_what_a_group_asks_of_strangers_is_its_setting(door: Door, identity: Any, expected: bool) -> None:
    door.store.groups.update(APP, "beta", identity=identity)

    assert expected is refused(door.sends("zz-1"))
    assert expected is ("zz-1" not in door.rows)


def test_a_group_without_a_sidekick_asks_nobody_until_the_first_one_comes(door: Door) -> None:
    door.store.groups.create(APP, "other", channel="beta")
    first = door.sends("kiosk-1", group="other")
    door.begin("web-3", "other")
    door.sends("web-3", group="other")  # a stranger is quicker than the sidekick
    second = door.sends("kiosk-2", group="other")

    assert (True, True) == (isinstance(first, Offer), refused(second))


# reports


def test_a_late_report_counts_when_it_is_proved_and_is_kept_when_it_is_not(door: Door) -> None:
    """
    1. web-2 has a grant; its report comes while the sidekick can't prove itself: it is told to keep it
    2. it started anew, with another secret, and sends what its outbox has
    """
    door.begin("web-2")
    assert isinstance(door.honest("web-2"), Offer)
    unproved = door.sends("web-2", "2.0.0", "3:2", check=False, sidekick=True)
    digest = hashlib.sha256(b"n" * 43).hexdigest()
    be_alive(door.store, "web-2", door.clock.time, version="2.0.0", secret_sha256=digest)

    late = door.sends("web-2", "2.0.0", "3:2", check=False, sidekick=True, secret="n" * 43)

    assert ("error-unproved", "ok", 1) == (unproved, late, door.progress.succeeded)


def test_a_foreign_client_is_told_nothing_that_it_chokes_on(door: Door) -> None:
    assert "ok" == door.sends("web-2", "2.0.0", "3:2", check=False)


# tokens of clients


def token_of(door: Door, instance: str = "", group: str = "beta") -> str:
    return door.store.client_tokens.create(APP, group, instance=instance).token


def test_a_token_proves_its_instance_and_no_other(door: Door) -> None:
    token = token_of(door, "kiosk-1")

    assert isinstance(door.sends("kiosk-1", token=token), Offer)
    assert (True, True) == (refused(door.sends("kiosk-2", token=token)), refused(door.sends("kiosk-1")))
    assert refused(door.sends("web-1", "1.0.0", token=token))
    assert (["kiosk-1", "web-1"], True) == (door.rows, door.row("kiosk-1").proved)


def test_a_token_of_a_group_proves_its_clients_and_none_of_its_sidekicks(door: Door) -> None:
    token = token_of(door)
    _end(door, "web-1")

    assert isinstance(door.sends("kiosk-1", token=token), Offer)
    assert isinstance(door.sends("kiosk-2", token=token), Offer)
    assert refused(door.sends("web-1", "1.0.0", token=token)), "it had a sidekick"


def test_a_token_of_another_group_or_app_or_a_revoked_one_proves_nothing(door: Door) -> None:
    door.store.groups.create(APP, "other", channel="beta")
    door.store.apps.create(app="shop")
    door.store.groups.create("shop", "beta", channel="beta")
    revoked = token_of(door)
    door.store.client_tokens.delete(APP, revoked.split("_")[1])
    foreign = door.store.client_tokens.create("shop", "beta").token
    half = token_of(door)[:-1] + "."

    answers = [door.sends("kiosk-1", token=token) for token in (token_of(door, group="other"), revoked, foreign)]

    assert [True] * 3 == [refused(answer) for answer in answers]
    app = AppRequest(app_id=APP, track="beta", machine_id="kiosk-1", version="1.0.0", update_check=True)
    assert 404 == door.post(app, token=half).status
    assert "kiosk-1" not in door.rows


def test_a_removed_group_takes_its_tokens_with_it(door: Door) -> None:
    door.store.groups.create(APP, "other", channel="beta", identity="required")
    token = token_of(door, group="other")
    door.store.groups.delete(APP, "other")
    door.store.groups.create(APP, "other", channel="beta", identity="required")

    assert refused(door.sends("kiosk-1", token=token, group="other"))


# what is said of it


def test_neither_secrets_nor_tokens_are_logged_or_answered(door: Door) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(json.dumps(str(message.record))), level=0)
    token = token_of(door, "kiosk-1")
    try:
        door.begin("web-2")
        door.honest("web-2")
        door.honest("web-1")
        wrong = door.sends("kiosk-9", token=token)
        door.sends("kiosk-1", token=token, secret=SECRETS["web-2"])
    finally:
        logger.remove(sink)

    told = "".join(lines) + str(wrong) + "".join(str(entry.value) for entry in door.etcd.entries.values())
    assert [] == [word for word in (SECRETS["web-1"], SECRETS["web-2"], token, token[-20:]) if word in told]


def test_why_and_status_say_what_was_tried(door: Door) -> None:
    door.sends("web-1")
    door.sends("zz-1")
    door.clock.advance(40)
    door.sends("web-1")

    context = door.store.context
    why = explain(context, APP, "web-1")
    (status,) = read_status(context, APP, "beta")

    said = "unproved check-in as web-1 2 times, last 0s ago from 127.0.0.1: it got no update and changed nothing"
    assert said in why
    assert "unproved check-ins as web-1, the last 0s ago from 127.0.0.1; they changed nothing" in status.summary
    door.clock.advance(90_000)
    assert said.partition(" ago")[0] not in " ".join(explain(context, APP, "web-1")), "a day later nobody is told"


def test_a_proved_check_in_reads_etcd_as_often_as_one_before(door: Door, client: FakeCluster) -> None:
    client.calls.clear()
    door.honest("web-1", "2.0.0")
    proved = list(client.calls)
    door.store.groups.create(APP, "other", channel="beta")
    door.sends("kiosk-1", "2.0.0", group="other")
    client.calls.clear()
    door.sends("kiosk-1", "2.0.0", group="other")

    assert proved == client.calls


def test_the_first_proof_marks_the_group_once(door: Door) -> None:
    key = door.store.context.keys.group(APP, "beta")
    before = door.etcd.entries[key].mod_revision

    door.honest("web-1", "2.0.0")
    door.sends("zz-1")

    assert before == door.etcd.entries[key].mod_revision
