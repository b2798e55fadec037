"""Client of the REST API for the commands; it turns problem documents back into our errors."""

import ipaddress
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import quote, urlsplit

import requests
from loguru import logger
from requests.auth import AuthBase, HTTPBasicAuth

from outrider import __version__
from outrider.cli.unix_adapter import UnixAdapter
from outrider.core.addresses import MAX_SHOWN, http_problem
from outrider.core.errors import ConfigError, Conflict, DriverError, NotFound, OutriderError, Refused, Unknown

TIMEOUT_S = (5.0, 60.0)
"""To connect, and between two bytes: the service answers within etcd's limits, or after reading an uploaded file."""
DEFAULT_SERVER = "http://localhost:8000"
CHUNK_BYTES = 1024 * 1024
_KINDS: Mapping[str, type[OutriderError]] = {
    kind.kind: kind for kind in (ConfigError, Conflict, DriverError, NotFound, Refused, Unknown)
}

Json = dict[str, Any]
Progress = Callable[[int], object]
"""Called with the number of bytes of each piece."""


class ServiceError(OutriderError):
    """The update service refused with an error that has no class of its own."""

    kind: ClassVar[str] = "service"


class ForeignServiceError(ServiceError):
    """The server isn't an update service of outrider's."""


@contextmanager
def ours_only(what: str) -> Iterator[None]:
    """Say why ``what`` is refused where the server is of another make: Omaha knows versions and nothing else."""
    try:
        yield
    except ForeignServiceError as error:
        raise ServiceError(
            f"{error}; {what} needs outrider's own update service: another Omaha server announces versions, and no"
            " environments or restarts"
        ) from error


class AccessError(OutriderError):
    """The update service needs credentials, or the user's role doesn't allow the request."""

    kind: ClassVar[str] = "access"


