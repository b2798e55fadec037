"""The workload's worker: starts, finds and ends versions through a ``Runtime``, and tells when one ends by itself."""

from collections.abc import Callable
from typing import assert_never

from loguru import logger

from outrider.core.errors import DriverError, Unknown
from outrider.core.sidekick.effects import (
    EnsureWorkload,
    RemoveWorkload,
    ReplaceWorkload,
    RestartWorkload,
    RetireWorkload,
    RevertWorkload,
    StartWorkload,
    TidyWorkload,
    WorkloadEffect,
)
from outrider.core.sidekick.events import (
    WorkloadAbsent,
    WorkloadExited,
    WorkloadRemoved,
    WorkloadRetired,
    WorkloadStarted,
)
from outrider.core.sidekick.memory import Installed, Release
from outrider.payloads.store import PayloadStore
from outrider.runtimes import Exited, ExitWatch, Given, Restarter, RunnableRelease, Runtime, Workload, WorkloadSpec
from outrider.sidekick.environments import Environments
from outrider.sidekick.workers.worker import Post, now
from outrider.turns.oldest import TooOld


class WorkloadWork:
    """Performs ``workload.*``."""

    def __init__(
        self,
        runtime: Runtime,
        payloads: PayloadStore,
        *,
        stop_grace_s: float,
        post: Post,
        environments: Environments | None = None,
        permit: Callable[[Release], None] = lambda release: None,
    ) -> None:
        """Prepare.

        Args:
            environments: What releases are started with; None: no release has an environment.
            permit: Called before a release that was committed earlier is started; see ``RunningKeys.note``.
        """
        self._permit = permit
        self._environments = environments
        self._runtime, self._payloads = runtime, payloads
        self._grace_s, self._post = stop_grace_s, post
        self._watches: dict[str, ExitWatch] = {}

    def interrupt(self, effect: WorkloadEffect) -> None:
        """Nothing here is worth cutting short: starts and stops are bounded by the runtime."""

    def perform(self, effect: WorkloadEffect, request: int | None) -> None:
        match effect:
            case EnsureWorkload():
                if effect.installed is None:
                    self._post(WorkloadAbsent(at=now(), request=request))
                else:
                    self._require_permitted(effect.installed)
                    self._started(self._start(effect.installed), request)
            case TidyWorkload():
                self._tidy(effect.keep)
            case StartWorkload():
                self._started(self._start(effect.installed), request)
            case ReplaceWorkload():
                self._stop(effect.old)
                self._started(self._start(effect.new), request)
            case RevertWorkload():
                self._stop(effect.new)
                if effect.old is None:
                    self._post(WorkloadAbsent(at=now(), request=request))
                else:
                    self._started(self._start(effect.old), request)
            case RetireWorkload():
                self._remove(effect.installed)
                needed = [release.sha256 for release in effect.needed]
                self._payloads.prune(needed)
                self._runtime.prune(needed)
                if self._environments is not None:
                    self._environments.prune(effect.needed)
                self._post(WorkloadRetired(at=now(), request=request))
            case RemoveWorkload():
                self._remove(effect.installed)
                self._post(WorkloadRemoved(at=now(), request=request))
            case RestartWorkload():
                for installed in effect.installed:
                    self._start(installed)
            case _:
                assert_never(effect)

    def _require_permitted(self, installed: Installed) -> None:
        """Nothing is started again that is too old by now, and what starts by itself is stopped.

        A place in which it is written that this release may run is nearly always there. It isn't for an instance that
        was removed and let back. While etcd is away what was committed here is started.

        Raises:
            TooOld: it may not run any more.
        """
        try:
            self._permit(installed.release)
        except TooOld:
            if self._runtime.find(installed.workload_id) is not None:
                self._stop(installed)
            raise
        except Unknown as error:
            logger.bind(version=installed.release.version, cause=str(error)).warning("started without asking etcd")

    def close(self) -> None:
        """Workloads go on running; only the looking-out ends."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def _tidy(self, keep: tuple[str, ...]) -> None:
        for stray in self._runtime.running():
            if stray.workload_id not in keep:
                logger.bind(workload=stray.workload_id, version=stray.version).warning("unknown workload removed")
                self._forget(stray.workload_id)
                self._runtime.stop(stray.workload_id, self._grace_s)
                self._runtime.remove(stray.workload_id)

    def _start(self, installed: Installed) -> Workload:
        workload = self._runtime.find(installed.workload_id)
        if workload is None and isinstance(self._runtime, Restarter):
            workload = self._runtime.restart(installed.workload_id)
        if workload is None:
            release = installed.release
            if release.kind not in self._runtime.kinds:  # the runtime was changed since it was taken
                raise DriverError(
                    f"{release.version} is of a kind ({release.kind}) that this machine's runtime"
                    f" ({self._runtime.name}) can't run; set instance.runtime to one that can"
                )
            payload = self._payloads.find(release.sha256)
            if payload is None:
                raise DriverError(
                    f"the payload of {release.version} is gone from this machine; a newer release, or"
                    " 'outrider instance rollback', brings a new one"
                )
            given = Given() if self._environments is None else self._environments.given(release)
            if self._environments is not None:
                self._environments.note_start(installed, given)
            workload = self._runtime.start(
                WorkloadSpec(
                    workload_id=installed.workload_id,
                    release=RunnableRelease(version=release.version, sha256=release.sha256, payload=payload),
                    given=given,
                )
            )
        self._forget(workload.workload_id)
        self._watches[workload.workload_id] = self._runtime.watch(workload.workload_id, self._exited)
        return workload

    def _started(self, workload: Workload, request: int | None) -> None:
        self._post(WorkloadStarted(at=now(), request=request, workload_id=workload.workload_id, url=workload.url))

    def _stop(self, installed: Installed | None) -> None:
        if installed is not None:
            self._forget(installed.workload_id)
            self._runtime.stop(installed.workload_id, self._grace_s)

    def _remove(self, installed: Installed | None) -> None:
        if installed is not None:
            self._stop(installed)
            self._runtime.remove(installed.workload_id)

    def _forget(self, workload_id: str) -> None:
        """Stop looking out before we end it ourselves: that end is no news."""
        watch = self._watches.pop(workload_id, None)
        if watch is not None:
            watch.close()

    def _exited(self, exited: Exited) -> None:
        self._post(
            WorkloadExited(
                at=now(),
                workload_id=exited.workload_id,
                status=f"{exited.status}{exited.more}",
                evidence=exited.evidence,
                after_serving=exited.after_serving,
            )
        )
