"""What a driver of a balancer agent is: one pure function from servers to commands, and a thin executor.

``look`` asks the balancer (or its files) what it does now. ``plan``, pure, says what is missing; an empty plan means
that the balancer does what the entries say. ``perform`` does one command of the plan. ``report``, pure, says what the
balancer does, for the sidekicks. The agent calls them again and again, so a change by anybody else is put right, and an
agent that died in the middle goes on where its balancer stands.

A server that no entry names any more *drains*: it gets no new session and keeps those that it has. Once it has none it
is removed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar
from urllib.parse import urlsplit

from outrider.core.errors import DriverError, Refused
from outrider.files import write_file

S = TypeVar("S")
C = TypeVar("C")


class Away(DriverError):
    """The balancer doesn't answer: nobody knows what it does, and whether it does anything."""

    kind: ClassVar[str] = "away"


class CannotFollow(Refused):
    """The balancer, or its configuration, can't follow. ``str()`` says what to change."""

    kind: ClassVar[str] = "cannot-follow"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServer:
    """One server as the entries want it.

    Attributes:
        id: The server's name in its service.
        url: ``http://host:port``.
    """

    id: str
    url: str
    weight: int = 1

    @property
    def address(self) -> str:
        """``host:port``; an IPv6 host in brackets."""
        return urlsplit(self.url).netloc

    @property
    def host(self) -> str:
        """Without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a balancer does with one service; as in ``Applied``."""

    serving: frozenset[str]
    draining: Mapping[str, int | None] = field(default_factory=dict)
    version: str = ""


class AgentDriver(Protocol[S, C]):
    """One balancer, for one service. Every method but ``plan`` and ``report`` has a time limit.

    Attributes:
        name: The product.
    """

    name: str

    def look(self) -> S:
        """What the balancer does now.

        Raises:
            Away: it doesn't answer.
            CannotFollow: it answers, and its configuration lacks what the driver needs.
        """

    def plan(self, servers: tuple[AgentServer, ...], state: S) -> tuple[C, ...]:
        """What to do so that the balancer does what ``servers`` say; pure. Servers come in before others drain.

        Raises:
            CannotFollow: there is no way, and what an operator must change.
        """

    def perform(self, command: C) -> None:
        """Do one command; doing it twice does no harm.

        Raises:
            Away, CannotFollow: as for ``look``.
        """

    def report(self, servers: tuple[AgentServer, ...], state: S) -> Report:
        """What the balancer does, by the addresses in the entries; pure.

        Raises:
            Away: it doesn't run.
        """


def replace_file(path: Path, text: str) -> None:
    """Put a file in place by rename: whoever reads it sees the old one or the new one. Others may read it.

    Raises:
        CannotFollow: it can't be written.
    """
    try:
        write_file(path, text.encode())
        os.chmod(path, 0o644)
    except OSError as error:
        raise CannotFollow(f"{path}: can't be written: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """The file's text; empty when there is none.

    Raises:
        CannotFollow: it can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise CannotFollow(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from error
