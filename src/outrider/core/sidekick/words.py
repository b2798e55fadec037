"""What a person is told: the chart's own words with the memory's facts filled in (P7)."""

from outrider.core.images import PayloadKind
from outrider.core.sidekick.memory import Installed, Memory, Release

FACTS = frozenset(
    {"running", "candidate", "trouble", "idle", "deferred", "queue", "progress", "beside", "before", "last_requests"}
)
"""Names that ``o:why`` may use in braces; a test holds the chart to them."""


_KINDS: dict[PayloadKind, tuple[str, str]] = {
    "archive": ("an archive", "archives"),
    "image": ("a container image", "container images"),
}


def unfit(memory: Memory, release: Release) -> str:
    """Why the runtime here can't run ``release``; empty when it can."""
    if release.kind in memory.kinds:
        return ""
    one, many = _KINDS[release.kind]
    known = " and ".join(_KINDS[kind][1] for kind in memory.kinds)
    return (
        f"{release.version} is {one}; this machine's runtime ({memory.runtime}) runs {known} only: serve this group"
        f" {' or '.join(_KINDS[kind][0] for kind in memory.kinds)}, or set instance.runtime to one that runs {many}"
    )


def why(memory: Memory, template: str) -> str:
    """Fill ``template`` (a state's ``o:why``) with facts; empty when the instance waits for nothing."""
    return template.format_map(
        {
            "running": _name(memory.running),
            "candidate": _name(memory.candidate),
            "trouble": memory.trouble.cause if memory.trouble is not None else "a deadline passed",
            "idle": _idle(memory),
            "deferred": memory.deferred_reason or _idle(memory) or "the update service has nothing for it",
            "queue": _queue(memory),
            "progress": f"{memory.progress:.0%}",
            "beside": f" beside {_name(memory.running)}" if memory.running is not None else "",
            "before": f" before {_name(memory.running)} goes for good" if memory.running is not None else "",
            "last_requests": (
                f"the last requests to {_name(memory.running)} are awaited"
                if memory.running is not None
                else "the balancer must be seen to send to it"
            ),
        }
    )


def _name(installed: Installed | None) -> str:
    return installed.release.version if installed is not None else "nothing"


def _idle(memory: Memory) -> str:
    """Why an instance at rest doesn't run what its group shall run."""
    wanted, running = memory.wanted, _name(memory.running)
    if wanted == running:
        return ""
    if wanted is None:
        return memory.deferred_reason if memory.unfit else ""
    if memory.group_paused:
        return f"{wanted} waits: the group is paused"
    if wanted in memory.blocked:
        return f"{wanted} is blocked: {memory.blocked[wanted]}"
    if wanted == memory.undone:
        return f"an operator rolled {wanted} back here; a new target or 'retry' takes it up again"
    return memory.deferred_reason


def _queue(memory: Memory) -> str:
    queue_position = memory.queue_position
    if queue_position is None:
        return "asks for a turn"
    held = f"held by {', '.join(queue_position.holders)}" if queue_position.holders else "a slot is free"
    if queue_position.ahead is None or queue_position.rank == 0:
        return f"waits for a turn: next in the queue, {held}"
    return f"waits for a turn: number {queue_position.rank + 1} in the queue behind {queue_position.ahead}, {held}"
