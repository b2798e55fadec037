"""Runs versions as fleet units. fleet is asked what runs; the records only say which unit is which workload.

What fleet says of a unit lags behind what is wanted. So what was said before a start counts for nothing until
something else is said, or until it has been said for long enough.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import make_folder
from outrider.runtimes import Exited, ExitWatch, Given, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.endings import Finding, MemoryKills, Run, look_at_end
from outrider.runtimes.fleet import FleetSettings
from outrider.runtimes.fleet.api import Fleet, FleetState
from outrider.runtimes.fleet.template import default_name, filled, name_of, read_template
from outrider.runtimes.polling import Polling
from outrider.runtimes.process.prepared import Prepared
from outrider.runtimes.records import Records, WorkloadRecord, image_of, workload_of
from outrider.runtimes.systemd.results import said
from outrider.runtimes.systemd.units import environment_of, no_arguments, open_to_all

_STALE_S = 15.0
"""fleet's agents say how their units are every 5 s, and etcd keeps that for a while."""
_SHOWN = 5
"""Lines of the journal that a report has."""
_QUIET_S = 1.0
"""How long the journal is asked for the last words of what may have served, where it can't say that it has them all."""


class FleetRuntime:
    """The runtime ``fleet``. ``close`` ends its thread, not the units."""

    name = "fleet"
    kinds: frozenset[PayloadKind] = frozenset({"archive", "image"})

    def __init__(self, settings: FleetSettings, shared: WorkloadSettings, instance: InstanceSettings) -> None:
        """Run workloads of ``instance``; fleet isn't asked yet."""
        assert settings.template is not None, "the settings were checked"
        self._settings, self._shared, self._instance = settings, shared, instance
        self._state_dir, self._template = instance.state_dir.resolve(), settings.template
        self._fleet = Fleet(settings.url, settings.timeout_s)
        self._records = Records(self._state_dir, self.name)
        self._prepared = Prepared(
            self._state_dir / "prepared",
            max_bytes=settings.max_unpacked_bytes,
            max_members=settings.max_members,
            reserve_bytes=instance.reserve_bytes,
        )
        self._kills = MemoryKills()
        self._polling = Polling(self.name, self._ended, settings.poll_interval_s)

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: unpack an archive. An image is pulled by whatever the unit runs."""
        if not image_of(release.payload):
            self._prepared.make(release)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``; an unpacked ``root`` of this boot is used again."""
        running = self.find(spec.workload_id)
        if running is not None:
            return running
        name, release = spec.workload_id, spec.release
        home, image = self._records.home(name), image_of(release.payload)
        unit = name_of(self._settings.unit or default_name(self._template), release.version, self._instance.id)
        others = self.running()
        before = self._fleet.state(unit)
        self._take_over(unit, name, before)
        try:
            with failpoint("workload.clear"):
                make_folder(home.parent)
                make_folder(home)
            if not image:
                with failpoint("workload.unpack"):
                    self._prepared.move(release, home)
                    open_to_all(home / "root")
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
            if spec.given.arguments:
                raise no_arguments(record, "the unit's template has a command of its own")
            options = self._options(record, home, spec.given)
            self._records.keep(record)
            self._kills.note(name, again=True)
            with failpoint("workload.spawn"):
                self._fleet.launch(unit, options)
            return self._started(record, before, others)
        except Refused:
            self._records.forget(name)
            raise
        except OSError as error:
            raise DriverError(f"{name}: can't start: {error}", evidence=seen_in(error.errno)) from error

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        record = self._records.read(workload_id)
        if record is None:
            return None
        state = self._fleet.state(record.unit)
        return _workload(record, state) if state is not None and state.runs else None

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``."""
        found = (self.find(record.workload_id) for record in self._records.all())
        return tuple(workload for workload in found if workload is not None)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``: fleet takes the unit from its machine; systemd there sends SIGKILL after the grace."""
        record = self._records.read(workload_id)
        if record is not None:
            with failpoint("workload.signal"):
                self._stop(record.unit, grace_s)

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``: the unit is destroyed."""
        record = self._records.read(workload_id)
        self.stop(workload_id, self._shared.stop_grace_s)
        if record is not None:
            with failpoint("workload.erase"):
                self._fleet.destroy(record.unit)
        self._records.erase(workload_id)
        self._kills.forget(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``: fleet is asked every ``fleet.poll_interval_s``."""
        self._kills.note(workload_id)
        return self._polling.watch(workload_id, deliver)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``."""
        self._prepared.prune(needed)

    def close(self) -> None:
        """Stop asking. The units go on."""
        self._polling.close()

    def _take_over(self, unit: str, workload_id: str, state: FleetState | None) -> None:
        """See that nothing runs in the unit; what ran there before has no claim to it any more.

        Raises:
            DriverError: something does.
        """
        owner = next((each for each in self._records.all() if each.unit == unit), None)
        if state is not None and state.runs:
            whose = f"version {owner.version}" if owner is not None else "something that this sidekick did not start"
            raise DriverError(f"{workload_id}: {unit} runs {whose}: stop that first", evidence="unknown")
        if owner is not None and owner.workload_id != workload_id:
            self._records.forget(owner.workload_id)

    def _options(self, record: WorkloadRecord, home: Path, given: Given) -> list[dict[str, str]]:
        """The unit of one version.

        Raises:
            ConfigError: the template can't be read any more.
        """
        template = read_template(self._template)
        values = {
            "version": record.version,
            "instance": self._instance.id,
            "workload": record.workload_id,
            "host": record.host,
            "port": str(record.port),
            "image": record.note,
            "payload": record.payload,
            "root": str(home / "root"),
            "sha256": record.sha256,
            "stop_grace_s": f"{self._shared.stop_grace_s:g}",
        }
        options = filled(template, values, environment_of(record, self._shared, self._instance, given))
        names = {each.name for each in template}
        if self._settings.machine_of:
            options.append({"section": "X-Fleet", "name": "MachineOf", "value": self._settings.machine_of})
        if "TimeoutStopSec" not in names:
            options.append({"section": "Service", "name": "TimeoutStopSec", "value": values["stop_grace_s"]})
        return options

    def _started(self, record: WorkloadRecord, before: FleetState | None, others: Collection[Workload]) -> Workload:
        """Wait until fleet says that it runs.

        Raises:
            DriverError, Refused: it doesn't; the unit is destroyed.
        """
        begun = time.monotonic()
        while True:
            state = self._fleet.state(record.unit)
            waited_s = time.monotonic() - begun
            if state is not None and state.active == "active":
                return _workload(record, state)
            is_news = state != before or waited_s > _STALE_S
            if state is not None and state.active in ("failed", "inactive") and is_news:
                raise self._failed(record, f"is {state.active} ({state.sub})", others)
            if waited_s > self._shared.start_timeout_s:
                raise self._not_started(record, state)
            time.sleep(min(0.2, self._settings.poll_interval_s))

    def _not_started(self, record: WorkloadRecord, state: FleetState | None) -> DriverError:
        unit = self._fleet.unit(record.unit)
        self._give_up(record)
        text = f"{record.workload_id}: {record.unit} has not started within {self._shared.start_timeout_s:g} s"
        if unit is not None and not unit.machine:
            return DriverError(
                f"{text}: fleet has no machine for it; look at fleet.machine_of and [X-Fleet] of {self._template}",
                evidence="wrong-setting",
            )
        return DriverError(f"{text} ({state.active if state is not None else 'not heard of'})", evidence="no-answer")

    def _failed(self, record: WorkloadRecord, what: str, others: Collection[Workload]) -> DriverError:
        """Why a start failed, and whose fault that is."""
        lines = said(record.unit, "")
        self._give_up(record)
        return self._look_at_end(record, lines, others).error(f"{record.workload_id}: {record.unit} {what}")

    def _look_at_end(self, record: WorkloadRecord, lines: Sequence[str], others: Collection[Workload]) -> Finding:
        """Why it has ended.

        fleet doesn't say how a unit ended. That the same template runs another version here, now, speaks for template
        and machine; without that nobody is blamed. What has served fits.
        """
        run = Run(
            disk=self._state_dir,
            host=record.host,
            port=record.port,
            root=self._records.home(record.workload_id) / "root",
            environment=self._shared.env,
            kills_before=self._kills.of(record.workload_id),
        )
        evidence: Evidence = "ended" if others else "unknown"
        return look_at_end("gone", lines, run, evidence=evidence, after_serving="ended", shown=_SHOWN)

    def _give_up(self, record: WorkloadRecord) -> None:
        """Leave nothing of a failed start behind. What can't be ended now is ended when it is removed."""
        with contextlib.suppress(DriverError), failpoint("workload.clear"):
            self._fleet.destroy(record.unit)

    def _stop(self, unit: str, grace_s: float) -> None:
        if self._fleet.unit(unit) is None and self._fleet.state(unit) is None:
            return
        self._fleet.unload(unit)
        deadline = time.monotonic() + grace_s + _STALE_S
        while (state := self._fleet.state(unit)) is not None and state.runs:
            if time.monotonic() > deadline:
                raise DriverError(f"{unit}: still {state.active} ({state.sub}) on machine {state.machine}")
            time.sleep(min(0.2, self._settings.poll_interval_s))

    def _ended(self, workload_id: str) -> Exited | None:
        record = self._records.read(workload_id)
        state = self._fleet.state(record.unit) if record is not None else None
        if state is not None and state.runs:
            return None
        status = state.active if state is not None else "gone"
        if record is None:
            return Exited(workload_id=workload_id, status=status)
        others = [each for each in self.running() if each.workload_id != workload_id]
        return self._look_at_end(record, said(record.unit, "", _QUIET_S), others).exited(workload_id, status)


def _workload(record: WorkloadRecord, state: FleetState) -> Workload:
    return workload_of(record, f"{record.unit} on {state.machine[:8]}, start {record.run}")
