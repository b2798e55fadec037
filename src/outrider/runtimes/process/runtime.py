"""Runs a version as a process group on this machine, unpacked from a tar.

A workload's folder holds ``root`` (what was unpacked), ``record.json`` (who it is) and ``output.log``. What is unpacked
ahead of the start waits in ``prepared/SHA256`` until it is moved there (see ``prepared``). Workloads are sessions of
their own and outlive the sidekick; the next one finds them by the record, or, when the sidekick died between starting
and recording, by the variables in their environment. See docs/decisions/0005-process-runtime.md.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
from loguru import logger

from outrider.config.sections import WorkloadSettings
from outrider.core.blame import seen_in
from outrider.core.errors import DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import as_bytes, clear_file, is_file, make_folder, open_file, read_file, write_file
from outrider.journal.reserve import spend as spend_reserve
from outrider.runtimes import Exited, ExitWatch, Given, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.endings import Finding, MemoryKills, Run, look_at_end
from outrider.runtimes.inherited import passed_on
from outrider.runtimes.process import ProcessSettings
from outrider.runtimes.process.apart import apps_unit
from outrider.runtimes.process.cgroups import cgroup_line, find_delegated
from outrider.runtimes.process.command import (
    check_program,
    command_line,
    exec_problem,
    last_lines,
)
from outrider.runtimes.process.exits import GONE, Exits
from outrider.runtimes.process.family import (
    FOLDER,
    WORKLOAD,
    Families,
    Origin,
    become_subreaper,
    descendants,
)
from outrider.runtimes.process.identity import (
    Process,
    boot_id,
    environment_of,
    is_running,
    look_at,
    marked,
)
from outrider.runtimes.process.output import Outputs
from outrider.runtimes.process.ports import address, port_again
from outrider.runtimes.process.prepared import Prepared
from outrider.runtimes.process.signals import send, wait_for_end

# How long a start waits for the sort of failure that shows at once: a missing library, a wrong argument.
_AT_ONCE_S = 0.2
# SIGKILL takes effect when a system call ends; only a process stuck in a device takes longer.
_KILL_S = 10.0
_KEPT_LOGS = 10
_WORKLOAD_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``record.json``: written before the start (``pid`` 0) and after it.

    Attributes:
        boot: Boot on which ``pid`` and ``started`` mean something.
        started: Start time of the process in clock ticks since boot.
        cgroup: Where it was started, as ``family.cgroup_line`` has it.
        sha256: Of the payload; empty when that isn't known any more.
    """

    workload_id: str
    version: str
    host: str
    port: int
    boot: str
    pid: int = 0
    started: int = 0
    cgroup: str = ""
    sha256: str = ""


