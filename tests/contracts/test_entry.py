"""``EtcdEntry``, the only writer of balancer keys, keeps its promises on the fake etcd and on the real one."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from outrider.balancers import Server
from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.balancers.entry import EtcdEntry, Fenced, Occupied, ensure_static
from outrider.balancers.keys import KeyLayout
from outrider.core.errors import ConfigError, DriverError, Refused, Unknown
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, DeletePrefix, Op, Put, TxnResult
from outrider.model.documents import WriteGuard, decode
from outrider.model.keys import Keys
from tests.contracts.kits.settings import settings_with
from tests.contracts.test_balancers import LAYOUTS, NEW, OLD, URL_KEY, traefik
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.servers import EtcdServer

FOREIGN = "http://10.0.0.9:80"
SLOT = "/outrider/v1/turns/hello/g/slots/0/web-1"
GUARD = "/outrider/v1/servers/hello/web-1"
WEIGHT_KEY = "traefik/http/services/hello/loadbalancer/servers/web-1/weight"


@pytest.fixture
def fake() -> FakeCluster:
    return FakeEtcd().client()


@pytest.fixture(params=["fake", "real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A store without keys of ours."""
    if request.param == "fake":
        yield FakeEtcd().client()
        return
    server: EtcdServer = request.getfixturevalue("etcd_server")
    real = connect(server.address())
    yield real
    prefixes = ("traefik/", "/vulcand/", "/services/", f"{GUARD}/")
    real.txn((), (*(DeletePrefix(prefix=prefix) for prefix in prefixes), Delete(key=SLOT), Delete(key=GUARD)))
    real.close()


def entry_of(cluster: Cluster, layout: KeyLayout | None = None) -> EtcdEntry:
    return EtcdEntry(cluster, layout or traefik(), service="hello", server_id="web-1")


def take_turn(cluster: Cluster) -> tuple[CreatedAt, ...]:
    """A fence that holds until ``end_turn``."""
    cluster.txn((), (Put(key=SLOT, value=b"mine"),))
    entry = cluster.get(SLOT)
    assert entry is not None
    return (CreatedAt(key=SLOT, revision=entry.create_revision),)


def end_turn(cluster: Cluster) -> None:
    cluster.txn((), (Delete(key=SLOT),))


def put(cluster: Cluster, key: str, value: str) -> None:
    cluster.txn((), (Put(key=key, value=value.encode()),))


def stored(cluster: Cluster) -> dict[str, str]:
    """The balancer's keys, without the turn's."""
    return {entry.key: entry.value.decode() for entry in cluster.list("traefik").entries}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_whole_life_can_be_repeated_step_by_step(cluster: Cluster, layout: KeyLayout) -> None:
    entry = entry_of(cluster, layout)
    fence = take_turn(cluster)
    for _ in range(2):
        entry.ensure_static()
    for _ in range(2):
        entry.join(OLD)
        assert OLD == entry.current()
    for _ in range(2):
        entry.switch(NEW, fence=fence)
    for _ in range(2):
        entry.restore(OLD, fence=fence)
        assert OLD == entry.current()
    for _ in range(2):
        entry.leave(fence=fence)
        assert entry.current() is None

    assert cluster.get(SLOT) is not None
    for key, value in layout.static_keys().items():
        static = cluster.get(key)
        assert static is not None
        assert value == static.value.decode()
    assert () == cluster.list(layout.owned_prefix("web-1")).entries


