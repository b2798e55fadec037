"""How events change the memory: one pure fold, the same live, in replay, in the simulator and in the model checker.

Facts only. Whether an event moves the machine is the chart's business; what it tells us is remembered either way
(except answers that are no longer awaited: the machine drops those before they get here).
"""

import re
from dataclasses import replace
from typing import Literal, assert_never, get_args

from outrider.core.blame import Evidence, judge, lasts
from outrider.core.omaha.events import FailureCode
from outrider.core.sidekick.events import (
    AnalysisFailed,
    AnalysisPassed,
    AnalysisSampled,
    AnalysisUndecided,
    AnyEvent,
    BalancerChanged,
    BalancerDrained,
    BalancerFailed,
    BalancerJoined,
    BalancerLeft,
    BalancerRefused,
    BalancerRestored,
    BalancerSwitched,
    BalancerUnmoved,
    BlockChanged,
    Commanded,
    GrantEnded,
    IdentityAccepted,
    IdentityAdmitted,
    IdentityRefused,
    LockAcquired,
    LockFailed,
    LockLost,
    LockQueued,
    LockRefused,
    LockReleased,
    OperatorDecommissioned,
    OperatorDrained,
    OperatorPaused,
    OperatorResumed,
    OperatorRetried,
    OperatorRolledBack,
    OperatorUndrained,
    ProbeFailed,
    ProbePassed,
    ReleaseCommitted,
    ReleaseDownloaded,
    ReleaseFailed,
    ReleaseFound,
    ReleaseMissing,
    ReleaseProgressed,
    ReleaseVerified,
    ReportQueued,
    SidekickRestarted,
    SidekickSettled,
    TargetChanged,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TimerExpired,
    UpdateEnded,
    UpdateExposed,
    UpdateFailed,
    UpdateJudged,
    WakeupReceived,
    WorkloadAbsent,
    WorkloadExited,
    WorkloadFailed,
    WorkloadRemoved,
    WorkloadRetired,
    WorkloadStarted,
)
from outrider.core.sidekick.guards import has_lost_entry
from outrider.core.sidekick.memory import Drain, Fault, Installed, Memory, QueuePosition, Release, SeenEntry, Setback
from outrider.core.sidekick.words import given_up, not_kept, refusal, unfit, unfit_again

EVENT_TYPES = {kind.name: kind for kind in get_args(AnyEvent) if kind is not TimerExpired}
EVENT_NAMES = frozenset(EVENT_TYPES)

KEPT_COMMANDS = 16
"""Ids of commands that were taken, to tell one that a restored etcd brings back from a new one."""
FORMER_URLS = 8
"""Kept of an app that is started again and again: the first, which the entry was written with, and the last."""

_WAKING_DEADLINES = frozenset({"wake.expired", "prove.expired"})
"""Those of the way in which what should run comes to serve."""


_ROLLBACK_DEADLINES = frozenset({"revert.expired", "reprobe.expired"})
"""Those of the way in which a rollback brings back what ran before."""


def fault_of(evidence: Evidence, cause: str, error_code: FailureCode = FailureCode.ROLLED_BACK) -> Fault:
    """The fault that ``evidence`` speaks of. ``error_code``: unless this machine can't take the release at all."""
    lasting = lasts(evidence)
    return Fault(
        blame=judge(evidence), cause=cause, error_code=FailureCode.UNSUPPORTED if lasting else error_code, lasts=lasting
    )


def world(cause: str, error_code: FailureCode = FailureCode.ROLLED_BACK) -> Fault:
    """A fault that is not the release's."""
    return fault_of("no-answer", cause, error_code)


_TIMER_TROUBLE: dict[str, Fault] = {
    "check.expired": world("the update service did not answer in time"),
    "download.expired": fault_of("network", "the download took too long", FailureCode.TRANSFER),
    "verify.expired": world("reading the payload took too long", FailureCode.PAYLOAD_VERIFICATION),
    "queue.expired": world("still no turn"),
    "ready.expired": world("a task that must run before a swap is not done yet"),
    "wake.expired": world("the runtime did not answer in time"),
    "prove.expired": world("what should run did not prove healthy in time"),
    "start.expired": world("the runtime did not start it in time"),
    "leave.expired": world("the balancer's entry could not be taken out"),
    "replace.expired": world("the runtime did not replace it in time"),
    # an unknown verdict counts as fail once its deadline has passed (design, section 3, rule 8)
    "probe.expired": fault_of("unproved", "it did not prove healthy in time"),
    "switch.expired": world("the balancer's entry could not be written"),
    "analysis.expired": fault_of("undecided", "the analysis did not answer in time", FailureCode.UNDECIDED),
    "retire.expired": world("the version before does not stop"),
    "join.expired": world("the balancer's entry could not be written"),
    "rejoin.expired": world("the balancer's entry could not be written"),
    "overdue.expired": world("it must leave the balancer, and has no turn for it yet"),
    "drained.expired": world("it has been drained for longer than was said"),
    "resign.expired": world("its keys in etcd could not be removed"),
    "ensure.expired": world("the runtime did not answer in time"),
    "reprobe.expired": world("what should run did not prove healthy in time"),
    "revert.expired": world("the version before did not start in time"),
    "remove.expired": world("the candidate does not stop"),
}

