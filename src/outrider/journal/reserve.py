"""The reserve: room on the disk that is kept for the journal and the outbox, so that a full disk stops neither (P15).

``STATE_DIR/reserve`` is a file of nothing. Whoever can't write a few bytes for want of room removes it and tries again;
it is made anew when there is room for it twice. The journal is bounded (``ROTATE_BYTES``), so what the reserve gives
lasts.
"""

import contextlib
import os
import threading
from pathlib import Path

from loguru import logger

from outrider.core.blame import seen_in
from outrider.files import clear_file, free_bytes, is_file, open_file, wanted_bytes

NAME = "reserve"
_CHANGING = threading.Lock()


def make(folder: Path, limit_bytes: int) -> bool:
    """Make the reserve unless it is there; False when there is no room for it (twice as much must be free)."""
    path, size_bytes = folder / NAME, wanted_bytes(folder, limit_bytes)
    with _CHANGING, contextlib.suppress(OSError):
        if size_bytes <= 0 or (is_file(path) and path.stat().st_size == size_bytes):
            return True
        clear_file(path)
        if free_bytes(folder) < 2 * size_bytes:
            return False
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True
    return False


def spend(folder: Path, error: OSError) -> bool:
    """Give the reserve up for ``error``; False when that doesn't help: it was another error, or nothing is left."""
    if seen_in(error.errno) != "disk-full":
        return False
    with _CHANGING, contextlib.suppress(OSError):
        (folder / NAME).unlink()
        logger.bind(path=str(folder / NAME)).error("disk full: the reserve is used up for journal and outbox")
        return True
    return False
