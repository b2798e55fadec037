"""The update service of one group in simulated time: grants by the real policy, waves and thresholds.

As the rollout controller does, it wakes waiting instances when something has changed, and at the times that the
policy's reasons name. A place is kept for an instance from its wake-up until it has asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from outrider.core.rollout import rollout, waves
from outrider.core.rollout.policy import Defer, Grant, Rule, Situation, Verdict, counts_in_interval, decide
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Progress, Result, WaveState
from outrider.preview.agenda import Agenda

GENERAL: frozenset[Rule] = frozenset(
    {"paused", "off", "blocked", "rollout", "approval", "freezes", "deny-windows", "windows", "max-in-progress",
     "max-per-interval", "min-healthy"}
)  # fmt: skip
"""Rules that defer everybody alike: when they defer one, nobody else need be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the service knows of an instance.

    Attributes:
        version: That it runs, as it reported it.
    """

    name: str
    version: str
    labels: Mapping[str, str]
    arch: str = ""


def unattended(policy: Policy) -> Policy:
    """The policy with every approval given at once, and every analysis between waves passed."""
    waves_ = tuple(replace(one, approval=False, analyses=()) for one in policy.waves)
    return replace(policy, approval=False, approve_after_s=None, waves=waves_, analyses=())


class GroupInTime:
    """Answers the check-ins of one group.

    Attributes:
        progress: The rollout.
        there: Instances that have come to the version.
        outside: Instances that the policy never takes to it, each with its reason: a percentage, a pin, a version.
    """

    def __init__(
        self,
        agenda: Agenda,
        version: str,
        policy: Policy,
        known: Mapping[str, Known],
        *,
        serves: Callable[[str], bool],
        blocked: Callable[[], str | None],
        wake: Callable[[str], None],
        recall: Callable[[str], None],
    ) -> None:
        """Nothing is granted yet.

        Args:
            serves: Whether an instance serves now.
            blocked: Why the version is blocked, or None.
            wake: Tells an instance to ask again.
            recall: Tells an instance that its grant has ended, because the rollout stands still.
        """
        self.version, self.policy = version, policy
        self._agenda, self._known = agenda, known
        self._serves, self._blocked, self._wake = serves, blocked, wake
        self._recall = recall
        self.progress = Progress(version=version, started=agenda.now, since=agenda.now)
        self.there = {name for name, one in known.items() if one.version == version}
        self.outside: dict[str, str] = {}
        self._waiting: dict[str, Defer] = {}
        self._woken: dict[str, None] = {}
        self._due: datetime | None = None

    def check(self, instance: str) -> Verdict:
        """Judge an update check."""
        self._woken.pop(instance, None)
        self._advance()
        verdict = self._judge(instance)
        match verdict:
            case Grant(standing=False):
                self._waiting.pop(instance, None)
                wave, labels = self._wave(), self._known[instance].labels
                self.progress = rollout.granted(
                    replace(self.progress, wave=wave),
                    instance,
                    self.version,
                    self.policy,
                    self._agenda.now,
                    wave=waves.place_of(self.progress, self.policy, wave, instance, labels),
                    in_interval=counts_in_interval(self.policy, is_new=False),
                )
                self._advance()
            case Defer(pending=True):
                self._end(instance, "withdrawn")
                self._waiting[instance] = verdict
                self._look_again_at(verdict.again_at)
                if self._is_for_good(verdict):
                    self.outside[instance] = verdict.reason
            case Defer():
                self._end(instance, "withdrawn")
                if verdict.by != "current":
                    self.outside[instance] = verdict.reason
        return verdict

    def ended(self, instance: str, error: str) -> None:
        """An instance reports how its update ended; empty: well."""
        if not error:
            self.there.add(instance)
        was = self.progress.state
        self._end(instance, "failed" if error else "succeeded", error)
        if self.progress.state != was:
            self._call_back()
        self.wake()

    def halt(self, why: str) -> None:
        """A person halts the rollout."""
        self.progress = rollout.told(self.progress, "halted", why, "", self._agenda.now)
        self._call_back()

    def wake(self) -> None:
        """Wake those who may go on now."""
        self._advance()
        refused: set[tuple[object, ...]] = set()
        for name in [name for name in self._waiting if name not in self._woken]:
            kind = tuple(sorted(self._known[name].labels.items())) if self.policy.uses_labels else (name,)
            if kind in refused:
                continue
            verdict = self._judge(name)
            if isinstance(verdict, Grant):
                del self._waiting[name]
                self._woken[name] = None
                self._wake(name)
                continue
            self._waiting[name] = verdict
            self._look_again_at(verdict.again_at)
            if verdict.by in GENERAL:
                return
            if self.policy.uses_labels and verdict.by in ("waves", "canary"):
                refused.add(kind)

    @property
    def standstill(self) -> str:
        """Why nobody goes on, in the words of the policy; empty when nobody waits."""
        return next((one.reason for one in self._waiting.values()), "")

    def may_swap(self, instance: str) -> bool:
        """Whether a turn may be taken: the grant stands, and the rollout goes on (P16)."""
        return self.progress.state == "running" and self.progress.opened_for(instance) is not None

    def _call_back(self) -> None:
        """The rollout stands still: grants that no swap has begun under end."""
        for one in self.progress.opened:
            self._recall(one.instance)

    def _is_for_good(self, verdict: Defer) -> bool:
        return verdict.by in ("percent", "pin", "version", "prefix", "architecture")

    def _judge(self, instance: str) -> Verdict:
        known = self._known[instance]
        opened = {one.instance for one in self.progress.opened}
        others = {name for name in self._known if name != instance and name not in opened} if self._counts else ()
        standing = self.progress.opened_for(instance)
        return decide(
            Situation(
                instance=instance,
                running=self.version if instance in self.there else known.version,
                wanted=self.version,
                channel="",
                arch=known.arch,
                blocked=self._blocked(),
                policy=self.policy,
                progress=self.progress,
                standing=standing.version if standing is not None else None,
                living=frozenset(opened),
                reserved=tuple(name for name in self._woken if name != instance),
                serving=sum(self._serves(name) for name in others),
                own_labels=known.labels,
                wave=self._wave(),
                now=self._agenda.now,
            )
        )

    @property
    def _counts(self) -> bool:
        return bool(self.policy.min_healthy)

    def _members(self) -> list[waves.Member]:
        return [
            waves.Member(labels=one.labels, is_there=name in self.there) for name, one in self._known.items()
        ]  # fmt: skip

    def _wave(self) -> WaveState | None:
        if not self.policy.waves:
            return None
        return waves.current(self.progress, self.policy, self._members(), self._agenda.now)

    def _advance(self) -> None:
        if not self.policy.waves:
            return
        self.progress = waves.advanced(self.progress, self.policy, self._members(), self._agenda.now)
        self._look_again_at(waves.due(self.progress, self.policy))

    def recalled(self, instance: str) -> None:
        """Its grant counts as never made."""
        self._end(instance, "recalled")

    def _end(self, instance: str, result: Result, error: str = "") -> None:
        self.progress = rollout.ended(
            self.progress, instance, result, self.policy, self._agenda.now, error=error
        )  # fmt: skip

    def _look_again_at(self, at: datetime | None) -> None:
        """Wake those who wait at that time."""
        if at is None or at <= self._agenda.now or (self._due is not None and self._due <= at):
            return  # a time that has passed changes nothing any more: what stands still waits for an event
        self._due = at

        def due() -> None:
            if self._due == at:
                self._due = None
                self.wake()

        self._agenda.at((at - self._agenda.now).total_seconds() + 0.001, due)
