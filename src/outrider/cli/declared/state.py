"""What a file declares, and what the update service has: the same shapes, so that they can be compared.

None stands for what the file doesn't say; that stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from outrider.cli.declared.extra_files import ExtraFile
from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError
from outrider.core.tasks import TaskSpec

MASKED = "***"
"""How a secret is written out; read again it means: the one that there is."""

Kind = Literal["url", "file", "files", "image", "stored"]


class DeclarationError(ConfigError):
    """A file that can't be applied.

    Attributes:
        problems: All of them, ``shop.toml:12: what is wrong; what to do``.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Where a package's payload comes from.

    Attributes:
        kind: ``url``: another server. ``file``: a file to upload. ``files``: texts in the declaration itself, packed
            into a tar. ``image``: a container image. ``stored``: uploaded before.
        where: The address, the image's reference, the file's name (of ``files`` and ``stored`` the payload's).
        path: Of ``file``.
        content: Of ``files``: the tar.
        size_bytes: Of ``url``.
        sha256: 64 hex digits; empty: not said.
        sha1: As it is written; empty: not said.
        digest: Of ``image``; empty: what its registry says.
    """

    kind: Kind
    where: str
    path: Path | None = None
    content: bytes = b""
    size_bytes: int | None = None
    sha256: str = ""
    sha1: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageState:
    """A version with its payload. It never changes."""

    version: str
    payload: Payload
    arch: str | None = None
    required: bool | None = None
    release_notes: str | None = None
    tasks: tuple[TaskSpec, ...] | None = None
    extra_files: tuple[ExtraFile, ...] | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A channel.

    Attributes:
        floors: Version -> reason.
        etag: Of the service's document; None: it isn't the service's.
    """

    name: str
    version: str | None = None
    publish: bool | None = None
    follow: str | None = None
    follow_moves: bool | None = None
    floors: Mapping[str, str] | None = None
    excluded: frozenset[str] | None = None
    allow_missing: bool = False
    etag: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentState:
    """The whole environment of a group.

    Attributes:
        secrets: ``***``: the one that there is.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """A group.

    Attributes:
        policy: All settings, as the REST API has them.
        sidekick: Section -> key -> value: settings of its sidekicks on the machine where the file is used for them.
        pinned: `rollout undo` took it back; the version.
    """

    name: str
    channel: str | None = None
    label: str | None = None
    slots: int | None = None
    paused: bool | None = None
    identity: str | None = None
    policy: Json | None = None
    environment: EnvironmentState | None = None
    sidekick: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    pinned: str = ""
    etag: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppState:
    """An app with all that belongs to it.

    Attributes:
        name: As the file spells it, or the service's id.
        instances: Group -> ids of instances that have checked in, or live.
        living: Group -> those whose sidekicks live.
    """

    name: str
    id: str
    label: str | None = None
    description: str | None = None
    product_id: str | None = None
    packages: Mapping[str, PackageState] = field(default_factory=dict)
    channels: Mapping[str, ChannelState] = field(default_factory=dict)
    groups: Mapping[str, GroupState] = field(default_factory=dict)
    instances: Mapping[str, frozenset[str]] = field(default_factory=dict)
    living: Mapping[str, frozenset[str]] = field(default_factory=dict)
    etag: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookState:
    """A webhook.

    Attributes:
        secret: What signs its deliveries; empty: the one that there is, or a random one.
        fingerprint: What the service tells of its secret.
    """

    name: str
    url: str
    app: str | None = None
    least: str | None = None
    secret: str = ""
    fingerprint: str = ""
    etag: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything.

    Attributes:
        apps: By id.
        webhooks: By name.
        file: Name of the file, for messages.
    """

    apps: Mapping[str, AppState]
    webhooks: Mapping[str, WebhookState]
    file: str = ""
