"""What is done with a release before its turn: it is proved, room is made, and the runtime prepares it."""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest

from outrider.config.sections import DownloadSettings
from outrider.core.errors import DriverError, OutriderError, Refused
from outrider.core.omaha import FailureCode
from outrider.core.sidekick.effects import DownloadRelease, VerifyRelease
from outrider.core.sidekick.events import AnyEvent, ReleaseDownloaded, ReleaseFailed, ReleaseVerified
from outrider.core.sidekick.memory import Release
from outrider.omaha_client import Upstream
from outrider.payloads.store import PayloadStore
from outrider.runtimes import RunnableRelease, Runtime
from outrider.sidekick.workers.release import ReleaseWork
from outrider.sidekick.workers.worker import failure

CONTENT = b"an app"
SHA = hashlib.sha256(CONTENT).hexdigest()
RELEASE = Release(version="2.0.0", urls=("http://x/",), sha256=SHA, size_bytes=len(CONTENT))
RUNNING = Release(version="1.0.0", urls=("http://x/",), sha256="1" * 64, size_bytes=1)


class Preparing:
    """A runtime that notes what it shall prepare and keep, and fails with ``error``."""

    def __init__(self, error: OutriderError | None = None) -> None:
        self._error = error
        self.asked: list[object] = []

    def prune(self, needed: Collection[str]) -> None:
        self.asked.append(list(needed))

    def prepare(self, release: RunnableRelease) -> None:
        self.asked.append(release)
        if self._error is not None:
            raise self._error


def verify(folder: Path, runtime: Preparing) -> list[AnyEvent]:
    """Download (it is there already) and verify, as the worker does; the events."""
    events: list[AnyEvent] = []
    (folder / f"{SHA}.payload").write_bytes(CONTENT)
    payloads = PayloadStore(folder, DownloadSettings())
    work = ReleaseWork(cast(Upstream, None), payloads, cast(Runtime, runtime), events.append)
    download = DownloadRelease(release=RELEASE)
    work.interrupt(download)
    work.perform(download, 1)
    try:
        work.perform(VerifyRelease(release=RELEASE, needed=(RELEASE, RUNNING)), 2)
    except OutriderError as error:
        failed = failure("release.verify", error, 2)
        assert failed is not None
        events.append(failed)
    return events


def test_a_proved_release_is_prepared_after_room_was_made(tmp_path: Path) -> None:
    runtime = Preparing()

    events = verify(tmp_path, runtime)

    assert [ReleaseDownloaded, ReleaseVerified] == [type(event) for event in events]
    payload = tmp_path / f"{SHA}.payload"
    assert [[SHA, "1" * 64], RunnableRelease(version="2.0.0", sha256=SHA, payload=payload)] == runtime.asked


def test_a_bad_payload_waits_for_its_turn_to_be_proved_bad_for_all(tmp_path: Path) -> None:
    """A block needs the fence of a turn (P5), so this is no verdict: the start under the turn says the same again."""
    events = verify(tmp_path, Preparing(Refused("not a tar file")))

    assert [ReleaseDownloaded, ReleaseVerified] == [type(event) for event in events]


def test_a_machine_that_can_not_prepare_asks_for_no_turn_and_can_report_it(tmp_path: Path) -> None:
    events = verify(tmp_path, Preparing(DriverError("no room")))

    failed = events[-1]
    assert isinstance(failed, ReleaseFailed)
    assert ("no room", FailureCode.WRITE) == (failed.cause, FailureCode(failed.error_code))


@pytest.mark.parametrize("error", [None, Refused("bad"), DriverError("no room")])
def test_whatever_comes_of_it_the_payload_stays(tmp_path: Path, error: OutriderError | None) -> None:
    verify(tmp_path, Preparing(error))

    assert CONTENT == (tmp_path / f"{SHA}.payload").read_bytes()
