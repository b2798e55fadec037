"""Reads the history of groups: the story of a rollout, and the fleet as it was; for the API, and for commands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.etcd.seam import Entry
from outrider.model.damage import DAMAGE
from outrider.model.documents import decode
from outrider.model.history import (
    Chunk,
    Content,
    Group,
    Known,
    RolloutMark,
    Step,
    content_of,
    milliseconds,
    moment,
)
from outrider.service.store.context import StoreContext, app_id_of, some
from outrider.story.merged import StoryLine, merge

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class GroupStory(msgspec.Struct, frozen=True, kw_only=True):
    """The story of one rollout of a group.

    Attributes:
        rollout: Its id, the revision at which the group was given the release; None: before any of which is known.
        version: Label of the release.
        until: Revision at which the next rollout began; None: it is the last one.
        notes: What is missing, and why; a sentence each.
        rollouts: All rollouts of which the history knows, oldest first.
    """

    app: str
    group: str
    instance: str = ""
    rollout: int | None
    version: str
    began: datetime | None
    until: int | None
    lines: tuple[StoryLine, ...]
    notes: tuple[str, ...]
    rollouts: tuple[RolloutMark, ...]


class InstanceThen(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as it was.

    Attributes:
        state: Of its sidekick; ``away``: its presence had ended.
        since: By the clock of the service; ``machine_since`` by that of the machine.
        turn: Number of the slot whose turn it held; None: it held none.
        why: What it waited for when it came into the state, or why nothing better is known.
    """

    instance: str
    state: str
    version: str
    wanted: str
    serving: bool
    since: datetime
    machine_since: datetime | None
    turn: int | None
    why: str


