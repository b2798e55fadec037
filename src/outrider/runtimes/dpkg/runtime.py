"""Installs one version of a package in place of another.

A workload is an installation. It *runs* when ``current.json`` names it and dpkg has its package whole. Stopping it
takes that name away and changes nothing else: the units of the package go on until the next version replaces them.

``pending.json`` is there from before dpkg is called until the sidekick has decided, which it has when the other version
is removed. It says which sidekicks and units must be back, and lets the launcher go on with the code of before.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from loguru import logger

from outrider.config.sections import InstanceSettings
from outrider.core.blame import seen_in
from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import make_folder, read_file, sync_folder, write_file
from outrider.journal.journal import JournalError, read
from outrider.runtimes import Exited, ExitWatch, RunnableRelease, Workload, WorkloadSpec
from outrider.runtimes.dpkg import DpkgSettings
from outrider.runtimes.dpkg.calls import Facts, check_payload, facts_of, install, is_busy, upstream_of
from outrider.runtimes.dpkg.kept import keep_installed
from outrider.runtimes.dpkg.neighbours import Neighbour, active_units, neighbours
from outrider.runtimes.polling import Polling
from outrider.runtimes.records import Records, WorkloadRecord, workload_of

LAUNCHED = "OUTRIDER_UPDATER_CODE"
"""Set by the launcher: the folder with the code that this process runs. It starts anew after an update then."""
_GONE = "gone"
_QUIET_POLL_S = 0.5
_CHECK_S = 60.0


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """``current.json``: which workload is installed."""

    workload_id: str


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """``pending.json``: what was there before an installation, and must be back after it.

    Attributes:
        workload_id: Whose installation it is.
        processes: State folder of each sidekick that lived -> id of its process.
        units: Units that ran.
    """

    workload_id: str
    processes: dict[str, str]
    units: tuple[str, ...]


S = TypeVar("S", Current, Pending)


class DpkgRuntime:
    """The runtime ``dpkg``. ``close`` ends its thread and leaves what is installed."""

    name = "dpkg"
    kinds: frozenset[PayloadKind] = frozenset({"archive"})

    def __init__(self, settings: DpkgSettings, instance: InstanceSettings, *, environment: Mapping[str, str]) -> None:
        """Keep what is known below ``instance.state_dir``."""
        self._settings, self._state_dir = settings, instance.state_dir.resolve()
        self._records = Records(self._state_dir, self.name)
        self._current, self._pending = self._state_dir / "current.json", self._state_dir / "pending.json"
        self._kept = self._state_dir / "kept"
        self._home = self._state_dir / "dpkg"
        self._polling = Polling(self.name, self._ended, settings.look_interval_s)
        self._lock = threading.Lock()
        self._checked: tuple[str, str] = ("", "")
        code = environment.get(LAUNCHED, "")
        if code and Path(code).resolve().parent != self._state_dir:
            raise ConfigError(
                f"instance.state_dir: the updater was started from {code}, which must lie in it; set it to"
                f" {Path(code).parent}"
            )
        facts = facts_of(settings.package) if code else None
        # an installation that isn't decided yet has other code than this process
        self._began_with = facts.version if facts is not None and not self._pending.exists() else ""
        self._is_launched = bool(code)

    def prepare(self, release: RunnableRelease) -> None:
        """As ``Runtime.prepare``: look at the package, and keep a file of the one that is installed."""
        with failpoint("workload.prepare"):
            self._look_at(release)
            record = self._current_record()
            if record is not None and not record.sha256:
                self._keep(record)

    def start(self, spec: WorkloadSpec) -> Workload:
        """As ``Runtime.start``: wait until nobody here is in a swap, and install it."""
        running = self.find(spec.workload_id)
        if running is not None:
            return running
        release = spec.release
        version = self._look_at(release)
        with failpoint("workload.unpack"):
            _require_unchanged(release)
        return self._install(
            WorkloadRecord(
                runtime=self.name,
                workload_id=spec.workload_id,
                version=release.version,
                host="",
                port=0,
                run=self._records.next_run(),
                sha256=release.sha256,
                payload=str(release.payload),
                url=_url(spec.workload_id),
                note=version,
            )
        )

    def restart(self, workload_id: str) -> Workload | None:
        """As ``Restarter.restart``: what was installed before there was a journal, from the file that was kept."""
        record = self._records.read(workload_id)
        if record is None or record.sha256:
            return None
        if not record.payload:
            raise DriverError(f"{self._settings.package} {record.note}: no package file of it was kept")
        return self._install(msgspec.structs.replace(record, run=self._records.next_run()))

    def find(self, workload_id: str) -> Workload | None:
        """As ``Runtime.find``."""
        record = self._records.read(workload_id)
        current = self._read(self._current, Current)
        if record is None or current is None or current.workload_id != workload_id:
            return None
        facts = self._facts()
        if facts is None or not facts.is_installed or facts.version != record.note:
            return None
        return workload_of(record, f"{self._settings.package} {record.note}, installation {record.run}")

    def running(self) -> tuple[Workload, ...]:
        """As ``Runtime.running``; what was installed before there was a journal is taken for ours."""
        current = self._read(self._current, Current)
        if current is None and not self._pending.exists() and not self._records.all():
            current = self._adopt()
        found = self.find(current.workload_id) if current is not None else None
        return () if found is None else (found,)

    def stop(self, workload_id: str, grace_s: float) -> None:
        """As ``Runtime.stop``: it counts as installed no more; its units go on."""
        current = self._read(self._current, Current)
        if current is not None and current.workload_id == workload_id:
            with failpoint("workload.signal"), _told(f"can't remove {self._current}"):
                self._current.unlink(missing_ok=True)
                sync_folder(self._state_dir)

    def remove(self, workload_id: str) -> None:
        """As ``Runtime.remove``: its record goes. The other version has been decided for then."""
        self.stop(workload_id, 0)
        self._records.erase(workload_id)
        current = self._read(self._current, Current)
        if current is None or self.find(current.workload_id) is not None:
            with failpoint("workload.erase"), _told(f"can't remove {self._pending}"):
                self._pending.unlink(missing_ok=True)
                sync_folder(self._state_dir)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> ExitWatch:
        """As ``Runtime.watch``: dpkg is asked every ``dpkg.look_interval_s``."""
        return self._polling.watch(workload_id, deliver)

    def prune(self, needed: Collection[str]) -> None:
        """As ``Runtime.prune``: files of packages that were installed before there was a journal, and aren't now."""
        if any(not record.sha256 for record in self._records.all()):
            return  # it may be gone back to, also when nothing was prepared yet
        for path in self._kept.glob("*.deb"):
            with failpoint("workload.prune"), contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Stop looking."""
        self._polling.close()

    def health(self, url: str) -> str:
        """As ``HealthReporter.health``: the package is whole, and all that ran before runs again."""
        record = self._current_record()
        if record is None or record.url != url:
            return "it is not the version that is installed"
        facts = self._facts()
        if facts is None or not facts.is_installed or facts.version != record.note:
            return f"{self._settings.package} {facts.version} is {facts.status}" if facts else "it is not installed"
        pending = self._read(self._pending, Pending)
        return self._check(record) or ("" if pending is None else self._missing(pending))

    def trouble(self) -> str:
        """As ``HealthReporter.trouble``: there is none that isn't the package's."""
        return ""

    def _look_at(self, release: RunnableRelease) -> str:
        try:
            return check_payload(release.payload, name=self._settings.package, release=release.version)
        except Refused as error:
            raise Refused(f"{release.version}: {error}") from error

    def _install(self, record: WorkloadRecord) -> Workload:
        if not self._pending.exists():  # going back, or on after a kill, waits for nobody
            self._wait_quiet()
        with failpoint("workload.clear"), _told(f"can't write {self._state_dir}"):
            make_folder(self._home)
            self._begin(record.workload_id)
        self._records.keep(record)
        with failpoint("workload.spawn"):
            install(Path(record.payload), self._home, self._settings.install_timeout_s)
            self._note_current(record.workload_id)
        found = self.find(record.workload_id)
        if found is None:
            facts = self._facts()
            what = "nothing" if facts is None else f"{facts.version} ({facts.status})"
            raise DriverError(f"dpkg left with 0, and {self._settings.package} {record.note} is not installed: {what}")
        return found

    def _wait_quiet(self) -> None:
        deadline = time.monotonic() + self._settings.quiet_timeout_s
        told = False
        while busy := [each for each in self._neighbours() if each.is_swapping]:
            names = ", ".join(f"{each.folder.name} ({each.state})" for each in busy)
            if time.monotonic() > deadline:
                raise DriverError(
                    f"not installed: in a swap for longer than {self._settings.quiet_timeout_s:g} s: {names}",
                    evidence="not-now",
                )
            if not told:
                logger.bind(instances=[each.folder.name for each in busy]).info("waits for swaps of this machine")
                told = True
            time.sleep(_QUIET_POLL_S)

    def _begin(self, workload_id: str) -> None:
        """Write down what must be back. What had to be back after an earlier installation must be after this one."""
        before = self._read(self._pending, Pending)
        if before is not None and before.workload_id == workload_id:
            return  # begun in an earlier life: who was restarted since then is back
        processes = {str(each.folder): each.process for each in self._neighbours() if each.lives}
        units = set(active_units(self._settings.units))
        if before is not None:
            known = {str(each.folder): each.process for each in self._neighbours()}
            processes = {folder: known.get(folder, "") for folder in before.processes} | processes
            units.update(before.units)
        pending = Pending(workload_id=workload_id, processes=processes, units=tuple(sorted(units)))
        write_file(self._pending, msgspec.json.encode(pending))
        sync_folder(self._state_dir)

    def _missing(self, pending: Pending) -> str:
        """What isn't back yet; empty when all is."""
        found = {str(each.folder): each for each in self._neighbours()}
        for folder, process in pending.processes.items():
            if problem := _not_back(Path(folder).name, found.get(folder), process):
                return problem
        missing = set(pending.units) - set(active_units(self._settings.units))
        return f"does not run: {', '.join(sorted(missing))}" if missing else ""

    def _check(self, record: WorkloadRecord) -> str:
        """What the new version's own program says; asked until it is content, once for each installation."""
        words, key = self._settings.check, f"{record.workload_id} {record.run}"
        if not words or self._checked == (key, ""):
            return ""
        with self._lock:
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, errors="replace", timeout=_CHECK_S, check=False
                )
                said = (done.stderr.strip() or done.stdout.strip()).splitlines()
                problem = f"exit {done.returncode}; it said: {said[-1][:200] if said else 'nothing'}"
                problem = "" if done.returncode == 0 else problem
            except (OSError, subprocess.TimeoutExpired) as error:
                problem = str(error)
            self._checked = (key, problem)
        return f"{' '.join(words[:3])}: {problem}" if problem else ""

    def _ended(self, workload_id: str) -> Exited | None:
        self._take_up_new_code()
        if self.find(workload_id) is not None:
            return None
        facts = self._facts()
        if facts is not None and not facts.is_installed:  # somebody's dpkg is at work, or was cut off
            raise DriverError(f"{self._settings.package} {facts.version} is {facts.status}")
        more = f": {self._settings.package} {facts.version} is {facts.status}" if facts else ""
        return Exited(workload_id=workload_id, status=_GONE, more=more, evidence="unknown")

    def _take_up_new_code(self) -> None:
        """End this process once another version was decided for and nothing is under way: systemd starts the new."""
        if not self._is_launched or self._pending.exists():
            return
        facts = facts_of(self._settings.package)
        if facts is None or not facts.is_installed or facts.version == self._began_with or not self._is_idle():
            return
        logger.bind(version=facts.version).info("updater starts again with the installed version")
        self._is_launched = False
        os.kill(os.getpid(), signal.SIGTERM)

    def _is_idle(self) -> bool:
        with contextlib.suppress(JournalError):
            records = read(self._state_dir / "journal.jsonl")
            return bool(records) and records[-1].target.startswith("idle.")
        return False

    def _adopt(self) -> Current | None:
        """The package that somebody installed before there was a journal; None: there is none."""
        facts = facts_of(self._settings.package)
        if facts is None or not facts.is_installed:
            return None
        version = upstream_of(facts.version)
        workload_id = f"{self._settings.package}-{version.replace('+', '-')}-found".lower()
        record = WorkloadRecord(
            runtime=self.name,
            workload_id=workload_id,
            version=version,
            host="",
            port=0,
            run=self._records.next_run(),
            url=_url(workload_id),
            note=facts.version,
        )
        self._records.keep(record)
        with failpoint("workload.adopt"):
            self._note_current(workload_id)
        return Current(workload_id=workload_id)

    def _keep(self, record: WorkloadRecord) -> None:
        facts = self._facts()
        if facts is not None and facts.version == record.note:
            path = keep_installed(self._settings.package, facts, self._kept)
            if str(path) != record.payload:
                self._records.keep(msgspec.structs.replace(record, payload=str(path)))

    def _current_record(self) -> WorkloadRecord | None:
        current = self._read(self._current, Current)
        return None if current is None else self._records.read(current.workload_id)

    def _note_current(self, workload_id: str) -> None:
        with _told(f"can't write {self._current}"):
            write_file(self._current, msgspec.json.encode(Current(workload_id=workload_id)))
            sync_folder(self._state_dir)

    def _facts(self) -> Facts | None:
        """What dpkg knows.

        Raises:
            DriverError: it is in the middle of an installation.
        """
        facts = facts_of(self._settings.package)
        if (facts is None or not facts.is_installed) and is_busy(self._home):
            raise DriverError(f"dpkg is at work on {self._settings.package}: what is installed can't be told")
        return facts

    def _neighbours(self) -> tuple[Neighbour, ...]:
        return neighbours(self._settings.instances, own=self._state_dir)

    def _read(self, path: Path, kind: type[S]) -> S | None:
        try:
            return msgspec.json.decode(read_file(path), type=kind)
        except (OSError, msgspec.MsgspecError):
            return None


def _url(workload_id: str) -> str:
    """It has no address; this only tells one installation from another."""
    return f"http://localhost/{workload_id}"


def _not_back(name: str, found: Neighbour | None, process: str) -> str:
    """Why a sidekick that lived before isn't back; empty when it is."""
    if found is None:
        return f"{name}: its journal is gone"
    if found.trouble:
        return f"{name}: its journal can't be read: {found.trouble}"
    if not found.lives:
        return f"{name}: its sidekick does not run"
    if found.process == process:
        return f"{name}: its sidekick has not resumed its journal since the installation"
    if not found.is_accepted:
        return f"{name}: its sidekick has not written its presence since the installation"
    return ""


def _require_unchanged(release: RunnableRelease) -> None:
    """It lay on disk since it was proved: dpkg runs as root, so it is proved once more.

    Raises:
        DriverError: its SHA-256 is another one.
    """
    digest = hashlib.sha256()
    with _told(f"can't read {release.payload}"), release.payload.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    if digest.hexdigest() != release.sha256:
        raise DriverError(f"{release.payload}: was changed on this machine since it was proved; remove it")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriverError(f"{what}: {error.strerror or error}", evidence=seen_in(error.errno)) from error
