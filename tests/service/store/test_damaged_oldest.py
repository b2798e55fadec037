"""A document of the oldest version that can't be read: nobody knows what is too old, so nothing begins to run."""

from datetime import timedelta

import pytest

from outrider.core.errors import Conflict
from outrider.etcd.seam import Put
from outrider.model.documents import encode
from outrider.model.keys import Keys, group_scope
from outrider.model.oldest import Oldest
from outrider.model.tasks import Task
from outrider.service.store.store import Store
from outrider.turns.oldest import OldestVersion, TooOld
from tests.sim.fake_etcd import FakeCluster
from tests.support.service_examples import APP, make_app
from tests.support.wall_clock import NOON

DAMAGES = (b"", b"{", b"null", b"[]", b'{"version": 7}', b"\xff\xfe", b'{"app":"web"}')


@pytest.fixture
def oldest(client: FakeCluster, keys: Keys) -> OldestVersion:
    return OldestVersion(client, keys, app=APP, group="beta", scope=group_scope(APP, "beta"))


def damage(client: FakeCluster, key: str, value: bytes) -> None:
    client.txn((), (Put(key=key, value=value),))


@pytest.mark.parametrize("value", DAMAGES)
@pytest.mark.parametrize("group", ["beta", ""], ids=["of the group", "of the app"])
def test_no_turn_is_taken_and_the_reason_says_what_helps(
    client: FakeCluster, keys: Keys, oldest: OldestVersion, value: bytes, group: str
) -> None:
    damage(client, keys.oldest(APP, group), value)

    for version in ("0.1.0", "99.0.0"):
        with pytest.raises(TooOld, match=rf"{keys.oldest(APP, group)} in etcd can't be read.*task lift"):
            oldest.permits(version)


def test_no_contract_task_writes_over_it(client: FakeCluster, keys: Keys, oldest: OldestVersion) -> None:
    damage(client, keys.oldest(APP, "beta"), b"{")
    known = dict.fromkeys(Task.__struct_fields__, object)
    assert {"version", "name", "started"} <= set(known)

    class Claimed:
        version, name, started = "2.0.0", "drop", NOON

    answer = oldest.begins(Claimed(), "group", "web-1")  # type: ignore[arg-type]

    assert isinstance(answer, str)
    assert "can't be read" in answer


def test_the_service_moves_no_channel_there_until_it_was_lifted(store: Store, client: FakeCluster, keys: Keys) -> None:
    make_app(store, versions=("1.0.0", "2.0.0"), version="1.0.0")
    store.groups.create(APP, "gamma", channel="beta")
    damage(client, keys.oldest(APP, "gamma"), b"{")

    with pytest.raises(Conflict, match=r"2\.0\.0 refused: .* can't be read"):
        store.channels.save(APP, "beta", version="2.0.0")
    assert () == store.tasks.lift(APP, "gamma"), "nothing readable was there"
    assert client.get(keys.oldest(APP, "gamma")) is None
    store.channels.save(APP, "beta", version="2.0.0")
    with pytest.raises(Conflict, match="no contract task has begun"):
        store.tasks.lift(APP, "gamma")


def test_one_that_can_be_read_refuses_what_is_older_alone(
    client: FakeCluster, keys: Keys, oldest: OldestVersion
) -> None:
    document = Oldest(
        app=APP, group="beta", version="2.0.0", task="drop", instance="web-1", since=NOON - timedelta(days=1)
    )
    damage(client, keys.oldest(APP, "beta"), encode(document))

    assert 2 == len(oldest.permits("2.0.0"))
    with pytest.raises(TooOld, match=r"1\.0\.0 is older than 2\.0\.0"):
        oldest.permits("1.0.0")
