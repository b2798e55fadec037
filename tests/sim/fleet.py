"""A fleet in memory: real charts, loops, locks and drivers, a made-up world, simulated time, one seed for everything.

The world is small but honest: an etcd with revisions, leases and watches (``store.py``), machines whose addresses are
used again (``host.py``), processes that are killed, stopped and cut off (``life.py``). Effects take time, arrive after
a crash of who sent them, lose their answers, or are carried out when nobody waits any more. What must always hold is
checked at every change of the world, not at the end (``promises.py``).
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import msgspec
from loguru import logger

from outrider.balancers import Server
from outrider.core.chart.machine import Machine, Snapshot, Step
from outrider.core.release import ReleaseId
from outrider.core.rollout.budgets import Budget
from outrider.core.sidekick.events import AnyEvent
from outrider.core.sidekick.memory import AfterUndecided, Installed, Memory, Release, Strategy
from outrider.etcd.seam import Delete, Put
from outrider.journal.journal import Journal, Record
from outrider.model.documents import (
    Admission,
    Brake,
    Command,
    Gone,
    OpenGrant,
    Presence,
    Slot,
    Target,
    Wakeup,
    decode,
    encode,
)
from outrider.service.rollouts.identity import proves
from outrider.sidekick.identity import KEPT_PREDECESSORS
from outrider.turns.turns import free_turn, read_scope
from tests.sim.agenda import Agenda
from tests.sim.host import FIRST_PORT, Badness, Host, sha_of
from tests.sim.life import APP, BALANCER, GROUP, SCOPE, SERVICE, Life
from tests.sim.loop import CHART, Kept
from tests.sim.promises import Breach, Promises, at_home
from tests.sim.store import KEYS, Changes, Cut, FaultProfile, SimEtcd
from tests.sim.tasks import SimTasks

__all__ = ["CHART", "EPOCH", "Badness", "Breach", "Fleet", "Member"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = "1.0.0"
PORTS: Mapping[Strategy, int] = {"start-first": 5, "stop-first": 1}
KEPT_REPORTS = 8
_GRANTS = KEYS.grants(APP, GROUP)


class _OnlyLast:
    """What the loop reads of a journal: its last record."""

    def __init__(self, last: Record | None) -> None:
        self.last = last


class Member:
    """One instance: its machine, its journal, and the process of its sidekick, if that is up."""

    def __init__(self, fleet: "Fleet", name: str) -> None:
        self.name, self._fleet = name, fleet
        self.host = Host(
            name=name, agenda=fleet.agenda, random=fleet.random, faults=fleet.faults, bad=fleet.bad,
            ports=fleet.ports, changed=lambda host: fleet.promises.check(),
            started=lambda host, version: fleet.promises.started(name, version),
        )  # fmt: skip
        self.up = True
        self.kept = Kept()
        self.reports: deque[Any] = deque(maxlen=KEPT_REPORTS)
        self.outbox: deque[Any] = deque(maxlen=KEPT_REPORTS)
        self._processes: list[str] = []
        self.boots = 0
        self.life: Life

    @property
    def machine(self) -> Machine[Memory]:
        return cast(Machine[Memory], self.life.loop.machine)

    @property
    def workloads(self) -> dict[str, str]:
        """Address -> version of what runs."""
        return self.host.workloads

    @property
    def entry(self) -> str | None:
        """The address that the balancer sends to."""
        return self._fleet.promises.entries.get(self.name)

    @property
    def running_url(self) -> str:
        """Where what should run answers, as far as the sidekick knows."""
        memory = self.kept.memory
        return memory.running.url if memory is not None and memory.running is not None else ""

    @property
    def journal_bytes(self) -> int:
        """Size of what the newest record says of machine and memory."""
        return len(msgspec.json.encode(self.kept.machine)) + len(msgspec.json.encode(self.kept.memory))

    def first(self) -> Memory:
        """What a sidekick knows that was installed with a running version."""
        url = f"http://{self.name}:{FIRST_PORT}"
        release = Release(version=FIRST, urls=("http://x/1",), sha256=sha_of(FIRST), size_bytes=1)
        workload = f"{self.name}-first"
        self.host.workloads[url], self.host.ids[workload], self.host.answers[url] = FIRST, url, 0
        self.host.recorded[workload] = url
        self.host.payloads[sha_of(FIRST)] = None
        running = Installed(release=release, workload_id=workload, url=url)
        return self.settings(running)

    def settings(self, running: Installed | None = None) -> Memory:
        """As ``first_memory`` makes it, in a process that begins now."""
        self._processes.append(f"{self.name}:{len(self._processes)}")
        return Memory(
            instance=self.name, app=APP, group=GROUP, scope=SCOPE, strategy=self._fleet.strategy, at=EPOCH,
            running=running, slots=self._fleet.slots_allowed, process=self._processes[-1],
            labels=tuple(self._fleet.labels_of(self.name).items()),
            home=f"{self.boots}:{self.name}",
            predecessors=tuple(self._processes[:-1][-KEPT_PREDECESSORS:]), analysis=self._fleet.analysis,
        )  # fmt: skip

    def wrote(self, event: AnyEvent | None, step: Step, machine: Machine[Memory]) -> None:
        """The loop writes a step down."""
        kept = self.kept
        if step.source == "reporting" and step.event_name == "report.queued":
            update = kept.memory.update if kept.memory is not None else ""
            if not any(report.update == update for report in self.outbox):
                raise Breach(f"seed {self._fleet.seed}: P9: {self.name}: no report of update {update}")
        kept.number += 1
        kept.at = event.at if event is not None else self._fleet.now()
        kept.event, kept.step = event, step
        kept.machine, kept.memory = machine.snapshot(), machine.memory

    def begin(self, last: Record | None, memory: Memory) -> None:
        self.life = Life(self._fleet, self, memory, cast(Journal, _OnlyLast(last)))
        self.up = True
        self.life.begin()

    def read_back(self) -> Record:
        """The newest record from its bytes; every field must be what was written."""
        record = msgspec.json.decode(msgspec.json.encode(self.kept.record()), type=Record)
        if msgspec.convert(record.memory, type=Memory) != self.kept.memory:
            raise Breach(f"seed {self._fleet.seed}: {self.name}: the journal's memory isn't what was written")
        if msgspec.convert(record.machine, type=Snapshot) != self.kept.machine:
            raise Breach(f"seed {self._fleet.seed}: {self.name}: the journal's machine isn't what was written")
        return record


class Fleet:
    """Instances, a store, a clock."""

    def __init__(
        self,
        seed: int,
        *,
        instances: int = 7,
        slots: int = 2,
        strategy: Strategy = "start-first",
        bad: dict[str, Badness] | None = None,
        ports: int = 0,
        racks: int = 0,
        analysis: AfterUndecided = "",
    ) -> None:
        """Begin with every instance on 1.0.0.

        Args:
            seed: Decides everything that is left to chance.
            instances: How many.
            slots: Turns that there may be.
            strategy: Of all instances.
            bad: Versions that can't be run.
            ports: Addresses that each machine has for workloads; by default enough for the strategy.
            racks: Racks over which the instances are spread; of each one instance may be out. 0: no budget.
            analysis: Releases are analysed; what one that stays undecided leads to.
        """
        self.seed, self.strategy, self.racks, self.analysis = seed, strategy, racks, analysis
        self.random = random.Random(seed)
        self.bad: dict[str, Badness] = bad if bad is not None else {}
        self.ports = ports or PORTS[strategy]
        self.faults, self.agenda = FaultProfile(), Agenda()
        self.members: list[Member] = []
        self.promises = Promises(self)
        self.store = SimEtcd(self.agenda, self.random, self._noted)
        self._hand = self.store.client("operator")
        budgets = (Budget(label="rack", max_out=1),) if racks else ()
        self.tasks = SimTasks(self)
        self._aim = Target(version=FIRST, sha256=sha_of(FIRST), slots=slots, budgets=budgets)
        self.most_allowed = slots
        self.steps = 0
        self.images: set[str] = set()  # versions whose packages are container images
        self.braked = False  # the rollout is paused
        self.asked = 0  # how often the update service was asked
        self.unproved = 0  # and how often it did not believe who asked
        self._write_target()
        self._by_name = {name: Member(self, name) for name in (f"web-{number}" for number in range(instances))}
        self.members = list(self._by_name.values())
        for member in self.members:
            memory = member.first()
            assert memory.running is not None
            server = Server(service=SERVICE, id=member.name, url=memory.running.url)
            puts = tuple(Put(key=key, value=url.encode()) for key, url in BALANCER.server_keys(server).items())
            runs = KEYS.running_at(APP, GROUP, FIRST, member.name)
            puts = (*puts, Put(key=runs, value=b"{}"))
            self.members, everybody = [], self.members  # until all of them are in the balancer
            self._hand.txn((), puts)
            self.members = everybody
            member.kept.memory = memory
        with _quiet():
            for member in self.members:
                member.begin(None, member.settings(member.kept.memory.running if member.kept.memory else None))

    # --- the script's side ------------------------------------------------------------------------------------------

    def labels_of(self, name: str) -> dict[str, str]:
        """Labels of an instance: its rack, where there are any."""
        return {"rack": str(int(name.removeprefix("web-")) % self.racks)} if self.racks else {}

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    def now(self) -> datetime:
        """The simulated time, as events carry it."""
        return EPOCH + timedelta(seconds=self.agenda.now_s)

    @property
    def slots(self) -> Mapping[int, Slot]:
        """The turns that there are."""
        return self.promises.slots

    @property
    def blocked(self) -> set[str]:
        """Versions that are blocked."""
        return self.promises.blocked

    @property
    def touched(self) -> Mapping[str, set[str]]:
        """Version -> instances where it was ever started."""
        return self.promises.touched

    @property
    def most_slots(self) -> int:
        """The most turns that there were at once."""
        return self.promises.most_slots

    @property
    def lost_answers(self) -> float:
        """How likely the answer of a write gets lost."""
        return self.faults.lost_answers

    @lost_answers.setter
    def lost_answers(self, chance: float) -> None:
        self.faults.lost_answers = chance

    @property
    def target(self) -> tuple[str, int]:
        """Version and revision of what the group shall run."""
        entry = self.store.entries[KEYS.target(APP, GROUP)]
        return decode(Target, entry.key, entry.value).version or "", entry.mod_revision

    @property
    def release(self) -> ReleaseId:
        """The whole of it."""
        entry = self.store.entries[KEYS.target(APP, GROUP)]
        release = decode(Target, entry.key, entry.value).release
        assert release is not None, "the group always has a target"
        return release

    def give_environment(self, number: int, generation: int = 0) -> None:
        """Let the group's releases run with this environment, or restart them: the version stays."""
        digest = f"{number:064x}" if number else ""
        self._aim = msgspec.structs.replace(
            self._aim, environment=number, environment_digest=digest, generation=generation
        )
        self._write_target()

    @property
    def paused(self) -> bool:
        """The group is paused."""
        return self._aim.paused

    @property
    def slots_allowed(self) -> int:
        """How many turns there may be."""
        return self._aim.slots

    @slots_allowed.setter
    def slots_allowed(self, slots: int) -> None:
        self.most_allowed = max(self.most_allowed, slots)
        self._aim = msgspec.structs.replace(self._aim, slots=slots)
        self._write_target()

    def resize(self, slots: int) -> None:
        """Let an operator change how many turns there may be; those that are held by then end as they end."""
        self.promises.narrowed = max(0, len(self.slots) - slots)
        self.slots_allowed = slots

    def promote(self, version: str) -> None:
        """Point the group at ``version``."""
        self._aim = msgspec.structs.replace(self._aim, version=version, sha256=sha_of(version), go_back=False)
        self._write_target()

    def undo(self, version: str) -> None:
        """Take the group back to ``version``: what the service writes for `rollout undo`."""
        self._aim = msgspec.structs.replace(self._aim, version=version, sha256=sha_of(version), go_back=True)
        self._write_target()
        self.brake(braked=False)

    @property
    def goes_back(self) -> bool:
        """The target says that instances go back to it."""
        return self._aim.go_back

    def pause(self, *, paused: bool) -> None:
        """Pause the group, or let it go on."""
        self._aim = msgspec.structs.replace(self._aim, paused=paused)
        self._write_target()

    def brake(self, *, braked: bool) -> None:
        """Let an operator pause the rollout, or resume it: what the service does, in one transaction."""
        self.braked = braked
        brake = Brake(verb="pause" if braked else "resume", at=self.now())
        unbegun = [
            key for key, entry in self.store.entries.items()
            if key.startswith(_GRANTS) and decode(OpenGrant, key, entry.value).begun is None
        ]  # fmt: skip
        woken = [] if braked else [KEYS.wakeup(APP, member.name) for member in self.members]
        self._hand.calls.clear()
        self._hand.txn(
            (),
            (
                Put(key=KEYS.brake(APP, GROUP), value=encode(brake)),
                *(Delete(key=key) for key in unbegun),
                *(Put(key=key, value=encode(Wakeup(why="resumed"))) for key in woken),
            ),
        )

    def is_proved(self, name: str, secret: str) -> bool:
        """Whether the update service believes a check-in: as ``service.rollouts.identity`` does."""
        key = KEYS.presence(APP, GROUP, name)
        entry = self.store.entries.get(key)
        return proves(None if entry is None else decode(Presence, key, entry.value), secret)

    def grant(self, name: str, version: str) -> None:
        """The update service grants an update."""
        brake = self.store.entries.get(KEYS.brake(APP, GROUP))
        key, known = f"{_GRANTS}{name}", self.store.entries.get(f"{_GRANTS}{name}")
        revision = 0 if brake is None else brake.mod_revision
        if known is not None:
            stands = decode(OpenGrant, key, known.value)
            if (stands.version, stands.brake) == (version, revision):
                return
        grant = OpenGrant(version=version, at=self.now(), takes_turns=True, brake=revision)
        self._hand.calls.clear()
        self._hand.txn((), (Put(key=key, value=encode(grant)),))

    def command(self, member: Member, verb: Any, **facts: Any) -> None:
        """Say an operator's word to one sidekick."""
        command = Command(verb=verb, by="test", at=self.now(), **facts)
        self._hand.calls.clear()
        self._hand.txn((), (Put(key=KEYS.command(APP, member.name), value=encode(command)),))

    def end_turn(self, member: Member) -> None:
        """Let an operator take the instance's turn away, as `lock release` does."""
        scope = read_scope(self._hand, KEYS, SCOPE)
        slot = scope.slot_of(member.name)
        assert slot is not None, f"{member.name} has no turn"
        self.promises.freed.add(member.name)
        free_turn(self._hand, KEYS, SCOPE, scope, slot.number, who="ann", at=self.now())

    def admit(self, member: Member) -> None:
        """Let an instance come back that had gone: what the service writes for `instance admit`."""
        key = KEYS.gone(APP, member.name)
        gone = decode(Gone, key, self.store.entries[key].value)
        admission = Admission(app=APP, instance=member.name, removal=gone.removal, at=self.now())
        self._hand.calls.clear()
        self._hand.txn((), (Delete(key=key), Put(key=KEYS.admission(APP, member.name), value=encode(admission))))

    def unblock(self, version: str) -> None:
        """Let an operator take a version's mark away; whatever it has reached counts anew."""
        self.promises.reached.pop(version, None)
        self._hand.txn((), (Delete(key=KEYS.block(APP, version)),))

    def crashed(self, error: BaseException) -> None:
        """A thread of a sidekick died of a bug."""
        raise Breach(f"seed {self.seed}: {error!r}") from error

    def crash(self, member: Member, down_s: float) -> None:
        """SIGKILL the sidekick; its workloads live on; a restart alone follows."""
        if not member.up:
            return
        member.up = False
        lease = member.life.keeper.known
        member.life.kill()
        if lease is not None and self.random.random() < 0.5:  # as when it was ended in good order; else its time ends
            self.at(self.random.uniform(0.0, 3.0), partial(self._end_lease, lease))
        self.at(down_s, partial(self._restart, member))

    def reboot(self, member: Member, down_s: float) -> None:
        """The whole machine: what ran on it is gone, and will answer at other addresses."""
        self.crash(member, down_s)
        member.boots += 1
        member.host.power_off()

    def lose_lease(self, member: Member) -> None:
        """The lease ends in etcd under a living sidekick, which finds out at its next keep-alive."""
        lease = member.life.keeper.known if member.up else None
        if lease is not None:
            self.store.end_lease(lease)

    def freeze(self, member: Member, for_s: float) -> None:
        """SIGSTOP the sidekick, and SIGCONT later."""
        life = member.life
        if member.up and not life.frozen:
            life.freeze()
            self.at(for_s, life.thaw)

    def cut_off(self, member: Member, how: Cut, for_s: float) -> None:
        """Cut the sidekick off from etcd and update service for a while."""
        client = member.life.client
        if member.up and not client.cut:
            client.set_cut(how)
            self.at(for_s, lambda: client.set_cut(""))

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self.agenda.at(delay_s, action)

    def run(self, until: Callable[[], bool], within_s: float = 7200.0) -> None:
        """Let time pass until the fact holds; the fleet being stuck is a failure that names the seed."""
        end_s = self.now_s + within_s
        with _quiet():
            while not until():
                next_s = self.agenda.next_s()
                if next_s is None or next_s > end_s:
                    where = {member.name: (member.machine.state, member.up) for member in self.members}
                    turns = {number: slot.instance for number, slot in self.slots.items()}
                    raise Breach(
                        f"seed {self.seed}: stuck after {self.now_s:.0f} s: {where}, slots {turns},"
                        f" queue {sorted(self.promises.queue)}"
                    )
                self.agenda.advance()

    def at_rest(self) -> bool:
        """Everybody is up and idle, and nobody has anything of the lock."""
        return not self.promises.slots and not self.promises.queue and all(map(at_home, self.members))

    def versions(self) -> list[str]:
        """What serves on each instance, by the balancer's entry."""
        return [member.workloads.get(member.entry or "", "nothing") for member in self.members]

    def check(self) -> None:
        """Raise ``Breach`` if a promise is broken now."""
        self.promises.check()

    def member(self, name: str) -> Member:
        return self._by_name[name]

    def take_entry(self, member: Member, url: str | None = None) -> None:
        """A person removes the server's entry, or overwrites it with ``url``."""
        self.promises.taken.add(member.name)
        server = Server(service=SERVICE, id=member.name, url=url or "http://0.0.0.0:1")
        keys = BALANCER.server_keys(server)
        self._hand.calls.clear()
        self._hand.txn((), tuple(Put(key=key, value=url.encode()) if url else Delete(key=key) for key in keys))

    # --- hooks ------------------------------------------------------------------------------------------------------

    def journalled(self, member: Member, event: AnyEvent | None, step: Step) -> None:
        """A step was written down, and nothing of it done yet."""
        self.steps += 1

    def acted(self, member: Member, step: Step) -> None:
        """The effects of a step were handed out."""

    # --- the world --------------------------------------------------------------------------------------------------

    def _restart(self, member: Member) -> None:
        member.begin(member.read_back(), member.settings())

    def _end_lease(self, lease: int) -> None:
        self.store.end_lease(lease)

    def _write_target(self) -> None:
        self._hand.calls.clear()
        self._hand.txn((), (Put(key=KEYS.target(APP, GROUP), value=encode(self._aim)),))

    def _noted(self, changes: Changes) -> None:
        self.promises.noted(changes)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the sidekicks would log isn't printed: thousands of lives would drown what matters."""
    logger.disable("outrider")
    try:
        yield
    finally:
        logger.enable("outrider")
