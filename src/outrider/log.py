"""Logging: one line per fact on stdout: text on a terminal, entries where journald reads it, and JSON elsewhere.

Messages are constants, facts are bound fields. The stdlib's loggers end up here as well, with the loud ones capped.
"""

import json
import logging
import os
import sys
from datetime import UTC
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from outrider.config.sections import LogSettings
from outrider.core.client_tokens import masked
from outrider.journald import Journal, priority_of, reads_stream

if TYPE_CHECKING:
    from loguru import Message, Record

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

CAPS = {
    "transitions": logging.WARNING,  # one INFO line per internal step; the loop logs steps itself
    "grpc": logging.ERROR,  # reconnecting is the watch's business
    "urllib3": logging.WARNING,  # warns of every retried connection at INFO and below
    "asyncio": logging.WARNING,
}
"""stdlib logger -> least severe level that is let through, whatever ``-v`` says."""

_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


def setup_logging(settings: LogSettings, stream: TextIO | None = None, *, verbosity: int = 0) -> None:
    """Send everything that is logged in this process to ``stream``; calling again replaces what was set up before.

    Args:
        settings: ``format = "auto"`` means text when ``stream`` is a terminal, entries of journald with priority and
            fields when it is what a unit's process is given (``JOURNAL_STREAM``), else JSON lines.
        stream: stdout when None.
        verbosity: Number of ``-v``: one shows our DEBUG lines, two those of the libraries as well.
    """
    out = sys.stdout if stream is None else stream
    level = min(LEVELS[settings.level], LEVELS["debug"] if verbosity else LEVELS["error"])
    as_text = out.isatty() if settings.format == "auto" else settings.format == "text"
    colours = as_text and out.isatty()
    journal = Journal(out) if settings.format == "auto" and reads_stream(out, os.environ) else None

    def write(message: "Message") -> None:
        record = message.record
        if journal is not None:
            journal.write(masked(sentence(record)), priority_of(record["level"].no), journal_fields(record))
            return
        out.write(masked(text_line(record, colours=colours) if as_text else json_line(record)) + "\n")
        out.flush()

    logger.remove()
    # loguru's diagnose writes the values of local variables into tracebacks, passwords among them.
    logger.add(write, level=level, format="{message}", backtrace=False, diagnose=False)
    # gRPC's core writes to stderr by itself and reads this when it starts.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    libraries = LEVELS["debug"] if verbosity > 1 else max(level, LEVELS["info"])
    logging.basicConfig(handlers=[_Bridge()], level=libraries, force=True)
    logging.captureWarnings(True)
    for name, cap in CAPS.items():
        logging.getLogger(name).setLevel(cap)


class _Bridge(logging.Handler):
    """Hands the stdlib's records to loguru; ``logger`` says whose they are."""

    def emit(self, record: logging.LogRecord) -> None:
        level: str | int = record.levelname if record.levelname in _COLOURS else record.levelno
        logger.opt(exception=record.exc_info).bind(logger=record.name).log(level, record.getMessage())


def json_line(record: "Record") -> str:
    """One flat JSON object: time (UTC), level, message, bound fields; a field never hides the first three."""
    line = {"time": _time(record), "level": record["level"].name.lower(), "message": record["message"]}
    for key, value in record["extra"].items():
        line[f"{key}_" if key in line else key] = value
    if record["exception"] is not None:
        line["exception"] = _traceback(record)
    return json.dumps(line, default=str)


def text_line(record: "Record", *, colours: bool) -> str:
    """The same facts for people: ``10:31:07 INFO    step  event=release.found target=downloading``."""
    name = record["level"].name
    head = f"\x1b[{_COLOURS.get(name, '0')}m{name:<7}\x1b[0m" if colours else f"{name:<7}"
    fields = " ".join(f"{key}={_field(value)}" for key, value in record["extra"].items())
    line = f"{record['time']:%H:%M:%S} {head} {_one_line(record['message'])}{'  ' if fields else ''}{fields}"
    return line if record["exception"] is None else f"{line}\n{_traceback(record)}"


def sentence(record: "Record") -> str:
    """One line for people, without time and level, which journald keeps by themselves.

    For example ``a: release can't be prepared: no space left (version 2.0.0)``: the instance, what happened and why,
    then the other fields. Of a traceback the last line; the whole is a field.
    """
    fields = dict(record["extra"])
    instance = fields.pop("instance", None)
    message, reasons = record["message"], []
    if message == "step" and {"event", "source", "target"} <= fields.keys():
        message = f"{fields.pop('source')} on {fields.pop('event')} to {fields.pop('target')}"
    reasons = [str(value) for name in ("cause", "why", "what") if (value := fields.pop(name, None)) not in (None, "")]
    if (exception := record["exception"]) is not None and exception.type is not None:
        last = f"{exception.type.__name__}: {exception.value}"
        reasons += [] if any(str(exception.value) == each for each in reasons) else [last]
    told = [f"{name} {_field(value)}" for name, value in fields.items() if value not in (None, "", (), [])]
    line = ": ".join([*([] if instance is None else [str(instance)]), message, *reasons])
    return _one_line(f"{line} ({', '.join(told)})" if told else line)


def journal_fields(record: "Record") -> dict[str, str]:
    """The bound fields as journald keeps them beside the sentence: ``OUTRIDER_EVENT=release.found`` and so on."""
    fields = {"OUTRIDER_MESSAGE": record["message"]}
    for name, value in record["extra"].items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        fields[f"OUTRIDER_{name}".upper()] = masked(text)
    if record["exception"] is not None:
        fields["OUTRIDER_EXCEPTION"] = masked(_traceback(record))
    return fields


def _time(record: "Record") -> str:
    return record["time"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: "Record") -> str:
    exception = record["exception"]
    if exception is None or exception.type is None:
        return ""
    formatter = logging.Formatter()
    return formatter.formatException((exception.type, exception.value or exception.type(), exception.traceback))


def _field(value: object) -> str:
    """A value on one line, quoted when it holds what would end the field or move the cursor."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if text.isprintable() and text and " " not in text and '"' not in text else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
