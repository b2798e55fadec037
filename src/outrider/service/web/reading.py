"""The copy of etcd that an answer of the page is made from, and how old it is.

While the read model follows etcd, an answer costs no read of etcd. While etcd is away the last copy is shown, and the
page says so. Where there is no copy yet, etcd is asked itself.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from outrider.service.context import Context
from outrider.service.store.context import StoreContext
from outrider.service.store.copies import FrozenCopy

AT_LEAST_S = 1.0
"""How long an answer waits for the copy to reach what its visitor has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """etcd at one revision.

    Attributes:
        stale_s: Seconds since the copy was last known to be up to date; 0: it is.
    """

    context: StoreContext
    revision: int
    stale_s: float = 0.0


class Reading:
    """Gives copies, one for each revision. Safe to use from several threads."""

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self._lock = threading.Lock()
        self._kept: FrozenCopy | None = None
        self._confirmed_at = clock()

    @property
    def revision(self) -> int:
        """The read model's; 0: there is none yet."""
        model = self._context.read_model
        return 0 if model is None else model.revision

    def stale_s(self) -> float:
        """Seconds since the read model was last known to be up to date; 0: it is."""
        model = self._context.read_model
        if model is None or model.is_confirmed:
            self._confirmed_at = self._clock()
            return 0.0
        return self._clock() - self._confirmed_at

    def copy(self, *, at_least: int = 0) -> Copy:
        """A copy that has reached ``at_least``, if it can be had; else etcd itself.

        Raises:
            Unknown: there is no copy, and etcd gives no answer.
        """
        store, model = self._context.stores.context, self._context.read_model
        if model is None or model.revision == 0:
            return Copy(context=replace(store, seen=None), revision=0)
        until = self._clock() + AT_LEAST_S
        while model.revision < at_least and self._clock() < until and model.is_confirmed:
            time.sleep(0.01)
        if model.revision < at_least and model.is_confirmed:
            return Copy(context=replace(store, seen=None), revision=0)
        stale_s = self.stale_s()
        with self._lock:
            if self._kept is None or self._kept.revision != model.revision:
                self._kept = FrozenCopy(*model.copied())
            kept = self._kept
        return Copy(context=replace(store, cluster=kept, seen=None), revision=kept.revision, stale_s=stale_s)

    async def changed(self, revision: int, within_s: float) -> bool:
        """Wait until the copy is beyond ``revision``, ``within_s`` at most."""
        model = self._context.read_model
        return model is not None and await model.reached(revision + 1, within_s)
