"""Puts a sidekick together from settings, runs it, and takes it apart again."""

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from loguru import logger

from outrider.balancers.drain import Drain
from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.clocks import ServiceClock
from outrider.config.cautions import unproved, unverified
from outrider.config.sections import EtcdSettings, Settings
from outrider.core.chart.model import Chart
from outrider.core.errors import ConfigError, OutriderError
from outrider.core.omaha import app_key
from outrider.core.sidekick.effects import SidekickEffect
from outrider.core.sidekick.events import AnyEvent, LockLost
from outrider.core.sidekick.guards import has_turn
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.rules import make_rules
from outrider.etcd.address import endpoints_of
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Cluster, EtcdAddress
from outrider.etcd.seen import SeenRevision
from outrider.journal.journal import Journal
from outrider.model.documents import Contender, Owner
from outrider.model.keys import Keys
from outrider.omaha_client import Upstream
from outrider.payloads.store import PayloadStore
from outrider.runtimes import HealthReporter, Runtime
from outrider.runtimes.adopted.runtime import with_adopted
from outrider.runtimes.drivers import RUNTIMES, RuntimeContext
from outrider.sd_notify import Notices, Notifier
from outrider.sidekick.adoption import adopted
from outrider.sidekick.analysing import InstanceAnalyst
from outrider.sidekick.announcements import Announcements
from outrider.sidekick.crashes import tell_begun, tell_crash
from outrider.sidekick.due_tasks import DueTasks
from outrider.sidekick.entry_watch import EntryWatch
from outrider.sidekick.environments import Environments, ReferenceWatch
from outrider.sidekick.gauges import Gauges
from outrider.sidekick.identity import Identity, identity_of
from outrider.sidekick.loop import Sidekick
from outrider.sidekick.outbox import Outbox
from outrider.sidekick.presence import PresenceWriter
from outrider.sidekick.prober import Prober
from outrider.sidekick.provenance import provenance_of
from outrider.sidekick.session import EtcdSession
from outrider.sidekick.signatures import signatures_of
from outrider.sidekick.steps import StepsWriter
from outrider.sidekick.task_claims import TaskClaims
from outrider.sidekick.task_programs import TaskPrograms
from outrider.sidekick.workers.analysis import AnalysisWork
from outrider.sidekick.workers.balancer import BalancerWork
from outrider.sidekick.workers.lock import LockWork
from outrider.sidekick.workers.probe import ProbeWork
from outrider.sidekick.workers.release import ReleaseWork
from outrider.sidekick.workers.report import ReportWork
from outrider.sidekick.workers.task import TaskWork
from outrider.sidekick.workers.worker import Noun, Worker, now
from outrider.sidekick.workers.workload import WorkloadWork
from outrider.statechart import load_sidekick_chart
from outrider.turns.lock import TurnLock
from outrider.turns.oldest import OldestVersion, TooOld
from outrider.turns.running import RunningKeys

STOP_WITHIN_S = 5.0
_SLACK_S = 30.0
"""The chart's deadline lies this much behind the driver's own: the driver's verdict is the better-worded one."""
_UNPACK_S = 60.0
"""More for the first start of a version, which unpacks it."""


def etcd_address(settings: EtcdSettings) -> EtcdAddress:
    """What ``[etcd]`` says, in the seam's terms.

    Raises:
        ConfigError: endpoints that can't be used, which loading the settings refuses too.
    """
    try:
        endpoints, tls = endpoints_of(settings.endpoints, tls=bool(settings.ca_file or settings.cert_file))
    except ValueError as problem:
        raise ConfigError(f"etcd.endpoints: {problem}") from problem
    return EtcdAddress(
        endpoints=endpoints,
        tls=tls,
        ca_file=str(settings.ca_file) if settings.ca_file else None,
        cert_file=str(settings.cert_file) if settings.cert_file else None,
        key_file=str(settings.key_file) if settings.key_file else None,
        user=settings.user or None,
        password=settings.password.reveal() or None,
        password_file=str(settings.password_file) if settings.password_file else None,
        timeout_s=settings.timeout_s,
    )


