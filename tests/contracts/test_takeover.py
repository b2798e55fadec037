"""The entry of an adopted workload becomes its instance's own in one transaction, and nobody who lives loses one."""

from collections.abc import Callable

import pytest

from outrider.balancers import Server
from outrider.balancers.entry import EtcdEntry, Gone, Occupied
from outrider.balancers.keys import KeyLayout
from outrider.balancers.takeover import Pool
from outrider.core.errors import DriverError, Unknown
from outrider.etcd.seam import Cluster, Compare, Delete, Op, Put, TxnResult
from outrider.model.documents import Owner, WriteGuard, decode, encode
from outrider.model.keys import Keys
from tests.contracts.test_balancers import LAYOUTS, NEW, OLD, traefik
from tests.contracts.test_entry import cluster, fake  # noqa: F401 - the fixtures
from tests.contracts.test_entry_owner import A, B, live
from tests.sim.fake_etcd import FakeCluster

KEYS = Keys()
SERVERS = "traefik/http/services/hello/loadBalancer/servers"


def pool(cluster: Cluster, layout: KeyLayout | None = None, owner: Owner = A) -> Pool:  # noqa: F811
    entry = EtcdEntry(cluster, layout or traefik(), service="hello", server_id="web-1", owner=owner)
    return Pool(cluster, entry, service="hello", server_id="web-1", keys=KEYS, owner=owner)


def register(cluster: Cluster, layout: KeyLayout, server_id: str, url: str = OLD) -> dict[str, bytes]:  # noqa: F811
    """As somebody by hand: no write guard."""
    keys = layout.server_keys(Server(service="hello", id=server_id, url=url))
    found = {key: value.encode() for key, value in keys.items()}
    cluster.txn((), tuple(Put(key=key, value=value) for key, value in found.items()))
    return found


def guard(cluster: Cluster, server_id: str = "web-1") -> WriteGuard | None:  # noqa: F811
    entry = cluster.get(KEYS.server("hello", server_id))
    return decode(WriteGuard, entry.key, entry.value) if entry is not None else None


class Meddler:
    """Hands on to a cluster, and does something before or after each transaction."""

    def __init__(self, cluster: Cluster, before: Callable[[], object], *, lose: bool = False) -> None:  # noqa: F811
        self._cluster, self._before, self._lose = cluster, before, lose

    def __getattr__(self, name: str) -> object:
        return getattr(self._cluster, name)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        self._before()
        result = self._cluster.txn(compares, ops)
        if self._lose:
            self._lose = False
            raise Unknown("no answer")
        return result


class TestEveryLayout:
    @pytest.fixture(params=LAYOUTS)
    def layout(self, request: pytest.FixtureRequest) -> KeyLayout:
        return LAYOUTS[request.param]

    def test_a_server_of_another_name_becomes_ours_at_one_moment(
        self,
        cluster: Cluster,  # noqa: F811
        layout: KeyLayout,
    ) -> None:
        old = register(cluster, layout, "handmade")
        neighbour = register(cluster, layout, "neighbour", NEW)

        assert "handmade" == pool(cluster, layout).take_over(OLD, workload="w-1")

        written = {key: cluster.get(key) for key in layout.server_keys(Server(service="hello", id="web-1", url=OLD))}
        assert all(written.values())
        assert [None] * len(old) == [cluster.get(key) for key in old]
        assert neighbour == {key: entry.value for key in neighbour if (entry := cluster.get(key)) is not None}
        found = guard(cluster)
        assert found is not None
        assert found.owner is not None
        assert (OLD, "a", "w-1", layout.owned_prefix("web-1")) == (
            found.url,
            found.owner.instance,
            found.owner.workload,
            found.prefix,
        )
        revisions = {entry.mod_revision for entry in written.values() if entry is not None}
        own_guard = cluster.get(KEYS.server("hello", "web-1"))
        assert own_guard is not None
        assert {own_guard.mod_revision} == revisions, "one transaction"

    def test_our_own_server_without_an_owner_stays_as_it_is_and_gets_one(
        self,
        cluster: Cluster,  # noqa: F811
        layout: KeyLayout,
    ) -> None:
        keys = register(cluster, layout, "web-1")
        before = {key: cluster.get(key) for key in keys}

        assert "web-1" == pool(cluster, layout).take_over(OLD, workload="w-1")

        assert before == {key: cluster.get(key) for key in keys}, "the balancer has nothing to notice"
        found = guard(cluster)
        assert found is not None
        assert found.owner is not None

    def test_without_a_server_nothing_is_written(self, cluster: Cluster, layout: KeyLayout) -> None:  # noqa: F811
        register(cluster, layout, "neighbour", NEW)

        assert "" == pool(cluster, layout).take_over(OLD, workload="w-1")

        assert guard(cluster) is None

    def test_two_servers_with_the_address_are_refused(self, cluster: Cluster, layout: KeyLayout) -> None:  # noqa: F811
        register(cluster, layout, "left")
        register(cluster, layout, "right")

        with pytest.raises(Occupied, match=r"several servers have the address .*: left, right"):
            pool(cluster, layout).take_over(OLD, workload="w-1")

        assert guard(cluster) is None

    def test_our_server_with_another_address_is_refused(self, cluster: Cluster, layout: KeyLayout) -> None:  # noqa: F811
        register(cluster, layout, "web-1", NEW)
        register(cluster, layout, "handmade")

        with pytest.raises(Occupied, match=f"holds {NEW}, and {OLD} is adopted"):
            pool(cluster, layout).take_over(OLD, workload="w-1")