class ProcessRuntime:
    """The runtime ``process``. ``close`` ends its thread, not the workloads."""

    name = "process"
    kinds: frozenset[PayloadKind] = frozenset({"archive"})

    def __init__(
        self,
        settings: ProcessSettings,
        shared: WorkloadSettings,
        *,
        state_dir: Path,
        instance: str,
        environment: Mapping[str, str] | None = None,
        owns_process: bool = False,
        shares_process: bool = False,
        reserve_bytes: int = 0,
    ) -> None:
        """Run workloads below ``state_dir``, which tells this instance's apart from those of its neighbours.

        Args:
            environment: What apps inherit besides ``[workload] env``; our own when None. ``OUTRIDER_*`` and systemd's
                notification variables are left out.
            owns_process: This process does nothing but run one sidekick. It becomes a child subreaper, and all its
                descendants are taken for processes of its workloads.
            shares_process: The same, but it runs several sidekicks: which workload a descendant belongs to is found
                by its other marks alone.
            reserve_bytes: Of the disk, that stay free when something is unpacked ahead of its start.
        """
        self._settings, self._shared, self._instance = settings, shared, instance
        self._folder = state_dir.resolve()
        self._prepared = Prepared(
            self._folder / "prepared",
            max_bytes=settings.max_unpacked_bytes,
            max_members=settings.max_members,
            reserve_bytes=reserve_bytes,
        )
        self._outputs = Outputs(self._folder / "workloads", settings.output_max_bytes)
        self._inherited = passed_on(os.environ if environment is None else environment)
        only_sidekicks = owns_process or shares_process
        if only_sidekicks:
            become_subreaper()
        cgroups = find_delegated() if only_sidekicks else None
        strangers = descendants() if owns_process else frozenset()
        self._families = Families(
            folder=self._folder,
            cgroups=cgroups,
            apart=apps_unit(shared.unit) if only_sidekicks else None,
            owns_process=owns_process,
            strangers=strangers,
        )
        self._exits = Exits(reaps=only_sidekicks)
        self._statuses: dict[str, str] = {}
        self._children: dict[str, tuple[int, int]] = {}
        self._kills = MemoryKills()

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: unpack the archive, and see whether its program can be run here."""
        root = self._prepared.make(release)
        environment = {**self._inherited, **self._shared.env}
        self._command(root, environment, {"port": "0", "host": self._shared.host, "version": release.version})

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``."""
        self._prepared.prune(needed)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``; an unpacked ``root`` of this boot is used again."""
        running = self.find(spec.workload_id)
        if running is not None:
            return running
        home = self._home(spec.workload_id)
        try:
            with failpoint("workload.clear"):
                make_folder(home.parent)
                make_folder(home)
                # Left by an earlier run whose first process died; beside the new one they would be half a second copy.
                self._end(spec.workload_id, self._shared.stop_grace_s)
            with failpoint("workload.unpack"):
                self._prepared.move(spec.release, home)
            record = ProcessRecord(
                workload_id=spec.workload_id,
                version=spec.release.version,
                host=self._shared.host,
                port=self._port(spec.workload_id),
                boot=boot_id(),
                sha256=spec.release.sha256,
            )
            self._write(record)
            return self._launch(record, spec.given)
        except Refused:
            with failpoint("workload.clear"):
                (home / "record.json").unlink(missing_ok=True)
            raise
        except OSError as error:
            raise DriverError(f"{spec.workload_id}: can't start: {error}", evidence=seen_in(error.errno)) from error

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        record = self._running_record(workload_id)
        return None if record is None else _workload(record)

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``."""
        found = (self.find(name) for name in self._names())
        return tuple(workload for workload in found if workload is not None)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``; what the app has started itself ends with it."""
        with failpoint("workload.signal"):
            self._end(workload_id, grace_s)

    def _end(self, workload_id: str, grace_s: float) -> None:
        record = self._running_record(workload_id)
        members = self._members(workload_id)
        if record is None and members:
            pids = [each.pid for each in members]
            logger.bind(workload=workload_id, pids=pids).warning("orphans of an ended workload are stopped")
        deadline = time.monotonic() + grace_s
        while members:
            send(_process_of(record), members, signal.SIGTERM)
            if not wait_for_end(members, deadline):
                break
            members = self._members(workload_id)  # what was started meanwhile
        deadline = time.monotonic() + _KILL_S
        while members:
            # what its parent alone connected with the workload is still known, and still has to go
            known = {(each.pid, each.started): each for each in (*members, *self._members(workload_id))}
            members = tuple(each for each in known.values() if is_running(each.pid, each.started))
            send(_process_of(record), members, signal.SIGKILL)
            if not wait_for_end(members, deadline):
                left = ", ".join(str(each.pid) for each in members if is_running(each.pid, each.started))
                raise DriverError(f"{workload_id}: still runs {_KILL_S:g} s after SIGKILL: pid {left}")
            members = self._members(workload_id)

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``; the output of the last few stays in ``logs/`` for people."""
        self.stop(workload_id, self._shared.stop_grace_s)
        home, trash = self._home(workload_id), self._folder / "workloads" / f".removed-{workload_id}"
        self._statuses.pop(workload_id, None)
        self._children.pop(workload_id, None)
        self._kills.forget(workload_id)
        try:
            if home.is_dir():
                with failpoint("workload.rename"):
                    shutil.rmtree(trash, ignore_errors=True)
                    self._keep_output(workload_id, home / "output.log")
                    # Renamed first: a half-removed root would be taken for a whole one.
                    home.rename(trash)
            with failpoint("workload.erase"):
                self._families.forget(workload_id)
                if trash.is_dir():
                    shutil.rmtree(trash)
        except OSError as error:
            raise DriverError(f"{workload_id}: can't remove {home}: {error}") from error

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``; a workload that an earlier sidekick started ends with the status ``gone``."""

        def tell(status: str) -> None:
            known = self._statuses.get(workload_id, GONE) if status == GONE else status
            deliver(self._look_at_end(workload_id, known).exited(workload_id, known))

        self._kills.note(workload_id)
        record = self._running_record(workload_id)
        # A child of ours may have ended a moment ago, and its status not been read yet.
        process = self._children.get(workload_id) if record is None else (record.pid, record.started)
        return self._exits.ended(tell) if process is None else self._exits.watch(*process, tell)

    def close(self) -> None:
        """Stop looking for ends. The workloads go on."""
        self._exits.close()
        self._outputs.close()

    def _home(self, workload_id: str) -> Path:
        if not _WORKLOAD_ID.fullmatch(workload_id):
            raise ValueError(f"workload id {workload_id!r}")
        return self._folder / "workloads" / workload_id

    def _names(self) -> list[str]:
        """Ids of all workloads that have a folder."""
        try:
            return [name for name in sorted(os.listdir(self._folder / "workloads")) if _WORKLOAD_ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _port(self, workload_id: str) -> int:
        recorded: dict[str, int] = {}
        for name in self._names():
            if (record := self._record(name)) is not None:
                recorded[name] = record.port
        before, known = recorded.pop(workload_id, None), recorded.values()
        running = {int(each.url.rpartition(":")[2]) for each in self.running()}
        return port_again(self._shared.host, self._shared.ports, before=before, known=known, running=running)

    def _launch(self, record: ProcessRecord, given: Given) -> Workload:
        home = self._home(record.workload_id)
        environment = self._environment(record, given)
        placeholders = {"port": str(record.port), "host": record.host, "version": record.version}
        try:
            command = [*self._command(home / "root", environment, placeholders), *given.arguments]
        except DriverError as error:
            raise type(error)(f"{record.workload_id}: {error}", evidence=error.evidence) from None
        ended = threading.Event()
        self._statuses.pop(record.workload_id, None)
        self._kills.note(record.workload_id, again=True)

        def note(status: str) -> None:
            self._statuses[record.workload_id] = status
            ended.set()

        clear_file(home / "output.log", keep=True)
        with open(open_file(home / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as output:
            try:
                with failpoint("workload.spawn"):
                    child = subprocess.Popen(
                        [as_bytes(word) for word in command],
                        cwd=home / "root",
                        env={as_bytes(name): as_bytes(text) for name, text in environment.items()},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                    process = look_at(child.pid)
                    assert process is not None, "a child stays in /proc until its status is read"
                    self._families.claim(record.workload_id, process)
            except OSError as error:
                fault = exec_problem(command[0], home / "root", error, environment)
                raise type(fault)(f"{record.workload_id}: {fault}", evidence=fault.evidence) from error
        record = msgspec.structs.replace(record, pid=child.pid, started=process.started, cgroup=cgroup_line(child.pid))
        self._exits.own(child, process.started, note)
        self._children[record.workload_id] = (child.pid, process.started)
        self._write(record)
        if ended.wait(_AT_ONCE_S):
            self._end(record.workload_id, 0)
            status = self._statuses[record.workload_id]
            found = self._look_at_end(record.workload_id, status, environment)
            raise found.error(f"{record.workload_id}: ends at once: {status}")
        return _workload(record)

    def _command(self, root: Path, environment: Mapping[str, str], placeholders: Mapping[str, str]) -> list[str]:
        """What is run, looked at as far as that goes without running it.

        Raises:
            Refused, DriverError: as ``command_line`` and ``check_program``.
        """
        others = [self._home(name) / "root" for name in self._names() if self._home(name) / "root" != root]
        command = command_line(self._settings.command, placeholders, root, environment, others)
        check_program(Path(command[0]), root, environment)
        return command

    def _look_at_end(self, workload_id: str, status: str, environment: Mapping[str, str] | None = None) -> Finding:
        """Why it has ended by itself. ``environment``: the app's, where that is known."""
        home, record = self._home(workload_id), self._record(workload_id)
        run = Run(
            disk=self._folder,
            host=self._shared.host if record is None else record.host,
            port=0 if record is None else record.port,
            root=home / "root",
            environment=environment or {**self._inherited, **self._shared.env},
            own=lambda: [each.pid for each in self._members(workload_id)],
            kills_before=self._kills.of(workload_id),
        )
        return look_at_end(status, last_lines(home / "output.log"), run)

    def _environment(self, record: ProcessRecord, given: Given) -> dict[str, str]:
        return {
            **self._inherited,
            **self._shared.env,
            **given.variables,
            **self._marks(record.workload_id),
            "PORT": str(record.port),
            "HOST": record.host,
            "OUTRIDER_VERSION": record.version,
            "OUTRIDER_PAYLOAD_SHA256": record.sha256,
            "OUTRIDER_INSTANCE": self._instance,
        }

    def _marks(self, workload_id: str) -> dict[str, str]:
        """What tells our workload from everything else on this machine, other instances' workloads included."""
        return {WORKLOAD: workload_id, FOLDER: str(self._folder)}

    def _running_record(self, workload_id: str) -> ProcessRecord | None:
        """Who runs under that id; found by its marks when the record was never finished."""
        path = self._home(workload_id) / "record.json"
        try:
            record = msgspec.json.decode(read_file(path), type=ProcessRecord)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.MsgspecError:
            record = None
        except OSError as error:
            if seen_in(error.errno) == "not-a-file":  # a folder or a link in its place: what runs has its marks
                return self._adopt(workload_id)
            raise DriverError(f"{path}: can't be read: {error.strerror or error}") from error
        if record is None or record.pid == 0:
            return self._adopt(workload_id)
        return record if record.boot == boot_id() and is_running(record.pid, record.started) else None

    def _adopt(self, workload_id: str) -> ProcessRecord | None:
        # The workload itself leads its session; what it started is below it or, as a daemon, younger.
        leader = next((each for each in marked(self._marks(workload_id)) if each.pid == each.session), None)
        told = environment_of(leader) if leader is not None else {}
        if leader is None or not told.get("PORT", "").isdigit():
            return None
        record = ProcessRecord(
            workload_id=workload_id,
            version=told.get("OUTRIDER_VERSION", ""),
            host=told.get("HOST", self._shared.host),
            port=int(told["PORT"]),
            boot=boot_id(),
            pid=leader.pid,
            started=leader.started,
            cgroup=cgroup_line(leader.pid),
            sha256=told.get("OUTRIDER_PAYLOAD_SHA256", ""),
        )
        try:
            with failpoint("workload.adopt"):
                self._store(record)
        except OSError as error:  # it is found by its marks the next time, too
            logger.bind(workload=workload_id, cause=str(error)).warning("record of a workload not written")
        return record

    def _members(self, workload_id: str) -> tuple[Process, ...]:
        """The workload's processes, also those that have outlived the first of them."""
        origins = {}
        for name in {workload_id, *self._names()}:
            record = self._record(name)
            if record is not None and record.pid and record.boot == boot_id():
                origins[name] = Origin(pid=record.pid, started=record.started, cgroup=record.cgroup)
        return self._families.of(workload_id, origins)

    def _record(self, workload_id: str) -> ProcessRecord | None:
        """What was recorded at the last start; None when there is no record that can be read."""
        try:
            return msgspec.json.decode(read_file(self._home(workload_id) / "record.json"), type=ProcessRecord)
        except (OSError, msgspec.MsgspecError):
            return None

    def _write(self, record: ProcessRecord) -> None:
        with failpoint("workload.record"):
            try:
                self._store(record)
            except OSError as error:
                if not spend_reserve(self._folder, error):
                    raise
                self._store(record)

    def _store(self, record: ProcessRecord) -> None:
        """Write ``record.json`` so that it is there whole, or as it was before."""
        write_file(self._home(record.workload_id) / "record.json", msgspec.json.encode(record))

    def _keep_output(self, workload_id: str, output: Path) -> None:
        logs = self._folder / "logs"
        if is_file(output) and output.stat().st_size:
            make_folder(logs)
            output.rename(logs / f"{workload_id}.log")
            for old in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT_LOGS]:
                old.unlink()


def _workload(record: ProcessRecord) -> Workload:
    return Workload(
        workload_id=record.workload_id,
        version=record.version,
        url=address(record.host, record.port),
        handle=f"pid {record.pid}",
        sha256=record.sha256,
        order=record.started,
    )


def _process_of(record: ProcessRecord | None) -> tuple[int, int] | None:
    return None if record is None else (record.pid, record.started)
