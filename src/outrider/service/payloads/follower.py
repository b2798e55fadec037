"""Follows tags at registries: the newest tag that a channel follows becomes a package, and if it may, its version.

Nothing is followed unless an operator says so. Any number of service processes may look: the second one finds what the
first one has made. Each change is in the audit log, as the service's own.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from outrider.core import versions
from outrider.core.errors import ConfigError, Conflict, NotFound, OutriderError
from outrider.core.follow import parse_follow
from outrider.model.documents import App, Block, Channel, Group
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.images import image_payload
from outrider.service.payloads.registry import Registries, RegistryError
from outrider.service.payloads.resolver import on_own_behalf
from outrider.service.store.store import Store, Stores

INTERVAL_S = 300.0
"""Seconds between two looks: Docker Hub counts each one."""


class Follower:
    """Works from ``start`` until ``close``, on one thread."""

    def __init__(
        self, stores: Stores, payloads: PayloadFolder, registries: Registries, *, interval_s: float = INTERVAL_S
    ) -> None:
        """``interval_s``: seconds between two looks at each registry."""
        self._stores, self._payloads, self._registries = stores, payloads, registries
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outrider-tag-follower", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the question under way."""
        self._closed.set()
        self._thread.join(20.0)

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s * random.uniform(0.8, 1.2)):  # noqa: S311 - parts the processes
            try:
                self.look()
            except OutriderError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("tags not followed")

    def look(self) -> None:
        """Look once at every registry that a channel follows."""
        context = self._stores.context
        for app in context.children(App, context.keys.apps()):
            for channel in context.children(Channel, context.keys.channels(app.id)):
                if channel.follow and not self._closed.is_set():
                    self._follow(channel)

    def _follow(self, channel: Channel) -> None:
        log = logger.bind(app=channel.app, channel=channel.name, follow=channel.follow)
        store = on_own_behalf(self._stores, f"follow {channel.follow}")
        try:
            followed = parse_follow(channel.follow)
            newest = followed.newest(self._registries.tags(followed.name))
            if newest is None:
                return
            version, tag = newest
            if channel.version is not None and not versions.is_newer(version, channel.version):
                return
            if _create(store, self._payloads, self._registries, channel, version, f"{followed.name}:{tag}"):
                log.bind(version=version, tag=tag).info("package made of a tag")
            if channel.follow_moves and (problem := self._standing(channel, version)):
                log.bind(version=version, why=problem).info("channel not moved to a tag")
            elif channel.follow_moves:
                store.channels.save(channel.app, channel.name, version=version, allow_missing=False)
                log.bind(version=version).info("channel moved to a tag")
        except (RegistryError, ConfigError, Conflict, NotFound) as error:
            log.bind(cause=str(error), retry=True).warning("tag not followed")

    def _standing(self, channel: Channel, version: str) -> str:
        """Why the channel doesn't move to ``version`` by itself; empty when it may."""
        context = self._stores.context
        if version in channel.excluded:
            return "the channel excludes it"
        if context.get_or_none(Block, context.keys.block(channel.app, version)) is not None:
            return "it is blocked"
        groups = context.children(Group, context.keys.groups(channel.app))
        undone = [group.id for group in groups if group.channel == channel.name and group.undo is not None]
        return f"an operator took groups back: {', '.join(undone)}" if undone else ""


def _create(
    store: Store, payloads: PayloadFolder, registries: Registries, channel: Channel, version: str, image: str
) -> bool:
    """Make the package of a tag unless there is one; returns whether it was made.

    Raises:
        RegistryError: the registry doesn't say which image it is.
    """
    try:
        store.packages.get(channel.app, version)
    except NotFound:
        payload = image_payload(payloads, image, registries)
        if not payload.digest:
            raise RegistryError(payload.unresolved) from None
        store.packages.create(channel.app, version, payload)
        return True
    return False


@contextmanager
def tag_follower(stores: Stores, payloads: PayloadFolder, registries: Registries) -> Iterator[None]:
    """Run the follower while the block runs."""
    follower = Follower(stores, payloads, registries)
    follower.start()
    try:
        yield
    finally:
        follower.close()
