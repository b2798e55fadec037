"""What a check-in writes down and what it is answered, over an etcd in memory."""

from typing import Any

import pytest

from outrider.core.errors import Conflict, Unknown
from outrider.core.omaha import AppAnswer, AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest
from outrider.model.documents import Instance
from outrider.model.keys import Keys
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.rows import MAX_HISTORY
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, SHA256, be_alive, block, make_app, open_store, payload_of

CALLER = Caller(address="10.0.0.7", base_url="http://updates.example:8000")


class Client:
    """One Omaha client."""

    def __init__(self, store: Store, machine: str = "web-1") -> None:
        self._store, self._checkins, self._machine = store, Checkins(context=store.context), machine

    def sends(
        self, version: str, *codes: str, check: bool = False, ping: bool = False, request_id: str = "", **app: Any
    ) -> AppAnswer:
        """One request with one app; ``codes`` are events such as ``13:1`` or ``3:0:44``."""
        events = []
        for code in codes:
            numbers = [int(number) for number in code.split(":")]
            events.append(OmahaEvent(type=numbers[0], result=numbers[1], error_code=numbers[2] if numbers[2:] else 0))
        facts = {"app_id": APP, "track": "beta", "machine_id": self._machine} | app
        asked = AppRequest(version=version, ping=ping, update_check=check, events=tuple(events), **facts)
        (answer,) = self._checkins.answer(OmahaRequest(apps=(asked,), request_id=request_id), CALLER).apps
        return answer

    def checks(self, version: str, *codes: str, **app: Any) -> Offer | NoUpdate:
        """One update check."""
        check = self.sends(version, *codes, check=True, **app).update_check
        assert isinstance(check, Offer | NoUpdate)
        return check

    @property
    def row(self) -> Instance:
        return self._store.fleet.instance(APP, self._machine)


@pytest.fixture
def omaha(store: Store) -> Client:
    make_app(store, version="2.0.0")
    return Client(store)


def test_an_older_instance_is_offered_the_target_and_its_row_says_so(omaha: Client) -> None:
    offer = omaha.checks("1.0.0", oem="metal", alias="the first")

    assert isinstance(offer, Offer)
    assert ("2.0.0", "http://files.example/web-2.0.0.tar") == (offer.version, *offer.urls()[:1])
    assert payload_of("2.0.0").sha256 == offer.sha256
    row = omaha.row
    assert ("update-granted", "2.0.0", "1.0.0", "beta") == (row.status, row.granted_version, row.version, row.group)
    assert ("10.0.0.7", "metal", "the first", NOON) == (row.address, row.oem, row.alias, row.first_seen)


def test_a_stored_payload_is_offered_at_the_address_by_which_the_client_came(store: Store) -> None:
    make_app(store, versions=(), version="1.0.0+b")
    store.packages.create(APP, "1.0.0+b", Payload(name="web.tar", size_bytes=6, sha256=SHA256))

    offer = Client(store).checks("0.0.0")

    assert isinstance(offer, Offer)
    assert (f"http://updates.example:8000/packages/{APP}/1.0.0+b/web.tar",) == offer.urls()


@pytest.mark.parametrize("spelling", [APP, APP.upper(), f"{{{APP}}}"])
def test_the_app_id_is_echoed_as_it_was_spelled(omaha: Client, spelling: str) -> None:
    answer = omaha.sends("1.0.0", check=True, app_id=spelling)

    assert (spelling, "ok") == (answer.app_id, answer.status)
    assert isinstance(answer.update_check, Offer)


def test_every_app_of_a_request_is_answered_also_after_an_unknown_one(store: Store) -> None:
    make_app(store, version="2.0.0")
    known = AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="web-1", update_check=True)
    apps = (AppRequest(app_id="{who knows}", update_check=True), known, AppRequest(app_id="absent", update_check=True))

    response = Checkins(context=store.context).answer(OmahaRequest(apps=apps), CALLER)

    statuses = [(answer.app_id, answer.status, type(answer.update_check)) for answer in response.apps]
    unknown = "error-unknownApplication"
    assert [("{who knows}", unknown, NoUpdate), (APP, "ok", Offer), ("absent", unknown, NoUpdate)] == statuses


@pytest.mark.parametrize("track", ["", "absent", "not/a/key"])
def test_an_unknown_group_is_told_so_and_leaves_no_row(omaha: Client, store: Store, track: str) -> None:
    answer = omaha.checks("1.0.0", track=track)

    assert isinstance(answer, NoUpdate)
    assert f"no group {track!r}" in answer.reason
    assert () == store.fleet.instances(APP)


@pytest.mark.parametrize("machine", ["", "  ", "a b", "x" * 200])
def test_a_machine_without_a_usable_id_is_granted_nothing(store: Store, machine: str) -> None:
    make_app(store, version="2.0.0")

    answer = Client(store, machine).checks("1.0.0")

    assert isinstance(answer, NoUpdate)
    assert "is not a valid instance name" in answer.reason
    assert () == store.fleet.instances(APP)