LOST_LEASE = "lost the lease"
"""What the cause of a fault begins with that is a lost lease: no verdict on the release (decision 0008)."""

_DEFAULT_FAULT = world("the update was given up")


def workload_id(instance: str, version: str, update: str) -> str:
    """Name a workload before it exists: unique for each update, readable, safe as a folder or a unit's name."""
    return re.sub(r"[^a-z0-9.-]+", "-", f"{instance}-{version}-{update[:8]}".lower())


def remember(memory: Memory, event: AnyEvent) -> Memory:
    """Return the memory with what ``event`` tells. Never raises."""
    memory = replace(memory, at=event.at)
    if isinstance(event, Commanded):
        commands = (*memory.commands, event.command)[-KEPT_COMMANDS:] if event.command else memory.commands
        memory = replace(memory, command_revision=max(memory.command_revision, event.revision), commands=commands)
    match event:
        case (
            TargetChanged() | BlockChanged() | GrantEnded() | OperatorPaused() | OperatorResumed() | OperatorRetried()
        ):  # fmt: skip
            return _announced(memory, event)
        case OperatorRolledBack():
            return _rolled_back(memory, event)
        case OperatorDrained() | OperatorUndrained() | OperatorDecommissioned():
            return _drain(memory, event)
        case LockAcquired() | LockLost() | LockQueued() | LockRefused() | LockReleased() | LockFailed():
            return _lock(memory, event)
        case WorkloadStarted() | WorkloadExited() | WorkloadFailed() | WorkloadRetired():
            return _workload(memory, event)
        case ReleaseFound() | ReleaseMissing() | ReleaseProgressed() | ReleaseFailed() | ReleaseDownloaded():
            return _release(memory, event)
        case ProbePassed():
            proved = memory.running is not None and event.url == memory.running.url
            return replace(memory, down=False) if proved else memory
        case ProbeFailed():
            fault = fault_of(event.evidence, f"health check: {event.cause}")
            return replace(_not_back(_unproved(memory)), trouble=fault)
        case AnalysisSampled() | AnalysisPassed() | AnalysisFailed() | AnalysisUndecided():
            return _analysis(memory, event)
        case BalancerRefused():
            return replace(_unproved(memory), trouble=world(f"balancer: {event.cause}"))
        case BalancerFailed() | BalancerUnmoved():
            return replace(memory, trouble=world(f"balancer: {event.cause}"))
        case TimerExpired():
            trouble = _TIMER_TROUBLE.get(event.name)
            failures = memory.failures + (event.name == "check.expired")
            if event.name in _WAKING_DEADLINES:
                memory = _unproved(memory)
            if event.name in _ROLLBACK_DEADLINES:
                memory = _not_back(memory)
                # the runtime's own words, when it said any, name the cause
                trouble = memory.trouble if memory.fault and memory.trouble != memory.fault else trouble
            return memory if trouble is None else replace(memory, trouble=trouble, failures=failures)
        case SidekickRestarted():
            restarts = memory.restarts + bool(memory.update)
            times = "once" if restarts == 1 else f"{restarts} times"
            trouble = world(f"the sidekick was restarted {times} during this update") if restarts else memory.trouble
            drain = memory.drain
            if drain is not None and drain.kind == "reboot" and boot_of(drain.home) != boot_of(memory.home):
                drain = None
            return replace(
                memory, down=memory.running is not None, restarts=restarts, trouble=trouble,
                unfit=False, setback=_after_restart(memory.setback), drain=drain,
            )  # fmt: skip
        case BalancerSwitched() | BalancerJoined() | BalancerRestored() | BalancerLeft() | BalancerChanged():
            return _entry(memory, event)
        case IdentityRefused():
            over = memory.drain is not None and memory.drain.kind == "decommission" and memory.running is None
            # its keys went with its turn, in one transaction, whether or not the answer to that has come
            memory = replace(memory, drain=None, drain_turn="", turn=None, is_out=False) if over else memory
            return replace(memory, refused=event.cause)
        case IdentityAccepted():
            return replace(memory, refused="")
        case IdentityAdmitted():
            memory = replace(memory, turn=None, queue_position=None, drain_turn="")
            # what is out may be stopped in part already: that is brought to its end, and what comes then is new
            is_begun = memory.is_out and memory.running is not None
            return memory if is_begun else replace(memory, drain=None, is_out=False)
        case TaskFinished() | TaskFailed() | TaskProgressed():
            return _tasks(memory, event)
        case ReleaseVerified():
            return replace(
                memory, tasks=event.tasks, tasks_done=(), task="", minimum=event.minimum or memory.minimum,
                keys=event.keys or memory.keys,
            )  # fmt: skip
        case UpdateExposed():
            return replace(memory, exposed=True)
        case UpdateFailed():
            return _failed(memory)
        case ReleaseCommitted():
            return _committed(memory)
        case UpdateEnded():
            return replace(
                memory, candidate=None, update="", manual=False, exposed=False, restarts=0, queue_position=None,
                attempts=0, candidate_down=False, was_degraded=False, progress=0.0, recalled=False,
                given_up=_given_up(memory), tasks=(), tasks_done=(), task="",
            )  # fmt: skip
        case (
            SidekickSettled() | WakeupReceived() | WorkloadAbsent() | WorkloadRemoved()
            | BalancerDrained() | UpdateJudged() | ReportQueued()
        ):  # fmt: skip
            return memory
        case _:
            assert_never(event)