def delays(settings: Settings) -> Mapping[str, float]:
    """Timers of the chart whose delay is the operator's: timer id -> seconds.

    With every setting left out they are what the chart says. What isn't here says why in the chart (``o:fixed``), but
    for ``retry``, which ``make_rules`` makes from ``service.retry_min_s``.
    """
    drain_s = settings.drain.max_s + settings.drain.confirm_timeout_s + _SLACK_S
    probe_s = settings.probe.deadline_s + _SLACK_S
    start_s = settings.workload.start_timeout_s
    stop_s = settings.workload.stop_grace_s + _SLACK_S
    # asked again after a call that had no answer; before it ended the answer of each call would come too late
    again_s = settings.etcd.timeout_s + 2.0
    # several such calls, and the time for some of them to be tried again
    entry_s = 5.0 * settings.etcd.timeout_s
    service = settings.service
    poll_s = service.foreign_poll_interval_s if service.kind == "omaha" else service.poll_interval_s
    return {
        "poll": poll_s,
        "poll-deferred": poll_s,
        "check": settings.service.timeout_s * len(settings.service.urls) + _SLACK_S,
        "download": settings.download.deadline_s + _SLACK_S,
        "verify": settings.download.verify_timeout_s,
        "queue": settings.lock.alarm_after_s,
        "ready": settings.lock.alarm_after_s,
        "overdue": settings.lock.alarm_after_s,
        "wake": start_s,
        "ensure": start_s,
        "start": start_s + _UNPACK_S,
        "replace": stop_s + start_s,
        "revert": max(stop_s, start_s),
        "retire": stop_s,
        "remove": stop_s,
        "retreat": stop_s,
        "probe": probe_s,
        "prove": probe_s,
        "reprobe": probe_s,
        "reprove": probe_s,
        "drain": drain_s,
        "undrain": drain_s,
        "empty": drain_s,
        "stop": stop_s,
        "soak": soak_s(settings),
        "analysis": settings.analysis.deadline_s + _SLACK_S,
        "leave": entry_s,
        "depart": entry_s,
        "switch": entry_s,
        "join": entry_s,
        "rejoin": entry_s,
        "reclaim": 2.0 * again_s,
        "relock": 2.0 * again_s,
        "retake": 2.0 * again_s,
        **dict.fromkeys(
            ("withdraw", "release", "giveback", "block", "restore", "quit", "return", "comeback", "yield", "resign"),
            again_s,
        ),
    }


def soak_s(settings: Settings) -> float:
    """How long the new version is watched, in seconds; 0 when the operator wants no watch.

    At least as long as ``probe.failures`` answers may take. A version that doesn't answer at all is blocked after that
    time, and a shorter watch could never say no.
    """
    if settings.soak.duration_s == 0:
        return 0.0
    probe = settings.probe
    return max(settings.soak.duration_s, probe.failures * max(probe.timeout_s, probe.interval_s) + probe.interval_s)


def contender(settings: Settings) -> Contender:
    """The scope in which the sidekick takes turns, and its name there."""
    instance = settings.instance
    return Contender(
        app=app_key(instance.app),
        group=instance.group,
        instance=instance.id,
        shared_scope=settings.lock.scope,
        labels=dict(instance.labels),
    )


def first_memory(settings: Settings, runtime: Runtime, identity: Identity) -> Memory:
    """What a sidekick knows before its first event."""
    instance = settings.instance
    return Memory(
        instance=instance.id,
        app=app_key(instance.app),
        group=instance.group,
        scope=contender(settings).scope,
        strategy=instance.strategy,
        at=now(),
        allow_downgrade=instance.allow_downgrade,
        slots=settings.lock.slots,
        runtime=runtime.name,
        kinds=tuple(sorted(runtime.kinds)),
        labels=tuple(sorted(instance.labels.items())),
        analysis=settings.analysis.undecided if settings.analysis.is_wanted else "",
        process=identity.process,
        home=identity.home,
        predecessors=identity.predecessors,
    )


def session_of(
    settings: Settings, cluster: Cluster | None = None, *, on_bug: Callable[[BaseException], None] | None = None
) -> EtcdSession:
    """A session with the etcd of ``settings``; nothing is asked yet. ``on_bug`` hears of bugs in its threads."""
    cluster = cluster or connect(etcd_address(settings.etcd), on_bug=on_bug)
    return EtcdSession(cluster, Keys(settings.etcd.prefix), settings.lock.ttl_s)


