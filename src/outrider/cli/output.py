"""What commands print: tables and JSON on stdout, one line on stderr when they fail."""

import json
import re
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

import click
from loguru import logger

from outrider.core.client_tokens import masked
from outrider.core.errors import OutriderError

_BAD = re.compile(r"\b(blocked|cannot begin|crashed|dirty|error|failed|halted|refused|left behind)\b")
_HELD = re.compile(r"\b(cannot|deferred|offline|paused|unknown)\b")


def echo_json(value: object, file: IO[str] | None = None) -> None:
    """Print ``value`` as indented JSON."""
    click.echo(json.dumps(value, indent=2, default=str), file=file)


def echo_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, dropped_when_empty: str | None = None
) -> None:
    """Print rows below a header, without the column ``dropped_when_empty`` where no row has anything in it.

    On a terminal: by ``rich`` where it is installed, with long cells wrapped and trouble in colour. Elsewhere: columns
    aligned by two blanks; of ``updatectl`` separated by a tab, as scripts for the real program cut them.
    """
    cells = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    if dropped_when_empty is not None and not any(row[header.index(dropped_when_empty)] for row in cells):
        place = header.index(dropped_when_empty)
        header, *cells = [(*line[:place], *line[place + 1 :]) for line in (tuple(header), *cells)]
    if sys.stdout.isatty() and _echo_rich_table(header, cells):
        return
    lines = [tuple(header), *cells]
    if _is_updatectl() and not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in line))
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _is_updatectl() -> bool:
    """The command was typed by updatectl's name."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().info_name == "updatectl"


def _echo_rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether it is printed: the library is an extra."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console(highlight=False, soft_wrap=False).print(table)
    return True


def _style(cell: str) -> str:
    """Colour of a cell: what a person must look at."""
    if _BAD.search(cell):
        return "red"
    return "yellow" if _HELD.search(cell) else ""


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
    click.echo(f"Error: {f'{subject}: ' if subject not in str(error) else ''}{masked(str(error))}", err=True)


def fail(message: str) -> NoReturn:
    """Leave with 1 and one line."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
