"""An upstream that all servers share: whoever writes at the same moment, no server is lost."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.balancers import Server
from outrider.balancers.apisix import ApisixSettings, ApisixUpstream
from outrider.balancers.entry import Changed, Fenced, Occupied
from outrider.balancers.shared import TRIES, SharedEntry
from outrider.balancers.takeover import Pool
from outrider.core.errors import Refused, Unknown
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Delete, Op, Put, TxnResult
from outrider.model.documents import Owner, WriteGuard, decode
from outrider.model.keys import Keys
from tests.sim.fake_etcd import FakeCluster, FakeEtcd

KEY, KEYS = "/apisix/upstreams/hello", Keys()
OLD, NEW = "http://127.0.0.1:8085", "http://127.0.0.1:8086"
SLOT = "/outrider/v1/turns/hello/g/slots/0/web-1"
IDS = ("web-1", "web-2", "web-3")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeEtcd().client()


def upstream(weight: int = 1) -> ApisixUpstream:
    return ApisixUpstream(ApisixSettings(weight=weight), service="hello")


def entry_of(cluster: Cluster, server_id: str = "web-1") -> SharedEntry:
    owner = Owner(app="hello", group="g", instance=server_id, process=f"p-{server_id}")
    return SharedEntry(cluster, upstream(), service="hello", server_id=server_id, owner=owner)


def take_turn(cluster: Cluster) -> tuple[CreatedAt, ...]:
    cluster.txn((), (Put(key=SLOT, value=b"mine"),))
    entry = cluster.get(SLOT)
    assert entry is not None
    return (CreatedAt(key=SLOT, revision=entry.create_revision),)


def servers(cluster: Cluster) -> dict[str, str]:
    entry = cluster.get(KEY)
    return {} if entry is None else upstream().servers(entry.value)


def told(cluster: Cluster) -> dict[str, object]:
    entry = cluster.get(KEY)
    assert entry is not None
    found: dict[str, object] = json.loads(entry.value)
    return found


class Meeting:
    """Hands on to a cluster; before each of its calls, something else may happen, or an answer be lost."""

    def __init__(self, cluster: FakeCluster, before: Callable[[str], str]) -> None:
        self._cluster, self._before = cluster, before

    def get(self, key: str) -> object:
        self._before("get")
        return self._cluster.get(key)

    def list(self, prefix: str, *, exact: bool = False) -> object:
        self._before("list")
        return self._cluster.list(prefix, exact=exact)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        lost = self._before("txn")
        if lost == "request":
            raise Unknown("no answer")
        result = self._cluster.txn(compares, ops)
        if lost == "answer":
            raise Unknown("no answer")
        return result


WRITES = st.lists(
    st.tuples(st.sampled_from(IDS[1:]), st.sampled_from(["join", "switch", "leave"]), st.integers(8000, 8003)),
    max_size=12,
)


@given(
    mine=st.lists(
        st.tuples(st.sampled_from(["join", "switch", "leave"]), st.integers(9000, 9003)), min_size=1, max_size=4
    ),
    others=WRITES,
    moments=st.lists(st.sampled_from(["", "", "other", "other", "request", "answer"]), max_size=40),
)
def test_whoever_writes_in_between_no_server_is_lost_and_each_is_where_it_was_put_last(
    mine: list[tuple[str, int]], others: list[tuple[str, str, int]], moments: list[str]
) -> None:
    """Two other instances write at any moment between the calls of ours, and answers are lost on the way."""
    cluster = FakeEtcd().client()
    fence = take_turn(cluster)
    wanted: dict[str, str] = {}
    left, row = iter(others), iter(moments)

    def write(entry: SharedEntry, verb: str, url: str) -> None:
        match verb:
            case "join":
                entry.join(url, replacing=[f"http://127.0.0.1:{port}" for port in range(8000, 9004)])
            case "switch":
                entry.switch(url, fence=fence)
            case _:
                entry.leave(fence=fence)

    def keep(server_id: str, verb: str, url: str) -> None:
        if verb == "leave":
            wanted.pop(server_id, None)
        else:
            wanted[server_id] = url

    def between(_: str) -> str:
        moment = next(row, "")
        if moment == "other" and (write_of := next(left, None)) is not None:
            server_id, verb, port = write_of
            url = f"http://127.0.0.1:{port}" if server_id == "web-2" else f"http://127.0.0.2:{port}"
            entry = SharedEntry(cluster, upstream(), service="hello", server_id=server_id)
            write(entry, "switch" if verb == "join" else verb, url)
            keep(server_id, verb, url)
        return moment

    entry = entry_of(Meeting(cluster, between))  # type: ignore[arg-type]
    for verb, port in mine:
        url = f"http://127.0.0.1:{port}"
        for _ in range(50):  # as the chart does when it isn't known whether it was written
            try:
                write(entry, verb, url)
                break
            except Unknown:
                continue
        keep("web-1", verb, url)

        assert wanted == servers(cluster)


def test_a_row_of_writes_without_an_end_is_given_up_and_changes_nothing(cluster: FakeCluster) -> None:
    entry_of(cluster, "web-2").join(OLD)
    ports = iter(range(20_000, 30_000))
    calls = []

    def between(call: str) -> str:
        if call == "txn":
            calls.append(call)
            other = SharedEntry(cluster, upstream(), service="hello", server_id="web-2")
            other.switch(f"http://127.0.0.1:{next(ports)}", fence=take_turn(cluster))
        return ""

    with pytest.raises(Changed, match="was changed while we wrote it; try again"):
        entry_of(Meeting(cluster, between)).join(NEW)  # type: ignore[arg-type]

    assert TRIES == len(calls)
    assert ["web-2"] == list(servers(cluster))


def test_a_sidekick_whose_turn_has_ended_changes_nothing_however_often_it_reads_again(cluster: FakeCluster) -> None:
    entry_of(cluster).join(OLD)
    fence = take_turn(cluster)

    def between(call: str) -> str:
        if call == "txn":
            cluster.txn((), (Delete(key=SLOT),))
            entry_of(cluster, "web-2").join("http://127.0.0.2:1")
        return ""

    late = entry_of(Meeting(cluster, between))  # type: ignore[arg-type]
    with pytest.raises(Fenced, match="turn has ended"):
        late.switch(NEW, fence=fence)
    with pytest.raises(Fenced, match="turn has ended"):
        late.leave(fence=fence)

    assert {"web-1": OLD, "web-2": "http://127.0.0.2:1"} == servers(cluster)


def test_what_the_operator_has_written_stays(cluster: FakeCluster) -> None:
    """An upstream of the form that the Admin API's examples have: nodes by address, without marks."""
    by_hand = {
        "id": "hello", "type": "chash", "key": "remote_addr", "checks": {"active": {"http_path": "/health"}},
        "nodes": {"10.0.0.9:80": 3, "127.0.0.1:8085": 5},
    }  # fmt: skip
    cluster.txn((), (Put(key=KEY, value=json.dumps(by_hand).encode()),))
    entry = entry_of(cluster)

    entry.join(OLD)
    entry.switch(NEW, fence=take_turn(cluster))

    mark = {"outrider_server": "web-1"}
    assert {
        **by_hand,
        "nodes": [
            {"host": "10.0.0.9", "port": 80, "weight": 3},
            {"host": "127.0.0.1", "port": 8086, "weight": 5, "metadata": mark},
        ],
    } == told(cluster)
    entry.leave(fence=take_turn(cluster))
    assert [{"host": "10.0.0.9", "port": 80, "weight": 3}] == told(cluster)["nodes"]
    assert entry.current() is None


