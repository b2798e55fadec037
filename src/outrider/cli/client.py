"""The verbs' way to the update service: its REST API, with problems turned back into our errors."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import IO, Any, ClassVar
from urllib.parse import quote, urlsplit

import requests

from outrider import __version__
from outrider.core.errors import ConfigError, Conflict, DriverError, NotFound, OutriderError, Refused, Unknown

TIMEOUT_S = (5.0, 60.0)
"""To connect, and between two bytes: the service answers within etcd's limits, or after reading an uploaded file."""
CHUNK_BYTES = 1024 * 1024
_KINDS: Mapping[str, type[OutriderError]] = {
    kind.kind: kind for kind in (ConfigError, Conflict, DriverError, NotFound, Refused, Unknown)
}

Json = dict[str, Any]


class ServiceError(OutriderError):
    """The update service said no in a way that has no error of its own."""

    kind: ClassVar[str] = "service"


class ServiceClient:
    """Calls one update service."""

    def __init__(self, server: str) -> None:
        """Take the service's address, ``http://host:port``, with or without a slash at its end.

        Raises:
            ConfigError: it isn't an address.
        """
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"server {server!r}: write http://HOST:PORT")
        self.server = server.rstrip("/")
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"outrider/{__version__}"
        # A proxy for the world outside must not be asked for this machine.
        self._session.trust_env = not _is_loopback(parts.hostname)

    def get(self, *path: str, **query: str | None) -> Json:
        """Read one thing; a list has its ``items``."""
        return self._call("GET", path, params={key: value for key, value in query.items() if value is not None})[1]

    def post(self, *path: str, body: Json) -> Json:
        """Add something."""
        return self._call("POST", path, json=body)[1]

    def put(self, *path: str, body: Json) -> tuple[Json, bool]:
        """Change or add something; also tells whether it was added."""
        status, answer = self._call("PUT", path, json=body)
        return answer, status == 201

    def patch(self, *path: str, body: Json) -> Json:
        """Change something."""
        return self._call("PATCH", path, json=body)[1]

    def delete(self, *path: str) -> Json:
        """Remove something; returns what it was."""
        return self._call("DELETE", path)[1]

    def upload(self, file: IO[bytes]) -> Json:
        """Send a file's bytes; returns its digests and its size."""
        return self._call("POST", ("payloads",), data=_chunks(file))[1]

    def _call(self, method: str, path: tuple[str, ...], **options: Any) -> tuple[int, Json]:
        url = f"{self.server}/api/v1/" + "/".join(quote(part, safe="") for part in path)
        try:
            answer = self._session.request(method, url, timeout=TIMEOUT_S, **options)
        except requests.ConnectionError as error:
            raise DriverError(f"update service {self.server} doesn't answer: {_reason(error)}") from error
        except requests.Timeout as error:
            raise Unknown(f"update service {self.server} gave no answer in time; look before you repeat it") from error
        except requests.RequestException as error:
            raise DriverError(f"update service {self.server}: {error}") from error
        return answer.status_code, _read(answer, self.server)


def _read(answer: requests.Response, server: str) -> Json:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceError(f"{server} isn't an outrider update service: status {answer.status_code}, not JSON")
    if answer.ok:
        return body
    detail = str(body.get("detail", f"status {answer.status_code}"))
    raise _KINDS.get(str(body.get("kind")), ServiceError)(detail)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: requests.ConnectionError) -> str:
    """The innermost reason: requests wraps it three times."""
    seen: BaseException = error
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return getattr(seen, "strerror", None) or str(seen)
