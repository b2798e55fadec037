"""A rollout that has happened, from the activity events; and the same under another policy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.core.omaha.events import LOCAL_CODES
from outrider.preview.durations import Durations
from outrider.preview.run import Group, Trouble
from outrider.preview.summary import Foreseen, foresee

_INSTEAD_OF = re.compile(r" instead of (\S+)$")
_STOPS = frozenset({"rollout-halted", "rollout-paused", "group-paused"})
OLDEST = "0.0.0-0"
"""What an instance is taken to have run when no event says it: any version is newer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is known of a rollout.

    Attributes:
        before: What the group ran then.
        began: When it was granted first.
        reached: Instances on which the version was started, in order.
        failed: Of these, the ones that failed, with the seconds that it took.
        blocked: The release proved bad itself: instances that it did not reach would have failed, too.
        stopped_at_s: When a person stopped it, or another version took its place: seconds after ``began``.
        stopped: How, in words.
    """

    version: str
    before: str
    began: datetime
    reached: tuple[str, ...]
    failed: Mapping[str, float]
    blocked: bool
    stopped_at_s: float | None
    stopped: str

    @property
    def words(self) -> str:
        """One line for a person."""
        count = len(self.reached)
        line = f"{self.version} reached {count} machine{'' if count == 1 else 's'} from {self.began:%Y-%m-%d %H:%M} UTC"
        line += f": {', '.join(self.reached)}" if 0 < count <= 8 else ""
        if self.failed:
            line += f"; failed: {', '.join(sorted(self.failed))}"
        return f"{line}; {self.stopped}" if self.stopped else line

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was supposed of the instances and the people, a line each."""
        lines = ["whoever failed then fails again, after the same time"]
        if self.blocked:
            lines.append("the release was blocked: it fails on every instance that it did not reach then, too")
        elif self.failed:
            lines.append("instances that it did not reach then update well")
        if self.stopped_at_s is not None:
            lines.append(f"it is stopped {self.stopped_at_s:.0f} s after the first grant, as it was then")
        return tuple(lines)

    def facts(self) -> Mapping[str, object]:
        """As plain values."""
        return {
            "version": self.version,
            "before": self.before,
            "began": self.began.isoformat(),
            "reached": list(self.reached),
            "failed": dict(self.failed),
            "blocked": self.blocked,
            "stopped_at_s": self.stopped_at_s,
            "stopped": self.stopped,
        }


def read_recorded(
    events: Sequence[Mapping[str, Any]], group: str, version: str | None, instances: Sequence[str]
) -> Recorded:
    """Find a rollout among activity events, as the REST API has them, in any order.

    Args:
        version: That was rolled out; None: the last one of which a grant is on record.
        instances: Those of the group; a block by another one says nothing of it.

    Raises:
        ConfigError: there is no such rollout on record.
    """
    unique = {(one["at"], one["kind"], one["instance"], one["version"]): one for one in events}
    ordered = sorted(unique.values(), key=lambda one: _at(one))
    granted = [one for one in ordered if one["kind"] == "update-granted" and one["group"] == group]
    known = list(dict.fromkeys(one["version"] for one in granted))
    wanted = version or (known[-1] if known else None)
    if wanted is None or wanted not in known:
        shown = f"; on record: {', '.join(known[-8:])}" if known else "; nothing was granted in the last 30 days"
        raise ConfigError(f"group {group} has no recorded rollout of {wanted or 'any version'}{shown}")
    # the last time that it was rolled out: a version may come back
    start = max((_at(one) for one in ordered if _is(one, "rollout-started", group, wanted)), default=None)
    grants = [one for one in granted if one["version"] == wanted and (start is None or _at(one) >= start)]
    if not grants:
        raise ConfigError(f"group {group}: nothing was granted yet in the rollout of {wanted}")
    began = _at(grants[0])
    stop = next((one for one in ordered if _at(one) > began and _stops(one, group, wanted)), None)
    after = [one for one in ordered if _at(one) >= began and one["version"] == wanted and one["instance"] in instances]
    reached: dict[str, None] = {}
    failed: dict[str, float] = {}
    free = began
    for one in after:
        name = one["instance"]
        if one["kind"] == "instance-updated":
            reached[name], free = None, _at(one)
            failed.pop(name, None)
        elif one["kind"] == "instance-failed" and int(one["facts"].get("error_code", 0)) not in LOCAL_CODES:
            granted_at = max((_at(each) for each in grants if each["instance"] == name), default=began)
            failed[name] = max(1.0, (_at(one) - max(granted_at, free)).total_seconds())
            reached[name], free = None, _at(one)
    return Recorded(
        version=wanted,
        before=_before(ordered, after, group, wanted, began),
        began=began,
        reached=tuple(reached),
        failed=failed,
        blocked=any(one["kind"] == "release-blocked" for one in after),
        stopped_at_s=None if stop is None else (_at(stop) - began).total_seconds(),
        stopped="" if stop is None else stop["text"],
    )


def replayed(group: Group, durations: Durations, recorded: Recorded, *, runs: int = 0, seed: int = 0) -> Foreseen:
    """The same rollout in a group that may have another policy or other slots."""
    failing: dict[str, float | None] = dict(recorded.failed)
    if recorded.blocked:
        usual = min(recorded.failed.values(), default=None)
        failing |= {one.name: usual for one in group.instances if one.name not in recorded.reached}
    trouble = Trouble(failing=failing, halted_at_s=recorded.stopped_at_s)
    return foresee(group, durations, trouble, recorded.began, runs=runs, seed=seed)


def _at(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


def _is(event: Mapping[str, Any], kind: str, group: str, version: str) -> bool:
    return bool(event["kind"] == kind and event["group"] == group and event["version"] == version)


def _stops(event: Mapping[str, Any], group: str, version: str) -> bool:
    """A person stopped it, or another version took its place. What the policy did, another policy does its own way."""
    if event["group"] != group:
        return False
    if event["kind"] == "rollout-started":
        return bool(event["version"] != version)
    return event["kind"] in _STOPS and (event["kind"] != "rollout-halted" or bool(event["by"]))


def _before(
    ordered: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], group: str, version: str, began: datetime
) -> str:
    for one in after:
        if one["kind"] == "instance-updated" and (match := _INSTEAD_OF.search(one["text"])):
            return match[1] if _is_version(match[1]) else OLDEST
    started = [
        one["version"] for one in ordered
        if one["kind"] == "rollout-started" and one["group"] == group and one["version"] != version
        and _at(one) < began
    ]  # fmt: skip
    return started[-1] if started else OLDEST


def _is_version(text: str) -> bool:
    try:
        versions.parse(text)
    except ConfigError:
        return False
    return True
