"""Two service processes at once: whatever the interleaving, the targets follow from the documents."""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import pytest

from outrider.core.errors import Conflict, NotFound, OutriderError
from outrider.model.documents import Channel, Group, Package
from outrider.service.store.store import Store
from outrider.service.store.targets import target_of as target_that_follows
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service import WallClock
from tests.support.service_examples import APP, make_app, open_store, payload_of, target_of

ROUNDS = 100


class Interleaving:
    """Lets several threads run one etcd call at a time, in an order that a seed decides.

    Every thread stops before each of its calls; when all have stopped, one is drawn and goes on to its next call.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[int] = set()
        self._stopped: set[int] = set()
        self._drawn: int | None = None
        self._random = random.Random(0)
        self._active = False

    def begin(self, seed: int, names: Iterable[int]) -> None:
        self._random, self._running, self._stopped, self._drawn = random.Random(seed), set(names), set(), None
        self._active = True

    def end(self) -> None:
        self._active = False

    def before_call(self, call: str, moment: str) -> None:
        """Hang it into a client as its ``trouble``."""
        name = threading.current_thread().name
        if not self._active or moment != "before" or not name.isdigit():
            return
        with self._changed:
            self._stopped.add(int(name))
            self._draw()
            assert self._changed.wait_for(lambda: self._drawn == int(name), timeout=60), "the others hang"
            self._stopped.discard(int(name))
            self._drawn = None

    def finished(self, name: int) -> None:
        with self._changed:
            self._running.discard(name)
            self._draw()

    def _draw(self) -> None:
        if self._drawn is None and self._stopped and self._stopped == self._running:
            self._drawn = self._random.choice(sorted(self._stopped))
            self._changed.notify_all()


@dataclass
class Pair:
    """Two service processes on one etcd."""

    one: Store
    two: Store
    interleaving: Interleaving

    def at_once(self, seed: int, *acts: Callable[[], object]) -> list[OutriderError]:
        """Run all at the same time, interleaved as ``seed`` decides; returns the errors of ours."""
        errors: list[OutriderError] = []
        bugs: list[BaseException] = []

        def run(name: int, act: Callable[[], object]) -> None:
            try:
                act()
            except OutriderError as error:
                errors.append(error)
            except BaseException as error:  # noqa: BLE001 - shown below, on the test's own thread
                bugs.append(error)
            finally:
                self.interleaving.finished(name)

        self.interleaving.begin(seed, range(len(acts)))
        threads = [threading.Thread(target=run, args=each, name=str(each[0])) for each in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.interleaving.end()
        assert not bugs, bugs
        return errors


@pytest.fixture
def pair(fake_etcd: FakeEtcd, clock: WallClock) -> Pair:
    interleaving = Interleaving()
    clients = [fake_etcd.client("one"), fake_etcd.client("two")]
    for client in clients:
        client.trouble = interleaving.before_call
    one, two = (open_store(client, now=clock) for client in clients)
    return Pair(one=one, two=two, interleaving=interleaving)


def assert_consistent(store: Store) -> None:
    """Every target is what follows from its group, its channel and its package, and nothing hangs in the air."""
    keys, context = store.context.keys, store.context
    for group in context.children(Group, keys.groups(APP)):
        channel = context.get(Channel, keys.channel(APP, group.channel))
        assert channel is not None, f"group {group.id} follows {group.channel}, which doesn't exist"
        package = None if channel.version is None else context.get(Package, keys.package(APP, channel.version))
        found = target_of(store, group.id)
        follows = target_that_follows(group, channel, package)
        assert msgspec.structs.replace(follows, since=found.since) == found
        assert (follows.version is None) == (found.since is None)


def test_a_move_and_a_pause_at_once_both_hold_at_the_end(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one)
    for number in range(ROUNDS):
        version, paused = ("2.0.0", True) if number % 2 == 0 else ("1.0.0", False)

        errors = pair.at_once(
            number,
            lambda version=version: one.channels.save(APP, "beta", version=version),  # type: ignore[misc]
            lambda paused=paused: two.groups.update(APP, "beta", paused=paused),  # type: ignore[misc]
        )

        assert [] == errors
        assert (version, paused) == (target_of(one).version, target_of(one).paused)
        assert_consistent(one)


def test_a_group_that_is_born_during_a_move_is_moved_too(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one)
    for number in range(39):
        version = ("2.0.0", "1.0.0")[number % 2]

        errors = pair.at_once(
            number,
            lambda version=version: one.channels.save(APP, "beta", version=version),  # type: ignore[misc]
            lambda number=number: two.groups.create(APP, f"new-{number}", channel="beta"),  # type: ignore[misc]
        )

        assert [] == errors
        assert version == target_of(one, f"new-{number}").version
        assert_consistent(one)


def test_a_package_that_is_born_while_a_channel_turns_to_it_reaches_the_groups(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one, versions=(), version=None)
    for number in range(ROUNDS):
        version = f"1.{number}.0"

        errors = pair.at_once(
            number,
            lambda version=version: one.packages.create(APP, version, payload_of(version)),  # type: ignore[misc]
            lambda version=version: two.channels.save(APP, "beta", version=version),  # type: ignore[misc]
        )

        assert [] == errors
        assert version == target_of(one).version
        assert_consistent(one)


def test_a_package_is_never_deleted_from_under_the_channel_that_turns_to_it(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one, versions=("1.0.0",))
    outcomes = set()
    for number in range(ROUNDS):
        one.packages.create(APP, "2.0.0", payload_of("2.0.0"))

        errors = pair.at_once(
            number, lambda: one.packages.delete(APP, "2.0.0"), lambda: two.channels.save(APP, "beta", version="2.0.0")
        )

        outcomes.add(tuple(type(error) for error in errors))
        assert_consistent(one)
        deleted = not errors
        assert (None if deleted else "2.0.0") == target_of(one).version
        one.channels.save(APP, "beta", version="1.0.0")
        if not deleted:
            one.packages.delete(APP, "2.0.0")
    assert outcomes <= {(), (Conflict,)}


def test_a_channel_is_never_deleted_from_under_a_new_group(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one)
    for number in range(ROUNDS):
        one.channels.create(APP, "doomed", version="1.0.0")

        pair.at_once(
            number,
            lambda: one.channels.delete(APP, "doomed"),
            lambda number=number: two.groups.create(APP, f"g{number}", channel="doomed"),  # type: ignore[misc]
        )

        assert_consistent(one)
        one.groups.delete(APP, f"g{number}")
        one.channels.delete(APP, "doomed")


def test_an_app_is_never_deleted_from_under_a_new_channel(pair: Pair, fake_etcd: FakeEtcd) -> None:
    one, two = pair.one, pair.two
    for number in range(ROUNDS):
        one.apps.create(app=APP)

        errors = pair.at_once(number, lambda: one.apps.delete(APP), lambda: two.channels.create(APP, "beta"))

        assert 1 == len(errors)
        assert isinstance(errors[0], Conflict | NotFound)
        if isinstance(errors[0], Conflict):
            one.channels.delete(APP, "beta")
            one.apps.delete(APP)
        assert {} == dict(fake_etcd.entries)


def test_many_operators_at_once_lose_no_change(pair: Pair) -> None:
    one, two = pair.one, pair.two
    make_app(one)
    for number in range(6):
        one.groups.create(APP, f"g{number}", channel="beta")

    errors = pair.at_once(
        7,
        *(
            lambda store=store, number=number: store.groups.update(APP, f"g{number}", slots=number + 2)
            for number, store in enumerate((one, two) * 3)
        ),
        lambda: one.channels.save(APP, "beta", version="2.0.0"),
        lambda: two.groups.update(APP, "beta", paused=True),
    )

    assert [] == errors
    assert [2, 3, 4, 5, 6, 7] == [target_of(one, f"g{number}").slots for number in range(6)]
    assert_consistent(one)
