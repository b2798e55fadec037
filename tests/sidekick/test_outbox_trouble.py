"""When reports are refused, can't be delivered, are too many or unreadable: nothing is lost without a word (P9)."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.core.errors import Refused, Throttled
from outrider.core.omaha import FailureCode, Report, downloading, failed, installed
from outrider.sidekick.outbox import retry_delay_s
from tests.support.outboxes import DEAD, Line, Outboxes, Receiver, files, logged, report
from tests.support.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox"


@pytest.fixture
def open_outbox(folder: Path) -> Iterator[Outboxes]:
    with Outboxes(folder) as outboxes:
        yield outboxes


@pytest.fixture
def log() -> Iterator[list[Line]]:
    with logged() as lines:
        yield lines


def test_a_report_that_is_refused_for_ever_is_set_aside_and_holds_up_nobody(
    open_outbox: Outboxes, folder: Path, log: list[Line]
) -> None:
    receiver = Receiver(Refused("http://s: HTTP 400: no"))
    outbox = open_outbox(receiver)

    outbox.put(report(1))
    outbox.put(report(2))

    assert outbox.flush(60)
    assert [report(2)] == receiver.taken
    (aside,) = (folder / "refused").iterdir()
    assert report(1) == msgspec.json.decode(aside.read_bytes(), type=Report)
    (line,) = (line for line in log if line[0] == "ERROR")
    assert "report refused forever" == line[1]
    assert ("update-1/1", "refused", False) == (line[2]["request_id"], line[2]["error_kind"], line[2]["retry"])


def test_what_was_set_aside_is_not_sent_again_after_a_restart(open_outbox: Outboxes) -> None:
    first = open_outbox(Receiver(Refused("HTTP 400")))
    first.put(report(1))
    assert first.flush(60)
    first.close()

    receiver = Receiver()

    assert 0 == open_outbox(receiver).pending()
    assert [] == receiver.tries


def test_every_failed_delivery_is_a_warning_that_says_when_it_is_tried_again(
    open_outbox: Outboxes, log: list[Line]
) -> None:
    outbox = open_outbox(Receiver(DEAD, DEAD))
    outbox.put(report(1))

    assert outbox.flush(60)
    warnings = [fields for level, message, fields in log if (level, message) == ("WARNING", "report not delivered")]
    assert [("driver", True)] * 2 == [(fields["error_kind"], fields["retry"]) for fields in warnings]
    assert all(isinstance(fields["delay_s"], float) for fields in warnings)


def test_the_wait_that_the_service_asks_for_is_kept_to(open_outbox: Outboxes) -> None:
    receiver = Receiver(Throttled("HTTP 503", retry_after_s=0.4))
    outbox = open_outbox(receiver)

    outbox.put(report(1))
    outbox.put(report(2))

    assert outbox.flush(60)
    (first, _), (second, _), *_ = receiver.tries
    assert second - first >= 0.4


def test_a_new_report_does_not_cut_a_wait_short(open_outbox: Outboxes) -> None:
    receiver = Receiver(Throttled("HTTP 503", retry_after_s=0.4))
    outbox = open_outbox(receiver)
    outbox.put(report(1))
    eventually(lambda: receiver.tries)

    for number in range(2, 10):
        outbox.put(report(number))

    assert outbox.flush(60)
    assert receiver.tries[1][0] - receiver.tries[0][0] >= 0.4


@pytest.mark.parametrize(
    ("failures", "spread", "delay_s"),
    [
        *((1, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.0, 4.0), (9, 0.0, 256.0), (10, 0.0, 300.0), (10**9, 0.0, 300.0)),
        *((1, 1.0, 0.5), (10, 1.0, 150.0), (3, 0.5, 3.0)),
    ],
)
def test_the_wait_doubles_up_to_its_limit_and_is_spread(failures: int, spread: float, delay_s: float) -> None:
    assert delay_s == retry_delay_s(failures, DEAD, least_s=1, most_s=300, spread=spread)


@pytest.mark.parametrize(("asked_s", "spread", "delay_s"), [(20.0, 0.0, 20.0), (20.0, 1.0, 21.0), (0.1, 0.0, 4.0)])
def test_what_the_service_asks_for_is_never_undercut(asked_s: float, spread: float, delay_s: float) -> None:
    throttled = Throttled("HTTP 503", retry_after_s=asked_s)

    assert delay_s == retry_delay_s(3, throttled, least_s=1, most_s=300, spread=spread)


def test_a_success_ends_the_row_of_failures(open_outbox: Outboxes, log: list[Line]) -> None:
    receiver = Receiver(*[DEAD] * 6)
    outbox = open_outbox(receiver, retry_max_s=10.0)
    outbox.put(report(1))
    assert outbox.flush(60)
    receiver.failures = [DEAD]

    outbox.put(report(2))

    assert outbox.flush(60)
    *_, sixth, last = [float(str(fields["delay_s"])) for level, _, fields in log if level == "WARNING"]
    assert sixth >= 0.16
    assert last <= 0.01


def test_a_full_outbox_drops_the_oldest_progress_and_says_so(
    open_outbox: Outboxes, folder: Path, log: list[Line]
) -> None:
    receiver = Receiver()
    receiver.hold.clear()
    outbox = open_outbox(receiver, max_pending=4)
    verdict = failed(FailureCode.ROLLED_BACK)
    outbox.put(report(1))
    eventually(lambda: receiver.tries)
    for number, event in enumerate([verdict, downloading(), downloading()], start=2):
        outbox.put(report(number, event))

    outbox.put(report(5, installed()))

    assert (4, 4) == (outbox.pending(), len(files(folder)))
    dropped = [fields for level, message, fields in log if (level, message) == ("ERROR", "report dropped, outbox full")]
    assert ["update-1/3"] == [fields["request_id"] for fields in dropped]
    receiver.hold.set()
    assert outbox.flush(60)
    assert [1, 2, 4, 5] == [int(one.request_id.partition("/")[2]) for one in receiver.taken]


def test_a_full_outbox_without_progress_drops_the_oldest_verdict_and_says_so(
    open_outbox: Outboxes, log: list[Line]
) -> None:
    receiver = Receiver()
    receiver.hold.clear()
    outbox = open_outbox(receiver, max_pending=3)
    for number in range(1, 5):
        outbox.put(report(number, installed()))
        eventually(lambda: receiver.tries)

    receiver.hold.set()

    assert outbox.flush(60)
    assert [1, 3, 4] == [int(one.request_id.partition("/")[2]) for one in receiver.taken]
    assert [("ERROR", "update-1/2")] == [(level, fields["request_id"]) for level, _, fields in log if level == "ERROR"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"update":"u"}', b"\xff\xfe"])
def test_an_unreadable_file_is_set_aside_with_an_error_and_the_rest_is_delivered(
    open_outbox: Outboxes, folder: Path, log: list[Line], content: bytes
) -> None:
    folder.mkdir(parents=True)
    (folder / "000000000001-aaaaaaaaaaaa.json").write_bytes(content)
    (folder / "000000000002-bbbbbbbbbbbb.json").write_bytes(msgspec.json.encode(report(2)))
    (folder / "000000000003-cccccccccccc.json.unfinished").write_bytes(b'{"upd')
    receiver = Receiver()

    assert open_outbox(receiver).flush(60)

    assert [report(2)] == receiver.taken
    assert ["report unreadable, set aside"] == [message for level, message, _ in log if level == "ERROR"]
    assert content == (folder / "refused" / "000000000001-aaaaaaaaaaaa.json").read_bytes()
    assert [] == files(folder)


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing", "pipe"])
def test_what_is_no_file_is_set_aside_and_the_rest_is_delivered(
    open_outbox: Outboxes, folder: Path, tmp_path: Path, kind: str
) -> None:
    precious = tmp_path / "precious.json"
    precious.write_bytes(msgspec.json.encode(report(9)))
    folder.mkdir(parents=True)
    for name in ("000000000001-aaaaaaaaaaaa.json", "000000000003-cccccccccccc.json.unfinished"):
        match kind:
            case "folder":
                (folder / name / "inside").mkdir(parents=True)
            case "link":
                (folder / name).symlink_to(precious)
            case "link to nothing":
                (folder / name).symlink_to("nothing")
            case _:
                os.mkfifo(folder / name)
    (folder / "000000000002-bbbbbbbbbbbb.json").write_bytes(msgspec.json.encode(report(2)))
    receiver = Receiver()

    assert open_outbox(receiver).flush(60)

    assert [report(2)] == receiver.taken
    assert precious.exists()
    assert os.path.lexists(folder / "refused" / "000000000001-aaaaaaaaaaaa.json")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_place_of_the_outbox_is_set_aside(
    open_outbox: Outboxes, folder: Path, tmp_path: Path, kind: str
) -> None:
    folder.parent.mkdir()
    if kind == "file":
        folder.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    receiver = Receiver()
    outbox = open_outbox(receiver)
    outbox.put(report(1))

    assert outbox.flush(60)
    assert [report(1)] == receiver.taken
    assert os.path.lexists(folder.with_name("outbox.damaged-1"))


def test_on_a_full_disk_the_reserve_gives_a_report_its_room(
    open_outbox: Outboxes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    (folder.parent / "reserve").write_bytes(bytes(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if (folder.parent / "reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    outbox = open_outbox(Receiver())
    monkeypatch.setattr(os, "fsync", fsync)

    outbox.put(report(1))

    assert outbox.flush(60)
    assert not (folder.parent / "reserve").exists()


def test_order_is_by_number_also_beyond_the_padding(open_outbox: Outboxes, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "999999999999-aaaaaaaaaaaa.json").write_bytes(msgspec.json.encode(report(1)))
    (folder / "1000000000000-bbbbbbbbbbbb.json").write_bytes(msgspec.json.encode(report(2)))
    receiver = Receiver()
    outbox = open_outbox(receiver)
    outbox.put(report(3))

    assert outbox.flush(60)
    assert [report(1), report(2), report(3)] == receiver.taken
