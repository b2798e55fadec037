"""A machine that shuts down: its instance leaves the balancer under a turn, or, when none comes in time, without one.

The sidekick here does what the chart does with the command, in one step; the live test has a real one.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from outrider.balancers import Balancer
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.none import NoObserver
from outrider.config.sections import DrainSettings, InstanceSettings, Settings
from outrider.core.errors import NotFound, OutriderError, Refused
from outrider.core.sidekick.memory import Memory
from outrider.etcd.seam import Delete, KeyChanged, Put, WatchEvent
from outrider.journal.journal import Journal, Record
from outrider.model.documents import Command, Owner, Presence, decode, encode
from outrider.model.keys import Keys
from outrider.sidekick.assemble import contender
from outrider.sidekick.shutdown import ShutdownDrain, places_of
from outrider.statechart import load_sidekick_chart
from tests.contracts.test_balancers import OLD, URL_KEY, traefik
from tests.contracts.test_entry import stored
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.wall_clock import NOON

KEYS = Keys()
APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
COMMAND = KEYS.command(APP, "a")
PRESENCE = KEYS.presence(APP, "web", "a")


class Machine:
    """Instance ``a``: journal, presence, entry, and a sidekick that goes to ``reaches`` when told to drain.

    No time passes before it is there; then the time that a turn may take is over.
    """

    def __init__(self, folder: Path, *, reaches: str = "idle.retaking") -> None:
        self.settings = Settings(
            instance=InstanceSettings(
                id="a", app=APP, group="web", state_dir=folder, drain_at_shutdown=True, shutdown_wait_s=60.0
            ),
            drain=DrainSettings(wait_s=0.0),
        )
        self.cluster: FakeCluster = FakeEtcd().client()
        us = contender(self.settings)
        self.waiter = KEYS.waiter(us.scope, us.member)
        self.reaches = reaches
        journal = Journal(folder)
        memory = Memory(
            instance="a", app=APP, group="web", scope=us.scope, strategy="start-first", at=NOON, process="p"
        )
        journal.append(
            Record(
                number=1,
                at=NOON,
                event={},
                source="",
                target="idle.waiting",
                machine={},
                memory=msgspec.to_builtins(memory),
            )
        )
        journal.close()
        self.entry("p").join(OLD)
        self.show("idle.waiting")
        self.told: list[Command] = []
        self.cluster.watch(COMMAND, 1, self.heed, exact=True)

    def entry(self, process: str) -> EtcdEntry:
        owner = Owner(app=APP, group="web", instance="a", process=process)
        return EtcdEntry(self.cluster, traefik(), service="hello", server_id="web-1", owner=owner)

    def show(self, state: str, *, process: str = "p") -> None:
        presence = Presence(
            instance="a", app=APP, group="web", state=state, version="1.0.0", since=NOON, url=OLD, process=process
        )
        self.cluster.txn((), (Put(key=PRESENCE, value=encode(presence)),))

    def clock(self) -> float:
        presence = self.cluster.get(PRESENCE)
        is_there = presence is None or decode(Presence, PRESENCE, presence.value).state == self.reaches
        return 100.0 if is_there else 0.0

    def heed(self, event: WatchEvent) -> None:
        if isinstance(event, KeyChanged) and event.entry is not None:
            self.told.append(decode(Command, event.key, event.entry.value))
            if self.reaches in ("idle.retaking", "swapping.soaking"):
                self.cluster.txn((), (Put(key=self.waiter, value=b"{}"),))
            if self.reaches == "idle.drained":
                self.entry("p").leave(fence=())
            if self.reaches == "ended":
                self.cluster.txn((), (Delete(key=PRESENCE),))
            else:
                self.show(self.reaches)

    def shut_down(self, before_leaving: Callable[[], object] = lambda: None) -> str:
        def make(presence: Presence) -> Balancer:
            before_leaving()
            return Balancer(entry=self.entry(presence.process), observer=NoObserver())

        return ShutdownDrain(self.settings, self.cluster, make, now=lambda: NOON, clock=self.clock).run().how


def test_it_knows_where_the_charts_drain_is() -> None:
    places = places_of(load_sidekick_chart())

    assert {"idle.retaking"} == set(places.queueing)
    assert {"idle.drained"} == set(places.out)
    assert {"idle.leaving", "idle.emptying"} <= places.on_the_way


def test_its_sidekick_is_told_to_drain_until_the_next_boot(tmp_path: Path) -> None:
    machine = Machine(tmp_path, reaches="idle.drained")

    assert "drained under a turn" == machine.shut_down()
    assert {} == stored(machine.cluster)
    assert [("drain", True, "shutdown of its machine")] == [(it.verb, it.until_reboot, it.by) for it in machine.told]


def test_without_a_turn_in_time_it_leaves_all_the_same(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    assert machine.shut_down().startswith("left without a turn, after 60 s; confirmed by")
    assert {} == stored(machine.cluster)


def test_drained_before_there_is_nothing_to_do(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.show("idle.drained")

    assert "it had been drained before" == machine.shut_down()
    assert [] == machine.told


def requeue(machine: Machine) -> None:
    """The sidekick's place in the queue is another one."""
    machine.cluster.txn((), (Delete(key=machine.waiter),))
    machine.cluster.txn((), (Put(key=machine.waiter, value=b"{}"),))


def be_taken_over(machine: Machine) -> None:
    """A twin that lives owns the entry."""
    machine.show("idle.waiting", process="twin")
    machine.entry("twin").join(OLD)


def leave_the_queue(machine: Machine) -> None:
    machine.cluster.txn((), (Delete(key=machine.waiter),))


@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [
        (requeue, "the turn has ended"),
        (leave_the_queue, "the turn has ended"),
        (be_taken_over, "as process twin, which is alive"),
    ],
)
def test_the_write_without_a_turn_is_fenced(tmp_path: Path, meanwhile: Callable[[Machine], None], why: str) -> None:
    machine = Machine(tmp_path)

    with pytest.raises(OutriderError, match=why):
        machine.shut_down(before_leaving=lambda: meanwhile(machine))

    assert {URL_KEY: OLD} == stored(machine.cluster)


@pytest.mark.parametrize(
    ("reaches", "error", "why"),
    [
        ("swapping.soaking", Refused, r"no turn within 60 s, and the instance is in swapping\.soaking"),
        ("ended", NotFound, "has ended: nothing more is drained"),
    ],
)
def test_in_any_other_state_its_entry_stays(tmp_path: Path, reaches: str, error: type[OutriderError], why: str) -> None:
    machine = Machine(tmp_path, reaches=reaches)

    with pytest.raises(error, match=why):
        machine.shut_down()

    assert {URL_KEY: OLD} == stored(machine.cluster)


def test_without_a_sidekick_nothing_is_drained(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.cluster.txn((), (Delete(key=PRESENCE),))

    with pytest.raises(NotFound, match="no sidekick of instance 'a' is running"):
        machine.shut_down()


def test_a_twin_elsewhere_is_not_told_to_drain(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.show("idle.waiting", process="of another machine")

    with pytest.raises(Refused, match="is a sidekick on another machine, not the one in"):
        machine.shut_down()

    assert [] == machine.told