def _tasks(memory: Memory, event: TaskFinished | TaskFailed | TaskProgressed) -> Memory:
    match event:
        case TaskFinished():
            return replace(memory, tasks_done=event.done, task="")
        case TaskFailed():
            return replace(memory, trouble=fault_of(event.evidence, event.cause))
        case TaskProgressed():
            return replace(memory, task=event.words)
        case _:
            assert_never(event)


def _analysis(memory: Memory, event: AnalysisSampled | AnalysisPassed | AnalysisFailed | AnalysisUndecided) -> Memory:
    match event:
        case AnalysisSampled() | AnalysisPassed():
            return replace(memory, sample=event.sample)
        case AnalysisFailed():
            return replace(memory, sample=event.cause, trouble=fault_of("worse", f"analysis: {event.cause}"))
        case AnalysisUndecided():
            fault = fault_of("undecided", f"analysis undecided: {event.cause}", FailureCode.UNDECIDED)
            return replace(memory, sample=event.cause, trouble=fault)
        case _:
            assert_never(event)


def _entry(
    memory: Memory, event: BalancerSwitched | BalancerJoined | BalancerRestored | BalancerLeft | BalancerChanged
) -> Memory:
    """What was seen earlier than the last write says nothing of what is there now."""
    known = memory.entry.revision if memory.entry is not None else 0
    match event:
        case BalancerChanged():
            is_news = event.restored or event.revision >= known
            return replace(memory, entry=SeenEntry(url=event.url, revision=event.revision)) if is_news else memory
        case BalancerLeft():
            url = None
        case BalancerSwitched() | BalancerJoined() | BalancerRestored():
            url = event.url
            memory = replace(memory, former_urls=(), is_out=False)
        case _:
            assert_never(event)
    if not event.revision:
        return memory
    if isinstance(event, BalancerJoined) and has_lost_entry(memory) and memory.entry is not None:
        was = "was missing" if memory.entry.url is None else f"named {memory.entry.url}"
        notice = f"its entry in the balancer {was}, and was put right at {memory.at:%Y-%m-%d %H:%M:%S} UTC"
        memory = replace(memory, notice=notice)
    return replace(memory, entry=SeenEntry(url=url, revision=event.revision))


def _given_up(memory: Memory) -> str:
    """The release of an update that ends without a result, and whose permission nobody took back."""
    without_result = memory.candidate is not None and memory.fault is None and not memory.manual
    if memory.candidate is None or not without_result or memory.recalled:
        return memory.given_up
    return memory.candidate.release.label


