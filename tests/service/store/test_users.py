"""Users as they are stored, and as a service process knows them."""

import hashlib
import threading

import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound, Unknown
from outrider.model.documents import User, encode
from outrider.service.store.store import Store
from outrider.service.store.users import KnownUsers
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import WallClock
from tests.support.service_examples import open_store, put
from tests.support.waiting import eventually


@pytest.fixture
def known(client: FakeCluster, store: Store) -> KnownUsers:
    return KnownUsers(client, store.context.keys)


def test_a_token_is_given_once_and_only_its_digest_is_stored(store: Store, fake_etcd: FakeEtcd) -> None:
    made = store.users.begin("ann")

    stored = b"".join(entry.value for entry in fake_etcd.entries.values())
    assert made.token.startswith("or_")
    assert 32 <= len(made.token) - len("or_")
    assert made.token.encode() not in stored
    assert hashlib.sha256(made.token.encode()).hexdigest().encode() in stored
    assert made.token[-4:] == store.users.get("ann").token_end


def test_two_tokens_are_never_the_same(store: Store) -> None:
    store.users.begin("ann")

    assert 20 == len({store.users.create("ann").token for _ in range(20)})


def test_the_first_user_is_an_admin_and_there_is_only_one_first(store: Store) -> None:
    assert "admin" == store.users.begin("ann").user.role

    with pytest.raises(Conflict, match="ann"):
        store.users.begin("bob")


def test_a_new_token_keeps_role_and_birthday(store: Store, clock: WallClock) -> None:
    first = store.users.begin("ann").user
    store.users.create("bob", "viewer")
    clock.advance(60)

    again = store.users.create("bob")

    assert (False, "viewer") == (again.created, again.user.role)
    assert (first.created, clock.time) == (again.user.created, again.user.token_created)


def test_who_is_made_without_a_role_is_an_operator(store: Store) -> None:
    store.users.begin("ann")

    assert "operator" == store.users.create("bob").user.role


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_the_last_admin_stays_one(store: Store, role: str) -> None:
    with pytest.raises(Conflict, match="is the last admin"):
        store.users.create("ann", role)  # type: ignore[arg-type]
    store.users.begin("ann")
    with pytest.raises(Conflict, match="is the last admin"):
        store.users.create("ann", role)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="is the last admin"):
        store.users.delete("ann")

    assert "admin" == store.users.get("ann").role


def test_two_admins_who_remove_each_other_at_once_leave_one(
    store: Store, fake_etcd: FakeEtcd, clock: WallClock
) -> None:
    """Whatever the interleaving: the second to commit finds that the admin it counted on is gone."""
    other = open_store(fake_etcd.client("other"), now=clock)
    for _ in range(50):
        for name in ("ann", "bob"):
            store.users.create(name, "admin")
        start = threading.Barrier(2)

        def remove(users: Store, name: str, start: threading.Barrier = start) -> None:
            start.wait(60)
            try:
                users.users.delete(name)
            except (Conflict, NotFound):
                return

        threads = [threading.Thread(target=remove, args=each) for each in ((store, "ann"), (other, "bob"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 1 == len(store.users.list())


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "-a", "x" * 65, "a b", "\n"])
def test_a_name_that_would_not_fit_everywhere_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="user"):
        store.users.create(name, "admin")


def test_an_absent_user_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="'bob'"):
        store.users.get("bob")
    with pytest.raises(NotFound, match="'bob'"):
        store.users.delete("bob")


def test_a_token_is_known_by_itself(store: Store, known: KnownUsers) -> None:
    ann, bob = store.users.begin("ann"), store.users.create("bob", "viewer")
    known.load()

    assert ["ann", "bob"] == [user.name if (user := known.of_token(made.token)) else None for made in (ann, bob)]
    for wrong in ("", ann.token[:-1], ann.token + "x", ann.user.token_sha256, "\udcff"):
        assert known.of_token(wrong) is None


def test_changes_reach_a_running_service_without_another_read(store: Store, known: KnownUsers) -> None:
    ann = store.users.begin("ann")
    known.load()
    bob = store.users.create("bob", "viewer")
    eventually(lambda: known.of_token(bob.token))
    newer = store.users.create("bob")
    eventually(lambda: known.of_token(newer.token))
    store.users.delete("bob")
    eventually(lambda: "bob" not in known.all())

    assert known.of_token(bob.token) is None
    assert known.of_token(newer.token) is None
    assert known.of_token(ann.token) is not None


def test_a_token_that_was_revoked_while_the_service_was_cut_off_ends_with_the_cut(
    fake_etcd: FakeEtcd, client: FakeCluster, known: KnownUsers, clock: WallClock
) -> None:
    elsewhere = open_store(fake_etcd.client("elsewhere"), now=clock)
    elsewhere.users.begin("ann")
    bob = elsewhere.users.create("bob")
    known.load()
    client.cut_off()
    elsewhere.users.delete("bob")
    fake_etcd.compact()  # what was missed can't be told change by change any more

    client.mend()

    eventually(lambda: known.of_token(bob.token) is None)


def test_users_that_could_not_be_read_are_read_later(client: FakeCluster, store: Store, known: KnownUsers) -> None:
    ann = store.users.begin("ann")
    client.cut_off()
    with pytest.raises(Unknown):
        known.load()
    assert not known.loaded
    client.mend()

    known.load()

    assert known.of_token(ann.token) is not None


def test_a_user_that_a_newer_outrider_wrote_is_not_let_in_and_harms_nobody(
    client: FakeCluster, store: Store, known: KnownUsers
) -> None:
    ann = store.users.begin("ann")
    stored = store.users.create("bob").user
    newer = User(**{name: getattr(stored, name) for name in stored.__struct_fields__} | {"schema": 99})
    put(client, store.context.keys.user("bob"), encode(newer))

    known.load()

    assert ["ann"] == list(known.all())
    assert known.of_token(ann.token) is not None
