"""Failpoints: every externally visible side effect of a sidekick; the list, and the marks around each of them.

``with failpoint("entry.write"):`` costs nothing without an observer. The kill matrix (``tests/chaos``) observes:
it stops a sidekick right before or right after a touch, under the effect that asked for it. A touch that isn't in the
list, or not in it for its effect, is then an error; ``tests/test_failpoints.py`` finds unmarked touches.

Theory: between two touches a process changes nothing that outlives it. So whatever a kill can leave behind is what one
of these points leaves behind, before or after it.
"""

import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeVar

When = Literal["before", "after"]
T = TypeVar("T")

FAILPOINTS: Mapping[str, str] = {
    # the journal
    "journal.write": "a record is written to the end of journal.jsonl",
    "journal.sync": "fdatasync of journal.jsonl: from here on the step counts",
    "journal.rotate": "a journal that has grown is replaced by one with the last record",
    # the lock: transactions on the keys of its scope
    "turn.read": "queue and slots of the scope are listed",
    "turn.ticket": "the ticket for the first write to the queue is written",
    "turn.enqueue": "the queue key is written under our lease, or one of an earlier life is removed",
    "turn.take": "the slot key is created, the place in line compared",
    "turn.leave": "the queue key is removed, with a slot that was unknown",
    "turn.reclaim": "a queue key is written again beside our slot key",
    "turn.release": "slot key and queue key are removed, with the block when the release is blocked",
    "admission.read": "it is read whether the instance was let back after it had gone",
    "block.write": "the release is blocked although our turn has ended already",
    "proof.read": "it is read whether an instance has committed the release",
    "proof.write": "it is recorded that an instance has committed the release",
    "running.read": "what may still run here is listed",
    "running.write": "what may run here is recorded, or is no longer",
    "oldest.read": "the oldest version that may run is read, before a turn is taken or what runs is recorded",
    # tasks
    "task.read": "a package's tasks, or their claims, are read",
    "task.claim": "a task's claim is created: nobody else runs it",
    "task.unpack": "the payload is unpacked for a task",
    "task.spawn": "the task's program is started",
    "task.write": "a task's result is written, with the block when it failed; or its claim is given back",
    "due.claim": "a task that follows a rollout, and is due, is claimed: nobody else runs it",
    # the lease
    "lease.grant": "etcd grants a lease",
    "lease.keep": "a keep-alive",
    "lease.revoke": "a lost lease is ended in etcd, as soon as that can be reached",
    # the balancer
    "static.write": "keys of the balancer's route and pool that are absent are created",
    "entry.read": "the server's entry is listed",
    "entry.write": "the server's entry is written: switch, restore, join, return",
    "entry.remove": "the server's entry is removed: leave",
    "balancer.ask": "the balancer is asked where it sends to",
    "app.ask": "the old version is asked for its open requests",
    # the runtime
    "workload.clear": "leftovers of an earlier run are removed",
    "workload.prepare": "the payload is unpacked ahead of the start and gets its name",
    "workload.unpack": "what was prepared is moved to the workload, or the payload is unpacked there",
    "workload.record": "record.json, which names the running workload, is written",
    "workload.adopt": "the same for a workload that an earlier life started and didn't record",
    "workload.spawn": "the process is started",
    "workload.signal": "SIGTERM or SIGKILL to the workload",
    "workload.rename": "a workload's folder gets another name, so that it isn't taken for a whole one",
    "workload.erase": "that folder is removed",
    "workload.prune": "what was prepared for a release that is no longer needed is removed",
    "probe.ask": "an instance is asked for its health",
    # the analysis
    "analysis.ask": "Prometheus, a command, an endpoint or a balancer's statistics is asked",
    "analysis.read": "the pool of the wave's counts, and who serves what, are read",
    "analysis.write": "an interval is added to the pool",
    # the release
    "omaha.check": "the update service is asked for an update",
    "target.read": "the target is read, to compare what was offered with it",
    "payload.fetch": "a server is asked for the payload",
    "payload.keep": "a part of it is written",
    "payload.sync": "the whole file is synced",
    "payload.rename": "the proved file gets its final name",
    "payload.prune": "payloads that are no longer needed, or that proved wrong, are removed",
    # reports
    "outbox.write": "a report is written and synced under another name",
    "outbox.rename": "it gets its name, and the folder is synced",
    "outbox.send": "a report is posted to the update service",
    "outbox.remove": "a delivered report is removed",
    # the fleet's eyes and the operator's words
    "presence.write": "the live state is written, under our lease",
    "steps.write": "the states of the last update are told, under our lease",
    "announcement.read": "target, block, wake-up or command is listed",
    "command.remove": "a command that is in the journal is removed",
}
"""Failpoint -> what happens there."""

AGENT_FAILPOINTS: Mapping[str, str] = {
    "agent.claim": "the agent's name is taken, under its lease",
    "agent.register": "the agent is registered with its service",
    "agent.read": "the entries of a service are listed",
    "agent.apply": "one command to the balancer",
    "agent.tell": "what the balancer does is written, under the agent's lease",
}
"""The same for a balancer agent, which isn't a sidekick: no effect asks for them."""

_RUN = ("workload.clear", "workload.unpack", "workload.record", "workload.spawn")
_REMOVE = ("workload.signal", "workload.rename", "workload.erase")
_WRITE = ("static.write", "entry.read", "entry.write")
_PERMIT = ("oldest.read", "running.write")
_DRAIN = ("balancer.ask", "app.ask")
_REPORT = ("outbox.write", "outbox.rename")

