"""Workers without threads, and what they ask: the balancer, the update service."""

import threading
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from outrider.balancers.drain import Drained, DrainVerdict, Interrupted, Unmoved
from outrider.core.errors import DriverError, OutriderError, Unknown
from outrider.core.images import DESCRIPTOR_NAME
from outrider.core.omaha import NoUpdate, Offer, OfferedPackage
from outrider.core.release import ReleaseId
from outrider.core.rollout.policy import Defer, Grant, Situation, decide
from outrider.core.sidekick.effects import DrainBalancer, Effect, UndrainBalancer
from outrider.service.rollouts.checkins import PROVES_SOON_S
from outrider.sidekick.workers.worker import Noun, failure
from tests.sim.host import Killed, sha_of

if TYPE_CHECKING:
    from tests.sim.life import Life

FORGED = "6.6.6"
"""The version of a payload that nobody released."""


class SimWorker:
    """A worker without a thread: what takes time makes the noun busy for so long."""

    def __init__(self, life: "Life", noun: Noun[Any]) -> None:
        self._life, self.noun = life, noun
        self._queue: deque[tuple[Effect, int | None]] = deque()
        self._busy = False
        self._done = life.at(0.0, lambda: None)
        self.current: Effect | None = None

    def submit(self, effect: Effect, request: int | None) -> None:
        self.noun.interrupt(effect)
        if isinstance(self.current, DrainBalancer | UndrainBalancer):
            self.cut()
        self._queue.append((effect, request))
        self._begin()

    @property
    def waiting(self) -> int:
        """How many effects wait to be performed."""
        return len(self._queue)

    def cut(self) -> None:
        """What is done now ends at once."""
        if self.current is not None:
            self._done.call_off()
            self._end()

    def outlive(self) -> None:
        """The process was killed: what was under way may be done all the same, by whoever it was handed to."""
        if not self._busy or self.current is not None or not self._queue:
            return
        random, life = self._life.fleet.random, self._life
        life.fleet.agenda.at(random.uniform(0.0, 0.05), partial(self._do_late, random.random()))

    def _do_late(self, chance: float) -> None:
        life = self._life
        life.runtime.dies_at_start = 0.5 < chance < 0.65
        life.client.late_next = 0.5 < chance < 0.8
        if chance < 0.8:
            self._perform()

    def _begin(self) -> None:
        if not self._busy and self._queue:
            self._busy = True
            self._life.at(self._life.fleet.random.uniform(0.001, 0.05), self._run)

    def _run(self) -> None:
        if not self._queue:
            self._busy = False
            return
        self.current = self._queue[0][0]
        self._life.client.spent_s = 0.0
        self._perform()
        self._done = self._life.at(self._life.client.spent_s + 0.0001, self._end)

    def _end(self) -> None:
        self.current, self._busy = None, False
        self._begin()

    def _perform(self) -> None:
        effect, request = self._queue.popleft()
        try:
            self.noun.perform(effect, request)
        except OutriderError as error:
            event = failure(effect.name, error, request) if request is not None else None
            if event is not None:
                self._life.post(event)
        except Killed:
            pass


class SimDrain:
    """What ``BalancerWork`` needs of ``Drain``."""

    def __init__(self, life: "Life") -> None:
        self._life = life

    def wait(
        self,
        present: frozenset[str],
        absent: frozenset[str],
        *,
        inflight_url: str | None,
        stop: threading.Event,
        undoing: bool = False,
    ) -> DrainVerdict:
        fleet = self._life.fleet
        if stop.is_set():
            return Interrupted()
        if fleet.faults.unmoved and fleet.random.random() < fleet.faults.unmoved:
            self._life.spend(5.0)
            return Unmoved(why="the balancer does not follow")
        self._life.spend(fleet.random.uniform(0.05, 1.0))
        return Drained(how="asked")


class SimUpstream:
    """The update service as one sidekick reaches it; the policy is the real one."""

    def __init__(self, life: "Life") -> None:
        self._life = life

    def check(
        self, *, version: str, previous_version: str, update: str, release: ReleaseId | None = None
    ) -> Offer | NoUpdate:
        fleet, client = self._life.fleet, self._life.client
        secret = self._life.proof()
        fleet.asked += 1
        if fleet.faults.service_down or client.cut:
            self._life.spend(fleet.random.uniform(0.1, 5.0))
            raise DriverError("the update service doesn't answer")
        if fleet.faults.lost_answers and fleet.random.random() < fleet.faults.lost_answers:
            raise Unknown("the update service's answer got lost")
        if not fleet.is_proved(self._life.member.name, secret):
            fleet.unproved += 1
            return NoUpdate(reason="unproved check-in", poll_interval_s=PROVES_SOON_S)
        goal, runs = fleet.release, release or ReleaseId(version=version)
        why = "bad" if goal.label in fleet.blocked else None
        verdict = decide(
            Situation(
                running=version,
                runs=runs.label,
                wanted=goal.version,
                labels={goal.version: goal.label},
                paused=fleet.paused,
                blocked=why,
                go_back=fleet.goes_back,
            )
        )
        if fleet.braked or isinstance(verdict, Defer):
            return NoUpdate(reason="the rollout is paused" if isinstance(verdict, Grant) else verdict.reason)
        fleet.grant(self._life.member.name, verdict.version)
        name = DESCRIPTOR_NAME if goal.version in fleet.images else "p"
        sha256 = sha_of(goal.version)
        if fleet.faults.forged_answers and fleet.random.random() < fleet.faults.forged_answers:
            # somebody on the way changes the answer: other bytes, or another version
            goal, sha256 = fleet.random.choice(
                ((goal, sha_of(FORGED)), (replace(goal, version=FORGED), sha_of(FORGED)))
            )
        package = OfferedPackage(name=name, size_bytes=1, sha256=sha256)
        return Offer(version=goal.version, codebases=("http://x/",), packages=(package,), release=goal)
