"""Check-ins are judged over this process's copy of etcd, and committed only when etcd is as the copy was."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from outrider.core.omaha import AppAnswer, AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest
from outrider.core.rollout.policy_settings import Policy, Rate
from outrider.etcd.seam import Delete
from outrider.model.documents import Served
from outrider.service.rollouts.batches import Batches
from outrider.service.rollouts.checkins import Checkins
from outrider.service.rollouts.wakeups import look
from outrider.service.store import read_model
from outrider.service.store.changes import Change
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.read_model import NotingCluster, ReadModel
from outrider.service.store.snapshot import read_snapshot
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service_examples import APP, be_alive, make_app, open_store, payload_of, target_of
from tests.support.service_fleets import CALLER
from tests.support.wall_clock import WallClock


class Process:
    """A service process whose watch a test can delay."""

    def __init__(self, etcd: FakeEtcd, name: str, clock: WallClock) -> None:
        self.client: FakeCluster = etcd.client(name)
        noting = NotingCluster(self.client)
        self.store: Store = open_store(noting, now=clock)
        self.monotonic = 0.0
        self.model = noting.model = ReadModel(noting, self.store.context.keys, lambda: self.monotonic)
        self.checkins = Checkins(context=self.store.context, batches=Batches(self.model))

    def begin(self) -> "Process":
        self.model.begin()
        self.model.confirm()
        self.client.calls.clear()
        return self

    def check(
        self, instance: str, version: str = "1.0.0", seen: int = 0, *, takes_turns: bool = False
    ) -> Offer | NoUpdate:
        app = AppRequest(
            app_id=APP,
            version=version,
            track="beta",
            machine_id=instance,
            update_check=True,
            takes_turns=takes_turns,
        )
        (answer,) = self.checkins.answer(OmahaRequest(apps=(app,), seen_revision=seen), CALLER).apps
        assert isinstance(answer, AppAnswer)
        assert isinstance(answer.update_check, (Offer, NoUpdate))
        return answer.update_check

    def updates(self, instance: str, version: str) -> None:
        """It gets what it is offered, and reports that it runs."""
        assert isinstance(self.check(instance), Offer)
        self.reports(instance, version)

    def reports(self, instance: str, version: str, result: int = 1) -> None:
        event = OmahaEvent(type=3, result=result, previous_version="1.0.0", next_version=version)
        app = AppRequest(app_id=APP, version=version, track="beta", machine_id=instance, events=(event,))
        self.checkins.answer(OmahaRequest(apps=(app,)), CALLER)

    @property
    def served(self) -> list[str]:
        known = self.store.context.get(Served, self.store.context.keys.served(APP, "beta"))
        return [] if known is None else list(known.versions)

    def set(self, policy: Policy) -> None:
        self.store.rollouts.set_policy(APP, "beta", policy)

    @property
    def under_way(self) -> int:
        snapshot = read_snapshot(self.store.context, Change(self.client), APP, "beta")
        assert snapshot is not None
        assert len(snapshot.living) == snapshot.progress.open.total
        return len(snapshot.living)


class Pair:
    def __init__(self) -> None:
        self.etcd, self.clock = FakeEtcd(threaded=False), WallClock()
        self.one, self.other = Process(self.etcd, "one", self.clock), Process(self.etcd, "other", self.clock)
        make_app(self.one.store, versions=("1.0.0", "2.0.0"), version="2.0.0")

    def begin(self) -> "Pair":
        self.etcd.settle()
        self.one.begin()
        self.other.begin()
        return self


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(read_model, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(read_model, "MARKED_S", 0.0)
    pair = Pair()
    yield pair
    pair.one.model.close()
    pair.other.model.close()


def test_a_grant_costs_one_transaction_and_no_reading_though_the_watch_brings_nothing(pair: Pair) -> None:
    one = pair.begin().one

    for number in range(5):
        assert isinstance(one.check(f"web-{number}"), Offer)

    assert ["txn"] * 5 == one.client.calls
    assert 5 == one.under_way


@pytest.mark.parametrize("policy", [Policy(max_in_progress=3), Policy(canary=3)], ids=["in progress", "canary"])
def test_no_limit_is_passed_by_two_processes_that_see_nothing_of_each_other(
    pair: Pair, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both watches are behind all the time; and nobody leaves the copy alone after it was behind."""
    monkeypatch.setattr("outrider.service.rollouts.batches.COPY_PAUSE_S", 0.0)
    pair.one.set(policy)
    pair.begin()

    answers = [(pair.one, pair.other)[number % 2].check(f"web-{number}") for number in range(10)]

    assert [Offer] * 3 + [NoUpdate] * 7 == [type(answer) for answer in answers]
    assert 3 == pair.one.under_way


