"""Instances: how the service saw them, how they live, and how they went."""

from datetime import datetime
from typing import Literal

import msgspec

from outrider.core.release import ReleaseId
from outrider.model.documents.base import Document


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an instance's history: an Omaha event as it was reported.

    Attributes:
        release: Label of what it ran, where the version doesn't say all.
    """

    at: datetime
    version: str
    event: str
    error_code: int = 0
    request_id: str = ""
    release: str = ""


class Instance(Document, frozen=True, kw_only=True):
    """``instances/{app}/{instance}``: one row per sidekick or foreign Omaha client, as the service saw it last.

    Attributes:
        status: CoreUpdate's word: undefined, update-granted, error, complete, installed, downloaded, downloading,
            on-hold.
        release: Label of the release that it runs; empty for one that names a version only.
        granted_release: Label of the release that was granted, when it says more than ``granted_version``.
        granted_at: When ``granted_version`` was granted.
        arch: As the client named it, in our words; empty when it didn't.
        why: Why its last question was answered with nothing, when there is more to say than that it is up to date.
        labels: As its sidekick's presence had them at the last check-in.
        history: Newest last, bounded by the service.
        had_sidekick: A living sidekick was registered in etcd at one of its check-ins.
        proved: One of its check-ins was proved: from then on only proved ones change anything of it.
    """

    app: str
    id: str
    group: str
    version: str
    status: str = "undefined"
    granted_version: str | None = None
    granted_at: datetime | None = None
    error_code: int = 0
    address: str = ""
    alias: str = ""
    oem: str = ""
    arch: str = ""
    why: str = ""
    first_seen: datetime
    last_seen: datetime
    history: tuple[Happening, ...] = ()
    release: str = ""
    granted_release: str = ""
    had_sidekick: bool = False
    proved: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def is_stranger(self) -> bool:
        """Nobody who may write to etcd, or has a token, ever spoke for it."""
        return not (self.had_sidekick or self.proved)

    @property
    def runs(self) -> str:
        """What it runs, as exactly as it says."""
        return self.release or self.version

    @property
    def granted(self) -> str | None:
        """Label of the release that was granted; None without one."""
        return self.granted_release or self.granted_version

    def is_at(self, release: ReleaseId) -> bool:
        """It runs ``release``, as far as it says: one that names a version only is there at an equal version."""
        return self.release == release.label if self.release else self.version == release.version


class Presence(Document, frozen=True, kw_only=True):
    """``presence/{app}/{group}/{instance}``: the sidekick's live state, gone when its lease ends.

    Attributes:
        state: Full dotted path of the chart's state.
        why: What it waits for, in words for a person; empty when it waits for nothing.
        target_revision: etcd revision of the last target the sidekick has seen.
        serving: It serves, and isn't in the middle of a swap. A sidekick too old to say so counts as serving.
        shared_scope: Name of the operator's scope in which it takes turns; empty: in its group's own.
        process: Id of the sidekick's process, made anew at each start.
        machine: Name of the host.
        notice: What a person must know of what happened to it, although it waits for nothing.
        cannot_take: The version that failed here last and isn't blocked; empty when there is none.
        cannot_why: What is in its way here, and what to do.
        given_up: Version of its last update if that ended without a result (paused, rolled back by an operator,
            called off, refused); the service ends the grant. Empty while it is busy.
        previous: Version that its own rollback leads to; empty: none.
        drain_since: When it was said that it leaves the balancer, until it is back; None: it wasn't.
        drain_for_s: How long that may take before a person must look; 0: nobody said.
        previous_release: Label of that release.
        release, wanted_release: Labels of what runs and of its group's target; empty: a sidekick too old to say so.
        environment: Number of the environment that it runs with.
        labels: Where and what it is; while it holds a turn, those under which it has taken it.
        serves_release, serves_url: Label of the release that the balancer is sent to here, and where that answers: in
            a swap the candidate's, once it is exposed. Empty while that isn't known.
        secret_sha256: Of this process's secret, which it sends with each check-in, 64 lower-case hex digits; empty: a
            sidekick too old to have one.
        until, again_at: When the deadline of ``state`` passes, and when it tries or asks again by itself, by its own
            clock as ``since``; None without such a time.
        outrider: Version of outrider that the sidekick runs; empty: one too old to say so.
    """

    instance: str
    app: str
    group: str
    state: str
    version: str
    wanted: str | None = None
    why: str = ""
    url: str | None = None
    since: datetime
    target_revision: int = 0
    serving: bool = True
    shared_scope: str = ""
    process: str = ""
    machine: str = ""
    notice: str = ""

    cannot_take: str = ""
    cannot_why: str = ""
    given_up: str = ""
    previous: str = ""
    drain_since: datetime | None = None
    drain_for_s: float = 0.0
    previous_release: str = ""
    release: str = ""
    wanted_release: str = ""
    environment: int = 0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    serves_release: str = ""
    serves_url: str = ""
    secret_sha256: str = ""
    until: datetime | None = None
    again_at: datetime | None = None
    outrider: str = ""

    @property
    def wants(self) -> str | None:
        """Its group's target, as exactly as it says."""
        return self.wanted_release or self.wanted

    @property
    def runs(self) -> str:
        """What it runs, as exactly as it says."""
        return self.release or self.version

    def is_at(self, release: ReleaseId | None) -> bool:
        """As ``Instance.is_at``; False without a release."""
        if release is None:
            return False
        return self.release == release.label if self.release else self.version == release.version


