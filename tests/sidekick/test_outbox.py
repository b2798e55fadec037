"""Reports survive everything, arrive in order and at least once (P9)."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.core.errors import ConfigError, DriverError, OmahaError, Throttled, Unknown
from outrider.core.omaha import Report
from outrider.sidekick.outbox import Outbox
from tests.support.outboxes import DEAD, Outboxes, Receiver, files, report
from tests.support.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox"


@pytest.fixture
def open_outbox(folder: Path) -> Iterator[Outboxes]:
    with Outboxes(folder) as outboxes:
        yield outboxes


def test_reports_are_delivered_once_each_and_in_order(open_outbox: Outboxes, folder: Path) -> None:
    receiver = Receiver()
    outbox = open_outbox(receiver)
    reports = [report(number) for number in range(20)]

    for one in reports:
        outbox.put(one)

    assert outbox.flush(60)
    assert reports == receiver.taken
    assert 0 == outbox.pending()
    assert [] == files(folder)


def test_order_holds_through_failures(open_outbox: Outboxes) -> None:
    receiver = Receiver(DEAD, Unknown("no answer"), OmahaError("garbage"), DEAD)
    outbox = open_outbox(receiver)
    reports = [report(number) for number in range(5)]

    for one in reports:
        outbox.put(one)

    assert outbox.flush(60)
    assert reports == receiver.taken
    assert ["update-1/0"] * 5 == [request_id for _, request_id in receiver.tries[:5]]


def test_what_was_put_is_on_disk_before_put_returns(open_outbox: Outboxes, folder: Path) -> None:
    receiver = Receiver()
    receiver.hold.clear()
    outbox = open_outbox(receiver)

    outbox.put(report(1))

    (name,) = files(folder)
    assert report(1) == msgspec.json.decode((folder / name).read_bytes(), type=Report)
    receiver.hold.set()


def test_put_syncs_the_file_and_then_its_folder(
    open_outbox: Outboxes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched at the system's own call: what isn't synced is lost with the power, and no test can cut that."""
    synced: list[tuple[str, list[str]]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, files(folder)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    receiver = Receiver()
    receiver.hold.clear()

    open_outbox(receiver).put(report(1))

    (first, before), (second, after) = synced
    assert first.endswith(".unfinished")
    assert [first] == before
    assert ("outbox", [first.removesuffix(".unfinished")]) == (second, after)
    receiver.hold.set()


def test_a_report_that_is_already_waiting_is_not_doubled(open_outbox: Outboxes, folder: Path) -> None:
    receiver = Receiver()
    receiver.hold.clear()
    outbox = open_outbox(receiver)

    outbox.put(report(1))
    outbox.put(report(1))

    assert (1, 1) == (outbox.pending(), len(files(folder)))
    receiver.hold.set()
    assert outbox.flush(60)
    assert [report(1)] == receiver.taken


def test_reports_survive_a_restart_in_order(open_outbox: Outboxes) -> None:
    away = Receiver()
    away.always = DEAD
    before = open_outbox(away)
    for number in range(12):
        before.put(report(number))
    before.close()

    back = Receiver()
    after = open_outbox(back)
    after.put(report(12))

    assert after.flush(60)
    assert [report(number) for number in range(13)] == back.taken


def test_a_report_put_again_after_a_restart_is_not_doubled(open_outbox: Outboxes) -> None:
    """The sidekick repeats an effect when it crashed before it could note that it was done."""
    away = Receiver()
    away.always = DEAD
    before = open_outbox(away)
    before.put(report(1))
    before.close()

    back = Receiver()
    back.hold.clear()
    after = open_outbox(back)
    after.put(report(1))
    back.hold.set()

    assert after.flush(60)
    assert [report(1)] == back.taken


def test_a_kill_in_the_middle_loses_no_report_that_put_returned_for(open_outbox: Outboxes, folder: Path) -> None:
    program = f"""
import sys
from datetime import datetime, UTC
from pathlib import Path
from loguru import logger
from outrider.core.errors import DriverError
from outrider.core.omaha import Report, downloading
from outrider.sidekick.outbox import Outbox
logger.remove()
def away(report):
    raise DriverError("away")
outbox = Outbox(Path({str(folder)!r}), away)
for number in range(100000):
    outbox.put(Report(update="u", request_id=str(number), at=datetime.now(UTC), version="1.0.0", event=downloading()))
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split()]
    process.wait()

    receiver = Receiver()
    outbox = open_outbox(receiver)

    assert outbox.flush(30)
    taken = [int(one.request_id) for one in receiver.taken]
    assert list(range(len(taken))) == taken
    assert set(said) <= set(taken)
    assert [] == files(folder)


def test_each_delivery_is_told(open_outbox: Outboxes) -> None:
    told: list[Report] = []
    outbox = open_outbox(Receiver(DEAD), on_delivered=told.append)
    outbox.put(report(1))
    outbox.put(report(2))

    assert [report(1), report(2)] == eventually(lambda: told if len(told) == 2 else None)


def test_flush_says_when_time_was_not_enough(open_outbox: Outboxes) -> None:
    receiver = Receiver()
    receiver.always = DEAD
    outbox = open_outbox(receiver)
    outbox.put(report(1))

    assert not outbox.flush(0.05)
    assert 1 == outbox.pending()


def test_closing_ends_a_long_wait_at_once(open_outbox: Outboxes) -> None:
    receiver = Receiver(Throttled("HTTP 503", retry_after_s=3600))
    outbox = open_outbox(receiver)
    outbox.put(report(1))
    eventually(lambda: receiver.tries)

    outbox.close(within_s=10)

    eventually(lambda: "outbox" not in [thread.name for thread in threading.enumerate()])
    outbox.close()


def test_nothing_can_be_put_into_a_closed_outbox(open_outbox: Outboxes) -> None:
    outbox = open_outbox(Receiver())
    outbox.close()

    with pytest.raises(ValueError, match="closed outbox"):
        outbox.put(report(1))


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"outbox .*/file/outbox: Not a directory; give it a folder"):
        Outbox(tmp_path / "file" / "outbox", Receiver())


def test_a_report_that_cannot_be_written_is_one_clear_line(open_outbox: Outboxes, folder: Path) -> None:
    outbox = open_outbox(Receiver())
    folder.rmdir()

    with pytest.raises(DriverError, match=r"outbox .*: can't keep a report: No such file"):
        outbox.put(report(1))

    assert 0 == outbox.pending()
