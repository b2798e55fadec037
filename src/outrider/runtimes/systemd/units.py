"""The two ways to a unit: one that outrider makes for a version, and one that the operator has written.

Both are given the unpacked payload in the workload's folder ``root``. That is private to the sidekick's user; a unit
gets it mounted, read-only, because systemd may do that and the app's user may not go there by itself.
"""

import os
import signal
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.errors import DriverError
from outrider.core.images import PayloadKind
from outrider.failpoints import failpoint
from outrider.files import clear_file, make_folder, write_file
from outrider.runtimes import Given
from outrider.runtimes.process.command import check_program, command_line
from outrider.runtimes.records import WorkloadRecord
from outrider.runtimes.systemd import SystemdSettings
from outrider.runtimes.systemd.bus import Manager, Property, UnitState
from outrider.runtimes.systemd.names import drains_of, own_unit_of, pattern_of, unit_of, user_of
from outrider.runtimes.systemd.properties import MS_REC, SANDBOX, properties_of

MOUNT = Path("/run/outrider-app")
"""Where an app finds its payload when outrider makes its unit; each app sees its own there."""
POLL_S = 0.05
_KILL_S = 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What systemd gives to services."""


class TransientUnits:
    """A unit for each workload, made over D-Bus from settings. It is gone when it has ended.

    Attributes:
        kinds: What payloads they run.
        pattern: Glob for their names; empty where the names are the operator's.
    """

    kinds: frozenset[PayloadKind] = frozenset({"archive"})

    def __init__(self, settings: SystemdSettings, shared: WorkloadSettings, instance: InstanceSettings) -> None:
        self._settings, self._shared, self._instance = settings, shared, instance
        self._workloads = instance.state_dir.resolve() / "workloads"
        self.pattern = pattern_of(instance.id)

    def name(self, workload_id: str, version: str) -> str:
        """The unit for a workload."""
        return unit_of(self._instance.id, workload_id)

    def look(self, root: Path, version: str) -> None:
        """See whether what was unpacked to ``root`` can be run, without running it.

        Raises:
            Refused, DriverError: as ``command_line`` and ``check_program``.
        """
        self._command(root, {"port": "0", "host": self._shared.host, "version": version})

    def make_ready(self, record: WorkloadRecord, home: Path, given: Given) -> None:
        """Let the app's user read the payload.

        Raises:
            OSError: this machine can't.
        """
        with failpoint("workload.unpack"):
            open_to_all(home / "root")

    def start(self, manager: Manager, record: WorkloadRecord, home: Path, given: Given) -> None:
        """Begin to start it.

        Raises:
            DriverError, Refused: as ``look`` and as the manager's calls.
        """
        manager.start_transient(record.unit, self._properties(record, home / "root", given))

    def clear(self, record: WorkloadRecord) -> None:
        """Nothing is left but the workload's folder."""

    def _command(self, root: Path, placeholders: Mapping[str, str]) -> list[str]:
        environment = {"PATH": _PATH, **self._shared.env}
        others = [folder for folder in self._workloads.glob("*/root") if folder != root]
        command = command_line(self._settings.command, placeholders, root, environment, others)
        check_program(Path(command[0]), root, environment)
        return command

    def _properties(self, record: WorkloadRecord, root: Path, given: Given) -> list[Property]:
        own, shared = self._settings, self._shared
        command = self._command(root, {"port": str(record.port), "host": record.host, "version": record.version})
        if Path(command[0]).is_relative_to(root):
            command[0] = str(MOUNT / Path(command[0]).relative_to(root))
        command += given.arguments
        directives = dict(properties_of({**(SANDBOX if own.sandbox else {}), **own.properties}))
        binds = [(str(root), str(MOUNT), False, MS_REC), *directives.get("BindReadOnlyPaths", ("", []))[1]]
        environment = environment_of(record, shared, self._instance, given)
        limits = {
            "MemoryMax": own.memory_max_bytes,
            "TasksMax": own.tasks_max,
            "CPUQuotaPerSecUSec": own.cpu_quota_percent * 10_000,
        }
        # later ones win
        found: dict[str, tuple[str, object]] = {
            "Description": ("s", f"{self._instance.app} {record.version} ({self._instance.id})"),
            "Type": ("s", "exec"),
            # at a shutdown it serves until its instance is drained: what starts later is stopped sooner
            "Before": ("as", list(drains_of(self._instance.id))),
            "SyslogIdentifier": ("s", self._instance.id),
            "OOMPolicy": ("s", "stop"),
            **{name: ("t", value) for name, value in limits.items() if value},
            **directives,
            "User": ("s", own.user or user_of(self._instance.id)),
            "DynamicUser": ("b", not own.user),
            "Slice": ("s", own.slice),
            "Environment": ("as", [f"{name}={text}" for name, text in environment.items()]),
            "BindReadOnlyPaths": ("a(ssbt)", binds),
            "WorkingDirectory": ("s", str(MOUNT)),
            # nothing of it outlives the unit, whatever session or parent it has gone to
            "KillMode": ("s", "control-group"),
            "Restart": ("s", "no"),
            "TimeoutStopUSec": ("t", round(shared.stop_grace_s * 1_000_000)),
            "ExecStartEx": ("a(sasas)", [(command[0], command, ["no-env-expand"])]),
        }
        return list(found.items())


