"""The history of a group: what its instances did, step by step, in the order of etcd's revisions.

A *chunk* holds the steps that came between two revisions, compressed, after what was known of the group before the
first of them: so each chunk can be read without the others, and the oldest can go. A step that etcd saw has the
revision of its write. A *local* step has none: a sidekick told it afterwards, and it stands after the highest revision
that the sidekick had seen at the time.

Two clocks are kept apart. ``at`` is the clock of the service process that recorded the step, ``machine`` that of the
machine that it happened on. Neither decides the order.
"""

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, TypeVar

import msgspec

from outrider.core.errors import Conflict
from outrider.model.documents import Document

T = TypeVar("T")
Kind = Literal["state", "left", "turn", "turn-ended", "target", "event", "local", "told", "gap"]
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
"""Of one chunk, or of what a sidekick tells: more isn't ours, whatever it was packed to."""
GONE_KEPT_MS = 24 * 3600 * 1000
"""How long an instance that has left is named at the beginning of new chunks."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={
    "revision": "r", "kind": "k", "instance": "i", "at": "a", "machine": "m", "state": "s", "version": "v",
    "wanted": "w", "text": "t", "event": "e", "number": "n", "took_ms": "d", "process": "p", "is_serving": "u",
    "omits": "o", "stays": "y",
}):  # fmt: skip
    """One step of an instance, or of the group (``instance`` is empty then).

    Attributes:
        revision: etcd's revision of the write. Of a local step: the highest that its sidekick had seen when it began.
        kind: ``state``: the instance is in ``state``. ``left``: its presence ended. ``turn``, ``turn-ended``: it
            holds a turn, in the slot ``number``; it holds it no more. ``target``: the group wants ``version``.
            ``event``: an event of the activity log. ``local``: a state that etcd heard nothing of. ``told``: the
            sidekick has told its local steps. ``gap``: nobody recorded what was between the revisions ``number`` and
            ``revision``.
        at: Milliseconds since 1970, by the recorder's clock; of a local step when it was told.
        machine: The same by the machine's clock: when the state began. 0: unknown.
        version: Label of the release that runs; of ``target``: that is wanted; of ``told``: that the update was for.
        wanted: Label of the target as the instance knows it; of ``told``: what ran before.
        text: For a person.
        event: What ended a local state; the kind of an event of the activity log; the outcome of an update.
        number: Of a local step, its record in the journal; of a gap and a turn, see ``kind``.
        took_ms: How long a local state lasted, by the machine's clock.
        process: Of the sidekick, when it is another one than before. Of ``told``: the update's id.
        omits: Further steps of the instance were left out, because its update took too much room.
        stays: Of a local step: the state did not end, this explains it.
    """

    revision: int
    kind: Kind = "state"
    instance: str = ""
    at: int = 0
    machine: int = 0
    state: str = ""
    version: str = ""
    wanted: str = ""
    text: str = ""
    event: str = ""
    number: int = 0
    took_ms: int = 0
    process: str = ""
    is_serving: bool = False
    omits: bool = False
    stays: bool = False


class Known(msgspec.Struct, kw_only=True, omit_defaults=True, rename={
    "revision": "r", "at": "a", "machine": "m", "state": "s", "version": "v", "wanted": "w", "process": "p",
    "is_serving": "u", "is_there": "h", "turn": "x", "omits": "o", "told": "l", "text": "t",
}):  # fmt: skip
    """What the steps so far say of an instance.

    Attributes:
        turn: Number of the slot that it holds; -1: none.
        is_there: Its presence is in etcd.
        told: Id of the last update that its sidekick told of.
        omits: The steps since this one were left out.
    """

    revision: int = 0
    at: int = 0
    machine: int = 0
    state: str = ""
    version: str = ""
    wanted: str = ""
    text: str = ""
    process: str = ""
    is_serving: bool = False
    is_there: bool = False
    turn: int = -1
    told: str = ""
    omits: bool = False


class Group(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the steps so far say of a group."""

    target: str = ""
    target_revision: int = 0
    instances: dict[str, Known] = {}

    def apply(self, step: Step) -> None:
        """Take over what ``step`` says."""
        if step.kind == "target":
            self.target, self.target_revision = step.version, step.revision
            return
        if not step.instance or step.kind in ("event", "local"):
            return
        known = self.instances.setdefault(step.instance, Known())
        match step.kind:
            case "state":
                known.revision, known.at, known.machine, known.state = step.revision, step.at, step.machine, step.state
                known.version, known.wanted, known.text = step.version, step.wanted, step.text
                known.is_serving, known.is_there, known.omits = step.is_serving, True, step.omits
                known.process = step.process or known.process
            case "left":
                known.revision, known.at, known.is_there, known.is_serving = step.revision, step.at, False, False
                known.omits = False
            case "turn":
                known.turn = step.number
            case "turn-ended":
                known.turn = -1
            case "told":
                known.told = step.process
            case _:
                raise AssertionError(step.kind)

    def without_gone(self, now: int) -> "Group":
        """A copy without instances that have left long ago, at ``now`` (milliseconds), and hold nothing."""
        kept = {
            name: msgspec.structs.replace(one)
            for name, one in self.instances.items()
            if one.is_there or one.turn >= 0 or now - one.at <= GONE_KEPT_MS
        }
        return Group(target=self.target, target_revision=self.target_revision, instances=kept)


