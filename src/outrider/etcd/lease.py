"""One lease kept alive, and an honest answer to "may I still rely on it?".

Theory. A holder can't know when etcd ends its lease: a restarted etcd starts the time anew, and who is cut off hears
nothing. What it does know is when it *sent* the last keep-alive that was answered: from then on the lease lives at
least its TTL. So it relies on the lease for a part of that time only (``trust``), by a clock that nobody sets, and
stops before etcd does.

Two threads, because a call may hang when it matters most: the *caller* talks to etcd, the *keeper* watches the clock
and tells. Both look at the clock before anything else: after the process itself stood still, the loss is told before a
keep-alive may be sent that would hide it.
"""

import random
import threading
from collections.abc import Callable

from loguru import logger

from outrider.clocks import seconds_since_boot
from outrider.core.errors import DriverError, Refused
from outrider.etcd.seam import Cluster
from outrider.failpoints import failpoint

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
_STOP_WAIT_S = 10.0  # longer than any call to etcd may take


class LeaseKeeper:
    """Keeps one lease for this process alive, and says when it can no longer be trusted.

    ``on_granted(lease)`` and ``on_lost(lease, why)`` are called in turn by the keeper's thread, each once per lease.
    After a loss the old lease is revoked as soon as etcd is reachable, then a new one is granted.
    """

    def __init__(
        self,
        cluster: Cluster,
        ttl_s: float,
        *,
        on_granted: Callable[[int], None],
        on_lost: Callable[[int, str], None],
        clock: Callable[[], float] = seconds_since_boot,
        trust: float = 0.6,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            cluster: Where the lease is kept.
            ttl_s: Seconds etcd keeps the lease without keep-alive.
            on_granted: Gets the id of a new lease.
            on_lost: Gets the id of the lost lease and the reason in words.
            clock: Seconds; must not be a clock that can be set.
            trust: Part of ``ttl_s`` for which an answered keep-alive is relied on, counted from its sending.
        """
        if ttl_s <= 0 or not 0 < trust < 1:
            raise ValueError(f"a lease needs a time to live above 0 s and a trust between 0 and 1: {ttl_s}, {trust}")
        self._cluster, self._ttl_s, self._trust, self._clock = cluster, ttl_s, trust, clock
        self._on_granted, self._on_lost = on_granted, on_lost
        self._changed = threading.Condition()
        self._lease: int | None = None
        self._trusted_until = 0.0
        self._renew_at = 0.0
        self._gone: str | None = None
        self._fresh: int | None = None
        self._old: int | None = None
        self._retry_s = FIRST_RETRY_S
        self._told = True  # what happened to the last lease was told; until then no new one is asked for
        self._closing = False
        self._keeper = threading.Thread(target=self._keep, name="outrider-lease", daemon=True)
        self._caller = threading.Thread(target=self._call, name="outrider-lease-calls", daemon=True)

    @property
    def lease(self) -> int | None:
        """The lease's id while it can be trusted, else None."""
        with self._changed:
            return self._lease if self._trusted() and not self._closing else None

    def start(self) -> None:
        """Begin to ask for a lease; returns at once."""
        self._keeper.start()
        self._caller.start()

    def forsake(self, why: str) -> None:
        """Give the lease up: what hangs on it may not be there any more, though the lease is. A new one follows."""
        with self._changed:
            if self._lease is not None and not self._gone:
                self._gone = why
                self._changed.notify_all()

    def close(self, *, revoke: bool) -> None:
        """Stop; nothing is told any more. With ``revoke`` the lease and its keys end now, if etcd is reachable.

        Without it they end with the lease's time, or go on when another process keeps the lease alive.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in (self._keeper, self._caller):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(_STOP_WAIT_S)
        with self._changed:
            left = [lease for lease in (self._old, self._fresh, self._lease) if lease is not None]
            self._old = self._fresh = self._lease = None
        for lease in left if revoke else ():
            try:
                self._cluster.revoke(lease)
            except DriverError as error:
                logger.bind(lease=lease, error=str(error), retry=False).warning("lease left to end by itself")
                return

    def _trusted(self) -> bool:
        return self._lease is not None and not self._gone and self._clock() < self._trusted_until

    def _keep(self) -> None:
        """The keeper's thread: tell of losses and of new leases, by the clock."""
        try:
            while (news := self._next_news()) is not None:
                lease, why = news
                if why:
                    logger.bind(lease=lease, why=why).warning("lease lost")
                    self._on_lost(lease, why)
                    with self._changed:
                        self._told = True
                        self._changed.notify_all()
                else:
                    logger.bind(lease=lease, ttl_s=self._ttl_s).info("lease granted")
                    self._on_granted(lease)
        finally:  # whoever can't be told of a loss must not hold a lease
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _next_news(self) -> tuple[int, str] | None:
        """The lost lease with the reason, or a new lease with none; None when it is time to stop."""
        with self._changed:
            while not self._closing:
                if self._lease is not None and not self._trusted():
                    why = self._gone or f"no keep-alive was answered for {self._trust * self._ttl_s:g} s"
                    lost, self._old = self._lease, self._lease
                    self._lease = self._gone = None
                    self._told = False
                    return lost, why
                if self._fresh is not None:
                    fresh, self._fresh = self._fresh, None
                    self._lease = fresh
                    self._changed.notify_all()
                    if self._trusted():
                        return fresh, ""
                    self._old, self._lease = fresh, None  # granted, but the answer came too late to rely on it
                self._changed.wait(self._trusted_until - self._clock() if self._lease is not None else None)
            return None

    def _call(self) -> None:
        """The caller's thread: everything that may hang."""
        while True:
            with self._changed:
                while not self._closing and not self._due():
                    self._changed.wait(self._renew_at - self._clock() if self._trusted() else None)
                if self._closing:
                    return
                lease, old = self._lease, self._old
            try:
                if lease is not None:
                    self._renew(lease)
                elif old is not None:
                    self._revoke(old)
                else:
                    self._grant()
            except DriverError as error:
                self._retry_later(error)
            else:
                self._retry_s = FIRST_RETRY_S

    def _due(self) -> bool:
        """Whether the caller has something to do now."""
        if self._lease is not None:
            return self._trusted() and self._clock() >= self._renew_at
        return self._told and self._fresh is None

    def _renew(self, lease: int) -> None:
        sent = self._clock()
        with failpoint("lease.keep"):
            lives_s = self._cluster.keep_alive(lease)
        with self._changed:
            if self._lease != lease:
                return
            if lives_s <= 0:
                self._gone = "etcd has ended it"
            elif self._trusted():  # too late is too late, even when the answer says that the lease still lives
                self._rely(sent, min(lives_s, self._ttl_s))
            self._changed.notify_all()

    def _revoke(self, old: int) -> None:
        try:
            with failpoint("lease.revoke"):
                self._cluster.revoke(old)
        except Refused as error:  # an error of rights must not keep us from a new lease; the old one ends by itself
            logger.bind(lease=old, error=str(error), retry=False).warning("lease left to end by itself")
        with self._changed:
            self._old = None

    def _grant(self) -> None:
        sent = self._clock()
        with failpoint("lease.grant"):
            fresh = self._cluster.grant(self._ttl_s)
        with self._changed:
            self._fresh = fresh
            self._rely(sent, self._ttl_s)
            self._changed.notify_all()

    def _rely(self, sent: float, lives_s: float) -> None:
        self._trusted_until = sent + self._trust * lives_s
        self._renew_at = sent + lives_s / 5  # three attempts fit into the time that it is trusted

    def _retry_later(self, error: DriverError) -> None:
        log = logger.bind(error_kind=error.kind, error=str(error), retry=True)
        log.log("WARNING" if self._retry_s == FIRST_RETRY_S else "DEBUG", "lease call failed")
        limit_s = min(self._retry_s, self._ttl_s / 10) * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load)
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        with self._changed:
            self._changed.wait_for(lambda: self._closing, limit_s)
