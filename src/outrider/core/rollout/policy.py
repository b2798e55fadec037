"""May this instance update now? Values in, a verdict with its reason out.

The order of the rules is their rank, so that the reason shown is the one to act on. First comes what an operator did
(a pause), then what a release did (a block), then what the policy did (a halt). What only takes time comes last
(windows, limits).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from outrider.core import versions
from outrider.core.architectures import ANY
from outrider.core.errors import ConfigError
from outrider.core.labels import parse_selector
from outrider.core.rollout import waves
from outrider.core.rollout.calendar import closed
from outrider.core.rollout.frames import RunningFrames
from outrider.core.rollout.percent import percentage_of
from outrider.core.rollout.policy_settings import Policy, Rate, begins_with
from outrider.core.rollout.rollout import Opened, Progress, WaveState, approval_due, brake, next_time
from outrider.core.rollout.windows import zone_of

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
SHOWN = 3
"""Instances that a reason names; the rest is counted."""

Rule = Literal[
    "no-release",
    "current",
    "paused",
    "off",
    "blocked",
    "version",
    "pin",
    "prefix",
    "no-package",
    "unresolved",
    "task",
    "rollout",
    "approval",
    "architecture",
    "percent",
    "freezes",
    "deny-windows",
    "windows",
    "min-healthy",
    "waves",
    "canary",
    "max-in-progress",
    "max-per-interval",
]
"""What may defer an instance. A rule that a setting of the policy controls has the setting's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when an instance asks.

    Attributes:
        instance: Name of the instance that checks in.
        running: Version the instance reports; any text.
        runs: Label of the release that the instance reports (``core.release``); empty: it names a version only, and is
            up to date at an equal version.
        wanted: Version that is the group's target; None while its channel points at nothing that can be installed.
        labels: Version -> label of the release of it that the group wants; a version that isn't in it is its own.
        channel: Name of the group's channel, for the reasons.
        floors: Versions that an instance must run on its way to ``wanted``.
        prefix: The instance takes only versions that begin with it; empty for any.
        rollback_allowed: The instance takes an older version, too.
        rollback_forbidden: The instance says that it never takes an older version.
        go_back: The target itself says that instances go back to it (``rollout undo``).
        arch: Architecture of the instance's machine; empty when it did not report one.
        paused: The group is paused.
        blocked: Why the version that this instance would get is blocked; None when it isn't.
        package_arch: What that version's package is for.
        standing: The label of the instance's own open grant; None without one.
        progress: The group's rollout to ``wanted``; None before its first grant.
        living: Instances with an open grant.
        reserved: Other instances that were woken a moment ago; a place is kept for each.
        serving: Number of other instances of the group that serve and do not update.
        is_new: The instance never ran anything, so its first update takes nothing out of service.
        own_labels: Labels of the instance (``core.labels``); None: it has some, and they aren't known.
        wave: The wave that the rollout is at; None without waves.
        frames: They say the percentage in place of the policy; None without.
    """

    running: str
    wanted: str | None
    runs: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    instance: str = ""
    channel: str = ""
    floors: tuple[str, ...] = ()
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False
    go_back: bool = False
    arch: str = ""
    paused: bool = False
    blocked: str | None = None
    package_arch: str = ANY
    policy: Policy = field(default_factory=Policy)
    progress: Progress | None = None
    standing: str | None = None
    living: frozenset[str] = frozenset()
    reserved: tuple[str, ...] = ()
    serving: int = 0
    is_new: bool = False
    own_labels: Mapping[str, str] | None = field(default_factory=dict)
    wave: WaveState | None = None
    frames: RunningFrames | None = None
    now: datetime = LONG_AGO

    def label(self, version: str) -> str:
        """What the group's release of ``version`` is called."""
        return self.labels.get(version, version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The instance may update to ``version`` now.

    Attributes:
        version: Label of the release.
        package: The release's version, when its label says more.
        standing: The instance has this grant already; no new grant is made.
        for_new_machine: It leads to what the group serves, because the target stands still.
        note: What a person should know of it; often empty.
    """

    version: str
    package: str = ""
    standing: bool = False
    for_new_machine: bool = False
    note: str = ""

    @property
    def package_version(self) -> str:
        """Version of the package that it leads to."""
        return self.package or self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """The instance does nothing now.

    Attributes:
        reason: For a person, one line.
        by: For a program: the rule that defers it.
        pending: There is an update for it, which waits; False when it runs its group's target.
        again_at: The earliest time at which another check-in can help; None when only an event helps.
    """

    reason: str
    by: Rule
    pending: bool = False
    again_at: datetime | None = None


Verdict = Grant | Defer


def decide(situation: Situation) -> Verdict:
    """Judge one update check."""
    goal = destination(situation)
    pending = isinstance(goal, str)
    if situation.wanted is None:
        pause = "group is paused; " if situation.paused else ""
        return Defer(reason=f"{pause}channel {situation.channel!r} offers nothing yet", by="no-release")
    if situation.paused:
        return Defer(reason="group is paused", by="paused", pending=pending)
    if pending and not situation.policy.enabled:
        return Defer(reason="updates are off for the group", by="off", pending=True)
    if situation.blocked is not None:
        why = f": {situation.blocked}" if situation.blocked else ""
        blocked = situation.label(goal if isinstance(goal, str) else situation.wanted)
        return Defer(reason=f"{blocked} is blocked{why}", by="blocked", pending=pending)
    if isinstance(goal, Defer):
        return goal
    for rule in _BRAKES:
        if (defer := rule(situation, goal)) is not None:
            return defer
    label = situation.label(goal)
    package = "" if label == goal else goal
    if situation.standing == label:
        return Grant(version=label, package=package, standing=True, note=_note_on(situation, goal))
    for rule in _LIMITS:
        if (defer := rule(situation, goal)) is not None:
            return defer
    return Grant(version=label, package=package, note=_note_on(situation, goal))


def destination(situation: Situation) -> str | Defer:
    """The version that the instance would get if nothing deferred it: the next floor, or the group's target.

    Compares releases only, and looks at neither blocks nor limits.
    """
    running, wanted = situation.running, situation.wanted
    if wanted is None:
        return Defer(reason=f"channel {situation.channel!r} offers nothing yet", by="no-release")
    if running == wanted:
        if situation.runs in ("", situation.label(wanted)):
            return Defer(reason="up to date", by="current")
        return _fitting(situation, wanted)  # the same version with another environment, or a restart
    try:
        if versions.is_newer(running, wanted):
            return _downwards(situation, wanted)
        if not versions.is_newer(wanted, running):
            return Defer(reason=f"running {running} differs from {wanted} in build metadata only", by="version")
    except ConfigError:
        # A guess could install an older version. The instance's row shows what it has reported.
        return Defer(
            reason=f"reported version {running!r} is not semver; it can't be compared with {wanted}", by="version"
        )
    return _fitting(situation, _next_floor(situation, wanted))


def _next_floor(situation: Situation, wanted: str) -> str:
    ahead = [
        floor
        for floor in situation.floors
        if versions.is_newer(floor, situation.running) and versions.is_newer(wanted, floor)
    ]
    return min(ahead, key=versions.parse, default=wanted)


def _downwards(situation: Situation, wanted: str) -> str | Defer:
    """The way back. It waits in line like any update, so that a changed policy or an undo wakes the instance."""
    newer = f"running {situation.running} is newer than the {'target' if situation.go_back else 'channel'}'s {wanted}"
    allowed = situation.go_back or situation.policy.downgrade == "always"
    allowed = allowed or (situation.policy.downgrade == "asked" and situation.rollback_allowed)
    if situation.rollback_forbidden and (allowed or situation.policy.downgrade == "asked"):
        why = "; this machine forbids going back (instance.allow_downgrade = false)"
    elif allowed:
        return _fitting(situation, wanted)
    else:
        why = "; its check-in does not allow a rollback" if situation.policy.downgrade == "asked" else ""
    return Defer(reason=f"{newer}{why}", by="version", pending=True)


def _fitting(situation: Situation, goal: str) -> str | Defer:
    """A pin defers and never selects another version: only a version that a channel points at is released."""
    pin = situation.policy.pin
    if not begins_with(goal, pin):
        return Defer(reason=f"group is pinned to {pin}; {goal} does not match", by="pin", pending=True)
    if not begins_with(goal, situation.prefix):
        return Defer(
            reason=f"this instance accepts only versions {situation.prefix[:64]!r}; {goal} does not match",
            by="prefix",
            pending=True,
        )
    return goal


def _rollout_stands(situation: Situation, goal: str) -> Defer | None:
    if situation.progress is None:
        return None
    standstill = standstill_of(situation.progress, situation.policy)
    return None if standstill is None else Defer(reason=standstill, by="rollout", pending=True)


def _other_architecture(situation: Situation, goal: str) -> Defer | None:
    needs = situation.package_arch
    # One that reports none is taken for a machine of the kind that the package is for: a version has one package.
    if ANY in (needs, situation.arch) or situation.arch in ("", needs):
        return None
    has = f"this instance is {situation.arch}"
    return Defer(reason=f"no package for your architecture: {goal} is for {needs}; {has}", by="architecture")


def _note_on(situation: Situation, goal: str) -> str:
    if situation.arch or situation.package_arch == ANY:
        return ""
    return f"this instance reports no architecture; {goal} is for {situation.package_arch}"


def _outside_the_percentage(situation: Situation, goal: str) -> Defer | None:
    # By the target, not by a floor on the way: an instance that passed a floor may go on.
    target = situation.label(situation.wanted or goal)
    frames, number = situation.frames, percentage_of(situation.instance, target)
    percent = situation.policy.percent if frames is None else frames.percent_at(situation.now)
    if number < percent:
        return None
    reason = f"{target} goes to {percent:.4g} % of the instances; this one is at {number:.2f} %"
    again_at = None if frames is None else frames.reaches(number, situation.now)
    if again_at is not None:
        reason += f", whose frame begins {_clock(situation, again_at)}"
    return Defer(reason=reason, by="percent", pending=True, again_at=again_at)


def _not_approved(situation: Situation, goal: str) -> Defer | None:
    # Of the target, not of a floor on the way to it. A rejection counts where nobody had to approve anything, too.
    policy, progress = situation.policy, situation.progress
    target = situation.label(situation.wanted or goal)
    said = progress.approval if progress is not None else None
    if said is not None and said.verdict == "rejected":
        reason = f"{target} was {said.words}; `outrider rollout approve` lets it go on"
        return Defer(reason=reason, by="approval", pending=True)
    if not policy.approval or (said is not None and said.verdict is not None):
        return None
    due = approval_due(progress, policy) if progress is not None else None
    if due is not None and situation.now >= due:
        return None
    by_itself = f"; by itself at {_clock(situation, due)}" if due is not None else ""
    reason = f"{target} waits for an approval (`outrider rollout approve`){by_itself}"
    return Defer(reason=reason, by="approval", pending=True, again_at=due)


def _at_a_closed_time(situation: Situation, goal: str) -> Defer | None:
    found = closed(situation.policy.calendar, situation.now)
    if found is None:
        return None
    begins = {"windows": "outside the update windows", "deny-windows": "in a deny window", "freezes": "frozen"}[
        found.by
    ]
    verb = "opens" if found.by == "windows" else "may begin"
    when = f"next {verb} {_clock(situation, found.opens)}" if found.opens is not None else f"none {verb} within a year"
    return Defer(reason=f"{begins} ({found.why}); {when}", by=found.by, pending=True, again_at=found.opens)


def _too_few_serve(situation: Situation, goal: str) -> Defer | None:
    least = situation.policy.min_healthy
    if situation.serving >= least:
        return None
    return Defer(
        reason=f"other instances that serve: {situation.serving}; min_healthy is {least}",
        by="min-healthy",
        pending=True,
    )


def _not_its_wave(situation: Situation, goal: str) -> Defer | None:
    held = waves.deferral_of(
        situation.progress,
        situation.policy,
        situation.wave,
        instance=situation.instance,
        labels=situation.own_labels,
        under_way=_under_way(situation),
        reserved=situation.reserved,
    )
    return None if held is None else Defer(reason=held.reason, by="waves", pending=True, again_at=held.again_at)


def _canary_first(situation: Situation, goal: str) -> Defer | None:
    policy, progress = situation.policy, situation.progress
    proved = progress.succeeded if progress is not None else 0
    if proved >= policy.canary:
        return None
    if not parse_selector(policy.canary_selector).selects(situation.own_labels or {}):
        who = f"canary first: {proved} of {policy.canary} succeeded; canaries are {policy.canary_selector}"
        return Defer(reason=f"{who}, which this instance isn't", by="canary", pending=True)
    trying = [one.instance for one in _under_way(situation) if progress is not None and progress.is_ours(one)]
    more = progress.others.ours if progress is not None else 0
    if proved + len(trying) + more + len(situation.reserved) < policy.canary:
        return None
    at_it = f"; in progress: {_names([*trying, *situation.reserved], more)}"
    return Defer(reason=f"canary first: {proved} of {policy.canary} succeeded{at_it}", by="canary", pending=True)


def _too_many_under_way(situation: Situation, goal: str) -> Defer | None:
    limit = situation.policy.max_in_progress
    if limit is None:
        return None
    busy = [one.instance for one in _under_way(situation)]
    more = situation.progress.others.total if situation.progress is not None else 0
    number = len(busy) + more
    if number + len(situation.reserved) < limit:
        return None
    kept = f"; woken: {_names(situation.reserved)}" if situation.reserved else ""
    reason = f"{number} of {limit} in progress: {_names(busy, more)}{kept}"
    return Defer(reason=reason, by="max-in-progress", pending=True)


def _too_many_lately(situation: Situation, goal: str) -> Defer | None:
    rate, progress = situation.policy.max_per_interval, situation.progress
    if rate is None or progress is None or not counts_in_interval(situation.policy, is_new=situation.is_new):
        return None
    free_at = next_time(progress, situation.policy, len(situation.reserved), situation.now)
    if free_at is None:
        return None
    return Defer(
        reason=f"{per(rate)}; next at {_clock(situation, free_at)}",
        by="max-per-interval",
        pending=True,
        again_at=free_at,
    )


_Check = Callable[[Situation, str], Defer | None]

_BRAKES: tuple[_Check, ...] = (_rollout_stands, _not_approved, _other_architecture)
"""These rules also defer an instance that has a grant."""

_LIMITS: tuple[_Check, ...] = (
    _outside_the_percentage,
    _at_a_closed_time,
    _too_few_serve,
    _not_its_wave,
    _canary_first,
    _too_many_under_way,
    _too_many_lately,
)
"""These rules defer only an instance without a grant."""


def standstill_of(progress: Progress, policy: Policy) -> str | None:
    """Why a rollout stands still, in words; None when it goes on.

    A threshold that was lowered since the last failure counts at once, before the halt is written.
    """
    state, why, by = progress.state, progress.why, progress.by
    if state == "running":
        braked = brake(progress, policy)
        if braked is None:
            return None
        state, why, by = "halted", braked, ""
    said = f" by {by}" if by else ""
    return f"rollout of {progress.version} is {state}{said}" + (f": {why}" if why else "")


def counts_in_interval(policy: Policy, *, is_new: bool) -> bool:
    """Whether a grant takes one of the places of ``max_per_interval``."""
    return policy.count_new or not is_new


def per(rate: Rate) -> str:
    """A limit in words, such as ``1 per 5 min``."""
    for length_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if rate.interval_s % length_s == 0:
            return f"{rate.count} per {rate.interval_s // length_s} {unit}"
    return f"{rate.count} per {rate.interval_s} s"


def _under_way(situation: Situation) -> list[Opened]:
    """Known open grants of other instances that have no result yet."""
    opened = situation.progress.opened if situation.progress is not None else ()
    return [one for one in opened if one.instance in situation.living and one.instance != situation.instance]


def _names(instances: tuple[str, ...] | list[str], unknown: int = 0) -> str:
    more = max(len(instances) - SHOWN, 0) + unknown
    shown = ", ".join(instances[:SHOWN])
    if more and not shown:
        return f"{more} instances" if more > 1 else "1 instance"
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"


def _clock(situation: Situation, at: datetime) -> str:
    """A time in the policy's zone, with its date when it is not today."""
    zone = zone_of(situation.policy.time_zone)
    local, today = at.astimezone(zone), situation.now.astimezone(zone).date()
    day = "" if local.date() == today else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M:%S} {local:%Z}"
