"""Turns changes of etcd's keys into the steps of each group's history. No clock, no etcd: one change in, steps out.

What is a step: an instance is in another state, runs another version, serves or no longer serves, its presence ended,
its sidekick is another process; a turn was taken or has ended; the group wants another release; an event of the
activity log that is about the group; what a sidekick tells of its last update.

``checking`` is no step: a sidekick that polls would fill the history with it. The sidekick's own steps have it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from outrider.core.errors import Conflict
from outrider.etcd.seam import Entry
from outrider.model.activity import Activity
from outrider.model.damage import DAMAGE, read_or_none
from outrider.model.documents import Presence, Slot, Target
from outrider.model.history import Group, Known, LocalSteps, Step, local_steps_of, milliseconds
from outrider.model.keys import Keys
from outrider.service.history.budget import FOR_A_VERSION, FOR_THE_END, Budget

GroupId = tuple[str, str]
"""App and group."""
MAX_TEXT = 100
MAX_EVENT_TEXT = 200
UPDATE_BYTES = 2048
_ID = 8
"""Characters of the ids of processes and updates: enough to tell one from the one before."""


@dataclass(slots=True)
class Tracked:
    """One group: what is known of it, and how much room its instances' updates have taken."""

    group: Group = field(default_factory=Group)
    budgets: dict[str, Budget] = field(default_factory=dict)


