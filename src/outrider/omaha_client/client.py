"""The update service, asked over Omaha v3: ours, Nebraska or any other.

Rules: one call makes at most one request per address and never waits to try again (the chart and the outbox do that);
each request ends within its time limit as a whole; a redirect is never followed, because it would turn the POST into a
GET; what the service asks for in ``X-Retry-After`` is kept to, also when it came with an error.
"""

import platform
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from loguru import logger

from outrider import __version__
from outrider.core import versions
from outrider.core.addresses import is_private
from outrider.core.client_tokens import masked
from outrider.core.errors import ConfigError, DriverError, OmahaError, OutriderError, Refused, Throttled, Unknown
from outrider.core.omaha import (
    MAX_RESPONSE_BYTES,
    AppAnswer,
    AppRequest,
    CheckError,
    FailureCode,
    NoUpdate,
    Offer,
    OmahaRequest,
    Report,
    failed,
    parse_response,
    render_request,
    running,
)
from outrider.core.release import ReleaseId
from outrider.failpoints import failpoint
from outrider.http import read_body
from outrider.omaha_client.exchange import exchange

T = TypeVar("T")

DEFAULT_PATH = "/v1/update/"
IDENTITY_HEADER = "X-Outrider-Identity"
MAX_RETRY_AFTER_S = 86_400
"""ServerProtocolV3: a longer wait than a day is cut to a day."""

# Nebraska answers with an error where others say noupdate; it means "not now" (NEB pkg/omaha/omaha.go:238-266).
_UNFINISHED = "error-updateInProgressOnInstance"
_HELD_BACK = {
    "error-noPackageFound": "the channel has no package",
    "error-updatesDisabled": "updates are disabled in the group, or it is outside its office hours",
    "error-maxUpdatesPerPeriodLimitReached": "the group's limit of updates per period is reached",
    "error-maxConcurrentUpdatesLimitReached": "the group's limit of updates at the same time is reached",
    "error-maxTimedOutUpdatesLimitReached": "too many updates of the group have timed out",
    _UNFINISHED: "an earlier update of this instance isn't finished at the service",
}
_WRONG = {
    "error-unknownApplication": "check instance.app",
    "error-invalidAppId": "check instance.app",
    "error-failedToRetrieveUpdatePackageInfo": "check instance.app and instance.group",
    "error-instanceRegistrationFailed": "it takes a semver version and an instance id of at most 50 characters",
    "restricted": "the service doesn't serve this client",
    "error-unproved": "it doesn't know who reported it; use https (or service.allow_plain_identity)",
}
_ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "aarch64", "arm64": "aarch64", "i686": "x86"}


