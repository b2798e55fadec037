"""Who of a group is called now: one look at its line, and one transaction for what follows from it.

The one who came first is called first, as many as there are free places, and a place is kept for each a little while. A
summons grants nothing: who was called asks, and is judged like everybody. So a summons too many is harmless, two
processes that look at once differ only in who wins the transaction, and one that dies in between leaves nothing undone
that the next look wouldn't do.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from outrider.core.rollout.policy import Grant, Hold
from outrider.model.documents import Held, Presence, Summons
from outrider.service.store.changes import Change
from outrider.service.store.context import Place
from outrider.service.store.group_lock import Leases, NeedsTurn, Turnstile
from outrider.service.store.instances import SUMMONS_TTL_S
from outrider.service.store.snapshot import PATIENCE, Scene, Waiting, read_scene

BATCH = 40
"""Called at once; each costs a comparison and two writes of the 128 that etcd takes in one transaction."""
LONGEST = timedelta(hours=1)
"""Who doesn't come is called ever more seldom; a paused sidekick doesn't come, and asks when it is resumed."""
LAGGING = timedelta(minutes=10)
"""Who comes to a version by another way than a grant tells the roll-out nothing, nor does who is gone for good."""
GONE = timedelta(hours=25)
"""Without a sidekick, and silent for so long: it waits for nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at one group's line came to.

    Attributes:
        called: Who was summoned, in order.
        again_at: When to look again if nothing happens before; None when only a happening helps.
        counts_serving: What sidekicks are at matters: somebody waits for others to serve, or has a grant that ends
            when it rests.
    """

    called: tuple[str, ...] = ()
    again_at: datetime | None = None
    counts_serving: bool = False


def look(place: Place, turnstile: Turnstile, app: str, group: str) -> Look:
    """Close what lapsed, call those whose time has come, and see whether the roll-out is finished.

    Raises:
        Unknown: etcd gives no answer; look again.
        Conflict: others change the same keys all the time; look again.
    """

    def attempt(change: Change, leases: Leases) -> Look:
        scene = read_scene(place, change, app, group)
        if scene is None:
            return Look()
        scene.settle()
        dues = _end_called_off(scene)
        outcome = _go_through(scene, leases) if scene.waiting else Look()
        outcome = replace(outcome, counts_serving=outcome.counts_serving or bool(dues))
        if scene.finish():
            dues.append(scene.now + LAGGING)
        if dues:
            outcome = replace(outcome, again_at=min(dues if outcome.again_at is None else [*dues, outcome.again_at]))
        if scene.has_changed and not leases.has_turn:
            raise NeedsTurn
        scene.write()
        return outcome

    return turnstile.apply(place.cluster, f"{app}/{group}", attempt)


def _end_called_off(scene: Scene) -> list[datetime]:
    """End the grants of releases that are marked bad, of sidekicks that are at nothing any more; when to look again.

    They were called off while they waited for their turn. They have nothing to report and ask no more, so their grants
    would stand in everybody's way, and in what operators are shown, until the time for the update is over.
    """
    versions = {one.version for one in scene.progress.opened if one.instance in scene.living}
    marked = {version for version in versions if scene.mark(version) is not None}
    mine = [one.instance for one in scene.progress.opened if one.version in marked and one.instance in scene.living]
    if not mine:
        return []
    resting = {one.instance for one in _alive(scene) if one.state.partition(".")[0] == "idle"}
    ended = [instance for instance in mine if instance in resting][:BATCH]
    for instance in ended:
        scene.end(instance, "withdrawn")
    return [scene.now + PATIENCE] if len(ended) < len(mine) else []


def _alive(scene: Scene) -> tuple[Presence, ...]:
    return scene.place.children(Presence, f"{scene.place.keys.presences(scene.group.app)}{scene.group.id}/")


def _go_through(scene: Scene, leases: Leases) -> Look:
    now = scene.now
    alive = {one.instance for one in _alive(scene)}
    reserved = [one.instance for one in scene.waiting if one.keeps_a_place(now)]
    calls: list[Waiting] = []
    dues: list[datetime] = []
    edits = 0
    for one in sorted(scene.waiting, key=lambda each: (each.held.calls, each.entry.create_revision)):
        if edits + len(calls) >= BATCH:
            dues.append(now)
            break
        later = _not_before(one, now)
        if later is not None:
            dues.append(later)
            if one.keeps_a_place(now) and one.held.summoned_at is not None:
                dues.append(one.held.summoned_at + PATIENCE)
            continue
        if one.instance not in alive:
            if now - one.held.asked_at >= GONE:
                _strike(scene, one)
                edits += 1
            else:
                dues.append(one.held.asked_at + GONE)
            continue
        match scene.judge(one.asker, reserved=tuple(name for name in reserved if name != one.instance)):
            case Grant():
                calls.append(one)
                reserved.append(one.instance)
            case Hold(pending=False):
                _strike(scene, one)
                edits += 1
            case Hold(again_at=again_at) if again_at is not None:
                dues.append(again_at)
    if calls:
        _call(scene, calls, leases)
        dues.append(now + PATIENCE)
    return Look(
        called=tuple(one.instance for one in calls),
        again_at=min(dues, default=None),
        counts_serving=bool(scene.group.policy.min_healthy),
    )


def _not_before(one: Waiting, now: datetime) -> datetime | None:
    """When one who was called may be called again; None when that is now."""
    if one.held.summoned_at is None:
        return None
    pause = min(PATIENCE * 2 ** min(one.held.calls - 1, 10), LONGEST)
    again_at = one.held.summoned_at + pause
    return again_at if now < again_at else None


def _call(scene: Scene, calls: list[Waiting], leases: Leases) -> None:
    keys, app, group = scene.place.keys, scene.group.app, scene.group.id
    lease = leases.new(SUMMONS_TTL_S, keys.summons(app, calls[0].instance))
    for one in calls:
        held = scene.change.guard(Held, one.entry)
        scene.change.put(
            keys.held_one(app, group, one.instance),
            msgspec.structs.replace(held, summoned_at=scene.now, calls=held.calls + 1),
        )
        scene.change.put(keys.summons(app, one.instance), Summons(why=f"{scene.wanted}: your turn"), lease=lease)


def _strike(scene: Scene, one: Waiting) -> None:
    """It waits for nothing any more."""
    scene.change.guard(Held, one.entry)
    scene.change.delete(one.entry.key)