class TestEntry:
    def test_a_switch_overwrites_the_one_key(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)

        entry_of(cluster).switch(NEW, fence=take_turn(cluster))

        assert {URL_KEY: NEW} == stored(cluster)

    def test_a_switch_after_the_turn_has_ended_is_fenced_off_and_changes_nothing(self, cluster: Cluster) -> None:
        """
        1. the sidekick holds a turn, and loses it (its lease is gone, or an operator released the slot)
        2. another takes the slot: the key is there again, with another create revision
        3. the late switch is refused, and the refusal can be told from others
        """
        put(cluster, URL_KEY, OLD)
        fence = take_turn(cluster)
        end_turn(cluster)
        take_turn(cluster)

        with pytest.raises(Fenced, match="turn has ended"):
            entry_of(cluster).switch(NEW, fence=fence)

        assert {URL_KEY: OLD} == stored(cluster)
        assert Fenced.kind == "fence"

    def test_a_fence_on_a_lease_ends_with_the_lease(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)
        lease = cluster.grant(60)
        cluster.txn((), (Put(key=SLOT, value=b"mine", lease=lease),))
        entry = cluster.get(SLOT)
        assert entry is not None
        fence = (CreatedAt(key=SLOT, revision=entry.create_revision),)
        cluster.revoke(lease)

        writes: list[Callable[[], object]] = [
            lambda: entry_of(cluster).switch(NEW, fence=fence),
            lambda: entry_of(cluster).leave(fence=fence),
            lambda: entry_of(cluster).restore(NEW, fence=fence),
            lambda: entry_of(cluster).restore(None, fence=fence),
        ]
        for write in writes:
            with pytest.raises(Fenced):
                write()
        assert {URL_KEY: OLD} == stored(cluster)

    def test_what_is_so_already_needs_no_turn(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, NEW)
        ended = take_turn(cluster)
        end_turn(cluster)
        before = cluster.list("traefik")

        entry_of(cluster).switch(NEW, fence=ended)
        entry_of(cluster).restore(NEW, fence=ended)

        assert before.entries == cluster.list("traefik").entries

    def test_what_is_so_already_is_not_written_again(self, cluster: Cluster) -> None:
        """A put of the same value would arm Traefik's throttle, and so hold up the next instance's swap."""
        fence = take_turn(cluster)
        entry = entry_of(cluster)
        entry.ensure_static()
        entry.switch(NEW, fence=fence)
        before = cluster.list("traefik").entries

        entry.ensure_static()
        entry.switch(NEW, fence=fence)
        entry.join(NEW)
        entry.restore(NEW, fence=fence)

        assert before == cluster.list("traefik").entries

    def test_a_switch_sweeps_up_orphans_in_the_same_transaction(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)
        put(cluster, WEIGHT_KEY, "3")

        entry_of(cluster).switch(NEW, fence=take_turn(cluster))

        assert {URL_KEY: NEW} == stored(cluster)

    def test_leaving_removes_orphans_and_no_neighbour(self, cluster: Cluster) -> None:
        neighbour = URL_KEY.replace("web-1", "web-10")
        for key, value in ((URL_KEY, OLD), (WEIGHT_KEY, "3"), (neighbour, FOREIGN)):
            put(cluster, key, value)

        entry_of(cluster).leave(fence=take_turn(cluster))

        assert {neighbour: FOREIGN} == stored(cluster)

    def test_restoring_where_there_was_nothing_removes_the_entry(self, cluster: Cluster) -> None:
        fence = take_turn(cluster)
        entry = entry_of(cluster)
        entry.switch(NEW, fence=fence)

        entry.restore(None, fence=fence)

        assert {} == stored(cluster)

    def test_coming_back_needs_no_turn(self, cluster: Cluster) -> None:
        entry_of(cluster).join(NEW)

        assert {URL_KEY: NEW} == stored(cluster)

    def test_coming_back_takes_over_an_own_former_address_only(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)

        entry_of(cluster).join(NEW, replacing=(FOREIGN, OLD))

        assert {URL_KEY: NEW} == stored(cluster)

    def test_coming_back_never_overwrites_what_somebody_else_wrote(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, FOREIGN)

        with pytest.raises(Occupied, match=FOREIGN):
            entry_of(cluster).join(NEW, replacing=(OLD,))

        assert {URL_KEY: FOREIGN} == stored(cluster)

    def test_a_bad_address_is_refused_before_anything_is_written(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)
        fence = take_turn(cluster)
        entry = entry_of(cluster)

        writes: list[Callable[[], object]] = [
            lambda: entry.switch("http://x", fence=fence),
            lambda: entry.join("http://x"),
        ]
        for write in writes:
            with pytest.raises(ConfigError):
                write()
        assert {URL_KEY: OLD} == stored(cluster)

    def test_static_keys_that_are_there_stay_as_the_operator_left_them(self, cluster: Cluster) -> None:
        put(cluster, "traefik/http/routers/hello/rule", "Host(`mine`)")

        ensure_static(cluster, traefik())

        assert {**traefik().static_keys(), "traefik/http/routers/hello/rule": "Host(`mine`)"} == stored(cluster)


