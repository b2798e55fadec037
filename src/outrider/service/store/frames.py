"""Frames of rollouts, as CoreUpdate's clients set, activate and deactivate them (``core.rollout.frames``)."""

from dataclasses import dataclass, replace

import msgspec

from outrider.core.errors import Conflict
from outrider.core.rollout.frames import Frame, RunningFrames, check_frames
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.model.documents import App, Frames, Group
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, absent_app, app_id_of
from outrider.service.store.groups import absent_group


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFrames:
    """A group with its frames.

    Attributes:
        frames: Empty: it has none.
        percent: The share of its instances that may update now.
        active: The frames say the percentage, and have not come to their end.
    """

    group: Group
    frames: tuple[Frame, ...]
    percent: float
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesOfRollouts:
    """The frames of all groups."""

    context: StoreContext
    auditing: Auditing

    def get(self, app: str, group: str) -> GroupFrames:
        """The frames of a group.

        Raises:
            NotFound: there is no such app or group.
        """
        return self._shown(Change(self.context.cluster), app, group)

    def of(self, group: Group) -> GroupFrames:
        """The frames of a group that was read already."""
        stored = self.context.get_or_none(Frames, self.context.keys.frames(group.app, group.id))
        return self._shown_of(group, () if stored is None else stored.frames)

    def set(self, app: str, group: str, frames: tuple[Frame, ...]) -> GroupFrames:
        """Replace the frames of a group. Active ones end, and the percentage stays where they have got to.

        Raises:
            ConfigError: the frames can't be carried out.
            NotFound: there is no such app or group.
        """
        checked = check_frames(frames)

        def attempt(change: Change) -> GroupFrames:
            before = self._shown(change, app, group)
            stored = Frames(app=before.group.app, group=before.group.id, frames=checked)
            change.put(self.context.keys.frames(before.group.app, before.group.id), stored)
            self._end(change, before)
            return self._shown_of(_as_ended(before), checked)

        return apply(self.context.cluster, attempt, self.auditing)

    def activate(self, app: str, group: str) -> GroupFrames:
        """Let the frames say the percentage from now on; those that do so already go on.

        Raises:
            NotFound: there is no such app or group.
            Conflict: the group has no frames.
        """

        def attempt(change: Change) -> GroupFrames:
            before = self._shown(change, app, group)
            if not before.frames:
                raise Conflict(
                    f"group {before.group.id!r} has no frames to activate; `updatectl rollout create linear` makes some"
                )
            if before.active:
                return before
            # what the policy says is what they begin with: who changes it says that a hand decides again
            policy = replace(before.group.policy, percent=before.frames[0].percent)
            new = msgspec.structs.replace(before.group, policy=policy, frames_since=self.context.now())
            change.put(self.context.keys.group(new.app, new.id), new)
            return self._shown_of(new, before.frames)

        return apply(self.context.cluster, attempt, self.auditing)

    def deactivate(self, app: str, group: str) -> GroupFrames:
        """Let the percentage stay where the frames have got to.

        Raises:
            NotFound: there is no such app or group.
        """

        def attempt(change: Change) -> GroupFrames:
            before = self._shown(change, app, group)
            self._end(change, before)
            return self._shown_of(_as_ended(before), before.frames)

        return apply(self.context.cluster, attempt, self.auditing)

    def set_percent(self, app: str, group: str, percent: float) -> GroupFrames:
        """Set the percentage by hand; active frames end.

        Raises:
            ConfigError: it is not within 0 to 100.
            NotFound: there is no such app or group.
        """

        def attempt(change: Change) -> GroupFrames:
            before = self._shown(change, app, group)
            policy = check_policy(replace(before.group.policy, percent=percent))
            new = msgspec.structs.replace(before.group, policy=policy, frames_since=None)
            change.put(self.context.keys.group(new.app, new.id), new)
            return self._shown_of(new, before.frames)

        return apply(self.context.cluster, attempt, self.auditing)

    def _shown(self, change: Change, app: str, group: str) -> GroupFrames:
        app_id, keys = app_id_of(app), self.context.keys
        change.require_only_existing(App, keys.app(app_id), absent_app(app))
        found = change.require(Group, keys.group(app_id, group), absent_group(app_id, group))
        stored = change.read_or_none(Frames, keys.frames(app_id, group))
        return self._shown_of(found, () if stored is None else stored.frames)

    def _shown_of(self, group: Group, frames: tuple[Frame, ...]) -> GroupFrames:
        now = self.context.now()
        if group.frames_since is None or not frames:
            return GroupFrames(group=group, frames=frames, percent=group.policy.percent, active=False)
        running = RunningFrames(frames=frames, since=group.frames_since)
        return GroupFrames(group=group, frames=frames, percent=running.percent_at(now), active=not running.is_over(now))

    def _end(self, change: Change, before: GroupFrames) -> None:
        if before.group.frames_since is not None:
            change.put(self.context.keys.group(before.group.app, before.group.id), _as_ended(before))


def frames_note(group: Group, frames: tuple[Frame, ...], context: StoreContext) -> tuple[str, ...]:
    """What a person who looks at the policy must know of active frames."""
    if group.frames_since is None or not frames:
        return ()
    running, now = RunningFrames(frames=frames, since=group.frames_since), context.now()
    goal = "" if running.is_over(now) else f" and {frames[-1].percent:g} % at {running.end:%Y-%m-%d %H:%M} UTC"
    return (
        f"frames of the rollout decide the percentage, not the policy: {running.percent_at(now):.4g} % now{goal};"
        " another percentage in the policy ends them",
    )


def by_hand(before: Group, policy: Policy) -> Group:
    """The group with another policy; its frames end when that says another percentage."""
    since = before.frames_since if policy.percent == before.policy.percent else None
    return msgspec.structs.replace(before, policy=policy, frames_since=since)


def _as_ended(before: GroupFrames) -> Group:
    if before.group.frames_since is None:
        return before.group
    policy = replace(before.group.policy, percent=before.percent)
    return msgspec.structs.replace(before.group, policy=policy, frames_since=None)
