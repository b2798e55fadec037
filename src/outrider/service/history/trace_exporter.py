"""Sends rollouts as traces to an OpenTelemetry collector, by OTLP over HTTP.

The process that has written a step into the history sends what ends with it, so each span is sent by one process. What
waits when a process is killed is not sent: traces are for looking at, the history is what is kept.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from loguru import logger

from outrider import __version__
from outrider.core.addresses import MAX_SHOWN, http_problem
from outrider.core.errors import ConfigError, OutriderError
from outrider.model.history import Step, moment
from outrider.service.history.stories import History, read_history
from outrider.service.history.traces import FINISHED, Span, rollout_of, span_of_rollout, spans_of_update, updates_in
from outrider.service.history.tracker import GroupId
from outrider.service.store.context import StoreContext
from outrider.story.merged import merge

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MAX_WAITING = 2_000
"""Steps that wait while the collector gives no answer; beyond, the oldest are given up."""
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
ATTEMPTS = 8
TIMEOUT_S = 10.0

Send = Callable[[Sequence[Span]], bool]
"""Sends spans; False: the collector didn't take them."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A step that something ends with."""

    place: GroupId
    step: Step


class TraceExporter:
    """Sends from ``start`` until ``close``; ``wrote`` is called by the history recorder."""

    def __init__(self, context: StoreContext, send: Send, *, retry_min_s: float = RETRY_MIN_S) -> None:
        self._context, self._send, self._retry_min_s = context, send, retry_min_s
        self._changed = threading.Condition()
        self._waiting: deque[_Ended] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="outrider-traces", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, after one attempt with what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(2 * TIMEOUT_S)

    def wrote(self, place: GroupId, steps: Sequence[Step]) -> None:
        """``steps`` are in the history now. Returns at once."""
        ended = [_Ended(place, step) for step in steps if _ends_something(step)]
        if not ended:
            return
        with self._changed:
            self._waiting.extend(ended)
            lost = len(self._waiting) - MAX_WAITING
            for _ in range(lost):
                self._waiting.popleft()
            self._changed.notify_all()
        if lost > 0:
            logger.bind(steps=lost).warning("traces given up: the collector takes none")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                one = self._waiting.popleft()
            self._export(one)

    def _export(self, one: _Ended) -> None:
        delay_s = self._retry_min_s
        for attempt in range(ATTEMPTS):
            try:
                spans = self._spans(one)
                if not spans or self._send(spans):
                    return
                cause = "the collector didn't take them"
            except OutriderError as error:
                cause = str(error)
            retry = attempt + 1 < ATTEMPTS
            logger.bind(cause=cause, group=one.place[1], retry=retry).warning("traces not sent")
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, delay_s):
                    return
            delay_s = min(RETRY_MAX_S, 2 * delay_s)

    def _spans(self, one: _Ended) -> list[Span]:
        """What ended with a step."""
        (app, group), step = one.place, one.step
        history = read_history(self._context, app, group)
        # a new target ends the rollout before it
        at = step.revision - 1 if step.kind == "target" else step.revision
        rollout = rollout_of(history.rollouts(), app, group, at)
        if rollout is None:
            return []
        lines = merge(history.steps(rollout.revision, _next_rollout(history, rollout.revision)))
        if step.kind == "told":
            own = updates_in(lines, step.instance)
            ended = [update for update in own if update[-1].kind == "told" and update[-1].revision == step.revision]
            return [span for update in ended for span in spans_of_update(rollout, update)]
        began = next((line.at for line in lines if line.kind == "target" and line.at is not None), None)
        is_finished = any(line.kind == "event" and line.event == FINISHED for line in lines)
        spans: list[Span] = []
        if began is not None and (step.kind == "event" or not is_finished):
            spans.append(span_of_rollout(rollout, began, moment(step.at), is_finished=is_finished))
        if step.kind == "target":
            for instance in sorted({line.instance for line in lines if line.instance}):
                open_ = [update for update in updates_in(lines, instance) if update[-1].kind != "told"]
                spans += [span for update in open_ for span in spans_of_update(rollout, update)]
        return spans


def _ends_something(step: Step) -> bool:
    return step.kind in ("told", "target") or (step.kind == "event" and step.event == FINISHED)


def _next_rollout(history: History, revision: int) -> int | None:
    return next((mark.revision for mark in history.rollouts() if mark.revision > revision), None)


def otlp_sender(endpoint: str) -> Send:
    """Sends spans to a collector. Headers, certificates and compression are those of OpenTelemetry's own variables.

    Args:
        endpoint: ``http://collector:4318``; with a path, that is taken as it is.

    Raises:
        ConfigError: it is no address, or the library isn't installed.
    """
    if problem := http_problem(endpoint):
        raise ConfigError(f"--otlp-endpoint {endpoint[:MAX_SHOWN]!r}: {problem}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--otlp-endpoint: the Python package {error.name} is missing; install outrider[otlp]"
        ) from error
    parts = urlsplit(endpoint)
    address = endpoint if parts.path.strip("/") else urlunsplit(parts._replace(path="/v1/traces"))
    exporter = OTLPSpanExporter(endpoint=address, timeout=TIMEOUT_S)

    def send(spans: Sequence[Span]) -> bool:
        return exporter.export([_readable(span) for span in spans]) is SpanExportResult.SUCCESS

    return send


def _readable(span: Span) -> "ReadableSpan":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    def context(number: int) -> SpanContext:
        return SpanContext(span.trace, number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    status = Status(StatusCode.ERROR, span.why or None) if span.is_error else Status(StatusCode.OK)
    return ReadableSpan(
        name=span.name,
        context=context(span.id),
        parent=context(span.parent) if span.parent else None,
        resource=Resource({"service.name": "outrider", "service.version": __version__}),
        attributes=dict(span.attributes),
        status=status,
        start_time=_nanoseconds(span.began),
        end_time=_nanoseconds(span.ended),
    )


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000
