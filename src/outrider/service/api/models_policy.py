"""Policies, rollouts, floors and exclusions, as the REST API takes and gives them."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.types import JsonValue

from outrider.core.rollout.policy_settings import DEFAULT_TIMEOUT_S, Policy, Rate
from outrider.core.rollout.windows import Day, Window
from outrider.service.api.models import Given, Shown

_EXAMPLE_POLICY: dict[str, JsonValue] = {
    "max_per_interval": {"count": 1, "interval_s": 300},
    "canary": 1,
    "max_failures": 2,
}


class RateModel(Given):
    """At most `count` in any `interval_s` seconds, wherever they begin."""

    count: int
    interval_s: int


class WindowModel(Given):
    """When updates may start; named by the day on which it opens."""

    days: list[Day] = Field([], description="None means every day.")
    opens: str = Field("00:00", description="HH:MM", examples=["22:00"])
    closes: str = Field("24:00", description="HH:MM; at or before `opens` it is on the next day.", examples=["04:00"])


class PolicyGiven(Given):
    """A group's policy; what is left out has its default, which defers nobody."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_POLICY]})

    enabled: bool = Field(True, description="Updates are on.")
    max_per_interval: RateModel | None = Field(None, description="At most so many updates begin in a time.")
    max_in_progress: int | None = Field(None, description="At most so many updates are under way.")
    percent: float = Field(
        100.0, description="Only so many percent of the instances, by a hash of instance and version."
    )
    canary: int = Field(0, description="So many go first, the others when those have succeeded.")
    windows: list[WindowModel] = Field([], description="Updates begin only inside them; none means at any time.")
    time_zone: str = Field("UTC", description="IANA name.", examples=["Europe/Berlin"])
    update_timeout_s: int = Field(DEFAULT_TIMEOUT_S, description="An update without a result is over then.")
    max_failures: int | None = Field(None, description="So many failed instances halt the rollout.")
    count_timeouts: bool = Field(True, description="No result in time counts as a failure.")
    min_healthy: int = Field(0, description="So many other instances must serve while one updates.")
    pin: str = Field("", description="Only versions that begin so.", examples=["1.2"])
    downgrade: Literal["never", "asked", "always"] = Field(
        "never", description="Whether an instance is sent to an older version: `asked` when its request allows it."
    )

    def to_policy(self) -> Policy:
        """As the store takes it; not checked yet."""
        settings = self.model_dump(exclude={"max_per_interval", "windows"})
        rate = self.max_per_interval
        return Policy(
            max_per_interval=None if rate is None else Rate(count=rate.count, interval_s=rate.interval_s),
            windows=tuple(Window(days=tuple(one.days), opens=one.opens, closes=one.closes) for one in self.windows),
            **settings,
        )


class RateShown(Shown):
    """At most so many updates begin in a time."""

    count: int
    interval_s: int


class WindowShown(Shown):
    """When updates may start."""

    days: list[Day]
    opens: str
    closes: str


class PolicyShown(Shown):
    """A group's policy, and what in it can't work."""

    enabled: bool
    max_per_interval: RateShown | None
    max_in_progress: int | None
    percent: float
    canary: int
    windows: list[WindowShown]
    time_zone: str
    update_timeout_s: int
    max_failures: int | None
    count_timeouts: bool
    min_healthy: int
    pin: str
    downgrade: str
    warnings: list[str] = Field([], description="What in it can't work, one line each.")


class OpenedShown(Shown):
    """An update that was granted and has no result yet."""

    instance: str
    version: str
    at: datetime


class FailureShown(Shown):
    """An instance that failed in this rollout, and how it did last."""

    instance: str
    version: str
    error: str
    at: datetime


class RolloutShown(Shown):
    """How far a group is on its way to a version."""

    app: str
    group: str
    version: str | None
    state: Literal["running", "paused", "halted"] = Field(description="`halted` lasts until a person resumes.")
    why: str
    by: str = Field(description="Who paused or halted it; empty for the policy.")
    since: datetime
    started: datetime
    finished: datetime | None = Field(description="When all known instances had come to `version`.")
    succeeded: int
    opened: list[OpenedShown] = Field(description="Updates under way.")
    failures: list[FailureShown] = Field(description="Instances that failed, since a person resumed last.")
    waiting: list[str] = Field(description="Instances that are deferred, first come first.")


class Steering(Given):
    """Who stops or starts a rollout, and why; both may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "a quiet hour for the database", "by": "ann"}]})

    why: str = ""
    by: str = ""


class NewFloor(Given):
    """A version to be passed on the way."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is migrated"}]})

    reason: str = ""


class FloorShown(Shown):
    """A version that must be passed on the way."""

    version: str
    reason: str


class ExcludedShown(Shown):
    """A version that a channel can't be pointed at."""

    version: str