def test_braces_around_a_machine_id_do_not_count(omaha: Client) -> None:
    omaha.checks("1.0.0", machine_id="{web-1}")

    assert "web-1" == omaha.row.id


def test_a_paused_group_holds_back_with_its_reason_and_grants_again_when_unpaused(omaha: Client, store: Store) -> None:
    store.groups.update(APP, "beta", paused=True)
    deferred = omaha.checks("1.0.0")
    status = omaha.row.status
    store.groups.update(APP, "beta", paused=False)
    granted = omaha.checks("1.0.0")

    assert NoUpdate(reason="group is paused") == deferred
    assert "on-hold" == status
    assert isinstance(granted, Offer)
    assert "update-granted" == omaha.row.status


def test_a_release_blocked_is_offered_to_nobody_until_it_is_unblocked(omaha: Client, store: Store) -> None:
    block(store, "2.0.0", "health check failed", NOON)
    deferred = omaha.checks("1.0.0")
    store.fleet.unblock(APP, "2.0.0")

    assert NoUpdate(reason="2.0.0 is blocked: health check failed") == deferred
    assert isinstance(omaha.checks("1.0.0"), Offer)


def test_an_instance_ahead_of_its_channel_is_left_alone(omaha: Client) -> None:
    assert NoUpdate(reason="running 3.0.0 is newer than the channel's 2.0.0") == omaha.checks("3.0.0")


def test_a_channel_without_a_package_offers_nothing(store: Store) -> None:
    make_app(store, versions=(), version="5.0.0")

    assert NoUpdate(reason="channel 'beta' offers nothing yet") == Client(store).checks("1.0.0")


def test_one_update_goes_through_the_statuses_that_coreupdate_names(omaha: Client) -> None:
    omaha.checks("1.0.0", "3:2")
    statuses = [omaha.row.status]
    for version, code in (("1.0.0", "13:1"), ("1.0.0", "14:1"), ("1.0.0", "800:1"), ("1.0.0", "3:1"), ("2.0.0", "3:2")):
        omaha.sends(version, code)
        statuses.append(omaha.row.status)

    assert ["update-granted", "downloading", "downloaded", "installed", "complete", "complete"] == statuses
    assert ("2.0.0", None, 0) == (omaha.row.version, omaha.row.granted_version, omaha.row.error_code)
    assert ["3:2", "13:1", "14:1", "800:1", "3:1", "3:2"] == [line.event for line in omaha.row.history]


def test_a_failure_stays_to_be_seen_while_the_release_is_blocked(omaha: Client, store: Store) -> None:
    omaha.checks("1.0.0", "3:2")
    omaha.sends("1.0.0", "13:1")
    omaha.sends("1.0.0", "3:0:44")
    block(store, "2.0.0", "bad", NOON)
    omaha.checks("1.0.0", "3:2")

    assert ("error", 44, None) == (omaha.row.status, omaha.row.error_code, omaha.row.granted_version)


def test_a_check_in_the_middle_of_an_update_does_not_complete_it(omaha: Client, store: Store) -> None:
    omaha.checks("1.0.0", "3:2")
    omaha.sends("1.0.0", "13:1")
    omaha.sends("1.0.0", "3:2", ping=True)

    assert "downloading" == omaha.row.status


def test_a_client_that_never_reports_is_complete_when_it_asks_with_what_it_was_granted(omaha: Client) -> None:
    omaha.checks("1.0.0")
    omaha.checks("2.0.0")

    assert ("complete", None) == (omaha.row.status, omaha.row.granted_version)


def test_a_withdrawn_grant_does_not_linger(omaha: Client, store: Store) -> None:
    omaha.checks("1.0.0")
    store.channels.save(APP, "beta", version="1.0.0")
    omaha.checks("1.0.0")

    assert ("complete", None) == (omaha.row.status, omaha.row.granted_version)


def test_a_report_that_arrives_twice_is_booked_once_and_changes_nothing(omaha: Client) -> None:
    omaha.checks("1.0.0")
    omaha.sends("1.0.0", "13:1", request_id="{a}")
    omaha.sends("1.0.0", "3:1", request_id="{b}")
    omaha.sends("2.0.0", "3:2", request_id="{c}")
    before = omaha.row

    answer = omaha.sends("1.0.0", "13:1", request_id="{a}")

    assert 1 == answer.events
    assert before.history == omaha.row.history
    assert "complete" == omaha.row.status


def test_a_second_try_of_a_client_without_request_ids_is_booked(omaha: Client) -> None:
    for _ in range(2):
        for code in ("13:1", "13:1", "3:0:2000"):
            omaha.sends("1.0.0", code)

    assert ["13:1", "3:0", "13:1", "3:0"] == [line.event for line in omaha.row.history]


