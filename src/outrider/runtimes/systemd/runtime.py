"""Runs versions as systemd units. systemd is asked what runs; the records only say which unit is which workload.

A start is over when its job is, and a moment later: what ends at once is reported with the unit's result and the last
lines of its journal. Ends are seen by asking every second. A unit that systemd restarts by itself has not ended.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from typing import Any

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import make_folder
from outrider.runtimes import Exited, ExitWatch, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.endings import Run, look_at_end
from outrider.runtimes.polling import Polling
from outrider.runtimes.process.prepared import Prepared
from outrider.runtimes.records import Records, WorkloadRecord, image_of, workload_of
from outrider.runtimes.systemd import SystemdSettings
from outrider.runtimes.systemd.bus import Manager, UnitState
from outrider.runtimes.systemd.results import GONE, invocation_of, result_of, said
from outrider.runtimes.systemd.units import POLL_S, stop_unit, units_for

_AT_ONCE_S = 0.2
"""As for the runtime process: a missing library or a wrong argument shows within that time."""
_SHOWN = 5
"""Lines of the journal that a report has."""
_QUIET_S = 1.0
"""How long the journal is asked for the last words of what may have served, where it can't say that it has them all."""
_BACK_S = 5.0
"""How long a failed start is given to leave nothing behind."""


