"""A consistent snapshot of one group, read in the transaction that compares it.

Check-ins, the rollout controller and ``outrider why`` judge by the same snapshot, so they cannot disagree.

Some reads are not compared, because they need not be: who waits and who serves changes every second. Every *grant* and
every end of one writes the rollout's key, which counts the open grants and is compared: that alone keeps grants exact
(P6) for any number of processes. So the grants that are listed are those that the rollout counts, or the transaction
fails; a count that is wrong all the same (a key that a person has removed) is put right by the next who lists them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec

from outrider.core.architectures import ANY
from outrider.core.release import ReleaseId
from outrider.core.rollout import rollout, waves
from outrider.core.rollout.frames import RunningFrames
from outrider.core.rollout.policy import Defer, Grant, Situation, Verdict, counts_in_interval, decide, destination
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.recall import begin_before
from outrider.core.rollout.rollout import Opened, Override, Progress, Result, WaveState, counted
from outrider.core.versions import NOTHING
from outrider.etcd.seam import Entry
from outrider.model.damage import read_or_none
from outrider.model.documents import (
    Block,
    Brake,
    Channel,
    Deferral,
    Frames,
    Group,
    Instance,
    OpenGrant,
    Package,
    Presence,
    Rollout,
    Target,
)
from outrider.service.store.changes import Change
from outrider.service.store.checking import PATIENCE as PATIENCE
from outrider.service.store.checking import CheckingInstance as CheckingInstance
from outrider.service.store.checking import DeferredInstance as DeferredInstance
from outrider.service.store.context import StoreContext
from outrider.service.store.members import Member, read_members
from outrider.service.store.served import note_served, read_served
from outrider.service.store.task_states import standstill_in

FRESH = timedelta(hours=1)
"""A deferred instance has checked in within about this time: a sidekick checks in at least every hour."""
SEEN = timedelta(hours=24)
"""An older row does not prove that its instance serves."""
STANDSTILLS = frozenset({"blocked", "paused", "rollout", "approval", "waves"})
"""Rules that may keep a group where it is for a long time: a new machine gets what the group serves meanwhile."""
CAN_SERVE = frozenset({"undefined", "complete", "on-hold"})
MAX_OTHERS = 60
"""Releases that a target lists besides its own: more than a channel has floors."""


@dataclass(slots=True, kw_only=True)
class GroupSnapshot:
    """The rollout of a group as it is now, with the changes that this transaction makes.

    Attributes:
        progress: The rollout to the group's target; this transaction's changes are added to it.
        living: Label of the release of each open grant; only the checking instance's when no other matters.
        grants: The stored keys of these grants.
        brake: Revision of the group's brake; -1 when this transaction writes it.
        waiting: Deferred instances, first come first.
        serving: Instances that report that they serve.
        has_begun: This rollout is stored.
        is_whole: ``living`` and ``waiting`` cover all instances.
    """

    context: StoreContext
    change: Change
    group: Group
    target: Target | None
    channel: Channel | None
    progress: Progress
    now: datetime
    living: dict[str, str] = field(default_factory=dict)
    grants: dict[str, Entry] = field(default_factory=dict)
    brake: int = 0
    waiting: tuple[DeferredInstance, ...] = ()
    serving: frozenset[str] = frozenset()
    has_begun: bool = False
    is_whole: bool = False
    _begun: Progress | None = None
    _members: dict[str, Member] | None = None

    @property
    def members(self) -> Mapping[str, Member]:
        """The known instances of the group; read once, where the policy chooses by labels."""
        if not self.policy.uses_labels:
            return {}
        if self._members is None:
            self._members = read_members(self.context, self.group, self.target, self.now)
        return self._members

    @property
    def wanted(self) -> str | None:
        """Label of the release that is the group's target; None: no release yet."""
        return None if self.target is None else self.target.label

    def release_of(self, version: str) -> ReleaseId:
        """The release of ``version`` that the group wants: its target, or a floor on the way there."""
        target = None if self.target is None else self.target.release
        if target is not None and target.version == version:
            return target
        package = self.package(version)
        sha256 = "" if package is None else package.sha256
        if target is None:
            return self.group.release_of(version, sha256)
        return ReleaseId(
            version=version,
            sha256=sha256,
            environment=target.environment,
            environment_digest=target.environment_digest,
        )

    @property
    def _wanted_version(self) -> str | None:
        return None if self.target is None else self.target.version

    @property
    def paused(self) -> bool:
        """No instance of the group starts an update."""
        return self.group.paused if self.target is None else self.target.paused

    @property
    def policy(self) -> Policy:
        """The group's policy. On its way back the whole group goes, unasked, and at once if an operator said so."""
        undo, group, policy = self.group.undo, self.group, self.group.policy
        to_environment = self._goes_back_to_an_environment
        if undo is not None or to_environment:
            policy = replace(policy, percent=100.0, approval=False, approve_after_s=None, waves=())
        at_once = undo.at_once if undo is not None else to_environment and group.back_at_once
        if self.emergency is not None or at_once:
            policy = replace(policy, windows=(), deny_windows=(), freezes=())
        return policy

    @property
    def _goes_back_to_an_environment(self) -> bool:
        return self.group.undo is None and bool(self.group.back_to) and self.group.back_to == self.wanted

    @property
    def frames(self) -> RunningFrames | None:
        """What says the percentage in place of the policy; None: nothing, as on the way back."""
        since = self.group.frames_since
        if since is None or self.group.undo is not None or self._goes_back_to_an_environment:
            return None
        stored = self.change.read_or_none(Frames, self.context.keys.frames(self.group.app, self.group.id))
        return None if stored is None else RunningFrames(frames=stored.frames, since=since)

    @property
    def emergency(self) -> Override | None:
        """What an operator declared, as long as it lasts."""
        override = self.progress.override
        return override if override is not None and self.now < override.until else None

    @property
    def waits_for_approval(self) -> bool:
        """A person must approve the rollout, and nobody has judged yet."""
        known, policy = self.progress.approval, self.policy
        if (wave := self.wave) is not None and wave.number <= len(policy.waves) and wave.waits_for_approval:
            return True
        if not policy.approval or self.wanted is None or (known is not None and known.verdict is not None):
            return False
        due = rollout.approval_due(self.progress, policy)
        return due is None or self.now < due

    @property
    def wave(self) -> WaveState | None:
        """The wave that the rollout is at; None without waves."""
        return waves.current(self.progress, self.policy, self.members.values(), self.now)

    def own_labels(self, checking: CheckingInstance) -> Mapping[str, str] | None:
        """Of an instance; None: it is a sidekick of which nothing was seen in etcd yet."""
        member = self.members.get(checking.instance)
        unknown = checking.takes_turns and (member is None or not member.is_seen)
        return None if unknown else member.labels if member is not None else {}

    @property
    def standstill(self) -> str | None:
        """The reason why the target is blocked; None when it is not, or when there is none."""
        release = None if self.target is None else self.target.release
        return None if release is None else self.block_reason(release)

    def block_reason(self, release: ReleaseId) -> str | None:
        """The reason why a release is blocked, for all groups or for this one; None when it is not."""
        own = next((one for one in self.group.blocked if one.version == release.label), None)
        if own is not None:
            return own.reason
        key = self.context.keys.block(self.group.app, release.key(self.group.id))
        block = self.change.read_or_none(Block, key)
        if block is None and self.change.exists(key):
            return "the document that blocks it can't be read"  # a block that can't be read still blocks (P5)
        return None if block is None else block.why

    def package(self, version: str) -> Package | None:
        """A version's package."""
        return self.change.read_or_none(Package, self.context.keys.package(self.group.app, version))

    def reserved(self, checking: CheckingInstance) -> tuple[str, ...]:
        """The other instances for which places are kept."""
        return tuple(
            one.instance for one in self.waiting if one.instance != checking.instance and one.has_reservation(self.now)
        )

    def judge(self, checking: CheckingInstance, *, reserved: tuple[str, ...] | None = None) -> Verdict:
        """Decide whether it may update now. ``reserved``: replaces the snapshot's own list of reservations."""
        return self.judge_in(
            checking,
            progress=self.progress,
            policy=self.policy,
            standing=self._standing(checking.instance),
            reserved=self.reserved(checking) if reserved is None else reserved,
            living=frozenset(self.living),
        )

    def judge_in(
        self,
        checking: CheckingInstance,
        *,
        progress: Progress,
        policy: Policy,
        standing: str | None,
        reserved: tuple[str, ...],
        living: frozenset[str],
    ) -> Verdict:
        """As ``judge``, with another rollout, policy and other grants than those that are stored."""
        floors = tuple(floor.version for floor in self.channel.floors) if self.channel is not None else ()
        wanted = self._wanted_version
        situation = Situation(
            instance=checking.instance,
            running=checking.running,
            runs=checking.runs,
            wanted=wanted,
            labels=self._labels(wanted, floors) if checking.runs else {},
            channel=self.group.channel,
            floors=floors,
            prefix=checking.prefix,
            rollback_allowed=checking.rollback_allowed,
            rollback_forbidden=checking.rollback_forbidden,
            go_back=self.target is not None and self.target.go_back,
            arch=checking.arch,
            paused=self.paused,
            policy=policy,
            progress=progress,
            standing=standing,
            living=living,
            reserved=reserved,
            serving=self._serving_besides(checking.instance, progress) if policy.min_healthy else 0,
            is_new=checking.is_new,
            own_labels=self.own_labels(checking) if policy.uses_labels else {},
            wave=waves.current(progress, policy, self.members.values(), self.now),
            frames=self.frames,
            now=self.now,
        )
        goal = destination(situation)
        version = goal if isinstance(goal, str) else situation.wanted
        if version is None:
            return decide(situation)
        self.change.fetch(*_keys_of(self.context, self.group, self.release_of(version)))
        package = self.package(version)
        verdict = self._decided(situation, version, package)
        if isinstance(verdict, Grant) and checking.takes_turns and package is not None and package.is_unresolved:
            # a foreign client reads the tag; a sidekick runs what is known by its digest alone
            return Defer(
                reason=f"{version}: nobody knows yet which image {package.image} is; `outrider package resolve`",
                by="unresolved",
                pending=True,
            )
        if isinstance(verdict, Grant) and package is not None and package.tasks:
            # of whoever asks: a deferred instance, and a grant that may be taken back, are judged by the same rule
            release = self.release_of(version)
            why = standstill_in(self.change, self.context.keys, self.group.app, self.group.id, release, package)
            if why:
                return Defer(reason=why, by="task", pending=True)
        if isinstance(verdict, Defer) and verdict.by in STANDSTILLS and checking.running == NOTHING:
            return self._for_a_new_machine(situation) or verdict
        return verdict

    def _serving_besides(self, instance: str, progress: Progress) -> int:
        return len(self.serving - {one.instance for one in progress.opened} - {instance})

    def _decided(self, situation: Situation, version: str, package: Package | None) -> Verdict:
        verdict = decide(
            replace(
                situation,
                blocked=self.block_reason(self.release_of(version)),
                package_arch=ANY if package is None else package.arch,
            )
        )
        if isinstance(verdict, Grant) and package is None:
            return Defer(reason=f"{version} has no package", by="no-package", pending=True)
        return verdict

    def _for_a_new_machine(self, situation: Situation) -> Grant | None:
        """What the group serves with, for an instance that has nothing to serve while its target stands still."""
        release = self.served_release
        if release is None:
            return None
        self.change.fetch(*_keys_of(self.context, self.group, release))
        package = self.package(release.version)
        if package is None or package.is_unresolved or self.block_reason(release) is not None:
            return None
        if ANY not in (package.arch, situation.arch) and situation.arch not in ("", package.arch):
            return None
        label = release.label if situation.runs else release.version
        return Grant(
            version=label,
            package="" if label == release.version else release.version,
            standing=situation.standing == label,
            for_new_machine=True,
        )

    def granted_release(self, verdict: Grant) -> ReleaseId:
        """Which release a grant to an instance that speaks of releases leads to."""
        release = self.release_of(verdict.package_version)
        if verdict.for_new_machine:
            release = self.served_release or release
        package = self.package(release.version)
        return replace(release, sha256="" if package is None else package.sha256)

    def record(self, verdict: Grant) -> None:
        """Let the target list what was granted, so that sidekicks find its digest in etcd (P13).

        A floor, or what the group serves, is listed when it is first offered: a change of the target would otherwise
        read every package of every floor for each of its groups, which is more than one transaction holds.
        """
        target, release = self.target, self.granted_release(verdict)
        if target is None or not release.sha256 or release in target.releases:
            return
        known = [one for one in target.others if one.label != release.label]
        self.target = msgspec.structs.replace(target, others=tuple((*known, release)[-MAX_OTHERS:]))
        self.change.put(self.context.keys.target(self.group.app, self.group.id), self.target)

    def _labels(self, wanted: str | None, floors: tuple[str, ...]) -> dict[str, str]:
        """What the releases that it may get are called, where that is not their version."""
        known = (self.release_of(version) for version in (wanted, *floors) if version is not None)
        return {release.version: release.label for release in known if not release.is_plain}

    @property
    def served_release(self) -> ReleaseId | None:
        """The release that the group serves: of its last rollout that was finished, else what most instances run.

        A release that is blocked, or that has no instance and no finished rollout, is not served.
        """
        progress, target = self.progress, None if self.target is None else self.target.release
        if progress.finished is not None and target is not None and progress.version == target.label:
            return target
        known = read_served(self.change, self.context.keys, self.group.app, self.group.id)
        self.change.fetch(*(key for one in known for key in _keys_of(self.context, self.group, one)))
        last = next((one for one in reversed(known) if self.block_reason(one) is None), None)
        if last is not None:
            return last
        rows = self.context.children(Instance, self.context.keys.instances(self.group.app))
        ours = (row for row in rows if row.group == self.group.id and self.group.counts(row))
        lately = (row for row in ours if self.now - row.last_seen < SEEN)
        counts = Counter(row.version for row in lately if row.version not in ("", NOTHING))
        usual = (self.release_of(version) for version, _ in counts.most_common())
        return next((one for one in usual if self.block_reason(one) is None), None)

    def _standing(self, instance: str) -> str | None:
        mine = self.progress.opened_for(instance)
        return mine.version if mine is not None and self.living.get(instance) == mine.version else None

    def look_at(self, instance: str) -> None:
        """Know the instance's own grant, which is compared."""
        key = self.context.keys.grant(self.group.app, self.group.id, instance)
        grant = self.change.read_or_none(OpenGrant, key)
        entry = self.change.entry(key)
        if self.is_whole or entry is None or instance in self.living:
            return
        self._know(instance, entry, grant)
        self.progress = rollout.with_known(self.progress, self._opened(instance, grant))

    def know_all(self, grants: Iterable[tuple[str, Entry]]) -> None:
        """Know every open grant."""
        ordered = sorted(grants, key=lambda one: one[1].create_revision)
        known = [(instance, entry, read_or_none(OpenGrant, entry.key, entry.value)) for instance, entry in ordered]
        for instance, entry, grant in known:
            self._know(instance, entry, grant)
        every = [self._opened(instance, grant) for instance, _, grant in known]
        self.progress = rollout.with_all_known(self.progress, every)

    def _know(self, instance: str, entry: Entry, grant: OpenGrant | None) -> None:
        # One that can't be read still counts as an update under way, to no known version (P6).
        self.living[instance] = "" if grant is None else grant.version
        self.grants[instance] = entry

    def _opened(self, instance: str, grant: OpenGrant | None) -> Opened:
        if grant is not None:
            return grant.opened(instance)
        wave = 0 if self.progress.wave is None else self.progress.wave.number
        return Opened(instance=instance, version="", at=self.progress.started, wave=wave)

    def mark(self) -> "SnapshotMark":
        """What is decided as yet."""
        known = self.progress, self.target, self.brake, dict(self.living), dict(self.grants)
        return *known, self.waiting

    def back_to(self, mark: "SnapshotMark") -> None:
        """Forget what was decided since ``mark``."""
        self.progress, self.target, self.brake, living, grants, self.waiting = mark
        self.living, self.grants = dict(living), dict(grants)

    def settle(self, overdue: Collection[str] = ()) -> None:
        """Close the grants of ``overdue``, and let time do what it does to the rollout.

        A release that nobody has judged in time is approved, if the policy says so.
        """
        if overdue:
            counts = not self.paused and self.standstill is None
            self.progress = rollout.lapsed(self.progress, overdue, self.group.policy, self.now, counts=counts)
            for instance in overdue:
                self._remove(instance)
        if self.is_whole:
            self.progress = waves.advanced(self.progress, self.policy, self.members.values(), self.now)
        due = rollout.approval_due(self.progress, self.policy)
        if due is not None and self.now >= due:
            self.progress = rollout.judged(self.progress, "approved", by="", why="nobody rejected it in time", now=due)

    def grant(self, checking: CheckingInstance, verdict: Grant) -> None:
        """Grant the update; the rollout controller ends the grant when it takes too long."""
        keys, group, version = self.context.keys, self.group, verdict.version
        apart = verdict.for_new_machine and not self.progress.leads_to(version)
        wave, labels = self.wave, self.own_labels(checking)
        number = waves.place_of(self.progress, self.policy, wave, checking.instance, labels)
        self.progress = rollout.granted(
            *(replace(self.progress, wave=wave), checking.instance, version, group.policy, self.now),
            for_new_machine=apart,
            wave=0 if apart else number,
            in_interval=counts_in_interval(self.policy, is_new=checking.is_new),
        )
        mine = self.progress.opened[-1]
        key = keys.grant(group.app, group.id, checking.instance)
        grant = OpenGrant(
            version=version,
            at=mine.at,
            ends_after_s=group.policy.update_timeout_s,
            for_new_machine=mine.for_new_machine,
            wave=mine.wave,
            in_interval=mine.in_interval,
            takes_turns=checking.takes_turns,
            begin_before=begin_before(self.policy, self.now, emergency=self.emergency)
            if checking.takes_turns
            else None,
            brake=self.brake,
            running=checking.running,
            runs=checking.runs,
            arch=checking.arch,
            prefix=checking.prefix,
            rollback_allowed=checking.rollback_allowed,
            rollback_forbidden=checking.rollback_forbidden,
        )
        self.change.put(key, grant)
        self.living[checking.instance] = version
        self.end_deferral(checking.instance)

    def end(self, instance: str, result: Result, *, error: str = "") -> None:
        """Note the result of an instance's update."""
        self.progress = rollout.ended(self.progress, instance, result, self.group.policy, self.now, error=error)
        self._remove(instance)

    def _remove(self, instance: str) -> None:
        if self.living.pop(instance, None) is not None:
            self.change.delete(self.context.keys.grant(self.group.app, self.group.id, instance))

    def write_brake(self, verb: str, by: str = "") -> None:
        """Let no turn be taken for any grant that was made before."""
        key = self.context.keys.brake(self.group.app, self.group.id)
        self.change.put(key, Brake(verb=verb, by=by, at=self.now, after=self.brake))
        self.brake = -1

    def defer(self, checking: CheckingInstance) -> None:
        """Defer the instance: it keeps its place in the queue, or becomes the last one."""
        key = self.context.keys.deferral(self.group.app, self.group.id, checking.instance)
        old = self.change.read_or_none(Deferral, key)
        new = Deferral(
            running=checking.running,
            runs=checking.runs,
            arch=checking.arch,
            prefix=checking.prefix,
            rollback_allowed=checking.rollback_allowed,
            rollback_forbidden=checking.rollback_forbidden,
            is_new=checking.is_new,
            since=self.now if old is None else old.since,
            asked_at=self.now,
            proved=checking.proved,
            takes_turns=checking.takes_turns,
        )
        if old is None or self.now - old.asked_at >= FRESH or not _is_same(old, new):
            self.change.put(key, new)
        self._keep_no_place(checking.instance)

    def end_deferral(self, instance: str) -> None:
        """Remove the instance from the queue."""
        key = self.context.keys.deferral(self.group.app, self.group.id, instance)
        if self.change.exists(key):
            self.change.delete(key)
        self._keep_no_place(instance)

    def _keep_no_place(self, instance: str) -> None:
        """It has checked in, so no place is kept for it, as those see it that are judged after it."""
        if any(one.instance == instance for one in self.waiting):
            self.waiting = tuple(one for one in self.waiting if one.instance != instance)

    def finish(self) -> bool:
        """Finish the rollout when no update is under way or deferred, and all recently seen instances run its version.

        Returns:
            True: only instances on other versions are left, and they may never report to it; look again later.
        """
        progress = self.progress
        done = progress.succeeded and progress.state == "running" and progress.finished is None
        if not done or progress.open.total or self.waiting or progress.version is None or not self.is_whole:
            return False
        rows = self.context.children(Instance, self.context.keys.instances(self.group.app))
        ours = [row for row in rows if row.group == self.group.id and self.group.counts(row)]
        known = [row for row in ours if self.now - row.last_seen < SEEN]
        target = None if self.target is None else self.target.release
        if not known or target is None or not all(row.is_at(target) for row in known):
            return True
        self.progress = rollout.finished(progress, self.now)
        note_served(self.change, self.context.keys, self.group, target)
        return False

    @property
    def has_changed(self) -> bool:
        """This transaction has changed the rollout."""
        begun = self._begun
        return begun is not None and self.progress is not begun and counted(self.progress) != counted(begun)

    def write(self) -> None:
        """Write the rollout if this transaction has changed it, and the brake when the policy has halted it."""
        was_halted = self._begun is not None and self._begun.state == "halted"
        if self.progress.state == "halted" and not was_halted:
            self.write_brake("halt")
        if self.has_changed:
            self.change.put(
                self.context.keys.rollout(self.group.app, self.group.id), Rollout(progress=counted(self.progress))
            )


