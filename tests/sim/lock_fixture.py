"""Pretended sidekicks that fight for turns, one call to etcd at a time, in an order that a seed decides.

Every sidekick is a thread, but only one runs at any moment: it gives the baton back before and after each of its calls
to etcd. So every interleaving of calls can come up, the real lock runs, and a seed gives the same run again.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from outrider.core.errors import Conflict, Refused, Unknown
from outrider.core.rollout.budgets import Budget
from outrider.core.sidekick.memory import Turn
from outrider.etcd.seam import Compare, KeyChanged, ModifiedAt, Op, Put, TxnResult, WatchEvent
from outrider.model.documents import Contender, Target, decode, encode
from outrider.turns.claim import Denied, News, TurnGranted
from outrider.turns.lock import TurnLock, fence
from outrider.turns.turns import free_turn, read_scope
from outrider.turns.wait import Wait
from tests.sim.fake_etcd import FakeCluster, FakeEtcd, Moment
from tests.sim.lock_history import APP, GROUP, KEYS, SCOPE, TARGET, TRAFFIC

T = TypeVar("T")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WRITES = {"txn", "grant", "revoke"}


class Killed(BaseException):
    """SIGKILL: no code of the process runs on."""


@dataclass(slots=True)
class Journal:
    """What survives a crash of one sidekick."""

    update: str | None = None
    turn: Turn | None = None
    done: int = 0


@dataclass(slots=True)
class Trouble:
    """How likely each kind is, per call or step."""

    no_call: float = 0.0
    lost_answer: float = 0.0
    late: float = 0.0
    kill: float = 0.0
    lapse: float = 0.0
    pause: float = 0.0
    withdraw: float = 0.0
    operator: float = 0.0
    resize: float = 0.0


@dataclass(slots=True)
class Sidekick:
    """One instance over all its lives."""

    name: str
    journal: Journal = field(default_factory=Journal)
    life: "Life | None" = None
    asleep_until: int = 0


class LateCluster(FakeCluster):
    """A client whose transactions may be given up first and carried out later, by nobody's leave."""

    late: "Callable[[tuple[Compare, ...], tuple[Op, ...]], bool] | None" = None

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        if self.late is not None and self.late(compares, ops):
            raise Unknown("given up, but still on its way")
        return super().txn(compares, ops)