class ServiceClient:
    """Client of one update service.

    Attributes:
        server: Its address without a slash at the end.
        verify: What proves a TLS server: True for the machine's authorities, a file's path, or False for nothing.
    """

    def __init__(
        self,
        server: str,
        *,
        token: str = "",
        user: str = "",
        key: str = "",
        ca_file: Path | None = None,
        skip_ssl_verify: bool = False,
        timeout_s: float | tuple[float, float] = TIMEOUT_S,
        is_default: bool = False,
    ) -> None:
        """Take the service's address, ``http://host:port`` or ``unix:/path``, and the user.

        Args:
            token: Goes before ``user`` and ``key``.
            timeout_s: For connecting, and for each wait for more.
            is_default: Nobody has named the address: it was found on this machine.

        Raises:
            ConfigError: it isn't an address, or only one of ``user`` and ``key`` is there.
        """
        server = server.strip()
        self.socket = Path(server.removeprefix("unix:")) if server.startswith("unix:") else None
        if self.socket is not None:
            if not self.socket.is_absolute():
                raise ConfigError(f"--server {server[:MAX_SHOWN]!r}: write unix:/ABSOLUTE/PATH")
        elif problem := http_problem(server):
            raise ConfigError(f"--server {server[:MAX_SHOWN]!r}: {problem}; write http://HOST:PORT")
        self.is_default = is_default
        if ca_file is not None and not ca_file.is_file():
            raise ConfigError(f"--ca-file {ca_file}: no such file")
        self.server = f"unix:{self.socket}" if self.socket else server.rstrip("/")
        self._base = "http://localhost" if self.socket else self.server
        self.verify: bool | str = False if skip_ssl_verify else str(ca_file) if ca_file else True
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"outrider/{__version__}"
        # A proxy for the world outside must not be asked for this machine.
        self._session.trust_env = self.socket is None and not _is_loopback(urlsplit(server).hostname or "")
        if self.socket is not None:
            self._session.mount("http://", UnixAdapter(self.socket))
        self._session.auth = _credentials(token, user, key)

    def with_token(self, token: str) -> "ServiceClient":
        """This client, which shows ``token`` from now on.

        Raises:
            ConfigError: it can't be sent.
        """
        self._session.auth = _credentials(token, "", "")
        return self

    @property
    def omaha_url(self) -> str:
        """Where clients of Omaha ask; an address that already leads there (with a secret) is left as it is.

        Raises:
            ConfigError: the server is a Unix socket that was named; Omaha is spoken over the network.
        """
        if self.socket is not None:
            if not self.is_default:
                raise ConfigError(
                    f"--server {self.server}: clients of Omaha ask over the network; write http://HOST:PORT"
                )
            return f"{DEFAULT_SERVER}/v1/update/"
        return self.server if "/v1/update" in urlsplit(self.server).path else f"{self.server}/v1/update/"

    def get(self, *path: str, **query: str | None) -> Json:
        """Read one thing; a list has its ``items``, and ``next`` when there are more."""
        return self._call("GET", path, params=_given(query))[1]

    def get_all(self, *path: str, **query: str | None) -> list[Json]:
        """Read a whole list, page by page."""
        items: list[Json] = []
        after: str | None = None
        while True:
            page = self.get(*path, **query, after=after)
            items += page["items"]
            following = page.get("next")
            if not following:
                return items
            if following == after:
                raise ServiceError(f"update service {self.server} repeats page {following!r} of {'/'.join(path)}")
            after = following

    def get_with_etag(self, *path: str) -> tuple[Json, str | None]:
        """Read one thing to change it, with the tag that ``put(..., if_match=)`` compares; None without one."""
        answer = self._send("GET", path)
        return _read(answer, self.server), answer.headers.get("ETag")

    def change(
        self, method: str, *path: str, body: Json | None = None, if_match: str | None = None, absent: bool = False
    ) -> tuple[Json, str | None]:
        """Add, change or remove one thing under a condition; returns the answer and the tag that the thing has now.

        Args:
            method: ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
            if_match: Only if it has this tag; None: whatever it is.
            absent: Only if there is none yet.

        Raises:
            Conflict: the condition doesn't hold: another user was faster.
        """
        headers = {"If-Match": if_match} if if_match else {}
        headers |= {"If-None-Match": "*"} if absent else {}
        answer = self._send(method, path, headers=headers, **({} if body is None else {"json": body}))
        return _read(answer, self.server), answer.headers.get("ETag")

    def post(self, *path: str, body: Json) -> Json:
        """Add something."""
        return self._call("POST", path, json=body)[1]

    def put(self, *path: str, body: Json, if_match: str | None = None) -> tuple[Json, bool]:
        """Change or add something; also tells whether it was added.

        With ``if_match`` it is refused (``Conflict``) when another user has changed it meanwhile.
        """
        headers = {"If-Match": if_match} if if_match else {}
        status, answer = self._call("PUT", path, json=body, headers=headers)
        return answer, status == 201

    def patch(self, *path: str, body: Json) -> Json:
        """Change something."""
        return self._call("PATCH", path, json=body)[1]

    def delete(self, *path: str, **query: str | None) -> Json:
        """Remove something; returns what it was."""
        return self._call("DELETE", path, params=_given(query))[1]

    def upload(self, file: IO[bytes], tell: Progress | None = None) -> Json:
        """Send a file's bytes; returns its digests and its size."""
        return self._call("POST", ("payloads",), data=_chunks(file, tell))[1]

    def _call(self, method: str, path: tuple[str, ...], **options: Any) -> tuple[int, Json]:
        answer = self._send(method, path, **options)
        return answer.status_code, _read(answer, self.server)

    def _send(self, method: str, path: tuple[str, ...], **options: Any) -> requests.Response:
        url = f"{self._base}/api/v1/" + "/".join(quote(part, safe="") for part in path)
        try:
            with warnings.catch_warnings():
                # The operator has said --skip-ssl-verify; once is enough.
                warnings.filterwarnings("ignore", message="Unverified HTTPS request")
                answer = self._session.request(
                    method, url, timeout=self._timeout_s, allow_redirects=False, verify=self.verify, **options
                )
        except requests.exceptions.SSLError as error:
            raise DriverError(f"update service {self.server}: TLS failed: {_reason(error)}; check --ca-file") from error
        except requests.ConnectionError as error:
            raise DriverError(
                f"update service {self.server} doesn't answer: {_reason(error)}; check --server"
            ) from error
        except requests.Timeout as error:
            raise Unknown(
                f"update service {self.server} gave no answer in time; before you repeat it, check what happened"
            ) from error
        except requests.RequestException as error:
            raise DriverError(f"update service {self.server}: {error}") from error
        logger.bind(method=method, url=answer.url, status=answer.status_code).debug("rest call")
        return answer


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Nobody(AuthBase):
    """Says nothing: without it requests would look into .netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _credentials(token: str, user: str, key: str) -> AuthBase:
    if token:
        if not token.isascii() or not token.isprintable():
            raise ConfigError("--token contains invalid characters; copy the whole token")
        return _Bearer(token)
    if bool(user) != bool(key):
        raise ConfigError("--user and --key need each other (UPDATECTL_USER and UPDATECTL_KEY): give both or none")
    return HTTPBasicAuth(user.encode(), key.encode()) if user else _Nobody()


def _read(answer: requests.Response, server: str) -> Json:
    if 300 <= answer.status_code < 400:
        location = answer.headers.get("Location", "")[:200]
        raise ServiceError(f"update service {server} redirects to {location!r}; give that address as --server")
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) and answer.status_code not in (401, 403):
        raise ForeignServiceError(
            f"{server} isn't an outrider update service (status {answer.status_code}, not JSON); check --server"
        )
    if answer.ok:
        assert isinstance(body, dict)
        return body
    problem = body if isinstance(body, dict) else {}
    detail = str(problem.get("detail", f"status {answer.status_code}"))
    if answer.status_code == 401:
        raise AccessError(f"{detail}; give --token (OUTRIDER_TOKEN), or --user and --key, or log in (outrider login)")
    if answer.status_code == 403:
        raise AccessError(detail)
    if answer.status_code == 412:
        raise Conflict(detail)
    if answer.status_code in (404, 405) and detail.startswith(f"{answer.request.method} /api/"):
        # Not a thing that isn't there, but a question that the service doesn't understand.
        raise ServiceError(
            f"update service {server} doesn't know this call ({detail}); update the service or use an older command"
        )
    raise _KINDS.get(str(problem.get("kind")), ServiceError)(detail)


def _given(query: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


def _chunks(file: IO[bytes], tell: Progress | None) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        if tell is not None:
            tell(len(chunk))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # Before Python 3.13 an IPv6 address that stands for 127.0.0.1 isn't a loopback address itself.
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def _reason(error: requests.ConnectionError) -> str:
    """The innermost reason: requests wraps it three times."""
    seen: BaseException = error
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return getattr(seen, "strerror", None) or str(seen)