class OwnUnits:
    """The operator's unit: a template with one instance for each version, or a single one.

    ``STATE_DIR/units/NAME`` is what it reads: ``env`` (an EnvironmentFile), and ``root`` and ``payload``, links to what
    was unpacked and to what was downloaded. NAME is the unit's ``%N``.
    """

    kinds: frozenset[PayloadKind] = frozenset({"archive", "image"})
    pattern = ""

    def __init__(self, settings: SystemdSettings, shared: WorkloadSettings, instance: InstanceSettings) -> None:
        self._settings, self._shared, self._instance = settings, shared, instance
        self._folder = instance.state_dir.resolve() / "units"

    def name(self, workload_id: str, version: str) -> str:
        """As ``TransientUnits.name``: by the version, for the operator's eyes."""
        return own_unit_of(self._settings.unit, version, self._instance.id)

    def look(self, root: Path, version: str) -> None:
        """What its program is, the unit says."""

    def make_ready(self, record: WorkloadRecord, home: Path, given: Given) -> None:
        """Write what the unit reads.

        Raises:
            OSError: this machine can't.
        """
        folder, root = self._of(record), home / "root"
        with failpoint("workload.unpack"):
            if root.is_dir():
                open_to_all(root)
            make_folder(self._folder)
            make_folder(folder)
            for name, target in (("root", root), ("payload", Path(record.payload))):
                clear_link(folder / name)
                if target.exists():
                    (folder / name).symlink_to(target)
            lines = environment_of(record, self._shared, self._instance, given).items()
            write_file(folder / "env", "".join(f"{name}={_quoted(text)}\n" for name, text in lines).encode())

    def start(self, manager: Manager, record: WorkloadRecord, home: Path, given: Given) -> None:
        """As ``TransientUnits.start``; there must be such a unit."""
        if given.arguments:
            raise no_arguments(record, "the unit that systemd.unit names has a command of its own")
        state = manager.state(record.unit)
        if state.load != "loaded":
            raise DriverError(
                f"{record.unit}: {state.load}; systemd.unit must name a unit of this machine", evidence="wrong-setting"
            )
        manager.start(record.unit)

    def clear(self, record: WorkloadRecord) -> None:
        """Remove what ``make_ready`` has written.

        Raises:
            OSError: this machine can't.
        """
        folder = self._of(record)
        with failpoint("workload.erase"):
            for name in ("root", "payload", "env"):
                clear_link(folder / name)
            if folder.is_dir():
                folder.rmdir()

    def _of(self, record: WorkloadRecord) -> Path:
        return self._folder / record.unit.removesuffix(".service")


def stop_unit(manager: Manager, unit: str, grace_s: float) -> None:
    """End all that is in the unit's cgroup: as systemd does, and after ``grace_s`` with SIGKILL.

    Raises:
        DriverError: it still runs.
    """
    state = manager.state(unit)
    if not state.runs:
        return
    manager.stop(unit)
    for is_last, wait_s in ((False, grace_s), (True, _KILL_S)):
        deadline = time.monotonic() + wait_s
        while (state := manager.state(unit)).runs and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not state.runs:
            return
        if not is_last:
            # the unit's own time limit may be longer
            manager.kill(unit, signal.SIGKILL)
    raise DriverError(f"{unit}: still {state.active} ({state.sub}) {_KILL_S:g} s after SIGKILL")


def wait_started(manager: Manager, unit: str, timeout_s: float) -> UnitState:
    """How the unit is once its start is over.

    Raises:
        DriverError: it still starts after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while (not (state := manager.state(unit)).has_started and state.job) or state.active == "activating":
        if time.monotonic() > deadline:
            raise DriverError(f"{unit} has not started within {timeout_s:g} s ({state.active}, {state.sub})")
        time.sleep(POLL_S)
    return state


def units_for(
    settings: SystemdSettings, shared: WorkloadSettings, instance: InstanceSettings
) -> TransientUnits | OwnUnits:
    """The way that the settings choose."""
    return OwnUnits(settings, shared, instance) if settings.unit else TransientUnits(settings, shared, instance)


def no_arguments(record: WorkloadRecord, why: str) -> DriverError:
    """The error for arguments that no one can add to the app's command here."""
    return DriverError(
        f"{record.workload_id}: its release's environment has arguments, and {why}; take variables instead",
        evidence="wrong-setting",
    )


def environment_of(
    record: WorkloadRecord, shared: WorkloadSettings, instance: InstanceSettings, given: Given
) -> dict[str, str]:
    """What the app is told. The sidekick's own environment stays with the sidekick."""
    return {
        **shared.env,
        **given.variables,
        "PORT": str(record.port),
        "HOST": record.host,
        "OUTRIDER_VERSION": record.version,
        "OUTRIDER_INSTANCE": instance.id,
        "OUTRIDER_WORKLOAD": record.workload_id,
        "OUTRIDER_PAYLOAD_SHA256": record.sha256,
        **({"OUTRIDER_IMAGE": record.note} if record.note else {}),
    }


def open_to_all(root: Path) -> None:
    """Let any user read what is below ``root``, and run what its owner may run: the folder above keeps others out.

    Raises:
        OSError: it can't be changed.
    """
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            mode = os.lstat(path).st_mode
            wanted = mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0)
            if wanted != mode and not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(wanted))


def clear_link(path: Path) -> None:
    """Remove a link or a file; anything else is set aside."""
    if path.is_symlink():
        path.unlink()
    else:
        clear_file(path)


def _quoted(text: str) -> str:
    """As systemd.exec(5) reads it from an EnvironmentFile: in double quotes, four characters escaped."""
    return '"' + "".join(f"\\{char}" if char in '"\\`$' else char for char in text) + '"'
