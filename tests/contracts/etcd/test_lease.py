"""The lease keeper: what it promises about a lease, by its own clock."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from outrider.core.errors import Refused
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Put
from tests.sim.fake_etcd import FakeCluster, FakeEtcd, Moment
from tests.support.waiting import eventually

TTL_S = 1.0
TRUSTED_S = 0.6 * TTL_S
RENEWED_S = TTL_S / 5


class ShiftedClock:
    """The real clock, to be set forward by hand."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.shift_s


@dataclass
class Told:
    """What the keeper told, in order, with the time and the thread."""

    news: list[tuple[str, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def granted(self, lease: int) -> None:
        self._note("granted", lease)

    def lost(self, lease: int, why: str) -> None:
        self.whys.append(why)
        self._note("lost", lease)

    def _note(self, what: str, lease: int) -> None:
        self.times.append(time.monotonic())
        self.news.append((what, lease))
        self.threads.add(threading.current_thread().name)

    def count(self, number: int) -> Callable[[], bool]:
        return lambda: len(self.news) >= number


@pytest.fixture
def store(no_thread_left: None) -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def client(store: FakeEtcd) -> FakeCluster:
    # A call hangs longer than the lease is trusted: the keeper must not wait for it.
    return store.client(timeout_s=3 * TTL_S)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def keeper(client: FakeCluster, told: Told, clock: ShiftedClock) -> Iterator[LeaseKeeper]:
    """A keeper that has its first lease."""
    built = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost, clock=clock)
    built.start()
    eventually(told.count(1))
    yield built
    client.mend()
    client.release()
    built.close(revoke=False)


def calls(client: FakeCluster, name: str) -> int:
    return client.calls.count(name)


def test_a_granted_lease_is_told_once_and_renewed_again_and_again(
    keeper: LeaseKeeper, told: Told, client: FakeCluster, store: FakeEtcd
) -> None:
    eventually(lambda: calls(client, "keep_alive") >= 6)

    assert [("granted", keeper.lease)] == told.news
    assert [keeper.lease] == list(store.leases)
    assert told.threads == {"outrider-lease"}


def test_a_loss_is_told_at_the_deadline_while_a_keep_alive_hangs(
    keeper: LeaseKeeper, told: Told, client: FakeCluster
) -> None:
    first = keeper.lease
    asked = calls(client, "keep_alive")
    client.hold()
    held_at = time.monotonic()

    eventually(told.count(2))

    assert [("granted", first), ("lost", first)] == told.news
    assert "no keep-alive was answered for 0.6 s" in told.whys[0]
    # the last answered keep-alive was sent up to one period before the trouble began
    assert TRUSTED_S - RENEWED_S - 0.1 < told.times[1] - held_at < TRUSTED_S + 0.2
    assert calls(client, "keep_alive") == asked + 1, "the one that hangs"
    assert keeper.lease is None


def test_the_lease_is_not_trusted_past_the_deadline_before_any_thread_has_noticed(
    keeper: LeaseKeeper, clock: ShiftedClock
) -> None:
    assert keeper.lease is not None

    clock.shift_s = TRUSTED_S + 0.001

    assert keeper.lease is None


def test_an_answer_after_the_deadline_does_not_bring_the_lease_back(
    keeper: LeaseKeeper, told: Told, client: FakeCluster, clock: ShiftedClock, store: FakeEtcd
) -> None:
    """
    1. a keep-alive is under way, and the time of the one before it runs out
    2. the answer comes, and by its own sending time the lease could be relied on again
    3. the loss is told all the same, once; a new lease takes its place
    """
    first = keeper.lease

    def late(name: str, moment: Moment) -> None:
        if name == "keep_alive" and moment == "after":
            clock.shift_s += TRUSTED_S - RENEWED_S / 2
            client.trouble = None

    client.trouble = late

    eventually(told.count(3))
    assert [("granted", first), ("lost", first), ("granted", keeper.lease)] == told.news
    assert keeper.lease != first


def test_after_a_loss_the_old_lease_is_revoked_before_a_new_one_is_granted(
    keeper: LeaseKeeper, told: Told, client: FakeCluster, store: FakeEtcd
) -> None:
    first = keeper.lease
    assert first is not None
    client.txn((), (Put(key="/mine", value=b"", lease=first),))
    client.cut_off()
    eventually(told.count(2))
    assert "/mine" in store.entries, "etcd knows nothing of the loss yet"
    since = len(client.calls)

    client.mend()

    eventually(told.count(3))
    happened = [name for name in client.calls[since:] if name in ("revoke", "grant")]
    assert ["revoke", "grant"] == happened[-2:]
    assert "/mine" not in store.entries
    assert [("granted", first), ("lost", first), ("granted", keeper.lease)] == told.news
    assert [keeper.lease] == list(store.leases)


def test_nothing_is_given_back_or_asked_for_before_the_loss_was_told(
    client: FakeCluster, told: Told, store: FakeEtcd
) -> None:
    """Whoever hears of a loss stops its work first, also when etcd answers again meanwhile."""
    telling, go_on = threading.Event(), threading.Event()

    def lost(lease: int, why: str) -> None:
        telling.set()
        go_on.wait(60)

    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=lost)
    keeper.start()
    eventually(told.count(1))
    client.hold()
    assert telling.wait(60)
    client.release()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > RENEWED_S)

    meanwhile = [name for name in client.calls if name != "keep_alive"]
    go_on.set()

    assert meanwhile == ["grant"], "the first one"
    eventually(told.count(2))
    keeper.close(revoke=True)


