"""The environments of groups: each change makes a new one, and with it a release that the group rolls out."""

import secrets as random_tokens
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from outrider.core.environment import Difference, Environment, checked, differences
from outrider.core.errors import Conflict, NotFound
from outrider.model.documents import App, Channel, Group, Package, Target
from outrider.model.environments import GroupEnvironment
from outrider.service.store.changes import Auditing, Change
from outrider.service.store.channels import absent_channel
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, checked_text
from outrider.service.store.finishing import apply_finished
from outrider.service.store.groups import absent_group
from outrider.service.store.served import read_served
from outrider.service.store.targets import aim

KEPT = 20
"""Environments of a group that are kept, besides those that something may go back to."""
MAX_WHY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentEdit:
    """A change of an environment.

    Attributes:
        variables, secrets, references: To set; a name that is another kind so far becomes this kind.
        unset: Names to remove.
        arguments: The new ones; None keeps them.
        replace: Nothing is kept of what the environment says so far.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None
    replace: bool = False

    def applied(self, old: Environment) -> Environment:
        """The environment after the change.

        Raises:
            NotFound: a name to remove isn't there.
            ConfigError: no app can be started with it.
        """
        base = Environment() if self.replace else old
        for name in self.unset:
            if name not in base.shown():
                raise NotFound(f"variable {name!r} is not in the environment; `env list` shows what is")
        named = {*self.variables, *self.secrets, *self.references, *self.unset}

        def merged(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
            return {name: text for name, text in before.items() if name not in named} | dict(new)

        return checked(
            Environment(
                variables=merged(base.variables, self.variables),
                secrets=merged(base.secrets, self.secrets),
                references=merged(base.references, self.references),
                arguments=base.arguments if self.arguments is None else self.arguments,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Environments:
    """The environments of all groups."""

    context: StoreContext
    auditing: Auditing

    def get(self, app: str, group: str, number: int | None = None) -> GroupEnvironment | None:
        """One environment of a group: ``number``, or the one that its releases run with; None: they run with none.

        Raises:
            NotFound: there is no such app or group, or the group has no such environment any more.
        """
        found = self._group(app, group)
        number = in_effect(found) if number is None else number
        if not number:
            return None
        environment = self.context.get(GroupEnvironment, self.context.keys.environment(found.app, found.id, number))
        if environment is None:
            raise NotFound(f"group {group!r} has no environment {number}; `env history` shows those that are kept")
        return environment

    def history(self, app: str, group: str) -> tuple[GroupEnvironment, ...]:
        """The environments of a group that are kept, newest first.

        Raises:
            NotFound: there is no such app or group.
        """
        found = self._group(app, group)
        kept = self.context.children(GroupEnvironment, self.context.keys.environments(found.app, found.id))
        return tuple(reversed(kept))

    def diff(self, app: str, group: str, before: int, after: int | None) -> tuple[Difference, ...]:
        """What the environment ``after`` (None: the present one) has that ``before`` hasn't; 0 is the empty one.

        Raises:
            NotFound: there is no such app or group, or one of the environments isn't kept.
        """
        was = self.get(app, group, before)
        now = self.get(app, group, after)
        return differences(
            Environment() if was is None else was.environment, Environment() if now is None else now.environment
        )

    def preview(self, app: str, group: str, edit: EnvironmentEdit) -> tuple[Difference, ...]:
        """What ``change`` would make different now; secrets are masked.

        Raises:
            NotFound: there is no such app or group, or a name to remove isn't there.
            ConfigError: no app can be started with it.
        """
        found = self.get(app, group)
        was = Environment() if found is None else found.environment
        return differences(was, edit.applied(was))

    def change(self, app: str, group: str, edit: EnvironmentEdit, *, why: str = "", by: str = "") -> Saved[Group]:
        """Make a new environment, and with it the release that the group rolls out from now on.

        An environment that would say the same as the present one is not made.

        Raises:
            NotFound: there is no such app or group, or a name to remove isn't there.
            ConfigError: no app can be started with it.
        """
        why, by = checked_text("why", why, MAX_WHY), checked_text("by", by, MAX_WHY)
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Saved[Group]:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.group(app_id, group)
            old = change.require(Group, key, absent_group(app_id, group))
            present = in_effect(old)
            before = None
            if present:
                before = change.read(GroupEnvironment, keys.environment(app_id, group, present))
                if before is None and not edit.replace:
                    raise Conflict(
                        f"environment {present} of group {group!r} is gone, so nothing can be changed in it; give the"
                        " whole environment (`env set --file`)"
                    )
            was = Environment() if before is None else before.environment
            content = edit.applied(was)
            if content == was and (before is not None or not present):
                return Saved(document=old)
            made = self._made(old.environments + 1, content, by, why)
            change.put(keys.environment(app_id, group, made.number), made)
            new = with_environment(old, made)
            change.put(key, new)
            channel = change.require(Channel, keys.channel(app_id, new.channel), absent_channel(app_id, new.channel))
            package = None
            if channel.version is not None:
                package = change.read(Package, keys.package(app_id, channel.version))
            aim(change, keys, new, channel, package, self.context.now())
            self._forget(change, new, present)
            return Saved(document=new, created=True)

        return apply_finished(self.context, app_id, (group,), attempt, self.auditing)

    def _made(self, number: int, content: Environment, by: str, why: str) -> GroupEnvironment:
        salt = random_tokens.token_hex(16)
        return GroupEnvironment(
            number=number,
            variables=dict(content.variables),
            secrets=dict(content.secrets),
            references=dict(content.references),
            arguments=content.arguments,
            salt=salt,
            digest=content.digest(salt),
            by=by,
            why=why,
            at=self.context.now(),
        )

    def _forget(self, change: Change, group: Group, before: int) -> None:
        """Remove what nothing can go back to any more, all but the newest ``KEPT``."""
        keys = self.context.keys
        needed = {in_effect(group), group.environment, before}
        needed |= {one.environment for one in read_served(change, keys, group.app, group.id)}
        target = change.read_or_none(Target, keys.target(group.app, group.id))
        needed |= {target.environment} if target is not None else set()
        for entry in change.list(keys.environments(group.app, group.id)).entries[: -(KEPT - 1)]:
            number = entry.key.rpartition("/")[2]
            if number.isdigit() and int(number) not in needed:
                change.guard_unread(entry)
                change.delete(entry.key)

    def _group(self, app: str, group: str) -> Group:
        app_id = self.context.require_app(app)
        found = self.context.get(Group, self.context.keys.group(app_id, group))
        if found is None:
            raise NotFound(absent_group(app_id, group))
        return found


def in_effect(group: Group) -> int:
    """Number of the environment that the group's releases run with; 0: none."""
    return group.environment if group.undo is None else group.undo.environment


def with_environment(group: Group, made: GroupEnvironment) -> Group:
    """The group, so that its releases run with ``made`` from now on, also where it was taken back."""
    undo = group.undo
    if undo is not None:
        undo = msgspec.structs.replace(undo, environment=made.number, environment_digest=made.digest)
    return msgspec.structs.replace(
        group,
        environment=made.number,
        environment_digest=made.digest,
        environments=made.number,
        undo=undo,
    )
