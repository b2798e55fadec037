"""Floors and exclusions of a channel: versions that every update passes, and versions that it never points at."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from outrider.core import versions
from outrider.core.errors import Conflict, NotFound
from outrider.model.documents import App, Channel, Floor, Package
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.channels import absent_channel
from outrider.service.store.context import StoreContext, absent_app, app_id_of, checked_text
from outrider.service.store.packages import absent_package

MAX_FLOORS = 50
MAX_EXCLUDED = 200

Edit = Callable[[Change, Channel], Channel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The floors and exclusions of all channels. Every method returns the changed channel."""

    context: StoreContext
    auditing: Auditing

    def set(self, app: str, channel: str, version: str, *, reason: str = "") -> Channel:
        """Make a version a floor of the channel, or change its reason.

        Raises:
            NotFound: there is no such app, channel or package.
            Conflict: the channel excludes that version, or has too many floors.
        """
        floor = Floor(version=version, reason=checked_text("reason", reason))

        def edit(change: Change, old: Channel) -> Channel:
            key = self.context.keys.package(old.app, version)
            change.require(Package, key, absent_package(old.app, version))
            # A change that deletes the package must see that a channel uses it now.
            change.touch(key)
            if version in old.excluded:
                raise Conflict(f"channel {channel!r} excludes {version}; include it before you make it a floor")
            others = [one for one in old.floors if one.version != version]
            if len(others) >= MAX_FLOORS:
                raise Conflict(f"channel {channel!r} has {MAX_FLOORS} floors already; remove some first")
            floors = sorted((*others, floor), key=lambda one: (versions.parse(one.version), one.version))
            return msgspec.structs.replace(old, floors=tuple(floors))

        return self._edit(app, channel, edit)

    def remove(self, app: str, channel: str, version: str) -> Channel:
        """Remove a floor from the channel.

        Raises:
            NotFound: there is no such app or channel, or the version is not a floor.
        """

        def edit(change: Change, old: Channel) -> Channel:
            floors = tuple(one for one in old.floors if one.version != version)
            if floors == old.floors:
                raise NotFound(f"channel {channel!r} has no floor {version!r}")
            return msgspec.structs.replace(old, floors=floors)

        return self._edit(app, channel, edit)

    def exclude(self, app: str, channel: str, version: str) -> Channel:
        """Exclude a version: the channel cannot point at it.

        Raises:
            ConfigError: it is not a version.
            NotFound: there is no such app or channel.
            Conflict: the channel points at it, or it is a floor, or too many are excluded.
        """
        versions.parse(version)

        def edit(change: Change, old: Channel) -> Channel:
            if old.version == version:
                raise Conflict(f"channel {channel!r} points at {version}; move the channel first")
            if any(floor.version == version for floor in old.floors):
                raise Conflict(f"{version} is a floor of channel {channel!r}; remove the floor first")
            if version in old.excluded:
                return old
            if len(old.excluded) >= MAX_EXCLUDED:
                raise Conflict(f"channel {channel!r} excludes {MAX_EXCLUDED} versions already; include some first")
            return msgspec.structs.replace(old, excluded=tuple(sorted((*old.excluded, version), key=versions.parse)))

        return self._edit(app, channel, edit)

    def include(self, app: str, channel: str, version: str) -> Channel:
        """Remove an exclusion.

        Raises:
            NotFound: there is no such app or channel, or the channel does not exclude that version.
        """

        def edit(change: Change, old: Channel) -> Channel:
            if version not in old.excluded:
                raise NotFound(f"channel {channel!r} does not exclude {version!r}")
            return msgspec.structs.replace(old, excluded=tuple(one for one in old.excluded if one != version))

        return self._edit(app, channel, edit)

    def _edit(self, app: str, channel: str, edit: Edit) -> Channel:
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Channel:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.channel(app_id, channel)
            new = edit(change, change.require(Channel, key, absent_channel(app_id, channel)))
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)
