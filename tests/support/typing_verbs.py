"""Typing verbs at the running service, for tests."""

import shlex
from collections.abc import Callable

from click.testing import CliRunner, Result

from outrider.cli import main
from tests.support.service import Service

Run = Callable[..., Result]


def typist(service: Service) -> Run:
    """A function that runs one command line against ``service``; ``code`` is what it must leave with."""
    environment = {"OUTRIDER_SERVER": service.url, "OUTRIDER_ETCD": service.etcd, "OUTRIDER_PREFIX": service.prefix}

    def typed(command: str, *, code: int = 0, typing: str | None = None) -> Result:
        result = CliRunner().invoke(main, shlex.split(command), env=environment, input=typing)
        assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
        return result

    return typed


def lines(text: str) -> list[list[str]]:
    """A table as cells: columns are two blanks or more apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
