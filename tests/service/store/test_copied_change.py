"""A change that reads this process's copy of etcd, and compares what it read."""

from collections.abc import Iterator

import pytest

from outrider.etcd.seam import Delete, DeletePrefix, Op, Put
from outrider.model.documents import App, encode
from outrider.model.keys import Keys
from outrider.service.store import read_model
from outrider.service.store.changes import Unaudited
from outrider.service.store.copied_change import CopiedChange
from outrider.service.store.read_model import Behind, NotingCluster, ReadModel
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service import NOON
from tests.support.service_examples import put

KEYS, WHY = Keys("/outrider/v1"), Unaudited("a test")
ONE, OTHER = KEYS.app("one"), KEYS.app("other")


def app(label: str) -> App:
    return App(id="one", label=label, created=NOON)


class Copied:
    """A process whose watch a test holds in its hands, and another one that writes behind its back."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd(threaded=False)
        self.cluster = NotingCluster(self.etcd.client("service"))
        self.rival = self.etcd.client("rival")
        self.model = self.cluster.model = ReadModel(self.cluster, KEYS)
        put(self.rival, ONE, encode(app("first")))
        self.model.begin()
        self.model.confirm()

    def change(self) -> CopiedChange:
        return CopiedChange(self.cluster, self.model)

    def relabel(self, label: str, key: str = ONE) -> bool:
        change = self.change()
        change.read(App, key)
        change.put(key, app(label))
        return change.commit(WHY)

    @property
    def label(self) -> str:
        found = self.change().read(App, ONE)
        assert found is not None
        return found.label


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Copied]:
    monkeypatch.setattr(read_model, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(read_model, "MARKED_S", 0.0)
    copied = Copied()
    yield copied
    copied.model.close()


def test_one_change_follows_another_though_the_watch_has_brought_nothing(copied: Copied) -> None:
    before = copied.etcd.revision

    assert copied.relabel("second")
    assert copied.relabel("third")
    assert copied.relabel("new", OTHER)
    assert copied.relabel("newer", OTHER)

    assert ("third", before + 4) == (copied.label, copied.etcd.revision)
    copied.etcd.settle()
    assert "third" == copied.label
    assert copied.relabel("fourth")


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "only looks"])
def test_a_copy_that_is_behind_makes_it_fail_and_names_what_has_moved(copied: Copied, writes: bool) -> None:
    put(copied.rival, ONE, encode(app("the rival's")))

    change = copied.change()
    change.fetch(OTHER, only_existing=(ONE,))
    assert app("first") == change.read(App, ONE)
    change = copied.change()
    change.read(App, ONE)
    if writes:
        change.put(OTHER, app("other"))

    assert not change.commit(WHY)
    assert (frozenset({ONE}), None) == (change.moved, copied.rival.get(OTHER))


def test_of_a_key_whose_value_does_not_matter_only_creation_and_removal_count(copied: Copied) -> None:
    change = copied.change()
    change.fetch(only_existing=(ONE,))
    change.put(OTHER, app("other"))
    put(copied.rival, ONE, encode(app("the rival's")))
    assert change.commit(WHY)

    change = copied.change()
    change.fetch(only_existing=(ONE,))
    change.delete(OTHER)
    copied.rival.txn((), (Delete(key=ONE),))
    assert not change.commit(WHY)


def test_what_this_process_removed_is_gone_for_it_at_once(copied: Copied) -> None:
    assert copied.relabel("new", OTHER)
    change = copied.change()
    change.read(App, OTHER)
    change.delete(OTHER)
    assert change.commit(WHY)

    assert copied.change().read(App, OTHER) is None
    assert copied.relabel("again", OTHER)


def test_a_list_has_what_this_process_wrote_once_before_and_after_the_watch_brings_it(copied: Copied) -> None:
    copied.relabel("second")
    copied.relabel("new", OTHER)

    for _ in range(2):
        found = copied.change().list(KEYS.apps()).entries
        assert [ONE, OTHER] == [entry.key for entry in found]
        assert found == copied.rival.list(KEYS.apps()).entries
        copied.etcd.settle()


@pytest.mark.parametrize("op", [Put(key=ONE, value=b"{}"), Delete(key=ONE), DeletePrefix(prefix=KEYS.apps())])
def test_what_was_not_decided_over_the_copy_is_not_mixed_with_it(copied: Copied, op: Op) -> None:
    """It may have been decided by what the copy doesn't have."""
    copied.relabel("second")
    copied.cluster.txn((), (op,))

    with pytest.raises(Behind):
        copied.change().read(App, ONE)
    with pytest.raises(Behind):
        copied.change().fetch(only_existing=(ONE,))
    copied.etcd.settle()
    assert copied.rival.get(ONE) == copied.model.ahead.get(ONE)


def test_a_restore_makes_it_forget_what_it_wrote(copied: Copied) -> None:
    copied.relabel("second")
    copied.model._doubt()

    assert "first" == copied.label
    assert not copied.relabel("third")
