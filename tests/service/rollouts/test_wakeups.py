"""Those who are deferred are called when their time comes, in order. Over an etcd in memory."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from outrider.core.rollout.policy_settings import Rate
from outrider.core.rollout.windows import Window
from outrider.model.documents import Wakeup, decode
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.rollouts.wakeups import BATCH, GONE, LAGGING, Look, look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, block, make_app, open_store, payload_of
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually


def sidekicks(fleet: Fleet, *instances: str) -> None:
    """They run, and are deferred."""
    for instance in instances:
        be_alive(fleet.store, instance, NOON)
        fleet.why_deferred(instance)


def looks(fleet: Fleet) -> Look:
    return look(fleet.store.context, GroupLock(), APP, "beta")


def called(fleet: Fleet) -> list[str]:
    """Who is called now, and is it so in etcd?"""
    names = list(looks(fleet).called)
    for name in names:
        entry = fleet.store.context.cluster.get(fleet.store.context.keys.wakeup(APP, name))
        assert entry is not None
        assert entry.lease
        assert decode(Wakeup, entry.key, entry.value).why
    return names


@pytest.fixture
def busy(fleet: Fleet) -> Fleet:
    """web-0 is updating, one at a time may; three others wait."""
    fleet.set(max_in_progress=1, update_timeout_s=600)
    fleet.granted("web-0")
    sidekicks(fleet, "web-3", "web-1", "web-2")
    return fleet


def test_a_roll_out_is_finished_when_the_last_one_has_come_to_it_or_is_long_gone(fleet: Fleet) -> None:
    """
    1. web-1 is granted and succeeds; web-2 and web-3 were seen with the old version, and ask for nothing
    2. the group is looked at again after a while, without anything happening to the rollout
    3. web-2 comes to the version by another way, web-3 isn't heard of for a day: it is finished, and no more looked at
    """
    for instance in ("web-2", "web-3"):
        fleet.sends(instance, "1.0.0", "3:2")
    fleet.granted("web-1")
    fleet.succeeds("web-1")
    lagging = looks(fleet)
    fleet.passes(20 * 3600)
    for instance in ("web-1", "web-2"):
        fleet.checks(instance, "2.0.0")
    one_lags = looks(fleet), fleet.progress.finished
    fleet.passes(5 * 3600)
    done = looks(fleet)

    assert NOON + LAGGING == lagging.again_at
    assert (NOON + timedelta(hours=20) + LAGGING, None) == (one_lags[0].again_at, one_lags[1])
    assert NOON + timedelta(hours=25) == fleet.progress.finished
    assert (None, None) == (done.again_at, looks(fleet).again_at)


def test_nobody_is_called_while_there_is_no_place(busy: Fleet) -> None:
    assert [] == called(busy)


@pytest.mark.parametrize("result", ["succeeds", "fails"])
def test_a_result_calls_the_one_who_came_first(busy: Fleet, result: str) -> None:
    getattr(busy, result)("web-0")

    assert ["web-3"] == called(busy)
    assert [] == called(busy)


def test_a_grant_that_lapses_calls_the_next_one_and_is_booked(busy: Fleet) -> None:
    busy.passes(600)

    assert ["web-3"] == called(busy)
    assert ["web-0"] == [one.instance for one in busy.progress.failures]


def test_the_place_is_kept_for_who_was_called(busy: Fleet) -> None:
    busy.succeeds("web-0")
    called(busy)
    stranger, waiting, woken = busy.why_deferred("web-9"), busy.why_deferred("web-1"), busy.granted("web-3")

    assert ["0 of 1 in progress: nobody; woken: web-3"] * 2 == [stranger, waiting]
    assert "2.0.0" == woken


def test_who_does_not_come_loses_the_place_to_the_next_and_keeps_its_turn_for_later(busy: Fleet) -> None:
    busy.succeeds("web-0")
    first = called(busy)
    busy.passes(29)
    too_early = called(busy)
    busy.passes(1)
    second = called(busy)
    busy.granted("web-1")
    busy.succeeds("web-1")
    third = called(busy)
    busy.granted("web-2")
    busy.succeeds("web-2")
    busy.passes(3600)

    assert [["web-3"], [], ["web-1"], ["web-2"], ["web-3"]] == [first, too_early, second, third, called(busy)]


def test_who_never_comes_is_called_ever_more_seldom(fleet: Fleet) -> None:
    fleet.set(enabled=False)
    sidekicks(fleet, "web-1")
    fleet.set(enabled=True)
    times = []
    for second in range(0, 4 * 3600, 30):
        if called(fleet):
            times.append(second)
        fleet.passes(30)

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] == gaps


def test_who_was_called_and_is_held_again_stays_first(busy: Fleet) -> None:
    busy.succeeds("web-0")
    called(busy)
    busy.set(enabled=False)
    busy.why_deferred("web-3")
    busy.set(enabled=True)

    assert ["web-3", "web-1", "web-2"] == busy.line
    assert ["web-3"] == called(busy)


def test_as_many_are_called_as_there_are_places(fleet: Fleet) -> None:
    fleet.set(max_in_progress=3, max_per_interval=Rate(count=2, interval_s=60))
    sidekicks_held_by_pause(fleet, 5)

    assert ["web-0", "web-1"] == called(fleet)


def sidekicks_held_by_pause(fleet: Fleet, count: int) -> None:
    fleet.store.groups.update(APP, "beta", paused=True)
    sidekicks(fleet, *(f"web-{number}" for number in range(count)))
    fleet.store.groups.update(APP, "beta", paused=False)


def test_a_pause_that_ends_calls_everybody_in_bounded_batches(fleet: Fleet) -> None:
    sidekicks_held_by_pause(fleet, BATCH + 5)
    first = looks(fleet)
    second = looks(fleet)

    assert (BATCH, NOON, 5) == (len(first.called), first.again_at, len(second.called))


def test_the_line_is_looked_at_again_when_the_interval_has_passed(fleet: Fleet) -> None:
    fleet.set(max_per_interval=Rate(count=1, interval_s=300))
    fleet.granted("web-0")
    sidekicks(fleet, "web-1", "web-2")
    before = looks(fleet)
    fleet.passes(300)

    assert Look(again_at=NOON + timedelta(seconds=300)) == before
    assert ["web-1"] == called(fleet)


def test_the_line_is_looked_at_again_when_a_window_opens(fleet: Fleet) -> None:
    fleet.set(windows=(Window(opens="13:00", closes="14:00"),))
    sidekicks(fleet, "web-1")

    assert datetime(2026, 11, 23, 13, tzinfo=UTC) == looks(fleet).again_at
    fleet.passes(3600)
    assert ["web-1"] == called(fleet)


@pytest.mark.parametrize("brake", ["halt", "mark", "canary"])
def test_a_brake_that_is_released_calls(fleet: Fleet, store: Store, brake: str) -> None:
    if brake == "halt":
        store.rollouts.halt(APP, "beta")
    elif brake == "mark":
        block(store, "2.0.0", "bad", NOON)
    else:
        fleet.set(canary=1)
        fleet.granted("web-9")
        fleet.fails("web-9")
    sidekicks(fleet, "web-1")
    before = called(fleet)
    if brake == "mark":
        store.fleet.unblock(APP, "2.0.0")
    else:
        store.rollouts.resume(APP, "beta")

    assert ([], ["web-1"]) == (before, called(fleet))


def test_the_first_who_may_is_called_though_others_stand_before_it(fleet: Fleet, store: Store) -> None:
    """The one before it is of another architecture, and would block the line forever."""
    store.packages.create(APP, "2.1.0", payload_of("2.1.0"), arch="amd64")
    store.channels.save(APP, "beta", version="2.1.0")
    store.groups.update(APP, "beta", paused=True)
    for instance, arch in (("web-1", "arm64"), ("web-2", "amd64")):
        be_alive(store, instance, NOON)
        fleet.why_deferred(instance, arch=arch)
    store.groups.update(APP, "beta", paused=False)

    assert ["web-2"] == called(fleet)


def test_who_has_no_sidekick_is_not_called_and_is_struck_out_when_it_is_gone(fleet: Fleet) -> None:
    fleet.set(enabled=False)
    fleet.why_deferred("foreign")
    fleet.set(enabled=True)
    first = looks(fleet)
    still = list(fleet.line)
    fleet.passes(GONE.total_seconds())
    looks(fleet)

    assert (Look(again_at=NOON + GONE), ["foreign"], []) == (first, still, fleet.line)


def test_who_has_what_it_should_have_is_struck_out(fleet: Fleet, store: Store) -> None:
    fleet.set(enabled=False)
    sidekicks(fleet, "web-1")
    store.channels.save(APP, "beta", version="1.0.0")

    assert [] == called(fleet)
    assert [] == fleet.line


def test_a_look_at_nothing_writes_nothing(busy: Fleet) -> None:
    before = busy.etcd.revision

    looks(busy)

    assert before == busy.etcd.revision
    assert Look() == look(busy.store.context, GroupLock(), APP, "absent")


def test_two_processes_that_look_at_once_call_each_once(busy: Fleet, fake_etcd: FakeEtcd) -> None:
    busy.succeeds("web-0")
    two = open_store(fake_etcd.client("two"), now=busy.clock)
    outcomes: list[Look] = []
    threads = [
        threading.Thread(target=lambda context=context: outcomes.append(look(context, GroupLock(), APP, "beta")))
        for context in (busy.store.context, two.context)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(), ("web-3",)] == sorted(outcome.called for outcome in outcomes)


@pytest.fixture
def controller(busy: Fleet, no_thread_left: None) -> Iterator[Fleet]:
    """The same with a rollout controller at work."""
    with rollout_controller(busy.store.context):
        yield busy


def is_called(fleet: Fleet, instance: str) -> bool:
    context = fleet.store.context
    return context.cluster.get(context.keys.wakeup(APP, instance)) is not None


def test_a_result_wakes_the_rollout_controller(controller: Fleet) -> None:
    controller.succeeds("web-0")

    eventually(lambda: is_called(controller, "web-3"))
    assert not is_called(controller, "web-1")


def test_a_lease_that_ends_wakes_the_rollout_controller(controller: Fleet) -> None:
    controller.passes(600)

    eventually(lambda: is_called(controller, "web-3"))


def test_a_policy_that_is_changed_wakes_the_rollout_controller(controller: Fleet) -> None:
    controller.set(max_in_progress=3)

    eventually(lambda: is_called(controller, "web-3") and is_called(controller, "web-1"))
    assert not is_called(controller, "web-2")


def test_others_that_serve_again_wake_the_rollout_controller(
    fleet: Fleet, store: Store, fake_etcd: FakeEtcd, no_thread_left: None
) -> None:
    fleet.set(min_healthy=1)
    be_alive(store, "web-2", NOON, serving=False)
    sidekicks(fleet, "web-1")
    other = fake_etcd.client("controller")
    with rollout_controller(open_store(other, now=fleet.clock).context):
        # all groups, then this one's line, who serves by presence and by rows, and who is alive
        eventually(lambda: other.calls.count("list") >= 5)
        be_alive(store, "web-2", NOON, serving=True)

        eventually(lambda: is_called(fleet, "web-1"))


def test_what_happened_while_no_process_ran_is_made_up_for(busy: Fleet, no_thread_left: None) -> None:
    busy.succeeds("web-0")

    with rollout_controller(busy.store.context):
        eventually(lambda: is_called(busy, "web-3"))


def test_the_timer_wakes_the_rollout_controller(store: Store, fake_etcd: FakeEtcd, no_thread_left: None) -> None:
    """On the real clock: the limit leaves a place a second later, and nothing else happens."""
    real = open_store(fake_etcd.client("real"))
    fleet = Fleet(store=real, etcd=fake_etcd, clock=lambda: datetime.now(UTC))  # type: ignore[arg-type]
    make_app(real, version="2.0.0")
    fleet.set(max_per_interval=Rate(count=1, interval_s=1))
    fleet.granted("web-0")
    with rollout_controller(real.context):
        sidekicks(fleet, "web-1")

        eventually(lambda: is_called(fleet, "web-1"))


def test_an_etcd_that_comes_late_is_no_end_of_the_rollout_controller(
    busy: Fleet, fake_etcd: FakeEtcd, no_thread_left: None
) -> None:
    other = fake_etcd.client("late")
    other.cut_off()
    busy.succeeds("web-0")
    with rollout_controller(open_store(other, now=busy.clock).context):
        eventually(lambda: "list" in other.calls)
        other.mend()

        eventually(lambda: is_called(busy, "web-3"))


def test_whoever_waits_for_an_image_to_be_resolved_is_called_when_it_is_and_not_before(fleet: Fleet) -> None:
    """
    1. two sidekicks wait: nobody knows yet which image 3.0.0 is
    2. nobody is called, however often the controller looks
    3. its digest is known: they are called
    """
    image = Payload(size_bytes=10, sha256="ab" * 32, url="http://s/3.json", image="registry.example/web:3.0.0")
    fleet.store.packages.create(APP, "3.0.0", image)
    fleet.store.channels.save(APP, "beta", version="3.0.0")
    for instance in ("web-1", "web-2"):
        be_alive(fleet.store, instance, NOON)
        assert "nobody knows yet which image" in fleet.why_deferred(instance, takes_turns=True)
    assert [] == called(fleet)
    fleet.passes(60)
    assert [] == called(fleet)

    fleet.store.packages.resolve(APP, "3.0.0", replace(image, digest="sha256:" + "cd" * 32))

    assert ["web-1", "web-2"] == called(fleet)
