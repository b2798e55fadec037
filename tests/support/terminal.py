"""A shell for tests that type what a page of the documentation says."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from outrider.demo.programs import free_ports

PROGRAMS = Path(sys.executable).parent
QUICK = {
    "OUTRIDER_PROBE_INTERVAL_S": "0.2",
    "OUTRIDER_DRAIN_WAIT_S": "0.2",
    "OUTRIDER_SOAK_DURATION_S": "0.5",
    "OUTRIDER_SERVICE_RETRY_MIN_S": "0.5",
}
"""Shorter waits, as settings of the sidekicks."""


def blocks_of(page: Path, language: str) -> list[list[str]]:
    """The blocks of a page in a language, as lines."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text.strip().splitlines() for named, text in found if named == language]


def typed_blocks(page: Path) -> list[list[str]]:
    """The blocks of a page that are typed: those that name no language."""
    return blocks_of(page, "")


class Terminal:
    """One shell that is typed into, step by step; what it began in the background ends with it."""

    def __init__(
        self,
        folder: Path,
        etcd: str,
        prefix: str,
        environment: Mapping[str, str] | None = None,
        *,
        replaced: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        """Start the shell.

        Args:
            folder: Where it types.
            etcd, prefix: What its commands and sidekicks use.
            environment: Further variables.
            replaced: Further words of the page -> what is typed in their place.
            programs: A folder of programs that are found before all others.
        """
        self.folder, self._begun = folder, 0
        self._replaced = {"127.0.0.1:2379": etcd, "127.0.0.1:8000": f"127.0.0.1:{free_ports(1)[0]}", **(replaced or {})}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTRIDER_", "UPDATECTL_"))}
        self._environment = kept | QUICK
        (folder / "run").mkdir(mode=0o700)  # where the service's socket is, which the commands use
        self._environment |= {"XDG_RUNTIME_DIR": str(folder / "run"), "OUTRIDER_PREFIX": prefix}
        self._environment |= {"OUTRIDER_ETCD_ENDPOINTS": etcd, "OUTRIDER_ETCD_PREFIX": prefix}
        self._environment |= environment or {}
        self._environment["PATH"] = ":".join([*([str(programs)] if programs else []), str(PROGRAMS), kept["PATH"]])
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "terminal.log").open("wb"),
            text=True,
            start_new_session=True,
        )

    def replaced(self, text: str) -> str:
        for before, now in self._replaced.items():
            text = text.replace(before, now)
        return text

    def type(self, line: str) -> str:
        """Type one line; what it prints until its end, with its exit status asserted."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        line = self.replaced(line)
        if line.endswith("&"):
            line = f"{line[:-1]} >background-{self._begun}.log 2>&1 &"
            self._begun += 1
        self._shell.stdin.write(f'{line}\necho "--- $?"\n')
        self._shell.stdin.flush()
        printed: list[str] = []
        for answer in self._shell.stdout:
            if answer.startswith("--- "):
                assert answer == "--- 0\n", f"{line}: {''.join(printed)}{(self.folder / 'terminal.log').read_text()}"
                return "".join(printed)
            printed.append(answer)
        raise AssertionError(f"{line}: the shell ended")

    def close(self) -> None:
        os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.communicate(timeout=30)