def _announced(
    memory: Memory,
    event: TargetChanged | BlockChanged | GrantEnded | OperatorPaused | OperatorResumed | OperatorRetried,
) -> Memory:
    match event:
        case TargetChanged():
            wanted = event.release or event.version
            same = wanted == memory.wanted
            if memory.undecided and not same:  # nobody waits for a decision about it any more
                memory = replace(memory, paused=False, undecided="")
            return replace(
                memory, wanted=wanted, wanted_version=(event.version or "") if event.release else "",
                group_paused=event.paused, slots=event.slots,
                target_revision=event.revision, undone=memory.undone if same else None,
                unfit=memory.unfit and same, setback=memory.setback if same else None, recorded=event.recorded,
            )  # fmt: skip
        case BlockChanged():
            version = memory.candidate.release.label if memory.candidate is not None else ""
            news = version in event.versions and version not in memory.blocked
            trouble = world(f"blocked by {event.versions[version]}") if news else memory.trouble
            return replace(memory, blocked=event.versions, trouble=trouble)
        case GrantEnded():
            under_turn = memory.turn is not None
            if memory.candidate is None or memory.manual or under_turn:
                return memory
            return replace(memory, recalled=True, trouble=world("the update service took its permission back"))
        case OperatorPaused():
            return replace(memory, paused=True, undecided="")
        case OperatorResumed():
            accepted = memory.undecided or memory.accepted
            return replace(memory, paused=False, undecided="", accepted=accepted)
        case OperatorRetried():
            setback = replace(memory.setback, final=False) if memory.setback is not None else None
            return replace(memory, failures=0, undone=None, unfit=False, setback=setback)
        case _:
            assert_never(event)


def boot_of(home: str) -> str:
    """The machine's boot in ``Memory.home``."""
    return home.partition(":")[0]


def _drain(memory: Memory, event: OperatorDrained | OperatorUndrained | OperatorDecommissioned) -> Memory:
    """Whoever leaves for good isn't called back; the turn of a drain under way stays the same."""
    known = memory.drain
    if known is not None and known.kind == "decommission":
        if isinstance(event, OperatorDecommissioned):  # said again, perhaps after it was let back in between
            drain = replace(known, since=event.at, by=event.by, revision=event.revision)
            return replace(memory, drain=drain)
        return memory
    name = known.id if known is not None else getattr(event, "update", "")
    match event:
        case OperatorDrained():
            kind: Literal["operator", "reboot"] = "reboot" if event.until_reboot else "operator"
            drain = Drain(id=name, kind=kind, since=event.at, for_s=event.for_s, home=memory.home)
        case OperatorUndrained():
            return replace(memory, drain=None)
        case OperatorDecommissioned():
            drain = Drain(
                id=name, kind="decommission", since=event.at, by=event.by, home=memory.home, revision=event.revision
            )
        case _:
            assert_never(event)
    return replace(memory, drain=drain, drain_turn=name)


def _rolled_back(memory: Memory, event: OperatorRolledBack) -> Memory:
    trouble = fault_of("undone", "an operator rolled it back")
    if memory.candidate is not None:
        further = memory.fault is not None and memory.down and event.version
        return (
            _further_back(memory, event)
            if further
            else replace(memory, undone=memory.candidate.release.label, trouble=trouble)
        )
    if memory.update or memory.refused or memory.drain or memory.previous is None or memory.running is None:
        return memory  # past the commit, not to be touched, or nothing to go back to
    release = memory.previous.release
    if event.version not in ("", release.version, release.label):
        return replace(memory, deferred_reason=not_kept(memory, event.version))
    if problem := unfit_again(memory, release):  # the runtime was changed since it ran
        return replace(memory, deferred_reason=f"can't go back: {problem}")
    candidate = Installed(release=release, workload_id=workload_id(memory.instance, release.version, event.update))
    return replace(
        memory, candidate=candidate, update=event.update, manual=True, fault=None, trouble=None,
        undone=memory.running.release.label,
    )  # fmt: skip


def _further_back(memory: Memory, event: OperatorRolledBack) -> Memory:
    """A rollback can't bring back what ran before: take what ran before that, if it is the version that was named."""
    before, previous = memory.running, memory.previous
    names_previous = previous is not None and event.version == previous.release.label
    if before is not None and not names_previous and event.version in (before.release.version, before.release.label):
        return memory  # try again
    if before is None or previous is None or not (names_previous or event.version == previous.release.version):
        return replace(memory, trouble=world(not_kept(memory, event.version)))
    if problem := unfit_again(memory, previous.release):
        return replace(memory, trouble=world(f"can't go back to {event.version}: {problem}"))
    name = workload_id(memory.instance, previous.release.version, event.update)
    memory = _moved(memory, before.url, "")
    return replace(memory, running=Installed(release=previous.release, workload_id=name), previous=None)


