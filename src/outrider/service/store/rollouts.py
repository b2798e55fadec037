"""Policies and rollouts of groups: how an operator reads, pauses, halts and resumes a rollout."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from outrider.config.sections import DrainSettings, SoakSettings
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.rollout import rollout, waves
from outrider.core.rollout.policy_lint import Surroundings, lint
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.core.rollout.rollout import Approval, Failure, Opened, Override, Progress, State, WaveState, brake
from outrider.model.documents import App, Frames, Group, Instance, Presence, Rollout, Target
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, checked_text
from outrider.service.store.finishing import apply_finished
from outrider.service.store.frames import by_hand, frames_note
from outrider.service.store.groups import absent_group
from outrider.service.store.members import read_members
from outrider.service.store.recalls import recall
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot
from outrider.service.store.undo import follow, restart, undo

MAX_WHY = 500
Verdict = Literal["approved", "rejected"]
MAX_OVERRIDE_S = 7 * 24 * 3600.0
"""The longest emergency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutNow:
    """A group's rollout as it stands.

    Attributes:
        version: The group's target; None: no release yet.
        state: The effective state: a block of the version, or a changed policy, halts the rollout without a write.
        why: The reason of a pause or a halt.
        by: The name of the operator; empty for the policy.
        finished: When all known instances had updated to ``version``; None before.
        opened: Living grants without a result.
        waiting: Deferred instances, in their order.
        cannot_take: Instances whose machine cannot take ``version``, each with its reason; known from their sidekicks.
        waits_for_approval: A person must approve it, and nobody has judged yet.
        approval: What is known of that; None while nobody asked or judged.
        override: The emergency under which it goes on, whatever windows and freezes say; None without.
        wave: The wave that it is at; None without waves, or when they are over.
        wave_words: Which wave that is, and what it waits for.
    """

    app: str
    group: str
    version: str | None
    state: State
    why: str
    by: str
    since: datetime
    started: datetime
    finished: datetime | None
    succeeded: int
    opened: tuple[Opened, ...]
    failures: tuple[Failure, ...]
    waiting: tuple[str, ...]
    cannot_take: tuple[str, ...] = ()
    waits_for_approval: bool = False
    approval: Approval | None = None
    override: Override | None = None
    wave: WaveState | None = None
    wave_words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """The policies and rollouts of all groups."""

    context: StoreContext
    auditing: Auditing

    def policy(self, app: str, group: str) -> Policy:
        """A group's policy.

        Raises:
            NotFound: there is no such app or group.
        """
        return self._group(app, group).policy

    def set_policy(self, app: str, group: str, policy: Policy) -> Saved[Group]:
        """Replace the policy of a group; the notes list the parts that cannot work.

        Raises:
            ConfigError: the policy is invalid.
            NotFound: there is no such app or group.
        """
        app_id, keys = app_id_of(app), self.context.keys
        check_policy(policy)

        def attempt(change: Change) -> Group:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.group(app_id, group)
            new = by_hand(change.require(Group, key, absent_group(app_id, group)), policy)
            change.put(key, new)
            target = change.read_or_none(Target, keys.target(app_id, group))
            if target is not None and target.budgets != policy.budgets:
                change.put(keys.target(app_id, group), msgspec.structs.replace(target, budgets=policy.budgets))
            self._recall(change, new)
            return new

        saved = apply(self.context.cluster, attempt, self.auditing)
        return Saved(document=saved, notes=self._warnings(saved))

    def warnings(self, app: str, group: str) -> tuple[str, ...]:
        """The parts of a group's policy that cannot work, one line each.

        Raises:
            NotFound: there is no such app or group.
        """
        return self._warnings(self._group(app, group))

    def warnings_of(self, app: str, group: str, policy: Policy | None) -> tuple[str, ...]:
        """As ``warnings``, if the group had this policy; None: its own.

        Raises:
            NotFound: there is no such app or group.
        """
        found = self._group(app, group)
        return self._warnings(found if policy is None else msgspec.structs.replace(found, policy=policy))

    def get(self, app: str, group: str) -> RolloutNow:
        """The rollout of a group.

        Raises:
            NotFound: there is no such app or group.
        """
        change = Change(self.context.cluster)
        snapshot = self._snapshot(change, app, group)
        stored = change.entry(self.context.keys.rollout(snapshot.group.app, snapshot.group.id))
        if stored is not None:
            self.context.note(stored)
        alive = self.context.children(
            Presence, f"{self.context.keys.presences(snapshot.group.app)}{snapshot.group.id}/"
        )
        return replace(shown(snapshot), cannot_take=unable(alive, snapshot.wanted))

    def pause(self, app: str, group: str, *, why: str = "", by: str = "") -> RolloutNow:
        """Start no further update to the current target, until the rollout is resumed or the target changes.

        Raises:
            NotFound: there is no such app or group.
            Conflict: the group has no target, so there is no rollout.
        """
        return self._tell(app, group, "paused", why, by)

    def halt(self, app: str, group: str, *, why: str = "", by: str = "") -> RolloutNow:
        """As ``pause``, for a rollout with failures.

        Raises:
            NotFound, Conflict: as in ``pause``.
        """
        return self._tell(app, group, "halted", why, by)

    def resume(self, app: str, group: str, *, by: str = "") -> RolloutNow:
        """Continue the rollout; earlier failures no longer count.

        Raises:
            NotFound, Conflict: as in ``pause``.
        """
        return self._tell(app, group, "running", "", by)

    def approve(
        self, app: str, group: str, *, version: str = "", wave: int = 0, why: str = "", by: str = ""
    ) -> RolloutNow:
        """A person lets the rollout go on. Of two who say so at the same time, the first one counts.

        Args:
            app: The app.
            group: The group.
            version: What the person has looked at; empty: whatever the target is.
            wave: Number of the wave after which the person lets the next one begin; 0: whatever waits.
            why: The reason.
            by: The person's name.

        Raises:
            NotFound: there is no such app or group.
            Conflict: the group has no target, or another one than ``version``; or it is another wave that waits.
        """
        return self._judge(app, group, "approved", version, why, by, wave)

    def reject(self, app: str, group: str, *, version: str = "", why: str = "", by: str = "") -> RolloutNow:
        """A person stops the rollout: no further update to its target begins, until one approves it after all.

        Args:
            app: The app.
            group: The group.
            version: As in ``approve``.
            why: The reason.
            by: The person's name.

        Raises:
            NotFound, Conflict: as in ``approve``.
        """
        return self._judge(app, group, "rejected", version, why, by)

    def override(self, app: str, group: str, *, for_s: float, why: str, by: str = "") -> RolloutNow:
        """Declare an emergency: for ``for_s`` seconds neither windows nor freezes stop this rollout; 0 ends it.

        Raises:
            NotFound: there is no such app or group.
            ConfigError: there is no reason, or the time is out of its range.
            Conflict: the group has no target.
        """
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)
        if not why.strip() and for_s:
            raise ConfigError("why: an emergency needs a reason")
        if not 0 <= for_s <= MAX_OVERRIDE_S:
            raise ConfigError(f"for_s {for_s:g}: must be 0 to {MAX_OVERRIDE_S:g} seconds")

        def attempt(change: Change) -> RolloutNow:
            snapshot = self._steered(change, app, group, "override")
            until = snapshot.now + timedelta(seconds=for_s)
            snapshot.progress = rollout.overridden(snapshot.progress, by=by, why=why, now=snapshot.now, until=until)
            if not for_s:
                snapshot.write_brake("override-end", by)
            return self._stored(snapshot)

        return apply(self.context.cluster, attempt, self.auditing)

    def undo(
        self,
        app: str,
        group: str,
        *,
        to: str | None = None,
        keep: bool = False,
        at_once: bool = False,
        why: str = "",
        by: str = "",
    ) -> Group:
        """Take the group back to an earlier version: by default to the one that it served before its target.

        Its channel stays as it is, and so do other groups. The abandoned version is blocked for this group unless
        ``keep``. It waits for an update window unless ``at_once``.

        Raises:
            NotFound: there is no such app or group.
            ConfigError: ``to`` is not a version.
            Conflict: there is nothing to go back to, or that version can't be installed.
        """
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)

        def attempt(change: Change) -> Group:
            snapshot = self._snapshot(change, app, group)
            return undo(snapshot, to=to, keep=keep, at_once=at_once, by=by, why=why)

        return apply_finished(self.context, app_id_of(app), (group,), attempt, self.auditing)

    def restart(self, app: str, group: str, *, why: str = "", by: str = "") -> Group:
        """Start every instance of a group anew, under turns, probes and policy: a release with a new generation.

        Raises:
            NotFound: there is no such app or group.
            Conflict: the group has no target, or its target is blocked.
        """
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)

        def attempt(change: Change) -> Group:
            return restart(self._snapshot(change, app, group), by, why)

        return apply_finished(self.context, app_id_of(app), (group,), attempt, self.auditing)

    def follow(self, app: str, group: str) -> Group:
        """End what ``undo`` did: the group follows its channel again.

        Raises:
            NotFound: there is no such app or group.
            Conflict: it follows its channel.
        """

        def attempt(change: Change) -> Group:
            return follow(self._snapshot(change, app, group))

        return apply_finished(self.context, app_id_of(app), (group,), attempt, self.auditing)

    def _tell(self, app: str, group: str, state: State, why: str, by: str) -> RolloutNow:
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)

        def attempt(change: Change) -> RolloutNow:
            snapshot = self._steered(change, app, group, _VERBS[state])
            snapshot.progress = rollout.told(snapshot.progress, state, why, by, snapshot.now)
            snapshot.write_brake(_VERBS[state], by)
            return self._stored(snapshot)

        return apply(self.context.cluster, attempt, self.auditing)

    def _judge(
        self, app: str, group: str, verdict: Verdict, version: str, why: str, by: str, wave: int = 0
    ) -> RolloutNow:
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)
        verb = "approve" if verdict == "approved" else "reject"

        def attempt(change: Change) -> RolloutNow:
            snapshot = self._steered(change, app, group, verb)
            if version and version != snapshot.wanted:
                raise Conflict(f"the target of group {group!r} is {snapshot.wanted} by now, not {version}; look again")
            before = snapshot.progress
            if wave and not _waits_after(before, wave):
                raise Conflict(f"wave {wave} of group {group!r} waits for no approval{_judged_wave(before, wave)}")
            snapshot.progress = rollout.judged(before, verdict, by=by, why=why, now=snapshot.now)
            if snapshot.progress is before:
                return shown(snapshot)
            if verdict == "rejected":
                snapshot.write_brake(verb, by)
            return self._stored(snapshot)

        return apply(self.context.cluster, attempt, self.auditing)

    def _steered(self, change: Change, app: str, group: str, verb: str) -> GroupSnapshot:
        """A group that has a rollout to ``verb``."""
        snapshot = self._snapshot(change, app, group)
        if snapshot.wanted is None:
            raise Conflict(
                f"group {group!r} has no target, so there is no rollout to {verb}; point its channel at a version first"
            )
        snapshot.settle()
        return snapshot

    def _stored(self, snapshot: GroupSnapshot) -> RolloutNow:
        """Not `snapshot.write()`: the state of a rollout without any update is written as well."""
        recall(snapshot)  # the rest of a large group follows at once; the brake holds them until then
        key = self.context.keys.rollout(snapshot.group.app, snapshot.group.id)
        snapshot.change.put(key, Rollout(progress=rollout.counted(snapshot.progress)))
        return shown(snapshot)

    def _recall(self, change: Change, group: Group) -> None:
        """Take back the grants that the group's new policy would not give."""
        snapshot = read_snapshot(self.context, change, group.app, group.id)
        assert snapshot is not None, "the group was read in this change"
        snapshot.group = group
        if recall(snapshot):
            snapshot.write_brake("policy")
        snapshot.write()

    def _snapshot(self, change: Change, app: str, group: str) -> GroupSnapshot:
        app_id = self.context.require_app(app)
        snapshot = read_snapshot(self.context, change, app_id, group)
        if snapshot is None:
            raise NotFound(absent_group(app_id, group))
        return snapshot

    def _group(self, app: str, group: str) -> Group:
        app_id = self.context.require_app(app)
        found = self.context.get(Group, self.context.keys.group(app_id, group))
        if found is None:
            raise NotFound(absent_group(app_id, group))
        return found

    def _warnings(self, group: Group) -> tuple[str, ...]:
        rows = self.context.children(Instance, self.context.keys.instances(group.app))
        around = Surroundings(
            instances=sum(row.group == group.id for row in rows),
            labels=tuple(one.labels for one in read_members(self.context, group, None, self.context.now()).values()),
            slots=group.slots,
            # The service does not know the settings of a sidekick; these are the defaults.
            drain_s=DrainSettings().max_s,
            soak_s=SoakSettings().duration_s,
        )
        stored = self.context.get_or_none(Frames, self.context.keys.frames(group.app, group.id))
        return (*frames_note(group, () if stored is None else stored.frames, self.context), *lint(group.policy, around))