class Tracker:
    """Of all groups. ``update_bytes``: room of one update of one instance."""

    def __init__(self, keys: Keys, update_bytes: int = UPDATE_BYTES) -> None:
        self._keys, self._update_bytes = keys, update_bytes
        self.groups: dict[GroupId, Tracked] = {}

    def adopt(self, key: str, entry: Entry, at: int) -> None:
        """Know what ``entry`` says, without a step: it was so before the next change."""
        for place, step in self._read(key, entry, entry.mod_revision, at):
            if step.kind in ("state", "turn", "target") and self.is_news(place, step):
                self._of(place).group.apply(step)

    def take(
        self,
        key: str,
        entry: Entry | None,
        revision: int,
        at: int,
        *,
        wanted: Callable[[GroupId], bool],
        is_late: bool = False,
    ) -> list[tuple[GroupId, Step]]:  # fmt: skip
        """The steps that a change brings.

        Args:
            revision: The change's.
            at: Milliseconds since 1970, by the recorder's clock.
            wanted: Whether the group's knowledge is as it was before the change; else there are no steps for it.
            is_late: The change was seen long after it was made: the machine's clock says when, as far as that can be.
        """
        taken = []
        for place, read in self._read(key, entry, revision, at):
            if not wanted(place):
                continue
            step = read
            if is_late and step.machine and step.kind == "state":
                earliest = self._known(place, step.instance).at
                step = msgspec.structs.replace(step, at=min(at, max(step.machine, earliest)))
            admitted = self._admitted(place, step)
            if admitted is not None:
                self._of(place).group.apply(admitted)
                taken.append((place, admitted))
        return taken

    def is_news(self, place: GroupId, step: Step) -> bool:
        """Whether a step, made from what was known otherwise, still says something new."""
        group = self._of(place).group
        known = group.instances.get(step.instance, Known())
        match step.kind:
            case "state":
                return bool(step.process) or not known.is_there or _differs(known, step)
            case "left":
                return known.is_there
            case "turn":
                return known.turn != step.number
            case "turn-ended":
                return known.turn >= 0
            case "target":
                return group.target != step.version
            case "told":
                return known.told != step.process
            case _:
                return True

    def forget_gone(self, place: GroupId, at: int) -> None:
        """Forget the instances of a group that have left long ago, at ``at``."""
        tracked = self._of(place)
        tracked.group = tracked.group.without_gone(at)
        tracked.budgets = {name: one for name, one in tracked.budgets.items() if name in tracked.group.instances}

    def _of(self, place: GroupId) -> Tracked:
        return self.groups.setdefault(place, Tracked())

    def _known(self, place: GroupId, instance: str) -> Known:
        tracked = self.groups.get(place)
        return Known() if tracked is None else tracked.group.instances.get(instance, Known())

    def _read(self, key: str, entry: Entry | None, revision: int, at: int) -> Iterator[tuple[GroupId, Step]]:
        match key.removeprefix(f"{self._keys.prefix}/").split("/"):
            case ["presence", app, group, instance]:
                yield from self._presence((app, group), instance, key, entry, revision, at)
            case ["apps", app, "groups", group, "target"]:
                yield from self._target((app, group), key, entry, revision, at)
            case ["turns", app, group, "slots", number, instance]:
                yield from self._slot(key, entry, revision, at, number, app, instance)
            case ["shared-turns", _, "slots", number, app, instance]:
                yield from self._slot(key, entry, revision, at, number, app, instance)
            case ["activity", app, record] if entry is not None:
                yield from self._activity(app, record, entry, at)
            case ["steps", app, group, instance] if entry is not None:
                yield from self._told((app, group), instance, entry, revision, at)

    def _presence(
        self, place: GroupId, instance: str, key: str, entry: Entry | None, revision: int, at: int
    ) -> Iterator[tuple[GroupId, Step]]:
        known = self._known(place, instance)
        if entry is None:
            if known.is_there:
                yield place, Step(revision=revision, kind="left", instance=instance, at=at, state=known.state)
            return
        presence = read_or_none(Presence, key, entry.value)
        if presence is None:
            return
        process = presence.process[:_ID]
        step = Step(
            revision=revision,
            instance=instance,
            at=at,
            machine=milliseconds(presence.since),
            state=presence.state,
            version=presence.runs,
            wanted=presence.wants or "",
            text=(presence.why or presence.cannot_why)[:MAX_TEXT],
            is_serving=presence.serving,
            process=process if process != known.process else "",
        )
        polls = known.is_there and presence.state.partition(".")[0] == "checking"
        if not polls and self.is_news(place, step):
            if step.process and known.process:
                again = "the sidekick was started again" + (f"; {step.text}" if step.text else "")
                step = msgspec.structs.replace(step, text=again[:MAX_TEXT])
            yield place, step

    def _target(
        self, place: GroupId, key: str, entry: Entry | None, revision: int, at: int
    ) -> Iterator[tuple[GroupId, Step]]:
        target = read_or_none(Target, key, entry.value) if entry is not None else None
        if entry is not None and target is None:
            return
        label = (target.label or "") if target is not None else ""
        step = Step(revision=revision, kind="target", at=at, version=label)
        if self.is_news(place, step):
            yield place, step

    def _slot(
        self, key: str, entry: Entry | None, revision: int, at: int, number: str, app: str, instance: str
    ) -> Iterator[tuple[GroupId, Step]]:
        if not number.isdigit():
            return
        if entry is None:
            for place, tracked in self.groups.items():
                known = tracked.group.instances.get(instance)
                if place[0] == app and known is not None and known.turn == int(number):
                    ended = Step(revision=revision, kind="turn-ended", instance=instance, at=at, number=int(number))
                    yield place, ended
                    return
            return
        slot = read_or_none(Slot, key, entry.value)
        if slot is not None:
            step = Step(revision=revision, kind="turn", instance=instance, at=at, number=int(number))
            if self.is_news((slot.app, slot.group), step):
                yield (slot.app, slot.group), step

    def _activity(self, app: str, record: str, entry: Entry, at: int) -> Iterator[tuple[GroupId, Step]]:
        event = read_or_none(Activity, entry.key, entry.value)
        if event is None:
            return
        group = event.group or self._group_of(app, event.instance)
        word = record.partition("-")[0]
        if not group or len(word) != 16:
            return
        try:
            revision = int(word, 16)
        except ValueError:
            return
        yield (
            (app, group),
            Step(
                revision=min(revision, entry.create_revision),
                kind="event",
                instance=event.instance,
                at=at,
                version=event.version,
                event=event.kind,
                text=event.text[:MAX_EVENT_TEXT],
            ),
        )

    def _group_of(self, app: str, instance: str) -> str:
        found = (place[1] for place, one in self.groups.items() if place[0] == app and instance in one.group.instances)
        return next(found, "") if instance else ""

    def _told(
        self, place: GroupId, instance: str, entry: Entry, revision: int, at: int
    ) -> Iterator[tuple[GroupId, Step]]:
        told = read_or_none(LocalSteps, entry.key, entry.value)
        if told is None:
            return
        try:
            steps = local_steps_of(entry.key, told)
        except Conflict as error:
            DAMAGE.note("localsteps", entry.key, entry.value, error)
            return
        end = Step(
            revision=revision,
            kind="told",
            instance=instance,
            at=at,
            version=told.version,
            wanted=told.version_before,
            event=told.outcome,
            text=told.because[:MAX_EVENT_TEXT],
            number=told.left_out,
            process=told.update[:_ID],
        )
        if not self.is_news(place, end):
            return
        yield place, end
        for one in steps:
            step = Step(
                revision=min(one.seen, revision),
                kind="local",
                instance=instance,
                at=at,
                machine=one.began,
                state=one.state,
                text=one.text[:MAX_EVENT_TEXT],
                event=one.event,
                number=one.number,
                took_ms=one.took_ms,
                stays=one.stays,
            )
            yield place, step

    def _admitted(self, place: GroupId, step: Step) -> Step | None:
        """The step, if its update has room for it; a state may also be the mark that further ones are left out."""
        if not step.instance:
            return step
        tracked, known = self._of(place), self._known(place, step.instance)
        budget = tracked.budgets.setdefault(step.instance, Budget())
        if step.kind == "state" and step.wanted != budget.wanted:
            budget = tracked.budgets[step.instance] = Budget(wanted=step.wanted)
        cost = budget.cost(step)
        is_end = step.kind in ("left", "told", "turn", "turn-ended") or step.state.partition(".")[0] == "idle"
        room = self._update_bytes - budget.spent - FOR_THE_END
        if step.kind == "state" and step.version != known.version:
            room += FOR_THE_END
        elif is_end:
            room += FOR_THE_END - FOR_A_VERSION
        if cost > room and step.kind == "state" and not known.omits:
            step = msgspec.structs.replace(step, omits=True, text="")
            cost, room = budget.cost(step), room + (0 if is_end else FOR_THE_END - FOR_A_VERSION)
        if cost > room:
            return None
        budget.spend(step)
        return step


def _differs(known: Known, step: Step) -> bool:
    return (known.state, known.version, known.is_serving) != (step.state, step.version, step.is_serving) or known.omits
