"""Which instances take turns together: those of one group, however its app is spelled, or of one named scope (P1)."""

from pathlib import Path

import pytest

from outrider.config.load import load_settings
from outrider.core.errors import ConfigError
from outrider.etcd.seam import Cluster
from outrider.model.documents import Contender
from outrider.model.keys import Keys, group_scope, shared_scope
from outrider.sidekick.assemble import contender as contender_of
from outrider.turns.claim import Queued
from outrider.turns.lock import TurnLock, fence
from outrider.turns.turns import read_contenders, read_scope
from tests.contracts.turns.words import NOON, Start
from tests.support.waiting import eventually

UUID = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"


def configured(folder: Path, name: str, app: str) -> Contender:
    """Who a sidekick is that has this in its settings."""
    path = folder / f"{name}.toml"
    path.write_text(
        f"""
        instance = {{id = "{name}", app = "{app}", group = "web", state_dir = "/x", balancer = "none"}}
        process = {{command = ["./server"]}}
        """
    )
    return contender_of(load_settings((path,), {}).settings)


def test_two_sidekicks_that_spell_the_uuid_in_different_case_take_turns(
    store: Cluster, keys: Keys, start: Start, tmp_path: Path
) -> None:
    """
    1. a has the app's UUID in upper case, b in lower case; the group has one slot
    2. a holds the turn: b stands behind it
    3. a gives it back, and b has it
    """
    a, b = start("a"), start("b")
    for instance, app in ((a, UUID.upper()), (b, UUID)):
        instance.lock.close()
        instance.lock = TurnLock(instance.client, keys, configured(tmp_path, instance.name, app), clock=lambda: NOON)
    a.acquire()
    turn = a.turn()

    b.acquire()

    assert Queued(rank=0, ahead=None, holders=("a",)) == b.place()
    a.lock.release(turn)
    assert (0, turn.scope) == (b.turn().number, b.turn().scope)


def test_an_app_and_a_group_with_dots_have_a_queue_of_their_own(store: Cluster, keys: Keys, start: Start) -> None:
    one, other = start("one", app="a.b", group="c"), start("other", app="a", group="b.c")

    one.acquire()
    other.acquire()

    assert (0, 0) == (one.turn().number, other.turn().number)
    assert ["one"] == list(read_scope(store, keys, group_scope("a.b", "c")).queue)
    assert ["other"] == list(read_scope(store, keys, group_scope("a", "b.c")).queue)
    assert keys.ticket(one.turn().scope, "one") != keys.ticket(other.turn().scope, "one")


def test_a_named_scope_is_shared_by_groups_and_by_nobody_else(store: Cluster, keys: Keys, start: Start) -> None:
    a, b = start("a", shared_scope="eu"), start("b", app="mail", group="mx", shared_scope="eu")
    alone = start("alone", app="eu", group="eu")
    a.acquire()
    a.turn()

    b.acquire()
    alone.acquire()

    assert ("shop/a",) == b.place().holders
    assert group_scope("eu", "eu") == alone.turn().scope


def test_instances_of_two_apps_may_have_the_same_name_in_a_named_scope(
    store: Cluster, keys: Keys, start: Start
) -> None:
    """Both are called like their machine, which is the default."""
    web, mail = start("m1", shared_scope="eu"), start("m1", app="mail", group="mx", shared_scope="eu")
    web.acquire("update-of-web")
    turn = web.turn()
    mail.acquire("update-of-mail")
    assert ("shop/m1",) == mail.place().holders

    held = store.txn(fence(keys, "shop/m1", turn), ()).succeeded
    web.lock.release(turn)

    assert held
    mails = mail.turn()
    assert store.txn(fence(keys, "mail/m1", mails), ()).succeeded
    assert mails == mail.lock.find("update-of-mail")


def test_who_stands_where_is_read_from_what_the_keys_say(store: Cluster, keys: Keys, start: Start) -> None:
    for instance in (start("a"), start("b", app="mail", group="mx", shared_scope="eu")):
        instance.acquire()
        instance.turn()

    groups = read_contenders(store, keys, keys.all_group_turns())
    shared = read_contenders(store, keys, keys.all_shared_turns())

    assert {("shop", "web", "")} == {(one.app, one.group, one.shared_scope) for one in groups.known}
    assert {("mail", "mx", "eu")} == {(one.app, one.group, one.shared_scope) for one in shared.known}
    assert ((), ()) == (groups.strange, shared.strange)


@pytest.mark.parametrize("spelled", [UUID.upper(), "Shop"])
def test_a_key_of_an_app_that_is_not_spelled_canonically_is_a_bug(spelled: str) -> None:
    keys = Keys()

    for build in (
        keys.app, keys.packages, keys.channels, keys.groups, keys.instances, keys.presences, keys.blocks,
        keys.activity, keys.app_turns, lambda app: keys.target(app, "g"), lambda app: keys.command(app, "i"),
        lambda app: keys.wakeup(app, "i"), lambda app: keys.presence(app, "g", "i"), lambda app: group_scope(app, "g"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"not the canonical key .*; apply app_key\(\) first"):
            build(spelled)


@pytest.mark.parametrize("scope", ["shop.web", "turns/shop", "turns/shop/web/x", "turns/Shop", "shared-turns/a/b", ""])
def test_a_scope_that_no_builder_made_is_a_bug(scope: str) -> None:
    for build in (Keys().turns, Keys().queue, Keys().slots, lambda one: Keys().ticket(one, "i")):
        with pytest.raises(ValueError, match="make it with group_scope"):
            build(scope)


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a" * 129])
def test_a_name_that_can_not_be_a_part_of_a_key_makes_no_scope(name: str) -> None:
    for build in (shared_scope, lambda one: group_scope(one, "g"), lambda one: group_scope("a", one)):
        with pytest.raises(ConfigError, match="use 1 to 128"):
            build(name)


def test_what_an_instance_leaves_goes_with_it(store: Cluster, keys: Keys, start: Start) -> None:
    a, b = start("a", shared_scope="eu"), start("b", shared_scope="eu")
    a.acquire()
    a.turn()
    b.acquire()
    b.wait_at(0)

    b.lock.withdraw()
    a.lock.release(a.turn())

    eventually(lambda: not store.list(keys.turns(shared_scope("eu"))).entries)