class Upstream:
    """Asks one update service, at one or several addresses. Safe to use from several threads.

    Args:
        urls: ``http://host:port``, to which ``/v1/update/`` is added, or an address with a path, which is left alone.
            Tried in turn, beginning with the one that last worked.
        app_id: UUID or name of the app.
        group: ``track`` on the wire.
        instance: ``machineid`` on the wire; Nebraska stores at most 50 characters.
        alias: A second name for people.
        boot_id: Id of this run of the sidekick; a new one by default.
        timeout_s: Longest time for one request, from connecting to the last byte.
        clock: Seconds that only move forward.
        verify: What proves a TLS server: the machine's authorities, a PEM file of others, or nothing (False).
        certificate: PEM file with the client's own certificate and key.
        takes_turns: The client is a sidekick, which takes a turn against its grant.
        allow_downgrade: It takes an older version (``rollback_allowed``), or never does; None says nothing of it.
        on_date: Called with the ``Date`` of each answer.
        proof: Gives within so many seconds the secret that proves the instance, or raises; without it nothing is sent.
        allow_plain: The secret is sent also where others may read it on the way.
        seen: The highest revision of etcd that the client has seen, and the epoch; an answer is never older.
        is_foreign: It isn't outrider's own. A check then says nothing of what runs: Nebraska books event 3:2 as the end
            of the update that it has granted, whatever version it names, so it would count releases that were refused
            or rolled back as complete.

    Raises:
        ConfigError: no address, or one that isn't ``http(s)://host``.
    """

    def __init__(
        self,
        *,
        urls: tuple[str, ...],
        app_id: str,
        group: str,
        instance: str,
        alias: str = "",
        boot_id: str = "",
        timeout_s: float = 10.0,
        user_agent: str = f"outrider/{__version__}",
        clock: Callable[[], float] = monotonic,
        verify: bool | str = True,
        certificate: str | None = None,
        takes_turns: bool = False,
        allow_downgrade: bool | None = None,
        on_date: Callable[[str], None] = lambda date: None,
        proof: Callable[[float], str] | None = None,
        allow_plain: bool = False,
        seen: Callable[[], tuple[int, str]] = lambda: (0, ""),
        is_foreign: bool = False,
    ) -> None:
        if not urls:
            raise ConfigError("service.urls: empty; name at least one address of the update service")
        self._urls = tuple(_endpoint(url) for url in urls)
        self._app = AppRequest(
            app_id=app_id,
            track=group,
            machine_id=instance,
            alias=alias,
            boot_id=boot_id or str(uuid.uuid4()),
            takes_turns=takes_turns,
            rollback_allowed=allow_downgrade is True,
            rollback_forbidden=allow_downgrade is False,
        )
        self._timeout_s, self._user_agent, self._clock, self._verify = timeout_s, user_agent, clock, verify
        self._on_date, self._certificate = on_date, certificate
        self._seen = seen
        self._proof, self._allow_plain, self._is_foreign = proof, allow_plain, is_foreign
        self._lock = threading.Lock()
        self._preferred = 0
        self._quiet_until: dict[str, float] = {}

    def check(
        self,
        *,
        version: str,
        previous_version: str,
        update: str,
        on_demand: bool = False,
        release: ReleaseId | None = None,
    ) -> Offer | NoUpdate:
        """Ask whether there is an update for this instance: one request with ping, update check and, to our own, 3:2.

        Args:
            version: What runs now.
            previous_version: What ran before, on the first check after an update; else empty.
            update: ``sessionid``, the same for this check and the reports that follow from it.
            on_demand: A person asked.
            release: Which release runs; None: the client knows versions only.

        Returns:
            An offer whose version is semver, or ``NoUpdate`` with the service's reason; a hold-back that Nebraska
            words as an error is a ``NoUpdate`` too.

        Raises:
            Refused: the service doesn't know the app or the group, or won't take the request.
            Throttled: it wants to be left alone for a while; without a request when that isn't over yet.
            Unknown: a request was sent and no answer came.
            OmahaError: the answer isn't one.
            DriverError: no address answers, or the service is in trouble.
        """
        app = replace(
            self._app,
            version=version,
            release=release,
            ping=True,
            update_check=True,
            events=() if self._is_foreign else (replace(running(previous_version=previous_version), release=release),),
        )
        source = "ondemandupdate" if on_demand else "scheduler"
        with failpoint("omaha.check"):
            return self._ask(self._request(app, source, update, str(uuid.uuid4())), _read_check)

    def end_unfinished(self, *, version: str, update: str) -> None:
        """Tell a server that believes in an earlier update of this instance that it has failed; ``version`` runs.

        Whoever has lost what it knew of an update can't say more. Nebraska offers such an instance nothing until then.

        Raises:
            Refused, Throttled, Unknown, OmahaError, DriverError: as in ``check``; the server says the same next time.
        """
        app = replace(self._app, version=version, events=(failed(FailureCode.ERROR, previous_version=version),))
        with failpoint("omaha.check"):
            self._ask(self._request(app, "scheduler", update, str(uuid.uuid4())), _read_acknowledgement)

    def send(self, report: Report) -> None:
        """Deliver one report; returns once the service has acknowledged it.

        A repeat carries the same ``requestid``: a service that knows it counts it once.

        Raises:
            Refused: the service will never take this report.
            Throttled, Unknown, OmahaError, DriverError: as in ``check``, or it was not proved; try again later.
        """
        app = replace(self._app, version=report.version, release=report.release, events=(report.event,))
        self._ask(self._request(app, "scheduler", report.update, report.request_id), _read_acknowledgement)

    def _request(self, app: AppRequest, source: str, update: str, request_id: str) -> OmahaRequest:
        seen_revision, seen_epoch = self._seen()
        return OmahaRequest(
            apps=(app,),
            seen_revision=seen_revision,
            seen_epoch=seen_epoch,
            updater=f"outrider-{__version__}",
            updater_version=f"outrider-{__version__}",
            install_source=source,
            session_id=update,
            request_id=request_id,
            platform="linux",
            arch=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        )

    def _ask(self, request: OmahaRequest, read: Callable[["_Answer"], T]) -> T:
        body = render_request(request)
        proof = {} if self._proof is None else {IDENTITY_HEADER: self._proof(self._timeout_s / 2)}
        failures: list[OutriderError] = []
        for url in self._in_turn():
            try:
                self._check_quiet(url)
                result = read(self._post(url, body, proof))
            except Refused:
                # The service has decided; its other addresses would only say the same.
                raise
            except OutriderError as error:
                failures.append(error)
            else:
                with self._lock:
                    self._preferred = self._urls.index(url)
                return result
        raise _summary(failures)

    def _may_prove(self, url: str) -> bool:
        """Whether nobody on the way to ``url`` can read the secret, or somebody said that this doesn't matter."""
        return self._allow_plain or is_private(url)

    def _in_turn(self) -> tuple[str, ...]:
        with self._lock:
            return self._urls[self._preferred :] + self._urls[: self._preferred]

    def _check_quiet(self, url: str) -> None:
        with self._lock:
            left_s = self._quiet_until.get(url, 0.0) - self._clock()
        if left_s > 0:
            raise Throttled(f"{masked(url)}: asked for {left_s:.0f} s more without a request", retry_after_s=left_s)

    def _post(self, url: str, body: bytes, proof: Mapping[str, str]) -> "_Answer":
        shown = masked(url)
        log = logger.bind(url=shown)
        log.bind(body=body.decode()).debug("omaha request")
        with exchange(
            url,
            body,
            timeout_s=self._timeout_s,
            user_agent=self._user_agent,
            verify=self._verify,
            certificate=self._certificate,
            more_headers=proof if self._may_prove(url) else None,
        ) as response:
            headers, status = response.headers, response.status_code
            content = read_body(response, MAX_RESPONSE_BYTES)
        if "Date" in headers:
            self._on_date(headers["Date"])
        log.bind(status=status, body=content[:4096].decode(errors="replace")).debug("omaha response")
        retry_after_s = _retry_after_s(headers, status)
        if retry_after_s is not None:
            with self._lock:
                self._quiet_until[url] = self._clock() + retry_after_s
        if len(content) > MAX_RESPONSE_BYTES:
            raise OmahaError(f"{shown}: the answer is longer than {MAX_RESPONSE_BYTES} bytes; is it an update service?")
        if status != 200:
            raise _status_error(shown, status, headers, content, retry_after_s)
        media = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media not in ("", "text/xml", "application/xml"):
            raise OmahaError(f"{shown}: answered with {media[:60]!r} instead of text/xml; is it an update service?")
        if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise OmahaError(f"{shown}: answered compressed, which was not asked for")
        try:
            answer = parse_response(content).answer_to(self._app.app_id)
        except OmahaError as error:
            raise OmahaError(f"{shown}: {error}") from error
        if answer is None:
            raise OmahaError(f"{shown}: no answer for app {self._app.app_id!r} in the response")
        return _Answer(url=shown, app=answer, retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    url: str
    app: AppAnswer
    retry_after_s: float | None


def _read_check(answer: _Answer) -> Offer | NoUpdate:
    status = answer.app.status
    if status in _HELD_BACK:
        return NoUpdate(
            reason=f"{_HELD_BACK[status]} ({status})",
            poll_interval_s=_whole(answer.retry_after_s),
            is_unfinished=status == _UNFINISHED,
        )
    _check_app_status(answer)
    match answer.app.update_check:
        case Offer(version=version) as offer:
            try:
                versions.parse(version)
            except ConfigError as error:
                raise OmahaError(f"{answer.url}: offers {error}") from error
            return offer
        case NoUpdate(poll_interval_s=interval) as no_update:
            waits = [wait for wait in (interval, _whole(answer.retry_after_s)) if wait is not None]
            return replace(no_update, poll_interval_s=max(waits, default=None))
        case CheckError(status=status):
            raise DriverError(f"{answer.url}: the update service couldn't decide: {status[:100]}")
        case None:
            raise OmahaError(f"{answer.url}: no <updatecheck> in the response, although one was asked for")


def _read_acknowledgement(answer: _Answer) -> None:
    """Ping and event need no mark of their own: CoreUpdate sent none (go-omaha client.go:259)."""
    if answer.app.status != "ok":
        # Not Refused: an app that isn't known (yet, or again) is put right at the service, and reports can wait.
        raise DriverError(f"{answer.url}: report not taken: {_worded(answer.app.status)}")


def _check_app_status(answer: _Answer) -> None:
    status = answer.app.status
    if status in _WRONG:
        check = answer.app.update_check
        said = f" ({check.reason[:200]})" if isinstance(check, NoUpdate) and check.reason else ""
        raise Refused(f"{answer.url}: {_worded(status)}{said}")
    if status != "ok":
        raise DriverError(f"{answer.url}: the update service couldn't decide: {_worded(status)}")


def _worded(status: str) -> str:
    return f"{status[:100]}; {_WRONG[status]}" if status in _WRONG else status[:100]


def _status_error(
    url: str, status: int, headers: Mapping[str, str], content: bytes, retry_after_s: float | None
) -> OutriderError:
    if 300 <= status < 400:
        location = headers.get("Location", "")[:200]
        return DriverError(f"{url}: redirects to {location!r}, which a POST can't follow; configure the final address")
    text = " ".join(content[:200].decode(errors="replace").split())
    problem = f"{url}: HTTP {status}" + (f": {text[:150]}" if text else "")
    if status in (400, 413, 422):
        return Refused(f"{problem}; the update service won't take this request")
    if retry_after_s is not None:
        return Throttled(problem, retry_after_s=retry_after_s)
    return DriverError(problem)


def _retry_after_s(headers: Mapping[str, str], status: int) -> float | None:
    # Retry-After is HTTP's own word for it, from a proxy in front of the service for example.
    text = headers.get("X-Retry-After", headers.get("Retry-After", "") if status in (429, 503) else "").strip()
    if not text.isascii() or not text.isdigit() or int(text[:18]) == 0:
        return None
    return float(min(int(text[:18]), MAX_RETRY_AFTER_S))


def _summary(failures: list[OutriderError]) -> OutriderError:
    """One error for all addresses: of the kind that promises least, with every address's line."""
    if len(failures) == 1:
        return failures[0]
    text = "; ".join(str(failure) for failure in failures)
    if any(isinstance(failure, Unknown) for failure in failures):
        return Unknown(text)
    if all(isinstance(failure, OmahaError) for failure in failures):
        return OmahaError(text)
    throttled = [failure.retry_after_s for failure in failures if isinstance(failure, Throttled)]
    if len(throttled) == len(failures):
        return Throttled(text, retry_after_s=min(throttled))
    return DriverError(text)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"service.urls: {masked(url)!r}: write http://HOST:PORT, or a whole address with its path")
    return urlunsplit(parts._replace(path=DEFAULT_PATH)) if parts.path in ("", "/") else url.strip()


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
