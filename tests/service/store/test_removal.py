"""An instance that is removed for good leaves nothing behind, and gets nothing afterwards until it is admitted."""

import pytest

from outrider.balancers.agent import AgentKeys, AgentSettings
from outrider.balancers.apisix import ApisixSettings, ApisixUpstream
from outrider.balancers.entry import EtcdEntry, Gone
from outrider.balancers.keys import KeyLayout
from outrider.balancers.shared import SharedEntry
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.balancers.vulcand import VulcandKeys, VulcandSettings
from outrider.core.errors import Conflict, NotFound
from outrider.etcd.seam import CreatedAt, Put
from outrider.model.documents import Admission, Contender, Owner, decode, encode
from outrider.model.documents import Gone as GoneMarker
from outrider.model.keys import Keys
from outrider.service.rollouts.explain import explain
from outrider.service.store.store import Store
from outrider.turns.lock import Denied, News, TurnGranted, TurnLock
from outrider.turns.wait import Wait
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive
from tests.support.service_fleets import Fleet

LAYOUT = TraefikKeys(TraefikSettings(), service="hello")


class Instance:
    """What a sidekick of the instance would leave in etcd."""

    def __init__(self, client: FakeCluster, name: str, shared_scope: str = "", layout: KeyLayout = LAYOUT) -> None:
        self.client, self.name = client, name
        owner = Owner(app=APP, group="beta", instance=name, process="p1")
        kind = SharedEntry if isinstance(layout, ApisixUpstream) else EtcdEntry
        self.entry = kind(client, layout, service="hello", server_id=name, owner=owner)
        contender = Contender(app=APP, group="beta", instance=name, shared_scope=shared_scope)
        self.news: list[News] = []
        self.waits: list[Wait] = []
        self.lock = TurnLock(client, Keys(), contender, clock=lambda: NOON, start=self.waits.append)

    def asks_for_a_turn(self) -> None:
        lease = self.client.grant(30)
        self.lock.acquire(lease=lease, update="u", release="2.0.0", slots=1, deliver=self.news.append)
        for _ in range(5):
            if not self.waits[-1].ended:
                self.waits[-1].round()
        self.lease = lease

    def has_a_turn(self) -> None:
        self.asks_for_a_turn()
        assert isinstance(self.news[-1], TurnGranted), self.news

    def dies(self) -> None:
        self.client.revoke(self.lease)


def keys_with(client: FakeCluster, name: str) -> list[str]:
    """Every key that names the instance, but for the audit log, activity and the marker."""
    entries = (*client.list("/outrider/v1/").entries, *client.list("traefik/").entries)
    apart = ("/outrider/v1/audit/", "/outrider/v1/activity/", "/outrider/v1/gone/")
    return [
        one.key for one in entries
        if not one.key.startswith(apart) and (f"/{name}" in one.key or f'"{name}"'.encode() in one.value)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "layout"),
    [
        ("", LAYOUT),
        ("eu", LAYOUT),
        ("", AgentKeys(AgentSettings(), service="hello", keys=Keys())),
        ("", VulcandKeys(VulcandSettings(), service="hello")),
        ("", ApisixUpstream(ApisixSettings(), service="hello")),
    ],
    ids=["traefik", "shared-scope", "agent", "vulcand", "apisix"],
)
def test_nothing_is_left_but_the_marker(
    fleet: Fleet, store: Store, client: FakeCluster, scope: str, layout: KeyLayout
) -> None:
    """Server, write guard, grant, turn, queue entry, command and row: lost in mid-swap, and scrapped."""
    fleet.granted("web-7")
    lost = Instance(client, "web-7", scope, layout)
    lost.entry.join("http://10.0.0.7:80")
    lost.has_a_turn()
    store.fleet.command(APP, "web-7", "pause", "ann")
    client.txn((), (Put(key=Keys().running_at(APP, "beta", "1.0.0", "web-7"), value=b"{}"),))
    neighbour = Instance(client, "web-70", layout=layout)
    neighbour.entry.join("http://10.0.0.70:80")
    lost.dies()
    assert 6 <= len(keys_with(client, "web-7"))

    removed = store.fleet.forget(APP, "web-7", by="ann", machine_off=True)

    assert ("web-7", "2.0.0") == (removed.id, removed.granted_version)
    assert [] == [key for key in keys_with(client, "web-7") if "web-70" not in key and "rollout" not in key]
    assert "http://10.0.0.70:80" == neighbour.entry.current()
    assert lost.entry.current() is None
    entry = client.get(Keys().gone(APP, "web-7"))
    assert entry is not None
    marker = decode(GoneMarker, entry.key, entry.value)
    assert ("ann", "deleted", "beta") == (marker.by, marker.how, marker.group)


