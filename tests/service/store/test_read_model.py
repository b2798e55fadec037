"""The read model: the copy is etcd at one revision, and how old it may be is known."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from outrider.core.errors import DriverError
from outrider.etcd.seam import Delete, Entry, Put
from outrider.model.documents import encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from outrider.service.store import read_model
from outrider.service.store.read_model import ModelReader, NotingCluster, ReadModel
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.wall_clock import NOON

KEYS = Keys()
BELOW = f"{KEYS.prefix}/apps"


class Seconds:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd(threaded=False)


@pytest.fixture
def cluster(etcd: FakeEtcd) -> Iterator[FakeCluster]:
    connection = etcd.client("service")
    yield connection
    connection.close()


@pytest.fixture
def model(cluster: FakeCluster, seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadModel]:
    """One that has begun; what the watch delivers, a test delivers by ``etcd.settle()``."""
    monkeypatch.setattr(read_model, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(read_model, "MARKED_S", 0.0)
    renew(cluster, "t1")
    model = ReadModel(cluster, KEYS, seconds)
    model.begin()
    yield model
    model.close()


def put(cluster: FakeCluster, name: str, value: str = "x") -> int:
    return cluster.txn((), (Put(key=f"{BELOW}/{name}", value=value.encode()),)).revision


def renew(cluster: FakeCluster, token: str, *earlier: str) -> None:
    epoch = Epoch(token=token, earlier=earlier, at=NOON)
    cluster.txn((), (Put(key=KEYS.epoch(), value=encode(epoch)),))


def test_the_copy_lists_what_etcd_lists_whatever_was_written(
    etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel
) -> None:
    chance, names = random.Random(7), [f"{a}/{b}{c}" for a in "pq" for b in ("", "r/", "rs/t/") for c in "xyz"]
    for _ in range(300):
        chosen = chance.sample(names, 3)
        ops = [
            Put(key=f"{BELOW}/{name}", value=b"v") if chance.random() < 0.6 else Delete(key=f"{BELOW}/{name}")
            for name in chosen
        ]
        cluster.txn((), tuple(ops))
        etcd.settle()

        reader = ModelReader(model)
        for prefix in (
            f"{BELOW}/",
            f"{BELOW}/p/",
            f"{BELOW}/q/rs/",
            f"{BELOW}/q/r",
            f"{KEYS.prefix}/",
            f"{BELOW}/none/",
        ):
            assert cluster.list(prefix) == reader.list(prefix)
        assert cluster.get(f"{BELOW}/p/x") == reader.get(f"{BELOW}/p/x")


def test_the_changes_of_one_transaction_appear_together(etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel) -> None:
    before = model.revision
    cluster.txn((), (Put(key=f"{BELOW}/a", value=b"1"), Put(key=f"{BELOW}/b", value=b"1")))

    etcd.deliver_next()
    half = (model.entry(f"{BELOW}/a"), model.entry(f"{BELOW}/b"), model.revision)
    etcd.deliver_next()

    assert (None, None, before) == half
    assert model.entry(f"{BELOW}/a") is not None is not model.entry(f"{BELOW}/b")
    assert before + 1 == model.revision


def test_a_confirmation_holds_for_five_seconds(model: ReadModel, seconds: Seconds) -> None:
    assert not model.is_confirmed
    assert model.confirm()
    seconds.now += read_model.HOLDS_S
    assert model.is_confirmed
    seconds.now += 0.1
    assert not model.is_confirmed


def test_a_copy_whose_watch_is_held_back_is_not_confirmed_however_long_that_lasts(
    etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel, seconds: Seconds
) -> None:
    model.confirm()
    put(cluster, "a")
    for _ in range(60):
        seconds.now += 1.0
        assert not model.confirm()
    assert not model.is_confirmed

    etcd.settle()
    assert model.confirm()
    assert model.is_confirmed


def test_writes_of_others_to_the_same_etcd_keep_nothing_from_being_confirmed(
    etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel
) -> None:
    cluster.txn((), (Put(key="/traefik/routers/web", value=b"x"),))

    assert not model.confirm()  # it has written a key of ours, which the watch hasn't delivered yet
    etcd.settle()
    assert model.confirm()


@pytest.mark.parametrize("lower", [True, False])
def test_a_restored_etcd_is_noticed_before_anything_is_confirmed(
    etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel, lower: bool
) -> None:
    """
    1. a copy of etcd is kept
    2. a key is written, the epoch is renewed, the model follows
    3. the copy is restored: with a lower revision, or with one that has gone on
    """
    kept: dict[str, Entry] = dict(etcd.entries)
    revision = etcd.revision
    put(cluster, "later")
    renew(cluster, "t2", "t1")
    etcd.settle()
    assert model.confirm()
    etcd.restore(kept)
    if lower:
        etcd.revision = revision

    assert not model.confirm()
    assert not model.is_confirmed
    etcd.settle()
    assert model.confirm()
    assert model.entry(f"{BELOW}/later") is None


def test_while_etcd_is_away_nothing_is_confirmed_anew(cluster: FakeCluster, model: ReadModel, seconds: Seconds) -> None:
    model.confirm()
    cluster.cut_off()

    with pytest.raises(DriverError):
        model.confirm()
    assert model.is_confirmed
    seconds.now += read_model.HOLDS_S + 1
    assert not model.is_confirmed


def test_who_has_seen_more_waits_until_the_copy_has_it(etcd: FakeEtcd, cluster: FakeCluster, model: ReadModel) -> None:
    async def wait() -> tuple[bool, bool]:
        revision = put(cluster, "a")
        too_early = await model.reached(revision, 0.01)
        waiting = asyncio.ensure_future(model.reached(revision, 10))
        await asyncio.sleep(0)
        etcd.settle()
        return too_early, await waiting

    assert (False, True) == asyncio.run(wait())


def test_a_number_above_etcds_own_lets_nobody_wait(model: ReadModel) -> None:
    async def wait() -> bool:
        waiting = asyncio.ensure_future(model.reached(2**60, 600))
        await asyncio.sleep(0)
        model.confirm()
        return await waiting

    assert not asyncio.run(wait())


def test_what_this_process_writes_is_noted(cluster: FakeCluster, model: ReadModel) -> None:
    noting = NotingCluster(cluster)
    noting.model = model
    revision = noting.txn((), (Put(key=f"{BELOW}/a", value=b"x"),)).revision

    assert revision == model.written
