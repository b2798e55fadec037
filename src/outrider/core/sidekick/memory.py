"""What a sidekick knows: one frozen value, changed only by remembering events (``rules.remember``).

It goes into the journal whole, with every step; nothing else of the deciding part survives a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from outrider.core.blame import Blame
from outrider.core.images import PayloadKind
from outrider.core.omaha.events import FailureCode
from outrider.core.release import ReleaseId
from outrider.core.tasks import TaskSpec

Strategy = Literal["start-first", "stop-first"]
AfterUndecided = Literal["", "pause", "pass", "fail"]

NO_PAYLOAD = "0" * 64
"""In place of the SHA-256 of what runs and was never a payload here, or whose payload isn't known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A version with its payload, as the update service offered it.

    Attributes:
        urls: Full addresses of the payload; the later ones are fallbacks.
        sha256: Of the payload, 64 lower-case hex digits.
        kind: An archive to unpack, or the descriptor of a container image.
        environment, environment_digest: What it is started with; 0 and empty: nothing but this machine's settings.
        generation: Of the rolling restart that made it; 0: none did.
    """

    version: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int
    kind: PayloadKind = "archive"
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0

    @property
    def id(self) -> ReleaseId:
        """Which release it is."""
        return ReleaseId(
            version=self.version,
            sha256=self.sha256,
            environment=self.environment,
            environment_digest=self.environment_digest,
            generation=self.generation,
        )

    @property
    def label(self) -> str:
        """For people, and for what is compared: the version, and what it is started with."""
        return self.id.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A release with the workload that runs it.

    Attributes:
        workload_id: Chosen before the workload is started, so that it is found again after any crash.
        url: Where it answers; empty until it was started.
    """

    release: Release
    workload_id: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Permission to swap. The two revisions are the fence that every shared write compares.

    Attributes:
        slot_revision: Create revision of the slot key.
        waiter_revision: Create revision of this sidekick's key in the queue, which hangs on its lease.
        update: Id of the update it was taken for.
        labels: Of the instance when it took the turn, name and value; they hold until the turn ends.
        budgets: Keys of the budget slots that came with it.
    """

    scope: str
    number: int
    slot_revision: int
    waiter_revision: int
    update: str
    labels: tuple[tuple[str, str], ...] = ()
    budgets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an update didn't succeed.

    Attributes:
        blame: Whose fault it is, as ``core.blame`` decides it. ``release`` blocks the release for the whole fleet,
            unless an instance has committed it before; the others never do.
        cause: In words, for a person.
        error_code: What the update service is told.
        lasts: Trying again is no use before somebody has changed this machine.
    """

    blame: Blame
    cause: str
    error_code: FailureCode
    lasts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A version failed on this machine, although nothing is known against it elsewhere.

    Attributes:
        cause: In words, for a person.
        version: Label of the release.
        final: It is not tried again unasked: only for another target, or when an operator wants it. Trouble of the
            machine itself is tried again after a restart, too, for the settings may have changed.
    """

    version: str
    blame: Blame
    cause: str
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePosition:
    """Where this sidekick stands in the queue for a turn.

    Attributes:
        rank: 0 is next.
        ahead: The instance right before, None when there is none.
        holders: Instances whose turns are held or dirty.
        held: The disruption budget that holds it, for a person; empty when none does.
    """

    rank: int
    ahead: str | None
    holders: tuple[str, ...]
    held: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEntry:
    """The server's entry in the balancer, as it was seen or written last.

    Attributes:
        url: None: it wasn't there.
        revision: etcd revision at which it was so.
    """

    url: str | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Why the instance must be out of the balancer.

    Attributes:
        id: Of its turn, as the id of an update is for others.
        kind: ``decommission`` ends with the removal of the instance; ``reboot`` with the machine's next boot.
        since: When it was said.
        by: Who said it; kept for the marker of a decommissioned instance.
        revision: Of etcd, at which it was said; an admission that is later counts for more.
        home: Where the sidekick ran then, as ``Memory.home``.
    """

    id: str
    kind: Literal["operator", "reboot", "decommission"]
    since: datetime
    for_s: float = 0.0
    by: str = ""
    home: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Everything that guards may ask and effects may be built from.

    Attributes:
        scope: Where its turns are counted: a path of keys that nobody takes apart.
        at: When the last event happened, aware UTC; what the chart raises itself happens at the same time.
        running: What serves, or should; None before the first version was installed.
        candidate: What an update under way wants to put in its place.
        previous: What ``running`` replaced: where an operator's rollback goes.
        leftover: What was replaced and must still be stopped; set by the commit.
        update: Id of the update under way.
        manual: The update under way is an operator's rollback, not the target's.
        wanted: Label of the release that the group's target names; None without a target (foreign Omaha servers).
        wanted_version: Its version, when the label says more.
        target_revision: etcd revision of that target, 0 when there is none.
        recorded: Label -> SHA-256 of the payload, of every release that this target lists.
        blocked: Labels of the releases proved bad, and why.
        setback: What failed here last and isn't blocked; None once it runs, or another target counts.
        undone: Label of a release that an operator rolled back from: not taken again until the target changes or a
            retry.
        recalled: The update service has taken its permission for the update under way back.
        given_up: Label of the release of the last update, when it ended without a result.
        turn: The turn as last known; it stays known while the lease is lost, for it may be dirty and ours.
        down: The running workload ended, or isn't known to serve: since the sidekick restarted, or because it could
            not be started, proved or brought into the balancer.
        candidate_down: The candidate's workload ended by itself.
        was_degraded: What runs was down already when the turn began, so that no rollback owes its return.
        exposed: The balancer may send to the candidate.
        restarts: Restarts of the sidekick since the update began.
        trouble: The last bad news, in case the chart gives up over it.
        fault: Why the update under way is being undone; kept until the next update for people to read.
        failures: Updates in a row that failed through no fault of the release; sets the back-off.
        attempts: Failed downloads of the update under way.
        retry_after_s: Least pause before the next try that the update service asked for.
        poll_interval_s: When the update service wants to be asked again; 0 leaves it to the settings.
        command_revision: etcd revision of the last operator's command that was taken.
        commands: Ids of the last commands that were taken.
        deferred_reason: What the update service said when it deferred us.
        progress: Share of the payload on disk, 0 to 1.
        former_urls: Addresses that a workload of ours had before it was started again, since the balancer's entry was
            last written: one of them may still stand there, and is ours to overwrite.
        runtime: Name of the runtime here.
        kinds: What payloads it runs; sorted.
        entry: The server's entry as it was seen last; None: never yet, or there is none to be seen.
        notice: What a person must know of the entry, until the next commit: that it was put right, and why.
        drain: An operator wants it out of the balancer, now or after the update under way.
        drain_turn: Id of a drain for which a turn may have been taken, known or not, that wasn't given back since.
        is_out: It was about to leave the balancer for a drain, and hasn't come back since.
        refused: Why this sidekick may not be its instance; empty: it may.
        process: Id of the sidekick's process.
        home: Where it runs: the boot of the machine, and the folder of the state.
        predecessors: Processes of this instance that ran here before, and have ended: the newest last.
        analysis: What an analysis that stays undecided leads to; empty: there is none.
        sample: What the analysis of the update under way, or of the last one, has seen so far or decided by.
        undecided: Label of the release whose analysis stayed undecided here, and over which the instance is paused.
        accepted: Label of a release that an operator takes although its analysis is undecided.
        unfit: What the update service offered last is of another kind, so that asking again is no use before the
            target changes or an operator wants it; ``deferred_reason`` says what it is.
        labels: Of the instance by its settings, name and value, by name.
        tasks: What must have run once before any instance swaps to the candidate.
        tasks_done: Key and etcd revision of each of them that is done.
        task: What is known of the one that is waited for, for a person.
        minimum: No older version may run, as a signature has said; empty: none has.
        keys: Name of the signing keys that counted last; empty: none have.
    """

    instance: str
    app: str
    group: str
    scope: str
    strategy: Strategy
    at: datetime
    allow_downgrade: bool = True
    running: Installed | None = None
    candidate: Installed | None = None
    previous: Installed | None = None
    leftover: Installed | None = None
    update: str = ""
    manual: bool = False
    wanted: str | None = None
    wanted_version: str = ""
    target_revision: int = 0
    recorded: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    group_paused: bool = False
    paused: bool = False
    blocked: Mapping[str, str] = field(default_factory=dict)
    undone: str | None = None
    setback: Setback | None = None
    recalled: bool = False
    given_up: str = ""
    turn: Turn | None = None
    down: bool = False
    candidate_down: bool = False
    was_degraded: bool = False
    exposed: bool = False
    restarts: int = 0
    trouble: Fault | None = None
    fault: Fault | None = None
    failures: int = 0
    attempts: int = 0
    retry_after_s: float = 0.0
    poll_interval_s: float = 0.0
    command_revision: int = 0
    commands: tuple[str, ...] = ()
    deferred_reason: str = ""
    queue_position: QueuePosition | None = None
    progress: float = 0.0
    former_urls: tuple[str, ...] = ()
    entry: SeenEntry | None = None
    notice: str = ""
    drain: Drain | None = None
    drain_turn: str = ""
    is_out: bool = False
    refused: str = ""
    process: str = ""
    home: str = ""
    predecessors: tuple[str, ...] = ()
    runtime: str = "process"
    kinds: tuple[PayloadKind, ...] = ("archive",)
    unfit: bool = False
    analysis: AfterUndecided = ""
    sample: str = ""
    undecided: str = ""
    accepted: str = ""
    tasks: tuple[TaskSpec, ...] = ()
    tasks_done: tuple[tuple[str, int], ...] = ()
    task: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    minimum: str = ""
    keys: str = ""

    @property
    def labels_now(self) -> tuple[tuple[str, str], ...]:
        """Its labels; while it holds a turn, those under which it has taken it."""
        return self.labels if self.turn is None else self.turn.labels


def with_settings(memory: Memory, settings: Memory) -> Memory:
    """The memory of an earlier process with what the settings decide; ``settings`` is what they make of nothing.

    In another group than before nothing is known of what that one wants.
    """
    if memory.group != settings.group:
        memory = replace(
            memory,
            group=settings.group,
            wanted=None,
            target_revision=0,
            recorded={},
            group_paused=False,
            slots=settings.slots,
            undone=None,
            unfit=False,
            deferred_reason="",
        )
    return replace(
        memory,
        scope=settings.scope,
        strategy=settings.strategy,
        allow_downgrade=settings.allow_downgrade,
        runtime=settings.runtime,
        kinds=settings.kinds,
        analysis=settings.analysis,
        process=settings.process,
        home=settings.home,
        predecessors=settings.predecessors,
        labels=settings.labels,
    )