def test_a_decision_that_writes_nothing_counts_only_as_of_now(pair: Pair) -> None:
    """
    1. web-1 is known, and its group is paused, as far as this process's copy says
    2. another process has resumed it, and the watch has not brought that
    """
    pair.one.store.groups.update(APP, "beta", paused=True)
    pair.etcd.settle()
    pair.begin()
    assert isinstance(pair.one.check("web-1"), NoUpdate)
    pair.etcd.settle()
    assert isinstance(pair.one.check("web-1"), NoUpdate)

    pair.other.store.groups.update(APP, "beta", paused=False)

    assert isinstance(pair.one.check("web-1"), Offer)


def test_a_copy_that_was_behind_is_left_alone_for_a_moment(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.service.rollouts.batches.COPY_PAUSE_S", 600.0)
    pair.begin()
    pair.other.check("web-1")
    pair.one.check("web-2")
    pair.one.client.calls.clear()
    pair.etcd.settle()

    pair.one.check("web-3")

    assert len(pair.one.client.calls) > 1, "it has read etcd"
    assert 3 == pair.one.under_way


def test_who_has_seen_more_than_the_copy_is_judged_over_etcd(pair: Pair) -> None:
    pair.begin()
    pair.other.store.groups.update(APP, "beta", paused=True)

    assert isinstance(pair.one.check("web-1", seen=pair.etcd.revision), NoUpdate)


def test_a_copy_that_nobody_has_confirmed_lately_is_not_asked(pair: Pair) -> None:
    pair.begin()
    pair.one.monotonic += read_model.HOLDS_S + 1

    assert isinstance(pair.one.check("web-1"), Offer)
    assert len(pair.one.client.calls) > 1


@pytest.mark.parametrize("has_seen", [0, 1, 2], ids=["nothing", "the first", "both"])
def test_a_complete_rollout_is_booked_before_the_next_target_whatever_the_copy_has_seen(
    pair: Pair, has_seen: int
) -> None:
    """
    1. both instances come to 2.0.0 by way of one process, and no controller has looked at the group
    2. the watch of the process at which 3.0.0 is promoted has brought nothing of that, or a part
    3. undo goes to 2.0.0
    """
    pair.begin()
    for number in range(2):
        pair.one.updates(f"web-{number}", "2.0.0")
        if number < has_seen:
            pair.etcd.settle()
    seen = [pair.other.model.entry(pair.one.store.context.keys.instance(APP, f"web-{number}")) for number in range(2)]
    assert has_seen == sum(one is not None for one in seen)
    pair.other.store.packages.create(APP, "3.0.0", payload=payload_of("3.0.0"))

    pair.other.store.channels.save(APP, "beta", version="3.0.0")

    assert ["2.0.0"] == pair.other.served
    pair.other.store.rollouts.undo(APP, "beta")
    assert "2.0.0" == target_of(pair.one.store).version


def test_a_look_at_a_copy_that_is_behind_books_nothing_and_the_next_one_does(pair: Pair) -> None:
    """The controller waits for its copy, as far as its own watches have come; a copy behind that says nothing."""
    other = pair.begin().other
    for number in range(2):
        pair.one.updates(f"web-{number}", "2.0.0")

    look(other.store.context, GroupLock(), APP, "beta", model=other.model)
    assert [] == other.served

    pair.etcd.settle()
    look(other.store.context, GroupLock(), APP, "beta", model=other.model)
    assert ["2.0.0"] == pair.other.served


def test_a_check_in_reads_no_other_grant_and_says_how_many_there_are(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. thirty updates are under way, some of which the watch has not brought yet; thirty are allowed
    2. another instance is told so, and nothing was listed for that
    """
    pair.one.set(Policy(max_in_progress=30))
    one = pair.begin().one
    for number in range(30):
        assert isinstance(one.check(f"web-{number}"), Offer)
        if number == 20:
            pair.etcd.settle()
    monkeypatch.setattr(ReadModel, "below_ahead", lambda *_: pytest.fail("it lists what is in etcd"))

    answer = one.check("web-30")

    assert isinstance(answer, NoUpdate)
    assert "30 of 30 in progress: web-0, web-1, web-2 and 27 more" == answer.reason
    assert 30 == one.under_way


def test_a_count_that_a_person_made_wrong_is_put_right(pair: Pair) -> None:
    pair.one.set(Policy(max_in_progress=2))
    one = pair.begin().one
    for name in ("web-1", "web-2"):
        assert isinstance(one.check(name), Offer)
    pair.etcd.settle()
    pair.other.client.txn((), (Delete(key=one.store.context.keys.grant(APP, "beta", "web-1")),))
    pair.etcd.settle()

    assert isinstance(one.check("web-3"), Offer)

    assert 2 == one.under_way


def test_a_place_is_kept_for_who_was_woken_until_it_has_checked_in(pair: Pair) -> None:
    """
    1. web-2 is deferred, a place becomes free, and the controller wakes web-2
    2. web-3 comes first, and the place is kept; web-2 comes, and gets it, before the watch brings that
    3. a second place becomes free by a new policy, and web-3 gets it: nothing is kept for web-2 any more
    """
    pair.one.set(Policy(max_in_progress=1))
    one = pair.begin().one
    keys = one.store.context.keys
    be_alive(one.store, "web-2", pair.clock())
    assert isinstance(one.check("web-1"), Offer)
    assert isinstance(one.check("web-2"), NoUpdate)
    one.reports("web-1", "2.0.0")
    pair.etcd.settle()
    assert ("web-2",) == look(one.store.context, GroupLock(), APP, "beta", model=one.model).called
    pair.etcd.settle()
    assert isinstance(one.check("web-3"), NoUpdate)

    assert isinstance(one.check("web-2"), Offer)
    known = one.model.entry(keys.deferral(APP, "beta", "web-2"))
    assert known is not None, "the watch has brought too much for this test"
    pair.other.set(Policy(max_in_progress=2))

    assert isinstance(one.check("web-3"), Offer)


@pytest.mark.parametrize(
    "policy", [Policy(max_in_progress=3), Policy(canary=2, max_per_interval=Rate(count=4, interval_s=60)), Policy()]
)
@pytest.mark.parametrize("seed", range(2))
def test_over_the_copy_the_same_is_decided_as_over_etcd(pair: Pair, policy: Policy, seed: int) -> None:
    """A fleet lives through the same troubles twice; in one of its lives the watch is late now and then."""
    lives = []
    for model in (True, False):
        chance, etcd, clock = random.Random(seed), FakeEtcd(threaded=False), WallClock()
        life = Process(etcd, "service", clock)
        make_app(life.store, versions=("1.0.0", "2.0.0"), version="2.0.0")
        life.set(policy)
        etcd.settle()
        life.begin()
        if not model:
            life.checkins = Checkins(context=life.store.context)
        told: list[object] = []
        for _ in range(30):
            name, act = f"web-{chance.randrange(8)}", chance.randrange(10)
            if act < 5:
                answer = life.check(name, takes_turns=chance.random() < 0.5)
                told.append((name, type(answer)))
            elif act < 8:
                life.reports(name, "2.0.0", result=int(act < 7))
            elif act == 8:
                limit = chance.randrange(1, 5)
                life.set(replace(policy, max_in_progress=limit) if policy.counts else policy)
            else:
                clock.advance(20)
            if chance.random() < 0.6:
                etcd.settle()
            told.append(life.under_way)
        lives.append(told)
        life.model.close()

    assert lives[1] == lives[0]
