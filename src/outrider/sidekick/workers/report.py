"""Reports: what Omaha is told about an update. They go to the outbox on disk before the loop goes on (P9)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from loguru import logger

from outrider.core.errors import DriverError
from outrider.core.omaha import OmahaEvent, Report, downloaded, downloading, failed, installed, running
from outrider.core.omaha import waiting_for_turn as queueing
from outrider.core.release import ReleaseId
from outrider.core.sidekick.effects import (
    ReportDownloaded,
    ReportDownloading,
    ReportEffect,
    ReportQueueing,
    ReportResult,
)
from outrider.core.sidekick.events import ReportQueued
from outrider.failpoints import performing
from outrider.sidekick.workers.worker import Post, now


class ReportWork:
    """Performs ``report.*``, on the loop's own thread: a report that isn't on disk may be lost in a crash."""

    def __init__(self, put: Callable[[Report], None], post: Post) -> None:
        """``put`` keeps a report durably (``Outbox.put``)."""
        self._put, self._post = put, post

    def interrupt(self, effect: ReportEffect) -> None:
        """Writing to the outbox is quick."""

    def perform(self, effect: ReportEffect, request: int | None) -> None:
        performing(effect.name)  # on the loop's own thread, which asks for nothing else that belongs to an effect
        for report in reports(effect, now()):
            try:
                self._put(report)
            except DriverError as error:  # the chart's deadline goes on without it; the journal keeps the verdict
                logger.bind(error_kind=error.kind, cause=str(error)).error("report lost")
                return
        if request is not None:
            self._post(ReportQueued(at=now(), request=request))

    def close(self) -> None:
        """Nothing is held here."""


def reports(effect: ReportEffect, at: datetime) -> tuple[Report, ...]:
    """The reports of one effect. Their request ids are made from the update's, so that a repeat is known as one."""
    match effect:
        case ReportDownloading():
            event = downloading(previous_version=effect.version, next_version=effect.next_version)
            return (_report(effect, "13", event, at),)
        case ReportDownloaded():
            event = downloaded(previous_version=effect.version, next_version=effect.next_version)
            return (_report(effect, "14", event, at),)
        case ReportQueueing():
            event = queueing(previous_version=effect.version, next_version=effect.next_version)
            return (_report(effect, "800", event, at),)
        case ReportResult() if effect.fault is not None:
            event = failed(effect.fault.error_code, previous_version=effect.version, next_version=effect.next_version)
            return (_report(effect, "3-0", event, at),)
        case ReportResult():
            done = installed(previous_version=effect.previous_version, next_version=effect.version)
            serving = running(previous_version=effect.previous_version)
            return (_report(effect, "3-1", done, at), _report(effect, "3-2", serving, at))
        case _:
            assert_never(effect)


def _report(effect: ReportEffect, phase: str, event: OmahaEvent, at: datetime) -> Report:
    return Report(
        update=effect.update,
        request_id=f"{effect.update}-{phase}",
        at=at,
        version=effect.version,
        release=effect.running or ReleaseId(version=effect.version),
        event=replace(event, release=effect.release),
    )