class Assembly:
    """A sidekick with all that it needs."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: Cluster | None = None,
        session: EtcdSession | None = None,
        notifier: Notices | None = None,
        owns_process: bool = False,
        shares_process: bool = False,
    ) -> None:
        """Open the journal and the outbox, connect to nothing yet that could fail for being away.

        Args:
            cluster: The connection to use; None: a new one, as the settings say.
            session: One that other instances of this process use, too; it is neither started nor closed here.
            notifier: Who hears of the state; None: systemd.
            owns_process, shares_process: See ``RuntimeContext``.

        Raises:
            JournalError: the journal can't be opened, or another sidekick has it.
            ConfigError: the journal is another instance's, or a setting can't work.
            ChartError: the shipped chart is unsound.
            DriverError: the runtime can't tell what runs.
        """
        self._journal = Journal(settings.instance.state_dir, reserve_bytes=settings.instance.reserve_bytes)
        with ExitStack() as made:  # where the rest can't be made, the next attempt in this process needs the journal
            made.callback(self._journal.close)
            self._keys, self._shares_session = Keys(settings.etcd.prefix), session is not None
            self._session = session or session_of(settings, cluster, on_bug=self.crash)
            self._cluster = self._session.cluster
            context = RuntimeContext(environment=os.environ, owns_process=owns_process, shares_process=shares_process)
            try:
                self._make(settings, made, notifier=notifier, context=context)
            except OutriderError as error:
                self._tell_cannot_begin(settings, error)
                raise
            made.pop_all()

    def _make(
        self,
        settings: Settings,
        made: ExitStack,
        *,
        notifier: Notices | None,
        context: RuntimeContext,
    ) -> None:
        """Make the rest; ``made`` has what holds a thread or a file."""
        instance, app, us = settings.instance, app_key(settings.instance.app), contender(settings)
        chart = _chart()
        rules = make_rules(
            delays(settings), retry_min_s=settings.service.retry_min_s, retry_max_s=settings.service.retry_max_s
        )
        identity = identity_of(instance.state_dir, self._journal.last)
        keys = self._keys
        clock, pool = self._session.clock, self._session.pool
        notifier = notifier or Notifier.from_environment(os.environ)
        service_clock, service = ServiceClock(), settings.service
        verify = True if service.ca_file is None else str(service.ca_file)
        certificate = None if service.cert_file is None else str(service.cert_file)
        seen = SeenRevision(lambda: self._session.epoch)
        upstream = Upstream(
            urls=settings.service.urls,
            app_id=instance.app,
            group=instance.group,
            instance=instance.id,
            alias=instance.alias,
            timeout_s=settings.service.timeout_s,
            takes_turns=True,
            allow_downgrade=instance.allow_downgrade,
            on_date=service_clock.tell,
            seen=seen,
            verify=verify,
            certificate=certificate,
            proof=self._prove if service.kind == "outrider" else None,
            allow_plain=service.allow_plain_identity,
            is_foreign=service.kind == "omaha",
        )
        payloads = PayloadStore(
            instance.state_dir / "payloads",
            settings.download,
            verify=verify,
            certificate=certificate,
            reserve_bytes=instance.reserve_bytes,
        )
        runtime = RUNTIMES.load(instance.runtime).make(settings, context)
        self._runtime = with_adopted(runtime, settings, os.environ)
        made.callback(self._runtime.close)
        environments = Environments(self._cluster, keys, app=app, group=instance.group, state_dir=instance.state_dir)
        reporter = self._runtime if isinstance(self._runtime, HealthReporter) else None
        self._presence = PresenceWriter(
            self._cluster,
            keys,
            us,
            identity,
            lambda: self._session.lease,
            self._post,
            self._note_accepted,
            caution=unverified(service) or unproved(service),
            pool=pool,
        )
        made.callback(self._presence.close)
        self._outbox = Outbox(instance.state_dir / "outbox", upstream.send, pool=pool)
        made.callback(self._outbox.close, 0.0)
        written = SeenRevision()
        if isinstance(self._cluster, EtcdCluster):
            self._cluster.tell_denials(self._presence.deny)
            self._cluster.tell_written(written.note)
        self._steps = StepsWriter(
            self._cluster,
            keys,
            chart,
            self._journal.path,
            lambda: self._session.lease,
            app=app,
            group=instance.group,
            instance=instance.id,
            pool=pool,
        )
        oldest = OldestVersion(self._cluster, keys, app=app, group=instance.group, scope=us.scope)
        self._running = RunningKeys(
            self._cluster, keys, app=app, group=instance.group, instance=instance.id, oldest=oldest
        )
        owner = Owner(app=app, group=instance.group, instance=instance.id, process=identity.process)
        balancer = BALANCERS.load(instance.balancer).make(
            settings,
            BalancerContext(cluster=self._cluster, keys=keys, owner=owner, predecessors=identity.predecessors),
        )
        self._entry_watch = EntryWatch(self._cluster, balancer.entry, self._post)
        self._lock_work = LockWork(
            self._cluster,
            keys,
            TurnLock(self._cluster, keys, us, clock=service_clock),
            self._session,
            app=app,
            group=instance.group,
            instance=instance.id,
            post=self._post,
            own_keys=tuple(filter(None, (balancer.entry.guard, keys.presence(app, instance.group, instance.id)))),
            resigned=self._presence.doubt,
        )
        claims = TaskClaims(
            self._cluster,
            keys,
            app=app,
            group=instance.group,
            instance=instance.id,
            process=identity.process,
            clock=service_clock,
        )
        names = {"OUTRIDER_APP": app, "OUTRIDER_GROUP": instance.group, "OUTRIDER_INSTANCE": instance.id}
        programs, after = (
            TaskPrograms(
                payloads,
                folder=instance.state_dir / folder,
                names=names,
                variables=settings.workload.env,
                given=environments.given,
            )
            for folder in ("tasks", "due-tasks")
        )
        self._due_tasks = DueTasks(
            self._cluster,
            keys,
            claims,
            after,
            oldest,
            app=app,
            group=instance.group,
            instance=instance.id,
            process=identity.process,
            find_payload=payloads.find,
            clock=service_clock,
            crash=self.crash,
            pool=pool,
        )
        self._release_work = ReleaseWork(
            upstream,
            payloads,
            self._runtime,
            self._post,
            environments,
            claims.tasks_of,
            provenance=provenance_of(settings, self._cluster, keys, app=app),
            signatures=signatures_of(settings.trust, self._cluster, keys, app=app),
            has_reports=lambda: self._outbox.pending() > 0,
        )
        nouns: dict[str, Noun[Any]] = {
            "lock": self._lock_work,
            "workload": WorkloadWork(
                self._runtime,
                payloads,
                stop_grace_s=settings.workload.stop_grace_s,
                post=self._post,
                environments=environments,
                permit=lambda release: self._running.note(release, now()),
            ),
            "balancer": BalancerWork(
                balancer.entry,
                Drain(balancer.observer, settings.drain),
                keys,
                member=us.member,
                inflight_path=settings.drain.inflight_path,
                post=self._post,
                permit=self._permit_join,
            ),
            "release": self._release_work,
            "task": TaskWork(self._cluster, claims, programs, post=self._post, crash=self.crash),
            "probe": ProbeWork(
                Prober(settings.probe, clock=clock, health=reporter.health if reporter else None),
                self._post,
                note=self._presence.note,
                trouble=reporter.trouble if reporter else lambda: "",
            ),
            "analysis": AnalysisWork(InstanceAnalyst(settings, self._cluster, keys, clock=clock), self._post),
        }
        self._workers = {name: Worker(pool, noun, self._post, self.crash) for name, noun in nouns.items()}
        for worker in self._workers.values():
            made.callback(worker.close, 0.0)
        self._announcements = Announcements(
            self._cluster, keys, app=app, group=instance.group, instance=instance.id, post=self._post, seen=seen
        )
        reports = ReportWork(self._outbox.put, self._post)
        memory = first_memory(settings, self._runtime, identity)
        if self._journal.last is None:
            memory = adopted(memory, self._runtime.running(), payloads.find)
        self._sidekick = Sidekick(
            chart,
            rules,
            memory,
            self._journal,
            nouns={name: worker.submit for name, worker in self._workers.items()}
            | {"report": reports.perform, "sidekick": _alarm},
            show=self._presence.show,
            consumed=self._announcements.consumed,
            notifier=notifier,
            clock=clock,
            seen=lambda: max(seen()[0], written()[0]),
            ended=self._steps.ended,
        )
        self._written, self._machine = written, identity.machine
        self._settings, self._notifier = settings, notifier
        self._references = ReferenceWatch(
            environments, lambda: self._sidekick.memory.running, self._presence.hint, pool=pool
        )

    def _prove(self, within_s: float) -> str:
        """For the update service: see ``PresenceWriter.proof``."""
        return self._presence.proof(within_s)

    def run(self) -> None:
        """Work until ``stop``; then let go of everything, workloads excepted."""
        try:
            self._session.join(self)
            if not self._shares_session:
                self._session.start()
            self._announcements.start(
                command_revision=self._sidekick.memory.command_revision,
                commands=self._sidekick.memory.commands,
                default_slots=self._settings.lock.slots,
            )
            self._entry_watch.start()
            self._references.start()
            self._due_tasks.start()
            self._presence.start()
            self._steps.start()
            self._sidekick.run()
        except Exception as error:
            if not isinstance(error, OutriderError):
                self._tell_crash(error)
            raise
        finally:
            self._notifier.stopping()
            self._close()

    def gauges(self) -> Gauges:
        """What is measured of the instance now; for any thread."""
        memory = self._sidekick.memory
        wanted = memory.wanted
        return Gauges(
            app=memory.app,
            group=memory.group,
            instance=memory.instance,
            machine=self._machine,
            presence=self._sidekick.shown,
            has_turn=has_turn(memory),
            is_blocked=wanted is not None and wanted in memory.blocked,
            failures=memory.failures,
            check_in_s=self._release_work.check_in_s,
            watch_s=self._session.silent_s,
            is_connected=self._session.lease is not None,
            reports=self._outbox.pending(),
            steps=self._sidekick.steps,
            is_writable=not self._sidekick.stands_still,
        )

    def stop(self) -> None:
        """Let ``run`` end; safe in a signal handler."""
        self._sidekick.stop()

    def crash(self, error: BaseException) -> None:
        """Let ``run`` raise ``error``, which a thread of the sidekick died of: a sidekick without it would be deaf."""
        self._sidekick.crash(error)

    def _tell_cannot_begin(self, settings: Settings, error: OutriderError) -> None:
        instance = settings.instance
        tell_crash(
            self._cluster,
            self._keys,
            app=app_key(instance.app),
            group=instance.group,
            instance=instance.id,
            state="",
            error=error,
            at=now(),
            cannot_begin=True,
        )

    def _tell_crash(self, error: Exception) -> None:
        memory = self._sidekick.memory
        tell_crash(
            self._cluster,
            self._keys,
            app=memory.app,
            group=memory.group,
            instance=memory.instance,
            state=self._sidekick.state,
            error=error,
            at=now(),
        )

    def _close(self) -> None:
        """A turn that is under way stays ours: its keys stay, dirty once the lease ends, and the journal knows."""
        self._announcements.close()
        self._entry_watch.close()
        self._references.close()
        self._due_tasks.close()
        self._steps.close()
        for worker in self._workers.values():
            worker.close(STOP_WITHIN_S)
        if self._shares_session:
            self._session.leave(self)
            self._presence.close(remove=True)
            self._lock_work.give_up_place()
        else:
            self._presence.close()
            self._session.close()
        self._outbox.close(STOP_WITHIN_S)
        self._runtime.close()
        self._journal.close()

    def warn(self, text: str) -> None:
        """Let the fleet see this beside the state, until another text comes; empty: nothing."""
        self._presence.warn(text)

    def lease_granted(self) -> None:
        """As ``Member``."""
        self._presence.refresh()
        self._steps.lease_granted()
        pending = self._lock_work.take_pending()
        if pending is not None:
            self._workers["lock"].submit(*pending)

    def lease_lost(self, why: str) -> None:
        """As ``Member``."""
        self._sidekick.post(LockLost(at=now(), why=why))

    def store_restored(self) -> None:
        """As ``Member``."""
        self._written.forget()
        self._announcements.look_again()
        self._entry_watch.look_again()
        self._due_tasks.look_again()
        self._presence.look_again()

    def _note_accepted(self) -> None:
        tell_begun(self._cluster, self._keys, app=self._sidekick.memory.app, instance=self._sidekick.memory.instance)
        self._note_running()

    def _note_running(self) -> None:
        """What runs already, and was committed by an earlier outrider, in another group or by nobody: adopted."""
        memory = self._sidekick.memory
        if memory.running is not None and not memory.update:
            try:
                self._running.note(memory.running.release, now())
            except TooOld as error:
                logger.bind(error_kind=error.kind, cause=str(error)).error("what runs here is too old")

    def _permit_join(self, workload: str) -> None:
        """What was committed comes back only if it may run; what an update brings in has a turn for that."""
        memory = self._sidekick.memory
        if memory.running is not None and memory.running.workload_id == workload and not memory.update:
            self._running.note(memory.running.release, now())

    def _post(self, event: AnyEvent) -> None:
        self._sidekick.post(event)


@functools.cache
def _chart() -> Chart:
    """One for all instances of a process: it never changes, and takes a fifth of a megabyte."""
    return load_sidekick_chart()


def _alarm(effect: SidekickEffect, request: int | None) -> None:
    logger.bind(cause=effect.cause).error("a person should look")
