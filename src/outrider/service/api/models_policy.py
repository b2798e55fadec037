"""Bodies of the REST API for policies, rollouts, floors and exclusions."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.types import JsonValue

from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.calendar import Freeze
from outrider.core.rollout.policy_settings import DEFAULT_TIMEOUT_S, Policy, Rate
from outrider.core.rollout.wave_settings import Wave
from outrider.core.rollout.windows import Day, Window
from outrider.model.documents import IdentityMode
from outrider.service.api.models import IDENTITY, Given, Shown

_EXAMPLE_POLICY: dict[str, JsonValue] = {
    "max_per_interval": {"count": 1, "interval_s": 300},
    "canary": 1,
    "max_failures": 2,
}


class RateModel(Given):
    """At most `count` in any period of `interval_s` seconds."""

    count: int
    interval_s: int


class WindowModel(Given):
    """A window in which updates may start; its day is the day on which it opens."""

    days: list[Day] = Field([], description="Empty: every day.")
    opens: str = Field("00:00", description="HH:MM", examples=["22:00"])
    closes: str = Field(
        "24:00", description="HH:MM; a time at or before `opens` is on the next day.", examples=["04:00"]
    )


class FreezeModel(Given):
    """A time in the calendar in which no update starts, on the wall clock of the policy's time zone."""

    begins: str = Field(description="A day, or a minute: `2026-12-20T18:00`.", examples=["2026-12-20"])
    ends: str = Field(description="A day, which is the last one, or a minute, which isn't.", examples=["2027-01-03"])
    why: str = Field("", examples=["holidays"])


class WaveModel(Given):
    """A wave: instances that go first, and what must hold before the next ones follow."""

    selector: str = Field("", description="Whose labels it selects; empty: any instance.", examples=["site=a,rack!=3"])
    count: int | None = Field(None, description="So many of them; null: all, or `percent` of them.")
    percent: float | None = Field(None, description="So many percent of them, rounded up; null: all, or `count`.")
    soak_s: int = Field(0, description="Seconds that pass after it before the next instances begin.")
    success_percent: float = Field(100.0, description="Percentage that must succeed; else the rollout halts.")
    approval: bool = Field(False, description="A person must approve what follows it.")
    analyses: list[str] = Field([], description="Names of analyses that must pass before the next instances begin.")


class AnalysisModel(Given):
    """An analysis: what the service asks at the end of the waves that name it."""

    name: str = Field(description="Unique in the policy.", examples=["errors"])
    kind: Literal["prometheus", "http", "command"] = Field(
        "prometheus", description="`command` is refused: the service runs no programs."
    )
    url: str = Field("", description="Of Prometheus, without /api/v1; or of the endpoint.")
    query: str = Field("", description="PromQL; `{app}`, `{group}` and `{version}` are replaced.")
    condition: str = Field("", description="What every series, or the endpoint's number, must be.", examples=["< 0.01"])
    field: str = Field("", description="Path of the number in the endpoint's JSON answer.", examples=["stats.rate"])
    timeout_s: int = Field(5, description="Longest time for one answer.")
    failures: int = Field(1, description="Failing answers in a row that fail it.")
    interval_s: int = Field(15, description="Time between two questions.")
    deadline_s: int = Field(
        600, description="Longest time after the wave's soak time in which it may still pass; then it is undecided."
    )
    undecided: Literal["pause", "pass", "fail"] = Field(
        "pause", description="What the rollout does then: it is paused, goes on, or halts."
    )


class BudgetModel(Given):
    """A disruption budget: what holds for each value of a label while instances swap."""

    label: str = Field(examples=["rack"])
    max_out: int | None = Field(None, description="Most instances with the same value that are out; null: no limit.")
    min_serving: int = Field(0, description="Least number of others with the same value that serve while one is out.")