Write = Callable[[EtcdEntry, tuple[CreatedAt, ...]], None]


class TestLateWrites:
    """A sidekick is killed, and etcd carries its last transaction out when its successor has moved on."""

    @pytest.mark.parametrize(
        ("before", "first", "then"),
        [
            pytest.param(OLD, lambda one, fence: one.leave(fence=fence), lambda one, _: one.join(OLD), id="leave-join"),
            pytest.param(
                OLD,
                lambda one, fence: one.switch(NEW, fence=fence),
                lambda one, fence: one.restore(OLD, fence=fence),
                id="switch-restore",
            ),
            pytest.param(
                OLD,
                lambda one, _: one.join(NEW, replacing=(OLD,)),
                lambda one, fence: one.switch(OLD, fence=fence),
                id="join-switch",
            ),
            pytest.param(
                None, lambda one, _: one.join(NEW), lambda one, fence: one.leave(fence=fence), id="join-leave"
            ),
            pytest.param(
                None,
                lambda one, fence: one.switch(NEW, fence=fence),
                lambda one, fence: one.restore(None, fence=fence),
                id="switch-leave",
            ),
        ],
    )
    def test_what_a_killed_sidekick_left_under_way_is_refused_once_its_successor_looked_after_the_entry(
        self, cluster: Cluster, before: str | None, first: Write, then: Write
    ) -> None:
        """
        1. a transaction is sent, and its sender killed
        2. the successor finds the entry as it shall be, and has nothing to write to the balancer
        3. now the transaction arrives, with its turn still held
        """
        if before is not None:
            put(cluster, URL_KEY, before)
        fence = take_turn(cluster)
        late = given_up(cluster, lambda one: first(one, fence))
        entries = cluster.list("traefik").entries

        then(entry_of(cluster), fence)

        assert late() is False
        assert entries == cluster.list("traefik").entries, "the balancer was disturbed"

    def test_it_is_refused_as_well_when_the_successor_has_lost_its_turn(self, cluster: Cluster) -> None:
        """What is so already needs no turn, but what comes back needs none either: it must not come late."""
        put(cluster, URL_KEY, OLD)
        fence = take_turn(cluster)
        late = given_up(cluster, lambda one: one.join(NEW, replacing=(OLD,)))
        end_turn(cluster)

        entry_of(cluster).restore(OLD, fence=fence)

        assert late() is False
        assert {URL_KEY: OLD} == stored(cluster)

    def test_of_several_late_writes_one_arrives_at_most(self, cluster: Cluster) -> None:
        put(cluster, URL_KEY, OLD)
        fence = take_turn(cluster)
        one = given_up(cluster, lambda entry: entry.switch(NEW, fence=fence))
        other = given_up(cluster, lambda entry: entry.leave(fence=fence))

        assert one() is True
        assert other() is False
        assert {URL_KEY: NEW} == stored(cluster)

    def test_an_entry_that_looks_right_is_not_sure_before_the_guard_is_written(self, cluster: Cluster) -> None:
        """
        1. a leave is sent, and its sender killed
        2. the successor comes back: the entry looks right, but its own transaction is given up, too
        3. so the leave may still arrive, and the successor is told that it doesn't know
        """
        put(cluster, URL_KEY, OLD)
        fence = take_turn(cluster)
        leave = given_up(cluster, lambda entry: entry.leave(fence=fence))

        given_up(cluster, lambda entry: entry.join(OLD))

        assert leave() is True

    def test_restarts_of_a_sidekick_that_serves_need_no_turn_and_leave_the_balancer_in_peace(
        self, cluster: Cluster
    ) -> None:
        put(cluster, URL_KEY, OLD)
        before = cluster.list("traefik").entries

        for _ in range(5):
            entry_of(cluster).join(OLD)

        assert before == cluster.list("traefik").entries

    def test_the_guard_says_what_the_entry_was_made_to_be(self, cluster: Cluster) -> None:
        fence = take_turn(cluster)
        entry = entry_of(cluster)
        said = []

        writes: list[Callable[[], object]] = [
            lambda: entry.join(OLD),
            lambda: entry.switch(NEW, fence=fence),
            lambda: entry.leave(fence=fence),
        ]
        for write in writes:
            write()
            guard = cluster.get(GUARD)
            assert guard is not None
            said.append(decode(WriteGuard, GUARD, guard.value).url)

        assert [OLD, NEW, None] == said