def test_its_turn_is_free_for_the_next(fleet: Fleet, store: Store, client: FakeCluster) -> None:
    fleet.granted("web-7")
    lost, next_one = Instance(client, "web-7"), Instance(client, "web-8")
    lost.has_a_turn()
    lost.dies()
    store.fleet.forget(APP, "web-7", machine_off=True)

    next_one.has_a_turn()


@pytest.mark.parametrize(("scope", "release"), [("", f"{APP} beta"), ("eu", "--scope eu")])
def test_a_turn_is_freed_only_when_the_machine_is_off(
    fleet: Fleet, store: Store, client: FakeCluster, scope: str, release: str
) -> None:
    fleet.granted("web-7")
    lost = Instance(client, "web-7", scope)
    lost.has_a_turn()
    lost.dies()
    before = keys_with(client, "web-7")

    with pytest.raises(Conflict, match=f"--machine-off, or .* `outrider lock release {release} --slot 0`"):
        store.fleet.forget(APP, "web-7")

    assert before == keys_with(client, "web-7")


def test_a_living_one_is_refused_and_told_what_to_do(fleet: Fleet, store: Store) -> None:
    fleet.granted("web-7")
    be_alive(store, "web-7", NOON)

    with pytest.raises(Conflict, match="is running; stop it first, or use `outrider instance decommission"):
        store.fleet.forget(APP, "web-7", machine_off=True)


def test_one_that_never_checked_in_is_known_by_its_server_or_its_turn(
    fleet: Fleet, store: Store, client: FakeCluster
) -> None:
    Instance(client, "web-7").entry.join("http://10.0.0.7:80")

    assert "beta" == store.fleet.forget(APP, "web-7").group
    with pytest.raises(NotFound, match="web-8"):
        store.fleet.forget(APP, "web-8")


def test_who_is_gone_gets_no_place_no_entry_no_grant_and_no_row(
    fleet: Fleet, store: Store, client: FakeCluster
) -> None:
    """It wakes up weeks later, and believes that nothing has happened."""
    fleet.granted("web-7")
    store.fleet.forget(APP, "web-7", by="ann")
    back = Instance(client, "web-7")

    back.asks_for_a_turn()
    with pytest.raises(Gone, match="instance admit"):
        back.entry.join("http://10.0.0.7:80")
    fence = (CreatedAt(key="none", revision=0),)
    with pytest.raises(Gone, match="instance admit"):
        back.entry.switch("http://10.0.0.7:80", fence=fence)

    (denied,) = back.news
    assert isinstance(denied, Denied)
    assert "removed for good; `outrider instance admit`" in denied.reason
    assert "web-7 was deleted by ann on" in fleet.why_deferred("web-7")
    assert "ok" == fleet.sends("web-7", "1.0.0", "3:2").status
    assert [] == keys_with(client, "web-7")
    (line,) = explain(store.context, APP, "web-7")
    assert "`outrider instance admit" in line
    assert line.endswith("it checked in 0s ago")


def test_a_dirty_turn_of_one_that_is_gone_cannot_be_made_valid_again(client: FakeCluster) -> None:
    """The turn was freed by nobody, but the marker is there: written by a newer outrider, for example."""
    lost = Instance(client, "web-7")
    lost.has_a_turn()
    lost.dies()
    marker = GoneMarker(app=APP, group="beta", instance="web-7", how="deleted", at=NOON)
    client.txn((), (Put(key=Keys().gone(APP, "web-7"), value=encode(marker)),))
    turn = lost.lock.find("u")
    assert turn is not None

    with pytest.raises(Exception, match="removed for good"):
        lost.lock.reclaim(turn, lease=client.grant(30))


def test_who_is_admitted_is_as_new(fleet: Fleet, store: Store, client: FakeCluster) -> None:
    fleet.granted("web-7")
    store.fleet.forget(APP, "web-7")
    store.fleet.admit(APP, "web-7")

    back = Instance(client, "web-7")
    back.has_a_turn()
    back.entry.join("http://10.0.0.7:80")

    assert "2.0.0" == fleet.granted("web-7")
    with pytest.raises(NotFound, match="nothing to admit"):
        store.fleet.admit(APP, "web-7")


def test_an_admission_names_the_removal_that_it_lifts_and_goes_with_the_next_one(
    fleet: Fleet, store: Store, client: FakeCluster
) -> None:
    key = Keys().admission(APP, "web-7")
    fleet.granted("web-7")
    marker = GoneMarker(app=APP, group="beta", instance="web-7", how="decommissioned", removal="d1", at=NOON)
    client.txn((), (Put(key=Keys().gone(APP, "web-7"), value=encode(marker)),))

    store.fleet.admit(APP, "web-7")
    entry = client.get(key)

    assert entry is not None
    assert "d1" == decode(Admission, key, entry.value).removal
    Instance(client, "web-7").entry.join("http://10.0.0.7:80")
    store.fleet.forget(APP, "web-7")
    assert client.get(key) is None
