"""Errors by whose fault they are and whether trying again can help.

Expected outcomes are events, not exceptions: a refused turn is ``LockRefused``. Misuse by our own code is
``assert`` or ``ValueError``. Everything here ends as one clear line for a person or as one event for the chart.
"""

from typing import ClassVar

from outrider.core.blame import Evidence


class OutriderError(Exception):
    """Any failure that outrider names.

    Attributes:
        kind: Short stable word, logged as ``error_kind`` and shown on the command line.
        retry: Whether the same call may succeed later although nothing is changed.
    """

    kind: ClassVar[str] = "outrider"
    retry: ClassVar[bool] = False


class ChartError(OutriderError):
    """A statechart that must not be run. ``str()`` is ``sidekick.scxml:12: unknown guard 'newer'``."""

    kind = "chart"

    def __init__(self, source: str, line: int | None, problem: str) -> None:
        """Name ``source`` (a file name, no folder), the 1-based ``line`` when known, and the ``problem``."""
        self.source, self.line, self.problem = source, line, problem
        super().__init__(f"{source}:{line}: {problem}" if line else f"{source}: {problem}")


class ConfigError(OutriderError):
    """What the operator wrote can't be used. ``str()`` is ``90-site.toml: lock.ttl: unknown; known: slots, ttl_s``."""

    kind = "config"


class OmahaError(OutriderError):
    """A peer sent something that we must not believe."""

    kind = "omaha"


class NotFound(OutriderError):
    """The operator named an app, group, channel, package or instance that doesn't exist."""

    kind = "not-found"


class Conflict(OutriderError):
    """The change would contradict what is stored: it exists already, is in use, or was changed meanwhile."""

    kind = "conflict"


class Unauthorized(OutriderError):
    """The client has not proved an identity that we know."""

    kind = "unauthorized"


class Forbidden(OutriderError):
    """The client is known, and may not do that."""

    kind = "forbidden"


class Misdirected(OutriderError):
    """The request was sent to a name that isn't this service's."""

    kind = "misdirected"


class PreconditionFailed(OutriderError):
    """The document isn't any more what the operator had before them when they decided (HTTP's ``If-Match``)."""

    kind = "precondition-failed"


class DriverError(OutriderError):
    """The world didn't do it; trying again may help.

    Attributes:
        evidence: What was found out about it, from which ``core.blame`` decides whose fault it is.
    """

    kind = "driver"
    retry = True
    evidence: Evidence = "unknown"

    def __init__(self, problem: str = "", *, evidence: Evidence | None = None) -> None:
        """Name the ``problem`` in one line; ``evidence`` in place of the class' own."""
        if evidence is not None:
            self.evidence = evidence
        super().__init__(problem)


class Refused(DriverError):
    """The other side understood and said no; asking again the same way won't help."""

    kind = "refused"
    retry = False
    evidence: Evidence = "bad-payload"


class Unknown(DriverError):
    """No answer, so it may or may not have happened: read again before deciding."""

    kind = "unknown"


class Throttled(DriverError):
    """The other side asks to be left alone for a while.

    Attributes:
        retry_after_s: Time before the next request, seconds.
    """

    kind = "throttled"

    def __init__(self, problem: str, *, retry_after_s: float) -> None:
        """Name the ``problem`` in one line, and how long to keep quiet."""
        self.retry_after_s = retry_after_s
        super().__init__(problem)