class PolicyGiven(Given):
    """A group's policy; every field has a default, and the defaults defer no instance."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_POLICY]})

    enabled: bool = Field(True, description="Updates are on.")
    max_per_interval: RateModel | None = Field(
        None, description="The largest number of updates that begin in an interval."
    )
    max_in_progress: int | None = Field(None, description="The largest number of updates under way.")
    percent: float = Field(
        100.0, description="Percentage of instances that may update, by a hash of instance and version."
    )
    canary: int = Field(
        0, description="The number of instances that go first; the others follow when these have succeeded."
    )
    windows: list[WindowModel] = Field([], description="Updates begin only inside these windows; empty: at any time.")
    deny_windows: list[WindowModel] = Field(
        [], description="Weekly times in which no update begins, also inside a window."
    )
    freezes: list[FreezeModel] = Field([], description="Times in the calendar in which no update begins.")
    time_zone: str = Field("UTC", description="IANA name.", examples=["Europe/Berlin"])
    update_timeout_s: int = Field(
        DEFAULT_TIMEOUT_S, description="Seconds after which an update without a result has failed."
    )
    max_failures: int | None = Field(None, description="The number of failed instances that halts the rollout.")
    count_new: bool = Field(
        False, description="An instance that never ran anything counts against max_per_interval, too."
    )
    count_timeouts: bool = Field(True, description="An update without a result in time counts as a failure.")
    min_healthy: int = Field(0, description="The number of other instances that must serve while one updates.")
    pin: str = Field("", description="Only versions with this beginning.", examples=["1.2"])
    approval: bool = Field(False, description="A person must approve each release before its first instance updates.")
    approve_after_s: int | None = Field(
        None, description="Seconds after which a release that nobody has judged counts as approved."
    )
    downgrade: Literal["never", "asked", "always"] = Field(
        "never", description="Whether an instance may go to an older version; `asked`: only when its request allows it."
    )
    canary_selector: str = Field("", description="Labels of the instances that may be canaries; empty: any.")
    waves: list[WaveModel] = Field([], description="Which instances go first, in their order; then the others follow.")
    budgets: list[BudgetModel] = Field([], description="How many instances with one value of a label may be out.")
    analyses: list[AnalysisModel] = Field([], description="What is asked at the end of the waves that name it.")

    def to_policy(self) -> Policy:
        """The policy for the store; it is not checked yet."""
        settings = self.model_dump(
            exclude={"max_per_interval", "windows", "deny_windows", "freezes", "waves", "budgets", "analyses"}
        )
        rate = self.max_per_interval
        return Policy(
            max_per_interval=None if rate is None else Rate(count=rate.count, interval_s=rate.interval_s),
            windows=_windows(self.windows),
            deny_windows=_windows(self.deny_windows),
            freezes=tuple(Freeze(begins=one.begins, ends=one.ends, why=one.why) for one in self.freezes),
            waves=tuple(Wave(**one.model_dump() | {"analyses": tuple(one.analyses)}) for one in self.waves),
            analyses=tuple(WaveAnalysis(**one.model_dump()) for one in self.analyses),
            budgets=tuple(Budget(**one.model_dump()) for one in self.budgets),
            **settings,
        )


def _windows(given: list[WindowModel]) -> tuple[Window, ...]:
    return tuple(Window(days=tuple(one.days), opens=one.opens, closes=one.closes) for one in given)


class NewGroup(Given):
    """A new group."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "web", "channel": "beta", "slots": 2}]})

    id: str
    channel: str = Field(description="The channel to follow; a missing channel is created and points at nothing.")
    label: str = ""
    slots: int = Field(1, description="Instances that may swap at the same time.")
    paused: bool = False
    identity: IdentityMode = Field("auto", description=IDENTITY)
    policy: PolicyGiven | None = Field(None, description="From the group's first moment; null: it defers no instance.")


class RateShown(Shown):
    """The largest number of updates that begin in an interval."""

    count: int
    interval_s: int


class WindowShown(Shown):
    """A window in which updates may start."""

    days: list[Day]
    opens: str
    closes: str


class FreezeShown(Shown):
    """A time in the calendar in which no update starts."""

    begins: str
    ends: str
    why: str


class WaveShown(Shown):
    """A wave: instances that go first, and what must hold before the next ones follow."""

    selector: str
    count: int | None
    percent: float | None
    soak_s: int
    success_percent: float
    approval: bool
    analyses: list[str]


class AnalysisShown(Shown):
    """An analysis: what the service asks at the end of the waves that name it."""

    name: str
    kind: str
    url: str
    query: str
    condition: str
    field: str
    timeout_s: int
    failures: int
    interval_s: int
    deadline_s: int
    undecided: str


class BudgetShown(Shown):
    """A disruption budget."""

    label: str
    max_out: int | None
    min_serving: int


class PolicyShown(Shown):
    """A group's policy, with warnings about parts that cannot work."""

    enabled: bool
    max_per_interval: RateShown | None
    max_in_progress: int | None
    percent: float
    canary: int
    windows: list[WindowShown]
    deny_windows: list[WindowShown]
    freezes: list[FreezeShown]
    time_zone: str
    update_timeout_s: int
    max_failures: int | None
    count_new: bool
    count_timeouts: bool
    min_healthy: int
    pin: str
    approval: bool
    approve_after_s: int | None
    downgrade: str
    canary_selector: str
    waves: list[WaveShown]
    budgets: list[BudgetShown]
    analyses: list[AnalysisShown]
    warnings: list[str] = Field([], description="Parts that cannot work, one line each.")
    notes: list[str] = Field([], description="Further notes for a person.")


class OpenedShown(Shown):
    """A granted update without a result yet."""

    instance: str
    version: str
    at: datetime


