"""The balancer's worker: the server's ``Entry``, and the wait for the last requests."""

import threading
from collections import deque
from collections.abc import Callable
from typing import assert_never

from outrider.balancers import Entry
from outrider.balancers.drain import Drain, Drained, Expired, Interrupted, Unmoved
from outrider.core.errors import Refused
from outrider.core.sidekick.effects import (
    BalancerEffect,
    DrainBalancer,
    JoinBalancer,
    LeaveBalancer,
    RestoreBalancer,
    ReturnBalancer,
    SwitchBalancer,
    UndrainBalancer,
)
from outrider.core.sidekick.events import (
    BalancerDrained,
    BalancerJoined,
    BalancerLeft,
    BalancerRestored,
    BalancerSwitched,
    BalancerUnmoved,
)
from outrider.core.sidekick.memory import Turn
from outrider.etcd.seam import Compare
from outrider.model.keys import Keys
from outrider.sidekick.workers.worker import Post, now
from outrider.turns.lock import fence


class BalancerWork:
    """Performs ``balancer.*``.

    Args:
        member: The instance's name in its scope, as ``Contender.member`` has it.
        permit: Called with the workload before it comes in without a turn; raises when it may not run.
    """

    def __init__(
        self,
        entry: Entry,
        drain: Drain,
        keys: Keys,
        *,
        member: str,
        inflight_path: str,
        post: Post,
        permit: Callable[[str], None] = lambda workload: None,
    ) -> None:
        self._permit = permit
        self._entry, self._drain, self._keys = entry, drain, keys
        self._member, self._inflight_path, self._post = member, inflight_path, post
        self._waits: deque[threading.Event] = deque()

    def interrupt(self, effect: BalancerEffect) -> None:
        """Whatever comes next, the waits for the last requests before it are pointless then."""
        for stop in tuple(self._waits):
            stop.set()
        if isinstance(effect, DrainBalancer | UndrainBalancer):
            self._waits.append(threading.Event())

    def perform(self, effect: BalancerEffect, request: int | None) -> None:
        match effect:
            case SwitchBalancer():
                self._entry.ensure_static()
                written = self._entry.switch(
                    effect.url, fence=self._fence(effect.turn), workload=effect.workload
                )  # fmt: skip
                self._post(BalancerSwitched(at=now(), request=request, url=effect.url, revision=written))
            case RestoreBalancer():
                written = self._entry.restore(
                    effect.url, fence=self._fence(effect.turn), workload=effect.workload
                )  # fmt: skip
                self._post(BalancerRestored(at=now(), request=request, url=effect.url, revision=written))
            case LeaveBalancer():
                written = self._entry.leave(fence=self._fence(effect.turn))
                self._post(BalancerLeft(at=now(), request=request, revision=written))
            case JoinBalancer():
                self._entry.ensure_static()
                written = self._entry.join(effect.url, replacing=effect.replacing, workload=effect.workload)
                self._post(BalancerJoined(at=now(), request=request, url=effect.url, revision=written))
            case ReturnBalancer():
                written = 0
                if effect.url is not None:
                    self._permit(effect.workload)
                    self._entry.ensure_static()
                    written = self._entry.join(effect.url, replacing=effect.replacing, workload=effect.workload)
                self._post(BalancerJoined(at=now(), request=request, url=effect.url, revision=written))
            case DrainBalancer() | UndrainBalancer():
                self._wait(effect, request)
            case _:
                assert_never(effect)

    def close(self) -> None:
        for stop in tuple(self._waits):
            stop.set()

    def _fence(self, turn: Turn | None) -> tuple[Compare, ...]:
        if turn is None:
            raise Refused("no turn, so no write to the balancer")
        return fence(self._keys, self._member, turn)

    def _wait(self, effect: DrainBalancer | UndrainBalancer, request: int | None) -> None:
        try:
            verdict = self._drain.wait(
                frozenset({effect.present} if effect.present else ()),
                frozenset({effect.absent} if effect.absent else ()),
                inflight_url=effect.absent + self._inflight_path if effect.absent and self._inflight_path else None,
                stop=self._waits[0],
                undoing=isinstance(effect, UndrainBalancer),
            )
        finally:
            self._waits.popleft()
        match verdict:
            case Drained():
                self._post(BalancerDrained(at=now(), request=request, how=verdict.how))
            case Expired():
                self._post(BalancerDrained(at=now(), request=request, how=f"deadline: {verdict.why}"))
            case Unmoved():
                self._post(BalancerUnmoved(at=now(), request=request, cause=verdict.why))
            case Interrupted():
                pass
            case _:
                assert_never(verdict)