def test_an_entry_of_ours_that_can_not_be_read_is_refused_and_left(fake: FakeCluster) -> None:  # noqa: F811
    register(fake, traefik(), "handmade")
    fake.txn((), (Put(key=f"{SERVERS.lower()}/web-1/weight", value=b"1"),))

    with pytest.raises(Occupied, match="holds no address that can be read, and"):
        pool(fake).take_over(OLD, workload="w-1")

    assert fake.get(f"{SERVERS.lower()}/handmade/url") is not None


class TestTraefik:
    """Its documents write keys in another case than we do, and number the servers."""

    def test_keys_of_any_case_are_found_and_go_with_all_that_belongs_to_them(self, fake: FakeCluster) -> None:  # noqa: F811
        fake.txn(
            (),
            (
                Put(key=f"{SERVERS}/0/url", value=f"{OLD}/".encode()),
                Put(key=f"{SERVERS}/0/weight", value=b"1"),
                Put(key=f"{SERVERS}/1/url", value=NEW.encode()),
            ),
        )

        assert "0" == pool(fake).take_over(OLD, workload="w-1")

        assert [f"{SERVERS}/1/url", f"{SERVERS.lower()}/web-1/url"] == sorted(
            entry.key for entry in fake.list("traefik/").entries
        )

    def test_our_own_name_in_another_case_is_written_anew(self, fake: FakeCluster) -> None:  # noqa: F811
        fake.txn((), (Put(key=f"{SERVERS}/web-1/url", value=OLD.encode()),))

        assert "web-1" == pool(fake).take_over(OLD, workload="w-1")

        assert [f"{SERVERS.lower()}/web-1/url"] == [entry.key for entry in fake.list("traefik/").entries]


@pytest.mark.parametrize("server_id", ["web-1", "handmade"])
def test_what_a_living_sidekick_owns_is_refused_and_what_a_dead_one_left_is_taken(
    fake: FakeCluster,  # noqa: F811
    server_id: str,
) -> None:
    register(fake, traefik(), server_id)
    key = KEYS.server("hello", server_id)
    fake.txn((), (Put(key=key, value=encode(WriteGuard(url=OLD, owner=B))),))
    live(fake, B)

    with pytest.raises(Occupied, match="belongs to shop/b, whose sidekick is alive"):
        pool(fake).take_over(OLD, workload="w-1")

    fake.txn((), (Delete(key=KEYS.presence("shop", "web", "b")),))
    assert server_id == pool(fake).take_over(OLD, workload="w-1")
    found = guard(fake)
    assert found is not None
    assert found.owner is not None
    assert "a" == found.owner.instance
    assert server_id == "web-1" or guard(fake, server_id) is None, "its write guard goes with it"


def test_a_sidekick_that_comes_to_life_meanwhile_keeps_its_server(fake: FakeCluster) -> None:  # noqa: F811
    register(fake, traefik(), "handmade")
    fake.txn((), (Put(key=KEYS.server("hello", "handmade"), value=encode(WriteGuard(url=OLD, owner=B))),))
    meddler = Meddler(fake, lambda: live(fake, B))

    with pytest.raises(Occupied, match="whose sidekick is alive"):
        pool(meddler).take_over(OLD, workload="w-1")  # type: ignore[arg-type]


def test_a_write_in_between_is_read_again_and_an_endless_row_of_them_gives_up(fake: FakeCluster) -> None:  # noqa: F811
    url = f"{SERVERS.lower()}/handmade/url"
    moves = iter([OLD, OLD])
    register(fake, traefik(), "handmade")

    def once() -> None:
        for value in moves:
            fake.txn((), (Put(key=url, value=value.encode()),))
            return

    assert "handmade" == pool(Meddler(fake, once)).take_over(OLD, workload="w-1")  # type: ignore[arg-type]

    fake.txn((), (Delete(key=f"{SERVERS.lower()}/web-1/url"), Put(key=url, value=OLD.encode())))
    always = Meddler(fake, lambda: fake.txn((), (Put(key=url, value=OLD.encode()),)))
    with pytest.raises(DriverError, match="written by somebody again and again"):
        pool(always).take_over(OLD, workload="w-1")  # type: ignore[arg-type]
    assert OLD.encode() == getattr(fake.get(url), "value", None), "it is still there"


def test_a_server_that_moves_away_meanwhile_is_left_alone(fake: FakeCluster) -> None:  # noqa: F811
    """Its address is another's by now: nothing of ours is there any more."""
    url = f"{SERVERS.lower()}/handmade/url"
    register(fake, traefik(), "handmade")
    meddler = Meddler(fake, lambda: fake.txn((), (Put(key=url, value=NEW.encode()),)))

    assert "" == pool(meddler).take_over(OLD, workload="w-1")  # type: ignore[arg-type]

    assert NEW.encode() == getattr(fake.get(url), "value", None)
    assert guard(fake) is None


def test_an_answer_that_was_lost_is_found_out(fake: FakeCluster) -> None:  # noqa: F811
    register(fake, traefik(), "handmade")
    meddler = Meddler(fake, lambda: None, lose=True)

    assert "handmade" == pool(meddler).take_over(OLD, workload="w-1")  # type: ignore[arg-type]

    assert fake.get(f"{SERVERS.lower()}/handmade/url") is None


def test_an_instance_that_was_removed_for_good_adopts_nothing(fake: FakeCluster) -> None:  # noqa: F811
    register(fake, traefik(), "handmade")
    fake.txn((), (Put(key=KEYS.gone("shop", "a"), value=b"{}"),))

    with pytest.raises(Gone, match="instance admit"):
        pool(fake).take_over(OLD, workload="w-1")

    assert fake.get(f"{SERVERS.lower()}/handmade/url") is not None
