"""One group's chunks as a recorder sees them: the last one, what comes after it, and the next write."""

import zlib
from dataclasses import dataclass, field

import msgspec

from outrider.core.errors import Conflict
from outrider.etcd.seam import Entry
from outrider.model.damage import DAMAGE, read_or_none
from outrider.model.documents import encode
from outrider.model.history import (
    Chunk,
    Content,
    Group,
    Step,
    content_of,
    copied,
    folded,
    moment,
    pack,
    rollouts_in,
)
from outrider.model.keys import Keys

CHUNK_BYTES = 24 * 1024
"""From here on the next steps begin a new chunk; later where what is known of a large group takes much of it."""
MAX_PENDING = 5_000
"""Steps of one group that wait while nothing can be written."""
MAX_STEPS = 1_500
"""Steps in one chunk."""
_BEFORE_SHARE = 4


@dataclass(frozen=True, slots=True)
class Arrived:
    """A step, and the revision at which it came to the recorder."""

    revision: int
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """The next write of a group: its chunk, and how many of the steps that wait are in it."""

    key: str
    value: bytes
    chunk: Chunk
    content: Content
    taken: int


@dataclass(slots=True)
class Tail:
    """The last chunk of a group, and what waits to be written after it.

    Attributes:
        revision: At which the chunk was last written; 0: there is none.
        base: What is known after the chunk.
        is_closed: The next step begins a new chunk.
        pending: In the order in which they came.
    """

    key: str = ""
    revision: int = 0
    size: int = 0
    last: int = 0
    base: Group = field(default_factory=Group)
    is_closed: bool = False
    pending: list[Arrived] = field(default_factory=list)
    _packed: tuple[Chunk, bytes] | None = None
    _room: int = CHUNK_BYTES

    def saw(self, entry: Entry) -> bool:
        """Take over a chunk that is in etcd; False when it can't be, and the next write begins a new one."""
        chunk = read_or_none(Chunk, entry.key, entry.value)
        if chunk is None or chunk.last > entry.mod_revision:  # damaged, or of an etcd that was restored since
            self.is_closed = True
            return False
        try:
            content = content_of(entry.key, chunk)
        except Conflict as error:
            DAMAGE.note("chunk", entry.key, entry.value, error)
            self.is_closed = True
            return False
        self._keep(entry.key, entry.mod_revision, len(entry.value), chunk, content)
        self.base, self.is_closed = folded(content), False
        return True

    def know(self, group: Group) -> None:
        """More is known of the group than its chunks say."""
        self.is_closed = self.is_closed or group != self.base
        self.base = copied(group)

    def wrote(self, write: Write, revision: int) -> None:
        """``write`` is in etcd."""
        self.is_closed = False
        self._keep(write.key, revision, len(write.value), write.chunk, write.content)
        for arrived in self.pending[: write.taken]:
            self.base.apply(arrived.step)
        del self.pending[: write.taken]

    def add(self, revision: int, step: Step) -> None:
        """Let ``step`` wait. When too many do, the oldest are given up, and a gap says so."""
        self.pending.append(Arrived(revision, step))
        if len(self.pending) > MAX_PENDING:
            dropped, self.pending = self.pending[: MAX_PENDING // 2], self.pending[MAX_PENDING // 2 :]
            for one in dropped:
                self.base.apply(one.step)
            first = dropped[0].step.number if dropped[0].step.kind == "gap" else dropped[0].revision
            until = dropped[-1].revision
            gap = Step(revision=until, kind="gap", at=step.at, number=first, text="etcd took no writes of the history")
            self.pending.insert(0, Arrived(until, gap))

    def next_write(self, keys: Keys, app: str, group: str, up_to: int) -> Write | None:
        """What is to be written of the steps that came until the revision ``up_to``; None: nothing."""
        taken = sum(one.revision <= up_to for one in self.pending[:MAX_STEPS])
        if not taken:
            return None
        new = tuple(one.step for one in self.pending[:taken])
        first, last = self.pending[0].revision, self.pending[taken - 1].revision
        steps, before, key = new, self.base, keys.chunk(app, group, first)
        if self._packed is not None and self.size < self._room and not self.is_closed:
            chunk, packed = self._packed
            content = msgspec.json.decode(zlib.decompress(packed), type=Content)
            if len(content.steps) + taken <= MAX_STEPS:
                steps, before, key, first = (*content.steps, *new), content.before, self.key, chunk.first
        if key != self.key:
            before = self.base.without_gone(new[0].at)
        content = Content(before=before, steps=steps)
        chunk = Chunk(
            app=app,
            group=group,
            first=first,
            last=last,
            earliest=min(one.revision for one in steps),
            began=moment(min(one.at for one in steps)),
            ended=moment(max(one.at for one in steps)),
            steps=len(steps),
            rollouts=rollouts_in(steps),
            packed=pack(content),
        )
        return Write(key=key, value=encode(chunk), chunk=chunk, content=content, taken=taken)

    def _keep(self, key: str, revision: int, size: int, chunk: Chunk, content: Content) -> None:
        if key != self.key:
            self._room = max(CHUNK_BYTES, _BEFORE_SHARE * len(pack(content.before)))
        self.key, self.revision, self.size, self.last = key, revision, size, chunk.last
        self._packed = (chunk, chunk.packed)
