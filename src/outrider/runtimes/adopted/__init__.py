"""Workloads that something else started, and that a sidekick has taken over: ``outrider adopt``.

A container, a unit or the process of a pid file runs on as it is. ``STATE_DIR/adopted.json`` says which one it is, as
long as it may run: it is removed with the workload. ``AdoptedRuntime`` puts it beside the workloads of the instance's
own runtime, which may be of another kind.

Rules:

- Nothing about it is changed before it is stopped. Then whatever would start it again is told not to: its restart
  policy, or the symbolic links that start its unit at boot.
- It is stopped, never removed: it isn't ours, and what it has written may be nowhere else.
- Some can't be started again (a container with ``--rm``, a process). Then a rollback can bring them back only as long
  as they run, which start-first guarantees; stop-first refuses to adopt them.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

import msgspec

from outrider.config.sections import Settings
from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import ConfigError, DriverError
from outrider.failpoints import failpoint
from outrider.files import make_folder, read_file, write_file
from outrider.runtimes import ExitWatch

Kind = Literal["container", "unit", "pid-file"]
KINDS: Mapping[str, str] = {
    "container": "outrider.runtimes.adopted.container",
    "unit": "outrider.runtimes.adopted.unit",
    "pid-file": "outrider.runtimes.adopted.pid_file",
}
"""What can be adopted, and the module that knows how: with ``look`` and ``foreign``."""
NEEDS: Mapping[str, tuple[str, str]] = {"container": ("docker", "docker"), "unit": ("jeepney", "systemd")}
"""Kind -> the library that it needs, and the extra that brings it."""
NAME = "adopted.json"


class AdoptedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``adopted.json``.

    Attributes:
        kind: One of ``KINDS``.
        id: A container's whole id, a unit's name, a pid file's path.
        name: What people call it.
        url: Where it answers.
        published: Of a container: the port inside it, as ``8080/tcp``, whose published address ``url`` is; a port that
            Docker chose is another one after a restart. Empty: ``url`` stays.
        policy: Of a container: its restart policy as Docker has it.
        program: Of a process: what it runs. Another process in the pid file counts only with the same program.
        no_restart: Why it can't be started again once it has ended; empty: it can.
    """

    kind: Kind
    id: str
    name: str
    workload_id: str
    version: str
    url: str
    published: str = ""
    policy: Mapping[str, object] = {}
    program: str = ""
    no_restart: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What was found under a name, and can be adopted.

    Attributes:
        handle: It, in words.
        urls: Where it may answer, with the port inside a container that is published there (else empty).
        version: As its image tells; empty when nothing tells.
        told_by: What told the version.
        after: What becomes of it when it is replaced.
        notes: What an operator must know or do.
    """

    kind: Kind
    id: str
    name: str
    handle: str
    urls: Mapping[str, str]
    version: str = ""
    told_by: str = ""
    policy: Mapping[str, object] = field(default_factory=dict)
    program: str = ""
    no_restart: str = ""
    after: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """It runs. ``handle`` is for people; ``url``: where it answers now."""

    handle: str
    url: str


class Foreign(Protocol):
    """One adopted workload. Every call may be repeated, and reports through ``DriverError``."""

    def find(self) -> Sighting | None:
        """It, if it runs."""

    def stop(self, grace_s: float) -> None:
        """Keep whatever would start it again from doing so, and end it as its own kind is ended."""

    def start(self) -> None:
        """Start it again, as it was."""

    def watch(self, deliver: Callable[[str, Evidence], None]) -> ExitWatch:
        """Call ``deliver`` once with the status when it ends, from another thread; at once when it doesn't run."""

    def health(self) -> str:
        """As ``HealthReporter.health``."""

    def close(self) -> None:
        """Let go of threads and connections."""


class Adopter(Protocol):
    """A module that knows one kind."""

    def look(self, name: str, settings: Settings, environment: Mapping[str, str], *, url: str) -> Candidate:
        """Find what is called ``name``. ``url``: where it answers, when the operator has said it; else empty.

        Raises:
            ConfigError: there is none, several, or one that can't be adopted.
            DriverError: nobody can say.
        """

    def foreign(self, record: AdoptedRecord, settings: Settings, environment: Mapping[str, str]) -> Foreign:
        """What was recorded; nothing is asked yet."""


def adopter(kind: str) -> Adopter:
    """The module for a kind of workload.

    Raises:
        ConfigError: a library that it needs is not installed.
    """
    library, extra = NEEDS.get(kind, ("", ""))
    if library and importlib.util.find_spec(library) is None:
        raise ConfigError(f"to adopt a {kind} needs a Python package that is missing: pip install 'outrider[{extra}]'")
    return cast(Adopter, importlib.import_module(KINDS[kind]))


def read_record(state_dir: Path) -> AdoptedRecord | None:
    """What was adopted here and may still run; None when nothing was.

    Raises:
        ConfigError: the file can't be read.
    """
    path = state_dir / NAME
    try:
        return msgspec.json.decode(read_file(path), type=AdoptedRecord)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path}: can't be read: {error}; move it away, and run `outrider adopt` again if its workload still runs"
        ) from error


def keep_record(state_dir: Path, record: AdoptedRecord) -> None:
    """Write it down.

    Raises:
        DriverError: this machine can't.
    """
    path = state_dir / NAME
    try:
        make_folder(state_dir)
        with failpoint("workload.record"):
            write_file(path, msgspec.json.encode(record))
    except OSError as error:
        raise DriverError(
            f"{path}: can't be written: {error.strerror or error}", evidence=seen_in(error.errno)
        ) from error


def forget_record(state_dir: Path) -> None:
    """It was replaced.

    Raises:
        DriverError: this machine can't remove the file.
    """
    path = state_dir / NAME
    try:
        with failpoint("workload.erase"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DriverError(f"{path}: can't be removed: {error.strerror or error}") from error
