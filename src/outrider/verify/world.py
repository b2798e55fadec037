"""One sidekick and everything it touches, as one small value; ``happenings.py`` says what can happen to it next.

The world is that of ``tests/sim/fleet.py`` without time: effects on one noun are performed in order, each at one
moment; what was under way when its sender was killed, or was given up without an answer, may still be carried out
later.
Every other sidekick is seen only through the lock: here a turn may be granted at any moment, and the release may be
marked bad by somebody else at any moment. What holds under such a lock holds under any.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from outrider.core import effects as do
from outrider.core.memory import Turn
from outrider.verify.steps import NEW, Steps, Taken, aged

Badness = Literal["none", "refused", "unhealthy", "dies"]

Task = tuple[int, int]
"""An effect under way: its number, and the request that its answer answers (0: nobody waits for it)."""

Late = tuple[int, bool]
"""A write that may arrive yet, and whether its sender still lives and knows that it is in doubt."""

QUEUE_LIMIT = 2
"""Effects of one noun that wait at once; beyond that nothing new happens to the sidekick before one was performed."""


class Local(NamedTuple):
    """A sidekick and its surroundings.

    Attributes:
        brain: Machine and memory, by number.
        works, writes, locks: Effects on workloads, balancer and lock that wait to be performed, in order.
        asks: Questions to prober, update service and outbox that are open. They change nothing.
        wish: The turn that is waited for.
        late: Writes whose sender has given up or died, and which may arrive yet.
        alive: Ids of the workloads that run.
        entry: The address that the balancer sends to.
        deserted: Addresses of workloads that ended by themselves.
        lease: ``held``, ``ended`` (and nobody told us yet) or ``none``.
        key: Our place in the queue: 0 none, 1 under our lease, 2 under one that we don't keep alive any more.
        slot: Our turn: 0 none, 1 for the update under way, 2 for one that is forgotten.
        poison: The new version is marked bad.
        words: What operators may say yet.
        touched: The bad version: 0 not started here, 1 started, 2 condemned from here.
    """

    brain: int
    works: tuple[Task, ...] = ()
    writes: tuple[Task, ...] = ()
    locks: tuple[Task, ...] = ()
    asks: tuple[Task, ...] = ()
    wish: Task | None = None
    late: tuple[Late, ...] = ()
    alive: tuple[str, ...] = ()
    entry: str | None = None
    deserted: tuple[str, ...] = ()
    lease: Literal["held", "ended", "none"] = "held"
    key: int = 0
    slot: int = 0
    poison: bool = False
    touched: int = 0
    words: int = 0


class Edge(NamedTuple):
    """Something that can happen.

    Attributes:
        what: In words.
        fault: It need not happen: trouble, or a person's wish. Nothing may depend on it.
        after: What it leads to.
        problem: The promise that it breaks; empty as a rule.
        taken: The step of the chart, if it led to one.
        elsewhere: Somebody else does it.
    """

    what: str
    fault: bool
    after: Local
    problem: str = ""
    taken: Taken | None = None
    elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is explored.

    Attributes:
        badness: What is wrong with the new version.
        late_limit: Writes that are carried out late, at one time.
        reordered: They may arrive even after a later write to the same keys. As a rule they come before that or never.
        words: How often an operator pauses it or rolls it back; resuming is free.
        fenced: etcd compares the fence. Without it the checker must find a breach.
    """

    badness: Badness = "none"
    late_limit: int = 1
    words: int = 1
    fenced: bool = True
    reordered: bool = False