FAILPOINTS_OF: Mapping[str, tuple[str, ...]] = {
    "lock.acquire": ("turn.read", "oldest.read", "turn.ticket", "turn.enqueue", "turn.take", "turn.leave"),
    "lock.reclaim": ("turn.read", "turn.reclaim"),
    "lock.retake": (
        "admission.read",
        "turn.release",
        "turn.read",
        "turn.reclaim",
        "turn.ticket",
        "turn.enqueue",
        "turn.take",
        "turn.leave",
    ),
    "lock.release": ("proof.write", "running.read", "running.write", "turn.read", "turn.leave", "turn.release"),
    "lock.prove": ("proof.write", "running.write"),
    "lock.suspend": ("turn.read", "turn.leave"),
    "lock.block": (
        "proof.read",
        "turn.read",
        "turn.leave",
        "turn.release",
        "block.write",
        "running.read",
        "running.write",
    ),
    "lock.resign": ("admission.read", "running.read", "turn.read", "turn.leave", "turn.release"),
    "workload.ensure": (*_PERMIT, *_RUN),
    "workload.tidy": _REMOVE,
    "workload.start": _RUN,
    "workload.replace": ("workload.signal", *_RUN),
    "workload.revert": ("workload.signal", *_RUN),
    "workload.retire": (*_REMOVE, "payload.prune", "workload.prune"),
    "workload.remove": _REMOVE,
    "workload.restart": _RUN,
    "probe.start": ("probe.ask",),
    "probe.confirm": ("probe.ask",),
    "probe.watch": ("probe.ask",),
    "probe.stop": (),
    "analysis.start": ("analysis.read", "analysis.ask", "analysis.write"),
    "analysis.stop": (),
    "balancer.switch": _WRITE,
    "balancer.leave": ("entry.read", "entry.remove"),
    "balancer.join": _WRITE,
    "balancer.return": (*_PERMIT, *_WRITE),
    "balancer.restore": ("entry.read", "entry.write", "entry.remove"),
    "balancer.drain": _DRAIN,
    "balancer.undrain": _DRAIN,
    "release.check": ("omaha.check", "target.read"),
    "release.download": ("payload.fetch", "payload.keep"),
    "release.verify": (
        "payload.sync",
        "payload.rename",
        "payload.prune",
        "workload.prune",
        "workload.prepare",
        "task.read",
    ),
    "release.abandon": (),
    "task.run": ("task.read", "turn.read", "task.claim", "task.unpack", "task.spawn", "task.write"),
    "task.leave": (),
    "report.downloading": _REPORT,
    "report.downloaded": _REPORT,
    "report.queueing": _REPORT,
    "report.result": _REPORT,
    "sidekick.alarm": (),
}
"""Effect -> the edges it may cross, in the order in which it would."""

UNASKED: tuple[str, ...] = (
    "journal.write", "journal.sync", "journal.rotate", "lease.grant", "lease.keep", "lease.revoke", "outbox.send",
    "outbox.remove", "presence.write", "steps.write", "announcement.read", "command.remove",
    "workload.adopt", "due.claim",
)  # fmt: skip
"""Failpoints that no effect asks for: the loop itself, and threads that run all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailpointHit:
    """A side effect that is about to happen, or has just happened.

    Attributes:
        effect: Name of the effect that asked for it; empty when none did.
        instance: Whose it is, in a process that runs several; empty in one that runs one, and for what they share.
    """

    point: str
    effect: str
    when: When
    instance: str = ""


Observer = Callable[[FailpointHit], None]

_observer: Observer | None = None
_effect: contextvars.ContextVar[str] = contextvars.ContextVar("effect", default="")
_instance: contextvars.ContextVar[str] = contextvars.ContextVar("instance", default="")


def observe(observer: Observer | None) -> None:
    """Let ``observer`` see every failpoint of this process, on the thread that meets it; None ends that."""
    global _observer
    _observer = observer


class failpoint:  # noqa: N801 - used like a function
    """Marks one touch. ``after`` is told only of a touch that didn't raise: else it is unknown whether it happened.

    Raises (when observed): AssertionError for a failpoint that isn't in the list, or not in its effect's row.
    """

    __slots__ = ("_point",)

    def __init__(self, point: str) -> None:
        self._point = point

    def __enter__(self) -> None:
        if _observer is not None:
            _tell(_observer, self._point, "before")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _observer is not None and kind is None:
            _tell(_observer, self._point, "after")


def _tell(observer: Observer, point: str, when: When) -> None:
    assert point in FAILPOINTS or point in AGENT_FAILPOINTS, f"{point} isn't in the list of failpoints"
    effect = "" if point in UNASKED or point in AGENT_FAILPOINTS else _effect.get()
    if effect:
        assert point in FAILPOINTS_OF[effect], f"{effect} meets {point}, which its row doesn't say"
    observer(FailpointHit(point=point, effect=effect, when=when, instance=_instance.get()))


def performing(effect: str) -> contextvars.Token[str]:
    """From here on ``effect`` asks for what this thread (or one started ``with_current_effect``) touches."""
    return _effect.set(effect)


def acting_for(instance: str) -> None:
    """From here on this thread, and those started ``for_same_instance``, work for ``instance``."""
    _instance.set(instance)


def for_same_instance(function: Callable[[], T]) -> Callable[[], T]:
    """``function``, to be run by another thread for the instance that this one works for, under no effect yet."""
    instance = _instance.get()

    def run() -> T:
        _instance.set(instance)
        return function()

    return run


def with_current_effect(function: Callable[[], T]) -> Callable[[], T]:
    """``function``, to be run by another thread under the effect that is performed now."""
    context = contextvars.copy_context()
    return lambda: context.run(function)
