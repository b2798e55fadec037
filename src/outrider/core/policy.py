"""May this instance update now? Values in, a verdict with its reason out.

The order of the rules is their rank: what an operator did (pause) comes before what a release did (poison), and both
before what the versions say, so that the reason shown is the one to act on.
"""

from dataclasses import dataclass

from outrider.core import versions
from outrider.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when an instance asks.

    Attributes:
        running: Version the instance reports; any text.
        wanted: Version the group shall run; None while its channel points at nothing that can be installed.
        channel: Name of the group's channel, for the reasons.
        paused: The group is paused.
        poisoned: Why ``wanted`` is marked bad; None when it isn't.
    """

    running: str
    wanted: str | None
    channel: str = ""
    paused: bool = False
    poisoned: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The instance may update to ``version`` now."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The instance shall do nothing now.

    Attributes:
        reason: For a person, one line.
        pending: There is an update for it, which is kept back; False when it has what its group shall run.
    """

    reason: str
    pending: bool = False


Verdict = Grant | Hold


def decide(situation: Situation) -> Verdict:
    """Judge one update check."""
    wanted = situation.wanted
    if wanted is None:
        pause = "group is paused; " if situation.paused else ""
        return Hold(reason=f"{pause}channel {situation.channel!r} offers nothing yet")
    versions_say = _compare(situation.running, wanted)
    pending = isinstance(versions_say, Grant)
    if situation.paused:
        return Hold(reason="group is paused", pending=pending)
    if situation.poisoned is not None:
        why = f": {situation.poisoned}" if situation.poisoned else ""
        return Hold(reason=f"{wanted} is marked bad{why}", pending=pending)
    return versions_say


def _compare(running: str, wanted: str) -> Verdict:
    if running == wanted:
        return Hold(reason="up to date")
    try:
        if versions.is_newer(wanted, running):
            return Grant(version=wanted)
        if versions.is_newer(running, wanted):
            return Hold(reason=f"running {running} is newer than the channel's {wanted}")
    except ConfigError:
        # A guess could install an older version; the row in the fleet's list shows the operator what was reported.
        return Hold(reason=f"reported version {running!r} is not semver, so it can't be compared with {wanted}")
    return Hold(reason=f"running {running} ranks as {wanted}: build metadata doesn't count")
