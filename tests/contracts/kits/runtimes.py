"""The kits of the runtimes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from outrider.runtimes import RunnableRelease, Workload
from tests.support.workloads import SETTINGS, answer, payload, release


class RuntimeKit(Protocol):
    """What a runtime's contract is tested with.

    Attributes:
        settings: Of the driver's own section; None when it has none.
        stopped: How it words the end of a workload that was stopped and obeyed.
        gone: How it words the end of what isn't there.
    """

    settings: object
    stopped: str
    gone: str

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


RUNTIME_KITS: Mapping[str, RuntimeKit] = {"process": ProcessKit()}