class GroupThen(msgspec.Struct, frozen=True, kw_only=True):
    """A group as it was.

    Attributes:
        revision, at: Of the last step before that moment.
        notes: What can't be known, and why.
    """

    app: str
    group: str
    target: str
    revision: int | None
    at: datetime | None
    instances: tuple[InstanceThen, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stored:
    """A chunk in etcd; None: it can't be read."""

    key: str
    first: int
    chunk: Chunk | None


class History:
    """The chunks of one group, oldest first; each is unpacked once."""

    def __init__(self, entries: Sequence[Entry], app: str, group: str) -> None:
        self.app, self.group = app, group
        self._stored = tuple(_read(entries))
        self._contents: dict[str, Content | None] = {}

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Those that can be read."""
        return tuple(one.chunk for one in self._stored if one.chunk is not None)

    def content(self, chunk: Chunk) -> Content | None:
        """What is in it; None, noted as damaged, when that can't be read."""
        key = next(one.key for one in self._stored if one.chunk is chunk)
        if key not in self._contents:
            try:
                self._contents[key] = content_of(key, chunk)
            except Conflict as error:
                DAMAGE.note("chunk", key, chunk.packed, error)
                self._contents[key] = None
        return self._contents[key]

    def damaged(self, since: int, until: int | None) -> Iterator[str]:
        """A sentence for each chunk that can't be read, and may tell of what was between the two revisions."""
        for at, one in enumerate(self._stored):
            unpacked = one.chunk is not None and self._contents.get(one.key, self) is not None
            following = self._stored[at + 1].first if at + 1 < len(self._stored) else None
            if not unpacked and (following is None or following > since) and (until is None or one.first < until):
                end = f" to {following}" if following is not None else " on"
                yield f"{one.key} is damaged: the steps from revision {one.first}{end} are missing"

    def rollouts(self) -> tuple[RolloutMark, ...]:
        """Those that are known, oldest first; the first may have begun before the history."""
        marks = {mark.revision: mark for chunk in self.chunks for mark in chunk.rollouts}
        for chunk in self.chunks[:1]:
            content = self.content(chunk)
            if content is not None and content.before.target:
                begun = content.before.target_revision
                early = RolloutMark(revision=begun, version=content.before.target, at=chunk.began)
                marks.setdefault(begun, early)
        return tuple(marks[revision] for revision in sorted(marks))

    def steps(self, since: int, until: int | None) -> Iterator[Step]:
        """Steps whose revision is at least ``since`` and below ``until``."""
        for chunk in self.chunks:
            if chunk.last >= since and (until is None or chunk.earliest < until):
                content = self.content(chunk)
                for step in content.steps if content is not None else ():
                    if step.revision >= since and (until is None or step.revision < until):
                        yield step


def _read(entries: Sequence[Entry]) -> Iterator[_Stored]:
    for entry in entries:
        word = entry.key.rpartition("/")[2]
        try:
            first = int(word, 16)
            chunk: Chunk | None = decode(Chunk, entry.key, entry.value)
        except (Conflict, ValueError) as error:
            if isinstance(error, Conflict):
                DAMAGE.note("chunk", entry.key, entry.value, error)
                yield _Stored(entry.key, first, None)
            continue
        if chunk is not None and chunk.last <= entry.mod_revision:  # else it is of an etcd that was restored since
            yield _Stored(entry.key, first, chunk)


def read_history(context: StoreContext, app: str, group: str) -> History:
    """The history of a group.

    Raises:
        NotFound: nothing is recorded of it.
        ConfigError: there can't be such an app or group.
    """
    app_id = app_id_of(app)
    entries = context.cluster.list(context.keys.history(app_id, group)).entries
    if not entries:
        if context.cluster.get(context.keys.group(app_id, group)) is None:
            raise NotFound(f"app {app} has no group {group!r}; `outrider group list --app-id={app}` shows them")
        raise NotFound(f"nothing is recorded of group {group} yet; the update service records it from its start on")
    return History(entries, app_id, group)


def read_story(context: StoreContext, app: str, group: str, *, instance: str = "", rollout: str = "") -> GroupStory:
    """The story of a rollout.

    Args:
        instance: Only what concerns this instance and the group as a whole; empty: all.
        rollout: Its id, or the label of its release (then the last one of it); empty: the last one.

    Raises:
        NotFound: nothing is recorded of the group, the rollout or the instance.
    """
    history = read_history(context, app, group)
    marks = history.rollouts()
    chosen = _chosen(history, marks, rollout)
    since = chosen.revision if chosen is not None else 0
    until = next((mark.revision for mark in marks if mark.revision > since), None)
    steps = list(history.steps(since, until))
    lines = merge(one for one in steps if not instance or one.instance in ("", instance))
    if instance and not any(line.instance == instance for line in lines):
        known = some({step.instance for step in steps if step.instance})
        what = f"the rollout of {chosen.version}" if chosen is not None else "the history"
        raise NotFound(f"{what} in group {group} says nothing of instance {instance!r}; it knows {known or 'none'}")
    notes = [*history.damaged(since, until)]
    first = history.chunks[0].earliest if history.chunks else 0
    if chosen is not None and not any(line.kind == "target" and line.revision == since for line in lines):
        notes.insert(0, f"its beginning at revision {since} is not in the history, which begins at {first}")
    return GroupStory(
        app=history.app,
        group=group,
        instance=instance,
        rollout=chosen.revision if chosen is not None else None,
        version=chosen.version if chosen is not None else "",
        began=chosen.at if chosen is not None else None,
        until=until,
        lines=lines,
        notes=tuple(notes),
        rollouts=marks,
    )


def _chosen(history: History, marks: Sequence[RolloutMark], rollout: str) -> RolloutMark | None:
    if not rollout:
        return marks[-1] if marks else None
    by_id = [mark for mark in marks if rollout == str(mark.revision)]
    found = by_id or [mark for mark in marks if mark.version == rollout]
    if not found:
        known = ", ".join(f"{mark.version} ({mark.revision})" for mark in marks[-10:]) or "none"
        raise NotFound(f"no rollout {rollout!r} in the history of group {history.group}; it has {known}")
    return found[-1]


def fleet_at(context: StoreContext, app: str, group: str | None, at: int | datetime) -> tuple[GroupThen, ...]:
    """The groups of an app, or one of them, as they were at a revision of etcd, or at a time.

    A time is one by the clock of the service processes that recorded the history.

    Raises:
        NotFound: nothing is recorded of the app or the group.
        ConfigError: it is in the future.
    """
    app_id = app_id_of(app)
    if group is not None:
        histories = [read_history(context, app, group)]
    else:
        entries: dict[str, list[Entry]] = {}
        for entry in context.cluster.list(context.keys.app_history(app_id)).entries:
            entries.setdefault(entry.key.split("/")[-2], []).append(entry)
        histories = [History(found, app_id, name) for name, found in sorted(entries.items())]
    if not histories:
        raise NotFound(f"nothing is recorded of app {app}; the update service records it from its start on")
    if isinstance(at, datetime):
        if at > context.now():
            raise ConfigError(f"{at.isoformat()}: that is in the future")
    else:
        now = context.cluster.list(context.keys.history_seen(), exact=True).revision
        if at > now:
            raise ConfigError(f"revision {at}: etcd is at revision {now}")
    return tuple(group_at(history, at) for history in histories)


def parse_moment(text: str, now: datetime) -> int | datetime:
    """Read a revision of etcd, a time, or an age.

    Raises:
        ConfigError: it is none of them.
    """
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if text[-1:] in _UNITS and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 12:
        try:
            return now - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
        except OverflowError:
            raise ConfigError(f"{text!r}: longer ago than there are years") from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text[:40]!r}: write a revision of etcd, a time like 2026-11-30T10:00:00Z, or an age like 30m, 12h, 3d"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def beside(history: History, then: GroupThen) -> tuple[int | None, int | None]:
    """Revisions of the steps before and after the last one that ``then`` has; None: the history has none."""
    now = then.revision or 0
    before = after = None
    for step in history.steps(0, None) if len(history.chunks) < 3 else _near(history, now):
        if step.kind in ("local", "gap") or step.revision == now:
            continue
        if step.revision < now:
            before = step.revision if before is None else max(before, step.revision)
        else:
            after = step.revision if after is None else min(after, step.revision)
    return before, after


