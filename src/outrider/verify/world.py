"""One sidekick and everything it touches, as one small value; ``happenings.py`` says what can happen to it next.

The world is that of ``tests/sim/fleet.py`` without time: effects on one noun are performed in order, each at one
moment; what was under way when its sender was killed, or was given up without an answer, may still be carried out
later.
Every other sidekick is seen only through the lock: here a turn may be granted at any moment, and the release may be
blocked by somebody else at any moment. What holds under such a lock holds under any.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from outrider.core.sidekick import effects as do
from outrider.core.sidekick.memory import AfterUndecided, Turn
from outrider.verify.steps import NEW, Steps, Taken, aged, id_of

Badness = Literal["none", "refused", "unhealthy", "dies", "unfit", "local"]

Word = Literal[
    "pause", "rollback", "return", "target", "release", "entry", "twin", "drain", "decommission", "brake", "undo"
]  # fmt: skip
"""What an operator says: to pause an instance, to roll back its update, to go back after its end; to pause the group or
move its target; to end a turn. Or a person takes the server's entry away, behind everybody's back; or starts another
sidekick of the same instance. Or to drain the instance, or to remove it for good. Or to pause or undo the rollout."""

WORDS: tuple[Word, ...] = (
    "pause", "rollback", "return", "target", "release", "entry", "twin", "drain", "decommission", "brake", "undo"
)  # fmt: skip

LOST = "lost"
"""The server's entry where a person took it away; the sidekick answers for every other one."""

Task = tuple[int, int]
"""An effect under way: its number, and the request that its answer answers (0: nobody waits for it)."""

Become = Mapping[str, Callable[[Any], Any]]
"""By field of ``Local``: what becomes of its value."""

KEY, SLOT = 1, 2
"""What ends of a turn: the place in the queue, the turn itself."""


class Local(NamedTuple):
    """A sidekick and its surroundings.

    Attributes:
        brain: Machine and memory, by number.
        works, writes, locks: Effects on workloads, balancer and lock that wait to be performed, in order.
        asks: Questions to prober, update service and outbox that are open. They change nothing.
        request: The turn that is waited for.
        late: Effects whose sender has given up or died, and which etcd may carry out yet.
        alive: Addresses of the workloads that run.
        entry: The address that the balancer sends to.
        deserted: Addresses of workloads that ended by themselves.
        heard: Those whose end this sidekick will be told of; only kept where workloads may end by themselves.
        key: Our place in the queue: 0 none, 1 under our lease, 2 under one that we don't keep alive any more.
        slot: Our turn: 0 none, 1 for the update under way, 2 for one that is forgotten.
        blocked: The new version is blocked.
        proved: An instance has committed the new version.
        barred: It was so when our turn was granted, or we blocked it ourselves: it may not be tried again here.
        touched: The bad version was started here, and it wasn't given up for a reason that isn't its own.
        forgiven: An operator ended our turn and answers for what we do of that update; until we take one again.
        permitted: The service's grant for the update under way stands, and was made under the present brake.
        braked: The rollout is paused.
        gone: 1: it was removed for good; 2: an operator has let it back since.
        words: What operators may say yet.
        falls: How often a workload may end by itself yet, or the whole machine.
        task, ran: Of the task that must run before a swap; see ``tasks.py``.
        noted: What etcd says may run here (``running/``): ``contracts.RUNS_OLD``, ``RUNS_NEW``, or both.
        contracted: A contract task of the new version has begun: nothing older may run in the group from then on.
    """

    brain: int
    works: tuple[Task, ...] = ()
    writes: tuple[Task, ...] = ()
    locks: tuple[Task, ...] = ()
    asks: tuple[Task, ...] = ()
    request: Task | None = None
    late: tuple[int, ...] = ()
    alive: tuple[str, ...] = ()
    entry: str | None = None
    deserted: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    key: int = 0
    slot: int = 0
    blocked: bool = False
    proved: bool = False
    barred: bool = False
    touched: bool = False
    forgiven: bool = False
    permitted: bool = True
    braked: bool = False
    gone: int = 0
    words: int = 0
    falls: int = 0
    task: int = 0
    ran: int = 0
    noted: int = 0
    contracted: bool = False


