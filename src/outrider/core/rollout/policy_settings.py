"""A group's policy: what an operator sets, with defaults that defer nobody."""

import re
from dataclasses import dataclass
from typing import Literal

from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.core.labels import parse_selector
from outrider.core.rollout.analysis_settings import WaveAnalysis, check_analyses
from outrider.core.rollout.budgets import Budget, check_budgets
from outrider.core.rollout.calendar import MAX_FREEZES, Calendar, Freeze, check_freeze
from outrider.core.rollout.wave_settings import Wave, check_waves
from outrider.core.rollout.windows import MAX_WINDOWS, Window, check_window, zone_of

DAY_S = 86_400
MAX_COUNT = 1000
"""The highest value of a limit. A group that needs more needs no limit."""
MAX_COUNTED_FAILURES = 100
"""Failed instances that a rollout remembers; no threshold can be higher."""
DEFAULT_TIMEOUT_S = 3600

Downgrade = Literal["never", "asked", "always"]
_PREFIX = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20}){0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most ``count`` in any ``interval_s`` seconds, at whatever time these begin."""

    count: int
    interval_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which instances of a group may update, and when.

    Attributes:
        enabled: Updates are on.
        max_per_interval: Largest number of grants in an interval; None for no limit.
        count_new: An instance that never ran anything counts against ``max_per_interval``, too.
        max_in_progress: Largest number of updates in progress; None for no limit.
        percent: Share of the instances that may update, 0 to 100.
        canary: Number of instances that update first. The others follow when these have succeeded; none follows when
            one of these fails.
        windows: Updates start only inside them; none means at any time.
        deny_windows: Weekly times in which no update starts, also inside a window.
        freezes: Times in the calendar in which no update starts.
        time_zone: IANA name, for windows, freezes and the times in reasons.
        update_timeout_s: Longest time for one update, seconds; then its grant ends.
        max_failures: Number of failed instances that halts the rollout; None never halts it.
        count_timeouts: An update without a result in time counts as a failure.
        min_healthy: Number of other instances of the group that must serve while one updates.
        pin: Only versions that begin with it; empty for any.
        approval: A person must approve each release before its first instance updates.
        approve_after_s: A release that nobody has judged counts as approved so many seconds after the first instance
            waited for it; None: never.
        downgrade: Whether an instance gets a version older than what it runs: never, when its check-in allows it
            (``rollback_allowed``), or always.
        canary_selector: Whose labels it selects may be a canary; empty: any instance.
        waves: Which instances go first, and what must hold before the next ones follow; none: there is no order.
        budgets: How many instances with one value of a label may be out, and how many must serve; they limit turns.
        analyses: What the service asks at the end of the waves that name it, before the next instances begin.
    """

    enabled: bool = True
    max_per_interval: Rate | None = None
    count_new: bool = False
    max_in_progress: int | None = None
    percent: float = 100.0
    canary: int = 0
    windows: tuple[Window, ...] = ()
    deny_windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    time_zone: str = "UTC"
    update_timeout_s: int = DEFAULT_TIMEOUT_S
    max_failures: int | None = None
    count_timeouts: bool = True
    min_healthy: int = 0
    pin: str = ""
    approval: bool = False
    approve_after_s: int | None = None
    downgrade: Downgrade = "never"
    canary_selector: str = ""
    waves: tuple[Wave, ...] = ()
    budgets: tuple[Budget, ...] = ()
    analyses: tuple[WaveAnalysis, ...] = ()

    @property
    def calendar(self) -> Calendar:
        """When updates may start.

        Raises:
            ConfigError: this machine doesn't know the time zone.
        """
        return Calendar(
            windows=self.windows, denied=self.deny_windows, freezes=self.freezes, zone=zone_of(self.time_zone)
        )

    @property
    def counts(self) -> bool:
        """A grant depends on what the others of the group do."""
        return bool(
            self.max_per_interval
            or self.max_in_progress
            or self.canary
            or self.max_failures
            or self.min_healthy
            or self.waves
        )

    def analyses_after(self, wave: Wave) -> tuple[WaveAnalysis, ...]:
        """What is asked at the end of a wave."""
        return tuple(one for one in self.analyses if one.name in wave.analyses)

    @property
    def uses_labels(self) -> bool:
        """A grant depends on the labels of the instance."""
        return bool(self.waves or (self.canary and self.canary_selector))


def check_policy(policy: Policy) -> Policy:
    """Return the policy when it can be carried out.

    Raises:
        ConfigError: a number out of its range, an unknown time zone, a window or a prefix that can't be read.
    """
    rate = policy.max_per_interval
    if rate is not None:
        _within("max_per_interval: count", rate.count, 1, MAX_COUNT)
        _within("max_per_interval: interval_s", rate.interval_s, 1, 30 * DAY_S)
    if policy.max_in_progress is not None:
        _within("max_in_progress", policy.max_in_progress, 1, MAX_COUNT)
    _within("percent", policy.percent, 0, 100)
    _within("canary", policy.canary, 0, MAX_COUNT)
    _within("update_timeout_s", policy.update_timeout_s, 1, 30 * DAY_S)
    if policy.max_failures is not None:
        _within("max_failures", policy.max_failures, 1, MAX_COUNTED_FAILURES)
    _within("min_healthy", policy.min_healthy, 0, MAX_COUNT)
    zone_of(policy.time_zone)
    _within("windows", len(policy.windows), 0, MAX_WINDOWS)
    _within("deny_windows", len(policy.deny_windows), 0, MAX_WINDOWS)
    _within("freezes", len(policy.freezes), 0, MAX_FREEZES)
    for window in (*policy.windows, *policy.deny_windows):
        check_window(window)
    for freeze in policy.freezes:
        check_freeze(freeze)
    if policy.approve_after_s is not None:
        _within("approve_after_s", policy.approve_after_s, 1, 30 * DAY_S)
        if not policy.approval and not any(wave.approval for wave in policy.waves):
            raise ConfigError("approve_after_s: nothing waits for an approval; set approval, too")
    try:
        parse_selector(policy.canary_selector)
    except ConfigError as error:
        raise ConfigError(f"canary_selector: {error}") from error
    check_waves(policy.waves)
    check_analyses(policy.analyses, ((number, wave.analyses) for number, wave in enumerate(policy.waves, 1)))
    check_budgets(policy.budgets)
    if policy.pin and not _is_prefix(policy.pin):
        raise ConfigError(f"pin {policy.pin!r}: write the beginning of a version, for example 1.2, or a whole version")
    return policy


def begins_with(version: str, prefix: str) -> bool:
    """Whether a version has a dotted prefix: ``1.2`` matches ``1.2`` and ``1.2.3``, but not ``1.20.0``.

    A dot at the prefix's end is ignored; an invalid prefix matches nothing.
    """
    wanted = prefix.strip().removesuffix(".")
    if not wanted or version == wanted:
        return True
    if not _PREFIX.fullmatch(wanted):
        return False
    parsed = versions.parse(version)
    numbers = [int(number) for number in wanted.split(".")]
    return [parsed.major, parsed.minor, parsed.patch][: len(numbers)] == numbers


def _is_prefix(text: str) -> bool:
    if _PREFIX.fullmatch(text):
        return True
    try:
        versions.parse(text)
    except ConfigError:
        return False
    return True


def _within(what: str, number: float, least: int, most: int) -> None:
    if not least <= number <= most:  # also refuses NaN, which is within nothing
        raise ConfigError(f"{what} {number:g}: must be {least} to {most}")
