"""Waiting for a turn: by watches only, one on what the claim waits for and one on its own place in the queue."""

import random
import threading
from collections.abc import Callable

from outrider.core.errors import Conflict, Refused, Unknown
from outrider.core.sidekick.memory import Turn
from outrider.etcd.seam import Cluster, KeyChanged, Resynced, Watch, WatchEvent
from outrider.failpoints import with_current_effect
from outrider.turns.claim import Claim, Denied, News, Pending, Queued, TurnGranted, fingerprint

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0  # as the watches' own back-off
JOIN_LIMIT_S = 20.0  # several calls of the cluster, each at its own time limit


class Wait:
    """Drives one claim until it is settled or stopped. ``run`` is the thread's; a simulation calls ``round`` itself.

    Args:
        deliver: Gets ``Queued`` whenever it changed, then exactly one ``TurnGranted`` or ``Denied``, unless stopped
            before.
        previous: A stopped wait that must have ended before this one begins.
    """

    def __init__(
        self, claim: Claim, cluster: Cluster, deliver: Callable[[News], None], previous: "Wait | None" = None
    ) -> None:
        self.claim = claim
        self._cluster, self._deliver, self._previous = cluster, deliver, previous
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._settled: TurnGranted | Denied | None = None
        self._told: Queued | None = None
        self._pause_s: float | None = 0.0
        self._failures = 0
        self._looked_at = 0
        self._latest = 0
        self._watched: tuple[str, bool] | None = None
        self._watches: dict[str, Watch] = {}

    def start(self) -> None:
        """Give it a thread."""
        self._thread = threading.Thread(
            target=with_current_effect(self.run), name=f"outrider-turn {self.claim.waiter_key}", daemon=True
        )
        self._thread.start()

    def run(self) -> None:
        """Look until settled or stopped."""
        if self._previous is not None:
            self._previous.join(None)
            self._previous = None
        try:
            while not self.ended:
                self.round()
                with self._changed:
                    self._changed.wait_for(lambda: self.ended or self._news_is_due, timeout=self._pause_s)
        finally:
            self.close_watches()

    @property
    def ended(self) -> bool:
        return self._stopped or self._settled is not None

    @property
    def due(self) -> bool:
        """Whether a round now would find something to do (or try again what failed)."""
        with self._changed:
            return not self.ended and (self._pause_s is not None or self._news_is_due)

    @property
    def _news_is_due(self) -> bool:
        return self._latest > self._looked_at

    def round(self) -> None:
        """Look once, and act on it."""
        try:
            looked = self._look()
        except Unknown:
            # Full jitter: an etcd that comes back isn't met by all waiters at once.
            longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
            self._pause_s = longest_s * (0.5 + random.random() / 2)  # noqa: S311 - no secret
            self._failures += 1
            return
        self._failures = 0
        if looked is None:
            self._pause_s = 0.0
        elif isinstance(looked, Pending):
            self._pause_s = None
        else:
            self._settle(looked)

    def _look(self) -> TurnGranted | Denied | Pending | None:
        try:
            looked = self.claim.look()
            if isinstance(looked, Pending):
                self._tell(looked.queued)
                self._watch(looked)
        except (Refused, Conflict) as error:
            return self.claim.refusal(error)
        return looked

    def _tell(self, queued: Queued) -> None:
        if queued != self._told and not self.ended:
            self._told = queued
            self._deliver(queued)

    def _watch(self, pending: Pending) -> None:
        with self._changed:
            self._looked_at = pending.revision
        if self._watched != (pending.key, pending.exact):
            self._watched = None
            if (old := self._watches.pop("ahead", None)) is not None:
                old.close()
            self._watches["ahead"] = self._cluster.watch(
                pending.key, pending.revision + 1, self._note, exact=pending.exact
            )
            self._watched = (pending.key, pending.exact)
            # etcd serves a watch that begins in the past from a 100 ms loop: what changed before it was registered is
            # found sooner by reading again (p90 of the hand-off: 90 -> 7 ms).
            if self._read(pending) != pending.seen:
                self._wake(pending.revision + 1)
        if pending.also and "also" not in self._watches:
            self._watches["also"] = self._cluster.watch(pending.also, pending.revision + 1, self._note)
        if not pending.also and (old := self._watches.pop("also", None)) is not None:
            old.close()
        if "own" not in self._watches:
            self._watches["own"] = self._cluster.watch(
                self.claim.waiter_key, pending.revision + 1, self._note_own, exact=True
            )

    def _read(self, pending: Pending) -> tuple[tuple[str, int], ...]:
        if not pending.exact:
            return fingerprint(self._cluster.list(pending.key).entries)
        entry = self._cluster.get(pending.key)
        return fingerprint((entry,) if entry else ())

    def _note(self, event: WatchEvent) -> None:
        match event:
            case KeyChanged(revision=revision):
                self._wake(revision)
            case Resynced(listing=listing):
                self._wake(listing.revision)

    def _note_own(self, event: WatchEvent) -> None:
        """Our key is written by ourselves alone; only its removal is news."""
        if not (isinstance(event, KeyChanged) and event.entry is not None):
            self._note(event)

    def _wake(self, revision: int) -> None:
        with self._changed:
            self._latest = max(self._latest, revision)
            self._changed.notify_all()

    def _settle(self, news: TurnGranted | Denied) -> None:
        with self._changed:
            if self._stopped:
                return
            self._settled = news
        self._deliver(news)

    def stop(self) -> Turn | None:
        """Deliver nothing more, or return the turn when ``TurnGranted`` was delivered already (or is about to be)."""
        with self._changed:
            if isinstance(self._settled, TurnGranted):
                return self._settled.turn
            self._stopped = True
            self._changed.notify_all()
            return None

    def join(self, within_s: float | None = JOIN_LIMIT_S) -> None:
        """Return when no call of this wait is under way any more (at once on its own thread).

        Raises:
            Unknown: it hasn't ended in time.
        """
        if self._thread is None or self._thread is threading.current_thread():
            return
        self._thread.join(within_s)
        if self._thread.is_alive():
            raise Unknown(f"{self.claim.waiter_key}: the wait hasn't ended within {within_s} s; try again")

    def close_watches(self) -> None:
        """End the watches; they close themselves when ``run`` ends."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
