"""Keeps what apps print from filling the disk.

An app writes to ``output.log`` by a descriptor of its own, so the file can't be exchanged under it. When it has grown
too large, its end is copied to ``output.log.1`` and the file is emptied; the app goes on at its beginning. What it
prints between the two is lost. On a full disk nothing is copied.
"""

import contextlib
import os
import threading
from pathlib import Path

from loguru import logger

from outrider.files import is_file, open_file, write_file

EVERY_S = 10.0
KEPT_BYTES = 1024**2
"""So much of its end is read into memory, and kept."""


class Outputs:
    """The output files of all workloads of one instance, in ``folder``; looked at from a thread of its own."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """``max_bytes``: size at which a file begins anew; 0: never."""
        self._folder, self._max_bytes = folder, max_bytes
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if max_bytes:
            self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking. The files stay."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Let every file that has grown too large begin anew."""
        for output in self._folder.glob("*/output.log"):
            with contextlib.suppress(OSError):
                if is_file(output) and output.stat().st_size > self._max_bytes:
                    self._begin_anew(output)

    def _begin_anew(self, output: Path) -> None:
        descriptor = open_file(output, os.O_RDWR)
        try:
            size_bytes = os.fstat(descriptor).st_size
            kept = os.pread(descriptor, min(KEPT_BYTES, size_bytes), max(0, size_bytes - KEPT_BYTES))
            with contextlib.suppress(OSError):
                write_file(output.with_name("output.log.1"), kept)
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        logger.bind(path=str(output), size_bytes=size_bytes).info("output begins anew")