class RolloutMark(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that began in a chunk: the revision at which the group was given its release, which is its id."""

    revision: int
    version: str
    at: datetime


class Chunk(Document, frozen=True, kw_only=True):
    """``history/{app}/{group}/{first}``: steps that came one after the other.

    Attributes:
        first, last: Revisions at which the first and the last of them came to the recorder.
        earliest: The least revision of a step: what is told afterwards lies before ``first``.
        began, ended: When they came, by the recorder's clock.
        steps: Their number.
        rollouts: Those that began here.
        packed: ``Content`` as compressed JSON.
    """

    app: str
    group: str
    first: int
    last: int
    earliest: int
    began: datetime
    ended: datetime
    steps: int
    rollouts: tuple[RolloutMark, ...] = ()
    packed: bytes


class Content(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is in a chunk.

    Attributes:
        before: What was known of the group before the first step.
    """

    before: Group
    steps: tuple[Step, ...]


class LocalStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={
    "number": "n", "state": "s", "began": "a", "took_ms": "d", "seen": "r", "event": "e", "text": "t", "stays": "y",
}):  # fmt: skip
    """A state that a sidekick was in, as it tells of it.

    Attributes:
        number: Of the record in its journal with which it left the state.
        began: When it entered it, milliseconds since 1970 by the machine's clock; 0: unknown.
        seen: The highest revision of etcd that it had seen when it entered it.
        event: What ended it, in the statechart's words; ``text`` in those for a person.
        stays: The state did not end: this explains it.
    """

    number: int
    state: str
    began: int = 0
    took_ms: int = 0
    seen: int = 0
    event: str = ""
    text: str = ""
    stays: bool = False


class LocalSteps(Document, frozen=True, kw_only=True):
    """``steps/{app}/{group}/{instance}``, under the sidekick's lease: its last update, told once.

    Attributes:
        update: Id in its journal.
        version_before, version: Labels of what ran and of what the update was to bring.
        left_out: Steps that had no room.
        packed: A list of ``LocalStep`` as compressed JSON.
    """

    app: str
    group: str
    instance: str
    update: str
    version_before: str
    version: str
    outcome: str
    because: str = ""
    left_out: int = 0
    packed: bytes


def pack(value: object) -> bytes:
    """As compressed JSON."""
    return zlib.compress(msgspec.json.encode(value), 9)


def content_of(key: str, chunk: Chunk) -> Content:
    """What is in the chunk stored at ``key``.

    Raises:
        Conflict: it is damaged.
    """
    return _unpacked(key, chunk.packed, Content)


def local_steps_of(key: str, told: LocalSteps) -> list[LocalStep]:
    """What a sidekick tells at ``key``.

    Raises:
        Conflict: it is damaged.
    """
    return _unpacked(key, told.packed, list[LocalStep])


def _unpacked(key: str, packed: bytes, kind: type[T]) -> T:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
        if not unpacker.eof:
            raise Conflict(f"{key}: cut off, or larger than {MAX_UNPACKED_BYTES} bytes")
        return msgspec.json.decode(text, type=kind)
    except (zlib.error, msgspec.DecodeError) as error:
        raise Conflict(f"{key}: damaged: {error}") from error


def folded(content: Content) -> Group:
    """What is known of the group after the last step of a chunk."""
    group = copied(content.before)
    for step in content.steps:
        group.apply(step)
    return group


def copied(group: Group) -> Group:
    """A copy that shares nothing with ``group``."""
    instances = {name: msgspec.structs.replace(one) for name, one in group.instances.items()}
    return msgspec.structs.replace(group, instances=instances)


def rollouts_in(steps: Iterable[Step]) -> tuple[RolloutMark, ...]:
    """The rollouts that begin in ``steps``."""
    return tuple(
        RolloutMark(revision=one.revision, version=one.version, at=moment(one.at))
        for one in steps
        if one.kind == "target" and one.version
    )


def moment(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def milliseconds(at: datetime) -> int:
    """The other way round."""
    return round(at.timestamp() * 1000)
