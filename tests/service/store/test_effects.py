"""What a change means for the instances, and which packages are needed."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from outrider.core.errors import Conflict
from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents import Happening, Instance, encode
from outrider.service.rollouts.explain import read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store.effects import effects
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.packages import before
from outrider.service.store.store import Store
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, be_alive, block, make_app, put
from tests.support.service_fleets import Fleet


def effect(store: Store) -> str:
    (line,) = effects(store.context, APP, [store.groups.get(APP, "beta")])
    return line.removeprefix("group beta: ")


def row(store: Store, name: str, version: str, *ran: str, granted: str | None = None) -> None:
    """An instance as its last check-in left it; ``ran``: the versions that it told before, oldest first."""
    history = tuple(Happening(at=NOON, version=each, event="3:2") for each in (*ran, version))
    document = Instance(
        app=APP,
        id=name,
        group="beta",
        version=version,
        granted_version=granted,
        first_seen=NOON,
        last_seen=NOON,
        history=history,
    )
    put(store.context.cluster, store.context.keys.instance(APP, name), encode(document))


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda store: None, "2 of 3 instances on another version, updated from now on as the group's policy allows"),
        (lambda store: store.groups.update(APP, "beta", paused=True), "held: the group is paused"),
        (lambda store: block(store, "2.0.0", "it crashed", NOON), "held: 2.0.0 is blocked (it crashed)"),
        (
            lambda store: put(store.context.cluster, store.context.keys.block(APP, "2.0.0"), b"?"),
            "held: 2.0.0 is blocked",
        ),
        (lambda store: store.rollouts.pause(APP, "beta", why="", by="ann"), "held: the rollout is paused"),
        (lambda store: store.rollouts.halt(APP, "beta", why="", by="ann"), "held: the rollout is halted"),
        (
            lambda store: store.rollouts.reject(APP, "beta", why="not yet", by="ann"),
            "held: it was rejected by ann: not yet",
        ),
        (
            lambda store: store.rollouts.set_policy(APP, "beta", Policy(approval=True)),
            "held until `outrider rollout approve`",
        ),
        (
            lambda store: store.rollouts.set_policy(APP, "beta", Policy(enabled=False)),
            "held: updates are off in the group's policy",
        ),
    ],
)
def test_the_effect_names_the_number_and_what_holds_them(
    store: Store, prepare: Callable[[Store], object], words: str
) -> None:
    """A living sidekick's word goes before the row of its last check-in."""
    make_app(store, version="2.0.0")
    row(store, "web-1", "1.0.0")
    row(store, "web-2", "1.0.0")
    be_alive(store, "web-2", NOON, version="2.0.0")
    be_alive(store, "web-3", NOON, version="1.0.0")
    prepare(store)

    assert effect(store).startswith("target 2.0.0; 2 of 3 instances on another version")
    assert effect(store).endswith(words)


def test_the_effect_of_a_group_without_work(store: Store) -> None:
    make_app(store, version=None)
    assert "no target; no instances yet" == effect(store)
    row(store, "web-1", "1.0.0")
    assert "no target; 1 instance keep what they run" == effect(store)
    store.channels.save(APP, "beta", version="1.0.0")
    assert "target 1.0.0; 1 instance, all on it" == effect(store)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda store: row(store, "web-1", "1.5.0"), "runs on web-1"),
        (lambda store: be_alive(store, "web-1", NOON, version="1.5.0"), "runs on web-1"),
        (lambda store: row(store, "web-1", "1.0.0", granted="1.5.0"), "being installed on web-1"),
        (lambda store: be_alive(store, "web-1", NOON, wanted="1.5.0"), "being installed on web-1"),
        (lambda store: row(store, "web-1", "2.0.0", "1.0.0", "1.5.0"), "what web-1 would go back to"),
        (lambda store: store.floors.set(APP, "beta", "1.5.0", reason=""), "floor of channels beta"),
        (lambda store: store.channels.create(APP, "other", version="1.5.0"), "in use by channels other"),
        (
            lambda store: put(
                store.context.cluster,
                store.context.keys.target(APP, "beta"),
                b'{"schema":1,"version":"1.5.0","sha256":"","paused":false,"slots":1}',
            ),
            "is the target of groups beta",
        ),
        (
            lambda store: put(
                store.context.cluster,
                store.context.keys.served(APP, "beta"),
                b'{"schema":1,"versions":["1.0.0","1.5.0","2.0.0"]}',
            ),
            "`rollout undo` would take groups beta back to",
        ),
    ],
)
def test_a_package_that_something_needs_is_not_deleted(
    store: Store, prepare: Callable[[Store], object], words: str
) -> None:
    make_app(store, versions=("1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    prepare(store)

    with pytest.raises(Conflict, match=words) as caught:
        store.packages.delete(APP, "1.5.0")

    assert "\n" not in str(caught.value)
    assert "1.5.0" == store.packages.get(APP, "1.5.0").version


def test_a_package_that_nothing_needs_is_deleted(store: Store) -> None:
    make_app(store, versions=("0.9.0", "1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    row(store, "web-1", "2.0.0", "0.9.0", "1.5.0")

    assert "0.9.0" == store.packages.delete(APP, "0.9.0").version
    assert "1.0.0" == store.packages.delete(APP, "1.0.0").version


def test_what_an_instance_ran_before_is_in_its_history(store: Store) -> None:
    row(store, "web-1", "2.0.0", "1.0.0", "1.5.0", "2.0.0")
    known = store.context.children(Instance, store.context.keys.instances(APP))[0]

    assert "1.5.0" == before(known)
    assert None is before(msgspec.structs.replace(known, history=()))


def test_status_says_when_a_rollout_has_finished(fleet: Fleet, clock: WallClock) -> None:
    """
    1. two instances update to 2.0.0 and say so
    2. the rollout is over; three minutes later status says when
    """
    store = fleet.store
    for name in ("web-1", "web-2"):
        assert "2.0.0" == fleet.granted(name)
    assert "rollout of 2.0.0: running" in read_overviews(store.context, APP)[0].rollout

    for name in ("web-1", "web-2"):
        fleet.succeeds(name)
    look(store.context, GroupLock(), APP, "beta")
    clock.advance(timedelta(minutes=3).total_seconds())

    assert "rollout of 2.0.0: finished 3m ago; 2 done" == read_overviews(store.context, APP)[0].rollout