def _lock(
    memory: Memory, event: LockAcquired | LockLost | LockQueued | LockRefused | LockReleased | LockFailed
) -> Memory:
    match event:
        case LockAcquired():
            # a restart makes down mean "not known to run"; only what was down before the turn excuses a rollback
            degraded = memory.was_degraded if memory.turn is not None else memory.down
            leaves = memory.drain is not None and not memory.update
            return replace(
                memory, turn=event.turn, queue_position=None, was_degraded=degraded, is_out=memory.is_out or leaves
            )
        case LockLost():
            return replace(memory, trouble=world(f"{LOST_LEASE}: {event.why}"))
        case LockQueued():
            position = QueuePosition(rank=event.rank, ahead=event.ahead, holders=event.holders, held=event.held)
            return replace(memory, queue_position=position)
        case LockRefused():
            return replace(memory, trouble=world(f"no turn: {event.cause}"), recalled=memory.recalled or event.recalled)
        case LockReleased():
            # a drain that began under an update takes its turn only now
            left = memory.drain.id if memory.drain is not None else ""
            memory = replace(memory, turn=None, queue_position=None, drain_turn=left)
            if memory.drain is not None and memory.drain.kind == "decommission" and memory.running is None:
                back = f"`outrider instance admit {memory.app} {memory.instance}` lets it back"
                return replace(
                    memory, drain=None, drain_turn="", is_out=False, refused=f"it was decommissioned; {back}"
                )
            return _failed_alone(memory, event.proved_by) if event.proved_by else memory
        case LockFailed():
            return replace(memory, trouble=world(event.cause))
        case _:
            assert_never(event)


def _workload(memory: Memory, event: WorkloadStarted | WorkloadExited | WorkloadFailed | WorkloadRetired) -> Memory:
    match event:
        case WorkloadStarted():
            if memory.candidate is not None and memory.candidate.workload_id == event.workload_id:
                candidate = replace(memory.candidate, url=event.url)
                return replace(
                    _moved(memory, memory.candidate.url, event.url), candidate=candidate, candidate_down=False
                )
            if memory.running is not None and memory.running.workload_id == event.workload_id:
                running = replace(memory.running, url=event.url)
                return replace(_moved(memory, memory.running.url, event.url), running=running)
            return memory
        case WorkloadExited():
            if memory.candidate is not None and memory.candidate.workload_id == event.workload_id:
                # it is exposed once it has proved healthy
                seen = event.evidence if event.after_serving is None or not memory.exposed else event.after_serving
                fault = fault_of(seen, f"it ended by itself: {event.status}")
                return replace(memory, candidate_down=True, trouble=fault)
            if memory.running is not None and memory.running.workload_id == event.workload_id:
                return replace(memory, down=True, trouble=world(f"what runs ended by itself: {event.status}"))
            return memory
        case WorkloadFailed():
            return replace(_unproved(memory), trouble=fault_of(event.evidence, event.cause))
        case WorkloadRetired():
            if memory.drain is not None and memory.drain.kind == "decommission" and not memory.update:
                return replace(memory, leftover=None, running=None, previous=None, down=False)
            return replace(memory, leftover=None)
        case _:
            assert_never(event)


def _unproved(memory: Memory) -> Memory:
    """Between updates such bad news is of what should run: it isn't known to serve until it has proved so again."""
    return memory if memory.update else replace(memory, down=memory.running is not None)


def _not_back(memory: Memory) -> Memory:
    """While an update is undone such bad news is of what ran before it: it isn't known to serve again."""
    undone = memory.update and memory.fault is not None
    return replace(memory, down=memory.running is not None) if undone else memory


def _moved(memory: Memory, before: str, after: str) -> Memory:
    """Another program may take a port while a workload is down."""
    if not before or before == after:
        return memory
    former = tuple(dict.fromkeys((*memory.former_urls, before)))
    return replace(memory, former_urls=(former[0], *former[1:][1 - FORMER_URLS :]))