class TestEntryInTrouble:
    """The fake can lose answers at the very moment that matters."""

    def test_a_lost_answer_to_a_switch_that_happened_is_success(self, fake: FakeCluster) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        fake.lose_answers()

        entry_of(fake).switch(NEW, fence=fence)

        assert {URL_KEY: NEW} == stored(fake)

    @pytest.mark.parametrize("verb", ["leave", "join", "restore"])
    def test_a_lost_answer_to_anything_that_happened_is_success(self, fake: FakeCluster, verb: str) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        entry = entry_of(fake)
        fake.lose_answers()

        match verb:
            case "leave":
                entry.leave(fence=fence)
            case "join":
                entry.join(NEW, replacing=(OLD,))
            case "restore":
                entry.restore(NEW, fence=fence)

        assert ({} if verb == "leave" else {URL_KEY: NEW}) == stored(fake)

    def test_a_switch_that_did_not_get_through_is_unknown_and_can_be_repeated(self, fake: FakeCluster) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        entry = entry_of(fake)
        fake.trouble = fail_once("txn", "before")

        with pytest.raises(Unknown, match="may still arrive"):
            entry.switch(NEW, fence=fence)

        entry.switch(NEW, fence=fence)
        assert {URL_KEY: NEW} == stored(fake)

    def test_no_answer_to_the_reading_either_is_unknown(self, fake: FakeCluster) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)

        def cut_after_the_write(call: str, moment: str) -> None:
            if call == "txn" and moment == "after":
                fake.cut_off()
                raise Unknown("the line was cut")

        fake.trouble = cut_after_the_write
        with pytest.raises(Unknown):
            entry_of(fake).switch(NEW, fence=fence)

    def test_a_late_switch_can_not_undo_the_rollback(self, fake: FakeCluster) -> None:
        """
        1. the answer to a switch is lost, and reading still shows the old address
        2. the sidekick rolls back: the entry looks right, yet it is written
        3. now the lost switch arrives, with its turn still held: it is refused by what it had read
        """
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        entry = entry_of(fake)
        late = withhold_txn(fake)
        with pytest.raises(Unknown):
            entry.switch(NEW, fence=fence)

        entry.restore(OLD, fence=fence)

        assert late() is False
        assert {URL_KEY: OLD} == stored(fake)

    def test_a_late_leave_can_not_undo_coming_back(self, fake: FakeCluster) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        entry = entry_of(fake)
        late = withhold_txn(fake)
        with pytest.raises(Unknown):
            entry.leave(fence=fence)

        entry.join(OLD)

        assert late() is False
        assert {URL_KEY: OLD} == stored(fake)

    def test_two_that_come_back_at_once_do_not_overwrite_each_other(self, fake: FakeCluster) -> None:
        fake.trouble = once("txn", "before", lambda: put(fake.store.client("other"), URL_KEY, FOREIGN))

        with pytest.raises(Occupied, match=FOREIGN):
            entry_of(fake).join(NEW)

        assert {URL_KEY: FOREIGN} == stored(fake)

    def test_an_entry_that_changes_under_a_switch_is_no_lost_turn(self, fake: FakeCluster) -> None:
        put(fake, URL_KEY, OLD)
        fence = take_turn(fake)
        fake.trouble = once("txn", "before", lambda: put(fake.store.client("other"), URL_KEY, FOREIGN))

        with pytest.raises(DriverError, match="try again") as refusal:
            entry_of(fake).switch(NEW, fence=fence)

        assert refusal.value.retry
        assert not isinstance(refusal.value, Refused)

    def test_sidekicks_that_write_the_static_keys_at_once_all_succeed(self, fake: FakeCluster) -> None:
        fake.trouble = once("txn", "before", lambda: ensure_static(fake.store.client("other"), traefik()))

        ensure_static(fake, traefik())

        assert dict(traefik().static_keys()) == stored(fake)

    def test_without_a_balancer_etcd_is_not_even_asked(self, fake: FakeCluster) -> None:
        put(fake, "somebody/elses", "key")
        fence = take_turn(fake)
        context = BalancerContext(cluster=fake, keys=Keys())
        entry = BALANCERS.load("none").make(settings_with("none", None), context).entry
        fake.calls.clear()

        entry.ensure_static()
        entry.join(NEW)
        entry.switch(NEW, fence=fence)
        entry.restore(None, fence=fence)
        entry.leave(fence=fence)

        assert [] == fake.calls
        assert fake.get("somebody/elses") is not None


