"""Policies of groups, and their rollouts: what an operator sees of them, and how they stop and start one."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from outrider.config.sections import DrainSettings, SoakSettings
from outrider.core.errors import Conflict, NotFound
from outrider.core.rollout import rollout
from outrider.core.rollout.policy_lint import Surroundings, lint
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.core.rollout.rollout import Failure, Opened, Progress, State, brake
from outrider.model.documents import App, Group, Instance, Rollout
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, checked_text
from outrider.service.store.groups import absent_group
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot

MAX_WHY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutNow:
    """A group's rollout as it stands.

    Attributes:
        version: What the group is on its way to; None while nothing is offered.
        state: As it takes effect: a block of the version, or a policy that was changed, halts it without being written.
        why: The reason of a pause or a halt. ``by``: who said so; empty for the policy.
        finished: When all who were known had come to ``version``; None before.
        opened: Grants that live and have no result.
        waiting: Instances that are deferred, in their order.
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
        """Give a group another policy; the notes say what in it can't work.

        Raises:
            ConfigError: it can't be carried out.
            NotFound: there is no such app or group.
        """
        app_id, keys = app_id_of(app), self.context.keys
        check_policy(policy)

        def attempt(change: Change) -> Group:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.group(app_id, group)
            new = msgspec.structs.replace(change.require(Group, key, absent_group(app_id, group)), policy=policy)
            change.put(key, new)
            return new

        saved = apply(self.context.cluster, attempt, self.auditing)
        return Saved(document=saved, notes=self._warnings(saved))

    def warnings(self, app: str, group: str) -> tuple[str, ...]:
        """What in a group's policy can't work, one line each.

        Raises:
            NotFound: there is no such app or group.
        """
        return self._warnings(self._group(app, group))

    def get(self, app: str, group: str) -> RolloutNow:
        """How far a group is.

        Raises:
            NotFound: there is no such app or group.
        """
        change = Change(self.context.cluster)
        snapshot = self._snapshot(change, app, group)
        stored = change.entry(self.context.keys.rollout(snapshot.group.app, snapshot.group.id))
        if stored is not None:
            self.context.note(stored)
        return shown(snapshot)

    def pause(self, app: str, group: str, *, why: str = "", by: str = "") -> RolloutNow:
        """Let nobody begin the update to what the group shall run now, until it is resumed or the target moves.

        Raises:
            NotFound: there is no such app or group.
            Conflict: nothing is offered, so there is nothing to stop.
        """
        return self._tell(app, group, "paused", why, by)

    def halt(self, app: str, group: str, *, why: str = "", by: str = "") -> RolloutNow:
        """As ``pause``, for a rollout that went wrong.

        Raises:
            NotFound, Conflict: as in ``pause``.
        """
        return self._tell(app, group, "halted", why, by)

    def resume(self, app: str, group: str, *, by: str = "") -> RolloutNow:
        """Let it go on; the failures so far were seen, and count no more.

        Raises:
            NotFound, Conflict: as in ``pause``.
        """
        return self._tell(app, group, "running", "", by)

    def _tell(self, app: str, group: str, state: State, why: str, by: str) -> RolloutNow:
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)

        def attempt(change: Change) -> RolloutNow:
            snapshot = self._snapshot(change, app, group)
            if snapshot.wanted is None:
                raise Conflict(f"group {group!r} is offered nothing, so there is no rollout to {_VERBS[state]}")
            snapshot.settle()
            snapshot.progress = rollout.told(snapshot.progress, state, why, by, snapshot.now)
            # Not `snapshot.write()`: that a rollout which nobody has begun may run is worth a word as well.
            key = self.context.keys.rollout(snapshot.group.app, snapshot.group.id)
            change.put(key, Rollout(progress=snapshot.progress))
            return shown(snapshot)

        return apply(self.context.cluster, attempt, self.auditing)

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
            slots=group.slots,
            # A sidekick's own settings are known to itself alone; these are what it has when nobody set any.
            drain_s=DrainSettings().max_s,
            soak_s=SoakSettings().duration_s,
        )
        return lint(group.policy, around)


_VERBS: dict[State, str] = {"paused": "pause", "halted": "halt", "running": "resume"}


def shown(snapshot: GroupSnapshot) -> RolloutNow:
    """What an operator sees of a snapshot."""
    progress = snapshot.progress
    state, why, by, since = effective(snapshot)
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
    )


def effective(snapshot: GroupSnapshot) -> tuple[State, str, str, datetime]:
    """State, reason, who said so and since when, with what halts a rollout without being written into it."""
    progress = snapshot.progress
    block_reason = None if snapshot.wanted is None else snapshot.block_reason(snapshot.wanted)
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
    return progress.state, progress.why, progress.by, progress.since


def _braked(progress: Progress, policy: Policy) -> str | None:
    return brake(progress, policy) if progress.state == "running" else None
