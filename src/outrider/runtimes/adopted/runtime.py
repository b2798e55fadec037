"""The instance's own runtime, with one workload more: the adopted one, until it is removed."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from outrider.config.sections import Settings
from outrider.core.blame import Evidence
from outrider.core.errors import DriverError
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.runtimes import (
    Exited,
    ExitWatch,
    HealthReporter,
    RunnableRelease,
    Runtime,
    Workload,
    WorkloadSpec,
)
from outrider.runtimes.adopted import AdoptedRecord, Foreign, Sighting, adopter, forget_record, read_record
from outrider.runtimes.endings import Run, look_at_end


def with_adopted(runtime: Runtime, settings: Settings, environment: Mapping[str, str]) -> Runtime:
    """``runtime``, with what ``outrider adopt`` has left in the state folder; ``runtime`` itself when it is nothing.

    Raises:
        ConfigError: ``adopted.json`` can't be read.
    """
    state_dir = settings.instance.state_dir
    record = read_record(state_dir)
    if record is None:
        return runtime
    foreign = adopter(record.kind).foreign(record, settings, environment)
    kind = AdoptedWithHealth if isinstance(runtime, HealthReporter) else AdoptedRuntime
    return kind(runtime, record, foreign, state_dir=state_dir, stop_grace_s=settings.workload.stop_grace_s)


class AdoptedRuntime:
    """Implements ``Runtime`` and ``Restarter``."""

    def __init__(
        self, runtime: Runtime, record: AdoptedRecord, foreign: Foreign, *, state_dir: Path, stop_grace_s: float
    ) -> None:
        """Put the workload of ``record`` beside those of ``runtime``."""
        self._runtime, self._foreign, self._state_dir, self._grace_s = runtime, foreign, state_dir, stop_grace_s
        self._record: AdoptedRecord | None = record
        self.name: str = runtime.name
        self.kinds: frozenset[PayloadKind] = runtime.kinds

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``."""
        self._runtime.prepare(release)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``; the adopted one has no payload, so this is for the others."""
        return self.restart(spec.workload_id) or self._runtime.start(spec)

    def restart(self, workload_id: str) -> Workload | None:
        """As ``Restarter.restart``."""
        record = self._adopted(workload_id)
        if record is None:
            return None
        if record.no_restart:
            raise DriverError(
                f"{record.name} does not run, and outrider can't start it again: {record.no_restart}; start it by hand,"
                " or let a release replace it",
                evidence="not-now",
            )
        with failpoint("workload.spawn"):
            self._foreign.start()
        found = self.find(workload_id)
        if found is None:
            raise DriverError(f"{record.name} ends at once; it ran before it was adopted")
        return found

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        record = self._adopted(workload_id)
        if record is None:
            return self._runtime.find(workload_id)
        seen = self._foreign.find()
        return None if seen is None else _workload(record, seen)

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``; the adopted one was there first."""
        found = self._runtime.running()
        own = self.find(self._record.workload_id) if self._record is not None else None
        return found if own is None else (own, *found)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``."""
        if self._adopted(workload_id) is None:
            self._runtime.stop(workload_id, grace_s)
            return
        with failpoint("workload.signal"):
            self._foreign.stop(grace_s)

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``: the adopted one is stopped, and forgotten."""
        if self._adopted(workload_id) is None:
            self._runtime.remove(workload_id)
            return
        self.stop(workload_id, self._grace_s)
        forget_record(self._state_dir)
        self._record = None

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``."""
        if self._adopted(workload_id) is None:
            return self._runtime.watch(workload_id, deliver)

        def tell(status: str, evidence: Evidence) -> None:
            found = look_at_end(status, (), Run(disk=self._state_dir), evidence=evidence)
            deliver(found.exited(workload_id, status))

        return self._foreign.watch(tell)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``."""
        self._runtime.prune(needed)

    def close(self) -> None:
        """Both go on running."""
        self._foreign.close()
        self._runtime.close()

    def _adopted(self, workload_id: str) -> AdoptedRecord | None:
        """The record, if that is its workload."""
        return self._record if self._record is not None and self._record.workload_id == workload_id else None


class AdoptedWithHealth(AdoptedRuntime):
    """Beside a runtime that knows whether its workloads are well."""

    def health(self, url: str) -> str:
        """As ``HealthReporter.health``."""
        seen = self._foreign.find() if self._record is not None else None
        if seen is not None and seen.url == url:
            return self._foreign.health()
        assert isinstance(self._runtime, HealthReporter)
        return self._runtime.health(url)

    def trouble(self) -> str:
        """As ``HealthReporter.trouble``."""
        assert isinstance(self._runtime, HealthReporter)
        return self._runtime.trouble()


def _workload(record: AdoptedRecord, seen: Sighting) -> Workload:
    return Workload(
        workload_id=record.workload_id,
        version=record.version,
        url=seen.url,
        handle=seen.handle,
        kind="image" if record.kind == "container" else "archive",
    )
