"""What a channel says of single versions: floors that must be passed on the way, and versions that it excludes."""

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
    """The floors and exclusions of all channels. Every method returns the channel as it is then."""

    context: StoreContext
    auditing: Auditing

    def set(self, app: str, channel: str, version: str, *, reason: str = "") -> Channel:
        """Make a version a floor of the channel, or change the reason.

        Raises:
            NotFound: there is no such app, channel or package.
            Conflict: the channel excludes that version, or has too many floors.
        """
        floor = Floor(version=version, reason=checked_text("reason", reason))

        def edit(change: Change, old: Channel) -> Channel:
            key = self.context.keys.package(old.app, version)
            change.require(Package, key, absent_package(old.app, version))
            # Who deletes the package must see that it is used from now on.
            change.touch(key)
            if version in old.excluded:
                raise Conflict(f"channel {channel!r} excludes {version}, so it can't be a floor")
            others = [one for one in old.floors if one.version != version]
            if len(others) >= MAX_FLOORS:
                raise Conflict(f"channel {channel!r} has {MAX_FLOORS} floors already; take some away")
            floors = sorted((*others, floor), key=lambda one: (versions.parse(one.version), one.version))
            return msgspec.structs.replace(old, floors=tuple(floors))

        return self._edit(app, channel, edit)

    def remove(self, app: str, channel: str, version: str) -> Channel:
        """Make a version an ordinary one again.

        Raises:
            NotFound: there is no such app or channel, or it isn't a floor.
        """

        def edit(change: Change, old: Channel) -> Channel:
            floors = tuple(one for one in old.floors if one.version != version)
            if floors == old.floors:
                raise NotFound(f"channel {channel!r} has no floor {version!r}")
            return msgspec.structs.replace(old, floors=floors)

        return self._edit(app, channel, edit)

    def exclude(self, app: str, channel: str, version: str) -> Channel:
        """Keep the channel from ever being pointed at a version.

        Raises:
            ConfigError: it isn't a version.
            NotFound: there is no such app or channel.
            Conflict: the channel points at it, or it is a floor, or too many are excluded.
        """
        versions.parse(version)

        def edit(change: Change, old: Channel) -> Channel:
            if old.version == version:
                raise Conflict(f"channel {channel!r} points at {version}; move it first")
            if any(floor.version == version for floor in old.floors):
                raise Conflict(f"{version} is a floor of channel {channel!r}; take that back first")
            if version in old.excluded:
                return old
            if len(old.excluded) >= MAX_EXCLUDED:
                raise Conflict(f"channel {channel!r} excludes {MAX_EXCLUDED} versions already; take some back")
            return msgspec.structs.replace(old, excluded=tuple(sorted((*old.excluded, version), key=versions.parse)))

        return self._edit(app, channel, edit)

    def include(self, app: str, channel: str, version: str) -> Channel:
        """Take an exclusion back.

        Raises:
            NotFound: there is no such app or channel, or it doesn't exclude that version.
        """

        def edit(change: Change, old: Channel) -> Channel:
            if version not in old.excluded:
                raise NotFound(f"channel {channel!r} doesn't exclude {version!r}")
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
