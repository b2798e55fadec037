"""Events of a short while are written together, each once, by any number of recorders. Over an etcd in memory."""

from collections.abc import Callable

import pytest

from outrider.core.errors import Unknown
from outrider.etcd.seam import Put
from outrider.model.activity import Activity, activity_key
from outrider.model.documents import App, encode
from outrider.model.keys import Keys
from outrider.service.history import recorder as recorders
from outrider.service.history.recorder import ActivityRecorder
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON
from tests.support.service_examples import put
from tests.support.waiting import eventually

KEYS = Keys("/outrider/v1")
MANY = 3 * recorders.AT_ONCE


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


def recorder(client: FakeCluster) -> ActivityRecorder:
    return ActivityRecorder(client, KEYS, lambda: NOON)


def began(one: ActivityRecorder, client: FakeCluster) -> ActivityRecorder:
    one.start()
    eventually(lambda: one._watch is not None)
    client.calls.clear()
    return one


def create(client: FakeCluster, number: int) -> None:
    app = App(id=f"app-{number}", label=f"{number}", created=NOON)
    put(client, KEYS.app(app.id), encode(app))


def told(etcd: FakeEtcd) -> list[str]:
    return sorted(key.rpartition("/")[2] for key in etcd.entries if "/activity/" in key)


def event(number: int) -> tuple[Activity, int]:
    return Activity(at=NOON, severity="info", kind="app-created", app=f"app-{number}", text="it was added"), number + 1


def keys_of(events: list[tuple[Activity, int]]) -> list[str]:
    return sorted(activity_key(KEYS, *one).rpartition("/")[2] for one in events)


def test_many_changes_are_told_in_few_transactions(etcd: FakeEtcd) -> None:
    client, operator = etcd.client("service"), etcd.client("operator")
    one = began(recorder(client), client)
    try:
        for number in range(MANY):
            create(operator, number)
        eventually(lambda: len(told(etcd)) == MANY)
    finally:
        one.close()

    assert client.calls.count("txn") < MANY / 2


def test_what_another_has_told_is_left_out_and_the_rest_is_told(etcd: FakeEtcd) -> None:
    events = [event(number) for number in range(10)]
    recorder(etcd.client("one"))._write(tuple(events[::2]))
    before = etcd.revision

    recorder(etcd.client("other"))._write(tuple(events))

    assert (keys_of(events), before + 1) == (told(etcd), etcd.revision)


def test_one_that_is_told_twice_is_written_once(etcd: FakeEtcd) -> None:
    recorder(etcd.client("one"))._write((event(1), event(2), event(1)))

    assert keys_of([event(1), event(2)]) == told(etcd)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_etcd_did_not_answer_is_written_again_until_it_does(
    etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """``after``: it was written, and the answer is lost."""
    monkeypatch.setattr(recorders, "RETRY_MIN_S", 0.01)
    client, operator = etcd.client("service"), etcd.client("operator")
    one = began(recorder(client), client)
    lost: list[str] = []

    def trouble(call: str, when: str) -> None:
        if (call, when) == ("txn", moment) and len(lost) < 3:
            lost.append(call)
            raise Unknown("the answer is lost")

    client.trouble = trouble
    try:
        for number in range(5):
            create(operator, number)
        eventually(lambda: len(told(etcd)) == 5 and len(lost) == 3 and not one._told)
    finally:
        client.trouble = None
        one.close()

    mark = etcd.client("reader").get(one._seen_key)
    assert mark is not None
    assert int(mark.value) >= max(int(key.partition("-")[0], 16) for key in told(etcd))


def test_what_waits_when_it_is_closed_is_written(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "GATHER_S", 60.0)
    client, operator = etcd.client("service"), etcd.client("operator")
    one = began(recorder(client), client)
    for number in range(5):
        create(operator, number)
    eventually(lambda: len(one._told) == 5)

    one.close()

    assert 5 == len(told(etcd))


def test_a_transaction_with_many_webhooks_stays_within_what_etcd_takes(etcd: FakeEtcd) -> None:
    def also() -> Callable[[Activity, str, int], tuple[Put, ...]]:
        return lambda activity, record, lease: tuple(
            Put(key=f"/out/{hook}/{record}", value=b"", lease=lease) for hook in range(30)
        )

    client = etcd.client("service")
    one = ActivityRecorder(client, KEYS, lambda: NOON, also=also)

    one._write(tuple(event(number) for number in range(10)))

    assert (10, 300) == (len(told(etcd)), sum(key.startswith("/out/") for key in etcd.entries))
    assert 4 == client.calls.count("txn")
