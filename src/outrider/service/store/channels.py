"""Channels: each name points at a package. A move of a channel moves its groups in the same transaction."""

from dataclasses import dataclass

import msgspec

from outrider.core import versions
from outrider.core.errors import Conflict, NotFound
from outrider.core.follow import parse_follow
from outrider.model.documents import App, Block, Channel, Group, Package
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, some
from outrider.service.store.finishing import apply_finished, groups_on
from outrider.service.store.moving import moving_notes
from outrider.service.store.targets import aim_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channels of all apps."""

    context: StoreContext
    auditing: Auditing

    def list(self, app: str) -> tuple[Channel, ...]:
        """All channels of an app, by name.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        return self.context.children(Channel, self.context.keys.channels(app_id))

    def get(self, app: str, name: str) -> Channel:
        """One channel.

        Raises:
            NotFound: there is no such app or channel.
        """
        app_id = self.context.require_app(app)
        found = self.context.get(Channel, self.context.keys.channel(app_id, name))
        if found is None:
            raise NotFound(absent_channel(app_id, name))
        return found

    def create(
        self, app: str, name: str, *, version: str | None = None, publish: bool = False, allow_missing: bool = True
    ) -> Saved[Channel]:
        """Add a channel; without a version it points at nothing.

        Raises:
            NotFound: there is no such app.
            Conflict: the name is taken, or the version has no package and ``allow_missing`` was not given.
        """
        return self._save(app, name, version=version, publish=publish, must_be_new=True, allow_missing=allow_missing)

    def save(
        self,
        app: str,
        name: str,
        *,
        version: str | None = None,
        publish: bool | None = None,
        allow_missing: bool = True,
        follow: str | None = None,
        follow_moves: bool | None = None,
    ) -> Saved[Channel]:
        """Point a channel at ``version`` (None keeps what it points at), or add it when there is none.

        With ``allow_missing`` (of the API's clients only those that ask for it) the package of the version may be added
        later. Until then the channel offers no update, and a note says so.

        Args:
            follow: Tags at a registry that become packages; empty ends that.
            follow_moves: They also become the channel's version.

        Raises:
            ConfigError: ``follow`` is no image with a range or a pattern.
            NotFound: there is no such app.
            Conflict: too many groups follow the channel, it excludes the version, or the version has no package.
        """
        if follow:
            parse_follow(follow)
        return self._save(
            app,
            name,
            version=version,
            publish=publish,
            must_be_new=False,
            allow_missing=allow_missing,
            follow=follow,
            follow_moves=follow_moves,
        )

    def delete(self, app: str, name: str) -> Channel:
        """Remove a channel that no group follows.

        Raises:
            NotFound: there is no such app or channel.
            Conflict: groups follow it; the message names them.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Channel:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            old = change.require(Channel, keys.channel(app_id, name), absent_channel(app_id, name))
            groups = self.context.children(Group, keys.groups(app_id))
            users = [group.id for group in groups if group.channel == name]
            if users:
                raise Conflict(
                    f"channel {name!r} is in use by groups {some(users)}; move them to another channel first"
                )
            change.delete(keys.channel(app_id, name))
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def _save(
        self,
        app: str,
        name: str,
        *,
        version: str | None,
        publish: bool | None,
        must_be_new: bool,
        allow_missing: bool,
        follow: str | None = None,
        follow_moves: bool | None = None,
    ) -> Saved[Channel]:
        app_id, keys = app_id_of(app), self.context.keys
        if version is not None:
            versions.parse(version)

        def attempt(change: Change) -> Saved[Channel]:
            change.require(App, keys.app(app_id), absent_app(app))
            key = keys.channel(app_id, name)
            old = change.read(Channel, key)
            if old is not None and must_be_new:
                raise Conflict(f"channel {name!r} exists already; move it with `channel update`")
            base = old or Channel(app=app_id, name=name, created=self.context.now())
            new = msgspec.structs.replace(
                base,
                version=base.version if version is None else version,
                publish=base.publish if publish is None else publish,
                follow=base.follow if follow is None else follow,
                follow_moves=base.follow_moves if follow_moves is None else follow_moves,
            )
            if new.version is not None and new.version in new.excluded:
                raise Conflict(f"channel {name!r} excludes {new.version}; include that version first")
            package = None if new.version is None else change.read(Package, keys.package(app_id, new.version))
            if version is not None and package is None and not allow_missing:
                raise Conflict(
                    f"{version} has no package, so nothing would be installed; `package create` adds it, or give"
                    " --allow-missing to add it later"
                )
            change.put(key, new)
            if old is None:
                change.touch(keys.app(app_id))
            if old is None or old.version != new.version:
                self._refer(change, new, package)
            notes = (*self._notes(new, package), *moving_notes(self.context, new, moves=version is not None))
            aim_all(change, keys, (new,), package, self.context.now(), ends_undo=version is not None)
            return Saved(document=new, created=old is None, notes=notes)

        if version is None:
            return apply(self.context.cluster, attempt, self.auditing)
        return apply_finished(self.context, app_id, groups_on(self.context, app_id, name), attempt, self.auditing)

    def _refer(self, change: Change, channel: Channel, package: Package | None) -> None:
        """Let a change that deletes or adds the package see that this channel points at it."""
        keys = self.context.keys
        if package is not None:
            change.touch(keys.package(channel.app, package.version))
        elif channel.version is not None:
            change.touch(keys.app(channel.app))

    def _notes(self, channel: Channel, package: Package | None) -> tuple[str, ...]:
        if channel.version is None:
            return ()
        notes = []
        if package is None:
            notes.append(f"{channel.version} has no package yet; the update starts when `package create` adds it")
        keys = self.context.keys
        groups = self.context.children(Group, keys.groups(channel.app))
        releases = {channel.version: channel.version}  # key -> label
        releases |= {
            (one := group.release_of(channel.version)).key(group.id): one.label
            for group in groups
            if group.channel == channel.name
        }
        for key, label in sorted(releases.items()):
            block = self.context.get_or_none(Block, keys.block(channel.app, key))
            if block is not None:
                notes.append(f"{label} is blocked ({block.why}); the update starts after `release unblock`")
        return tuple(notes)


def absent_channel(app_id: str, name: str) -> str:
    """The message for a channel that does not exist."""
    return f"app {app_id} has no channel {name!r}; `channel list` shows them, `channel create` adds one"
