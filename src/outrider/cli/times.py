"""Times on the command line: seconds since 1970 as updatectl has them, or RFC 3339."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _read(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """None for nothing given and, as for updatectl, for 0; a time without a zone is UTC."""
    if text is None:
        return None
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC) if int(text) else None
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        problem = f"{text!r}: write seconds since 1970, or 2026-11-23T12:00:00Z"
        raise click.BadParameter(problem, context, parameter) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def start_option(what: str) -> _Decorator:
    """Add ``--start``."""
    return click.option("--start", metavar="TIME", callback=_read, help=f"{what}: seconds since 1970, or RFC 3339.")


def end_option(what: str) -> _Decorator:
    """Add ``--end``."""
    return click.option("--end", metavar="TIME", callback=_read, help=f"{what}: seconds since 1970, or RFC 3339.")


def between(time: str, start: datetime | None, end: datetime | None) -> bool:
    """Tell whether ``time``, as the service writes it, is at or after ``start`` and before ``end``."""
    at = datetime.fromisoformat(time)
    return (start is None or at >= start) and (end is None or at < end)
