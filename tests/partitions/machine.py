"""The first process of a machine in a container: runs its sidekicks, one per file ``NAME.toml`` in a folder.

``python -m tests.partitions.machine FOLDER``. As a service manager would, it starts a sidekick again that was killed;
any other end is kept in ``NAME.ended`` for the test to fail on. Files are the way to talk to it: the folder is bound
into the container, and nothing of that goes through the network that is about to be cut.

    NAME.toml    start a sidekick with this configuration (rename it into its place)
    NAME.kill    SIGKILL it, and make of this its NAME.hold before it is started again
    look         write what runs to ``seen.json``; removed when that is done

Sidekicks are forked from here, where everything is imported already: it saves each the better part of a second.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from outrider.runtimes.process.identity import is_running
from outrider.runtimes.process.runtime import ProcessRecord as Workload
from tests.partitions import held_sidekick

POLL_S = 0.02


class Machine:
    """The sidekicks of one machine, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[int, str] = {}

    def tend(self) -> None:
        """Do what the files ask for, once."""
        for config in sorted(self._folder.glob("*.toml")):
            ended = config.with_suffix(".ended").exists()
            if not ended and config.stem not in self._names.values():
                self._start(config)
        for request in self._folder.glob("*.kill"):
            for pid in [pid for pid, name in self._names.items() if name == request.stem]:
                os.kill(pid, signal.SIGKILL)
                self._wait(os.waitpid(pid, 0))
            request.with_suffix(".held").unlink(missing_ok=True)
            request.rename(request.with_suffix(".hold"))
        self._bury()
        look = self._folder / "look"
        if look.exists():
            self._see()
            look.unlink()

    def _start(self, config: Path) -> None:
        pid = os.fork()
        if pid == 0:
            held_sidekick.become(config)
        self._names[pid] = config.stem

    def _bury(self) -> None:
        """Read how children ended; the first process of a container also gets those that nobody else waits for."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._wait(ended)
        except ChildProcessError:
            return

    def _wait(self, ended: tuple[int, int]) -> None:
        name = self._names.pop(ended[0], None)
        code = os.waitstatus_to_exitcode(ended[1])
        if name is not None and code != -signal.SIGKILL:
            _write(self._folder / f"{name}.ended", str(code))

    def _see(self) -> None:
        seen: dict[str, list[str]] = {config.stem: [] for config in self._folder.glob("*.toml")}
        for path in sorted(self._folder.glob("state/*/workloads/*/record.json")):
            # not through the runtime: it would finish a record that its owner is writing
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Workload)
            except FileNotFoundError:
                continue
            if record.pid and is_running(record.pid, record.started):
                seen[path.parts[-4]].append(record.version)
        _write(self._folder / "seen.json", json.dumps(seen))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def main() -> None:
    machine = Machine(Path(sys.argv[1]))
    while True:
        machine.tend()
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
