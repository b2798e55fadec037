"""Runs versions with the operator's own programs.

What is known of a workload is in its record; whether it runs, only ``find`` can say, and "don't know" is an answer.
Programs may be called again with the same arguments after a crash, so each of them has to bear that.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import Evidence
from outrider.core.errors import DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import make_folder, read_file, write_file
from outrider.runtimes import Exited, ExitWatch, Given, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.command import CommandSettings
from outrider.runtimes.command.programs import Call, Done, end_left, run
from outrider.runtimes.endings import Finding, MemoryKills, Run, look_at_end
from outrider.runtimes.inherited import passed_on
from outrider.runtimes.polling import Polling
from outrider.runtimes.process.apart import apps_unit
from outrider.runtimes.process.command import last_lines
from outrider.runtimes.process.identity import boot_id, marked
from outrider.runtimes.process.output import Outputs
from outrider.runtimes.process.prepared import Prepared
from outrider.runtimes.records import Records, WorkloadRecord, image_of, workload_of

_GONE = "gone"
_RUNS, _RUNS_NOT = 0, (1, 3)
"""Exit codes of ``find``: 3 is what systemctl and LSB scripts say, 1 what most other programs do."""
_STOP_SLACK_S = 10.0
_OUTPUT_MAX_BYTES = 16 * 1024**2
_TOLD = ("url", "handle")
"""What ``start`` and ``find`` may print as ``NAME=TEXT``."""


class CommandRuntime:
    """The runtime ``command``. ``close`` ends its threads, not the workloads."""

    name = "command"
    kinds: frozenset[PayloadKind] = frozenset({"archive", "image"})

    def __init__(
        self,
        settings: CommandSettings,
        shared: WorkloadSettings,
        instance: InstanceSettings,
        *,
        environment: Mapping[str, str],
        only_sidekicks: bool = False,
    ) -> None:
        """Run workloads of ``instance``; its programs inherit ``environment`` but for what is ours.

        Args:
            only_sidekicks: This process does nothing but run sidekicks: what ``start`` leaves running is moved to the
                unit of ``workload.unit``.
        """
        self._settings, self._shared, self._instance = settings, shared, instance
        self._state_dir = instance.state_dir.resolve()
        self._records = Records(self._state_dir, self.name)
        self._prepared = self._state_dir / "prepared"
        self._inherited = passed_on(environment)
        self._outputs = Outputs(self._state_dir / "workloads", _OUTPUT_MAX_BYTES)
        self._apart = apps_unit(shared.unit) if only_sidekicks else None
        self._kills = MemoryKills()
        self._polling = Polling(self.name, self._ended, settings.find_interval_s)

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: the programs ``prepare``, once for each boot, and ``check``."""
        self._prepare(release, "workload.prepare")

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``: the programs ``check`` and ``start``; ``find`` must see it then."""
        name, release = spec.workload_id, spec.release
        running = self.find(name)
        if running is not None:
            return running
        home = self._records.home(name)
        with failpoint("workload.clear"):
            self._make_folder(home)
            end_left(home)
        others = self.running()
        self._prepare(release, "workload.unpack")
        record = WorkloadRecord(
            runtime=self.name,
            workload_id=name,
            version=release.version,
            host=self._shared.host,
            port=self._records.port(name, self._shared.host, self._shared.ports, others),
            run=self._records.next_run(),
            sha256=release.sha256,
            payload=str(release.payload),
        )
        self._records.keep(record)
        old = max(others, key=lambda each: each.order, default=None)
        self._kills.note(name, again=True)
        with failpoint("workload.spawn"):
            before = old.version if old is not None else ""
            done = self._run("start", record, self._shared.start_timeout_s, old=before, given=spec.given)
            if self._apart is not None:
                self._apart.take(name, self._run_of(record).own)
        if done.code != 0:
            raise self._problem(record, done.told("start", self._settings.start[0]), done, others)
        if told := _told(done):
            record = msgspec.structs.replace(record, **told)
            self._records.keep(record)
        found = self.find(name)
        if found is None:
            raise self._problem(record, "start left with 0, and find says that it does not run", done, others)
        return found

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``: what the program ``find`` says."""
        record = self._records.read(workload_id)
        return None if record is None else self._find(record)

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``."""
        found = (self._find(record) for record in self._records.all())
        return tuple(each for each in found if each is not None)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``: the program ``stop``, then ``find`` until it says no."""
        record = self._records.read(workload_id)
        if record is None:
            return
        with failpoint("workload.signal"):
            end_left(self._records.home(workload_id))
            if self._find(record) is None:
                return
            deadline = time.monotonic() + grace_s + _STOP_SLACK_S
            done = self._run("stop", record, grace_s + _STOP_SLACK_S, OUTRIDER_STOP_GRACE_S=f"{grace_s:g}")
            if done.code != 0:
                raise DriverError(f"{workload_id}: {done.told('stop', self._settings.stop[0])}", evidence=done.evidence)
            while self._find(record) is not None:
                if time.monotonic() > deadline:
                    raise DriverError(f"{workload_id}: stop left with 0, and find says that it still runs")
                time.sleep(min(0.2, self._settings.find_interval_s))

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``: its folder goes too."""
        self.stop(workload_id, self._shared.stop_grace_s)
        self._records.erase(workload_id)
        if self._apart is not None:
            self._apart.remove(workload_id)
        self._kills.forget(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``: ``find`` is run every ``command.find_interval_s``."""
        self._kills.note(workload_id)
        return self._polling.watch(workload_id, deliver)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``: the folders that ``prepare`` was given."""
        Prepared(self._prepared).prune(needed)

    def close(self) -> None:
        """Stop asking. The workloads go on."""
        self._polling.close()
        self._outputs.close()

    def _ended(self, workload_id: str) -> Exited | None:
        if self.find(workload_id) is not None:
            return None
        record = self._records.read(workload_id)
        if record is None:
            return Exited(workload_id=workload_id, status=_GONE)
        others = [each for each in self.running() if each.workload_id != workload_id]
        return self._look_at_end(record, others).exited(workload_id, _GONE)

    def _prepare(self, release: RunnableRelease, point: str) -> None:
        """Run ``prepare``, unless it has been done on this boot, then ``check``."""
        home = self._prepared / release.sha256
        mark = home / "prepared"
        record = WorkloadRecord(
            runtime=self.name,
            workload_id="",
            version=release.version,
            host=self._shared.host,
            port=0,
            run=0,
            sha256=release.sha256,
            payload=str(release.payload),
        )
        with failpoint("workload.prepare") if point == "workload.prepare" else failpoint("workload.unpack"):
            self._make_folder(home)
            if self._settings.prepare and _content(mark) != boot_id():
                done = self._run("prepare", record, self._settings.prepare_timeout_s, home=home)
                if done.code != 0:
                    raise self._problem(record, done.told("prepare", self._settings.prepare[0]), done, ())
                with contextlib.suppress(OSError):  # it runs again the next time
                    write_file(mark, boot_id().encode())
            if self._settings.check:
                done = self._run("check", record, self._settings.check_timeout_s, home=home)
                if done.code != 0:
                    raise self._problem(record, done.told("check", self._settings.check[0]), done, ())

    def _find(self, record: WorkloadRecord) -> Workload | None:
        try:
            done = self._run("find", record, self._settings.find_timeout_s)
        except DriverError:
            if self._records.home(record.workload_id).is_dir():
                raise
            return None  # it was removed after its record was read; its folder is not made anew
        if done.code in _RUNS_NOT:
            return None
        if done.code != _RUNS:
            raise DriverError(
                f"{record.workload_id}: {done.told('find', self._settings.find[0])}; it can't be told whether it runs"
                " (find exits with 0 for yes, 1 or 3 for no)",
                evidence=done.evidence,
            )
        record = msgspec.structs.replace(record, **_told(done))
        return workload_of(record, f"{record.note or self.name}, start {record.run}")

    def _problem(self, record: WorkloadRecord, text: str, done: Done, others: Collection[Workload]) -> DriverError:
        """Why it did not start, and whose fault that is: what ``find`` doesn't see has ended at once."""
        name = record.workload_id or record.version
        if done.code == 0:
            return self._look_at_end(record, others).error(f"{name}: {text}")
        found = look_at_end(f"exit {done.code}", done.lines, self._run_of(record), evidence="unknown", shown=0)
        evidence = found.evidence if found.evidence != "unknown" else done.evidence
        if evidence == "bad-payload":
            return Refused(f"{name}: {text}")
        return DriverError(f"{name}: {text}{found.text}", evidence=evidence)

    def _look_at_end(self, record: WorkloadRecord, others: Collection[Workload]) -> Finding:
        """Why it has ended.

        That is the release's fault only if ``find`` knows another version here: else nobody can tell it from a program
        that doesn't fit this machine. What has served fits.
        """
        lines = last_lines(self._records.home(record.workload_id) / "output.log")
        # what start told us comes between the app's words, or after its last ones
        lines = tuple(line for line in lines if line.partition("=")[0] not in _TOLD)
        evidence: Evidence = "ended" if others else "unknown"
        return look_at_end(_GONE, lines, self._run_of(record), evidence=evidence, after_serving="ended")

    def _run_of(self, record: WorkloadRecord) -> Run:
        marks = {"OUTRIDER_WORKLOAD": record.workload_id, "OUTRIDER_INSTANCE_DIR": str(self._state_dir)}
        return Run(
            disk=self._state_dir,
            host=record.host,
            port=record.port,
            root=self._prepared / record.sha256,
            environment={**self._inherited, **self._shared.env},
            own=lambda: [each.pid for each in marked(marks)],
            kills_before=self._kills.of(record.workload_id),
        )

    def _run(
        self,
        action: str,
        record: WorkloadRecord,
        limit_s: float,
        *,
        home: Path | None = None,
        old: str = "",
        given: Given | None = None,
        **more: str,
    ) -> Done:
        words: tuple[str, ...] = getattr(self._settings, action)
        home, given = home or self._records.home(record.workload_id), given or Given()
        quiet = action == "find"
        known = {"version": record.version, "host": record.host, "port": str(record.port)}
        known |= {"workload": record.workload_id, "payload": record.payload}
        return run(
            Call(
                action=action,
                words=[*(_filled(word, known) for word in words), *given.arguments],
                environment={**self._environment(record, old, given), "OUTRIDER_ACTION": action, **more},
                home=home,
                output=home / ("find.log" if quiet else "output.log"),
                limit_s=limit_s,
                is_logged=not quiet,
            )
        )

    def _environment(self, record: WorkloadRecord, old: str, given: Given) -> dict[str, str]:
        payload = Path(record.payload) if record.payload else None
        size = payload.stat().st_size if payload is not None and payload.is_file() else 0
        known = {
            "UPDATE_SERVICE_VERSION": record.version,
            "UPDATE_SERVICE_OLD_VERSION": old,
            "UPDATE_SERVICE_APP_ID": self._instance.app.strip().removeprefix("{").removesuffix("}"),
            "UPDATE_SERVICE_URL": payload.as_uri() if payload is not None else "",
            "UPDATE_SERVICE_SHA256": record.sha256,
            "UPDATE_SERVICE_SIZE": str(size) if size else "",
            "UPDATE_SERVICE_PACKAGE": payload.name if payload is not None else "",
            "OUTRIDER_INSTANCE": self._instance.id,
            "OUTRIDER_INSTANCE_DIR": str(self._state_dir),
            "OUTRIDER_GROUP": self._instance.group,
            "OUTRIDER_WORKLOAD": record.workload_id,
            "OUTRIDER_VERSION": record.version,
            "OUTRIDER_PAYLOAD": record.payload,
            "OUTRIDER_PAYLOAD_SHA256": record.sha256,
            "OUTRIDER_IMAGE": image_of(payload) if payload is not None else "",
            "OUTRIDER_PREPARED_DIR": str(self._prepared / record.sha256) if record.sha256 else "",
            "OUTRIDER_WORKLOAD_DIR": str(self._records.home(record.workload_id)) if record.workload_id else "",
            "HOST": record.host,
            "PORT": str(record.port) if record.port else "",
        }
        said = {name: text for name, text in known.items() if text}
        return {**self._inherited, **self._shared.env, **given.variables, **said}

    def _make_folder(self, folder: Path) -> None:
        try:
            make_folder(folder.parent)
            make_folder(folder)
        except OSError as error:
            raise DriverError(f"can't make {folder}: {error.strerror or error}") from error


def _filled(word: str, known: Mapping[str, str]) -> str:
    for name, text in known.items():
        word = word.replace(f"{{{name}}}", text)
    return word


def _told(done: Done) -> dict[str, str]:
    """What the program said of the workload: its address, and how people call it."""
    told = {}
    for line in done.lines:
        name, found, text = line.partition("=")
        if not found or name not in _TOLD or not text.isprintable():
            continue
        if name == "handle":
            told["note"] = text
        elif urlsplit(text).scheme == "http" and urlsplit(text).hostname:
            told["url"] = text.rstrip("/")
    return told


def _content(path: Path) -> str:
    try:
        return read_file(path).decode(errors="replace")
    except OSError:
        return ""