@dataclass(slots=True)
class World:
    """One sidekick's chart and surroundings: what is the same whatever happens."""

    steps: Steps
    setting: Setting
    capped: int = 0
    minding: dict[str, bool] = field(default_factory=dict)

    def start(self) -> Local:
        """An instance that serves the old version, and whose sidekick begins."""
        taken = self.steps.start()
        running = self.steps.brains[taken.brain].memory.running
        assert running is not None
        first = Local(brain=taken.brain, alive=(running.workload_id,), entry=running.url, words=self.setting.words)
        return self._after(first, taken)

    def is_bad(self, version: str) -> bool:
        """Whether something is wrong with ``version``."""
        return version == NEW and self.setting.badness != "none"

    def tell(
        self, s: Local, event: tuple[object, Callable[[], Any]], what: str, fault: bool, problem: str = "",
        patch: str = "",
    ) -> Edge:  # fmt: skip
        """The edge that an event makes; ``what`` happened in words."""
        taken = self.steps.take(s.brain, event[0], event[1], patch)
        return Edge(what, fault, self._after(s, taken), problem or self._rule(taken), taken)

    def drop_key(self, s: Local) -> Local:
        """The queue key goes: every fence that names it is stale for ever."""
        return self._stale(s._replace(key=0), slot=False)

    def drop_slot(self, s: Local) -> Local:
        """The turn ends."""
        return self._stale(s._replace(slot=0), slot=True)

    def _rule(self, taken: Taken) -> str:
        if taken.problem:
            return f"the chart asks for what can't be: {taken.problem}"
        memory = self.steps.brains[taken.brain].memory
        if memory.update and memory.candidate is None and memory.fault is not None:
            return "an update is rolled back after its commit (design, section 3, rule 10)"
        return ""

    def _after(self, s: Local, taken: Taken) -> Local:
        """``s`` once the chart took a step: what it asked for waits, what it left is no longer waited for."""
        new = taken.requests

        def kept(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
            return tuple((effect, new.get(request, 0)) for effect, request in tasks) if tasks else tasks

        works, locks = list(kept(s.works)), list(kept(s.locks))
        writes = [task for task in kept(s.writes) if task[1] or not self._is_idle_talk(task[0])]
        asks = [task for task in kept(s.asks) if task[1]]
        wish = None if s.wish is None else (s.wish[0], new.get(s.wish[1], 0))
        for task in taken.performs:
            name = self.steps.effects[task[0]].name
            noun = name.partition(".")[0]
            if getattr(self.steps.effects[task[0]], "installed", None) == ():
                continue  # nothing to revive
            queue = {"workload": works, "balancer": writes, "lock": locks}.get(noun)
            if queue is None:
                if task[1]:
                    asks.append(task)
            elif queue and queue[-1][1] == 0 and (queue[-1][0] == task[0] or queue is locks):
                # The same once more, right behind itself: doing it once is as good. And whatever was asked of the lock
                # before and isn't waited for is replaced by what is asked now.
                queue[-1] = task
            else:
                queue.append(task)
        t = s._replace(
            brain=taken.brain, works=tuple(works), writes=tuple(writes), locks=tuple(locks), asks=tuple(asks), wish=wish
        )
        return self._aged(t) if taken.ended else t

    def _is_idle_talk(self, effect: int) -> bool:
        """Whether it changes nothing, now that nobody waits for its answer."""
        return isinstance(self.steps.effects[effect], do.DrainBalancer | do.UndrainBalancer) or self._is_void(effect)

    def _aged(self, s: Local) -> Local:
        age = self.steps.aged_effect
        return s._replace(
            works=tuple((age(effect), request) for effect, request in s.works),
            writes=tuple((age(effect), request) for effect, request in s.writes),
            locks=tuple((age(effect), request) for effect, request in s.locks),
            wish=None if s.wish is None else (age(s.wish[0]), s.wish[1]),
            late=tuple((age(effect), doubt) for effect, doubt in s.late),
            alive=tuple(sorted({aged(one) for one in s.alive})),
            entry=None if s.entry is None else aged(s.entry),
            deserted=tuple(sorted({aged(one) for one in s.deserted})),
            slot=2 if s.slot else 0,
        )

    def _stale(self, s: Local, *, slot: bool) -> Local:
        stale = self.steps.stale_effect
        writes = tuple((stale(effect, slot), request) for effect, request in s.writes)
        late = tuple((stale(effect, slot), doubt) for effect, doubt in s.late)
        return s._replace(
            brain=self.steps.stale(s.brain, slot),
            writes=tuple(task for task in writes if task[1] or not self._is_void(task[0])),
            locks=tuple((stale(effect, slot), request) for effect, request in s.locks),
            wish=None if s.wish is None else (stale(s.wish[0], slot), s.wish[1]),
            late=tuple(one for one in late if not self._is_void(one[0])),
        )

    def _is_void(self, effect: int) -> bool:
        """Whether etcd would surely refuse it, and nobody waits to hear that."""
        turn = getattr(self.steps.effects[effect], "turn", None)
        return self.setting.fenced and isinstance(self.steps.effects[effect], _FENCED) and is_stale(turn)


def is_stale(turn: Turn | None) -> bool:
    """Whether a fence made of it can't hold any more."""
    return turn is None or not turn.waiter_revision or not turn.slot_revision


_FENCED = (do.SwitchBalancer, do.LeaveBalancer, do.RestoreBalancer)
