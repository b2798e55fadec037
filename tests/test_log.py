"""Logging: one JSON object per fact on stdout, text for a terminal, and the libraries in the same stream."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from loguru import logger

from outrider.config.sections import LogSettings, Secret
from outrider.log import CAPS, setup_logging
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process' loggers as they were; what another test's sidekick added to every line isn't there."""
    logger.configure(extra={})
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logger.remove()
    logging.captureWarnings(False)
    for name in CAPS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_flat_object_of_time_level_message_and_fields(stream: io.StringIO) -> None:
    setup_logging(LogSettings(), stream)

    with logger.contextualize(instance="web1"):
        logger.bind(event="lock.acquired", effects=["balancer.leave"], path=Path("/x"), token=Secret("x")).info("step")

    (line,) = lines(stream)
    assert ["time", "level", "message"] == list(line)[:3]
    at = datetime.fromisoformat(str(line.pop("time")))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert {
        "level": "info",
        "message": "step",
        "instance": "web1",
        "event": "lock.acquired",
        "effects": ["balancer.leave"],
        "path": "/x",
        "token": "***",
    } == line


def test_a_field_never_hides_time_level_or_message(stream: io.StringIO) -> None:
    setup_logging(LogSettings(), stream)

    logger.bind(message="mine", level=3).info("step")

    (line,) = lines(stream)
    assert ("step", "info", "mine", 3) == (line["message"], line["level"], line["message_"], line["level_"])


def test_braces_and_line_breaks_stay_what_they_are(stream: io.StringIO) -> None:
    setup_logging(LogSettings(), stream)

    logger.bind(said="a\nb").info("{not} a <template>\n")

    assert 1 == len(stream.getvalue().splitlines())
    assert ("{not} a <template>\n", "a\nb") == (lines(stream)[0]["message"], lines(stream)[0]["said"])


def test_an_exception_is_a_field_without_the_values_of_variables(stream: io.StringIO) -> None:
    setup_logging(LogSettings(), stream)
    password = "geheim"

    try:
        _ = {"known": 1}[password[:0]]
    except KeyError:
        logger.exception("bug")

    (line,) = lines(stream)
    assert "KeyError: ''" in str(line["exception"])
    assert "geheim" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "verbosity", "written"),
    [
        ("info", 0, ["info", "warning", "error"]),
        ("error", 0, ["error"]),
        ("debug", 0, ["debug", "info", "warning", "error"]),
        ("info", 1, ["debug", "info", "warning", "error"]),
        ("error", 1, ["debug", "info", "warning", "error"]),
    ],
)
def test_levels_below_the_setting_are_left_out_unless_v_is_given(
    stream: io.StringIO, level: str, verbosity: int, written: list[str]
) -> None:
    setup_logging(LogSettings(level=level), stream, verbosity=verbosity)  # type: ignore[arg-type]

    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("x")

    assert written == [line["level"] for line in lines(stream)]


def test_the_stdlibs_loggers_end_up_in_the_same_stream(stream: io.StringIO) -> None:
    def told() -> list[dict[str, object]]:
        """Again when a thread that another test has left puts back what warnings were shown by before."""
        stream.seek(0)
        stream.truncate()
        logging.captureWarnings(False)
        setup_logging(LogSettings(), stream)
        logging.getLogger("some.library").warning("%d of {n}", 3)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", stacklevel=1)
        return lines(stream)

    first, second = eventually(lambda: both if len(both := told()) == 2 else [])
    assert ("3 of {n}", "warning", "some.library") == (first["message"], first["level"], first["logger"])
    assert "py.warnings" == second["logger"]


def test_loud_libraries_are_capped_whatever_v_says(stream: io.StringIO) -> None:
    setup_logging(LogSettings(level="debug"), stream, verbosity=3)

    for name in ("transitions.core", "grpc._channel", "urllib3.connectionpool"):
        logging.getLogger(name).info("noise")
    logging.getLogger("transitions.core").warning("worth it")
    logging.getLogger("grpc._channel").warning("noise")

    assert ["worth it"] == [line["message"] for line in lines(stream)]


@pytest.mark.parametrize(("verbosity", "written"), [(0, ["info"]), (1, ["info"]), (2, ["debug", "info"])])
def test_libraries_debug_lines_need_vv(stream: io.StringIO, verbosity: int, written: list[str]) -> None:
    setup_logging(LogSettings(), stream, verbosity=verbosity)

    logging.getLogger("some.library").debug("x")
    logging.getLogger("some.library").info("x")

    assert written == [line["level"] for line in lines(stream)]


def test_setting_up_again_replaces_what_was_there(stream: io.StringIO) -> None:
    setup_logging(LogSettings(), stream)
    again = io.StringIO()

    setup_logging(LogSettings(level="warning"), again)
    logger.info("no")
    logging.getLogger("some.library").warning("once")

    assert "" == stream.getvalue()
    assert ["once"] == [line["message"] for line in lines(again)]


def test_text_keeps_every_field_on_one_line(stream: io.StringIO) -> None:
    setup_logging(LogSettings(format="text"), stream)

    logger.bind(effects=["a", "b"], said='two "words"\x1b[2J', none="").warning("st\nep")

    (line,) = stream.getvalue().splitlines()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d WARNING st\\nep  effects=a,b said="two \\"words\\"\\u001b\[2J" none=""', line
    ), line


@pytest.mark.parametrize(("form", "is_json"), [("auto", False), ("json", True)])
def test_a_terminal_gets_text_in_colour_unless_json_is_asked_for(form: str, is_json: bool) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        setup_logging(LogSettings(format=form), terminal)  # type: ignore[arg-type]

        logger.bind(event="x").info("step")

        written = os.read(ours, 4096).decode()
    os.close(ours)
    assert is_json == written.startswith("{")
    assert is_json != ("\x1b[32mINFO" in written)


def test_a_pipe_gets_json_on_stdout_and_nothing_on_stderr() -> None:
    program = (
        "from loguru import logger; from outrider.config.sections import LogSettings\n"
        "from outrider.log import setup_logging\n"
        "setup_logging(LogSettings()); logger.info('step'); logger.debug('hidden')"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert ["step"] == [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert "" == done.stderr
