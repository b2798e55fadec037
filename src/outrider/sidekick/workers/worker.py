"""Workers: one queue for each noun, so that effects on one noun stay in order and no slow one holds up the rest."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from loguru import logger

from outrider.core.blame import Evidence
from outrider.core.errors import DriverError, OutriderError, Refused, Throttled
from outrider.core.omaha import FailureCode
from outrider.core.sidekick.effects import AnyEffect, CheckRelease
from outrider.core.sidekick.events import (
    AnyEvent,
    BalancerFailed,
    BalancerRefused,
    LockFailed,
    ProbeFailed,
    ReleaseFailed,
    TaskFailed,
    WorkloadFailed,
)
from outrider.failpoints import for_same_instance, performing
from outrider.payloads.transfer import PayloadError
from outrider.pool import ElasticPool, SerialQueue
from outrider.sidekick.provenance import NotRecorded

Post = Callable[[AnyEvent], None]
"""Hands an event to the loop; any thread may call it."""

E = TypeVar("E", bound=AnyEffect)
E_contra = TypeVar("E_contra", bound=AnyEffect, contravariant=True)


def now() -> datetime:
    """The time that events carry, aware UTC."""
    return datetime.now(UTC)


class Noun(Protocol[E_contra]):
    """Performs the effects whose name begins with this noun: ``E_contra`` is their union."""

    def interrupt(self, effect: E_contra) -> None:
        """``effect`` is about to be queued: end what it makes pointless. Called by the loop, must return at once."""

    def perform(self, effect: E_contra, request: int | None) -> None:
        """Do it and post the answer, now or later.

        Raises:
            OutriderError: it can't be done; the worker turns that into the noun's event.
        """

    def close(self) -> None:
        """Let go of threads and connections; what runs in the world goes on running."""


def failure(effect: str, error: OutriderError, request: int | None) -> AnyEvent | None:
    """Turn a driver's error into the event that the chart knows: the one place where that happens.

    Args:
        effect: Name of the effect that failed.

    Returns:
        The event, None when no answer of that noun is awaited.
    """
    noun = effect.partition(".")[0]
    cause = str(error)
    evidence: Evidence = error.evidence if isinstance(error, DriverError) else "unknown"
    match noun:
        case "lock":
            return LockFailed(at=now(), request=request, cause=cause)
        case "workload":
            return WorkloadFailed(at=now(), request=request, evidence=evidence, cause=cause)
        case "balancer" if isinstance(error, Refused) or not error.retry:
            return BalancerRefused(at=now(), request=request, cause=cause)
        case "balancer":
            return BalancerFailed(at=now(), request=request, cause=cause)
        case "release":
            return ReleaseFailed(
                at=now(),
                request=request,
                cause=cause,
                error_code=error.error_code if isinstance(error, PayloadError) else FailureCode.ERROR,
                evidence=evidence if effect != CheckRelease.name else "unknown",
                retry_after_s=error.retry_after_s if isinstance(error, Throttled) else 0.0,
                refused=error.release if isinstance(error, NotRecorded) else "",
            )
        case "task":
            return TaskFailed(at=now(), request=request, cause=cause, evidence=evidence)
        case "probe":
            return ProbeFailed(at=now(), request=request, cause=cause, evidence=evidence)
        case _:
            return None


class Worker(Generic[E]):
    """The queue of one noun; it borrows a thread for as long as it has something to do."""

    def __init__(self, pool: ElasticPool, noun: Noun[E], post: Post, crash: Callable[[BaseException], None]) -> None:
        """``crash`` is told of anything that isn't an ``OutriderError``: a bug, which ends the process."""
        self._noun, self._post, self._crash = noun, post, crash
        self._queue = SerialQueue(pool)
        self._is_over = False
        self._queue.put(for_same_instance(lambda: None))

    def submit(self, effect: E, request: int | None) -> None:
        """Queue an effect behind those of the same noun."""
        self._noun.interrupt(effect)
        self._queue.put(lambda: self._perform(effect, request))

    def close(self, within_s: float) -> None:
        """End after the effect under way, if that ends in time."""
        self._queue.put(self._end)
        self._queue.join(within_s)
        self._noun.close()

    def _end(self) -> None:
        self._is_over = True

    def _perform(self, effect: E, request: int | None) -> None:
        if self._is_over:
            return
        started = now()
        performing(effect.name)
        try:
            self._noun.perform(effect, request)
        except OutriderError as error:
            logger.bind(effect=effect.name, error_kind=error.kind, retry=error.retry, cause=str(error)).warning(
                "effect failed"
            )
            event = failure(effect.name, error, request) if request is not None else None
            if event is not None:
                self._post(event)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which dies of it
            self._is_over = True
            self._crash(error)
        else:
            took_s = round((now() - started).total_seconds(), 3)
            logger.bind(effect=effect.name, request=request, took_s=took_s).debug("effect performed")
