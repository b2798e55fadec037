"""One group in one moment: all that a verdict needs, read inside a change, so that what was decided by is compared.

Check-ins, the summoner and ``outrider why`` judge by the same scene, so that they can't disagree.

Two reads aren't compared, because they needn't be: a grant that ends meanwhile only makes room, and who serves is
another thing in the next second anyway. Every *grant* and every *result* writes the roll-out's key, which is compared:
that alone keeps grants exact (P6), whatever the number of processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from outrider.core.architectures import ANY
from outrider.core.rollout import rollout
from outrider.core.rollout.policy import Grant, Hold, Situation, Verdict, decide, destination
from outrider.core.rollout.rollout import Progress, Result
from outrider.etcd.seam import Entry
from outrider.model.documents import (
    Channel,
    Granted,
    Group,
    Held,
    Instance,
    Package,
    Poison,
    Presence,
    Rollout,
    Target,
    decode,
)
from outrider.service.store.changes import Change
from outrider.service.store.context import Place

PATIENCE = timedelta(seconds=30)
"""A place is kept so long for who was summoned: a living sidekick asks within milliseconds."""
FRESH = timedelta(hours=1)
"""Who waits is known to have asked within about so long; a sidekick asks every hour at least."""
SEEN = timedelta(hours=24)
"""A row that is older doesn't say that its instance serves."""
CAN_SERVE = frozenset({"undefined", "complete", "on-hold"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """An instance, as it describes itself when it asks."""

    instance: str
    running: str
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One who is held back. ``entry`` is its key's."""

    instance: str
    held: Held
    entry: Entry

    @property
    def asker(self) -> Asker:
        """As it asked last."""
        held = self.held
        return Asker(
            instance=self.instance,
            running=held.running,
            arch=held.arch,
            prefix=held.prefix,
            rollback_allowed=held.rollback_allowed,
        )

    def keeps_a_place(self, now: datetime) -> bool:
        """It was summoned a moment ago."""
        return self.held.summoned_at is not None and now - self.held.summoned_at < PATIENCE


@dataclass(slots=True, kw_only=True)
class Scene:
    """A group's roll-out now, and what this change makes of it.

    Attributes:
        progress: The roll-out to what the group shall run; what happens here is added to it.
        living: Version of each grant that lives; of the asker's alone when nothing depends on the others.
        waiting: Who is held back, first come first.
        serving: Instances that serve, as far as they say.
        has_begun: Something was written of this roll-out.
        is_whole: ``living`` and ``waiting`` are everybody's.
    """

    place: Place
    change: Change
    group: Group
    target: Target | None
    channel: Channel | None
    progress: Progress
    now: datetime
    living: dict[str, str] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    serving: frozenset[str] = frozenset()
    has_begun: bool = False
    is_whole: bool = False
    _begun: Progress | None = None

    @property
    def wanted(self) -> str | None:
        """What the group shall run."""
        return None if self.target is None else self.target.version

    @property
    def paused(self) -> bool:
        """Nobody of the group starts an update."""
        return self.group.paused if self.target is None else self.target.paused

    def mark(self, version: str) -> str | None:
        """Why a version is marked bad; None when it isn't."""
        poison = self.change.read(Poison, self.place.keys.poison(self.group.app, version))
        return None if poison is None else poison.why

    def package(self, version: str) -> Package | None:
        """A version's package."""
        return self.change.read(Package, self.place.keys.package(self.group.app, version))

    def reserved(self, asker: Asker) -> tuple[str, ...]:
        """The others that places are kept for."""
        return tuple(
            one.instance for one in self.waiting if one.instance != asker.instance and one.keeps_a_place(self.now)
        )

    def judge(self, asker: Asker, *, reserved: tuple[str, ...] | None = None) -> Verdict:
        """May it update now? ``reserved``: the others that places are kept for, when the scene doesn't say it."""
        opened = {one.instance for one in self.progress.opened}
        situation = Situation(
            instance=asker.instance,
            running=asker.running,
            wanted=self.wanted,
            channel=self.group.channel,
            floors=tuple(floor.version for floor in self.channel.floors) if self.channel is not None else (),
            prefix=asker.prefix,
            rollback_allowed=asker.rollback_allowed,
            arch=asker.arch,
            paused=self.paused,
            policy=self.group.policy,
            progress=self.progress,
            standing=self._standing(asker.instance),
            living=frozenset(self.living),
            reserved=self.reserved(asker) if reserved is None else reserved,
            serving=len(self.serving - opened - {asker.instance}),
            now=self.now,
        )
        goal = destination(situation)
        version = goal if isinstance(goal, str) else situation.wanted
        if version is None:
            return decide(situation)
        self.change.fetch(*_keys_of(self.place, self.group.app, version))
        package = self.package(version)
        verdict = decide(
            replace(situation, poisoned=self.mark(version), package_arch=ANY if package is None else package.arch)
        )
        if isinstance(verdict, Grant) and package is None:
            return Hold(reason=f"{version} has no package", by="no-package", pending=True)
        return verdict

    def _standing(self, instance: str) -> str | None:
        mine = self.progress.opened_for(instance)
        return mine.version if mine is not None and self.living.get(instance) == mine.version else None

    def settle(self, *instances: str) -> None:
        """Close the grants that live no more: everybody's in a whole scene, else those of ``instances``."""
        candidates = [one.instance for one in self.progress.opened] if self.is_whole else instances
        dead = {instance for instance in candidates if instance not in self.living}
        if dead:
            counts = not self.paused and (self.wanted is None or self.mark(self.wanted) is None)
            self.progress = rollout.lapsed(self.progress, dead, self.group.policy, self.now, counts=counts)

    def grant(self, asker: Asker, version: str, lease: int) -> None:
        """Grant it, under a lease that lives as long as the update may take."""
        keys, group = self.place.keys, self.group
        self.progress = rollout.granted(self.progress, asker.instance, version, group.policy, self.now)
        key = keys.grant(group.app, group.id, asker.instance)
        self.change.put(key, Granted(version=version, at=self.now), lease=lease)
        self.living[asker.instance] = version
        self.unhold(asker.instance)

    def end(self, instance: str, result: Result, *, error: str = "") -> None:
        """An instance's update has a result."""
        self.progress = rollout.ended(self.progress, instance, result, self.group.policy, self.now, error=error)
        if self.living.pop(instance, None) is not None:
            self.change.delete(self.place.keys.grant(self.group.app, self.group.id, instance))

    def hold(self, asker: Asker) -> None:
        """Let it wait, in the place that it has already or as the last one."""
        key = self.place.keys.held_one(self.group.app, self.group.id, asker.instance)
        old = self.change.read(Held, key)
        new = Held(
            running=asker.running,
            arch=asker.arch,
            prefix=asker.prefix,
            rollback_allowed=asker.rollback_allowed,
            since=self.now if old is None else old.since,
            asked_at=self.now,
        )
        if old is None or self.now - old.asked_at >= FRESH or not _is_same(old, new):
            self.change.put(key, new)

    def unhold(self, instance: str) -> None:
        """It waits no longer."""
        key = self.place.keys.held_one(self.group.app, self.group.id, instance)
        if self.change.read(Held, key) is not None:
            self.change.delete(key)

    def finish(self) -> bool:
        """Finish the roll-out when nobody is under way or waits, and all who were seen lately run its version.

        Returns:
            Only others are in its way who lag behind, of whom the roll-out may never hear: look again.
        """
        progress = self.progress
        done = progress.succeeded and progress.state == "running" and progress.finished is None
        if not done or progress.opened or self.waiting or progress.version is None or not self.is_whole:
            return False
        rows = self.place.children(Instance, self.place.keys.instances(self.group.app))
        versions = {row.version for row in rows if row.group == self.group.id and self.now - row.last_seen < SEEN}
        if versions != {progress.version}:
            return True
        self.progress = rollout.finished(progress, self.now)
        return False

    @property
    def has_changed(self) -> bool:
        """Something happened to the roll-out."""
        return self.progress is not self._begun and self.progress != self._begun

    def write(self) -> None:
        """Write the roll-out, when something happened to it."""
        if self.has_changed:
            self.change.put(self.place.keys.rollout(self.group.app, self.group.id), Rollout(progress=self.progress))


def keys_of_check(place: Place, app: str, group: str, instance: str) -> tuple[str, ...]:
    """What a check-in reads first, to be fetched at once."""
    keys = place.keys
    return (
        keys.group(app, group),
        keys.target(app, group),
        keys.rollout(app, group),
        keys.grant(app, group, instance),
        keys.held_one(app, group, instance),
    )


def read_scene(place: Place, change: Change, app: str, group_id: str, *, asker: str | None = None) -> Scene | None:
    """Read a group's scene.

    Args:
        place: Where it is.
        change: Reads, and compares what was read.
        app: The app's id.
        group_id: The group's.
        asker: The one instance that will be judged; None for all of them. Then everything is read.

    Returns:
        None when there is no such group.
    """
    keys = place.keys
    first = (keys.group(app, group_id), keys.target(app, group_id), keys.rollout(app, group_id))
    change.fetch(*(first if asker is None else keys_of_check(place, app, group_id, asker)))
    group = change.read(Group, keys.group(app, group_id))
    if group is None:
        return None
    now = place.now()
    target = change.read(Target, keys.target(app, group_id))
    wanted = None if target is None else target.version
    stored = change.read(Rollout, keys.rollout(app, group_id))
    progress = rollout.following(None if stored is None else stored.progress, wanted, now)
    change.fetch(keys.channel(app, group.channel), *(() if wanted is None else _keys_of(place, app, wanted)))
    scene = Scene(
        place=place,
        change=change,
        group=group,
        target=target,
        channel=change.read(Channel, keys.channel(app, group.channel)),
        progress=progress,
        now=now,
        has_begun=stored is not None and progress is stored.progress,
        _begun=progress,
    )
    if asker is None or group.policy.counts:
        _read_everybody(scene)
    else:
        mine = change.read(Granted, keys.grant(app, group_id, asker))
        scene.living = {} if mine is None else {asker: mine.version}
    return scene


def _read_everybody(scene: Scene) -> None:
    keys, app, group = scene.place.keys, scene.group.app, scene.group.id
    grants, held = keys.grants(app, group), keys.held(app, group)
    waiting = []
    for entry in scene.change.list(f"{keys.group(app, group)}/").entries:
        if entry.key.startswith(grants):
            scene.living[entry.key[len(grants) :]] = decode(Granted, entry.key, entry.value).version
        elif entry.key.startswith(held):
            one = decode(Held, entry.key, entry.value)
            waiting.append(Waiting(instance=entry.key[len(held) :], held=one, entry=entry))
    scene.waiting = tuple(sorted(waiting, key=lambda one: one.entry.create_revision))
    scene.is_whole = True
    if scene.group.policy.min_healthy:
        scene.serving = _serving(scene)


def _serving(scene: Scene) -> frozenset[str]:
    """Sidekicks that say so; and clients without one that were seen lately, and neither failed nor are at an update."""
    place, app, group = scene.place, scene.group.app, scene.group.id
    alive = place.children(Presence, f"{place.keys.presences(app)}{group}/")
    spoken = {one.instance for one in alive}
    rows = place.children(Instance, place.keys.instances(app))
    return frozenset(
        (
            *(one.instance for one in alive if one.serving),
            *(row.id for row in _seen_lately(rows, group, scene.now) if row.id not in spoken),
        )
    )


def _seen_lately(rows: Iterable[Instance], group: str, now: datetime) -> Iterable[Instance]:
    return (row for row in rows if row.group == group and row.status in CAN_SERVE and now - row.last_seen < SEEN)


def _keys_of(place: Place, app: str, version: str) -> tuple[str, str]:
    return place.keys.poison(app, version), place.keys.package(app, version)


def _is_same(old: Held, new: Held) -> bool:
    """It says what it said, and owes no answer to a summons."""
    said = (old.running, old.arch, old.prefix, old.rollback_allowed)
    return said == (new.running, new.arch, new.prefix, new.rollback_allowed) and not old.calls
