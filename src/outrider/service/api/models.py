"""Bodies of the REST API, as its OpenAPI document shows them."""

import re
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from outrider.core.errors import ConfigError
from outrider.core.tasks import KINDS, LIMIT_S, Per, TaskScope, TaskSpec
from outrider.model.documents import DRAIN_S, IdentityMode, Verb

M = TypeVar("M", bound=BaseModel)
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is not within the years 1 to 9999 of UTC") from error


UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time, in UTC. Near the ends of the calendar the conversion to UTC fails."""


class Given(BaseModel):
    """A request body. An unknown field is an error; ``"yes"`` is not true, and true is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True)  # merged with the models' own

    @field_validator("*", check_fields=False)
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        # JSON can spell half a character ("\ud800"). UTF-8 cannot, so it can be neither stored nor shown.
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _HALF_A_CHARACTER.search(text):
                raise ValueError("contains half a character (a lone surrogate)")
        return value


class Shown(BaseModel):
    """A response body, made from a stored document."""

    model_config = ConfigDict(from_attributes=True)


class Items(BaseModel, Generic[M]):
    """A page of a list."""

    items: list[M]
    next: str | None = Field(default=None, description="Give it as `after` for the next page; null on the last page.")


class NewApp(Given):
    """A new app."""

    model_config = {
        "json_schema_extra": {"examples": [{"id": "web", "label": "Example", "description": "Sample application"}]}
    }

    id: str | None = Field(None, description="A UUID or a name; default: a random UUID.")
    label: str = ""
    description: str = ""
    product_id: str | None = Field(None, description="Reverse-DNS name: a second id of the app for Omaha clients.")


class AppChange(Given):
    """New values of an app; null keeps a value."""

    model_config = {"json_schema_extra": {"examples": [{"label": "Example"}]}}

    label: str | None = None
    description: str | None = None
    product_id: str | None = Field(None, description="An empty text removes it.")


class AppShown(Shown):
    """An app: an instance is an instance of one app."""

    id: str
    label: str
    description: str
    product_id: str | None
    created: datetime


class NewChannel(Given):
    """A new channel."""

    model_config = {"json_schema_extra": {"examples": [{"name": "stable", "version": "1.1.0"}]}}

    name: str
    version: str | None = Field(None, description="The version that it points at.")
    publish: bool = False
    allow_missing: bool = Field(False, description="Accept a version without a package, which is added later.")


class ChannelChange(Given):
    """New values of a channel; null keeps a value."""

    model_config = {"json_schema_extra": {"examples": [{"version": "2.0.0"}]}}

    version: str | None = None
    publish: bool | None = None
    allow_missing: bool = Field(False, description="Accept a version without a package, which is added later.")
    follow: str | None = Field(
        None, description="IMAGE:RANGE at a registry: the newest tag becomes a package. An empty text ends that."
    )
    follow_moves: bool | None = Field(None, description="A followed tag also becomes the channel's version.")


class ChannelShown(Shown):
    """A name that points at a package; groups follow it."""

    app: str
    name: str
    version: str | None
    publish: bool
    follow: str = Field(description="What it follows at a registry; empty: nothing.")
    follow_moves: bool
    created: datetime
    notes: list[str] = Field([], description="Further notes for a person.")


IDENTITY = (
    "Whether a check-in must be proved: `required`, `optional`, or `auto`: once the group had a sidekick that proves "
    "itself."
)


class GroupChange(Given):
    """New values of a group; null keeps a value."""

    model_config = {"json_schema_extra": {"examples": [{"paused": True}]}}

    label: str | None = None
    channel: str | None = None
    slots: int | None = None
    paused: bool | None = None
    identity: IdentityMode | None = Field(None, description=IDENTITY)


class UndoShown(Shown):
    """A group that was taken back: its target until it follows its channel again."""

    version: str
    environment: int = Field(0, description="Number of the environment that it went back to; 0: none.")
    abandoned: str = Field(description="The target before; empty: the same release.")
    by: str
    why: str
    at: datetime
    at_once: bool = Field(description="It does not wait for an update window.")


class RestartedShown(Shown):
    """The last rolling restart of a group."""

    generation: int
    version: str
    environment: int
    by: str
    why: str
    at: datetime


class GroupBlockShown(Shown):
    """A release that is blocked for this group only, because it was undone there."""

    version: str = Field(description="Of the release, with its environment and generation.")
    by: str
    why: str
    at: datetime


