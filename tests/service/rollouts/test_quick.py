"""Check-ins that are answered from the read model get the answer that a transaction would have given."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from outrider.core.omaha import (
    AppRequest,
    NoUpdate,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    parse_request,
    render_request,
)
from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents import Instance
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.identity import Claim
from outrider.service.rollouts.quick import QuickCheckins
from outrider.service.rollouts.touches import Touches
from outrider.service.store import read_model
from outrider.service.store.read_model import ReadModel
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service_examples import APP, be_alive, make_app, open_store, put, target_of
from tests.support.service_fleets import CALLER
from tests.support.wall_clock import WallClock

NEWEST = "2.0.0"


class Served:
    """A service with a read model whose watch a test holds in its hands."""

    def __init__(self) -> None:
        self.etcd, self.clock = FakeEtcd(threaded=False), WallClock()
        self.store: Store = open_store(self.etcd.client("service"), now=self.clock)
        make_app(self.store, versions=("1.0.0", "1.5.0", NEWEST), version="1.0.0")
        self.checkins = Checkins(context=self.store.context)
        self.monotonic = 0.0
        self.model = ReadModel(self.store.context.cluster, self.store.context.keys, lambda: self.monotonic)
        self.model.begin()
        self.model.confirm()
        self.quick = QuickCheckins(self.checkins, self.model)

    def request(self, instance: str, version: str, *events: OmahaEvent, **facts: object) -> OmahaRequest:
        words = {name: facts.pop(name) for name in ("seen_revision", "seen_epoch") if name in facts}
        app = AppRequest(
            app_id=APP,
            version=version,
            track="beta",
            machine_id=instance,
            update_check=True,
            events=events,
            **facts,  # type: ignore[arg-type]
        )
        return OmahaRequest(apps=(app,), **words)  # type: ignore[arg-type]

    def at_once(self, request: OmahaRequest) -> OmahaResponse | None:
        return asyncio.run(self.quick.answer(request, CALLER))

    def decided(self, request: OmahaRequest) -> OmahaResponse:
        return self.checkins.answer(request, CALLER)

    def catch_up(self) -> None:
        self.etcd.settle()
        self.model.confirm()

    def known(self, instance: str, version: str = "1.0.0", **facts: object) -> OmahaRequest:
        """A check-in that changes nothing any more."""
        request = self.request(instance, version, **facts)
        self.decided(request)
        self.catch_up()
        return request


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(read_model, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(read_model, "MARKED_S", 0.0)
    monkeypatch.setattr("outrider.service.rollouts.quick.CATCH_UP_S", 0.02)
    served = Served()
    yield served
    served.model.close()


def reason_of(response: OmahaResponse | None) -> str | None:
    check = None if response is None else response.apps[0].update_check
    return check.reason if isinstance(check, NoUpdate) else None


def test_who_is_up_to_date_is_told_so_without_a_transaction(served: Served) -> None:
    request, before = served.known("web-1"), served.etcd.revision

    assert "up to date" == reason_of(served.at_once(request))
    assert before == served.etcd.revision


@pytest.mark.parametrize(
    "what",
    [
        lambda served: served.request("nobody-knows-it", "1.0.0"),
        lambda served: served.request("web-1", "1.0.1"),
        lambda served: served.request("web-1", "1.0.0", OmahaEvent(type=3, result=0, error_code=44)),
        lambda served: served.request("web-1", "1.0.0", OmahaEvent(type=13, result=1)),
        lambda served: replace(served.request("web-1", "1.0.0"), apps=(AppRequest(app_id="none", version="1"),)),
    ],
    ids=["unknown", "another version", "a failure", "a download", "another app"],
)
def test_whatever_is_news_is_decided_by_a_transaction(served: Served, what: Callable[[Served], OmahaRequest]) -> None:
    served.known("web-1")

    assert served.at_once(what(served)) is None


def test_a_grant_is_never_given_at_once(served: Served) -> None:
    request = served.known("web-1")
    served.store.channels.save(APP, "beta", version=NEWEST)
    served.catch_up()

    assert served.at_once(request) is None
    assert reason_of(served.decided(request)) is None  # it is offered
    served.catch_up()
    assert served.at_once(request) is None  # and goes on being offered by a transaction


def test_a_held_instance_is_told_so_while_it_is_in_the_list_as_it_is(served: Served) -> None:
    served.store.channels.save(APP, "beta", version=NEWEST)
    served.store.groups.update(APP, "beta", paused=True)
    served.catch_up()
    request = served.request("web-1", "1.0.0")

    assert served.at_once(request) is None  # it joins the list
    served.known("web-1")
    assert "group is paused" == reason_of(served.at_once(request))


def test_a_verdict_that_depends_on_others_is_decided_by_a_transaction(served: Served) -> None:
    served.store.rollouts.set_policy(APP, "beta", Policy(max_in_progress=1))
    served.store.channels.save(APP, "beta", version=NEWEST)
    served.known("web-1")
    request = served.known("web-2")

    assert served.at_once(request) is None
    assert "1 of 1 in progress" in str(reason_of(served.decided(request)))
    assert "up to date" == reason_of(served.at_once(served.known("web-3", NEWEST)))


def test_who_has_seen_the_target_is_never_answered_from_before_it(served: Served) -> None:
    """
    1. the instance is up to date, and the copy is confirmed
    2. the channel moves; the service's watch is late
    3. the instance has seen the target and asks: the copy doesn't answer, etcd does
    """
    served.known("web-1")
    served.store.channels.save(APP, "beta", version=NEWEST)
    key = served.store.context.keys.target(APP, "beta")
    seen = served.etcd.entries[key].mod_revision
    request = served.request("web-1", "1.0.0", seen_revision=seen)

    assert "up to date" == reason_of(served.at_once(served.request("web-1", "1.0.0")))  # who has seen nothing
    assert served.at_once(request) is None
    assert NEWEST == target_of(served.store).version
    assert reason_of(served.decided(request)) is None


def test_the_own_writes_of_the_process_are_waited_for(served: Served) -> None:
    """Of what the answer depends on: the row of another instance keeps nobody waiting."""
    request, keys = served.known("web-1"), served.store.context.keys
    later = served.etcd.revision + 1

    served.model.note_written(later, [keys.instance(APP, "web-2")])
    assert "up to date" == reason_of(served.at_once(request))
    served.model.note_written(later, [keys.channel(APP, "beta")])
    assert served.at_once(request) is None


def test_a_row_that_was_only_seen_is_written_afterwards(served: Served) -> None:
    """
    1. a minute after its last check-in an instance says the same: it is answered, and nothing is written
    2. the row is written in the background, with all others, unless it was changed meanwhile
    """
    touches = Touches(served.store.context.cluster)
    quick = QuickCheckins(served.checkins, served.model, touches)
    requests = [served.known(f"web-{number}") for number in range(3)]
    served.clock.advance(60)
    served.monotonic = 0.0
    before = served.etcd.revision

    assert served.at_once(requests[0]) is None, "nobody would write that it was seen"
    with touches.running(3600):
        answers = [asyncio.run(quick.answer(request, CALLER)) for request in requests]
        assert ["up to date"] * 3 == [reason_of(answer) for answer in answers]
        assert before == served.etcd.revision
        served.decided(served.request("web-1", "1.5.0"))
        changed = served.etcd.revision
        assert 2 == touches.write()
    assert changed + 1 == served.etcd.revision
    rows = {row.id: row for row in served.store.fleet.instances(APP)}
    assert {served.clock()} == {row.last_seen for row in rows.values()}
    assert "1.5.0" == rows["web-1"].version


def test_a_proof_that_a_group_asks_for_is_looked_at_without_a_transaction_too(served: Served) -> None:
    """
    1. the group asks for proofs; the sidekick of web-1 proves itself, and is answered at once
    2. the same words without its secret, or with another one, are decided by a transaction, which refuses them
    """
    secret, other = "s" * 43, "o" * 43
    served.store.groups.update(APP, "beta", identity="required")
    be_alive(served.store, "web-1", served.clock(), secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
    proved, without, wrong = (replace(CALLER, claim=Claim(secret=each)) for each in (secret, "", other))
    request = served.request("web-1", "1.0.0")
    served.checkins.answer(request, proved)
    served.catch_up()

    def asked(caller: Caller) -> str | None:
        return reason_of(asyncio.run(served.quick.answer(request, caller)))

    assert "up to date" == asked(proved)
    for caller in (without, wrong):
        assert asked(caller) is None
        assert "unproved check-in" in str(reason_of(served.checkins.answer(request, caller)))
        served.catch_up()
        assert asked(caller) is None, "also when it is noted already"
    assert "up to date" == asked(proved)


def test_what_was_seen_in_another_epoch_is_decided_by_etcd(served: Served) -> None:
    served.known("web-1")

    assert served.at_once(served.request("web-1", "1.0.0", seen_revision=1, seen_epoch="another")) is None


def test_a_watch_held_back_for_a_minute_loses_no_result_and_no_announcement(served: Served) -> None:
    served.known("web-1")
    served.store.channels.save(APP, "beta", version=NEWEST)
    late = []
    for _ in range(60):
        served.monotonic += 1.0
        served.model.confirm()
        request = served.request("web-1", "1.0.0")
        late.append(served.at_once(request) is not None)
    failed = OmahaEvent(type=3, result=0, error_code=44)
    assert served.at_once(served.request("web-1", "1.0.0", failed)) is None
    answer = served.decided(served.request("web-1", "1.0.0", failed))

    assert reason_of(answer) is None, "the new target is offered"
    assert not any(late[6:]), "answered from a copy that wasn't confirmed for five seconds"
    row = served.store.context.get(Instance, served.store.context.keys.instance(APP, "web-1"))
    assert row is not None
    assert "3:0" == row.history[-1].event


def test_a_damaged_neighbour_hides_nobody_and_a_damaged_group_is_left_to_etcd(served: Served) -> None:
    request, keys = served.known("web-1"), served.store.context.keys
    put(served.store.context.cluster, keys.instance(APP, "web-2"), b"{damaged")
    put(served.store.context.cluster, keys.presence(APP, "beta", "web-2"), b"{damaged")
    served.catch_up()
    assert "up to date" == reason_of(served.at_once(request))

    put(served.store.context.cluster, keys.group(APP, "beta"), b"{damaged")
    served.catch_up()
    assert served.at_once(request) is None


@pytest.mark.parametrize("seed", range(12))
def test_at_once_or_by_a_transaction_the_answer_is_the_same(served: Served, seed: int) -> None:
    """Random lives of a group: whatever the copy answers, a transaction right after it answers, and changes nothing."""
    chance, answered = random.Random(seed), 0
    store, versions = served.store, ("1.0.0", "1.5.0", NEWEST)
    policies = [Policy(), Policy(percent=50.0), Policy(max_in_progress=1), Policy(min_healthy=1), Policy(enabled=False)]
    changes: list[Callable[[], object]] = [
        lambda: store.channels.save(APP, "beta", version=chance.choice(versions)),
        lambda: store.groups.update(APP, "beta", paused=True),
        lambda: store.groups.update(APP, "beta", paused=False),
        lambda: store.rollouts.set_policy(APP, "beta", chance.choice(policies)),
        lambda: be_alive(store, f"web-{chance.randrange(5)}", served.clock()),
        lambda: served.clock.advance(chance.choice((1, 20, 4000))),
    ]
    for _ in range(60):
        if chance.random() < 0.3:
            chance.choice(changes)()
            served.catch_up()
        codes = chance.choice([()] * 4 + [((3, 2),), ((3, 0),)])
        events = tuple(OmahaEvent(type=kind, result=result) for kind, result in codes)
        request = served.request(f"web-{chance.randrange(5)}", chance.choice(versions), *events)
        quick, before = served.at_once(request), served.etcd.revision
        decided = served.decided(request)
        if quick is not None:
            answered += 1
            assert decided == quick
            assert before == served.etcd.revision, "the transaction had something to write"
        served.catch_up()
    assert answered, "nothing was ever answered at once"


def test_a_sidekick_names_what_it_has_seen_and_foreign_servers_read_on(served: Served) -> None:
    request = served.request("web-1", "1.0.0", seen_revision=42, seen_epoch="t1")

    read = parse_request(render_request(request))
    assert (42, "t1") == (read.seen_revision, read.seen_epoch)
    words = render_request(request).replace(b'seenrevision="42"', b'seenrevision="many"')
    assert 0 == parse_request(words).seen_revision
