"""The values behind the keys: JSON documents with a schema version, decoded strictly (design, section 5).

A document from another schema version is refused with one clear line, never half understood. Times are aware UTC,
written as RFC 3339.
"""

from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from outrider.core.errors import Conflict
from outrider.core.images import ImagePlatform, parse_image
from outrider.core.release import ReleaseId
from outrider.core.rollout.budgets import Budget
from outrider.core.rollout.frames import Frame
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Opened, Progress
from outrider.core.tasks import TaskSpec
from outrider.model.keys import group_scope, shared_scope

SCHEMA = 1


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of every stored value. Unknown fields are tolerated: a newer writer may have added some."""

    schema: int = SCHEMA


class App(Document, frozen=True, kw_only=True):
    """``apps/{app}``.

    Attributes:
        id: A UUID in lower case, or a name.
        product_id: Reverse-DNS name by which Omaha clients may call the app as well; None without one.
    """

    id: str
    label: str
    description: str = ""
    product_id: str | None = None
    created: datetime


class Product(Document, frozen=True, kw_only=True):
    """``products/{product}``: which app has this product id; the key makes it unique."""

    app: str


class PackageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the payload of a package, such as a signature: it lies in the same folder.

    Attributes:
        sha1: Base64, 28 characters; empty when unknown.
        sha256: 64 lower-case hex digits.
    """

    name: str
    size_bytes: int
    sha1: str = ""
    sha256: str


class Package(Document, frozen=True, kw_only=True):
    """``apps/{app}/packages/{version}``.

    Attributes:
        url: Full address of the payload; None for a file stored by the service (served below its own address).
        name: File name of the payload, the last part of its address.
        sha1: Base64, 28 characters, for old Omaha clients; empty when unknown.
        sha256: 64 lower-case hex digits.
        image: Reference of a container image; the payload is its descriptor then. Empty for a file.
        digest: Of the image's index or manifest. Empty for a file, and while the image's tag is not resolved.
        platforms: What the registry has said of each platform's part; empty when it was not asked.
        arch: What it runs on: ``all``, or one architecture as ``core/architectures.py`` names it.
        required: On the wire; clients may leave out a package that isn't.
        tasks: What runs once for a release of it.
        files: What clients of Omaha find beside the payload; sidekicks take the payload alone.
    """

    app: str
    version: str
    url: str | None
    name: str
    size_bytes: int
    sha1: str = ""
    sha256: str
    release_notes: str = ""
    image: str = ""
    digest: str = ""
    platforms: tuple[ImagePlatform, ...] = ()
    arch: str = "all"
    required: bool = True
    tasks: tuple[TaskSpec, ...] = ()
    files: tuple[PackageFile, ...] = ()
    created: datetime

    @property
    def image_digest(self) -> str:
        """The image's digest, also of a package that an older service has stored; empty when it isn't known."""
        return self.digest or (parse_image(self.image).digest if self.image else "")

    @property
    def is_unresolved(self) -> bool:
        """It is an image of which nobody knows yet which one."""
        return bool(self.image) and not self.image_digest


class Unresolved(Document, frozen=True, kw_only=True):
    """``unresolved/{app}/{version}``: a package whose image has no digest yet; the service asks the registry again.

    Attributes:
        why: What the registry said last, or why it said nothing.
    """

    app: str
    version: str
    image: str
    why: str
    at: datetime


class Signatures(Document, frozen=True, kw_only=True):
    """``apps/{app}/signatures/{version}``: what was signed of a package; whoever needs it checks it.

    Attributes:
        envelopes: DSSE envelopes as JSON, newest last; bounded by the service.
        minisign: Signature files of minisign, newest last; bounded by the service.
    """

    envelopes: tuple[str, ...] = ()
    minisign: tuple[str, ...] = ()


class KeyLists(Document, frozen=True, kw_only=True):
    """``apps/{app}/key-lists``: which keys took the place of which, as DSSE envelopes in order; bounded by the
    service. Each is signed by enough of the keys before it.
    """

    envelopes: tuple[str, ...] = ()


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """A version that an instance must have run on its way to a channel's version, and why."""

    version: str
    reason: str = ""


