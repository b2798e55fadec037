"""Groups, and what their instances must run."""

from datetime import datetime
from typing import Literal

import msgspec

from outrider.core.release import ReleaseId
from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.frames import Frame
from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents.base import Document
from outrider.model.documents.instances import Instance


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """A group that an operator took back to an earlier version, which is its target until it follows its channel again.

    Attributes:
        version, environment, environment_digest: Of the release that it went back to.
        abandoned: Label of the target before.
        at_once: The way back does not wait for an update window.
    """

    version: str
    abandoned: str
    by: str = ""
    why: str = ""
    at: datetime
    at_once: bool = False
    environment: int = 0
    environment_digest: str = ""


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """The last rolling restart of a group: it counts as long as the group wants this version and environment."""

    generation: int
    version: str
    environment: int = 0
    by: str = ""
    why: str = ""
    at: datetime


class GroupBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A release that is blocked for one group only, because an operator undid it there. ``version``: its label.

    Attributes:
        release: Which one it is; None: an older service wrote it.
    """

    version: str
    by: str = ""
    why: str = ""
    at: datetime
    release: ReleaseId | None = None

    @property
    def reason(self) -> str:
        """For a person."""
        return "undone in this group" + (f" by {self.by}" if self.by else "") + (f": {self.why}" if self.why else "")


IdentityMode = Literal["auto", "required", "optional"]


class Group(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}``: instances that follow one channel under one policy.

    Attributes:
        slots: Instances of the group that may swap at the same time.
        undo: Its target is an earlier version, not its channel's.
        blocked: Releases that are blocked for this group only; newest last, bounded by the service.
        environment, environment_digest: Of the environment that its releases run with; 0 and empty: none.
        environments, generations: The last number of each that was given; none is ever given twice.
        back_to, back_at_once: Label of the release that an operator took it back to without leaving its channel, and
            whether that waits for no update window.
        identity: Whether a check-in must be proved; auto: once there was a sidekick that proves itself.
        had_sidekick: There was one.
        frames_since: When its frames were activated, which then say the percentage; None: the policy says it.
    """

    app: str
    id: str
    label: str
    channel: str
    paused: bool = False
    slots: int = 1
    policy: Policy = Policy()
    undo: Undo | None = None
    blocked: tuple[GroupBlock, ...] = ()
    environment: int = 0
    environment_digest: str = ""
    environments: int = 0
    restarted: Restarted | None = None
    generations: int = 0
    back_to: str = ""
    back_at_once: bool = False
    identity: IdentityMode = "auto"
    had_sidekick: bool = False
    frames_since: datetime | None = None
    created: datetime

    @property
    def titled(self) -> str:
        """Its id, which is what commands take, with its name for people when that is another one."""
        return self.id if self.label in ("", self.id) else f"{self.id} ({self.label})"

    @property
    def percent(self) -> float:
        """What the policy says of its instances; active frames may say something else."""
        return self.policy.percent

    @property
    def requires_identity(self) -> bool:
        """An unproved check-in gets nothing, and counts for nothing."""
        return self.identity == "required" or (self.identity == "auto" and self.had_sidekick)

    def counts(self, row: Instance) -> bool:
        """Whether an instance of the group counts by its row alone, without a living sidekick."""
        return row.proved or not self.requires_identity

    def release_of(self, version: str, sha256: str = "") -> ReleaseId:
        """The release of ``version`` that the group wants now."""
        undo, restarted = self.undo, self.restarted
        if undo is not None and undo.version == version:
            number, digest = undo.environment, undo.environment_digest
        else:
            number, digest = self.environment, self.environment_digest
        counts = restarted is not None and (restarted.version, restarted.environment) == (version, number)
        return ReleaseId(
            version=version,
            sha256=sha256,
            environment=number,
            environment_digest=digest,
            generation=restarted.generation if restarted is not None and counts else 0,
        )


class Served(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/served``: releases whose rollouts finished, newest last; bounded by the service.

    Attributes:
        versions: Theirs; all that an older service knows of them.
    """

    versions: tuple[str, ...] = ()
    releases: tuple[ReleaseId, ...] = ()


class Frames(Document, frozen=True, kw_only=True):
    """``frames/{app}/{group}``: steps of the group's percentage, as CoreUpdate's clients have set them."""

    app: str
    group: str
    frames: tuple[Frame, ...]


class Target(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/target``: the release that the group's instances must run.

    Attributes:
        version: None while the channel points at nothing.
        sha256: Of the payload, 64 lower-case hex digits; empty without a version.
        slots: How many instances may swap at once.
        go_back: Instances that run a newer version go back to this one, whatever the policy says of downgrades.
        environment, environment_digest, generation: Of the release (``core.release``).
        budgets: Disruption budgets of the group.
        others: Further releases that the update service has offered under this target, newest last: floors, and what
            the group serves. A sidekick runs no other payload than these and the target's own (P13).
        since: When the group was given this release; None of one that an older service has written.
    """

    version: str | None
    sha256: str = ""
    paused: bool = False
    slots: int = 1
    go_back: bool = False
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0
    budgets: tuple[Budget, ...] = ()
    others: tuple[ReleaseId, ...] = ()
    since: datetime | None = None

    @property
    def releases(self) -> tuple[ReleaseId, ...]:
        """Every release that an instance of the group may be offered now."""
        return self.others if self.release is None else (self.release, *self.others)

    @property
    def release(self) -> ReleaseId | None:
        """Which release it is; None without a version."""
        if self.version is None:
            return None
        return ReleaseId(
            version=self.version,
            sha256=self.sha256,
            environment=self.environment,
            environment_digest=self.environment_digest,
            generation=self.generation,
        )

    @property
    def label(self) -> str | None:
        """The release for people, and for what is compared; None without a version."""
        release = self.release
        return None if release is None else release.label
