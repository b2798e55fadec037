"""Docker's API: one connection for each piece of work, and every failure as an error that says what was found out.

The library is asked for a new client each time. After a restart of the daemon a kept client would have a dead
connection, and its first call would fail for that alone.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outrider.core.blame import Evidence
from outrider.core.errors import DriverError

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
AWAY_S = 60.0
"""How long after Docker gave no answer a bad health check is no verdict: its containers may have ended with it."""

_WORDS: tuple[tuple[str, Evidence], ...] = (
    ("port is already allocated", "no-port"),
    ("address already in use", "no-port"),
    ("no space left on device", "disk-full"),
    ("disk quota exceeded", "disk-full"),
    ("read-only file system", "read-only"),
    ("cannot allocate memory", "no-resources"),
    ("resource temporarily unavailable", "no-resources"),
    ("too many open files", "no-resources"),
    ("exec format error", "other-architecture"),
    ("no matching manifest", "other-architecture"),
    ("does not match the specified platform", "other-architecture"),
    ("cannot assign requested address", "network"),
    ("no such host", "network"),
    ("no such network", "wrong-setting"),
    ("network not found", "wrong-setting"),
    ("unable to find user", "wrong-setting"),
    ("invalid mount", "wrong-setting"),
    ("logger: ", "wrong-setting"),
    ("log driver", "wrong-setting"),
    ("unknown capability", "wrong-setting"),
    ("cannot be used with", "wrong-setting"),
)
"""What Docker says in lower case -> what was found out. The first that fits counts."""


class EngineError(DriverError):
    """Docker answered, and said no.

    Attributes:
        status: Of the HTTP answer; 0 when the word came within an answer.
    """

    kind = "docker"

    def __init__(self, problem: str, *, status: int = 0, evidence: Evidence | None = None) -> None:
        """Name the ``problem`` as Docker has said it."""
        self.status = status
        super().__init__(problem, evidence=evidence or evidence_in(problem))


class Silent(DriverError):
    """Docker said nothing for as long as we wait."""

    evidence: Evidence = "no-answer"


def evidence_in(words: str) -> Evidence:
    """What Docker's words say was found out; ``unknown`` when they say nothing that we know."""
    lower = words.lower()
    return next((evidence for text, evidence in _WORDS if text in lower), "unknown")


class Engine:
    """Docker as one runtime knows it. Any thread may use it."""

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float,
        tls_dir: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is asked yet. ``address``: empty for what the environment says (``DOCKER_HOST``)."""
        self.address = address or (environment or {}).get("DOCKER_HOST", "") or DEFAULT_ADDRESS
        self._timeout_s, self._tls_dir = timeout_s, tls_dir
        self._version: str | None = None
        self._away_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine: its disk is one that can be seen from here."""
        return self.address.startswith("unix://")

    @contextmanager
    def client(self, timeout_s: float | None = None, *, may_be_silent: bool = False) -> Iterator[Any]:
        """A client of the library, for calls that take at most ``timeout_s`` each.

        Args:
            may_be_silent: That it says nothing for so long doesn't mean that it is away: it may wait itself.

        Raises:
            EngineError: Docker said no.
            Silent: it said nothing in time.
            DriverError: it gave no answer.
        """
        import docker
        import docker.errors
        import docker.tls
        import requests
        import urllib3

        client = None
        try:
            tls = False
            if self._tls_dir is not None:
                pair = (str(self._tls_dir / "cert.pem"), str(self._tls_dir / "key.pem"))
                tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=str(self._tls_dir / "ca.pem"), verify=True)
            client = docker.APIClient(
                base_url=self.address,
                version=self._version or "auto",
                timeout=timeout_s or self._timeout_s,
                tls=tls,
                user_agent="outrider",
            )
            client.trust_env = False  # no proxy stands between us and Docker
            self._version = client.api_version
            yield client
        except docker.errors.APIError as error:
            status = error.response.status_code if error.response is not None else 0
            raise EngineError(str(error.explanation or error).strip().replace("\n", " "), status=status) from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            if not may_be_silent:
                self._note_away()
            raise Silent(f"Docker ({self.address}) gave no answer in {timeout_s or self._timeout_s:g} s") from error
        except (
            docker.errors.DockerException,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            raise self._no_answer(error) from error
        finally:
            if client is not None:
                client.close()

    def inspect(self, container: str) -> dict[str, Any] | None:
        """All that Docker knows of a container; None when there is none of that id or name.

        Raises:
            DriverError: as ``client``.
        """
        try:
            with self.client() as docker:
                found: dict[str, Any] = docker.inspect_container(container)
                return found
        except EngineError as said:
            if said.status == 404:
                return None
            raise

    def wait(self, container: str, timeout_s: float) -> int | None:
        """Its exit code once it has ended; None when it still runs after ``timeout_s``.

        Raises:
            EngineError: there is no such container (``status`` 404), or another problem.
            DriverError: Docker gave no answer.
        """
        import requests

        with self.client() as docker:
            try:
                return int(docker.wait(container, timeout=timeout_s)["StatusCode"])
            except requests.ReadTimeout:
                return None
            except requests.ConnectionError as error:
                # requests words a time-out while the body is read like this
                if "Read timed out" in str(error):
                    return None
                raise

    def answers(self, timeout_s: float = 3.0) -> bool:
        """Whether it answers now."""
        try:
            with self.client(timeout_s) as docker:
                docker.ping()
        except DriverError:
            return False
        return True

    def was_away(self) -> bool:
        """Whether it gave no answer within the last ``AWAY_S`` seconds."""
        with self._lock:
            return time.monotonic() - self._away_at < AWAY_S

    def _note_away(self) -> None:
        with self._lock:
            self._away_at = time.monotonic()

    def _no_answer(self, error: Exception) -> DriverError:
        text = str(error)
        if "Permission denied" in text:
            return DriverError(
                f"Docker ({self.address}): permission denied; let this user use its socket (group docker)",
                evidence="no-permission",
            )
        self._note_away()
        known = ("No such file or directory", "Connection refused", "Connection reset", "Connection aborted", "SSL")
        reason = next((words.lower() for words in known if words in text), text.strip().replace("\n", " ")[-200:])
        return DriverError(f"Docker ({self.address}) does not answer: {reason}", evidence="no-answer")


def auth_header(credentials: Mapping[str, str]) -> str:
    """Credentials for a registry as Docker wants them beside a pull.

    Source: Docker Engine API v1.41, "Authentication".
    """
    return base64.urlsafe_b64encode(json.dumps(dict(credentials)).encode()).decode("ascii")
