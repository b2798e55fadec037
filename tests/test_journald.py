"""Entries for journald: what reads them is a socket that the test holds, in journald's place."""

import array
import io
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from outrider import log
from outrider.config.sections import LogSettings, Secret
from outrider.core.client_tokens import PREFIX, masked
from outrider.journald import Journal, encoded, priority_of, reads_stream
from outrider.log import setup_logging
from tests.test_log import restored

__all__ = ["restored"]  # the fixture that leaves the loggers as they were


class Reader:
    """journald's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(5)

    def entry(self) -> dict[str, str]:
        """The next entry, decoded as the protocol says; one that came as a file is read from that."""
        size = struct.calcsize("i")
        raw, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(size))
        for _, _, numbers in ancillary:
            (number,) = array.array("i", numbers)
            with os.fdopen(number, "rb") as file:
                file.seek(0)
                raw = file.read()
        fields = {}
        while raw:
            name, separator, rest = raw[: raw.index(b"\n")].partition(b"=")
            if separator:
                fields[name.decode()], raw = rest.decode(), raw[len(name) + len(rest) + 2 :]
            else:
                start = len(name) + 1
                (length,) = struct.unpack("<Q", raw[start : start + 8])
                fields[name.decode()] = raw[start + 8 : start + 8 + length].decode()
                raw = raw[start + 8 + length + 1 :]
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "journal")
    yield made
    made.close()


@pytest.fixture
def unit(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOWrapper]:
    """The stream of a unit's process."""
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(log, "Journal", lambda out: Journal(out, reader.path))
        yield stream


def test_a_units_process_writes_entries_with_priority_fields_and_a_sentence(
    unit: io.TextIOWrapper, reader: Reader
) -> None:
    setup_logging(LogSettings(), unit)

    with logger.contextualize(instance="web-a", group="beta"):
        logger.bind(version="2.0.0", cause="no space left", token=Secret("x")).warning("release can't be prepared")

    assert {
        "MESSAGE": "web-a: release can't be prepared: no space left (group beta, version 2.0.0, token ***)",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "outrider",
        "OUTRIDER_MESSAGE": "release can't be prepared",
        "OUTRIDER_INSTANCE": "web-a",
        "OUTRIDER_GROUP": "beta",
        "OUTRIDER_VERSION": "2.0.0",
        "OUTRIDER_CAUSE": "no space left",
        "OUTRIDER_TOKEN": '"***"',
    } == reader.entry()
    assert 0 == os.fstat(unit.fileno()).st_size, "nothing is said twice"


def test_a_step_reads_as_a_sentence(unit: io.TextIOWrapper, reader: Reader) -> None:
    setup_logging(LogSettings(), unit)

    step = {"source": "idle.waiting", "event": "release.found", "target": "preparing", "refused": []}
    logger.bind(**step, effects=["payload.download", "timer.start"]).info("step")

    entry = reader.entry()
    assert "idle.waiting on release.found to preparing (effects payload.download,timer.start)" == entry["MESSAGE"]
    assert ("6", '["payload.download", "timer.start"]') == (entry["PRIORITY"], entry["OUTRIDER_EFFECTS"])


def test_of_a_traceback_the_sentence_has_the_last_line_and_a_field_the_whole(
    unit: io.TextIOWrapper, reader: Reader
) -> None:
    setup_logging(LogSettings(), unit)

    try:
        raise OSError("the disk\nis gone")
    except OSError as error:
        logger.opt(exception=error).error("sidekick ended unexpectedly")

    entry = reader.entry()
    assert r"sidekick ended unexpectedly: OSError: the disk\nis gone" == entry["MESSAGE"]
    assert "3" == entry["PRIORITY"]
    assert entry["OUTRIDER_EXCEPTION"].startswith("Traceback")
    assert entry["OUTRIDER_EXCEPTION"].endswith("OSError: the disk\nis gone")


def test_a_client_token_is_masked_in_the_sentence_and_in_fields(unit: io.TextIOWrapper, reader: Reader) -> None:
    path = f"/v1/update/{PREFIX}0123456789ab_{'x' * 43}"
    setup_logging(LogSettings(), unit)

    logger.bind(path=path).info("no client")

    entry = reader.entry()
    assert masked(path) != path
    assert f"no client (path {masked(path)})" == entry["MESSAGE"]
    assert masked(path) == entry["OUTRIDER_PATH"]


def test_a_large_entry_comes_as_a_file(reader: Reader) -> None:
    text = "x" * 3_000_000

    Journal(io.StringIO(), reader.path).write("said much", 6, {"OUTRIDER_SAID": text})

    assert text == reader.entry()["OUTRIDER_SAID"]


def test_without_journalds_socket_the_sentence_goes_to_the_stream_with_its_priority(tmp_path: Path) -> None:
    stream = io.StringIO()

    Journal(stream, str(tmp_path / "nothing")).write("a person should look", 3, {"OUTRIDER_CAUSE": "x"})

    assert "<3>a person should look\n" == stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_format_that_is_chosen_is_kept_in_a_unit(unit: io.TextIOWrapper, format_: str) -> None:
    setup_logging(LogSettings(format=format_), unit)  # type: ignore[arg-type]

    logger.info("step")

    unit.seek(0)
    assert "step" in unit.read()


def test_a_stream_that_was_redirected_is_not_journalds(tmp_path: Path, unit: io.TextIOWrapper) -> None:
    with (tmp_path / "elsewhere").open("w") as other:
        assert not reads_stream(other, os.environ)
    assert reads_stream(unit, os.environ)
    assert not reads_stream(io.StringIO(), os.environ)


@pytest.mark.parametrize("value", ["", "8", "8:", ":9", "8:x", "x:9", "-1:2"])
def test_a_variable_that_makes_no_sense_counts_as_not_set(unit: io.TextIOWrapper, value: str) -> None:
    assert not reads_stream(unit, {"JOURNAL_STREAM": value})


@pytest.mark.parametrize(("level", "priority"), [(50, 2), (40, 3), (30, 4), (25, 6), (20, 6), (10, 7), (5, 7)])
def test_each_level_has_its_priority(level: int, priority: int) -> None:
    assert priority == priority_of(level)


def test_names_that_journald_would_refuse_are_put_right() -> None:
    assert b"TOOK_S=1\nTWO_WORDS=2\n" == encoded({"_took.s": "1", "two words": "2"})
    assert 64 == len(encoded({"n" * 100: ""}).partition(b"=")[0])
