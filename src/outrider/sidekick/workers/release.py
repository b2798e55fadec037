"""The release's worker: asks the update service, downloads, verifies, and lets the runtime prepare."""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from loguru import logger

from outrider.core.errors import DriverError, OmahaError, Refused
from outrider.core.omaha import NoUpdate
from outrider.core.release import ReleaseId
from outrider.core.sidekick.effects import AbandonRelease, CheckRelease, DownloadRelease, ReleaseEffect, VerifyRelease
from outrider.core.sidekick.events import (
    ReleaseDownloaded,
    ReleaseFound,
    ReleaseMissing,
    ReleaseProgressed,
    ReleaseVerified,
)
from outrider.core.sidekick.memory import Release
from outrider.core.tasks import TaskSpec
from outrider.omaha_client import Upstream
from outrider.payloads.store import PayloadStore
from outrider.payloads.transfer import WriteFailed
from outrider.runtimes import Fetcher, RunnableRelease, Runtime
from outrider.sidekick.environments import Environments
from outrider.sidekick.provenance import Provenance
from outrider.sidekick.signatures import Known, SignatureCheck
from outrider.sidekick.workers.worker import Post, now


class ReleaseWork:
    """Performs ``release.*``."""

    def __init__(
        self,
        upstream: Upstream,
        payloads: PayloadStore,
        runtime: Runtime,
        post: Post,
        environments: Environments | None = None,
        tasks_of: Callable[[str, str], tuple[TaskSpec, ...]] = lambda version, sha256: (),
        *,
        provenance: Provenance | None = None,
        signatures: SignatureCheck | None = None,
        has_reports: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare.

        Args:
            environments: What releases are started with; None: no release has an environment.
            tasks_of: By version and digest of its payload: what must run once before any instance swaps to it.
            provenance: What an offer must be proved by; None: nothing.
            signatures: What a payload must be signed by; None: nobody.
            has_reports: Whether reports wait for the update service: what it believes of an update may be old then.
        """
        self._environments, self._tasks_of = environments, tasks_of
        self._provenance, self._signatures, self._has_reports = provenance, signatures, has_reports
        self._upstream, self._payloads, self._runtime, self._post = upstream, payloads, runtime, post
        self._abandoned: deque[threading.Event] = deque()
        self._path: Path | None = None
        self._answered_at: float | None = None

    @property
    def check_in_s(self) -> float | None:
        """Seconds since the update service last answered a check-in; None: never."""
        return None if self._answered_at is None else time.monotonic() - self._answered_at

    def interrupt(self, effect: ReleaseEffect) -> None:
        """Giving up a download mustn't wait behind it, and one that hasn't begun mustn't begin."""
        if isinstance(effect, DownloadRelease):
            self._abandoned.append(threading.Event())
        if isinstance(effect, AbandonRelease):
            for abandoned in tuple(self._abandoned):
                abandoned.set()
            self._payloads.cancel()
            if isinstance(self._runtime, Fetcher):
                self._runtime.cancel_fetch()

    def perform(self, effect: ReleaseEffect, request: int | None) -> None:
        match effect:
            case CheckRelease():
                self._check(effect, request)
            case DownloadRelease():
                try:
                    if not self._abandoned[0].is_set():
                        self._path = self._download(effect.release, request, self._abandoned[0])
                        self._post(ReleaseDownloaded(at=now(), request=request))
                finally:
                    self._abandoned.popleft()
            case VerifyRelease():
                known = self._verify(effect)
                tasks = self._tasks_of(effect.release.version, effect.release.sha256)
                self._post(
                    ReleaseVerified(at=now(), request=request, tasks=tasks, minimum=known.minimum, keys=known.keys)
                )
            case AbandonRelease():
                pass  # done by interrupt
            case _:
                assert_never(effect)

    def close(self) -> None:
        self._payloads.cancel()
        if isinstance(self._runtime, Fetcher):
            self._runtime.cancel_fetch()

    def _check(self, effect: CheckRelease, request: int | None) -> None:
        update = uuid.uuid4().hex
        answer = self._upstream.check(
            version=effect.version,
            previous_version=effect.previous_version,
            update=update,
            release=effect.release or ReleaseId(version=effect.version),
        )
        self._answered_at = time.monotonic()
        if isinstance(answer, NoUpdate):
            if answer.is_unfinished and not self._has_reports():
                # Nothing is under way here, or it would not ask: its folder was lost, or an operator ended the update.
                self._upstream.end_unfinished(version=effect.version, update=update)
                logger.bind(version=effect.version).warning("an earlier update was unfinished at the server, ended")
                answer = replace(answer, reason=f"{answer.reason}; now it is: it was reported as failed")
            self._post(
                ReleaseMissing(
                    at=now(),
                    request=request,
                    reason=answer.reason,
                    poll_interval_s=float(answer.poll_interval_s or 0),
                )
            )
            return
        if not answer.sha256:
            raise OmahaError(
                f"the update service offers {answer.version} without a SHA-256, so it can't be verified; let it send"
                " one (Nebraska does for packages of type Flatcar)"
            )
        release = replace(answer.release or ReleaseId(version=answer.version), sha256=answer.sha256)
        if self._provenance is not None:
            self._provenance.check(release)
        self._post(
            ReleaseFound(
                at=now(),
                request=request,
                version=answer.version,
                urls=answer.urls(),
                sha256=answer.sha256,
                size_bytes=answer.package.size_bytes,
                update=update,
                kind=answer.kind,
                environment=release.environment,
                environment_digest=release.environment_digest,
                release_generation=release.generation,
            )
        )

    def _verify(self, effect: VerifyRelease) -> Known:
        assert self._path is not None, "the chart verifies only what was downloaded"
        release = effect.release
        payload = self._payloads.verify(self._path, release.size_bytes, release.sha256)
        known = Known(minimum=effect.minimum, keys=effect.keys)
        if self._signatures is not None:
            known = self._signatures.check(release, known, payload)
        # Here too, and not only after a swap: a row of bad releases would fill the disk. And first, to make room.
        needed = [one.sha256 for one in effect.needed]
        self._payloads.prune(needed)
        self._runtime.prune(needed)
        try:
            if self._environments is not None:
                self._environments.prune(effect.needed)
                self._environments.check(release)  # a missing file is this machine's trouble, found before any turn
            self._runtime.prepare(RunnableRelease(version=release.version, sha256=release.sha256, payload=payload))
        except Refused as error:
            # The release's fault, and only a turn proves that for the fleet (P5): the start under it says so again.
            logger.bind(version=release.version, cause=str(error)).warning("release can't be prepared")
        except DriverError as error:
            raise WriteFailed(str(error), evidence=error.evidence) from error
        return known

    def _download(self, release: Release, request: int | None, abandoned: threading.Event) -> Path:
        """The payload, and what it only names, on this machine."""

        def progress(done_bytes: int, size_bytes: int) -> None:
            self._post(ReleaseProgressed(at=now(), request=request, done_bytes=done_bytes, size_bytes=size_bytes))

        if self._environments is not None:
            self._environments.fetch(release)
        names_more = isinstance(self._runtime, Fetcher) and release.kind == "image"
        path = self._payloads.download(
            release.version,
            release.urls,
            release.size_bytes,
            release.sha256,
            on_progress=None if names_more else progress,
        )
        if isinstance(self._runtime, Fetcher) and names_more and not abandoned.is_set():
            self._runtime.fetch(
                RunnableRelease(version=release.version, sha256=release.sha256, payload=path), on_progress=progress
            )
        return path
