"""``outrider lock``: what an operator types and reads, on a real etcd."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from outrider.cli.main import main
from outrider.core.rollout.budgets import Budget
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import Presence, Target, encode
from outrider.model.keys import Keys, shared_scope
from outrider.turns.lock import fence
from tests.contracts.turns.words import APP, GROUP, NOON, Start, contender
from tests.support.servers import EtcdServer

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

    shown = outrider_lock("show", APP, GROUP)

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

    shown = outrider_lock("show", APP, GROUP, "--json")

    since = "2026-11-23T12:00:00Z"
    turn = {"slot": 0, "state": "held", "surplus": False, "instance": "a", "release": "2.0.0", "update": "update-of-a"}
    assert json.loads(shown.stdout) == {
        "app": APP,
        "group": GROUP,
        "scope": None,
        "slots": None,
        "turns": [turn | {"since": since, "why": None}],
        "queue": [{"place": 0, "instance": "b", "release": "2.0.0", "since": since, "held": None}],
        "budgets": {},
    }


def test_a_turn_beyond_reduced_slots_is_marked(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a, b = start("a"), start("b")
    for instance in (a, b):
        instance.acquire(slots=2)
        instance.turn()

    store.txn((), (Put(key=keys.target("shop", "web"), value=encode(Target(version="2.0.0", slots=1))),))

    assert "1     held (surplus)  b" in outrider_lock("show", APP, GROUP).stdout


def test_an_unknown_scope_is_said_to_be_unknown(outrider_lock: Outrider) -> None:
    for words, named in (
        (("nobody", "here"), "nobody here"),
        ((APP, "elsewhere"), f"{APP} elsewhere"),
        (("--scope", "nothing"), "scope nothing"),
    ):
        shown = outrider_lock("show", *words)

        assert 1 == shown.exit_code
        assert f"Error: {named}: no such scope; `outrider lock list` shows all scopes in use\n" == shown.stderr
        assert "" == shown.stdout


def test_release_asks_and_a_no_changes_nothing(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a = start("a")
    a.acquire()
    turn = a.turn()

    result = outrider_lock("release", APP, GROUP, "--slot", "0", answer="n\n")

    assert result.exit_code == 1
    assert "the sidekick is alive and swapping" in result.stderr
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

    result = outrider_lock("release", APP, GROUP, "--slot", "0", "--yes")

    assert (result.exit_code, result.stdout) == (0, "slot 0 of shop web is free\n")
    assert "dirty; a swaps to 2.0.0 since 2026-11-23T12:00:00Z (update update-1)" in result.stderr
    assert b.turn().number == 0
    (record,) = store.list(keys.activity("shop")).entries
    written = json.loads(record.value)
    assert "@" in written["by"]
    assert ("turn-freed", "web", "a") == (written["kind"], written["group"], written["instance"])
    assert record.lease


def test_show_names_the_cause_of_a_dirty_turn_whose_sidekick_lives(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a = start("a")
    a.acquire("update-1")
    a.turn()
    a.lock.suspend("update-1")
    living = Presence(
        instance="a", app=APP, group=GROUP, state="rollback.reverting", version="1.0.0", since=NOON,
        why="1.0.0 is being started again: out of memory",
    )  # fmt: skip
    store.txn((), (Put(key=keys.presence(APP, GROUP, "a"), value=encode(living)),))

    shown = outrider_lock("show", APP, GROUP).stdout
    (turn,) = json.loads(outrider_lock("show", APP, GROUP, "--json").stdout)["turns"]

    assert "0     dirty  a         2.0.0    update-1" in shown
    assert "slot 0 is dirty: a: 1.0.0 is being started again: out of memory" in shown
    assert "a: 1.0.0 is being started again: out of memory" == turn["why"]


def test_show_names_the_budgets_that_are_taken_and_whom_they_hold(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    target = Target(version="2.0.0", slots=2, budgets=(Budget(label="rack", max_out=1),))
    store.txn((), (Put(key=keys.target(APP, GROUP), value=encode(target)),))
    a, b = (start(name, labels={"rack": "3"}) for name in ("a", "b"))
    a.acquire(slots=2)
    a.turn()
    b.acquire(slots=2)
    b.place()

    shown = outrider_lock("show", APP, GROUP).stdout
    facts = json.loads(outrider_lock("show", APP, GROUP, "--json").stdout)

    assert "rack=3  a" in shown
    assert "budget rack=3: 1 of 1 out (a)" in shown
    assert {"rack=3": ["a"]} == facts["budgets"]
    assert ["budget rack=3: 1 of 1 out (a)"] == [one["held"] for one in facts["queue"]]


def test_release_of_a_free_slot_is_one_clear_line(start: Start, outrider_lock: Outrider) -> None:
    a = start("a")
    a.acquire()
    a.turn()

    result = outrider_lock("release", APP, GROUP, "--slot", "4", "--yes")

    assert result.exit_code == 1
    assert result.stderr == "Error: slot 4 of shop web is free, so there is nothing to release; taken slots: 0\n"


WORDS = "use 1 to 128 letters, digits or . _ + @ : - and begin with a letter or a digit"


@pytest.mark.parametrize("command", [("show",), ("release", "--slot", "0", "--yes")])
@pytest.mark.parametrize(
    ("named", "line"),
    [
        ((), "give APP/GROUP, or --scope NAME; `outrider lock list` shows all scopes in use"),
        (
            ("shop.web",),
            "app 'shop.web': the group is missing, write shop.web/GROUP; for a shared scope write --scope shop.web",
        ),
        (
            ("shop", "web", "--scope", "eu"),
            "--scope eu and 'shop' exclude each other: leave out one of them",
        ),
        (("a/b", "web"), f"app 'a/b': {WORDS}"),
        (("a", "b/c"), f"group 'b/c': {WORDS}"),
        (
            ("--scope", "a/b"),
            "scope 'a/b': use 1 to 128 letters, digits or . _ + @ : - and begin with a letter or a digit",
        ),
        (("--scope", ""), f"scope '': {WORDS}"),
    ],
)
def test_a_scope_that_is_named_wrongly_is_one_clear_line(
    outrider_lock: Outrider, command: tuple[str, ...], named: tuple[str, ...], line: str
) -> None:
    result = outrider_lock(command[0], *named, *command[1:])

    assert (1, f"Error: {line}\n") == (result.exit_code, result.stderr)


def test_the_case_of_an_apps_name_does_not_count(start: Start, outrider_lock: Outrider) -> None:
    a = start("a")
    a.acquire()
    a.turn()

    assert "held   a" in outrider_lock("show", "{SHOP}", GROUP).stdout


def test_a_shared_scope_is_shown_and_released_by_its_name(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    """
    1. two groups stand in the scope eu: one allows 1 turn at once, the other 2, which only a presence tells
    2. a turn is dirty; an operator releases it
    """
    targets = {keys.target(APP, GROUP): 1, keys.target("mail", "mx"): 2}
    store.txn((), tuple(Put(key=key, value=encode(Target(version="2", slots=n))) for key, n in targets.items()))
    alive = Presence(instance="m", app="mail", group="mx", state="idle", version="1", since=NOON, shared_scope="eu")
    store.txn((), (Put(key=keys.presence("mail", "mx", "m"), value=encode(alive)),))
    a, b = start("a", shared_scope="eu"), start("b", app="mail", group="mx", shared_scope="eu")
    a.acquire("update-1")
    a.turn()
    b.acquire()
    b.wait_at(0)
    store.revoke(a.lease)

    shown = outrider_lock("show", "--scope", "eu")
    facts = json.loads(outrider_lock("show", "--scope", "eu", "--json").stdout)
    freed = outrider_lock("release", "--scope", "eu", "--slot", "0", "--yes")

    assert shown.stdout.splitlines() == [
        "SLOT  STATE  INSTANCE  RELEASE  UPDATE    SINCE",
        "0     dirty  shop/a    2.0.0    update-1  2026-11-23T12:00:00Z",
        "1     free",
        "",
        "PLACE  INSTANCE  RELEASE  SINCE",
        "0      mail/b    2.0.0    2026-11-23T12:00:00Z",
    ]
    assert ("eu", None, 2) == (facts["scope"], facts["app"], facts["slots"])
    assert "slot 0 of scope eu is free\n" == freed.stdout
    assert b.turn().number == 0
    (record,) = store.list(keys.activity(APP)).entries
    written = json.loads(record.value)
    assert ("web", "a", "eu") == (written["group"], written["instance"], written["facts"]["scope"])
    assert "turn 0 of scope eu was taken from a by an operator" == written["text"]


def test_every_scope_with_turns_or_waiters_is_listed(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    a, b, c = start("a"), start("b"), start("c", app="mail", group="m.x", shared_scope="eu")
    for instance in (a, c):
        instance.acquire()
        instance.turn()
    b.acquire()
    b.wait_at(0)
    store.revoke(c.lease)

    listed, facts = outrider_lock("list"), json.loads(outrider_lock("list", "--json").stdout)

    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["APP", "GROUP", "SCOPE", "HELD", "DIRTY", "WAITING"],
        ["shop", "web", "1", "0", "1"],
        ["eu", "0", "1", "0"],
    ]
    assert facts == [
        {"app": "shop", "group": "web", "scope": None, "held": 1, "dirty": 0, "waiting": 1},
        {"app": None, "group": None, "scope": "eu", "held": 0, "dirty": 1, "waiting": 0},
    ]


def test_a_key_that_says_of_nobody_is_named_and_does_not_hide_the_others(
    store: Cluster, keys: Keys, start: Start, outrider_lock: Outrider
) -> None:
    """One key says nothing; the other lies in another scope than it says."""
    a = start("a")
    a.acquire()
    a.turn()
    broken, moved = keys.slot(shared_scope("us"), 0, "x"), keys.slot(shared_scope("asia"), 0, "x")
    astray = encode(contender("x").slot(release="1", since=NOON, update="u"))
    store.txn((), (Put(key=broken, value=b"{}"), Put(key=moved, value=astray)))

    listed = outrider_lock("list")

    assert (0, 2) == (listed.exit_code, len(listed.stdout.splitlines()))
    assert [moved, broken] == [line.partition(": ")[0] for line in listed.stderr.splitlines()]
