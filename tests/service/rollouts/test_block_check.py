"""A block counts with its writer's own word; what somebody else wrote in that name ends, what he took comes back."""

import msgspec
import pytest

from outrider.etcd.seam import Delete, Put
from outrider.model.documents import Block, encode
from outrider.service.history.activity_log import read_activity
from outrider.service.rollouts.block_check import check_blocks
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.store.store import Store
from outrider.turns.blocks import block_puts
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually

HONEST = Block(version="2.0.0", sha256="2" * 64, instance="web-b", why="503", at=NOON, update="u1")


@pytest.fixture
def key(store: Store) -> str:
    make_app(store)
    return store.context.keys.block(APP, "2.0.0")


def told(store: Store) -> list[str]:
    return [one.text for _, one in read_activity(store.context, app=APP, kind="block-refused")]


def test_what_an_instance_has_said_itself_stands(store: Store, client: FakeCluster, key: str) -> None:
    client.txn((), block_puts(store.context.keys, APP, HONEST, "2.0.0"))

    assert (() == check_blocks(store.context), client.get(key) is not None) == (True, True)


@pytest.mark.parametrize(
    ("forged", "words"),
    [
        (HONEST, "web-b has said nothing of the kind: somebody else wrote it in that name"),
        (msgspec.structs.replace(HONEST, update=""), "it names neither a turn nor a task of its writer"),
    ],
)
def test_a_block_in_the_name_of_another_ends_and_is_reported(
    store: Store, client: FakeCluster, key: str, forged: Block, words: str
) -> None:
    client.txn((), (Put(key=key, value=encode(forged)),))

    assert (key,) == check_blocks(store.context)
    assert client.get(key) is None
    assert [f"the block of 2.0.0 counts for nothing: {words}"] == told(store)


def test_another_reason_in_the_writers_name_ends_too_and_his_own_stands_again(
    store: Store, client: FakeCluster, key: str
) -> None:
    client.txn((), block_puts(store.context.keys, APP, HONEST, "2.0.0"))
    client.txn((), (Put(key=key, value=encode(msgspec.structs.replace(HONEST, why="because"))),))

    assert (key,) == check_blocks(store.context)
    assert (key,) == check_blocks(store.context)
    entry = client.get(key)
    assert entry is not None
    assert encode(HONEST) == entry.value


def test_a_block_that_somebody_takes_away_in_etcd_comes_back(store: Store, client: FakeCluster, key: str) -> None:
    client.txn((), block_puts(store.context.keys, APP, HONEST, "2.0.0"))
    with rollout_controller(store.context):
        client.txn((), (Delete(key=key),))

        eventually(lambda: client.get(key) is not None)


def test_an_operator_lifts_block_and_word(store: Store, client: FakeCluster, key: str) -> None:
    client.txn((), block_puts(store.context.keys, APP, HONEST, "2.0.0"))

    store.fleet.unblock(APP, "2.0.0")

    assert (None, ()) == (client.get(key), client.list(store.context.keys.all_verdicts()).entries)
    assert () == check_blocks(store.context)


def test_a_block_that_can_not_be_read_stays(store: Store, client: FakeCluster, key: str) -> None:
    client.txn((), (Put(key=key, value=b"?"),))

    assert (() == check_blocks(store.context), client.get(key) is not None) == (True, True)
