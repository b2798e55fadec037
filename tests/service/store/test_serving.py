"""The index of who serves says what the list of all rows and presences says, whatever happens."""

import random
from collections.abc import Iterator

import msgspec
import pytest

from outrider.core.rollout.policy_settings import Policy
from outrider.etcd.seam import Delete
from outrider.model.documents import Group, Instance, encode
from outrider.service.store import read_model
from outrider.service.store.changes import Change
from outrider.service.store.checking import SEEN
from outrider.service.store.read_model import ReadModel
from outrider.service.store.serving import index_of
from outrider.service.store.snapshot import read_snapshot
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service_examples import APP, be_alive, make_app, open_store, put
from tests.support.wall_clock import WallClock

NAMES = [f"web-{number}" for number in range(12)]
STATUSES = ("undefined", "complete", "downloading", "error", "on-hold")


class Fleet:
    def __init__(self) -> None:
        self.etcd, self.clock = FakeEtcd(threaded=False), WallClock()
        self.store = open_store(self.etcd.client("service"), now=self.clock)
        make_app(self.store, version="1.0.0")
        self.store.rollouts.set_policy(APP, "beta", Policy(min_healthy=1))
        self.context = self.store.context
        self.model = ReadModel(self.context.cluster, self.context.keys)
        self.model.begin()

    def row(self, name: str, status: str, group: str = "beta") -> None:
        now = self.clock()
        row = Instance(
            app=APP, id=name, group=group, version="1.0.0", first_seen=now, last_seen=now, status=status
        )  # fmt: skip
        put(self.context.cluster, self.context.keys.instance(APP, name), encode(row))

    def remove(self, key: str) -> None:
        self.context.cluster.txn((), (Delete(key=key),))

    @property
    def group(self) -> Group:
        return self.store.groups.get(APP, "beta")

    def listed(self) -> set[str]:
        snapshot = read_snapshot(self.context, Change(self.context.cluster), APP, "beta")
        assert snapshot is not None
        return set(snapshot.serving)

    def indexed(self) -> set[str]:
        self.etcd.settle()
        found = index_of(self.model).of(self.context.keys, self.group, self.clock())
        assert len(found) == len(set(found))
        assert all(name in found for name in found)
        return set(found)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(read_model, "CATCH_UP_S", 0.0)
    fleet = Fleet()
    yield fleet
    fleet.model.close()


@pytest.mark.parametrize("seed", range(8))
def test_it_says_what_the_whole_list_says(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    keys = fleet.context.keys

    for _ in range(80):
        name = chance.choice(NAMES)
        match chance.randrange(7):
            case 0 | 1:
                fleet.row(name, chance.choice(STATUSES), chance.choice(["beta", "beta", "other"]))
            case 2:
                fleet.remove(keys.instance(APP, name))
            case 3:
                be_alive(fleet.store, name, fleet.clock(), serving=chance.random() < 0.5)
            case 4:
                fleet.remove(keys.presence(APP, "beta", name))
            case 5:
                fleet.clock.advance(SEEN.total_seconds() / 5)
            case 6:
                fleet.model._doubt()
                fleet.model._replace(fleet.context.cluster.list(f"{keys.prefix}/"))
        if chance.random() < 0.5:
            assert fleet.listed() == fleet.indexed()

    assert fleet.listed() == fleet.indexed()


def test_who_was_not_seen_for_a_day_no_longer_serves_though_nothing_changes(fleet: Fleet) -> None:
    fleet.row("web-1", "complete")
    assert {"web-1"} == fleet.indexed()

    fleet.clock.advance(SEEN.total_seconds() - 1)
    assert {"web-1"} == fleet.indexed()
    fleet.clock.advance(1)
    assert set() == fleet.indexed()


def test_unproved_rows_do_not_count_once_the_group_asks_for_proofs(fleet: Fleet) -> None:
    fleet.row("web-1", "complete")
    assert {"web-1"} == fleet.indexed()

    key = fleet.context.keys.group(APP, "beta")
    put(fleet.context.cluster, key, encode(msgspec.structs.replace(fleet.group, identity="required")))

    assert set() == fleet.listed() == fleet.indexed()