class Rootless:
    """A layout by which a server owns everything."""

    name = "rootless"

    def static_keys(self) -> dict[str, str]:
        return {}

    def server_keys(self, server: Server) -> dict[str, str]:
        return {server.id: server.url}

    def owned_prefix(self, server_id: str) -> str:
        return ""

    def pool(self) -> tuple[str, str]:
        return "", ""

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        return found.get(server_id)


def test_a_layout_without_a_prefix_is_a_bug_that_shows_at_once(fake: FakeCluster) -> None:
    """One careless range delete would empty the whole store."""
    with pytest.raises(AssertionError, match="the empty prefix would be all of etcd"):
        entry_of(fake, Rootless())


def once(call: str, moment: str, act: Callable[[], None]) -> Callable[[str, str], None]:
    """``act`` at the first such moment."""
    waiting = [act]

    def trouble(name: str, when: str) -> None:
        if (name, when) == (call, moment) and waiting:
            waiting.pop()()

    return trouble


def fail_once(call: str, moment: str) -> Callable[[str, str], None]:
    def fail() -> None:
        raise Unknown("no answer")

    return once(call, moment, fail)


def withhold_txn(cluster: Cluster) -> Callable[[], bool]:
    """Keep the next transaction back, as a network may. The result delivers it, and tells whether it was applied."""
    real = cluster.txn
    kept: list[Callable[[], TxnResult]] = []

    def txn(compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        kept.append(lambda: real(compares, ops))
        cluster.txn = real  # type: ignore[method-assign]
        raise Unknown("no answer")

    cluster.txn = txn  # type: ignore[method-assign]
    return lambda: kept[0]().succeeded


def given_up(cluster: Cluster, write: Callable[[EtcdEntry], object]) -> Callable[[], bool]:
    """A write by a process that is killed before it has an answer. The result delivers it, as ``withhold_txn``."""
    late = withhold_txn(cluster)
    with pytest.raises(Unknown):
        write(entry_of(cluster))
    return late
