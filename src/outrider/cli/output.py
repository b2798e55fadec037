"""What commands print: tables and JSON on stdout, one line on stderr when they fail."""

import json
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

import click
from loguru import logger

from outrider.core.errors import OutriderError


def echo_json(value: object, file: IO[str] | None = None) -> None:
    """Print ``value`` as indented JSON."""
    click.echo(json.dumps(value, indent=2, default=str), file=file)


def echo_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below a header, columns aligned by two blanks as updatectl does with tabs."""
    lines = [tuple(header), *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask on stderr, unless ``--yes`` was given; whoever doesn't say yes leaves with 1.

    Without anybody to ask (a pipe, a CI job) it leaves with the option to write.
    """
    if yes:
        return
    try:
        answer = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():  # Ctrl-C or Ctrl-D
            raise
        click.echo("", err=True)
        fail("nobody answered; nothing was changed; --yes says yes beforehand")
    if not answer:
        raise click.Abort


def print_error(error: OutriderError, subject: str = "") -> None:
    """Print what went wrong as one line for a person, with ``subject`` before it when the line doesn't name it.

    A person needs no word for the kind of error; the log has it as ``error_kind`` (with ``--debug``).
    """
    logger.bind(error_kind=error.kind, retry=error.retry).debug("command failed")
    click.echo(f"Error: {f'{subject}: ' if subject not in str(error) else ''}{error}", err=True)


def fail(message: str) -> NoReturn:
    """Leave with 1 and one line."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