SnapshotMark = tuple[Progress, Target | None, int, dict[str, str], dict[str, Entry], tuple[DeferredInstance, ...]]
"""A point in what a transaction decides to which it can go back."""


def keys_of_check(context: StoreContext, app: str, group: str, instance: str) -> tuple[str, ...]:
    """The keys that a check-in reads first, fetched in one call."""
    keys = context.keys
    return (
        keys.group(app, group),
        keys.target(app, group),
        keys.rollout(app, group),
        keys.brake(app, group),
        keys.grant(app, group, instance),
        keys.deferral(app, group, instance),
    )


def read_snapshot(
    context: StoreContext, change: Change, app: str, group_id: str, *, checking: str | None = None, alone: bool = False
) -> GroupSnapshot | None:
    """Read a group's snapshot.

    Args:
        context: Where the group is stored.
        change: Reads, and compares the read keys in its transaction.
        app: The app's id.
        group_id: The group's.
        checking: The only instance that will be judged; None: any, so everything is read.
        alone: Even so, no other instance is read: only verdicts of rules that look at none of them count.

    Returns:
        None when there is no such group.
    """
    keys = context.keys
    first = (
        keys.group(app, group_id), keys.target(app, group_id), keys.rollout(app, group_id), keys.brake(app, group_id)
    )  # fmt: skip
    change.fetch(*(first if checking is None else keys_of_check(context, app, group_id, checking)))
    group = change.read(Group, keys.group(app, group_id))
    if group is None:
        return None
    now = context.now()
    target = change.read(Target, keys.target(app, group_id))
    wanted = None if target is None else target.release
    stored = change.read(Rollout, keys.rollout(app, group_id))
    known = None if stored is None else counted(stored.progress)
    progress = following(known, wanted, now)
    if target is not None and target.since is not None and progress is not known:
        progress = replace(progress, started=min(target.since, now))  # it began with the target, not with a grant
    change.read_or_none(Brake, keys.brake(app, group_id))  # only its revision counts
    brake = change.entry(keys.brake(app, group_id))
    change.fetch(keys.channel(app, group.channel), *(() if wanted is None else _keys_of(context, group, wanted)))
    snapshot = GroupSnapshot(
        context=context,
        change=change,
        group=group,
        target=target,
        channel=change.read(Channel, keys.channel(app, group.channel)),
        progress=progress,
        now=now,
        brake=0 if brake is None else brake.mod_revision,
        has_begun=known is not None and progress is known,
        _begun=progress,
    )
    if alone:
        snapshot._members = {}
    if checking is None or (group.policy.counts and not alone):
        _read_all_instances(snapshot)
    else:
        snapshot.look_at(checking)
    return snapshot