class GroupShown(Shown):
    """A group: its instances follow one channel under one policy."""

    app: str
    id: str
    label: str
    channel: str
    paused: bool
    slots: int
    identity: IdentityMode = Field("auto", description=IDENTITY)
    requires_identity: bool = Field(False, description="An unproved check-in gets no update, and counts for nothing.")
    undo: UndoShown | None = Field(None, description="Set while the group is pinned by `rollout undo`.")
    blocked: list[GroupBlockShown] = Field([], description="Releases that only this group does not take.")
    environment: int = Field(0, description="Number of the environment that its releases run with; 0: none.")
    restarted: RestartedShown | None = Field(None, description="Its last rolling restart.")
    percent: float = Field(100.0, description="Share of its instances that may update now.")
    rollout_active: bool = Field(False, description="Frames, as CoreUpdate has them, raise the percentage by and by.")
    created: datetime
    notes: list[str] = []


class TargetShown(Shown):
    """The target of a group: the release for its instances."""

    version: str | None
    sha256: str
    paused: bool
    slots: int
    environment: int = Field(0, description="Number of its environment; 0: none.")
    generation: int = Field(0, description="Of the rolling restart that made it; 0: none did.")
    label: str | None = Field(None, description="All of it, for people.")


class TaskGiven(Given):
    """A program that runs once for a release."""

    name: str = Field("", description="Unique in the package. Default: its kind.")
    kind: str = Field(
        description="pre: before the first instance swaps. post, contract: once the group has it. on-failure: once it"
        " is blocked."
    )
    command: list[str] = Field(description="Program and arguments; an absolute path is a program of the machine.")
    limit_s: float = Field(LIMIT_S, description="It is ended, and has failed, after so many seconds.")
    repeatable: bool = Field(False, description="It is run again when nobody knows how far it came.")
    per: Per = Field("payload", description="release: also for another environment, and for a rolling restart.")
    scope: TaskScope = Field("group", description="app: once for all groups.")

    def to_task(self) -> TaskSpec:
        """As it is stored; ``check_tasks`` says what is wrong with it."""
        kind = next((one for one in KINDS if one == self.kind), None)
        if kind is None:
            raise ConfigError(f"task {self.name or self.kind!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        return TaskSpec(
            name=self.name or self.kind,
            kind=kind,
            command=tuple(self.command),
            limit_s=self.limit_s,
            repeatable=self.repeatable,
            per=self.per,
            scope=self.scope,
        )


class FileGiven(Given):
    """A file beside the payload: uploaded (`stored`), or in the folder of the package's `url`."""

    name: str
    stored: str | None = Field(None, description="SHA-256 of an uploaded file.")
    size_bytes: int | None = None
    sha256: str | None = Field(None, description="64 hex digits, or base64.")
    sha1: str = Field("", description="Base64, or 40 hex digits.")


class FileShown(Shown):
    """A file beside the payload of a package."""

    name: str
    size_bytes: int
    sha1: str
    sha256: str


class NewPackage(Given):
    """A version with its payload.

    Either `url` with `size_bytes` and `sha256`; or `stored`, the SHA-256 of an uploaded file, with its `name`; or
    `image`.
    """

    model_config = {"json_schema_extra": {"examples": [{"version": "1.0.0", "image": "coreos/example:1.0.0"}]}}

    version: str
    url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = Field(None, description="64 hex digits, or base64.")
    sha1: str = Field("", description="Base64, or 40 hex digits.")
    stored: str | None = Field(None, description="SHA-256 of an uploaded payload.")
    name: str | None = Field(None, description="File name of a stored payload.")
    image: str | None = Field(
        None,
        description="Reference of a container image, with tag or digest; the payload is then its descriptor.",
        examples=["coreos/example:1.0.0"],
    )
    digest: str | None = Field(
        None, description="Of the image: sha256 and 64 hex digits. Default: what its registry says of the tag."
    )
    release_notes: str = ""
    arch: str = Field("all", description="Architecture: all, amd64, aarch64...")
    required: bool = True
    tasks: list[TaskGiven] = Field([], description="What runs once for a release of it.")
    files: list[FileGiven] = Field([], description="Files beside the payload, for Omaha clients that take several.")


class NewDigest(Given):
    """Which image a package is."""

    model_config = {"json_schema_extra": {"examples": [{"digest": "sha256:" + "ab" * 32}]}}

    digest: str | None = Field(None, description="Default: what its registry says of the tag now.")