class Stranger(Document, frozen=True, kw_only=True):
    """``strangers/{app}/{instance}/{process}``: a living sidekick that may not be the instance that it says it is.

    Under the sidekick's lease, so that it can be seen: its presence would overwrite that of the rightful one.

    Attributes:
        why: For a person.
        machine: Name of the host that it runs on.
    """

    app: str
    group: str
    instance: str
    process: str
    machine: str = ""
    why: str
    since: datetime


class Gone(Document, frozen=True, kw_only=True):
    """``gone/{app}/{instance}``: an instance that was removed for good, until an operator admits it again.

    Attributes:
        how: ``deleted`` by an operator after its end, or ``decommissioned`` while it lived.
        by: Who removed it.
        removal: Of a decommissioning: its id in the sidekick's journal, which is also that of its turn.
        seen_again: When it checked in after that.
    """

    app: str
    group: str
    instance: str
    how: Literal["deleted", "decommissioned"]
    by: str = ""
    removal: str = ""
    at: datetime
    seen_again: datetime | None = None

    @property
    def words(self) -> str:
        """What happened and what undoes it, for a person."""
        by = f" by {self.by}" if self.by else ""
        return (
            f"{self.instance} was {self.how}{by} on {self.at:%Y-%m-%d}; `outrider instance admit {self.app}"
            f" {self.instance}` lets it back"
        )


def unreadable_gone(app: str, group: str, instance: str, at: datetime) -> Gone:
    """Stands for a marker that can't be read: the instance is kept out all the same."""
    return Gone(app=app, group=group, instance=instance, how="deleted", by="(a marker that can't be read)", at=at)


class Admission(Document, frozen=True, kw_only=True):
    """``admissions/{app}/{instance}``: an operator let the instance back after it had gone; its next removal ends it.

    It is an operator's last word: a sidekick whose journal still holds an earlier one, to leave for good, comes back.

    Attributes:
        removal: Which one the marker named that it lifted (``Gone.removal``). Which word is the later one is seen by
            the revisions; but after a restore etcd counts from an earlier one.
    """

    app: str
    instance: str
    removal: str = ""
    at: datetime


class Crash(Document, frozen=True, kw_only=True):
    """``crashes/{app}/{instance}``, under a lease: what a sidekick died of, or why it cannot begin.

    Attributes:
        state: Full dotted path of the chart's state in which it died; empty: before its first.
        what: The exception in a line.
        count: How often it died within that hour; ``first`` and ``at``: when first and last.
        cannot_begin: It did not die: what it needs before its first step is away, or refused. ``count``: its attempts.
    """

    app: str
    group: str
    instance: str
    state: str
    what: str
    count: int
    first: datetime
    at: datetime
    cannot_begin: bool = False
