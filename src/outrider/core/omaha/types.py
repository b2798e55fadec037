"""What an Omaha v3 request and response mean, without their XML.

Text from the peer is kept as it was sent (an app id with its braces, a version that may not be semver): clients look
their answer up by exact string, so what came is what must be echoed.
"""

from dataclasses import dataclass
from datetime import datetime

from outrider.core.images import PayloadKind, kind_of
from outrider.core.release import ReleaseId

PROTOCOL = "3.0"
MAX_REQUEST_BYTES = 64 * 1024
"""Nebraska's own limit: the largest captured request has 518 bytes, so 100 apps with one event each fit easily."""
MAX_RESPONSE_BYTES = 1024 * 1024
"""What go-omaha's client and Nebraska's updater read at most; a larger answer reaches no client anyway."""
SYNCER = "CoreOSUpdateEngine-0.1.0.0"
"""What Nebraska's syncer calls itself."""
MAX_APPS = 100
MAX_EVENTS = 100
"""Of one request, over all its apps."""


def app_key(app_id: str) -> str:
    """Bring an app id into the form it is stored under: no blanks or braces around it, lower case."""
    return app_id.strip().removeprefix("{").removesuffix("}").strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class OmahaEvent:
    """Something that happened to an instance.

    Attributes:
        type: ``eventtype``: 13 downloading, 14 downloaded, 800 installed but held back, 3 update; see ``events.py``.
        result: ``eventresult``: 0 error, 1 success, 2 success and running.
        error_code: Only with result 0; update_engine's numbers, so that other servers show a name.
        release: Which release the event is about; None from a client that names versions only. An attribute of ours.
    """

    type: int
    result: int
    error_code: int = 0
    previous_version: str = ""
    next_version: str = ""
    release: ReleaseId | None = None

    @property
    def code(self) -> str:
        """``type:result``, for example ``13:1``."""
        return f"{self.type}:{self.result}"

    @property
    def next_release(self) -> str:
        """What the update leads to, as exactly as the client says: a label or a version; empty when it doesn't say."""
        return self.release.label if self.release is not None and self.next_version else self.next_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One event on its way to the update service; kept in the outbox until it is delivered.

    Attributes:
        update: Id of the update in the journal, ``sessionid`` on the wire.
        request_id: Unique per report and kept by its repeats, so that the service can treat them as one.
        at: When it happened, aware.
        version: What the app ran at that time; ``release``: which release exactly.
    """

    update: str
    request_id: str
    at: datetime
    version: str
    event: OmahaEvent
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRequest:
    """One ``<app>`` of a request.

    Attributes:
        app_id: Verbatim as sent, braces and case included; echo it, and use ``app_key`` to look things up.
        version: What the instance runs; any text, the reader doesn't judge it.
        track: The group.
        machine_id: Identifies the instance; may be empty.
        board: ``amd64-usr`` and the like; wins over the request's ``arch``.
        update_check: The instance asks for an update: it must be answered with an update check in any case.
        target_version_prefix: Dotted prefix (``1.2`` matches ``1.2.3``, not ``1.20.0``); empty for any version.
        rollback_allowed: The instance takes an older version than its own, too.
        rollback_forbidden: It says that it never does (``rollback_allowed="false"``); others say nothing of it.
        multi_manifest_ok: It is another update service's copier, and takes all steps on the way in one answer.
        takes_turns: An outrider sidekick: it takes a turn against its grant in etcd. An attribute of ours, which other
            servers ignore.
        release: Which release it runs; None from a client that names versions only. An attribute of ours, too.
    """

    app_id: str
    version: str = ""
    release: ReleaseId | None = None
    track: str = ""
    machine_id: str = ""
    boot_id: str = ""
    alias: str = ""
    oem: str = ""
    board: str = ""
    ping: bool = False
    update_check: bool = False
    target_version_prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False
    takes_turns: bool = False
    multi_manifest_ok: bool = False
    events: tuple[OmahaEvent, ...] = ()

    @property
    def app_key(self) -> str:
        """The app id as it is stored: without braces and blanks, in lower case."""
        return app_key(self.app_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class OmahaRequest:
    """A whole request.

    Attributes:
        updater: Name and version of the client program, as it says itself (``version`` on the wire).
        install_source: ``scheduler`` or ``ondemandupdate`` (a person asked).
        session_id: The same for all requests of one update.
        request_id: Unique per request; a repeat of a request keeps it.
        os_version: ``version`` of ``<os>``; ``service_pack`` is its ``sp``.
        seen_revision: The highest revision of etcd of which the client has seen anything; 0: it doesn't say. An
            attribute of ours, which other servers ignore; so is the epoch in which it saw it.
    """

    apps: tuple[AppRequest, ...]
    protocol: str = PROTOCOL
    updater: str = ""
    updater_version: str = ""
    install_source: str = ""
    session_id: str = ""
    user_id: str = ""
    request_id: str = ""
    platform: str = ""
    os_version: str = ""
    service_pack: str = ""
    arch: str = ""
    seen_revision: int = 0
    seen_epoch: str = ""

    @property
    def copies(self) -> bool:
        """Its client is the syncer of another update service, no machine. Source: Nebraska pkg/omaha/omaha.go."""
        return self.updater == SYNCER and self.install_source == "scheduler"

    @property
    def reboots(self) -> bool:
        """Its client is update_engine: 3:1 says that the update is written, 3:2 after the reboot that it runs."""
        return self.updater.startswith("update_engine-")

    @property
    def on_demand(self) -> bool:
        """A person asked for this check."""
        return self.install_source == "ondemandupdate"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedPackage:
    """One file of an update.

    Attributes:
        sha1: Base64, 28 characters; empty when the server names none.
        sha256: 64 lower-case hex digits; empty when the server names none (Nebraska, unless it is a Flatcar package).
    """

    name: str
    size_bytes: int
    sha1: str = ""
    sha256: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One version on the way to the target, for another update service that copies all of them.

    Attributes:
        is_floor: Every instance must run it on its way; ``floor_reason``: why.
    """

    version: str
    packages: tuple[OfferedPackage, ...]
    is_floor: bool = False
    floor_reason: str = ""
    is_target: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """There is an update, and this instance may take it now.

    Attributes:
        codebases: Where the packages lie, at least one; the others are fallbacks in order.
        packages: At least one; the first is the payload.
        release: Which release it is; None from a server that names versions only. An attribute of ours.
        steps: Only for who copies: all versions on the way, oldest first; the offer itself is the first of them.
    """

    version: str
    codebases: tuple[str, ...]
    packages: tuple[OfferedPackage, ...]
    release: ReleaseId | None = None
    steps: tuple[Step, ...] = ()

    @property
    def package(self) -> OfferedPackage:
        """The payload: the first package."""
        return self.packages[0]

    @property
    def sha256(self) -> str:
        """Of the payload, 64 lower-case hex digits; empty when the server names none."""
        return self.packages[0].sha256

    @property
    def kind(self) -> PayloadKind:
        """What the payload is: our service names the descriptor of an image ``image.json``."""
        return kind_of(self.packages[0].name)

    def urls(self) -> tuple[str, ...]:
        """Full addresses of the payload, in the order to try them."""
        name = self.packages[0].name.lstrip("/")
        return tuple(f"{codebase.rstrip('/')}/{name}" for codebase in self.codebases)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoUpdate:
    """Nothing to do now: up to date, or deferred.

    Attributes:
        reason: For people (``info`` on the wire, which old clients ignore); may be empty.
        poll_interval_s: The server asks not to be asked earlier than that; None when it says nothing.
        is_unfinished: The server believes that an earlier update of the client still goes on.
    """

    reason: str = ""
    poll_interval_s: int | None = None
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckError:
    """The server couldn't decide. ``status`` is its word, ``error-internal`` for example.

    Our own service never sends it: updatectl's ``watch`` crashes on it. It answers ``NoUpdate`` with a reason.
    """

    status: str


