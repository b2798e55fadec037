"""The steps of several machines as one story, in the order in which they can have caused each other.

Theory. etcd gives every write a revision, and a step that wrote something stands at its revision. A local step wrote
nothing; its sidekick says which revision it had seen when the step began. It stands after that one, after its own
instance's steps before it, and before the next step of its instance that etcd saw. Clocks decide nothing: they may be
hours apart.

A state that a sidekick tells of and that etcd saw, too, is one line: found by the state, and by when it began by the
machine's own clock, in the order of both.
"""

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from outrider.model.history import Step, moment

SAME_MS = 2_000
"""A step is journalled, and shown in etcd, within that time of each other."""
_OWN = ("state", "turn", "told")
"""What the instance itself writes: its presence may end, and its turn be taken away, without its doing."""
_RANKS = {"gap": 0, "target": 1, "event": 2, "turn": 3, "turn-ended": 4, "state": 5, "left": 6, "told": 7, "local": 8}


class StoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a merged story.

    Attributes:
        id: Lines are in the order of their ids.
        revision: etcd's revision of the write; None: it is a local step, between ``after`` and ``before``.
        after, before: Revisions between which it was; ``before`` is None when nothing came after it.
        kind: As ``Step.kind`` has it; a line of the kind ``state`` may have what its sidekick told of it.
        at: By the clock of the service; None: it was told later.
        machine_at: By the clock of the machine.
        took_s: How long the state lasted, seconds: by the machine's clock if its sidekick told it, else by the
            service's; None: it isn't known, or lasts.
        event: What ended the state, or an event's kind.
        turn: Number of the turn's slot.
    """

    id: str
    revision: int | None
    after: int
    before: int | None = None
    kind: str
    instance: str = ""
    state: str = ""
    version: str = ""
    event: str = ""
    text: str = ""
    at: datetime | None = None
    machine_at: datetime | None = None
    took_s: float | None = None
    turn: int | None = None

    @property
    def is_local(self) -> bool:
        """etcd heard nothing of it."""
        return self.revision is None

    @property
    def place(self) -> str:
        """``815``, or ``815..819`` of a local step."""
        if self.revision is not None:
            return str(self.revision)
        return f"{self.after}..{self.before}" if self.before is not None else f"{self.after}.."


def merge(steps: Iterable[Step]) -> tuple[StoryLine, ...]:
    """The lines of ``steps``, which may be in any order, and doubled."""
    by_instance: dict[str, list[Step]] = {}
    for step in steps:
        by_instance.setdefault(step.instance, []).append(step)
    lines = {line.id: line for name, own in by_instance.items() for line in _instance(name, own)}
    return tuple(lines[name] for name in sorted(lines))


def _instance(name: str, steps: Sequence[Step]) -> Iterable[StoryLine]:
    seen = sorted(
        {step for step in steps if step.kind != "local"}, key=lambda one: (one.revision, _RANKS[one.kind], one.number)
    )
    states = [step for step in seen if step.kind in ("state", "left")]
    told = sorted({step for step in steps if step.kind == "local"}, key=lambda one: (one.number, one.stays))
    pairs = _paired(states, told)
    of_state = {id(states[at]): told[number] for number, at in pairs.items()}
    ends = {id(one): after for one, after in itertools.pairwise(states)}
    for step in seen:
        yield _seen_line(name, step, of_state.get(id(step)), ends.get(id(step)))
    after = 0
    for number, step in enumerate(told):
        if number in pairs:
            after = max(after, states[pairs[number]].revision)
            continue
        after = max(after, step.revision)
        later = number + 1
        if step.stays:  # its own state stands behind it, where that ends, and was written when it began
            later = next((at for at in range(later, len(told)) if not told[at].stays), len(told)) + 1
        following = (states[pairs[at]].revision for at in range(later, len(told)) if at in pairs)
        before = next(following, None)
        if before is None:
            before = next((one.revision for one in seen if one.revision > after and one.kind in _OWN), None)
        yield StoryLine(
            id=_id(after, step, name),
            revision=None,
            after=after,
            before=before,
            kind="local",
            instance=name,
            state=step.state,
            event=step.event,
            text=step.text,
            machine_at=moment(step.machine) if step.machine else None,
            took_s=None if step.stays else step.took_ms / 1000,
        )


def _paired(states: Sequence[Step], told: Sequence[Step]) -> dict[int, int]:
    """Position in ``told`` -> position in ``states`` of the same stay; both ascend."""
    pairs: dict[int, int] = {}
    begin = 0
    for number, step in enumerate(told):
        if step.stays or not step.machine:
            continue
        found = [
            (abs(states[at].machine - step.machine), at)
            for at in range(begin, len(states))
            if states[at].state == step.state
            and states[at].kind == "state"
            and abs(states[at].machine - step.machine) <= SAME_MS
        ]
        if found:
            pairs[number] = min(found)[1]
            begin = pairs[number] + 1
    return pairs


def _seen_line(name: str, step: Step, told: Step | None, following: Step | None) -> StoryLine:
    took_s = None
    if told is not None:
        took_s = told.took_ms / 1000
    elif step.kind == "state" and following is not None and not step.omits:
        took_s = max(0, following.at - step.at) / 1000
    text = step.text
    if told is not None:
        text = told.text
    match step.kind:
        case "turn":
            text = f"turn taken, slot {step.number}"
        case "turn-ended":
            text = "turn ended"
        case "target":
            text = f"target: {step.version}" if step.version else "the group has no target"
        case "left":
            text = "its presence ended: the sidekick stopped, died, or was cut off from etcd"
        case "told":
            text = f"update {step.wanted} -> {step.version}: {step.event}" + (f": {step.text}" if step.text else "")
            text += f" ({step.number} local steps had no room)" if step.number else ""
        case "gap" if step.number:
            text = f"nothing is recorded between the revisions {step.number} and {step.revision}: {step.text}"
    if step.omits:
        text = "further steps are left out: the update took all the room that it has in the history"
    return StoryLine(
        id=_id(step.revision, step, name),
        revision=step.revision,
        after=step.revision,
        kind=step.kind,
        instance=name,
        state=step.state,
        version=step.version,
        event=told.event if told is not None else step.event,
        text=text,
        at=moment(step.at),
        machine_at=moment(step.machine) if step.machine else None,
        took_s=took_s,
        turn=step.number if step.kind in ("turn", "turn-ended") else None,
    )


def _id(after: int, step: Step, instance: str) -> str:
    more = f".{step.event}.{step.version}" if step.kind == "event" else ""
    local = step.kind == "local"
    return f"{after:016x}.{local:d}.{_RANKS[step.kind]}.{instance}.{step.number:010}.{step.stays:d}{more}"