class Life:
    """One process of a sidekick, from start to kill."""

    def __init__(self, fixture: "LockFixture", sidekick: Sidekick) -> None:
        self.fixture, self.sidekick, self.journal = fixture, sidekick, sidekick.journal
        self.client = LateCluster(fixture.store, sidekick.name, 3.0)
        self.client.trouble, self.client.late = self._at_call, self._is_late
        self.lease, self.lapsed, self.killed = 0, False, False
        self.wait: Wait | None = None
        self.news: list[News] = []
        self.failure: BaseException | None = None
        self._baton = threading.Semaphore(0)
        self._idle: Callable[[], bool] = lambda: False
        self.lock = TurnLock(
            self.client,
            KEYS,
            Contender(app=APP, group=GROUP, instance=sidekick.name, labels=fixture.labels_of(sidekick.name)),
            clock=lambda: NOON,
            start=self._start_wait,
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _start_wait(self, wait: Wait) -> None:
        self.wait = wait

    # --- the baton ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let this process run until its next call to etcd (before or after it), or until it is idle."""
        self._baton.release()
        self.fixture.baton.acquire()

    @property
    def may_step(self) -> bool:
        return not self._idle()

    def _yield(self) -> None:
        self.fixture.baton.release()
        self._baton.acquire()
        if self.killed:
            raise Killed

    def _wait_until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            self._idle = lambda: not fact() and not self.killed
            self._yield()
        self._idle = lambda: False

    def _at_call(self, name: str, moment: Moment) -> None:
        if threading.current_thread() is not self.thread:
            return
        self._yield()
        rng, trouble = self.fixture.rng, self.fixture.trouble
        if moment == "before" and rng.random() < trouble.no_call:
            raise Unknown("the call got lost")
        if moment == "after" and name in WRITES and rng.random() < trouble.lost_answer:
            raise Unknown("the answer got lost")

    def _is_late(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> bool:
        if self.fixture.rng.random() >= self.fixture.trouble.late:
            return False
        self.fixture.late.append((compares, ops))
        return True

    def kill(self) -> None:
        self.killed = True
        self.step()
        self.thread.join()
        self.client.trouble = self.client.late = None
        self.client.close()

    # --- what a sidekick does ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._baton.acquire()
        try:
            if not self.killed:
                self._live()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.failure = error
        self._idle = lambda: True
        self.fixture.baton.release()

    def _live(self) -> None:
        self._renew_lease()
        if self.journal.update is not None:
            turn = self._insist(lambda: self.lock.find(self.journal.update or ""))
            if turn is not None:
                self._hold(turn, fresh=False)
        while not self.fixture.is_over(self.sidekick):
            if self.journal.update is None:
                self.fixture.updates += 1
                self.journal.update = f"{self.sidekick.name}-{self.fixture.updates}"
            turn = self._queue()
            if turn is not None:
                self._hold(turn, fresh=True)

    def _insist(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except Unknown:
                self._yield()

    def _renew_lease(self) -> None:
        self.lease, self.lapsed = self._insist(lambda: self.client.grant(30)), False

    def _queue(self) -> Turn | None:
        """Acquire, and wait; None when it came to nothing."""
        if self.lapsed:
            self._renew_lease()
        stored = self._insist(lambda: self.client.get(TARGET))
        assert stored is not None
        update = self.journal.update
        assert update is not None
        self.news.clear()
        self.lock.acquire(
            lease=self.lease,
            update=update,
            release="2.0.0",
            slots=decode(Target, TARGET, stored.value).slots,
            conditions=(ModifiedAt(key=TARGET, revision=stored.mod_revision),),
            deliver=self.news.append,
        )
        wait = self.wait
        assert wait is not None
        while not wait.ended:
            self._wait_until(lambda: wait.due or self.lapsed)
            if self.lapsed or self.fixture.rng.random() < self.fixture.trouble.withdraw:
                if not self.lapsed and self.fixture.rng.random() < 0.3:
                    return None  # the next acquire replaces this one in its place
                crossed = self._insist(self.lock.withdraw)
                assert crossed is None, "a wait that hasn't ended has no turn"
                if self.fixture.rng.random() < 0.5:
                    self.journal.update = None
                return None
            wait.round()
        wait.close_watches()
        last = self.news[-1]
        assert sum(isinstance(each, TurnGranted | Denied) for each in self.news) == 1
        if isinstance(last, TurnGranted):
            return last.turn
        assert isinstance(last, Denied)
        assert last.why in {"target-changed", "lapsed"}, last
        return None

    def _hold(self, turn: Turn, *, fresh: bool) -> None:
        """Write to the shared traffic under the turn, again and again, then give it back."""
        self.journal.turn = turn
        self.fixture.begin(self.sidekick.name)
        if not fresh:
            reclaimed = self._reclaim(turn)
            if reclaimed is None:
                return
            turn = reclaimed
        for _ in range(self.fixture.rng.randrange(12)):
            self._write(turn)
            self._yield()
            if self.lapsed:  # noticed late, as after SIGSTOP: what was written meanwhile was refused
                reclaimed = self._reclaim(turn)
                if reclaimed is None:
                    return
                turn = reclaimed
        self.fixture.in_turn.discard(self.sidekick.name)  # it serves again
        try:
            final = turn
            self._insist(lambda: self.lock.release(final))
        except Refused:
            again = self._insist(lambda: self.lock.find(final.update))
            if again is not None:
                self._hold(again, fresh=False)
                return
        self._end()

    def _reclaim(self, turn: Turn) -> Turn | None:
        if self.lapsed:
            self._renew_lease()
        while True:
            try:
                self.journal.turn = self.lock.reclaim(turn, lease=self.lease)
                break
            except Refused:
                self._end(done=False)  # an operator released it
                return None
            except Unknown:
                if self.lease not in self.fixture.store.leases:
                    self._renew_lease()
                self._yield()
        return self.journal.turn

    def _write(self, turn: Turn) -> None:
        value = f"{self.sidekick.name} {turn.update}".encode()
        compares = fence(KEYS, self.sidekick.name, turn)
        try:
            self.client.txn(compares, (Put(key=TRAFFIC + self.sidekick.name, value=value),))
        except Unknown:
            return

    def _end(self, *, done: bool = True) -> None:
        self.fixture.in_turn.discard(self.sidekick.name)
        self.journal.update = self.journal.turn = None
        self.journal.done += done


class LockFixture:
    """Runs the sidekicks against one store, first with trouble, then without."""

    def __init__(self, seed: int, *, instances: int, slots: int, trouble: Trouble, racks: int = 0) -> None:
        """``racks``: over which the instances are spread; of each one may be out; 0: there is no budget."""
        self.rng, self.trouble, self.racks = Random(seed), trouble, racks
        self.store = FakeEtcd(threaded=False)
        self.baton = threading.Semaphore(0)
        self.updates, self.steps = 0, 0
        self.goals: dict[str, int] | None = None
        self.history: list[KeyChanged] = []
        self.slots = slots
        self.in_turn: set[str] = set()
        self.operated = trouble.operator > 0  # an operator may free a turn before its owner has heard of it
        self.late: list[tuple[tuple[Compare, ...], tuple[Op, ...]]] = []
        self.dying: list[int] = []
        self.operator = self.store.client("operator")
        self.sidekicks = [Sidekick(name=f"i{number}") for number in range(instances)]
        self._resize(slots)
        self.operator.watch(KEYS.prefix, 1, self._record)

    def labels_of(self, name: str) -> dict[str, str]:
        return {"rack": str(int(name.removeprefix("i")) % self.racks)} if self.racks else {}

    def _record(self, event: WatchEvent) -> None:
        assert isinstance(event, KeyChanged)
        self.history.append(event)

    def begin(self, name: str) -> None:
        """An instance acts on its turn: from now on it may be out, whatever etcd says, until it serves again."""
        self.in_turn.add(name)
        assert self.operated or len(self.in_turn) <= self.slots, f"out at the same time: {sorted(self.in_turn)}"

    def is_over(self, sidekick: Sidekick) -> bool:
        return self.goals is not None and sidekick.journal.done >= self.goals[sidekick.name]

    def run(self, troubled_steps: int, *, limit: int = 40_000) -> None:
        """Trouble for so many steps, then calm until everybody had two more turns."""
        try:
            for _ in range(troubled_steps):
                self._step()
            self.trouble = Trouble()
            self.goals = {each.name: each.journal.done + 2 for each in self.sidekicks}
            for _ in range(limit):
                if all(self.is_over(each) and each.life is not None and not each.life.thread.is_alive()
                       for each in self.sidekicks):  # fmt: skip
                    break
                self._step()
            else:
                state = {each.name: each.journal for each in self.sidekicks}
                raise AssertionError(f"not everybody got a turn: {state}, {sorted(self.store.entries)}")
        finally:
            for sidekick in self.sidekicks:
                if sidekick.life is not None and sidekick.life.thread.is_alive():
                    sidekick.life.kill()
            self.store.settle()

    def _step(self) -> None:
        self.steps += 1
        rng, trouble = self.rng, self.trouble
        if rng.random() < trouble.operator:
            self._release_something()
        if rng.random() < trouble.resize:
            self._resize(rng.randrange(1, self.slots + 1))
        if self.late and (rng.random() < 0.1 or self.goals is not None):
            with suppress(Refused):
                self.operator.txn(*self.late.pop(rng.randrange(len(self.late))))
        if self.dying and (rng.random() < 0.02 or self.goals is not None):
            self.store.end_lease(self.dying.pop())
        if rng.random() < 0.5 and self.store.deliver_next(rng.choice):
            return
        sidekick = rng.choice(self.sidekicks)
        if sidekick.asleep_until > self.steps and self.goals is None:
            return
        life = sidekick.life
        if life is None:
            sidekick.life = Life(self, sidekick)
            return
        if rng.random() < trouble.kill:
            life.kill()
            if rng.random() < 0.5:
                self.store.end_lease(life.lease)
            else:  # restarted within the TTL
                self.dying.append(life.lease)
            sidekick.life = None
        elif rng.random() < trouble.lapse and life.lease:
            self.store.end_lease(life.lease)
            sidekick.asleep_until = self.steps + rng.randrange(60)
            life.lapsed = rng.random() < 0.5  # else it acts for a while without knowing
        elif rng.random() < trouble.pause:
            sidekick.asleep_until = self.steps + rng.randrange(200)
        elif life.may_step:
            if life.lease and life.lease not in self.store.leases and (rng.random() < 0.2 or self.goals is not None):
                life.lapsed = True
            life.step()
            if life.failure is not None:
                raise life.failure
        elif life.lease and life.lease not in self.store.leases:
            life.lapsed = True

    def _release_something(self) -> None:
        seen = read_scope(self.operator, KEYS, SCOPE)
        if seen.slots:
            number = self.rng.choice(list(seen.slots))
            try:
                free_turn(self.operator, KEYS, SCOPE, seen, number, who="operator", at=NOON)
            except Conflict as error:
                raise AssertionError("nobody runs between the read and the release") from error

    def _resize(self, slots: int) -> None:
        budgets = (Budget(label="rack", max_out=1),) if self.racks else ()
        target = Target(version="2.0.0", slots=slots, budgets=budgets)
        self.operator.txn((), (Put(key=TARGET, value=encode(target)),))