UpdateCheck = Offer | NoUpdate | CheckError


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAnswer:
    """One ``<app>`` of a response.

    Attributes:
        app_id: As the request spelled it.
        status: ``ok``, ``error-unknownApplication``, ``error-invalidAppId``, ``error-internal``...
        ping: The ping is acknowledged.
        update_check: None when none was asked for.
        events: How many events are acknowledged.
    """

    app_id: str
    status: str = "ok"
    ping: bool = False
    update_check: UpdateCheck | None = None
    events: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OmahaResponse:
    """A whole response.

    Attributes:
        server: The server's name for itself.
        elapsed_seconds: Seconds since the server's midnight.
    """

    apps: tuple[AppAnswer, ...]
    server: str = "outrider"
    elapsed_seconds: int = 0

    def answer_to(self, app_id: str) -> AppAnswer | None:
        """The answer for one app: by exact string, else by the same id in another spelling; None without one."""
        exact = next((answer for answer in self.apps if answer.app_id == app_id), None)
        return exact or next((answer for answer in self.apps if app_key(answer.app_id) == app_key(app_id)), None)


def answer_app(app: AppRequest, update_check: UpdateCheck | None = None, *, status: str = "ok") -> AppAnswer:
    """Answer one app of a request completely: ping and every event acknowledged, the update check never left out.

    An update check that nobody asked for is dropped. With an error ``status`` (``error-unknownApplication``) give
    ``NoUpdate(reason=...)``: it is the one answer that no known client chokes on.

    Raises:
        ValueError: an update check was asked for and none is given.
    """
    if app.update_check and update_check is None:
        raise ValueError(f"app {app.app_id!r} asked for an update check: answer with an Offer or a NoUpdate")
    return AppAnswer(
        app_id=app.app_id,
        status=status,
        ping=app.ping,
        update_check=update_check if app.update_check else None,
        events=len(app.events),
    )