class PlatformShown(Shown):
    """One platform's part of an image."""

    platform: str
    manifest: str
    config: str
    size_bytes: int = Field(description="Of its layers as they are sent; 0: unknown.")


class PackageTaskShown(Shown):
    """A program that runs once for a release."""

    name: str
    kind: str
    command: list[str]
    limit_s: float
    repeatable: bool
    per: str
    scope: str


class PackageShown(Shown):
    """A version of an app with its payload. It never changes."""

    app: str
    version: str
    url: str | None = Field(description="Null: this service serves the payload.")
    download_url: str = Field("", description="Address of the payload.")
    name: str
    size_bytes: int
    sha1: str
    sha256: str
    release_notes: str
    image: str = Field(description="Reference of a container image; empty when the payload is a file.")
    digest: str = Field(description="Of the image's index or manifest; empty for a file, and while it is not known.")
    platforms: list[PlatformShown] = Field(description="What the registry has said of each platform of the image.")
    arch: str
    required: bool
    tasks: list[PackageTaskShown] = Field([], description="What runs once for a release of it.")
    files: list[FileShown] = Field([], description="Files beside the payload.")
    created: datetime
    notes: list[str] = Field([], description="Further notes for a person.")


class NeededShown(Shown):
    """What needs a package."""

    needed: str = Field(description="Why it cannot be deleted now; empty when it can.")


class PayloadShown(Shown):
    """A stored file with its measured size and digests."""

    sha256: str
    sha1: str
    size_bytes: int


class HappeningShown(Shown):
    """An event from an instance."""

    at: datetime
    version: str
    release: str = Field("", description="What it ran, where the version does not say all.")
    event: str
    error_code: int
    request_id: str


class InstanceShown(Shown):
    """An instance as of its last check-in."""

    app: str
    id: str
    group: str
    version: str
    release: str = Field("", description="What it runs, with its environment; empty: it names a version only.")
    status: str
    proved: bool = Field(False, description="A check-in of it was proved; only such ones change it from then on.")
    granted_version: str | None
    granted_release: str = ""
    granted_at: datetime | None
    error_code: int
    address: str
    alias: str
    oem: str
    arch: str
    why: str = Field(description="Why the last check-in got no update; empty: it got one, or is up to date.")
    first_seen: datetime
    last_seen: datetime
    history: list[HappeningShown]
    labels: dict[str, str] = Field({}, description="As its sidekick had them at the last check-in.")


class GoneShown(Shown):
    """An instance that was removed for good."""

    app: str
    group: str
    instance: str
    how: str = Field(description="deleted by an operator after its end, or decommissioned while it lived.")
    by: str
    at: datetime
    seen_again: datetime | None = Field(description="When it checked in after that.")


class PresenceShown(Shown):
    """The state of a living sidekick, as it reports it."""

    instance: str
    app: str
    group: str
    state: str
    version: str
    wanted: str | None
    release: str = Field("", description="What it runs, with environment and generation.")
    wanted_release: str = Field("", description="Its group's target, with environment and generation.")
    environment: int = 0
    why: str
    url: str | None
    since: datetime
    labels: dict[str, str] = {}


class BlockShown(Shown):
    """A blocked release: an instance proved it bad, and no instance gets it until it is unblocked."""

    version: str
    key: str = Field("", description="Its name in the path that unblocks it.")
    label: str = Field("", description="The release with its environment and generation, for people.")
    group: str = Field("", description="Whose release it is; empty: every group's.")
    sha256: str
    instance: str
    why: str
    at: datetime
    notes: list[str] = Field([], description="Further notes for a person.")


class NewCommand(Given):
    """A new command for a sidekick."""

    model_config = {"json_schema_extra": {"examples": [{"verb": "retry"}]}}

    verb: Verb
    by: str = Field("", description="Name of the operator, for the sidekick's log.", max_length=200)
    version: str = Field("", description="Version that a rollback goes to; empty: the version before.", max_length=128)
    for_s: float = Field(DRAIN_S, description="Of a drain: seconds after which a person must look.", gt=0, le=604800)
    until_reboot: bool = Field(False, description="Of a drain: the instance comes back after its machine's next boot.")


class CommandShown(Shown):
    """A command that waits for its sidekick."""

    verb: str
    by: str
    at: datetime
    version: str = ""
