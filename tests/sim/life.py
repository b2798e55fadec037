"""One process of a sidekick: the real loop, workers' nouns, lock and entry, in a made-up world.

What is real: ``Sidekick`` (timers, inbox, order of journal and effects), ``LockWork`` with ``TurnLock`` and ``Claim``,
``BalancerWork`` with ``EtcdEntry`` and the keys of Traefik, ``WorkloadWork``, ``ProbeWork``, ``ReleaseWork``,
``Announcements``. Made up: time, etcd, the machine, the balancer's answers, the update service.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from outrider.balancers.drain import Drain
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.clocks import LATE_S, TICK_S
from outrider.core.errors import Unknown
from outrider.core.omaha import Report
from outrider.core.sidekick.effects import ReportEffect, ReportResult
from outrider.core.sidekick.events import AnyEvent, LockLost, OperatorRolledBack, ReleaseFound
from outrider.core.sidekick.memory import Memory
from outrider.etcd.lease import LeaseKeeper
from outrider.journal.journal import Journal
from outrider.model.documents import Contender, Owner
from outrider.model.keys import group_scope
from outrider.omaha_client import Upstream
from outrider.payloads.store import PayloadStore
from outrider.sidekick.entry_watch import EntryWatch
from outrider.sidekick.environments import Environments
from outrider.sidekick.prober import Prober
from outrider.sidekick.provenance import RecordedInEtcd
from outrider.sidekick.task_claims import TaskClaims
from outrider.sidekick.workers.analysis import AnalysisWork
from outrider.sidekick.workers.balancer import BalancerWork
from outrider.sidekick.workers.lock import LockWork
from outrider.sidekick.workers.probe import ProbeWork
from outrider.sidekick.workers.release import ReleaseWork
from outrider.sidekick.workers.report import ReportWork
from outrider.sidekick.workers.task import Follow, TaskWork
from outrider.sidekick.workers.worker import Noun
from outrider.sidekick.workers.workload import WorkloadWork
from outrider.turns.lock import TurnLock
from outrider.turns.oldest import OldestVersion
from outrider.turns.running import RunningKeys
from outrider.turns.wait import Wait
from tests.sim.host import SimAnalysis, SimEnvironments, SimPayloads, SimProber, SimRuntime
from tests.sim.keeper import SimAnnouncements, SimKeeper, SimSubject
from tests.sim.loop import SimLoop
from tests.sim.store import KEYS, SimClient
from tests.sim.tasks import SimPrograms, due_tasks_of, follow, look_for_due, write_presence
from tests.sim.workers import SimDrain, SimUpstream, SimWorker

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet, Member

APP, GROUP, SERVICE = "app", "g", "example"
SCOPE = group_scope(APP, GROUP)
BALANCER = TraefikKeys(TraefikSettings(), service=SERVICE)
TTL_S = 30.0
STOP_GRACE_S = 1.0


class Life:
    """One process, from its start to its kill. What is dead does and says nothing any more."""

    def __init__(self, fleet: "Fleet", member: "Member", memory: Memory, journal: Journal) -> None:
        self.fleet, self.member = fleet, member
        self.dead = self.frozen = self._looks_for_due = False
        self._frozen_at_s = self._stood_s = 0.0
        self._held: list[Callable[[], None]] = []
        self._heard_s: dict[str, float] = {}
        self.client = SimClient(fleet.store, member.name, fleet.faults, fleet.random, self.at, self.noticed)
        self.keeper = SimKeeper(
            self.client, TTL_S, on_granted=self._granted, on_lost=self._lost, agenda=fleet.agenda,
            random=fleet.random, at=self.at,
        )  # fmt: skip
        self.announcements = SimAnnouncements(
            self.client, KEYS, app=APP, group=GROUP, instance=member.name, post=self.post, at=self.at,
            random=fleet.random,
        )  # fmt: skip
        self._process = memory.process
        self.secret = f"{fleet.random.getrandbits(256):064x}"
        self.acknowledged: int | None = None
        self.runtime = SimRuntime(member.host, self.spend, self.at)
        self.wait: Wait | None = None
        self._looking = False
        self._lock_work = LockWork(
            self.client,
            KEYS,
            TurnLock(
                self.client,
                KEYS,
                Contender(app=APP, group=GROUP, instance=member.name, labels=fleet.labels_of(member.name)),
                clock=fleet.now,
                start=self._start_wait,
            ),
            cast(LeaseKeeper, self.keeper),
            app=APP,
            group=GROUP,
            instance=member.name,
            post=self.post,
            own_keys=(KEYS.server(SERVICE, member.name), KEYS.presence(APP, GROUP, member.name)),
        )
        payloads = cast(PayloadStore, SimPayloads(member.host, self.spend, self._cut_download))
        environments = cast(Environments, SimEnvironments())
        owner = Owner(app=APP, group=GROUP, instance=member.name, process=memory.process)
        entry = EtcdEntry(
            self.client,
            BALANCER,
            service=SERVICE,
            server_id=member.name,
            owner=owner,
            predecessors=memory.predecessors,
        )
        self._entry_watch = EntryWatch(self.client, entry, self.post)
        self._watched_entry = entry.watched
        self.claims = TaskClaims(
            self.client,
            KEYS,
            app=APP,
            group=GROUP,
            instance=member.name,
            process=memory.process,
            clock=fleet.now,
        )
        self.oldest = OldestVersion(self.client, KEYS, app=APP, group=GROUP, scope=group_scope(APP, GROUP))
        running = RunningKeys(self.client, KEYS, app=APP, group=GROUP, instance=member.name, oldest=self.oldest)
        nouns: dict[str, Noun[Any]] = {
            "lock": self._lock_work,
            "workload": WorkloadWork(
                self.runtime,
                payloads,
                stop_grace_s=STOP_GRACE_S,
                post=self.post,
                environments=environments,
                permit=lambda release: running.note(release, fleet.now()),
            ),
            "balancer": BalancerWork(
                entry, cast(Drain, SimDrain(self)), KEYS, member=member.name, inflight_path="", post=self.post
            ),
            "release": ReleaseWork(
                cast(Upstream, SimUpstream(self)),
                payloads,
                self.runtime,
                self.post,
                environments,
                self.claims.tasks_of,
                provenance=RecordedInEtcd(self.client, KEYS, app=APP, group=GROUP),
            ),
            "task": TaskWork(
                self.client,
                self.claims,
                SimPrograms(self),
                post=self.post,
                crash=fleet.crashed,
                start=self._follow_tasks,
            ),
            "probe": ProbeWork(cast(Prober, SimProber(member.host, self.at, self.unsuspended_s)), self.post),
            "analysis": AnalysisWork(
                lambda effect, *, deliver, tell: SimAnalysis(member.host, effect.url, deliver, tell, self.at), self.post
            ),
        }
        self.workers: dict[str, SimWorker] = {name: SimWorker(self, noun) for name, noun in nouns.items()}
        self._reports = ReportWork(self._queued, self.post)
        self.submits: dict[str, Callable[[Any, int | None], None]] = {
            **{name: worker.submit for name, worker in self.workers.items()},
            "report": self._report,
            "sidekick": lambda effect, request: None,
        }
        self.loop = SimLoop(self, journal, memory)

    def begin(self) -> None:
        """As ``Assembly.run`` begins."""
        self.keeper.start()
        self.announcements.start(
            command_revision=self.loop.memory.command_revision, default_slots=self.fleet.slots_allowed
        )
        SimSubject(
            self.client, self._watched_entry, self._entry_watch.tell, exact=False, at=self.at, random=self.fleet.random
        )
        self.loop.begin()

    def at(self, delay_s: float, action: Callable[[], None]) -> Any:
        """Do something later, if the process lives then; while it stands still, when it goes on."""
        return self.fleet.agenda.at(delay_s, partial(self._go, action))

    def _go(self, action: Callable[[], None]) -> None:
        if self.frozen:
            self._held.append(action)
        elif not self.dead:
            action()

    def unsuspended_s(self) -> float:
        """As ``SuspendAwareClock`` shows it."""
        return self.fleet.now_s - self._stood_s

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen, self._frozen_at_s = True, self.fleet.now_s

    def thaw(self) -> None:
        """SIGCONT: everything goes on at once, in the order in which it was due."""
        self.frozen = False
        stood_s = self.fleet.now_s - self._frozen_at_s
        self._stood_s += stood_s - TICK_S if stood_s > LATE_S else 0.0
        held, self._held = self._held, []
        delay_s = 0.0
        for action in held:
            delay_s += self.fleet.random.uniform(0.0, 0.005)
            self.at(delay_s, action)

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True
        self._held.clear()
        for worker in self.workers.values():
            worker.outlive()
        self.runtime.close()
        self.client.stream.close()
        self.fleet.store.forget(self.client.stream)

    def _cut_download(self) -> None:
        self.workers["release"].cut()

    def spend(self, seconds: float) -> None:
        """Let the call under way take so long."""
        self.client.spent_s += seconds

    def post(self, event: AnyEvent) -> None:
        """Hand an event to the loop, when the call under way is over; events of one thread stay in order."""
        if isinstance(event, ReleaseFound | OperatorRolledBack):
            event = replace(event, update=f"{self.fleet.random.getrandbits(64):016x}")
        heard_s = self.fleet.now_s + self.client.spent_s + self.fleet.random.uniform(0.001, 0.1)
        noun = event.name.partition(".")[0]
        heard_s = self._heard_s[noun] = max(heard_s, self._heard_s.get(noun, 0.0))
        self.at(heard_s - self.fleet.now_s, partial(self._hear, event))

    def _hear(self, event: AnyEvent) -> None:
        self.loop.post(replace(event, at=self.fleet.now()))
        self.loop.work()

    def _report(self, effect: ReportEffect, request: int | None) -> None:
        self.client.spent_s = 0.0
        if isinstance(effect, ReportResult):
            self.member.reports.append(effect)
        self._reports.perform(effect, request)

    def _queued(self, report: Report) -> None:
        self.member.outbox.append(report)

    def _granted(self) -> None:
        pending = self._lock_work.take_pending()
        if pending is not None:
            self.workers["lock"].submit(*pending)
        self.write_presence()
        if self.fleet.tasks.follows:
            self.look_for_due()

    def write_presence(self) -> None:
        """The presence's own thread hears of a lease."""
        if not self.dead:
            write_presence(self, self._process, self.write_presence)

    def look_for_due(self) -> None:
        """Only where a task that follows a rollout was made due."""
        if self._looks_for_due:
            return
        self._looks_for_due = True
        self.at(self.fleet.random.uniform(0.01, 1.0), partial(look_for_due, self, due_tasks_of(self, self._process)))

    def proof(self) -> str:
        """As ``PresenceWriter.proof``."""
        if self.keeper.lease is None or self.acknowledged != self.keeper.lease:
            raise Unknown("the update service wasn't asked: etcd hasn't acknowledged the presence yet")
        return self.secret

    def _follow_tasks(self, one: Follow) -> None:
        self.at(self.fleet.random.uniform(0.01, 0.2), partial(follow, self, one))

    def _lost(self, why: str) -> None:
        self.post(LockLost(at=self.fleet.now(), why=why))

    # --- the lock's own thread ---------------------------------------------------------------------------------------

    def _start_wait(self, wait: Wait) -> None:
        if self.wait is not None:
            self.wait.close_watches()
        self.wait = wait
        self._look_soon(0.01)

    def noticed(self) -> None:
        """A watch has delivered: the wait may have something to look at."""
        if self.wait is not None and self.wait.due:
            self._look_soon(0.02)

    def _look_soon(self, within_s: float) -> None:
        if not self._looking:
            self._looking = True
            self.at(self.fleet.random.uniform(0.001, within_s), self._look)

    def _look(self) -> None:
        self._looking = False
        wait = self.wait
        if wait is None or wait.ended:
            return
        self.client.spent_s = 0.0
        wait.round()
        if wait.ended:
            wait.close_watches()
        elif wait.due:
            pause_s = self.fleet.random.uniform(0.05, 1.0) if self.client.spent_s else 0.005
            self._look_soon(self.client.spent_s + pause_s)
