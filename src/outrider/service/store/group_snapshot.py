"""The rollout of one group as one transaction sees it, and what that transaction changes of it.

``snapshot`` reads it, ``judging`` decides by it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec

from outrider.core.release import ReleaseId
from outrider.core.rollout import rollout, waves
from outrider.core.rollout.frames import RunningFrames
from outrider.core.rollout.policy import Grant, counts_in_interval
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.recall import begin_before
from outrider.core.rollout.rollout import Opened, Override, Progress, Result, WaveState, counted
from outrider.core.versions import NOTHING
from outrider.etcd.seam import Entry
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
    Rollout,
    Target,
)
from outrider.service.store.changes import Change
from outrider.service.store.checking import SEEN, CheckingInstance, DeferredInstance
from outrider.service.store.context import StoreContext
from outrider.service.store.members import Member, read_members
from outrider.service.store.served import note_served, read_served

FRESH = timedelta(hours=1)
"""A deferred instance has checked in within about this time: a sidekick checks in at least every hour."""
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
    serving: Collection[str] = frozenset()
    has_begun: bool = False
    is_whole: bool = False
    _ended: frozenset[str] = frozenset()
    _begun: Progress | None = None
    _members: dict[str, Member] | None = None
    _counted: tuple[Progress, Progress] | None = None

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
    def wanted_version(self) -> str | None:
        """Version of the group's target; None: no release yet."""
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

    @property
    def served_release(self) -> ReleaseId | None:
        """The release that the group serves: of its last rollout that was finished, else what most instances run.

        A release that is blocked, or that has no instance and no finished rollout, is not served.
        """
        progress, target = self.progress, None if self.target is None else self.target.release
        if progress.finished is not None and target is not None and progress.version == target.label:
            return target
        known = read_served(self.change, self.context.keys, self.group.app, self.group.id)
        self.change.fetch(*(key for one in known for key in keys_of_release(self.context, self.group, one)))
        last = next((one for one in reversed(known) if self.block_reason(one) is None), None)
        if last is not None:
            return last
        rows = self.context.children(Instance, self.context.keys.instances(self.group.app))
        ours = (row for row in rows if row.group == self.group.id and self.group.counts(row))
        lately = (row for row in ours if self.now - row.last_seen < SEEN)
        counts = Counter(row.version for row in lately if row.version not in ("", NOTHING))
        usual = (self.release_of(version) for version, _ in counts.most_common())
        return next((one for one in usual if self.block_reason(one) is None), None)

    def look_at(self, instance: str) -> None:
        """Know the instance's own grant, which is compared."""
        key = self.context.keys.grant(self.group.app, self.group.id, instance)
        grant = self.change.read_or_none(OpenGrant, key)
        entry = self.change.entry(key)
        if entry is not None and not self.is_whole and instance not in self.living:
            self._know(instance, entry, grant)
            self.progress = rollout.with_known(self.progress, self._opened(instance, grant))

    def know(self, instance: str, entry: Entry) -> None:
        """Know the open grant of another instance, which the rollout counts so far."""
        if instance not in self.living:
            grant = self.context.document(OpenGrant, entry)
            self._know(instance, entry, grant)
            self.progress = rollout.with_known(self.progress, self._opened(instance, grant))

    def know_rest(self) -> None:
        """Know every open grant, where those of others count; as they are after what this transaction has changed."""
        if self.is_whole or not self.policy.counts or not self.progress.others.total:
            return
        prefix = self.context.keys.grants(self.group.app, self.group.id)
        opened = list(self.progress.opened)
        for entry in self.change.list(prefix).entries:
            instance = entry.key[len(prefix) :]
            if instance not in self.living and instance not in self._ended:
                grant = self.context.document(OpenGrant, entry)
                self._know(instance, entry, grant)
                opened.append(self._opened(instance, grant))
        self.progress = rollout.with_all_known(self.progress, opened)

    def know_all(self, grants: Iterable[tuple[str, Entry]]) -> None:
        """Know every open grant."""
        ordered = sorted(grants, key=lambda one: one[1].create_revision)
        known = [(instance, entry, self.context.document(OpenGrant, entry)) for instance, entry in ordered]
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
        return *known, self.waiting, self._ended

    def back_to(self, mark: "SnapshotMark") -> None:
        """Forget what was decided since ``mark``."""
        self.progress, self.target, self.brake, living, grants, self.waiting, self._ended = mark
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
            self._ended |= {instance}
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
        return begun is not None and self.progress is not begun and self._as_stored != counted(begun)

    @property
    def _as_stored(self) -> Progress:
        """The rollout with its open grants counted: once for each of its states, since they may be thousands."""
        if self._counted is None or self._counted[0] is not self.progress:
            self._counted = self.progress, counted(self.progress)
        return self._counted[1]

    def write(self) -> None:
        """Write the rollout if this transaction has changed it, and the brake when the policy has stopped it."""
        was = "running" if self._begun is None else self._begun.state
        is_stopped = self.progress.state == "halted" and was != "halted"
        if is_stopped or (self.progress.state == "paused" and was == "running" and self.brake != -1):
            self.write_brake("halt" if is_stopped else "pause")
        if self.has_changed:
            self.change.put(self.context.keys.rollout(self.group.app, self.group.id), Rollout(progress=self._as_stored))


SnapshotMark = tuple[
    Progress, Target | None, int, dict[str, str], dict[str, Entry], tuple[DeferredInstance, ...], frozenset[str]
]
"""A point in what a transaction decides to which it can go back."""


def keys_of_release(context: StoreContext, group: Group, release: ReleaseId) -> tuple[str, str]:
    """What blocks it, and its package."""
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