class FailureShown(Shown):
    """An instance that failed in this rollout, with its last failure."""

    instance: str
    version: str
    error: str
    at: datetime


class ApprovalShown(Shown):
    """What is known of a rollout's approval."""

    asked: datetime = Field(description="When the first instance waited for it.")
    verdict: Literal["approved", "rejected"] | None = Field(description="null: nobody has judged.")
    by: str = Field(description="The person; empty: nobody rejected it in time.")
    why: str
    at: datetime | None


class OverrideShown(Shown):
    """An emergency: neither windows nor freezes stop the rollout until then."""

    by: str
    why: str
    at: datetime
    until: datetime


class AnalysisAnswerShown(Shown):
    """The last answer to an analysis."""

    name: str
    at: datetime = Field(description="When it was asked.")
    number: int = Field(description="How many answers there were.")
    result: Literal["pass", "fail", "no data"]
    failed: int = Field(description="How many answers in a row failed.")
    words: str


class AnalysisStateShown(Shown):
    """What the analyses at the end of a wave have come to."""

    began: datetime
    answers: list[AnalysisAnswerShown]
    verdict: Literal["pass", "fail", "undecided"] | None = Field(description="null: it isn't decided.")
    words: str = Field(description="What decided it.")
    at: datetime | None = Field(description="When it was decided.")


class WaveStateShown(Shown):
    """The wave that a rollout is at."""

    number: int = Field(description="From 1.")
    began: datetime
    size: int = Field(description="How many instances it takes; 0: no known instance has its labels.")
    there: int = Field(description="Instances of it that had come to the release before it began.")
    succeeded: int = Field(description="Instances that came to the release in it.")
    proved: datetime | None = Field(description="When enough of its instances had succeeded.")
    waits_for_approval: bool = Field(description="A person must approve what follows it.")
    approval: ApprovalShown | None
    analysis: AnalysisStateShown | None = Field(None, description="null: nothing is asked, or not yet.")


class RolloutShown(Shown):
    """The progress of a group's rollout."""

    app: str
    group: str
    version: str | None
    state: Literal["running", "paused", "halted"] = Field(
        description="`halted` lasts until an operator resumes the rollout."
    )
    why: str
    by: str = Field(description="Operator who paused or halted it; empty: the policy did.")
    since: datetime
    started: datetime
    finished: datetime | None = Field(description="When all known instances had updated to `version`.")
    succeeded: int
    opened: list[OpenedShown] = Field(description="Updates under way.")
    failures: list[FailureShown] = Field(
        description="Instances that failed since an operator last resumed the rollout."
    )
    waiting: list[str] = Field(description="Deferred instances, first come first.")
    notes: list[str] = Field([], description="Further notes for a person.")
    cannot_take: list[str] = Field(
        default=[], description="Instances whose machine cannot take `version`, each with its reason."
    )
    waits_for_approval: bool = Field(False, description="A person must approve it, and nobody has judged yet.")
    approval: ApprovalShown | None = None
    override: OverrideShown | None = None
    wave: WaveStateShown | None = Field(None, description="null: there are no waves, or they are over.")
    wave_words: str = Field("", description="Which wave it is at, and what that waits for.")


class Steering(Given):
    """Reason for a pause, halt or resume, and the operator's name; both are optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "a quiet hour for the database", "by": "ann"}]})

    why: str = ""
    by: str = ""


class Judgement(Given):
    """A person's word on a rollout; all fields are optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "seen on staging", "by": "ann"}]})

    version: str = Field("", description="What the person has looked at: refused when the target is another one.")
    wave: int = Field(0, description="Wave after which the next may begin: refused when another one waits; 0: any.")
    why: str = ""
    by: str = ""


class Emergency(Given):
    """An emergency, with its reason: windows and freezes don't stop the rollout for a time."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"why": "CVE-2026-1234 is exploited", "for_s": 7200, "by": "ann"}]}
    )

    why: str = ""
    for_s: float = Field(3600.0, description="Seconds; 0 ends it.", allow_inf_nan=False)
    by: str = ""


class NewUndo(Given):
    """How to take a group back; all fields are optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "checkout fails", "by": "ann"}]})

    to: str | None = Field(None, description="The version; default: the one that the group served before its target.")
    keep: bool = Field(False, description="Do not block the abandoned version for this group.")
    now: bool = Field(False, description="Do not wait for an update window.")
    why: str = ""
    by: str = ""


class NewFloor(Given):
    """A new floor: a version that no update skips."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is migrated"}]})

    reason: str = ""


class FloorShown(Shown):
    """A floor: a version that no update skips."""

    version: str
    reason: str


class ExcludedShown(Shown):
    """A version that the channel excludes."""

    version: str