def _waits_after(progress: Progress, wave: int) -> bool:
    state = progress.wave
    return state is not None and state.number == wave and state.waits_for_approval


def _judged_wave(progress: Progress, wave: int) -> str:
    """Who has judged it meanwhile, if that is still known."""
    state = progress.wave
    if state is None or state.number < wave:
        return " yet"
    said = state.approval if state.number == wave else None
    return f": it was {said.words}" if said is not None and said.verdict is not None else " any more"


_VERBS: dict[State, str] = {"paused": "pause", "halted": "halt", "running": "resume"}


def shown(snapshot: GroupSnapshot) -> RolloutNow:
    """The rollout as an operator sees it."""
    progress = snapshot.progress
    state, why, by, since = effective(snapshot)
    wave = snapshot.wave if progress.finished is None and progress.version is not None else None
    words = waves.describe(progress, snapshot.policy, wave)
    return RolloutNow(
        app=snapshot.group.app,
        group=snapshot.group.id,
        version=progress.version,
        state=state,
        why=why,
        by=by,
        since=since,
        started=progress.started,
        finished=progress.finished,
        succeeded=progress.succeeded,
        opened=tuple(one for one in progress.opened if one.instance in snapshot.living),
        failures=progress.failures,
        waiting=tuple(one.instance for one in snapshot.waiting),
        waits_for_approval=snapshot.waits_for_approval,
        approval=progress.approval,
        override=snapshot.emergency,
        wave=wave if wave is not None and words else None,
        wave_words=words,
    )