def test_the_noise_of_the_watch_client_is_acknowledged_and_nothing_else(omaha: Client) -> None:
    answer = omaha.sends("1.0.0", "1:0", check=True)

    assert 1 == answer.events
    assert () == omaha.row.history
    assert "update-granted" == omaha.row.status


def test_an_event_without_a_meaning_of_ours_is_a_fact_and_no_status(omaha: Client) -> None:
    omaha.checks("1.0.0")
    omaha.sends("1.0.0", "3:0:10")
    omaha.sends("1.0.0", "2:1")

    assert ("error", 10) == (omaha.row.status, omaha.row.error_code)
    assert "2:1" == omaha.row.history[-1].event


def test_an_event_of_an_instance_never_seen_before_is_not_dropped(omaha: Client) -> None:
    omaha.sends("1.0.0", "3:0:9")

    assert ("error", 9) == (omaha.row.status, omaha.row.error_code)


def test_the_history_of_an_instance_is_bounded(omaha: Client) -> None:
    for number in range(MAX_HISTORY + 7):
        omaha.sends("1.0.0", f"3:0:{number + 1}")

    assert MAX_HISTORY == len(omaha.row.history)
    assert MAX_HISTORY + 7 == omaha.row.history[-1].error_code


def test_a_quiet_check_writes_no_more_than_every_half_minute(
    omaha: Client, client: FakeCluster, clock: WallClock
) -> None:
    omaha.checks("2.0.0", "3:2")
    client.calls.clear()
    for _ in range(29):
        clock.advance(1)
        omaha.checks("2.0.0", "3:2", request_id=f"{{{clock()}}}")
    quiet = client.calls.count("txn")
    clock.advance(1)
    omaha.checks("2.0.0", "3:2")

    assert (0, 1) == (quiet, client.calls.count("txn"))
    assert clock() == omaha.row.last_seen


def test_an_event_is_written_at_once_however_recent_the_row(omaha: Client) -> None:
    omaha.checks("1.0.0")
    omaha.sends("1.0.0", "13:1")

    assert "downloading" == omaha.row.status


def test_an_empty_word_never_overwrites_an_earlier_one(omaha: Client) -> None:
    omaha.checks("1.0.0", oem="metal", alias="first")
    omaha.sends("", "13:1")

    assert ("1.0.0", "metal", "first") == (omaha.row.version, omaha.row.oem, omaha.row.alias)


def test_what_a_client_says_of_itself_is_bounded_and_printable(omaha: Client) -> None:
    omaha.checks("1.0.0", oem="x" * 5000, alias="a\x1b[2Jb\n")

    assert (128, "a[2Jb") == (len(omaha.row.oem), omaha.row.alias)


def test_only_the_row_and_the_grant_of_the_instance_that_asks_are_written(
    omaha: Client, store: Store, client: FakeCluster
) -> None:
    Client(store, "web-2").checks("1.0.0")
    before = {entry.key: entry for entry in client.list("/").entries}

    omaha.checks("1.0.0")

    after = {entry.key: entry for entry in client.list("/").entries}
    changed = {key for key in after if after[key] != before.get(key)}
    keys = store.context.keys
    grant = {keys.rollout(APP, "beta"), keys.grant(APP, "beta", "web-1")}
    assert {keys.instance(APP, "web-1"), *grant} == changed


def test_a_report_whose_answer_was_lost_is_booked_once(omaha: Client, client: FakeCluster) -> None:
    omaha.checks("1.0.0")
    client.lose_answers(1)

    omaha.sends("1.0.0", "13:1")

    assert ["13:1"] == [line.event for line in omaha.row.history]


def test_a_grant_never_slips_past_a_pause_that_comes_in_between(
    omaha: Client, store: Store, client: FakeCluster
) -> None:
    """
    1. the target is read and says go
    2. an operator pauses the group
    3. the transaction of the grant fails its comparison, the second look sees the pause
    """
    meddler = client.store.client("operator")
    paused: list[str] = []

    def pause_before_the_grant(name: str, moment: str) -> None:
        if name == "txn" and moment == "before" and not paused:
            paused.append(name)

            open_store(meddler, now=store.context.now).groups.update(APP, "beta", paused=True)

    client.trouble = pause_before_the_grant
    answer = omaha.checks("1.0.0")

    assert NoUpdate(reason="group is paused") == answer
    assert "on-hold" == omaha.row.status


def test_without_etcd_nothing_is_answered(omaha: Client, client: FakeCluster) -> None:
    client.cut_off()

    with pytest.raises(Unknown):
        omaha.checks("1.0.0")


def test_an_instance_in_use_keeps_its_app_and_a_living_one_is_not_forgotten(
    omaha: Client, store: Store, keys: Keys
) -> None:
    omaha.checks("1.0.0")
    be_alive(store, "web-1", NOON)

    with pytest.raises(Conflict, match="instances web-1"):
        store.apps.delete(APP)
    with pytest.raises(Conflict, match="is running"):
        store.fleet.forget(APP, "web-1")
