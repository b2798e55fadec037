"""One pull of an image: with one deadline, told progress, and an end that any thread may make."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from outrider.core.blame import Evidence
from outrider.core.errors import DriverError
from outrider.failpoints import with_current_effect
from outrider.payloads.transfer import Cancelled, Progress, TransferFailed, WriteFailed
from outrider.runtimes.docker.engine import Engine, EngineError, Silent, auth_header, evidence_in

_PROGRESS_EVERY_S = 0.5
_CREDENTIALS = ("unauthorized", "authentication required", "no basic auth", "incorrect username", "denied")
_ABSENT = ("manifest unknown", "not found", "name unknown")


class Layers:
    """What Docker has told of the layers of a pull."""

    def __init__(self, size_bytes: int) -> None:
        """``size_bytes``: of all layers, as the registry has said; 0: unknown."""
        self._size_bytes = size_bytes
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, line: Mapping[str, Any]) -> bool:
        """Take one line of Docker's account; returns whether it says how much is there."""
        layer, status = str(line.get("id", "")), line.get("status")
        _, total = self._layers.get(layer, (0, 0))
        if status == "Downloading":
            detail = line.get("progressDetail") or {}
            self._layers[layer] = (int(detail.get("current", 0)), int(detail.get("total", total)))
            return True
        if status in ("Download complete", "Already exists", "Pull complete") and layer:
            self._layers[layer] = (total, total)
            return True
        return False

    @property
    def done_bytes(self) -> int:
        """What is on this machine, as far as Docker has said."""
        return sum(done for done, _ in self._layers.values())

    @property
    def total_bytes(self) -> int:
        """All that there is to pull; at least what is known of."""
        return max(self._size_bytes, sum(total for _, total in self._layers.values()), self.done_bytes, 1)


class Pull:
    """One pull. The request runs on a thread that is left behind when time is up: it then ends at its next word."""

    def __init__(
        self,
        engine: Engine,
        version: str,
        name: str,
        *,
        credentials: Mapping[str, str] | None,
        size_bytes: int = 0,
        deadline_s: float,
        silence_s: float,
        on_progress: Progress | None = None,
    ) -> None:
        """``name``: the image by digest. ``silence_s``: how long Docker may say nothing."""
        self._engine, self._version, self._name, self._credentials = engine, version, name, credentials
        self._deadline_s, self._silence_s, self._on_progress = deadline_s, silence_s, on_progress
        self._layers = Layers(size_bytes)
        self._over, self._lock = threading.Event(), threading.RLock()
        self._outcome: BaseException | None = None
        self._progress_due = 0.0

    def run(self) -> None:
        """Return when the image is there.

        Raises:
            TransferFailed: the registry or Docker didn't give it, or the deadline passed.
            WriteFailed: this machine can't store it.
            Cancelled: after ``cancel``.
        """
        threading.Thread(target=with_current_effect(self._work), name="docker-pull", daemon=True).start()
        try:
            if not self._over.wait(self._deadline_s):
                got = f"{self._layers.done_bytes} of {self._layers.total_bytes} bytes"
                self._end(
                    TransferFailed(
                        f"{self._version}: {self._name}: {got} after {self._deadline_s:g} s (download.deadline_s)"
                    )
                )
        except BaseException as interruption:
            self._end(interruption)
            raise
        if self._outcome is not None:
            raise self._outcome

    def cancel(self) -> None:
        """End it with ``Cancelled``; nothing is told after this returns."""
        self._end(Cancelled(f"{self._version}: pull of {self._name} cancelled"))

    def _end(self, outcome: BaseException | None) -> None:
        with self._lock:
            if not self._over.is_set():
                self._outcome = outcome
                self._over.set()

    def _work(self) -> None:
        outcome: BaseException | None = None
        try:
            self._pull()
        except EngineError as said:
            outcome = failure(self._version, self._name, str(said))
        except Silent:
            outcome = TransferFailed(
                f"{self._version}: {self._name}: nothing came for {self._silence_s:g} s (download.timeout_s): the"
                " registry is slow or away"
            )
        except DriverError as error:
            outcome = TransferFailed(f"{self._version}: {self._name}: {error}", evidence=error.evidence)
        except BaseException as bug:  # noqa: BLE001 - it belongs to the thread that waits in run()
            outcome = bug
        self._end(outcome)

    def _pull(self) -> None:
        headers = {} if self._credentials is None else {"X-Registry-Auth": auth_header(self._credentials)}
        with self._engine.client(self._silence_s, may_be_silent=True) as docker:
            # As the library's own ``pull``, which sets no time limit for a read: a silent registry would hold us.
            answer = docker.post(
                f"{docker.base_url}/v{docker.api_version}/images/create",
                params={"fromImage": self._name},
                headers=headers,
                stream=True,
                timeout=self._silence_s,
            )
            with answer:
                if answer.status_code != 200:
                    raise EngineError(_message(answer.content), status=answer.status_code)
                for text in answer.iter_lines():
                    if self._over.is_set():
                        return  # closing the connection ends the pull in Docker, too
                    if text:
                        self._take(json.loads(text))

    def _take(self, line: Mapping[str, Any]) -> None:
        if line.get("error"):
            raise EngineError(str(line["error"]))
        now = time.monotonic()
        if self._layers.add(line) and self._on_progress is not None and now >= self._progress_due:
            self._progress_due = now + _PROGRESS_EVERY_S
            with self._lock:
                if not self._over.is_set():
                    self._on_progress(self._layers.done_bytes, self._layers.total_bytes)


def failure(version: str, name: str, words: str) -> DriverError:
    """What Docker's words on a pull that failed mean: who must do what."""
    lower, found = words.lower(), evidence_in(words)
    text = f"{version}: {name}: {words}"
    if found in ("disk-full", "read-only", "no-resources"):
        hint = "; make room on Docker's disk" if found == "disk-full" else ""
        return WriteFailed(f"{text}{hint}", evidence=found)
    if found == "other-architecture":
        return TransferFailed(f"{text}; the image has nothing for this machine's platform", evidence=found)
    if any(word in lower for word in _CREDENTIALS):
        # a registry says the same of an image that it doesn't have: nobody's fault yet
        return TransferFailed(
            f"{text}; the registry asks for credentials, or has no such image: see docker.auth_file", evidence="unknown"
        )
    if any(word in lower for word in _ABSENT):
        return TransferFailed(f"{text}; the registry has no such image (any more): push it again", evidence="unknown")
    evidence: Evidence = "network" if found == "unknown" else found
    return TransferFailed(text, evidence=evidence)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
