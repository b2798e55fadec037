"""One run of a rollout in simulated time, from the new target until nothing more happens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random

from outrider.core.rollout.policy import Grant, Verdict
from outrider.core.rollout.policy_settings import Policy
from outrider.core.sidekick.memory import Strategy
from outrider.preview.agenda import Agenda
from outrider.preview.durations import Durations
from outrider.preview.instance import QUICK_S, SimInstance
from outrider.preview.lock import Lock
from outrider.preview.service import GroupInTime, Known
from outrider.preview.world import Failing

HORIZON_S = 60 * 86_400.0
"""A rollout that takes longer is cut off there."""
TTL_S = 30.0
"""Of a sidekick's lease, as ``lock.ttl_s`` has it."""
MAX_STEPS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The group whose rollout is looked at.

    Attributes:
        version: Where it goes.
        policy: With every approval given at once (``service.unattended``).
    """

    version: str
    instances: tuple[Known, ...]
    policy: Policy
    slots: int
    strategy: Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong.

    Attributes:
        fails_at: The instance that is the n-th to get a turn fails; 0: none does.
        failing: Instances that fail, each with the seconds from the begin of what it fails in; None: at the deadline.
        how: Whether a failing candidate never proves healthy, or is found bad while it is watched.
        away_from_s, away_s: From when and for how long etcd is away, seconds.
        halted_at_s: When a person halts the rollout, seconds after the first grant.
    """

    fails_at: int = 0
    failing: Mapping[str, float | None] = field(default_factory=dict)
    how: Failing = "probing"
    away_from_s: float = 0.0
    away_s: float = 0.0
    halted_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """One turn of an instance, seconds since the beginning; ``ended_s`` None: it has not ended."""

    instance: str
    began_s: float
    ended_s: float | None
    succeeded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """From then on so many instances served."""

    at_s: float
    serving: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a rollout went.

    Attributes:
        ended_s: When the last thing happened that counts.
        updated: Instances that came to the version, in order.
        reached: Instances on which it was started.
        turns: In the order in which they began.
        capacity: How many served, at each change.
        stopped: Why it ended before all had come to it; empty when all have.
        failed: Instances that failed and did not come to it later, each with its error.
        outside: Instances that the policy never takes, each with the reason.
    """

    ended_s: float
    updated: tuple[str, ...]
    reached: tuple[str, ...]
    turns: tuple[Turned, ...]
    capacity: tuple[Moment, ...]
    stopped: str
    failed: Mapping[str, str]
    outside: Mapping[str, str]

    @property
    def lowest(self) -> int:
        """The fewest instances that served at once."""
        return min(one.serving for one in self.capacity)


def run(group: Group, durations: Durations, trouble: Trouble, seed: int, began: datetime) -> Run:
    """Let a rollout happen once; ``seed`` decides all that is left to chance."""
    return _Running(group, durations, trouble, seed, began).run()


class _Running:
    """A rollout under way; implements ``Surroundings`` for its instances."""

    def __init__(self, group: Group, durations: Durations, trouble: Trouble, seed: int, began: datetime) -> None:
        self._group, self._trouble, self._random = group, trouble, Random(seed)  # noqa: S311
        self.version = group.version
        self.agenda = Agenda(began)
        known = {one.name: one for one in group.instances}
        labels = {name: one.labels for name, one in known.items()}
        self.lock = Lock(group.slots, group.policy.budgets, labels, self._serves)
        self._service = GroupInTime(
            self.agenda, group.version, group.policy, known,
            serves=self._serves, blocked=lambda: self.lock.blocked.get(group.version),
            wake=self._wake, recall=self._recall,
        )  # fmt: skip
        self._instances: dict[str, SimInstance] = {}
        for one in group.instances:
            self._instances[one.name] = SimInstance(
                one.name,
                self,
                version=one.version,
                strategy=group.strategy,
                steps_s=durations.draw(group.strategy, self._random),
                failing=trouble.how if one.name in trouble.failing else "",
                fails_after_s=trouble.failing.get(one.name),
            )
        self._began: dict[str, float] = {}
        self._turns: list[Turned] = []
        self._updated: list[str] = []
        self._capacity = [Moment(at_s=0.0, serving=self._serving)]
        self._last_s = 0.0
        self._has_granted = False

    def run(self) -> Run:
        """From the new target to the end."""
        for name in self._random.sample(sorted(self._instances), len(self._instances)):
            self.agenda.at(self._random.uniform(0.0, 0.2), partial(self._instances[name].target, self._group.slots))
        if self._trouble.away_s:
            self.agenda.at(self._trouble.away_from_s + TTL_S, self._leases_end)
        for _ in range(MAX_STEPS):
            if not self.agenda.pending or self.agenda.now_s > HORIZON_S or self._is_over:
                break
            self.agenda.advance()
        return Run(
            ended_s=self._last_s,
            updated=tuple(self._updated),
            reached=tuple(name for name, one in self._instances.items() if one.world.started),
            turns=tuple(self._turns) + tuple(
                Turned(instance=name, began_s=at_s, ended_s=None, succeeded=False)
                for name, at_s in self._began.items()
            ),
            capacity=tuple(self._capacity),
            stopped=self._stopped,
            failed={one.instance: one.error for one in self._service.progress.failures},
            outside=self._service.outside,
        )  # fmt: skip

    @property
    def _is_over(self) -> bool:
        over = len(self._service.there) + len(self._service.outside) >= len(self._instances)
        return over and not self._service.progress.opened and not self.lock.held

    @property
    def _stopped(self) -> str:
        if len(self._service.there) + len(self._service.outside) >= len(self._instances):
            return ""
        if self.version in self.lock.blocked:
            return f"{self.version} is blocked: {self.lock.blocked[self.version]}"
        if self._service.standstill:
            return self._service.standstill
        failed = sorted(one.instance for one in self._service.progress.failures)
        if failed and len(self._service.there) + len(self._service.outside) + len(failed) >= len(self._instances):
            return f"failed, and not tried again unasked: {', '.join(failed)}"
        return "it has not ended in 60 days"

    @property
    def _serving(self) -> int:
        return sum(one.world.serves for one in self._instances.values())

    def _serves(self, name: str) -> bool:
        return self._instances[name].world.serves

    def _wake(self, name: str) -> None:
        self.agenda.at(self.away_s() + QUICK_S, self._instances[name].wake)

    def _recall(self, name: str) -> None:
        if name not in self.lock.held:
            self._service.recalled(name)
            self.agenda.at(self.away_s() + QUICK_S, self._instances[name].recall)

    def _leases_end(self) -> None:
        """etcd has been away for longer than a lease lives; every sidekick that waits or has a turn knows it."""
        if self._trouble.away_s < TTL_S:
            return
        for name, one in self._instances.items():
            if self.lock.forget(name):
                one.lost_lease()

    # --- what instances ask -----------------------------------------------------------------------------------------

    def check(self, instance: str) -> Verdict:
        """Judge an update check."""
        verdict = self._service.check(instance)
        if isinstance(verdict, Grant) and not self._has_granted:
            self._has_granted = True
            if self._trouble.halted_at_s is not None:
                self.agenda.at(self._trouble.halted_at_s, lambda: self._service.halt("as it was stopped then"))
        return verdict

    def may_swap(self, instance: str) -> bool:
        """Whether an instance may take a turn."""
        return self.version not in self.lock.blocked and self._service.may_swap(instance)

    def ended(self, instance: str, error: str) -> None:
        """An update has ended."""
        if not error:
            self._updated.append(instance)
        self._last_s = self.agenda.now_s
        self._service.ended(instance, error)

    def block(self, instance: str, why: str) -> str:
        """Block the release, unless an instance has committed it; its turn ends with that."""
        proved_by = self.lock.proved.get(self.version, "")
        if not proved_by:
            self.lock.blocked[self.version] = why
            for name, one in self._instances.items():
                if name != instance:
                    self.agenda.at(self.away_s() + QUICK_S, partial(one.told_blocks, {self.version: why}))
        self.lock.leave(instance)
        return proved_by

    def away_s(self) -> float:
        """How long etcd will still be away."""
        begin, now = self._trouble.away_from_s, self.agenda.now_s
        return max(0.0, begin + self._trouble.away_s - now) if begin <= now else 0.0

    def changed(self) -> None:
        """Note how many serve, and whose turns have ended."""
        serving, now_s = self._serving, self.agenda.now_s
        if serving != self._capacity[-1].serving:
            self._capacity.append(Moment(at_s=now_s, serving=serving))
        for name in [name for name in self._began if name not in self.lock.held]:
            succeeded = self._instances[name].version == self.version
            self._turns.append(
                Turned(instance=name, began_s=self._began.pop(name), ended_s=now_s, succeeded=succeeded)
            )  # fmt: skip
            self._last_s = now_s
        self.lock.look()

    def took_turn(self, instance: str) -> None:
        """An instance has got a turn."""
        self._began[instance] = self.agenda.now_s
        if self._trouble.fails_at == len(self._began) + len(self._turns):
            self._instances[instance].let_fail(self._trouble.how)