class Edge(NamedTuple):
    """Something that can happen.

    Attributes:
        what: In words.
        fault: It need not happen: trouble, or a person's request. Nothing may depend on it.
        after: What it leads to, but for what follows from ``ends`` and ``taken``: see ``World.settled``.
        problem: The promise that it breaks; empty as a rule.
        taken: The step of the chart, if it led to one.
        ends: What it ends of the turn: ``KEY``, ``SLOT``, both, or 0.
        elsewhere: Somebody else does it.
    """

    what: str
    fault: bool
    after: Local
    problem: str = ""
    taken: Taken | None = None
    ends: int = 0
    elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is explored.

    Attributes:
        badness: What is wrong with the new version. ``unfit``: it is of a kind that the runtime can't run. ``local``:
            nothing, but this machine can't start it.
        fresh: Nothing is installed yet.
        late_limit: Writes that are carried out late, at one time.
        words: How often an operator says something; taking it back is free.
        says: What may be said.
        falls: How often a workload ends by itself, or the whole machine; what is started again has another address.
        waiting: Effects of one noun that wait at once; beyond that nothing new happens to the sidekick before one was
            performed.
        fenced: etcd compares the fence. Without it the checker must find a breach.
        heeded: etcd compares, as it blocks a release, that nobody has committed it. The same.
        permits: etcd compares the grant and the brake when a turn is taken for an update. As for ``fenced``.
        analysis: What an analysis that stays undecided leads to; empty: there is none.
        admits: A sidekick that removes itself compares whether it was let back since. As for ``fenced``.
        tasked: The new version has a task that must run once before any instance swaps to it.
        repeatable: Running that task twice does no harm.
        lost: What becomes of it when its runner's presence has ended. A repeatable one may run ``again``; of any other
            the checker must find a breach then.
        regretted: It is given back, as one that could not be begun, when this machine fails after its beginning. The
            same.
        contracts: It has one that takes away what the old version needs, once nothing older may run.
        counted: etcd compares, as that task is claimed, what may run and who has a turn. As for ``fenced``.
        barred: etcd compares the oldest version that may run when a turn is taken. As for ``fenced``.
        environment: What is rolled out is the same payload with another environment.
    """

    badness: Badness = "none"
    fresh: bool = False
    late_limit: int = 1
    words: int = 1
    says: tuple[Word, ...] = WORDS
    falls: int = 0
    waiting: int = 2
    fenced: bool = True
    heeded: bool = True
    permits: bool = True
    admits: bool = True
    tasked: bool = False
    repeatable: bool = False
    lost: Literal["unknown", "again"] = "unknown"
    regretted: bool = False
    contracts: bool = False
    counted: bool = True
    barred: bool = True
    environment: bool = False
    analysis: AfterUndecided = ""


@dataclass(slots=True)
class World:
    """One sidekick's chart and surroundings: what is the same whatever happens."""

    steps: Steps
    setting: Setting

    def start(self) -> Local:
        """An instance that serves the old version (or nothing yet), and whose sidekick begins."""
        taken = self.steps.start(fresh=self.setting.fresh, analysis=self.setting.analysis)
        running = self.steps.brains[taken.brain].memory.running
        url = running.url if running is not None else None
        first = Local(
            brain=taken.brain,
            alive=() if url is None else (url,),
            entry=url,
            words=self.setting.words,
            falls=self.setting.falls,
            noted=1 if self.setting.contracts else 0,
        )
        return self.settled(Edge("starts", False, first, taken=taken))

    def is_bad(self, version: str) -> bool:
        """Whether something is wrong with ``version``."""
        return version == NEW and self.setting.badness not in ("none", "local")

    def tell(
        self, s: Local, event: tuple[object, Callable[[], Any]], what: str, fault: bool, problem: str = "",
        ends: int = 0,
    ) -> list[Edge]:  # fmt: skip
        """The edges that an event makes, one for each step it may lead to; ``what`` happened in words."""
        brain = s.brain if not ends else self.steps.stale(s.brain, bool(ends & SLOT))
        return [
            Edge(f"{what} ({taken.given})" if taken.given else what, fault, s, problem or taken.problem, taken, ends)
            for taken in self.steps.take(brain, event[0], event[1])
        ]

    def settled(self, edge: Edge) -> Local:
        """What an edge leads to, with all that follows."""
        s = edge.after
        for change in self.consequences(edge.ends, edge.taken):
            s = s._replace(**{name: become(getattr(s, name)) for name, become in change.items()})
        return s._replace(alive=self.minded(s)) if edge.taken is not None and edge.taken.ended else s

    def consequences(self, ends: int, taken: Taken | None) -> list[Become]:
        """What follows from the end of a turn, from a step of the chart and from the end of an update, in this order.

        Each says for some fields of ``Local`` what becomes of them, whatever is in the others.
        """
        found: list[Become] = []
        if ends:
            found.append(self._staling(bool(ends & SLOT)))
        if taken is not None:
            found.append(self._stepping(taken))
            if taken.ended:
                found.append(self._ageing(taken.ended))
        return found

    def minded(self, s: Local) -> tuple[str, ...]:
        """Those of the workloads that run which anything can ask for yet; of the others nobody can tell.

        With a contract task one can: the old version may not run, whoever has forgotten it.
        """
        if self.setting.contracts:
            return s.alive
        memory = self.steps.brains[s.brain].memory
        known = {one.workload_id for one in (memory.running, memory.candidate, memory.previous, memory.leftover) if one}
        under_way = [number for number, _ in (*s.works, *s.writes)] + list(s.late)
        words = " ".join([repr(self.steps.effects[number]) for number in under_way] + [s.entry or ""])
        return tuple(url for url in s.alive if id_of(url) in known or id_of(url) in words)

    def _stepping(self, taken: Taken) -> Become:
        """The chart took a step: what it asked for waits, what it left is no longer waited for."""
        new = taken.requests
        asked: dict[str, list[Task]] = {"works": [], "writes": [], "locks": [], "asks": []}
        for task in taken.performs:
            effect = self.steps.effects[task[0]]
            nothing = isinstance(effect, do.RestartWorkload) and not effect.installed
            queue = _QUEUES.get(effect.name.partition(".")[0], "asks")
            if not nothing and (queue != "asks" or task[1]):
                asked[queue].append(task)

        def queued(name: str, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
            queue = [(effect, new.get(request, 0)) for effect, request in tasks]
            if name == "asks":
                queue = [task for task in queue if task[1]]
            elif name == "writes":
                queue = [task for task in queue if task[1] or not self._is_idle_talk(task[0])]
            for task in asked[name]:
                if name != "asks" and queue and not queue[-1][1] and self._is_replaced(queue[-1][0], task[0]):
                    queue[-1] = task
                else:
                    queue.append(task)
            return tuple(queue)

        return {
            "brain": lambda _: taken.brain,
            "request": lambda request: request and (request[0], new.get(request[1], 0)),
            **{name: partial(queued, name) for name in asked},
        }

    def _staling(self, slot: bool) -> Become:
        """Every fence that names the queue key, or with ``slot`` the slot key, is stale forever."""

        def stale(number: int) -> int:
            return self.steps.stale_effect(number, slot)

        def writes(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
            queue = ((stale(number), request) for number, request in tasks)
            return tuple(task for task in queue if task[1] or not self._is_void(task[0]))

        def late(several: tuple[int, ...]) -> tuple[int, ...]:
            # taking a turn compares the place in the queue as it was seen
            # giving up the place in the queue does so, too
            known = (one for one in map(stale, several) if not self._is_void(one) and not self._takes(one))
            return tuple(one for one in known if not isinstance(self.steps.effects[one], do.SuspendLock))

        return {
            "brain": lambda brain: self.steps.stale(brain, slot),
            "writes": writes,
            "locks": lambda tasks: tuple((stale(number), request) for number, request in tasks),
            "request": lambda request: request and (stale(request[0]), request[1]),
            "late": late,
        }

    def _ageing(self, version: str) -> Become:
        """An update is over: its workload is no longer the one of the update under way. The brain knows it already."""

        def age(number: int) -> int:
            return self.steps.aged_effect(number, version)

        def tasks(several: tuple[Task, ...]) -> tuple[Task, ...]:
            return tuple((age(number), request) for number, request in several)

        def urls(several: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted({aged(one, version) for one in several}))

        return {
            "works": tasks,
            "writes": tasks,
            "locks": tasks,
            "request": lambda request: request and (age(request[0]), request[1]),
            "late": lambda late: tuple(age(number) for number in late),
            "alive": urls,
            "entry": lambda url: url and aged(url, version),
            "deserted": urls,
            "heard": urls,
            "slot": lambda slot: 2 if slot else 0,
        }

    def _is_replaced(self, before: int, after: int) -> bool:
        """Whether two effects, one right behind the other and the first not waited for, are as good as the second.

        The same done twice is. And a wait for a turn is ended by whatever is asked of the lock next: what it got until
        then, it got as well when it had been performed before it was given up.
        """
        return before == after or isinstance(
            self.steps.effects[before], do.AcquireLock | do.RetakeLock | do.ReclaimLock
        )

    def _is_idle_talk(self, effect: int) -> bool:
        """Whether it changes nothing, now that nobody waits for its answer."""
        return isinstance(self.steps.effects[effect], do.DrainBalancer | do.UndrainBalancer) or self._is_void(effect)

    def _takes(self, effect: int) -> bool:
        return isinstance(self.steps.effects[effect], do.AcquireLock | do.RetakeLock)

    def _is_void(self, effect: int) -> bool:
        """Whether etcd would surely refuse it, and nobody waits to hear that."""
        turn = getattr(self.steps.effects[effect], "turn", None)
        return self.setting.fenced and isinstance(self.steps.effects[effect], _FENCED) and is_stale(turn)


def is_stale(turn: Turn | None) -> bool:
    """Whether a fence made of it can't hold any more."""
    return turn is None or not turn.waiter_revision or not turn.slot_revision


_QUEUES = {"workload": "works", "balancer": "writes", "lock": "locks"}
_FENCED = (do.SwitchBalancer, do.LeaveBalancer, do.RestoreBalancer)
