"""A check-in for an app or a group that does not exist is seen by the operator: once an hour, and never without end."""

import pytest

from outrider.core.omaha import AppRequest, OmahaRequest
from outrider.model.activity import Activity
from outrider.service.history.activity_log import read_activity
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.misaddressed import MOST, Misaddressed
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import WallClock
from tests.support.service_examples import APP, make_app


@pytest.fixture
def checkins(store: Store) -> Checkins:
    make_app(store)
    return Checkins(context=store.context, on_misaddressed=Misaddressed(store.context))


def check_in(checkins: Checkins, app: str = APP, track: str = "beta") -> None:
    asked = AppRequest(app_id=app, version="1.0.0", track=track, machine_id="web-1", update_check=True)
    checkins.answer(OmahaRequest(apps=(asked,)), Caller(address="10.0.0.7", base_url="http://updates.example"))


def seen(store: Store) -> list[Activity]:
    return [one for _, one in read_activity(store.context) if one.kind.startswith("checkin-")]


def test_a_mistyped_group_is_told_with_the_groups_that_there_are(checkins: Checkins, store: Store) -> None:
    check_in(checkins, track="betta")

    (one,) = seen(store)
    assert ("checkin-unknown-group", "warning", APP, "betta") == (one.kind, one.severity, one.app, one.group)
    assert f"web-1 (10.0.0.7) checks in to group 'betta', which app {APP} does not have: there are beta" == one.text


def test_a_mistyped_app_is_told(checkins: Checkins, store: Store) -> None:
    check_in(checkins, app="{Exmaple}")

    (one,) = seen(store)
    assert ("checkin-unknown-app", "exmaple") == (one.kind, one.app)
    assert "web-1 (10.0.0.7) checks in for app 'exmaple', which does not exist; is it mistyped?" == one.text


def test_who_finds_its_group_is_no_event(checkins: Checkins, store: Store) -> None:
    check_in(checkins)

    assert [] == seen(store)


def test_it_is_told_once_an_hour_by_any_number_of_processes(checkins: Checkins, store: Store, clock: WallClock) -> None:
    other = Checkins(context=store.context, on_misaddressed=Misaddressed(store.context))
    for one in (checkins, other, checkins):
        check_in(one, track="betta")
    within_the_hour = len(seen(store))
    clock.advance(3600)
    check_in(other, track="betta")

    assert (1, 2) == (within_the_hour, len(seen(store)))


def test_strange_names_fill_no_log(checkins: Checkins, store: Store) -> None:
    for number in range(3 * MOST):
        check_in(checkins, app=f"app-{number}")

    assert MOST == len(seen(store))


@pytest.mark.parametrize(("app", "track"), [("not/a/key", "beta"), ("x" * 200, "beta"), (APP, "not/a/key"), (APP, "")])
def test_what_is_no_name_at_all_is_no_event(checkins: Checkins, store: Store, app: str, track: str) -> None:
    check_in(checkins, app=app, track=track)

    assert [] == seen(store)


def test_what_could_not_be_written_is_written_with_the_next_check_in(
    checkins: Checkins, store: Store, client: FakeCluster
) -> None:
    tell = checkins.on_misaddressed
    client.cut_off()
    tell(APP, "betta", "web-1", "")
    client.mend()
    tell(APP, "betta", "web-1", "")

    assert ["betta"] == [one.group for one in seen(store)]