class SystemdRuntime:
    """The runtime ``systemd``. ``close`` ends its thread and its connection, not the units."""

    name = "systemd"

    def __init__(
        self,
        settings: SystemdSettings,
        shared: WorkloadSettings,
        instance: InstanceSettings,
        *,
        manager: Manager | None = None,
    ) -> None:
        """Run workloads of ``instance``; systemd isn't asked yet."""
        self._shared = shared
        self._state_dir = instance.state_dir.resolve()
        self._manager = manager or Manager()
        self._units = units_for(settings, shared, instance)
        self.kinds: frozenset[PayloadKind] = self._units.kinds
        self._records = Records(self._state_dir, self.name)
        self._prepared = Prepared(
            self._state_dir / "prepared",
            max_bytes=settings.max_unpacked_bytes,
            max_members=settings.max_members,
            reserve_bytes=instance.reserve_bytes,
        )
        self._polling = Polling(self.name, self._ended, settings.poll_interval_s)

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: unpack an archive, and see whether its program can be run here."""
        if not image_of(release.payload):
            self._units.look(self._prepared.make(release), release.version)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``; an unpacked ``root`` of this boot is used again."""
        running = self.find(spec.workload_id)
        if running is not None:
            return running
        name, release = spec.workload_id, spec.release
        home, image = self._records.home(name), image_of(release.payload)
        unit = self._units.name(name, release.version)
        others = self.running()
        self._take_over(unit, name)
        try:
            with failpoint("workload.clear"):
                make_folder(home.parent)
                make_folder(home)
                self._manager.reset_failed(unit)
            if not image:
                with failpoint("workload.unpack"):
                    self._prepared.move(release, home)
            record = WorkloadRecord(
                runtime=self.name,
                workload_id=name,
                version=release.version,
                host=self._shared.host,
                port=self._records.port(name, self._shared.host, self._shared.ports, others),
                run=self._records.next_run(),
                sha256=release.sha256,
                payload=str(release.payload),
                unit=unit,
                note=image,
            )
            self._units.make_ready(record, home, spec.given)
            self._records.keep(record)
            with failpoint("workload.spawn"):
                self._units.start(self._manager, record, home, spec.given)
            return self._started(record)
        except Refused:
            self._records.forget(name)
            raise
        except OSError as error:
            raise DriverError(f"{name}: can't start: {error}", evidence=seen_in(error.errno)) from error

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        record = self._record(workload_id)
        if record is None:
            return None
        state = self._manager.state(record.unit)
        return self._workload(record, state) if state.runs else None

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``: by the records, and units of ours that have lost theirs."""
        names = {record.workload_id for record in self._records.all()}
        if self._units.pattern:
            told = (_told(self._manager.properties(state)) for state in self._manager.states(self._units.pattern))
            names |= {each["OUTRIDER_WORKLOAD"] for each in told if "OUTRIDER_WORKLOAD" in each}
        found = (self.find(name) for name in sorted(names))
        return tuple(workload for workload in found if workload is not None)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``: systemd ends all that is in the unit's cgroup."""
        record = self._record(workload_id)
        if record is not None:
            with failpoint("workload.signal"):
                stop_unit(self._manager, record.unit, grace_s)

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``; its output stays in the journal."""
        record = self._records.read(workload_id)
        self.stop(workload_id, self._shared.stop_grace_s)
        if record is not None:
            with failpoint("workload.erase"):
                self._manager.reset_failed(record.unit)
            try:
                self._units.clear(record)
            except OSError as error:
                raise DriverError(f"{workload_id}: can't remove what its unit read: {error}") from error
        self._records.erase(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``: systemd is asked every ``systemd.poll_interval_s``."""
        return self._polling.watch(workload_id, deliver)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``."""
        self._prepared.prune(needed)

    def close(self) -> None:
        """Stop asking. The units go on."""
        self._polling.close()
        self._manager.close()

    def _take_over(self, unit: str, workload_id: str) -> None:
        """See that nothing runs in the unit; what ran there before has no claim to it any more.

        Raises:
            DriverError: something does.
        """
        state = self._manager.state(unit)
        owner = next((each for each in self._records.all() if each.unit == unit), None)
        if state.runs:
            whose = f"version {owner.version}" if owner is not None else "something that this sidekick did not start"
            raise DriverError(f"{workload_id}: {unit} runs {whose}: stop that first", evidence="unknown")
        if owner is not None and owner.workload_id != workload_id:
            self._records.forget(owner.workload_id)

    def _started(self, record: WorkloadRecord) -> Workload:
        """Wait for the end of the unit's start, and a moment longer.

        Raises:
            DriverError, Refused: it has not started; nothing of it runs any more.
        """
        deadline = time.monotonic() + self._shared.start_timeout_s
        quiet_until = 0.0
        while True:
            state = self._manager.state(record.unit)
            # while its start is queued it is inactive, too
            has_ended = state.active in ("failed", "inactive") and not state.job
            if has_ended or state.sub == "auto-restart":
                raise self._failed(record, state)
            if state.has_started:
                quiet_until = quiet_until or time.monotonic() + _AT_ONCE_S
                if time.monotonic() >= quiet_until:
                    return self._workload(record, state)
            if time.monotonic() > deadline:
                lines = said(record.unit, "")
                self._give_up(record)
                raise DriverError(
                    f"{record.workload_id}: {record.unit} has not started within {self._shared.start_timeout_s:g} s"
                    f" ({state.active}, {state.sub}){_quoted(lines)}",
                    evidence="no-answer",
                )
            time.sleep(POLL_S)

    def _failed(self, record: WorkloadRecord, state: UnitState) -> DriverError:
        """Why a start failed, with what the unit's journal says last, and whose fault that is."""
        restarts = state.sub == "auto-restart"
        result = result_of(self._manager.properties(state))
        # of one that restarts the run that failed isn't the present one
        lines = said(record.unit, "" if restarts else invocation_of(self._manager.properties(state, "Unit")))
        self._give_up(record)
        status = result.status
        if status == GONE:
            status = "ended, and restarted by systemd" if restarts else "exit 0"
        found = look_at_end(status, lines, self._run(record), evidence=result.evidence, shown=_SHOWN)
        return found.error(f"{record.workload_id}: {record.unit} ends at once: {status}")

    def _run(self, record: WorkloadRecord) -> Run:
        return Run(
            disk=self._state_dir,
            host=record.host,
            port=record.port,
            root=self._records.home(record.workload_id) / "root",
            environment=self._shared.env,
        )

    def _give_up(self, record: WorkloadRecord) -> None:
        """Leave nothing of a failed start behind. What can't be ended now is ended when it is removed."""
        with contextlib.suppress(DriverError), failpoint("workload.clear"):
            stop_unit(self._manager, record.unit, min(_BACK_S, self._shared.stop_grace_s))
            self._manager.reset_failed(record.unit)

    def _ended(self, workload_id: str) -> Exited | None:
        record = self._record(workload_id)
        if record is None:
            return Exited(workload_id=workload_id, status=GONE)
        state = self._manager.state(record.unit)
        if state.runs:
            return None
        is_known = state.load != "not-found"
        result = result_of(self._manager.properties(state) if is_known else {})
        lines = said(record.unit, invocation_of(self._manager.properties(state, "Unit")) if is_known else "", _QUIET_S)
        found = look_at_end(result.status, lines, self._run(record), evidence=result.evidence, shown=_SHOWN)
        return found.exited(workload_id, result.status)

    def _record(self, workload_id: str) -> WorkloadRecord | None:
        """Its record; when that is lost one made from the unit, for a unit that outrider made says enough."""
        record = self._records.read(workload_id)
        if record is not None or not self._units.pattern:
            return record
        unit = self._units.name(workload_id, "")
        state = self._manager.state(unit)
        told = _told(self._manager.properties(state)) if state.runs else {}
        if told.get("OUTRIDER_WORKLOAD") != workload_id or not told.get("PORT", "").isdigit():
            return None
        return WorkloadRecord(
            runtime=self.name,
            workload_id=workload_id,
            version=told.get("OUTRIDER_VERSION", ""),
            host=told.get("HOST", self._shared.host),
            port=int(told["PORT"]),
            run=0,
            sha256=told.get("OUTRIDER_PAYLOAD_SHA256", ""),
            unit=unit,
        )

    def _workload(self, record: WorkloadRecord, state: UnitState) -> Workload:
        service = self._manager.properties(state)
        pid = int(service.get("MainPID", 0))
        return workload_of(record, f"{record.unit}, pid {pid}" if pid else f"{record.unit}, start {record.run}")


def _told(service: dict[str, Any]) -> dict[str, str]:
    """What a unit of ours was told in its environment."""
    pairs = (text.partition("=") for text in service.get("Environment", ()))
    return {name: text for name, _, text in pairs}


def _quoted(lines: Collection[str]) -> str:
    return f"; it said: {' | '.join(lines)}" if lines else ""
