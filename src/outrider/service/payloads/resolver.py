"""Asks the registries again about images that have no digest yet, until they have one.

Any number of service processes may: what another one has resolved is found resolved.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from outrider.core.errors import Conflict, NotFound, OutriderError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Watch, WatchEvent
from outrider.model.documents import Package, Unresolved
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.images import image_payload
from outrider.service.payloads.registry import Registries
from outrider.service.store.request import Principal, RequestContext
from outrider.service.store.store import Store, Stores

RETRY_MIN_S, RETRY_MAX_S = 10.0, 600.0
LOOK_S = 60.0
"""Seconds between two looks when no watch reports a change."""
SERVICE = Principal(name="(update service)", role="operator")


def on_own_behalf(stores: Stores, did: str) -> Store:
    """The store for a change that the service makes by itself, and that the audit log has."""
    return stores.on_behalf_of(RequestContext(principal=SERVICE, did=did, request_id=uuid.uuid4().hex))


def resolve(
    store: Store, payloads: PayloadFolder, registries: Registries, package: Package, digest: str = ""
) -> Package:
    """Give the image of a package its digest, as the registry says it, or the caller.

    Returns:
        The package; unresolved still when the registry doesn't say it, which is noted.

    Raises:
        Conflict: it has another digest, or is no image.
        ConfigError: ``digest`` is none.
    """
    payload = image_payload(payloads, package.image, registries, digest)
    if payload.digest:
        return store.packages.resolve(package.app, package.version, payload)
    store.packages.note_unresolved(package, payload.unresolved)
    return package


class Resolver:
    """Works from ``start`` until ``close``, on one thread."""

    def __init__(
        self, stores: Stores, payloads: PayloadFolder, registries: Registries, *, retry_min_s: float = RETRY_MIN_S
    ) -> None:
        """``retry_min_s``: seconds before the second try; the interval doubles up to ten minutes."""
        self._stores, self._payloads, self._registries = stores, payloads, registries
        self._retry_min_s = retry_min_s
        self._due: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._woken, self._closed, self._restored = threading.Event(), threading.Event(), threading.Event()
        self._epoch = EpochWatch(stores.context.cluster, stores.context.keys, self._look_again)
        self._thread = threading.Thread(target=self._run, name="outrider-image-resolver", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()
        self._epoch.start()

    def close(self) -> None:
        """Stop after the question under way."""
        self._epoch.close()
        self._closed.set()
        self._woken.set()
        self._thread.join(20.0)

    def _run(self) -> None:
        watch: Watch | None = None
        context = self._stores.context
        while not self._closed.is_set():
            self._woken.clear()
            wait_s = LOOK_S
            try:
                if watch is not None and self._restored.is_set():
                    self._restored.clear()
                    watch.look_again()
                if watch is None:
                    prefix = context.keys.all_unresolved()
                    watch = context.cluster.watch(prefix, context.cluster.list(prefix).revision + 1, self._wake)
                wait_s = self._round()
            except OutriderError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("images wait for etcd")
                wait_s = self._retry_min_s
            self._woken.wait(wait_s)
        if watch is not None:
            watch.close()

    def _look_again(self, why: str) -> None:
        """etcd was restored: what has no digest there is looked at at once."""
        self._restored.set()
        self._woken.set()

    def _wake(self, event: WatchEvent) -> None:
        self._woken.set()

    def _round(self) -> float:
        """Ask about what is due; returns the seconds until the next one is."""
        store = on_own_behalf(self._stores, "resolve an image")
        listed = store.packages.all_unresolved()
        known = {(one.app, one.version) for one in listed}
        for gone in set(self._due) - known:
            self._due.pop(gone)
            self._failures.pop(gone, None)
        for one in listed:
            key = (one.app, one.version)
            # one that came a moment ago was asked about by the command that made it
            if self._due.setdefault(key, time.monotonic() + self._retry_min_s) <= time.monotonic():
                self._try(store, one)
            if self._closed.is_set():
                break
        soonest = min(self._due.values(), default=time.monotonic() + LOOK_S)
        return max(0.05, min(LOOK_S, soonest - time.monotonic()))

    def _try(self, store: Store, one: Unresolved) -> None:
        key = (one.app, one.version)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._due[key] = time.monotonic() + min(RETRY_MAX_S, self._retry_min_s * 2.0 ** min(failures, 20))
        try:
            package = resolve(store, self._payloads, self._registries, store.packages.get(one.app, one.version))
        except (NotFound, Conflict) as error:  # deleted, or resolved by another process meanwhile
            logger.bind(app=one.app, version=one.version, cause=str(error)).debug("image not resolved")
            return
        if not package.is_unresolved:
            logger.bind(app=one.app, version=one.version, image=package.image, digest=package.digest).info(
                "image resolved"
            )


@contextmanager
def image_resolver(stores: Stores, payloads: PayloadFolder, registries: Registries) -> Iterator[None]:
    """Run the resolver while the block runs."""
    resolver = Resolver(stores, payloads, registries)
    resolver.start()
    try:
        yield
    finally:
        resolver.close()
