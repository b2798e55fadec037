"""What a runtime remembers of each workload on disk: ``STATE_DIR/workloads/ID/record.json``.

A record is written before the start, so that what was begun is found again, and once more when the start has told
where the workload answers. It says what was started, never whether that runs: the runtime asks the world for that.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import msgspec

from outrider.core.blame import seen_in
from outrider.core.errors import DriverError
from outrider.core.images import is_descriptor
from outrider.failpoints import failpoint
from outrider.files import make_folder, read_file, write_file
from outrider.journal.reserve import spend as spend_reserve
from outrider.runtimes import Workload
from outrider.runtimes.process.ports import address, port_again

_WORKLOAD_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")


class WorkloadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One workload of one runtime.

    Attributes:
        runtime: Whose record it is: another runtime on the same folder doesn't take it for its own.
        host, port: Where it was told to listen.
        run: Number of its last start. It grows over all workloads of the instance, so the oldest has the smallest.
        sha256, payload: Of what it was started from; empty when that isn't known.
        url: Where it answers, when that is not ``http://host:port``.
        unit: The unit that runs it, where there is one.
        note: More for the handle that people see.
    """

    runtime: str
    workload_id: str
    version: str
    host: str
    port: int
    run: int
    sha256: str = ""
    payload: str = ""
    url: str = ""
    unit: str = ""
    note: str = ""


class Records:
    """The records of one instance's workloads, all of one runtime."""

    def __init__(self, state_dir: Path, runtime: str) -> None:
        """Keep them below ``state_dir``."""
        self._state_dir, self._folder, self._runtime = state_dir, state_dir / "workloads", runtime

    def home(self, workload_id: str) -> Path:
        """The workload's folder, which need not be there.

        Raises:
            ValueError: that is no id.
        """
        if not _WORKLOAD_ID.fullmatch(workload_id):
            raise ValueError(f"workload id {workload_id!r}")
        return self._folder / workload_id

    def all(self) -> tuple[WorkloadRecord, ...]:
        """Every record, by id."""
        try:
            names = [name for name in sorted(os.listdir(self._folder)) if _WORKLOAD_ID.fullmatch(name)]
        except FileNotFoundError:
            return ()
        return tuple(record for name in names if (record := self.read(name)) is not None)

    def read(self, workload_id: str) -> WorkloadRecord | None:
        """The record; None when there is none, or none that can be read."""
        try:
            record = msgspec.json.decode(read_file(self.home(workload_id) / "record.json"), type=WorkloadRecord)
        except (OSError, msgspec.MsgspecError):
            return None
        return record if record.runtime == self._runtime else None

    def keep(self, record: WorkloadRecord) -> None:
        """Keep ``record``; on a full disk in the room that is reserved for such.

        Raises:
            DriverError: this machine can't write it.
        """
        path = self.home(record.workload_id) / "record.json"
        with failpoint("workload.record"):
            try:
                try:
                    make_folder(path.parent)
                    write_file(path, msgspec.json.encode(record))
                except OSError as error:
                    if not spend_reserve(self._state_dir, error):
                        raise
                    write_file(path, msgspec.json.encode(record))
            except OSError as error:
                raise DriverError(
                    f"{record.workload_id}: can't write {path}: {error.strerror or error}",
                    evidence=seen_in(error.errno),
                ) from error

    def forget(self, workload_id: str) -> None:
        """Remove the record and leave the folder: what was never started isn't asked for."""
        with failpoint("workload.clear"), contextlib.suppress(OSError):
            (self.home(workload_id) / "record.json").unlink(missing_ok=True)

    def erase(self, workload_id: str) -> None:
        """Remove the workload's folder with all that is in it.

        Raises:
            DriverError: this machine can't.
        """
        home = self.home(workload_id)
        trash = home.with_name(f".removed-{workload_id}")
        try:
            if home.is_dir():
                with failpoint("workload.rename"):
                    shutil.rmtree(trash, ignore_errors=True)
                    # renamed first: a half-removed folder would be taken for a whole one
                    home.rename(trash)
            with failpoint("workload.erase"):
                if trash.is_dir():
                    shutil.rmtree(trash)
        except OSError as error:
            raise DriverError(f"{workload_id}: can't remove {home}: {error}") from error

    def next_run(self) -> int:
        """The number of the next start."""
        return 1 + max((record.run for record in self.all()), default=0)

    def port(self, workload_id: str, host: str, ports: str, running: tuple[Workload, ...]) -> int:
        """A port for a start: the one that the workload had, else one that none of ours had (see ``port_again``)."""
        known = {record.workload_id: record.port for record in self.all()}
        before = known.pop(workload_id, None)
        taken = {int(port) for each in running if (port := each.url.rpartition(":")[2]).isdigit()}
        return port_again(host, ports, before=before, known=tuple(known.values()), running=taken)


def workload_of(record: WorkloadRecord, handle: str) -> Workload:
    """The running workload of ``record``."""
    return Workload(
        workload_id=record.workload_id,
        version=record.version,
        url=record.url or address(record.host, record.port),
        handle=handle,
        sha256=record.sha256,
        order=record.run,
    )


def image_of(payload: Path) -> str:
    """The image's reference when the payload is a descriptor; else empty."""
    try:
        with payload.open("rb") as file:
            head = file.read(64 * 1024)
        return str(json.loads(head)["image"]) if is_descriptor(head) else ""
    except (OSError, ValueError):
        return ""
