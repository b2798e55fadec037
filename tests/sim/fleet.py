"""A fleet in memory: real charts and rules, a made-up world, simulated time, one seed for everything.

The world is small but honest: etcd keys with revisions and leases, one balancer entry and some workloads for each
instance. Effects take time, arrive after a crash of who sent them, or lose their answers. What must always hold is
checked after every change of the world, not at the end.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from outrider.core import effects as do
from outrider.core import events as ev
from outrider.core.errors import Unknown
from outrider.core.hierarchy import Hierarchy
from outrider.core.machine import CancelTimer, Machine, Perform, Snapshot, StartTimer, Step
from outrider.core.memory import Installed, Memory, Release, Strategy, Turn
from outrider.core.rules import make_rules
from outrider.core.slots import Holding, Take, Waiting, decide, line
from outrider.sidekick.worker import failure
from outrider.statechart import load_sidekick_chart

CHART = load_sidekick_chart()
HIERARCHY = Hierarchy(CHART)
RULES = make_rules({"probe": 20.0, "soak": 5.0, "drain": 20.0}, retry_min_s=2.0, retry_max_s=60.0)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Badness = Literal["none", "refused", "unhealthy", "dies"]


class Breach(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Member:
    """One instance with its sidekick. ``life`` counts up with every crash: what an older life was told is dropped."""

    name: str
    machine: Machine[Memory]
    journal: tuple[Snapshot, Memory]
    workloads: dict[str, str] = field(default_factory=dict)
    entry: str | None = None
    up: bool = True
    life: int = 0
    leased: int | None = 1
    wish: tuple[int | None, do.AcquireLock | do.RetakeLock] | None = None
    deserted: set[str] = field(default_factory=set)
    reports: list[do.ReportResult] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=dict)


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
    ) -> None:
        self.random = random.Random(seed)
        self.seed, self.slots_allowed, self.strategy = seed, slots, strategy
        self.bad: dict[str, Badness] = bad or {}
        self.now_s = 0.0
        self.revision = 10
        self.queue: dict[str, Waiting] = {}
        self.slots: dict[int, Holding] = {}
        self.poison: set[str] = set()
        self.target: tuple[str, int] = ("1.0.0", 5)
        self.lost_answers = 0.0
        self.touched: dict[str, set[str]] = {}
        self.most_slots = 0
        self.steps = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.members = [self._member(f"web-{number}") for number in range(instances)]
        for member in self.members:
            self._settle(member, member.machine.start())
            self._announce(member)

    # --- the script's side ------------------------------------------------------------------------------------------

    def promote(self, version: str) -> None:
        """Point the group at ``version``."""
        self.revision += 1
        self.target = (version, self.revision)
        for member in self.members:
            self._announce(member)

    def crash(self, member: Member, down_s: float) -> None:
        """SIGKILL the sidekick; its workloads live on; a restart alone follows."""
        if not member.up:
            return
        member.up, member.life, member.wish = False, member.life + 1, None
        lease = member.leased
        self.at(self.random.uniform(0.0, 3.0), lambda: self._lapse(member, lease))  # unless a new one replaced it
        self.at(down_s, lambda: self._restart(member))

    def reboot(self, member: Member, down_s: float) -> None:
        """The whole machine: what ran on it is gone, and will answer at other addresses."""
        member.deserted.update(member.workloads)
        member.workloads.clear()
        self.crash(member, down_s)

    def lose_lease(self, member: Member) -> None:
        """The lease lapses under a living sidekick; a new one follows."""
        if not member.up or member.leased is None:
            return
        self._lapse(member, member.leased)
        life = member.life
        self.at(0.1, lambda: self._tell(member, life, ev.LockLost(at=self._at(), why="test")))
        self.at(1.0, lambda: self._lease(member, life))

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now_s + delay_s, self._count, action))

    def run(self, until: Callable[[], bool], within_s: float = 7200.0) -> None:
        """Let time pass until the fact holds; the fleet being stuck is a failure that names the seed."""
        while not until():
            if not self._agenda or self._agenda[0][0] > within_s:
                where = {member.name: (member.machine.state, member.up) for member in self.members}
                raise Breach(f"seed {self.seed}: stuck after {self.now_s:.0f} s: {where}, slots {self.slots}")
            self.now_s, _, action = heapq.heappop(self._agenda)
            action()

    def at_rest(self) -> bool:
        """Everybody is up and idle, and nobody has anything of the lock."""
        return (
            not self.slots
            and not self.queue
            and all(m.up and m.machine.state in ("idle.waiting", "idle.held") for m in self.members)
        )

    def versions(self) -> list[str]:
        """What serves on each instance, by the balancer's entry."""
        return [member.workloads.get(member.entry or "", "nothing") for member in self.members]

    # --- what must always hold --------------------------------------------------------------------------------------

    def check(self) -> None:
        """P1, and P3 as far as a sidekick can keep it: a version that dies by itself is excused until it is undone."""
        self.most_slots = max(self.most_slots, len(self.slots))
        if len(self.slots) > self.slots_allowed:
            raise Breach(f"seed {self.seed}: P1: {len(self.slots)} turns: {self.slots}")
        out = [m for m in self.members if m.entry not in m.workloads and m.entry not in m.deserted]
        for member in out:
            holds = any(slot.instance == member.name for slot in self.slots.values())
            if self.strategy == "start-first" or (member.entry is not None) or not holds:
                raise Breach(
                    f"seed {self.seed}: P3: {member.name} in {member.machine.state}: entry {member.entry},"
                    f" workloads {member.workloads}, turn {holds}"
                )

    # --- the sidekick's side ----------------------------------------------------------------------------------------

    def _member(self, name: str) -> Member:
        release = Release(version="1.0.0", urls=("http://x/1",), sha256="0" * 64, size_bytes=1)
        running = Installed(release=release, workload_id=f"{name}-first", url=f"http://{name}-first:0")
        memory = Memory(
            instance=name, app="app", group="g", scope="app.g", strategy=self.strategy, at=EPOCH, running=running,
            slots=self.slots_allowed,
        )  # fmt: skip
        machine = Machine(CHART, RULES, memory, hierarchy=HIERARCHY)
        member = Member(name=name, machine=machine, journal=(machine.snapshot(), memory))
        member.workloads[running.url], member.entry = "1.0.0", running.url
        return member

    def _at(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now_s)

    def _announce(self, member: Member) -> None:
        version, revision = self.target
        event = ev.TargetChanged(
            at=self._at(), version=version, paused=False, slots=self.slots_allowed, revision=revision
        )
        life = member.life
        self.at(self.random.uniform(0.0, 0.2), lambda: self._tell(member, life, event))
        poison = dict.fromkeys(self.poison, "web-0: test")
        self.at(0.2, lambda: self._tell(member, life, ev.PoisonChanged(at=self._at(), versions=poison)))

    def _tell(self, member: Member, life: int, event: ev.AnyEvent) -> None:
        if member.up and member.life == life:
            self._settle(member, member.machine.step(event))

    def _settle(self, member: Member, step: Step) -> None:
        if step.dropped:
            return
        self.steps += 1
        member.journal = (member.machine.snapshot(), member.machine.memory)
        life = member.life
        for action in step.actions:
            match action:
                case Perform():
                    self._send(member, life, action)
                case StartTimer():
                    self.at(action.delay_s, self._expiry(member, life, action))
                case CancelTimer():
                    pass
        self.check()

    def _expiry(self, member: Member, life: int, timer: StartTimer) -> Callable[[], None]:
        def expire() -> None:
            event = ev.TimerExpired(name=timer.event, at=self._at(), generation=timer.generation)
            self._tell(member, life, event)

        return expire

    def _send(self, member: Member, life: int, action: Perform) -> None:
        """The effect reaches the world a little later, whether or not its sender still lives."""

        def arrive() -> None:
            event = self._perform(member, life, action.effect, action.request)
            self.check()
            # what this machine itself does is never in doubt; a lost answer of the network is told as one
            lost = noun in ("lock", "balancer", "release") and self.random.random() < self.lost_answers
            if event is not None and lost:
                event = failure(action.effect.name, Unknown("no answer"), action.request)
            if event is not None:
                self.at(self.random.uniform(0.001, 0.2), partial(self._tell, member, life, event))

        noun = action.effect.name.partition(".")[0]
        arrives_s = max(self.now_s + self.random.uniform(0.001, 0.05), member.busy_s.get(noun, 0.0) + 0.0001)
        member.busy_s[noun] = arrives_s  # effects on one noun stay in order
        self.at(arrives_s - self.now_s, arrive)

    def _restart(self, member: Member) -> None:
        snapshot, memory = member.journal
        member.machine = Machine.restore(CHART, RULES, memory, snapshot, hierarchy=HIERARCHY)
        member.up = True
        life = member.life
        self._settle(member, member.machine.step(ev.SidekickRestarted(at=self._at())))
        self._announce(member)
        self.at(self.random.uniform(0.01, 1.0), lambda: self._lease(member, life))

    # --- the store --------------------------------------------------------------------------------------------------

    def _lapse(self, member: Member, lease: int | None) -> None:
        if lease is None or member.leased != lease:
            return
        member.leased = None
        self.queue.pop(member.name, None)
        self._wake()

    def _lease(self, member: Member, life: int) -> None:
        if member.up and member.life == life:
            self._lapse(member, member.leased)  # a restarted sidekick's lease isn't the one of its earlier life
            self.revision += 1
            member.leased = self.revision
            self._wake()

    def _enqueue(self, member: Member) -> None:
        self.revision += 1
        self.queue[member.name] = Waiting(
            instance=member.name, key=member.name, create_revision=self.revision, mod_revision=self.revision
        )

    def _wake(self) -> None:
        """Let whoever may take a slot now take it."""
        for member in self.members:
            if member.wish is None or not member.up or member.leased is None:
                continue
            if member.name not in self.queue:
                self._enqueue(member)
        for waiting in line(self.queue.values(), self.slots.values()):
            member = next(one for one in self.members if one.name == waiting.instance)
            choice = decide(member.name, self.queue.values(), self.slots.values(), self.slots_allowed)
            if not isinstance(choice, Take) or member.wish is None:
                return
            request, effect = member.wish
            member.wish = None
            life = member.life
            event: ev.AnyEvent
            if isinstance(effect, do.AcquireLock) and effect.version in self.poison:
                self.queue.pop(member.name)
                event = ev.LockRefused(at=self._at(), request=request, cause="poisoned")
            elif isinstance(effect, do.AcquireLock) and effect.target_revision not in (-1, self.target[1]):
                self.queue.pop(member.name)
                event = ev.LockRefused(at=self._at(), request=request, cause="target changed")
            else:
                self.revision += 1
                self.slots[choice.number] = Holding(
                    number=choice.number, instance=member.name, create_revision=self.revision, update=effect.update
                )
                event = ev.LockAcquired(at=self._at(), request=request, turn=self._turn(member, choice.number))
            self.check()
            self.at(0.02, self._telling(member, life, event))

    def _telling(self, member: Member, life: int, event: ev.AnyEvent) -> Callable[[], None]:
        return lambda: self._tell(member, life, event)

    def _turn(self, member: Member, number: int) -> Turn:
        slot = self.slots[number]
        return Turn(
            scope="app.g", number=number, slot_revision=slot.create_revision,
            waiter_revision=self.queue[member.name].create_revision, update=slot.update,
        )  # fmt: skip

    def _own_slot(self, member: Member, turn: Turn | None, update: str) -> int | None:
        for number, slot in self.slots.items():
            if slot.instance == member.name and (
                slot.update == update if turn is None else slot.create_revision == turn.slot_revision
            ):
                return number
        return None

    def _fenced(self, member: Member, turn: Turn | None) -> bool:
        waiting = self.queue.get(member.name)
        return (
            turn is not None
            and self._own_slot(member, turn, "") is not None
            and waiting is not None
            and waiting.create_revision == turn.waiter_revision
        )

    # --- the world --------------------------------------------------------------------------------------------------

    def _perform(self, member: Member, life: int, effect: Any, request: int | None) -> ev.AnyEvent | None:
        at = self._at()
        noun = effect.name.partition(".")[0]
        if noun == "lock":
            return self._perform_lock(member, life, effect, request)
        if noun == "workload":
            return self._perform_workload(member, effect, request)
        if noun == "balancer":
            return self._perform_balancer(member, effect, request)
        match effect:
            case do.StartProbe() | do.ConfirmProbe():
                version = member.workloads.get(effect.url)
                if version is None or self.bad.get(version) == "unhealthy":
                    return ev.ProbeFailed(at=at, request=request, cause="503")
                return ev.ProbePassed(at=at, request=request, url=effect.url)
            case do.WatchProbe():
                version = member.workloads.get(effect.url)
                if version is not None and self.bad.get(version) == "dies":
                    self.at(1.0, lambda: self._die(member, effect.url))
                return None
            case do.CheckRelease():
                version = self.target[0]
                if version in self.poison or version == effect.version:
                    return ev.ReleaseMissing(at=at, request=request, reason="nothing for you")
                update = f"{self.random.getrandbits(64):016x}"
                return ev.ReleaseFound(
                    at=at, request=request, version=version, urls=("http://x/p",), sha256="1" * 64, size_bytes=1,
                    update=update,
                )  # fmt: skip
            case do.DownloadRelease():
                return ev.ReleaseDownloaded(at=at, request=request)
            case do.VerifyRelease():
                return ev.ReleaseVerified(at=at, request=request)
            case do.ReportResult():
                member.reports.append(effect)
                return ev.ReportQueued(at=at, request=request)
            case _:
                return None

    def _die(self, member: Member, url: str) -> None:
        if member.workloads.pop(url, None) is not None:
            member.deserted.add(url)
            event = ev.WorkloadExited(at=self._at(), workload_id=_id_of(url), status="exit 1")
            self._tell(member, member.life, event)

    def _perform_lock(self, member: Member, life: int, effect: Any, request: int | None) -> ev.AnyEvent | None:
        at = self._at()
        match effect:
            case do.AcquireLock():
                if member.life == life:
                    member.wish = (request, effect)
                    self._wake()
                return None
            case do.RetakeLock() | do.ReclaimLock():
                if member.life != life:
                    return None
                number = self._own_slot(member, effect.turn, effect.update)
                if number is None and isinstance(effect, do.RetakeLock):
                    member.wish = (request, effect)
                    self._wake()
                    return None
                if number is None:
                    return ev.LockRefused(at=at, request=request, cause="not ours")
                if member.leased is None:
                    return ev.LockFailed(at=at, request=request, cause="no lease")
                if member.name not in self.queue:
                    self._enqueue(member)
                return ev.LockAcquired(at=at, request=request, turn=self._turn(member, number))
            case do.ReleaseLock() | do.CondemnLock():
                if member.life == life:
                    member.wish = None
                number = self._own_slot(member, effect.turn, effect.update)
                if number is not None:
                    del self.slots[number]
                if isinstance(effect, do.CondemnLock):
                    self.poison.add(effect.version)
                    for one in self.members:
                        self._announce(one)
                if member.life == life:
                    self.queue.pop(member.name, None)
                self._wake()
                return ev.LockReleased(at=at, request=request)
            case _:
                raise AssertionError(effect)

    def _perform_workload(self, member: Member, effect: Any, request: int | None) -> ev.AnyEvent | None:
        at = self._at()
        match effect:
            case do.EnsureWorkload():
                if effect.installed is None:
                    return ev.WorkloadAbsent(at=at, request=request)
                return self._run(member, effect.installed, request)
            case do.TidyWorkload():
                for name in {_id_of(url) for url in member.workloads}.difference(effect.keep):
                    _end(member, name)
                return None
            case do.StartWorkload():
                return self._run(member, effect.installed, request)
            case do.ReplaceWorkload() | do.RevertWorkload():
                gone, come = (effect.old, effect.new)
                if isinstance(effect, do.RevertWorkload):
                    gone, come = come, gone
                if gone is not None:
                    _end(member, gone.workload_id)
                if come is None:
                    return ev.WorkloadAbsent(at=at, request=request)
                return self._run(member, come, request)
            case do.RetireWorkload() | do.RemoveWorkload():
                if effect.installed is not None:
                    _end(member, effect.installed.workload_id)
                if isinstance(effect, do.RetireWorkload):
                    return ev.WorkloadRetired(at=at, request=request)
                return ev.WorkloadRemoved(at=at, request=request)
            case do.ReviveWorkload():
                for installed in effect.installed:
                    self._run(member, installed, None)
                return None
            case _:
                raise AssertionError(effect)

    def _run(self, member: Member, installed: Installed, request: int | None) -> ev.AnyEvent:
        version = installed.release.version
        self.touched.setdefault(version, set()).add(member.name)
        if self.bad.get(version) == "refused":
            return ev.WorkloadFailed(at=self._at(), request=request, blame="release", cause="no such command")
        url = next((url for url in member.workloads if _id_of(url) == installed.workload_id), None)
        if url is None:
            self._count += 1
            url = f"http://{installed.workload_id}:{self._count}"
        member.workloads[url] = version
        return ev.WorkloadStarted(at=self._at(), request=request, workload_id=installed.workload_id, url=url)

    def _perform_balancer(self, member: Member, effect: Any, request: int | None) -> ev.AnyEvent | None:
        at = self._at()
        match effect:
            case do.SwitchBalancer() | do.RestoreBalancer():
                if member.entry != effect.url:
                    if not self._fenced(member, effect.turn):
                        return ev.BalancerRefused(at=at, request=request, cause="fence")
                    member.entry = effect.url
                if isinstance(effect, do.SwitchBalancer):
                    return ev.BalancerSwitched(at=at, request=request)
                return ev.BalancerRestored(at=at, request=request)
            case do.LeaveBalancer():
                if member.entry is not None and not self._fenced(member, effect.turn):
                    return ev.BalancerRefused(at=at, request=request, cause="fence")
                member.entry = None
                return ev.BalancerLeft(at=at, request=request)
            case do.JoinBalancer() | do.ReturnBalancer():
                if effect.url is not None:
                    if member.entry not in (None, effect.url, *effect.replacing):
                        return ev.BalancerRefused(at=at, request=request, cause=f"{member.entry} isn't ours")
                    member.entry = effect.url
                return ev.BalancerJoined(at=at, request=request)
            case do.DrainBalancer() | do.UndrainBalancer():
                return ev.BalancerDrained(at=at, request=request, how="asked")
            case _:
                raise AssertionError(effect)


def _id_of(url: str) -> str:
    return url.removeprefix("http://").rpartition(":")[0]


def _end(member: Member, workload_id: str) -> None:
    for url in [url for url in member.workloads if _id_of(url) == workload_id]:
        del member.workloads[url]
