"""Steps: single changes of the service, shown before they are made, made one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import OutriderError

Sign = Literal["+", "~", "-"]
_DOCUMENTS = {"channels": 4, "groups": 4, "packages": 4, "instances": 4}
"""Below an app: the words of a path that name a document."""


@dataclass(slots=True, kw_only=True)
class Session:
    """The service while steps are made.

    Attributes:
        tags: Path of a document -> the tag that it is known to have; it is compared in the next write.
    """

    service: ServiceClient
    tags: dict[tuple[str, ...], str | None] = field(default_factory=dict)

    def write(self, method: str, *path: str, body: Json | None = None, absent: bool = False) -> Json:
        """Change something, if nobody else has changed it since it was read.

        Raises:
            Conflict: somebody has.
        """
        document = path[: _DOCUMENTS.get(path[2], 2)] if len(path) > 2 else path
        answer, tag = self.service.change(
            method, *path, body=body, if_match=None if absent else self.tags.get(document), absent=absent
        )
        self.tags[document] = tag if method != "DELETE" or document != path else None
        return answer


Make = Callable[[Session], Sequence[str]]
"""Makes a change; returns what a person should know of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change.

    Attributes:
        sign: ``+`` something new, ``~`` something else, ``-`` something removed.
        what: ``group shop/web``.
        details: ``slots: 1 -> 2``, a line each.
        affects: How many instances it concerns, ``3 instances``; empty: none by its nature.
    """

    sign: Sign
    what: str
    details: tuple[str, ...] = ()
    affects: str = ""
    make: Make

    def lines(self) -> tuple[str, ...]:
        """As a person reads it."""
        affects = f"  ({self.affects})" if self.affects else ""
        return (f"{self.sign} {self.what}{affects}", *(f"    {detail}" for detail in self.details))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far it came.

    Attributes:
        failed: The step that wasn't made; it may have been made in part. None: all were.
        left: Steps after that one.
    """

    made: tuple[Step, ...]
    failed: Step | None = None
    error: OutriderError | None = None
    left: tuple[Step, ...] = ()


def make_all(session: Session, steps: Sequence[Step], tell: Callable[[Step, Sequence[str]], object]) -> Outcome:
    """Make the steps until one fails.

    Args:
        tell: Is called after each one, with what a person should know of it.
    """
    for number, step in enumerate(steps):
        try:
            notes = step.make(session)
        except OutriderError as error:
            return Outcome(made=tuple(steps[:number]), failed=step, error=error, left=tuple(steps[number + 1 :]))
        tell(step, notes)
    return Outcome(made=tuple(steps))


def count(number: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
