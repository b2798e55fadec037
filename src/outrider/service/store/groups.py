"""Groups: the instances of a group follow one channel under one policy."""

from dataclasses import dataclass

import msgspec

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.model.damage import readable
from outrider.model.documents import App, Brake, Channel, Group, IdentityMode, Package, Presence, Target
from outrider.model.identity import StoredToken
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.channels import absent_channel
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, checked_text, some
from outrider.service.store.finishing import apply_finished
from outrider.service.store.targets import aim

MAX_SLOTS = 1000
"""More than the instances of any group: a mistyped extra digit is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of all apps."""

    context: StoreContext
    auditing: Auditing

    def list(self, app: str) -> tuple[Group, ...]:
        """All groups of an app, by id.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        return self.context.children(Group, self.context.keys.groups(app_id))

    def get(self, app: str, group: str) -> Group:
        """One group.

        Raises:
            NotFound: there is no such app or group.
        """
        app_id = self.context.require_app(app)
        found = self.context.get(Group, self.context.keys.group(app_id, group))
        if found is None:
            raise NotFound(absent_group(app_id, group))
        return found

    def target(self, app: str, group: str) -> Target:
        """The target of the group: the version for its instances.

        Raises:
            NotFound: there is no such app or group.
        """
        found = self.get(app, group)
        target = self.context.get(Target, self.context.keys.target(found.app, found.id))
        return target or Target(version=None, paused=found.paused, slots=found.slots)

    def create(
        self,
        app: str,
        group: str,
        *,
        channel: str,
        label: str = "",
        slots: int = 1,
        paused: bool = False,
        policy: Policy | None = None,
        identity: IdentityMode = "auto",
    ) -> Saved[Group]:
        """Add a group that follows ``channel``. A missing channel is added too; it points at nothing.

        CoreOS' guide creates the group before its channel.

        Args:
            policy: From its first moment; None: one that defers nobody.

        Raises:
            ConfigError: the policy can't be carried out.
            NotFound: there is no such app.
            Conflict: the id is taken.
        """
        app_id, keys = app_id_of(app), self.context.keys
        chosen = check_policy(policy or Policy())

        def attempt(change: Change) -> Saved[Group]:
            change.require(App, keys.app(app_id), absent_app(app))
            key = keys.group(app_id, group)
            if change.read(Group, key) is not None:
                raise Conflict(f"group {group!r} exists already; change it with `group update`")
            new = Group(
                app=app_id,
                id=group,
                label=checked_text("label", label) or group,
                channel=channel,
                paused=paused,
                slots=_checked_slots(slots),
                policy=chosen,
                identity=identity,
                created=self.context.now(),
            )
            change.touch(keys.app(app_id))
            followed, notes = self._follow(change, new)
            change.put(key, new)
            aim(change, keys, new, followed, self._package(change, followed), self.context.now())
            return Saved(document=new, created=True, notes=notes)

        return apply(self.context.cluster, attempt, self.auditing)

    def update(
        self,
        app: str,
        group: str,
        *,
        label: str | None = None,
        channel: str | None = None,
        paused: bool | None = None,
        slots: int | None = None,
        identity: IdentityMode | None = None,
    ) -> Group:
        """Change every value that is not None.

        Raises:
            NotFound: there is no such app or group, or no such channel.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Group:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.group(app_id, group)
            old = change.require(Group, key, absent_group(app_id, group))
            new = msgspec.structs.replace(
                old,
                label=old.label if label is None else checked_text("label", label) or group,
                channel=old.channel if channel is None else channel,
                paused=old.paused if paused is None else paused,
                slots=old.slots if slots is None else _checked_slots(slots),
                identity=identity or old.identity,
                undo=old.undo if channel in (None, old.channel) else None,
            )
            channel_key = keys.channel(app_id, new.channel)
            followed = change.require(Channel, channel_key, absent_channel(app_id, new.channel))
            if new.channel != old.channel:
                change.touch(channel_key)
            change.put(key, new)
            aim(change, keys, new, followed, self._package(change, followed), self.context.now())
            if new.paused != old.paused:
                # The rollout controller takes the grants back; from now on no turn is taken for them.
                brake_key = keys.brake(app_id, group)
                change.read_or_none(Brake, brake_key)
                before = change.entry(brake_key)
                brake = Brake(
                    verb="group-pause" if new.paused else "group-unpause",
                    at=self.context.now(),
                    after=0 if before is None else before.mod_revision,
                )
                change.put(brake_key, brake)
            return new

        if channel is None:
            return apply(self.context.cluster, attempt, self.auditing)
        return apply_finished(self.context, app_id, (group,), attempt, self.auditing)

    def delete(self, app: str, group: str) -> Group:
        """Remove a group without running sidekicks, with its target and its rollout.

        Raises:
            NotFound: there is no such app or group.
            Conflict: sidekicks of the group run; the message names them.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Group:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            old = change.require(Group, keys.group(app_id, group), absent_group(app_id, group))
            prefix = f"{keys.presences(app_id)}{group}/"
            living = [presence.instance for presence in self.context.children(Presence, prefix)]
            if living:
                raise Conflict(f"group {group!r} is in use: its sidekicks {some(living)} are running; stop them first")
            change.delete(keys.group(app_id, group))
            change.delete_below(f"{keys.group(app_id, group)}/")
            change.delete_below(keys.environments(app_id, group))
            change.delete_below(keys.tasks(app_id, group))
            if change.exists(keys.oldest(app_id, group)):
                change.delete(keys.oldest(app_id, group))
            change.delete(keys.analysis(app_id, group))
            change.delete(keys.frames(app_id, group))
            for entry, token in readable(StoredToken, change.list(keys.client_tokens(app_id)).entries):
                if token.group == group:
                    change.guard(StoredToken, entry)
                    change.delete(entry.key)
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def _follow(self, change: Change, group: Group) -> tuple[Channel, tuple[str, ...]]:
        key = self.context.keys.channel(group.app, group.channel)
        channel = change.read(Channel, key)
        if channel is not None:
            change.touch(key)
            return channel, ()
        channel = Channel(app=group.app, name=group.channel, created=self.context.now())
        change.put(key, channel)
        return channel, (f"channel {group.channel!r} did not exist and was created; it points at nothing yet",)

    def _package(self, change: Change, channel: Channel) -> Package | None:
        if channel.version is None:
            return None
        return change.read(Package, self.context.keys.package(channel.app, channel.version))


def absent_group(app_id: str, group: str) -> str:
    """The message for a group that does not exist."""
    return f"app {app_id} has no group {group!r}; `group list` shows them, `group create` adds one"


def _checked_slots(slots: int) -> int:
    if not 1 <= slots <= MAX_SLOTS:
        raise ConfigError(
            f"slots {slots}: write 1 to {MAX_SLOTS} instances that may swap at once; pause the group to stop all"
        )
    return slots
