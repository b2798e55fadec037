"""``outrider lock``: what an operator types and reads, on a real etcd."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from outrider.cli.common import main
from outrider.cluster.documents import Target, encode
from outrider.cluster.etcd import connect
from outrider.cluster.keys import Keys
from outrider.cluster.lock import fence
from outrider.cluster.seam import Cluster, Put
from tests.contracts.lock.words import SCOPE, Start
from tests.servers import EtcdServer

Outrider = Callable[..., Result]


@pytest.fixture
def store(etcd_server: EtcdServer, no_thread_left: None) -> Iterator[Cluster]:
    """Only the real one: a command opens its own connection."""
    connection = connect(etcd_server.address())
    yield connection
    connection.close()


@pytest.fixture
def outrider_lock(etcd_server: EtcdServer, keys: Keys) -> Outrider:
    def run(*arguments: str, answer: str | None = None) -> Result:
        where = ["--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", keys.prefix]
        return CliRunner().invoke(main, ["lock", *arguments, *where], input=answer)

    return run


def test_show_prints_every_turn_and_then_the_queue_in_order(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    store.txn((), (Put(key=keys.target("shop", "web"), value=encode(Target(version="2.0.0", slots=3))),))
    a, b, y, x = (start(name) for name in "abyx")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()
    for rank, instance in enumerate((y, x)):
        instance.acquire(slots=2)
        instance.wait_at(rank)
    store.revoke(b.lease)

    shown = outrider_lock("show", SCOPE)

    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "SLOT  STATE  INSTANCE  RELEASE  UPDATE       SINCE",
        "0     held   a         2.0.0    update-of-a  2026-11-23T12:00:00Z",
        "1     dirty  b         2.0.0    update-of-b  2026-11-23T12:00:00Z",
        "2     free",
        "",
        "PLACE  INSTANCE  RELEASE  SINCE",
        "0      y         2.0.0    2026-11-23T12:00:00Z",
        "1      x         2.0.0    2026-11-23T12:00:00Z",
    ]


def test_show_as_json_has_the_same_facts(start: Start, outrider_lock: Outrider) -> None:
    """Here no group has the scope: how many slots there are is null, not a guess."""
    a, b = start("a"), start("b")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)

    shown = outrider_lock("show", SCOPE, "--json")

    since = "2026-11-23T12:00:00Z"
    turn = {"slot": 0, "state": "held", "surplus": False, "instance": "a", "release": "2.0.0", "update": "update-of-a"}
    assert json.loads(shown.stdout) == {
        "scope": SCOPE,
        "slots": None,
        "turns": [turn | {"since": since}],
        "queue": [{"place": 0, "instance": "b", "release": "2.0.0", "since": since}],
    }


def test_a_turn_beyond_reduced_slots_is_marked(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a, b = start("a"), start("b")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()

    store.txn((), (Put(key=keys.target("shop", "web"), value=encode(Target(version="2.0.0", slots=1))),))

    assert "1     held (surplus)  b" in outrider_lock("show", SCOPE).stdout


def test_an_unknown_scope_is_said_to_be_unknown(outrider_lock: Outrider) -> None:
    shown = outrider_lock("show", "nobody.here")

    assert shown.stdout == "no turn is taken; how many slots there are is unknown: no group has this scope\n"


def test_release_asks_and_a_no_changes_nothing(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()

    result = outrider_lock("release", SCOPE, "--slot", "0", answer="n\n")

    assert result.exit_code == 1
    assert "its sidekick is alive and in mid-swap" in result.stderr
    assert store.txn(fence(keys, "a", turn), ()).succeeded


def test_release_of_a_dirty_turn_lets_the_next_one_in_and_records_who_did_it(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a, b = start("a"), start("b")
    a.acquire("update-1")
    a.turn()
    b.acquire()
    b.wait_at(0)
    store.revoke(a.lease)

    result = outrider_lock("release", SCOPE, "--slot", "0", "--yes")

    assert (result.exit_code, result.stdout) == (0, "slot 0 of shop.web is free\n")
    assert "dirty, a swaps to 2.0.0 since 2026-11-23T12:00:00Z (update update-1)" in result.stderr
    assert b.turn().number == 0
    (record,) = store.list(keys.activity("shop")).entries
    written = json.loads(record.value)
    assert "@" in written["by"]
    assert ("turn-freed", "web", "a") == (written["kind"], written["group"], written["instance"])
    assert record.lease


def test_release_of_a_free_slot_is_one_clear_line(start: Start, outrider_lock: Outrider) -> None:
    a = start("a")
    a.acquire()
    a.turn()

    result = outrider_lock("release", SCOPE, "--slot", "4", "--yes")

    assert result.exit_code == 1
    assert result.stderr == "Error: not-found: slot 4 of shop.web is free, nothing to release; taken: 0\n"


def test_a_name_that_can_not_be_a_scope_is_refused(outrider_lock: Outrider) -> None:
    result = outrider_lock("show", "a/b")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: config: scope 'a/b': use 1 to 128 letters")
