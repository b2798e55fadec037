"""What a person is told: the chart's own words with the memory's facts filled in (P7)."""

from dataclasses import replace
from datetime import datetime

from outrider.core.images import PayloadKind
from outrider.core.sidekick.guards import has_turn, leads_forward
from outrider.core.sidekick.memory import NO_PAYLOAD, Drain, Installed, Memory, Release
from outrider.core.versions import NOTHING

FACTS = frozenset(
    {
        "running",
        "candidate",
        "trouble",
        "stuck",
        "idle",
        "deferred",
        "queue",
        "paused",
        "progress",
        "sample",
        "beside",
        "before",
        "last_requests",
        "refused",
        "drained",
        "late",
        "tasks",
    }
)
"""Names that ``o:why`` may use in braces; a test holds the chart to them."""


_KINDS: dict[PayloadKind, tuple[str, str]] = {
    "archive": ("an archive", "archives"),
    "image": ("a container image", "container images"),
    "image-tar": ("a container image in a tar", "container images in a tar"),
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


def unfit_again(memory: Memory, release: Release) -> str:
    """Why what ran before can't be run again; empty when it can."""
    if release.sha256 == NO_PAYLOAD and not release.urls:
        return (
            f"no payload of {release.version} was ever here, for something else started it: let the channel name a"
            " package of that version"
        )
    return unfit(memory, release)


def given_up(memory: Memory, version: str) -> str:
    """Why a release isn't tried again here unasked, although it isn't blocked; empty when it may be.

    ``version``: its label.
    """
    setback = memory.setback
    if setback is None or setback.version != version or not setback.final:
        return ""
    again = f"`outrider instance retry {memory.app} {memory.instance}` tries it again"
    if setback.blame == "machine":
        return f"this machine cannot take {version}: {setback.cause}; {again}, and so does a restart of the sidekick"
    return f"{version} failed here: {setback.cause}; {again}"


def refusal(memory: Memory, label: str, version: str = "") -> str:
    """Why a release, which the update service offers, isn't taken; empty when it may be.

    Args:
        label: Of the release.
        version: Its version; empty: the label is it.
    """
    running = _name(memory.running)
    if memory.paused:
        return f"{label} waits: this instance is paused"
    if has_turn(memory):
        return f"{label} waits: this instance still holds the turn under which it was drained"
    if memory.group_paused and memory.running is not None:
        return f"{label} waits: the group is paused"
    if label in memory.blocked:
        return f"{label} is blocked: {memory.blocked[label]}"
    if label == memory.undone:
        return f"an operator rolled {label} back here; a new target or 'retry' takes it up again"
    if problem := given_up(memory, label):
        return problem
    if label == (running if memory.running is not None else NOTHING):
        return f"{label} was offered, and runs already"
    if not memory.allow_downgrade and not leads_forward(memory, version or label):
        return f"{label} refused: older than {running}; this machine forbids going back (instance.allow_downgrade)"
    return ""


def not_kept(memory: Memory, version: str) -> str:
    """Why an operator's rollback to ``version`` isn't possible."""
    kept = (memory.running if memory.candidate is not None else None, memory.previous)
    known = " and ".join(dict.fromkeys(one.release.label for one in kept if one is not None))
    return f"can't go back to {version}: this machine has kept {known or 'no older version'}"


def why(memory: Memory, template: str) -> str:
    """Fill ``template`` (a state's ``o:why``) with facts; empty when the instance waits for nothing."""
    return template.format_map(
        {
            "running": _name(memory.running),
            "candidate": _name(memory.candidate),
            "trouble": memory.trouble.cause if memory.trouble is not None else "a deadline passed",
            "stuck": _stuck(memory),
            "idle": _idle(memory),
            "deferred": memory.deferred_reason or _idle(memory) or "the update service has nothing for it",
            "queue": _queue(memory),
            "refused": memory.refused,
            "drained": _drained(memory),
            "tasks": memory.task or "asks for the tasks that must run before a swap",
            "late": _late(memory.drain, memory.at),
            "paused": _paused(memory),
            "progress": f"{memory.progress:.0%}",
            "sample": f": {memory.sample}" if memory.sample else "",
            "beside": f" beside {_name(memory.running)}" if memory.running is not None else "",
            "before": f" before {_name(memory.running)} goes for good" if memory.running is not None else "",
            "last_requests": (
                f"draining {_name(memory.running)}"
                if memory.running is not None
                else "waits until the balancer sends to it"
            ),
        }
    )


def serves(memory: Memory, *, serving: bool) -> Installed | None:
    """What the balancer is sent to here; None where that isn't sure: out of the balancer, or in the middle of a swap.

    ``serving``: what runs serves.
    """
    if memory.exposed and memory.fault is None:
        return memory.candidate or memory.running
    return memory.running if serving else None


def _name(installed: Installed | None) -> str:
    return installed.release.label if installed is not None else "nothing"


def _paused(memory: Memory) -> str:
    if not memory.undecided:
        return "paused by an operator"
    resume = f"`outrider instance resume {memory.app} {memory.instance}` takes it as it is"
    return f"paused: the analysis of {memory.undecided} is undecided: {memory.sample or 'no answer'}; {resume}"


def _drained(memory: Memory) -> str:
    drain = memory.drain
    if drain is None:
        return "drained"
    until = "until the next boot, or `outrider instance undrain`" if drain.kind == "reboot" else (
        "until `outrider instance undrain`"
    )  # fmt: skip
    return f"drained since {drain.since:%H:%M} UTC, {until}{_late(drain, memory.at)}"


def _late(drain: Drain | None, at: datetime) -> str:
    """What to add when a drain takes longer than was said."""
    if drain is None or not drain.for_s or (at - drain.since).total_seconds() <= drain.for_s:
        return ""
    return f"; it was to take {drain.for_s / 60:g} min"


def _stuck(memory: Memory) -> str:
    """``: CAUSE`` when a rollback could not bring the version before back yet."""
    trouble = memory.trouble
    return f": {trouble.cause}" if memory.down and trouble is not None and trouble != memory.fault else ""


def _idle(memory: Memory) -> str:
    """Why an instance at rest doesn't run its group's target."""
    wanted, running = memory.wanted, _name(memory.running)
    if wanted == running:
        return ""
    if wanted is None:  # a foreign server, or a channel that points at nothing: its own words are all there is
        return memory.deferred_reason
    known = memory.group_paused or wanted in memory.blocked or wanted == memory.undone or given_up(memory, wanted)
    if not known:
        return memory.deferred_reason
    return refusal(replace(memory, paused=False), wanted, memory.wanted_version or wanted)


def _queue(memory: Memory) -> str:
    queue_position = memory.queue_position
    if queue_position is None:
        return "asks for a turn"
    if queue_position.held:
        return f"waits for a turn: {queue_position.held}"
    held = f"held by {', '.join(queue_position.holders)}" if queue_position.holders else "a slot is free"
    if queue_position.ahead is None or queue_position.rank == 0:
        return f"waits for a turn: next in the queue, {held}"
    return f"waits for a turn: number {queue_position.rank + 1} in the queue behind {queue_position.ahead}, {held}"