def _read_all_instances(snapshot: GroupSnapshot) -> None:
    keys, app, group = snapshot.context.keys, snapshot.group.app, snapshot.group.id
    grants, deferred = keys.grants(app, group), keys.deferrals(app, group)
    waiting, granted = [], []
    for entry in snapshot.change.list(f"{keys.group(app, group)}/").entries:
        if entry.key.startswith(grants):
            granted.append((entry.key[len(grants) :], entry))
        elif entry.key.startswith(deferred):
            one = read_or_none(Deferral, entry.key, entry.value)
            if one is None or (snapshot.group.requires_identity and not one.proved):
                continue
            waiting.append(DeferredInstance(instance=entry.key[len(deferred) :], deferred=one, entry=entry))
    snapshot.know_all(granted)
    snapshot.waiting = tuple(sorted(waiting, key=lambda one: one.entry.create_revision))
    snapshot.is_whole = True
    if snapshot.group.policy.min_healthy:
        snapshot.serving = _serving(snapshot)


def _serving(snapshot: GroupSnapshot) -> frozenset[str]:
    """Sidekicks that report it, and recently seen clients without a sidekick that neither failed nor update."""
    context, app, group = snapshot.context, snapshot.group.app, snapshot.group.id
    alive = context.children(Presence, f"{context.keys.presences(app)}{group}/")
    spoken = {one.instance for one in alive}
    rows = context.children(Instance, context.keys.instances(app))
    return frozenset(
        (
            *(one.instance for one in alive if one.serving),
            *(row.id for row in _seen_lately(rows, snapshot.group, snapshot.now) if row.id not in spoken),
        )
    )


def _seen_lately(rows: Iterable[Instance], group: Group, now: datetime) -> Iterable[Instance]:
    ours = (row for row in rows if row.group == group.id and group.counts(row))
    return (row for row in ours if row.status in CAN_SERVE and now - row.last_seen < SEEN)


def following(progress: Progress | None, release: ReleaseId | None, now: datetime) -> Progress:
    """The rollout to ``release``: the one that is there, or a new one."""
    if release is None:
        return rollout.following(progress, None, now)
    package = "" if release.is_plain else release.version
    return rollout.following(progress, release.label, now, package=package)


def _keys_of(context: StoreContext, group: Group, release: ReleaseId) -> tuple[str, str]:
    return (
        context.keys.block(group.app, release.key(group.id)),
        context.keys.package(group.app, release.version),
    )


def _is_same(old: Deferral, new: Deferral) -> bool:
    """The instance reports the same as before, and has no open wake-up."""
    return not old.calls and _words(old) == _words(new)


def _words(one: Deferral) -> tuple[object, ...]:
    flags = one.rollback_allowed, one.rollback_forbidden, one.is_new, one.proved, one.takes_turns
    return one.running, one.runs, one.arch, one.prefix, *flags
