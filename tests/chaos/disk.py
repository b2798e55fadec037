"""A small disk of its own for each instance, which can be filled and emptied."""

import contextlib
import os
import subprocess
from pathlib import Path

from tests.support.requirements import skip_or_fail

SIZE_MIB = 48
"""Journal, payloads and unpacked versions of a case take about one; the example app is small."""


TIMES = 100
"""That it is filled, while somebody else gives room back."""


class FaultFailed(Exception):
    """The harness could not make a fault, or could not end it. Never an ``AssertionError``: whoever waits for a fact
    takes that for "not yet", and nobody would end the fault."""


class Disk:
    """A tmpfs at ``folder``; needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={SIZE_MIB}m,mode=755"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "outrider-chaos", str(folder)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            skip_or_fail(f"no small disk can be mounted ({done.stderr.strip()}): the kill matrix needs root")

    def fill(self) -> None:
        """Leave not a byte; the sidekick may remove something of its own meanwhile.

        Raises:
            FaultFailed: it can't be filled.
        """
        for _ in range(TIMES):
            for size in (65536, 1):
                with (self.folder / ".ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
                    while True:
                        ballast.write(b"\0" * size)
            if self.room() == 0:
                return
        raise FaultFailed(f"{self.folder} isn't full after {TIMES} attempts")

    def room(self) -> int:
        """Blocks that are free."""
        return os.statvfs(self.folder).f_bavail

    def free(self) -> None:
        """Give the room back."""
        (self.folder / ".ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; whatever still has a file open there goes on until it ends."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, timeout=60, check=False)
