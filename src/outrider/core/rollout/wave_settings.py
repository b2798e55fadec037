"""Waves of a group's policy: which instances go first, and what must hold before the next ones follow.

Waves are taken in their order, one at a time; after the last one the other instances of the group follow. An instance
belongs to a wave when its labels are selected by it; a wave with a count or a percentage takes so many of them, first
come, first served.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from outrider.core.errors import ConfigError
from outrider.core.labels import parse_selector

MAX_WAVES = 20
MAX_COUNT = 1000
MAX_SOAK_S = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One wave.

    Attributes:
        selector: Whose labels it selects (``core.labels``); empty: any instance.
        count: Number of instances; None: all that are selected, or a percentage of them.
        percent: Percentage of the selected instances, rounded up; None: all, or a count.
        soak_s: Seconds that pass after it before the next instances begin.
        success_percent: Percentage of its instances that must succeed. When it can't be reached any more, the rollout
            halts.
        approval: A person must approve what follows it.
        analyses: Names of what must pass before the next instances begin (``analysis_settings``).
    """

    selector: str = ""
    count: int | None = None
    percent: float | None = None
    soak_s: int = 0
    success_percent: float = 100.0
    approval: bool = False
    analyses: tuple[str, ...] = ()

    @property
    def takes_all(self) -> bool:
        """All instances that it selects belong to it."""
        return self.count is None and self.percent is None

    @property
    def words(self) -> str:
        """Whom it takes: ``2 of site=a``."""
        whom = self.selector or "any instance"
        if self.count is not None:
            return f"{self.count} of {whom}"
        return f"{self.percent:g} % of {whom}" if self.percent is not None else whom

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an instance with these labels may belong to it."""
        return parse_selector(self.selector).selects(labels)

    def size_among(self, selected: int) -> int:
        """How many instances it takes where so many are selected; at least one."""
        if self.count is not None:
            return self.count
        if self.percent is not None:
            return max(1, math.ceil(round(selected * self.percent / 100, 6))) if selected else 0
        return selected

    def needed(self, size: int) -> int:
        """How many of ``size`` instances must succeed; at least one."""
        return max(1, math.ceil(round(size * self.success_percent / 100, 6)))


def check_waves(waves: tuple[Wave, ...]) -> None:
    """Refuse waves that can't be carried out.

    Raises:
        ConfigError: too many, a number out of its range, both a count and a percentage, or an unreadable selector.
    """
    if len(waves) > MAX_WAVES:
        raise ConfigError(f"waves {len(waves)}: must be 0 to {MAX_WAVES}")
    for number, wave in enumerate(waves, 1):
        try:
            parse_selector(wave.selector)
        except ConfigError as error:
            raise ConfigError(f"waves: wave {number}: {error}") from error
        if wave.count is not None and wave.percent is not None:
            raise ConfigError(f"waves: wave {number}: has a count and a percentage; keep one of them")
        for what, value, least, most in (
            ("count", wave.count, 1, MAX_COUNT),
            ("soak_s", wave.soak_s, 0, MAX_SOAK_S),
            ("success_percent", wave.success_percent, 1, 100),
            ("percent", wave.percent, 0.01, 100),
        ):
            if value is not None and not least <= value <= most:
                raise ConfigError(f"waves: wave {number}: {what} {value:g}: must be {least:g} to {most:g}")