def test_the_first_server_makes_the_upstream_and_a_repeated_write_nothing_to_notice(cluster: FakeCluster) -> None:
    entry = entry_of(cluster)
    entry.join("http://[::1]:8085")
    made = cluster.get(KEY)

    entry.join("http://[::1]:8085")

    assert made is not None
    assert made == cluster.get(KEY)
    assert ("hello", "roundrobin") == (told(cluster)["id"], told(cluster)["type"])
    assert "http://[::1]:8085" == entry.current()
    guard = cluster.get(KEYS.server("hello", "web-1"))
    assert guard is not None
    found = decode(WriteGuard, guard.key, guard.value)
    assert ("", KEY) == (found.prefix, found.shared), "nobody may remove the upstream with the instance"


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"nodes":{}}', b'{"type":"roundrobin","nodes":[1]}'])
def test_an_upstream_that_can_not_be_read_is_left_alone(cluster: FakeCluster, value: bytes) -> None:
    cluster.txn((), (Put(key=KEY, value=value),))
    entry, fence = entry_of(cluster), take_turn(cluster)

    assert entry.current() is None
    writes: list[Callable[[], object]] = [
        lambda: entry.join(OLD),
        lambda: entry.switch(OLD, fence=fence),
        lambda: entry.leave(fence=fence),
    ]
    for write in writes:
        with pytest.raises(Refused, match="is no upstream of APISIX that can be read"):
            write()

    assert value == getattr(cluster.get(KEY), "value", None)


def test_a_server_that_runs_already_is_adopted_with_its_node(cluster: FakeCluster) -> None:
    value = {"id": "hello", "type": "roundrobin", "nodes": {"127.0.0.1:8085": 1, "127.0.0.1:8086": 1}}
    cluster.txn((), (Put(key=KEY, value=json.dumps(value).encode()),))
    owner = Owner(app="hello", group="g", instance="web-1", process="p")
    pool = Pool(cluster, entry_of(cluster), service="hello", server_id="web-1", keys=KEYS, owner=owner)

    assert OLD == pool.take_over(OLD, workload="w-1")
    assert {"web-1": OLD, NEW: NEW} == servers(cluster)

    assert "web-1" == pool.take_over(OLD, workload="w-1")
    entry_of(cluster, "web-2").switch(NEW, fence=take_turn(cluster))
    other = Pool(cluster, entry_of(cluster, "web-3"), service="hello", server_id="web-3", keys=KEYS, owner=owner)
    with pytest.raises(Occupied, match="is that of server web-2"):
        other.take_over(NEW, workload="w-3")


def test_a_weight_is_the_settings_unless_somebody_gave_another() -> None:
    made = upstream(weight=7).with_server(None, Server(service="hello", id="web-1", url=OLD))

    assert 7 == json.loads(made)["nodes"][0]["weight"]
    changed = made.replace(b'"weight":7', b'"weight":2')
    assert (
        2
        == json.loads(upstream(weight=7).with_server(changed, Server(service="hello", id="web-1", url=NEW)))["nodes"][
            0
        ]["weight"]
    )
