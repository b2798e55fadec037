"""The agents' word, as a sidekick takes it: yes, no, or who isn't heard."""

from datetime import UTC, datetime
from typing import Any

import pytest

from outrider.balancers.agent.observer import AgentObserver, Heard, judge
from outrider.etcd.seam import Put
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.documents import WriteGuard, encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from tests.sim.fake_etcd import FakeEtcd

OLD, NEW = "http://127.0.0.1:8085", "http://127.0.0.1:8086"
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
REVISION = 40
BOTH = ("lb-1", "lb-2")


def agent(name: str) -> Agent:
    return Agent(service="hello", name=name, balancer="haproxy", machine="lb", since=NOON)


def applied(name: str = "lb-1", **changed: Any) -> Applied:
    fields: dict[str, Any] = {"epoch": "e1", "revision": REVISION, "serving": (NEW,), "draining": {OLD: 0}}
    return Applied(service="hello", name=name, process="p", at=NOON, **{**fields, **changed})


def heard(*told: Applied, registered: tuple[str, ...] = ("lb-1",), epochs: tuple[str, ...] = ("e0", "e1")) -> Heard:
    return judge(
        {name: agent(name) for name in registered},
        {one.name: one for one in told},
        service="hello",
        revision=REVISION,
        epochs=epochs,
        present=frozenset({NEW}),
        absent=frozenset({OLD}),
    )


def test_an_agent_that_has_applied_the_change_confirms_it() -> None:
    assert Heard(confirmed=True, open_requests=0) == heard(applied())


@pytest.mark.parametrize(
    ("changed", "confirmed", "words"),
    [
        ({"revision": REVISION - 1}, False, "has not applied the change yet"),
        ({"problem": "all slots are taken"}, False, "all slots are taken"),
        ({"serving": (OLD, NEW)}, False, "sends to"),
        ({"serving": ()}, False, "sends to no server"),
        ({"problem": "HAProxy doesn't answer", "away": True}, None, "doesn't answer"),
        ({"epoch": "e-before"}, None, "since it was restored"),
        ({"epoch": ""}, None, "since it was restored"),
    ],
)
def test_anything_else_is_a_no_or_nothing(changed: dict[str, Any], confirmed: bool | None, words: str) -> None:
    told = heard(applied(**changed))

    assert confirmed is told.confirmed
    assert words in told.doubts[0]
    assert told.open_requests is None


def test_an_earlier_token_of_the_same_epoch_counts() -> None:
    assert heard(applied(epoch="e0")).confirmed is True


def test_a_registered_agent_that_does_not_live_is_unknown_and_named() -> None:
    told = heard(applied("lb-1"), registered=BOTH)

    assert told.confirmed is None
    assert told.doubts == (
        "balancer agent lb-2 (haproxy on lb) isn't running: start it, or `outrider balancer-agent remove hello lb-2` if"
        " it is gone for good",
    )


def test_one_no_is_a_no_whoever_is_unknown() -> None:
    assert heard(applied("lb-1", serving=(OLD,)), registered=BOTH).confirmed is False


def test_without_any_agent_nothing_is_known() -> None:
    told = heard(registered=())

    assert told.confirmed is None
    assert "no balancer agent of the service hello is registered" in told.doubts[0]


def test_open_requests_of_all_agents_are_summed_and_one_unknown_makes_all_unknown() -> None:
    one = applied("lb-1", draining={OLD: 1})

    assert 3 == heard(one, applied("lb-2", draining={OLD: 2}), registered=BOTH).open_requests
    assert heard(one, applied("lb-2", draining={OLD: None}), registered=BOTH).open_requests is None


class TestInEtcd:
    def test_what_is_read_is_judged_by_the_guards_revision(self) -> None:
        cluster, keys = FakeEtcd().client(), Keys()
        observer = AgentObserver(cluster, keys, service="hello", server_id="web-1")
        asked: dict[str, Any] = {"present": frozenset({NEW}), "absent": frozenset({OLD})}

        def put(key: str, value: bytes) -> int:
            return cluster.txn((), (Put(key=key, value=value),)).revision

        put(keys.epoch(), encode(Epoch(token="e1", at=NOON)))
        assert observer.confirm(**asked) is None
        assert "is registered" in observer.doubt()
        put(keys.agent("hello", "lb-1"), encode(agent("lb-1")))
        assert observer.confirm(**asked) is None
        written = put(keys.server("hello", "web-1"), encode(WriteGuard(url=NEW)))
        put(keys.applied("hello", "lb-1"), encode(applied(revision=written - 1)))
        assert observer.confirm(**asked) is False
        put(keys.applied("hello", "lb-1"), encode(applied(revision=written, draining={OLD: 7})))

        assert observer.confirm(**asked) is True
        assert "" == observer.doubt()
        assert 7 == observer.open_requests(frozenset({OLD}))

    def test_an_etcd_that_does_not_answer_leaves_it_open(self) -> None:
        cluster = FakeEtcd().client()
        observer = AgentObserver(cluster, Keys(), service="hello", server_id="web-1")
        cluster.cut_off()

        assert observer.confirm(present=frozenset({NEW}), absent=frozenset()) is None
        assert observer.doubt()