class Channel(Document, frozen=True, kw_only=True):
    """``apps/{app}/channels/{channel}``: a name that points at a package, or at none yet.

    Attributes:
        floors: In the order of their versions; each has a package.
        excluded: Versions that the channel can't be pointed at.
        follow: What it follows at a registry, as ``core.follow`` reads it; empty: nothing.
        follow_moves: A followed tag also becomes its version.
    """

    app: str
    name: str
    version: str | None = None
    publish: bool = False
    floors: tuple[Floor, ...] = ()
    excluded: tuple[str, ...] = ()
    follow: str = ""
    follow_moves: bool = False
    created: datetime


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
    def percent(self) -> float:
        """What the policy says of its instances; active frames may say something else."""
        return self.policy.percent

    @property
    def requires_identity(self) -> bool:
        """An unproved check-in gets nothing, and counts for nothing."""
        return self.identity == "required" or (self.identity == "auto" and self.had_sidekick)

    def counts(self, row: "Instance") -> bool:
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


class Rollout(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/rollout``: how far the group is. Every grant and every result is written here, too.

    One of another version than the target's is over; the first who grants something writes the new one. The open
    grants are only counted here; each has its own key, which is made and deleted in a transaction that writes this.
    """

    progress: Progress


class OpenGrant(Document, frozen=True, kw_only=True, omit_defaults=True):
    """``apps/{app}/groups/{group}/grants/{instance}``, without a lease.

    The service writes and deletes it, together with the rollout that counts it; it ends one that is overdue. The
    sidekick writes it once: the transaction that takes a turn for the update compares it and sets ``begun``, so a
    grant ends either before the swap begins or not at all.

    Attributes:
        version: Label of the release.
        takes_turns: The instance is a sidekick that takes a turn against this grant. The grant of any other client
            can't be taken back, because nothing tells when its update begins.
        ends_after_s: So long after the service has first seen it, an update without a result is over; 0: of an older
            version of outrider, under a lease.
        begun: When it took its turn; None before.
        begin_before: From this time on no turn is taken for it; None: no limit.
        for_new_machine, wave, in_interval: What it counts for, as in ``rollout.Opened``.
        brake: etcd revision of the group's brake when the grant was made; 0 when there was none.
        running, runs, arch, prefix, rollback_allowed, rollback_forbidden: As the instance described itself.
    """

    version: str
    at: datetime
    takes_turns: bool = False
    ends_after_s: float = 0.0
    begun: datetime | None = None
    begin_before: datetime | None = None
    for_new_machine: bool = False
    wave: int = 0
    in_interval: bool = True
    brake: int = 0
    running: str = ""
    runs: str = ""
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False

    def opened(self, instance: str) -> Opened:
        """What the rollout counts."""
        return Opened(
            instance=instance,
            version=self.version,
            at=self.at,
            for_new_machine=self.for_new_machine,
            wave=self.wave,
            in_interval=self.in_interval,
        )


class Brake(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/brake``: its revision counts, its content is for people.

    A grant names the revision under which it was made, and no turn is taken for it under another one.

    Attributes:
        verb: What was done: pause, halt, resume, undo, reject, override-end, group-pause, group-unpause or policy.
        by: The operator's name.
        after: The revision before, so that no two brakes are alike: each is written, and has a revision of its own.
    """

    verb: str
    by: str = ""
    at: datetime
    after: int = 0


class Deferral(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/deferrals/{instance}``: a deferred instance; the create revisions are the
    order.

    What the instance said of itself stands here as well, so that it can be judged without being asked.

    Attributes:
        runs: Label of the release that it runs; empty: it names a version only.
        is_new: It never ran anything.
        asked_at: When it asked last; written anew now and then.
        woken_at: When it was called and hasn't asked since; a place is kept for it for a while.
        calls: How often it was called since it asked last.
        proved: Its check-in was.
        takes_turns: It is a sidekick's.
    """

    running: str
    runs: str = ""
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False
    is_new: bool = False
    since: datetime
    asked_at: datetime
    woken_at: datetime | None = None
    calls: int = 0
    proved: bool = False
    takes_turns: bool = False


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
    labels: dict[str, str] = {}

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
    labels: dict[str, str] = {}
    serves_release: str = ""
    serves_url: str = ""
    secret_sha256: str = ""
    until: datetime | None = None
    again_at: datetime | None = None

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


class Contender(Document, frozen=True, kw_only=True):
    """An instance that takes turns, and where: what all keys of a scope say, so that no key is ever taken apart.

    Attributes:
        app: By its canonical key.
        shared_scope: Name of the operator's scope; empty: the turns are those of the group.
        labels: Of the instance. Those of a slot key are frozen: they hold until the turn ends.
    """

    app: str
    group: str
    instance: str
    shared_scope: str = ""
    labels: dict[str, str] = {}

    @property
    def scope(self) -> str:
        """Where its turns are counted."""
        return shared_scope(self.shared_scope) if self.shared_scope else group_scope(self.app, self.group)

    @property
    def member(self) -> str:
        """Its name there. An instance's name is unique in its app only, and an operator's scope has several apps."""
        return f"{self.app}/{self.instance}" if self.shared_scope else self.instance

    def waiter(self, *, release: str, since: datetime) -> "Waiter":
        """What its key in the queue says."""
        return Waiter(
            app=self.app,
            group=self.group,
            instance=self.instance,
            shared_scope=self.shared_scope,
            labels=self.labels,
            release=release,
            since=since,
        )

    def slot(self, *, release: str, since: datetime, update: str) -> "Slot":
        """What its slot key says."""
        return Slot(
            app=self.app,
            group=self.group,
            instance=self.instance,
            shared_scope=self.shared_scope,
            labels=self.labels,
            release=release,
            since=since,
            update=update,
        )


class Waiter(Contender, frozen=True, kw_only=True):
    """``{scope}/queue/{member}``, under the sidekick's lease. ``release``: the version it wants to run."""

    release: str
    since: datetime


class Slot(Contender, frozen=True, kw_only=True):
    """``{scope}/slots/{n}/{member}``, without a lease: it outlives its owner, so that a crash can't free it.

    Attributes:
        update: Id of the update in the owner's journal: how a restarted sidekick knows the turn as its own.
    """

    release: str
    since: datetime
    update: str

    @property
    def frozen_labels(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each label that it was taken under, by name."""
        return tuple(sorted(self.labels.items()))


class BudgetSlot(Contender, frozen=True, kw_only=True):
    """``{scope}/budgets/{label}={value}/slots/{n}/{member}``, without a lease: it comes and goes with a turn.

    Attributes:
        label, value: Of the instance, which the budget counts.
        turn: Number of the turn's slot.
        update: As in that slot.
    """

    label: str
    value: str
    turn: int
    update: str
    since: datetime


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote a server's entry in the balancer.

    Attributes:
        app: By its canonical key.
        workload: Id of the workload that the entry names; empty when the entry was removed.
        process: Id of the sidekick's process, made anew at each start.
    """

    app: str
    group: str
    instance: str
    workload: str = ""
    process: str = ""


class WriteGuard(Document, frozen=True, kw_only=True):
    """``servers/{service}/{server}``: written with every change of the server's entry in the balancer.

    A change that was sent before the last write guard is refused, by its revision. Its owner alone may write, as long
    as that owner's process has a presence.

    Attributes:
        url: What the entry was last made to be; None: it was removed.
        owner: None when a sidekick wrote it that knew of no owners yet.
        prefix: All of the balancer's keys of this server lie below it; empty when unknown.
        shared: Key of a value in which this server is one of many; empty when it has keys of its own.
    """

    url: str | None
    owner: Owner | None = None
    prefix: str = ""
    shared: str = ""


class Block(Document, frozen=True, kw_only=True):
    """``blocks/{app}/{release}``: a release proved bad, until an operator unblocks it.

    Attributes:
        group: Whose release it is; empty for one without environment and generation, which is every group's.
        task: Key of the task whose failure blocks it, below the prefix; empty: it was no task.
        update: The update whose turn it was proved under (``Slot.update``); empty: under none.

    It counts with its writer's own copy alone (``verdicts/{app}/{instance}/{release}``): the same bytes, in a key that
    nobody but that instance, and the service, may write.
    """

    version: str
    sha256: str
    instance: str
    why: str
    at: datetime
    group: str = ""
    task: str = ""
    update: str = ""
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0

    @property
    def release(self) -> ReleaseId:
        """Which release it is."""
        return ReleaseId(
            version=self.version,
            sha256=self.sha256,
            environment=self.environment,
            environment_digest=self.environment_digest,
            generation=self.generation,
        )

    @property
    def label(self) -> str:
        """The release for people."""
        return self.release.label

    @property
    def key(self) -> str:
        """The release as a part of the key."""
        return self.release.key(self.group)


DRAIN_S = 1800.0
"""How long a drain may take before a person must look, unless the operator says otherwise."""
Verb = Literal["pause", "resume", "rollback", "retry", "drain", "undrain", "decommission"]


class Proof(Document, frozen=True, kw_only=True):
    """``apps/{app}/releases/{release}/proved``: an instance has committed the release. The first one stays.

    Nothing that another instance meets blocks the release from then on; it counts as that instance's failure.
    """

    version: str
    sha256: str
    instance: str
    at: datetime


class Command(Document, frozen=True, kw_only=True):
    """``commands/{app}/{instance}``: an operator's command to one sidekick; the sidekick removes it when taken.

    Attributes:
        version: Where a rollback is to go; empty for the version before.
        for_s: Of ``drain``: seconds after which a person must look.
        id: Made by the service; empty when an older one wrote it.
        until_reboot: Of ``drain``: come back by itself after the machine's next boot.
    """

    verb: Verb
    for_s: float = DRAIN_S
    until_reboot: bool = False
    id: str = ""
    by: str
    at: datetime
    version: str = ""


class Crash(Document, frozen=True, kw_only=True):
    """``crashes/{app}/{instance}``, under a lease of an hour: what a sidekick died of.

    Attributes:
        state: Full dotted path of the chart's state in which it died.
        what: The exception in a line.
        count: How often it died within that hour; ``first`` and ``at``: when first and last.
    """

    app: str
    group: str
    instance: str
    state: str
    what: str
    count: int
    first: datetime
    at: datetime


Role = Literal["viewer", "approver", "operator", "admin"]


class User(Document, frozen=True, kw_only=True):
    """``users/{name}``: a user of the service's API.

    Attributes:
        token_sha256: Of the token, 64 lower-case hex digits. A plain, fast hash is enough, because nobody can try
            2**256 tokens; passwords, which people choose, would need a slow one.
        token_end: The token's last four characters, for a person who wonders which one it is.
        apps: The role holds for these apps alone, by their ids; empty: for all.
        hawk_key: A second key, by which CoreUpdate's clients sign (Hawk). It must be readable: who checks a signature
            needs the key itself. Empty: the user has none.
        created: When the user was made; ``token_created`` when the present token was.
    """

    name: str
    role: Role
    token_sha256: str
    token_end: str
    apps: tuple[str, ...] = ()
    hawk_key: str = ""
    created: datetime
    token_created: datetime

    @property
    def has_hawk_key(self) -> bool:
        """It may sign requests to CoreUpdate's API."""
        return bool(self.hawk_key)


def unreadable_gone(app: str, group: str, instance: str, at: datetime) -> Gone:
    """Stands for a marker that can't be read: the instance is kept out all the same."""
    return Gone(app=app, group=group, instance=instance, how="deleted", by="(a marker that can't be read)", at=at)


class Wakeup(Document, frozen=True, kw_only=True):
    """``wakeups/{app}/{instance}``: ask the update service again now."""

    why: str


D = TypeVar("D", bound=Document)
_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(document: Document) -> bytes:
    """Write a document as one line of JSON with sorted keys."""
    return _ENCODER.encode(document)


def decode(kind: type[D], key: str, value: bytes) -> D:
    """Read the document stored at ``key``.

    Raises:
        Conflict: not JSON, not this kind of document, or of another schema version.
    """
    try:
        document = msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise Conflict(f"{key}: not a {kind.__name__.lower()} document: {error}") from error
    if document.schema != SCHEMA:
        raise Conflict(
            f"{key}: schema {document.schema}, this outrider reads schema {SCHEMA}; use the version that wrote it"
        )
    return document
