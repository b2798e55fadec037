"""The fleet as the service knows it: instance rows, blocked releases, commands, and living sidekicks."""

import uuid
from dataclasses import dataclass

import msgspec

from outrider.core import versions
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.etcd.seam import Put
from outrider.model.damage import readable
from outrider.model.documents import (
    DRAIN_S,
    Admission,
    App,
    Block,
    Command,
    Gone,
    Group,
    GroupBlock,
    Instance,
    Presence,
    Target,
    Verb,
    Wakeup,
    encode,
    unreadable_gone,
)
from outrider.service.store.changes import MAX_OPERATIONS, Auditing, Change, apply
from outrider.service.store.context import StoreContext, absent_app, app_id_of, direct
from outrider.service.store.removal import read_traces, remove
from outrider.service.store.snapshot import read_snapshot
from outrider.service.store.undo import previous_release

WAKEUP_TTL_S = 600.0
"""A sidekick that is offline for longer checks in by itself when it connects again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Instances of all apps."""

    context: StoreContext
    auditing: Auditing

    def instances(self, app: str, group: str | None = None) -> tuple[Instance, ...]:
        """The rows of an app's instances, by id; only those of ``group`` when given.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        rows = self.context.children(Instance, self.context.keys.instances(app_id))
        return tuple(row for row in rows if group is None or row.group == group)

    def instance(self, app: str, instance: str) -> Instance:
        """One row.

        Raises:
            NotFound: there is no such app, or the instance has never checked in.
        """
        app_id = self.context.require_app(app)
        found = self.context.get(Instance, self.context.keys.instance(app_id, instance))
        if found is None:
            raise NotFound(absent_instance(app_id, instance))
        return found

    def forget(self, app: str, instance: str, *, by: str = "", machine_off: bool = False) -> Instance:
        """Remove everything of an instance without a running sidekick, and mark it as gone for good.

        That is: its servers in the balancer, their write guards, turn, place in the queue, grant, deferral, command
        and row. Whatever it writes later is refused, until ``admit``.

        Args:
            app: The app.
            instance: The instance.
            by: Who removes it, for people.
            machine_off: The machine is surely off, so that a turn may be freed.

        Raises:
            NotFound: there is no such app, or nothing is known of the instance.
            Conflict: its sidekick is running; or it holds a turn, and ``machine_off`` is not set.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Instance:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            traces = read_traces(self.context, change, app_id, instance)
            if not traces.groups:
                raise NotFound(absent_instance(app_id, instance))
            gone = remove(self.context, change, app_id, instance, traces, by=by, machine_off=machine_off)
            unseen = Instance(
                app=app_id, id=instance, group=gone.group, version="", first_seen=gone.at, last_seen=gone.at
            )
            return traces.row or unseen

        return apply(self.context.cluster, attempt, self.auditing)

    def admit(self, app: str, instance: str) -> Gone:
        """Let an instance come back that was removed for good.

        What was said before, to remove it, counts no more, even where a sidekick's journal still holds it.

        Raises:
            NotFound: there is no such app, or the instance is not marked as gone.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Gone:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            absent = f"app {app_id}: instance {instance!r} was not removed, so there is nothing to admit"
            gone = change.read_or_none(Gone, keys.gone(app_id, instance))
            if gone is None:
                if not change.exists(keys.gone(app_id, instance)):
                    raise NotFound(absent)
                gone = unreadable_gone(app_id, "", instance, self.context.now())
            change.delete(keys.gone(app_id, instance))
            admission = Admission(app=app_id, instance=instance, removal=gone.removal, at=self.context.now())
            change.exists(keys.admission(app_id, instance))
            change.put(keys.admission(app_id, instance), admission)
            return gone

        return apply(self.context.cluster, attempt, self.auditing)

    def command(
        self,
        app: str,
        instance: str,
        verb: Verb,
        by: str,
        *,
        version: str = "",
        for_s: float = DRAIN_S,
        until_reboot: bool = False,
    ) -> Command:
        """Store a command for an instance's sidekick; it replaces a command that the sidekick has not taken yet.

        Args:
            app: The app.
            instance: The instance.
            verb: What to do.
            by: The operator's name.
            version: Where a rollback is to go; empty: where ``rollout undo`` would go.
            for_s: Of a drain: seconds after which a person must look.
            until_reboot: Of a drain: it ends with the machine's next boot.

        Raises:
            ConfigError: a version with another verb, or one that is not semver.
            NotFound: there is no such app, or the instance has neither a row nor a living sidekick.
            Conflict: a living sidekick is to be decommissioned, and there is none; or a rollback would lead elsewhere
                than where it must, and the message says where.
        """
        if version and verb != "rollback":
            raise ConfigError(f"version {version!r}: only a rollback names a version, not {verb}")
        if version:
            versions.parse(version)
        app_id, keys = self.context.require_app(app), self.context.keys
        known = self.context.get(Instance, keys.instance(app_id, instance)) is not None
        alive = next((one for one in self.presences(app_id) if one.instance == instance), None)
        lives = alive is not None
        if not known and not lives:
            raise NotFound(absent_instance(app_id, instance))
        if verb == "decommission" and not lives:
            raise Conflict(
                f"no sidekick of instance {instance!r} is running that could decommission it; if its machine is gone"
                f" for good, use `outrider instance delete {app_id} {instance}`"
            )
        if verb == "rollback" and alive is not None:
            version = self._rollback_target(alive, version)
        command = Command(
            id=uuid.uuid4().hex,
            verb=verb,
            by=by,
            at=self.context.now(),
            version=version,
            for_s=for_s,
            until_reboot=until_reboot,
        )

        def attempt(change: Change) -> Command:
            # Read for the audit entry alone: the last command of an operator wins.
            change.read(Command, keys.command(app_id, instance))
            change.put(keys.command(app_id, instance), command)
            return command

        return apply(self.context.cluster, attempt, self.auditing)

    def presences(self, app: str, group: str | None = None) -> tuple[Presence, ...]:
        """The living sidekicks, by group and instance.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        found = self.context.all_below(Presence, self.context.keys.presences(app_id))
        return tuple(presence for presence in found if group is None or presence.group == group)

    def blocks(self, app: str, *, known_to_sidekicks: bool = False) -> tuple[Block, ...]:
        """The blocked releases of an app, by version; then those that one group only blocks, because it undid them.

        Args:
            app: The app.
            known_to_sidekicks: It is enough that sidekicks know the app, which another update service serves.

        Raises:
            NotFound: there is no such app.
        """
        app_id = app_id_of(app) if known_to_sidekicks else self.context.require_app(app)
        groups = self.context.children(Group, self.context.keys.groups(app_id))
        own = [block_of(group, one) for group in groups for one in group.blocked]
        return (*self.context.children(Block, self.context.keys.blocks(app_id)), *own)

    def unblock(self, app: str, release: str, *, known_to_sidekicks: bool = False) -> Block:
        """Unblock a release, and wake the living sidekicks that wait for it.

        Args:
            app: The app.
            release: Its name in keys (``ReleaseId.key``), or its label where one group alone blocks it.
            known_to_sidekicks: As in ``blocks``.

        Raises:
            NotFound: there is no such app, or the release is not blocked.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Block:
            if not known_to_sidekicks:
                change.require_only_existing(App, keys.app(app_id), absent_app(app))
            own = self._unblock_in_groups(change, app_id, release)
            if own is not None and " " in release:  # a label, which is no part of a key
                return own
            key = keys.block(app_id, release)
            old = change.read_or_none(Block, key)
            if own is not None and not change.exists(key):
                return own
            if old is None:
                if not change.exists(key):
                    raise NotFound(f"app {app_id}: release {release!r} is not blocked")
                why = "the document could not be read"
                old = Block(version=release, sha256="", instance="(unknown)", why=why, at=self.context.now())
            change.delete(key)
            for entry in change.list(keys.verdicts(app_id)).entries:
                if entry.key.endswith(f"/{release}"):
                    change.delete(entry.key)
            return old

        unblocked = apply(self.context.cluster, attempt, self.auditing)
        self._wake(app_id, unblocked.label, why=f"{unblocked.label} is no longer blocked")
        return unblocked

    def _rollback_target(self, presence: Presence, version: str) -> str:
        """Where the rollback of a living instance leads; ``version`` while it is at an update, which it then calls off.

        Raises:
            Conflict: elsewhere than asked, or than ``rollout undo`` would lead the group.
        """
        previous, at_rest = (
            presence.previous_release or presence.previous,
            presence.state.partition(".")[0] in ("idle", "checking"),
        )
        if not previous or not at_rest:
            return version
        if version and version not in (previous, presence.previous):
            raise Conflict(
                f"{presence.instance} ran {previous} before and can go back only to that; `outrider rollout undo"
                f" --app-id={presence.app} --group-id={presence.group} --to={version}` takes the group to {version}"
            )
        snapshot = read_snapshot(self.context, Change(self.context.cluster), presence.app, presence.group)
        back = None if snapshot is None else previous_release(snapshot)
        expected = None if back is None else back.label
        if not version and expected not in (None, previous):
            raise Conflict(
                f"{presence.instance} would go back to {previous}, and its group served {expected} before: use"
                f" `rollout undo` for the group, or --to={previous} if you mean that version"
            )
        return previous

    def _unblock_in_groups(self, change: Change, app_id: str, version: str) -> Block | None:
        """Unblock a release in the groups that undid it; returns one of these blocks."""
        prefix, found = self.context.keys.groups(app_id), None
        for entry, group in readable(Group, direct(change.list(prefix).entries, prefix)):
            mine = next((one for one in group.blocked if one.version == version), None)
            if mine is not None:
                change.guard(Group, entry)
                left = tuple(one for one in group.blocked if one.version != version)
                change.put(entry.key, msgspec.structs.replace(group, blocked=left))
                found = found or block_of(group, mine)
        return found

    def _wake(self, app_id: str, label: str, why: str) -> None:
        """Wake the sidekicks of all groups with the target ``label``; nothing else would wake them.

        Of a group that another update service serves nobody knows the target.
        """
        keys = self.context.keys
        groups = self.context.children(Group, keys.groups(app_id))
        others = {
            group.id
            for group in groups
            if (target := self.context.get_or_none(Target, keys.target(app_id, group.id))) is None
            or target.label != label
        }
        alive = self.context.all_below(Presence, keys.presences(app_id))
        waiting = [presence.instance for presence in alive if presence.group not in others]
        if not waiting:
            return
        lease = self.context.cluster.grant(WAKEUP_TTL_S)
        for start in range(0, len(waiting), MAX_OPERATIONS):
            wakeup = encode(Wakeup(why=why))
            puts = (
                Put(key=keys.wakeup(app_id, instance), value=wakeup, lease=lease)
                for instance in waiting[start : start + MAX_OPERATIONS]
            )
            self.context.cluster.txn((), tuple(puts))


def block_of(group: Group, own: GroupBlock) -> Block:
    """The block of one group, shown as one of the app."""
    return Block(version=own.version, sha256="", instance=f"group {group.id}", why=own.reason, at=own.at)


def absent_instance(app_id: str, instance: str) -> str:
    """The message for an unknown instance."""
    return f"app {app_id} has no instance {instance!r}; `instance list-updates --app-id={app_id}` shows them"
