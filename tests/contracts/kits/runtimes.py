"""The kits of the runtimes."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from outrider.runtimes import RunnableRelease, Workload
from tests.support.command_programs import command_settings
from tests.support.workloads import SETTINGS, answer, payload, release


class RuntimeKit(Protocol):
    """What a runtime's contract is tested with.

    Attributes:
        settings: Of the driver's own section; None when it has none.
        stopped: How it words the end of a workload that was stopped and obeyed.
        gone: How it words the end of what isn't there.
    """

    stopped: str
    gone: str

    @property
    def settings(self) -> object: ...

    def good(self, folder: Path, version: str) -> RunnableRelease:
        """A release that runs: an app that answers its environment. The payload is made below ``folder``."""

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        """A release that can't run for a reason of its own, and the pattern of what is said about it."""

    def answer(self, workload: Workload) -> Mapping[str, object]:
        """The environment of the app, once it answers."""


class ProcessKit:
    """A tar with a script that Python runs."""

    settings: object = SETTINGS
    stopped = "signal 15"
    gone = "gone"

    def good(self, folder: Path, version: str) -> RunnableRelease:
        home = folder / f"good-{version}"
        home.mkdir(exist_ok=True)
        return release(version, payload(home))

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        path = folder / "bad.payload"
        path.write_text("<html>not found</html>" * 100)
        return release("1.0.0", path), r"bad\.payload: not a tar file"

    def answer(self, workload: Workload) -> Mapping[str, object]:
        return answer(workload)


class CommandKit(ProcessKit):
    """The same app, which an operator's script unpacks, starts, finds and stops."""

    stopped = gone = "gone"

    @cached_property
    def settings(self) -> object:  # type: ignore[override]
        folder = Path(tempfile.mkdtemp(prefix="outrider-kit-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return command_settings(folder)

    def bad(self, folder: Path) -> tuple[RunnableRelease, str]:
        return super().bad(folder)[0], r"exit 65; it said: damaged: not a tar file"


RUNTIME_KITS: Mapping[str, RuntimeKit] = {"process": ProcessKit(), "command": CommandKit()}
