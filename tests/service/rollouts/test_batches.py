"""Check-ins of one group that wait are committed together. Over an etcd in memory."""

import threading

import pytest

from outrider.core.errors import Throttled, Unknown
from outrider.core.omaha import AppAnswer, AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest
from outrider.core.rollout.policy_settings import Rate
from outrider.model.documents import Instance, encode
from outrider.service.rollouts.batches import MOST
from outrider.service.rollouts.checkins import Checkins
from outrider.service.store.changes import ATTEMPTS
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON
from tests.support.service_examples import APP, open_store, put
from tests.support.service_fleets import CALLER, Fleet
from tests.support.waiting import eventually

Answers = dict[str, AppAnswer | Exception]


def wait_for(checkins: Checkins, name: str, number: int) -> None:
    """The first of them leads, and waits for the lock; the others wait for it."""
    eventually(lambda: checkins.batches.waiting(name) == number)


class Crowd:
    """Check-ins at the same moment: the group lock is held until all of them wait."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def come(self, *requests: AppRequest) -> Answers:
        answers: Answers = {}
        checkins, name = self.fleet.checkins, f"{APP}/beta"

        def one(request: AppRequest) -> None:
            try:
                (answers[request.machine_id],) = checkins.answer(OmahaRequest(apps=(request,)), CALLER).apps
            except Exception as error:  # noqa: BLE001 - each is told what was wrong with its own
                answers[request.machine_id] = error

        threads = [threading.Thread(target=one, args=(request,)) for request in requests]
        with checkins.group_lock.held(name):
            for number, thread in enumerate(threads):
                thread.start()
                wait_for(checkins, name, number + 1)
        for thread in threads:
            thread.join(60)
        return answers


@pytest.fixture
def crowd(fleet: Fleet) -> Crowd:
    return Crowd(fleet)


def check(name: str, version: str = "1.0.0", **facts: object) -> AppRequest:
    words = {"app_id": APP, "version": version, "track": "beta", "machine_id": name, "update_check": True} | facts
    return AppRequest(**words)  # type: ignore[arg-type]


def offered(answers: Answers) -> list[str]:
    return [
        name
        for name, answer in answers.items()
        if isinstance(answer, AppAnswer) and isinstance(answer.update_check, Offer)
    ]


def test_many_first_checks_are_granted_in_few_transactions(crowd: Crowd, client: FakeCluster) -> None:
    client.calls.clear()
    before = crowd.fleet.etcd.revision

    answers = crowd.come(*(check(f"web-{number}") for number in range(2 * MOST)))

    assert 2 * MOST == len(offered(answers)) == len(crowd.fleet.under_way) == crowd.fleet.progress.open.total
    assert 2 == crowd.fleet.etcd.revision - before
    assert 2 == client.calls.count("txn")


@pytest.mark.parametrize(
    "limit", [{"max_in_progress": 3}, {"canary": 3}, {"max_per_interval": Rate(count=3, interval_s=60)}]
)
def test_a_batch_passes_no_limit_and_its_first_come_first(crowd: Crowd, limit: dict[str, object]) -> None:
    crowd.fleet.set(**limit)

    answers = crowd.come(*(check(f"web-{number}") for number in range(10)))

    assert ["web-0", "web-1", "web-2"] == sorted(offered(answers)) == crowd.fleet.under_way
    assert [f"web-{number}" for number in range(3, 10)] == sorted(crowd.fleet.line)
    assert 3 == crowd.fleet.progress.made_lately


def test_a_result_makes_room_for_who_comes_behind_it_in_the_same_batch(crowd: Crowd) -> None:
    crowd.fleet.set(max_in_progress=1)
    crowd.fleet.granted("web-0")
    done = check("web-0", "2.0.0", update_check=False, events=(OmahaEvent(type=3, result=2),))

    answers = crowd.come(check("web-1"), done, check("web-2"), check("web-3"))

    assert ["web-2"] == offered(answers) == crowd.fleet.under_way
    assert 1 == crowd.fleet.progress.succeeded


def test_two_requests_of_one_instance_in_a_batch_both_count(crowd: Crowd) -> None:
    """A change doesn't read what it writes; so the second is judged after the first is committed."""
    crowd.fleet.granted("web-1")
    began = check("web-1", update_check=False, events=(OmahaEvent(type=13, result=1),))
    loaded = check("web-1", update_check=False, events=(OmahaEvent(type=14, result=1),))

    crowd.come(began, check("web-2"), loaded)

    assert ["13:1", "14:1"] == [line.event for line in crowd.fleet.row("web-1").history]
    assert ["web-1", "web-2"] == crowd.fleet.under_way


def test_a_failure_that_halts_the_rollout_holds_back_who_comes_behind_it(crowd: Crowd) -> None:
    crowd.fleet.set(max_failures=1)
    crowd.fleet.granted("web-0")
    failed = check("web-0", update_check=False, events=(OmahaEvent(type=3, result=0, error_code=44),))

    answers = crowd.come(check("web-1"), failed, check("web-2"))

    held = answers["web-2"]
    assert isinstance(held, AppAnswer)
    assert isinstance(held.update_check, NoUpdate)
    assert held.update_check.reason.startswith("rollout of 2.0.0 is halted")
    assert (["web-1"], "halted") == (offered(answers), crowd.fleet.progress.state)


def test_a_rival_that_wrote_one_row_sends_the_others_back_once(
    crowd: Crowd, client: FakeCluster, fake_etcd: FakeEtcd
) -> None:
    """
    1. five check in; each time that the transaction is about to be made, another process writes the row of web-2
    2. the others lose one race, not as many as web-2
    """
    context = open_store(fake_etcd.client("rival"), now=crowd.fleet.clock).context
    told: list[int] = []

    def write_the_row(name: str, moment: str) -> None:
        if name == "txn" and moment == "before" and len(told) < 4:
            told.append(len(crowd.fleet.under_way))
            row = Instance(
                app=APP,
                id="web-2",
                group="beta",
                version="1.0.0",
                alias=f"{len(told)}",
                first_seen=NOON,
                last_seen=NOON,
            )
            put(context.cluster, context.keys.instance(APP, "web-2"), encode(row))

    client.trouble = write_the_row
    answers = crowd.come(*(check(f"web-{number}") for number in range(5)))
    client.trouble = None

    assert 5 == len(offered(answers)) == crowd.fleet.progress.open.total
    assert [0, 0, 4, 4] == told


def test_one_that_is_refused_takes_no_other_along(fleet: Fleet) -> None:
    class Full:
        def take(self, app: str, group: str, *, is_stranger: bool) -> None:
            raise Throttled("the group is full", retry_after_s=30)

    fleet.granted("web-0")
    fleet.checkins = Checkins(context=fleet.store.context, room=Full())  # type: ignore[arg-type]

    answers = Crowd(fleet).come(check("web-1"), check("web-0"), check("web-2"))

    assert (["web-0"], ["web-0"]) == (offered(answers), fleet.under_way)
    assert {"web-1", "web-2"} == {name for name, one in answers.items() if isinstance(one, Throttled)}


def test_an_etcd_that_is_away_is_said_to_all_at_once(crowd: Crowd, client: FakeCluster) -> None:
    client.cut_off()
    client.calls.clear()
    answers = crowd.come(*(check(f"web-{number}") for number in range(5)))
    calls = len(client.calls)
    client.mend()

    assert 5 == len(answers)
    assert all(isinstance(one, Unknown) for one in answers.values())
    assert calls < ATTEMPTS