def _release(
    memory: Memory, event: ReleaseFound | ReleaseMissing | ReleaseProgressed | ReleaseFailed | ReleaseDownloaded
) -> Memory:
    match event:
        case ReleaseFound():
            release = Release(
                version=event.version,
                urls=event.urls,
                sha256=event.sha256,
                size_bytes=event.size_bytes,
                kind=event.kind,
                environment=event.environment,
                environment_digest=event.environment_digest,
                generation=event.release_generation,
            )
            problem = unfit(memory, release) or given_up(memory, release.label)
            name = workload_id(memory.instance, event.version, event.update)
            return replace(
                memory, candidate=Installed(release=release, workload_id=name), update=event.update, manual=False,
                fault=None, attempts=0, restarts=0, progress=0.0, recalled=False, given_up="", unfit=bool(problem),
                trouble=fault_of("unfit", problem) if problem else None, sample="",
                accepted=memory.accepted if memory.accepted == release.label else "",
                deferred_reason=problem or refusal(memory, release.label, release.version),
            )  # fmt: skip
        case ReleaseMissing():
            return replace(
                memory, deferred_reason=event.reason, trouble=None, failures=0, retry_after_s=0.0,
                poll_interval_s=event.poll_interval_s, unfit=False,
            )  # fmt: skip
        case ReleaseProgressed():
            return replace(memory, progress=min(1.0, event.done_bytes / max(1, event.size_bytes)))
        case ReleaseFailed():
            trouble = fault_of(event.evidence, event.cause, event.error_code)
            busy = memory.candidate is not None
            return replace(
                memory, trouble=trouble, attempts=memory.attempts + busy, failures=memory.failures + (not busy),
                retry_after_s=event.retry_after_s, given_up=event.refused or memory.given_up,
            )  # fmt: skip
        case ReleaseDownloaded():
            return replace(memory, progress=1.0)
        case _:
            assert_never(event)


def _failed(memory: Memory) -> Memory:
    """The trouble met last is the fault; a bad release is known as bad here at once, before the fleet knows."""
    fault = memory.trouble or _DEFAULT_FAULT
    blocked, failures, setback = memory.blocked, memory.failures, memory.setback
    if fault.blame == "release" and memory.candidate is not None:
        blocked = {**blocked, memory.candidate.release.label: f"{memory.instance}: {fault.cause}"}
    elif fault.error_code == FailureCode.UNDECIDED and memory.candidate is not None:
        return _undecided(memory, fault, memory.candidate.release.label)
    elif memory.unfit and memory.candidate is not None:
        version = memory.candidate.release.label
        if not given_up(memory, version):
            setback = Setback(version=version, blame="machine", cause=fault.cause, final=False)
    elif fault.blame == "machine" and memory.candidate is not None:
        # seen under a turn it isn't tried again unasked; before one, looking again costs nobody anything
        final = fault.lasts and memory.turn is not None
        failures += not final
        setback = Setback(version=memory.candidate.release.label, blame="machine", cause=fault.cause, final=final)
    elif fault.blame == "world":
        failures += 1
    return replace(memory, fault=fault, blocked=blocked, failures=failures, setback=setback)


def _undecided(memory: Memory, fault: Fault, version: str) -> Memory:
    """Nothing speaks against the release, and too little for it: the setting says what this instance does."""
    if memory.analysis == "fail":
        fault = replace(fault, error_code=FailureCode.ROLLED_BACK)
        setback = Setback(version=version, blame=fault.blame, cause=fault.cause, final=True)
        return replace(memory, fault=fault, setback=setback)
    if memory.paused:  # by an operator meanwhile, whose resumption accepts nothing
        return replace(memory, fault=fault)
    return replace(memory, fault=fault, paused=True, undecided=version)


def _failed_alone(memory: Memory, proved_by: str) -> Memory:
    """Another instance has committed the release, so it isn't blocked; here it isn't tried again unasked."""
    if memory.candidate is None or memory.fault is None:
        return memory
    version = memory.candidate.release.label
    return replace(
        memory,
        blocked={known: why for known, why in memory.blocked.items() if known != version},
        setback=Setback(
            version=version, blame="release", cause=f"{memory.fault.cause}; it runs on {proved_by}", final=True
        ),
    )


def _after_restart(setback: Setback | None) -> Setback | None:
    """The settings of this machine may have changed; what the release did here stands."""
    return replace(setback, final=False) if setback is not None and setback.blame == "machine" else setback


def _committed(memory: Memory) -> Memory:
    """What was the candidate runs from here on; what ran is left over until it was stopped."""
    assert memory.candidate is not None, "the chart commits only a candidate"
    return replace(
        memory, running=memory.candidate, candidate=None, previous=memory.running, leftover=memory.running,
        down=False, candidate_down=False, failures=0, fault=None, trouble=None, setback=None, notice="",
    )  # fmt: skip
