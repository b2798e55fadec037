"""An entry has an owner: what another living sidekick owns is refused, what nobody living owns is put right."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from outrider.balancers.entry import EtcdEntry, Occupied, Twin
from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Op, Put, TxnResult
from outrider.model.documents import Owner, Presence, Stranger, WriteGuard, decode, encode
from outrider.model.keys import Keys
from tests.contracts.test_balancers import NEW, OLD, URL_KEY, traefik
from tests.contracts.test_entry import FOREIGN, GUARD, put, stored, take_turn
from tests.sim.fake_etcd import FakeCluster, FakeEtcd

KEYS = Keys()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A = Owner(app="shop", group="web", instance="a", process="a1")
A_AGAIN = Owner(app="shop", group="web", instance="a", process="a2")
B = Owner(app="shop", group="web", instance="b", process="b1")
OTHER_APP = Owner(app="mail", group="mx", instance="a", process="a1")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeEtcd().client()


def entry_of(cluster: Cluster, owner: Owner | None, *predecessors: str) -> EtcdEntry:
    return EtcdEntry(cluster, traefik(), service="hello", server_id="web-1", owner=owner, predecessors=predecessors)


def live(cluster: Cluster, owner: Owner) -> None:
    """Its sidekick has a presence."""
    presence = Presence(
        instance=owner.instance, app=owner.app, group=owner.group, state="idle.waiting", version="1", since=NOON,
        process=owner.process,
    )  # fmt: skip
    key = KEYS.presence(owner.app, owner.group, owner.instance)
    cluster.txn((), (Put(key=key, value=encode(presence)),))


WRITES: dict[str, Callable[[EtcdEntry, tuple[CreatedAt, ...]], object]] = {
    "switch": lambda entry, fence: entry.switch(NEW, fence=fence),
    "leave": lambda entry, fence: entry.leave(fence=fence),
    "join": lambda entry, _: entry.join(NEW, replacing=(OLD,)),
    "restore": lambda entry, fence: entry.restore(NEW, fence=fence),
    "restore nothing": lambda entry, fence: entry.restore(None, fence=fence),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("rival", [B, OTHER_APP], ids=["another instance", "another app"])
def test_what_another_living_sidekick_owns_is_refused_even_under_a_turn(
    cluster: FakeCluster, rival: Owner, write: Callable[[EtcdEntry, tuple[CreatedAt, ...]], object]
) -> None:
    live(cluster, A)
    live(cluster, rival)
    entry_of(cluster, rival).join(OLD)

    with pytest.raises(Occupied, match=f"belongs to {rival.app}/{rival.instance}, which is alive"):
        write(entry_of(cluster, A), take_turn(cluster))

    assert {URL_KEY: OLD} == stored(cluster)


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_living_twin_is_told_from_other_owners_for_it_may_end_any_moment(
    cluster: FakeCluster, write: Callable[[EtcdEntry, tuple[CreatedAt, ...]], object]
) -> None:
    live(cluster, A)
    entry_of(cluster, A).join(OLD)

    with pytest.raises(Twin, match=r"shop/a, as process a1, which is alive") as raised:
        write(entry_of(cluster, A_AGAIN), take_turn(cluster))

    assert raised.value.retry
    assert {URL_KEY: OLD} == stored(cluster)


def test_a_twin_lives_as_long_as_it_says_so_as_a_stranger(cluster: FakeCluster) -> None:
    """Its presence was overwritten, but its process is known by another key: the entry stays with it."""
    entry_of(cluster, A).join(OLD)
    live(cluster, A_AGAIN)
    stranger = Stranger(app="shop", group="web", instance="a", process="a1", why="", since=NOON)
    key = KEYS.stranger("shop", "a", "a1")
    cluster.txn((), (Put(key=key, value=encode(stranger)),))

    with pytest.raises(Twin):
        entry_of(cluster, A_AGAIN).join(NEW)
    cluster.txn((), (Delete(key=key),))
    entry_of(cluster, A_AGAIN).join(NEW)

    assert {URL_KEY: NEW} == stored(cluster)


@pytest.mark.parametrize(
    "owner",
    [B, OTHER_APP, Owner(app="shop", group="old", instance="a", process="a0"), A_AGAIN],
    ids=["another instance", "another app", "in its former group", "an earlier process"],
)
def test_what_a_process_without_a_presence_owned_is_taken_over(cluster: FakeCluster, owner: Owner) -> None:
    entry_of(cluster, owner).join(FOREIGN)
    live(cluster, A)

    entry_of(cluster, A).join(NEW, workload="w-2")

    guard = cluster.get(GUARD)
    assert guard is not None
    assert {URL_KEY: NEW} == stored(cluster)
    written = decode(WriteGuard, GUARD, guard.value)
    assert (written.owner, written.prefix) == (
        Owner(app="shop", group="web", instance="a", process="a1", workload="w-2"), URL_KEY.removesuffix("url"),
    )  # fmt: skip


@pytest.mark.parametrize("found", [FOREIGN, "", "nonsense", None], ids=["foreign", "empty", "nonsense", "deleted"])
def test_its_own_entry_is_put_right_whatever_a_person_made_of_it(cluster: FakeCluster, found: str | None) -> None:
    live(cluster, A)
    entry_of(cluster, A).join(OLD)
    if found is None:
        cluster.txn((), (Delete(key=URL_KEY),))
    else:
        put(cluster, URL_KEY, found)

    entry_of(cluster, A).join(OLD)

    assert {URL_KEY: OLD} == stored(cluster)


def test_a_predecessor_is_no_twin_even_while_its_presence_lasts(cluster: FakeCluster) -> None:
    """A killed sidekick is followed by one that knows, by its journal, that it has ended."""
    live(cluster, A)
    entry_of(cluster, A).join(OLD)

    entry_of(cluster, A_AGAIN, "a0", "a1").join(NEW)

    assert {URL_KEY: NEW} == stored(cluster)


@pytest.mark.parametrize("guard", [b"", b"\xff", b'{"schema":9}', b'{"url":null,"schema":1}'])
def test_a_guard_that_names_no_owner_leaves_the_old_rule(cluster: FakeCluster, guard: bytes) -> None:
    """Written before there were owners, or damaged: an address that isn't ours stays, and our own may be renewed."""
    cluster.txn((), (Put(key=GUARD, value=guard),))
    put(cluster, URL_KEY, FOREIGN)

    with pytest.raises(Occupied, match=FOREIGN):
        entry_of(cluster, A).join(NEW, replacing=(OLD,))
    put(cluster, URL_KEY, OLD)
    entry_of(cluster, A).join(NEW, replacing=(OLD,))

    assert {URL_KEY: NEW} == stored(cluster)


class Racing:
    """Lets something happen between the look at the entry and the write."""

    def __init__(self, cluster: FakeCluster, happens: Callable[[], None]) -> None:
        self._cluster, self._happens = cluster, happens

    def __getattr__(self, name: str) -> object:
        return getattr(self._cluster, name)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        happens, self._happens = self._happens, lambda: None
        happens()
        return self._cluster.txn(compares, ops)


def test_an_owner_that_comes_back_while_its_entry_is_being_taken_over_keeps_it(cluster: FakeCluster) -> None:
    entry_of(cluster, B).join(OLD)
    racing = Racing(cluster, lambda: live(cluster, B))

    with pytest.raises(DriverError):
        entry_of(racing, A).join(NEW)  # type: ignore[arg-type]

    assert {URL_KEY: OLD} == stored(cluster)