def _near(history: History, revision: int) -> Iterator[Step]:
    """The steps of the chunk that a revision is in, and of its neighbours."""
    chunks = history.chunks
    at = max((number for number, chunk in enumerate(chunks) if chunk.first <= revision), default=0)
    for chunk in chunks[max(0, at - 1) : at + 2]:
        content = history.content(chunk)
        yield from content.steps if content is not None else ()


def group_at(history: History, at: int | datetime) -> GroupThen:
    """A group as it was."""
    notes: list[str] = []
    chunks = [one for one in history.chunks if (one.began <= at if isinstance(at, datetime) else one.first <= at)]
    group, last = Group(), None
    if not chunks:
        begins = next((f"revision {one.first} ({one.began:%Y-%m-%d %H:%M:%S} UTC)" for one in history.chunks), "")
        notes.append(f"the history of group {history.group} begins later, at {begins}" if begins else "no history")
    else:
        content = history.content(chunks[-1])
        if content is not None:
            group = content.before
            for step in content.steps:
                if _is_past(step, at) and step.kind != "local":
                    group.apply(step)
                    last = step
    seen = last.revision if last is not None else 0
    moment_ms = milliseconds(at) if isinstance(at, datetime) else 0
    notes += history.damaged(at if isinstance(at, int) else seen, None if isinstance(at, datetime) else at + 1)
    for gap in (step for step in history.steps(seen, None) if step.kind == "gap" and step.number):
        within = gap.number < at < gap.revision if isinstance(at, int) else gap.number >= seen and gap.at > moment_ms
        if within:
            notes.append(
                f"nothing is recorded between the revisions {gap.number} and {gap.revision}: {gap.text}; this is how"
                " it was before"
            )
    return GroupThen(
        app=history.app,
        group=history.group,
        target=group.target,
        revision=last.revision if last is not None else None,
        at=moment(last.at) if last is not None else None,
        instances=tuple(_then(name, one) for name, one in sorted(group.instances.items()) if one.state),
        notes=tuple(notes),
    )


def _is_past(step: Step, at: int | datetime) -> bool:
    return step.at <= milliseconds(at) if isinstance(at, datetime) else step.revision <= at


def _then(name: str, known: Known) -> InstanceThen:
    why = known.text
    if known.omits:
        why = "it may have gone on: further steps were left out for lack of room"
    return InstanceThen(
        instance=name,
        state=known.state if known.is_there else "away",
        version=known.version,
        wanted=known.wanted,
        serving=known.is_serving,
        since=moment(known.at),
        machine_since=moment(known.machine) if known.machine and known.is_there else None,
        turn=known.turn if known.turn >= 0 else None,
        why=why if known.is_there else "",
    )