def unable(alive: Iterable[Presence], version: str | None) -> tuple[str, ...]:
    """The instances whose machine cannot take ``version``, each with its reason: ``web-2: /var is mounted noexec``."""
    return tuple(f"{one.instance}: {one.cannot_why}" for one in alive if version and one.cannot_take == version)


def effective(snapshot: GroupSnapshot) -> tuple[State, str, str, datetime]:
    """State, reason, operator and time, including a halt that is not written into the rollout."""
    progress = snapshot.progress
    block_reason = snapshot.standstill
    if block_reason is not None:
        return (
            "halted",
            f"{snapshot.wanted} is blocked" + (f": {block_reason}" if block_reason else ""),
            "",
            progress.since,
        )
    why = _braked(progress, snapshot.group.policy)
    if why is not None:
        return "halted", why, "", progress.since
    said = progress.approval
    if progress.state == "running" and said is not None and said.verdict == "rejected":
        return "halted", f"rejected: {said.why}" if said.why else "rejected", said.by, said.at or progress.since
    if progress.state == "running" and snapshot.waits_for_approval:
        why = waves.describe(progress, snapshot.policy, snapshot.wave) if snapshot.policy.waves else ""
        at_wave = snapshot.wave is not None and snapshot.wave.waits_for_approval
        return "running", why if at_wave else "waits for an approval", "", progress.since
    return progress.state, progress.why, progress.by, progress.since


def _braked(progress: Progress, policy: Policy) -> str | None:
    return brake(progress, policy) if progress.state == "running" else None
