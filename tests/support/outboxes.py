"""What outbox tests share: reports, and a service that takes them or doesn't."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from outrider.core.errors import DriverError, OutriderError
from outrider.core.omaha import OmahaEvent, Report, downloading
from outrider.sidekick.outbox import Outbox

Line = tuple[str, str, dict[str, object]]
"""Level, message and fields of one logged line."""

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DEAD = DriverError("http://127.0.0.1:9: can't connect")


def report(number: int, event: OmahaEvent | None = None) -> Report:
    return Report(
        update="update-1",
        request_id=f"update-1/{number}",
        at=NOON,
        version="1.0.0",
        event=event or downloading(previous_version="1.0.0", next_version="2.0.0"),
    )


class Receiver:
    """Stands for the update service: takes reports, or raises what it is told to."""

    def __init__(self, *failures: OutriderError) -> None:
        self.failures = list(failures)
        self.always: OutriderError | None = None
        self.tries: list[tuple[float, str]] = []
        self.taken: list[Report] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, one: Report) -> None:
        self.tries.append((time.monotonic(), one.request_id))
        assert self.hold.wait(30)
        if self.always is not None:
            raise self.always
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(one)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


class Outboxes:
    """Opens outboxes on one folder, with short waits; closes what is open at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: list[Outbox] = []

    def __call__(
        self,
        send: Callable[[Report], None],
        *,
        on_delivered: Callable[[Report], None] | None = None,
        max_pending: int = 100,
        retry_min_s: float = 0.01,
        retry_max_s: float = 0.05,
    ) -> Outbox:
        outbox = Outbox(
            self.folder,
            send,
            on_delivered=on_delivered,
            max_pending=max_pending,
            retry_min_s=retry_min_s,
            retry_max_s=retry_max_s,
        )
        self._opened.append(outbox)
        return outbox

    def __enter__(self) -> "Outboxes":
        return self

    def __exit__(self, *_: object) -> None:
        for outbox in self._opened:
            outbox.close()


@contextmanager
def logged() -> Iterator[list[Line]]:
    """Every line that outboxes log meanwhile; what another test left running logs, too."""
    lines: list[Line] = []
    sink = logger.add(
        lambda message: lines.append(
            (message.record["level"].name, message.record["message"], dict(message.record["extra"]))
        ),
        level="DEBUG",
        filter=Outbox.__module__,
    )
    yield lines
    logger.remove(sink)