def test_a_lease_that_etcd_has_ended_is_lost_at_the_next_keep_alive(
    keeper: LeaseKeeper, told: Told, store: FakeEtcd
) -> None:
    first = keeper.lease
    assert first is not None

    store.end_lease(first)

    eventually(told.count(3))
    assert [("granted", first), ("lost", first), ("granted", keeper.lease)] == told.news
    assert told.whys == ["etcd has ended it"]
    assert told.times[1] - told.times[0] < TRUSTED_S


def test_a_short_trouble_is_outlived_without_a_loss(keeper: LeaseKeeper, told: Told, client: FakeCluster) -> None:
    first = keeper.lease
    failed = calls(client, "keep_alive")
    client.cut_off()
    eventually(lambda: calls(client, "keep_alive") > failed)
    client.mend()
    renewed = calls(client, "keep_alive")

    eventually(lambda: calls(client, "keep_alive") > renewed + 4)

    assert [("granted", first)] == told.news
    assert keeper.lease == first


def test_a_lease_is_granted_when_etcd_comes_back(client: FakeCluster, told: Told) -> None:
    client.cut_off()
    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost)
    keeper.start()
    eventually(lambda: calls(client, "grant") >= 3)
    assert (keeper.lease, told.news) == (None, [])

    client.mend()

    eventually(told.count(1))
    assert [("granted", keeper.lease)] == told.news
    keeper.close(revoke=True)


def test_a_grant_whose_answer_was_lost_is_asked_for_again(client: FakeCluster, told: Told, store: FakeEtcd) -> None:
    client.lose_answers(1)
    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost)
    keeper.start()

    eventually(told.count(1))

    assert [("granted", keeper.lease)] == told.news
    assert keeper.lease in store.leases
    keeper.close(revoke=True)


def test_a_grant_that_took_too_long_is_given_back_and_never_told(
    client: FakeCluster, told: Told, clock: ShiftedClock, store: FakeEtcd
) -> None:
    def slow(name: str, moment: Moment) -> None:
        if name == "grant" and moment == "after":
            clock.shift_s += TRUSTED_S
            client.trouble = None

    client.trouble = slow
    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost, clock=clock)
    keeper.start()

    eventually(told.count(1))

    assert [("granted", keeper.lease)] == told.news
    assert [keeper.lease] == list(store.leases), "the slow one was revoked"
    keeper.close(revoke=True)


def test_an_old_lease_that_may_not_be_revoked_does_not_prevent_a_new_one(
    keeper: LeaseKeeper, told: Told, client: FakeCluster, store: FakeEtcd
) -> None:
    first = keeper.lease

    def forbid(name: str, moment: Moment) -> None:
        if name == "revoke":
            raise Refused("permission denied")

    client.trouble = forbid
    assert first is not None
    store.end_lease(first)

    eventually(told.count(3))
    assert [("granted", first), ("lost", first), ("granted", keeper.lease)] == told.news


@pytest.mark.parametrize("revoke", [True, False])
def test_closing_ends_the_lease_only_when_asked_and_tells_nothing(
    client: FakeCluster, told: Told, store: FakeEtcd, revoke: bool
) -> None:
    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost)
    keeper.start()
    eventually(told.count(1))

    keeper.close(revoke=revoke)
    keeper.close(revoke=revoke)

    assert bool(store.leases) is not revoke
    assert keeper.lease is None
    assert len(told.news) == 1


def test_closing_while_etcd_is_away_gives_up_the_revocation(client: FakeCluster, told: Told, store: FakeEtcd) -> None:
    keeper = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=told.lost)
    keeper.start()
    eventually(told.count(1))
    client.cut_off()

    keeper.close(revoke=True)

    assert len(store.leases) == 1


def test_a_keeper_may_be_closed_from_what_it_tells(client: FakeCluster, store: FakeEtcd) -> None:
    told = Told()

    def lost(lease: int, why: str) -> None:
        told.lost(lease, why)
        mine.close(revoke=False)

    mine = LeaseKeeper(client, TTL_S, on_granted=told.granted, on_lost=lost)
    mine.start()
    eventually(told.count(1))

    client.cut_off()

    eventually(told.count(2))
    client.mend()
    assert mine.lease is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_can_not_be_told_of_a_loss_holds_no_lease(client: FakeCluster, store: FakeEtcd) -> None:
    def clumsy(lease: int) -> None:
        raise KeyError("a bug")

    keeper = LeaseKeeper(client, TTL_S, on_granted=clumsy, on_lost=Told().lost)
    keeper.start()

    eventually(lambda: calls(client, "grant") == 1 and keeper.lease is None)
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("outrider-lease")])
    keeper.close(revoke=True)
    assert store.leases == {}


@pytest.mark.parametrize(("ttl_s", "trust"), [(0.0, 0.6), (-1.0, 0.6), (10.0, 0.0), (10.0, 1.0)])
def test_a_time_that_can_not_work_is_a_mistake(client: FakeCluster, told: Told, ttl_s: float, trust: float) -> None:
    with pytest.raises(ValueError, match="a lease needs"):
        LeaseKeeper(client, ttl_s, on_granted=told.granted, on_lost=told.lost, trust=trust)
