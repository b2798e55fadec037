"""``/metrics`` for Prometheus: the state of every group in etcd at the time of the scrape, and this process's requests.

A scrape reads the gauges from etcd (at most every few seconds), so all processes report the same.
Latencies and counters are the process's own: sum them over processes.
"""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import get_args

from fastapi import APIRouter, Request, Response
from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider import __version__
from outrider.core.errors import ConfigError, Conflict, OutriderError
from outrider.core.rollout.policy import Defer, Grant, Verdict
from outrider.core.rollout.rollout import State
from outrider.model.damage import DAMAGE
from outrider.model.documents import App, Presence
from outrider.service.rollouts.explain import GroupOverview, read_overviews
from outrider.service.store.context import StoreContext
from outrider.service.store.judging import judge
from outrider.service.store.rollouts import effective
from outrider.service.store.snapshot import GroupSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S = 5.0
"""Seconds between two readings of etcd, for any number of Prometheus servers."""

router = APIRouter(tags=["operation"])
_STATUSES = (
    "undefined", "update-granted", "downloading", "downloaded", "installed", "complete", "error", "on-hold",
)  # fmt: skip


class Metrics:
    """The metrics of one process."""

    def __init__(self, context: StoreContext, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Histogram(
            "outrider_http_request_seconds",
            "Time to answer a request, by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        )
        self.grants = Counter(
            "outrider_grants", "Updates granted, by group; a repeated answer counts once.", ("app", "group"),
            registry=self.registry,
        )  # fmt: skip
        self.holds = Counter(
            "outrider_deferrals", "Check-ins without an update although there is one, by the rule that deferred it.",
            ("app", "group", "by"), registry=self.registry,
        )  # fmt: skip
        self.registry.register(_FleetCollector(context, clock))
        self.registry.register(_DamageCollector())

    def note_verdict(self, app: str, group: str, verdict: Verdict) -> None:
        """Count the answer to an instance. ``app`` and ``group`` exist, so clients cannot invent labels."""
        match verdict:
            case Grant(standing=False):
                self.grants.labels(app, group).inc()
            case Defer(pending=True, by=by):
                self.holds.labels(app, group, by).inc()

    def text(self) -> bytes:
        """The metrics page, in Prometheus' text format."""
        return generate_latest(self.registry)


class _FleetCollector(Collector):
    """The state of apps, groups and instances in etcd."""

    def __init__(self, context: StoreContext, clock: Callable[[], float]) -> None:
        self._context, self._clock = context, clock
        self._mutex = threading.Lock()
        self._read_at = float("-inf")
        self._kept: list[GaugeMetricFamily] = []

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Empty: registration reads nothing from etcd."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._mutex:
            if self._clock() - self._read_at >= FRESH_S:
                self._kept, self._read_at = self._read(), self._clock()
            return iter(self._kept)

    def _read(self) -> list[GaugeMetricFamily]:
        version = GaugeMetricFamily("outrider_build", "1, with the service's version.", labels=("version",))
        version.add_metric((__version__,), 1)
        up = GaugeMetricFamily("outrider_etcd_up", "1 when etcd answered this scrape.")
        took = GaugeMetricFamily("outrider_etcd_read_seconds", "Time that one read from etcd took.")
        began = self._clock()
        try:
            apps = self._context.children(App, self._context.keys.apps())
            took.add_metric((), self._clock() - began)
            groups = [overview for app in apps for overview in read_overviews(self._context, app.id)]
            families = _families(groups, self._context.now())
        except OutriderError:
            up.add_metric((), 0)
            return [version, up]
        up.add_metric((), 1)
        return [version, up, took, *families]


class _DamageCollector(Collector):
    """What this process could not read."""

    def describe(self) -> Iterator[CounterMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "outrider_documents_unreadable", "Stored values that could not be read and were skipped.", labels=("kind",)
        )
        for kind, count in sorted(DAMAGE.counts().items()):
            family.add_metric((kind,), count)
        yield family


def _is_overdue(presence: Presence, now: datetime) -> bool:
    since, for_s = presence.drain_since, presence.drain_for_s
    return since is not None and for_s > 0 and (now - since).total_seconds() > for_s


def _families(groups: list[GroupOverview], now: datetime) -> list[GaugeMetricFamily]:
    def family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"outrider_{name}", what, labels=("app", "group", *labels))

    by_version = family("instances", "Instances by the version they run.", "version")
    by_status = family("instances_by_status", "Instances by their status in the service.", "status")
    alive = family("sidekicks_alive", "Instances whose sidekick holds a lease.")
    progress = family("rollout_progress", "Share of the instances that run the target version, 0 to 1.")
    paused = family("group_paused", "1 while the group is paused.")
    blocked = family("release_blocked", "1 while the target version is blocked.", "version")
    turns = family("turns", "Turns to swap by state: free, held, dirty.", "state")
    waiting = family("turns_waiting", "Instances that wait for a turn.")
    draining = family("draining", "Instances that are to be out of the balancer, on the way or there.")
    overdue = family("drains_overdue", "Those of them that take longer than was said.")
    for overview in groups:
        of = (overview.app, overview.name)
        runs = {
            name: overview.alive[name].version if name in overview.alive else overview.rows[name].version
            for name in overview.instances
        }
        known = [overview.alive.get(name) or overview.rows[name] for name in runs]
        for version, count in sorted(Tally(runs.values()).items()):
            by_version.add_metric((*of, version), count)
        statuses = Tally(row.status for row in overview.rows.values())
        for status in _STATUSES:
            by_status.add_metric((*of, status), statuses[status])
        alive.add_metric(of, len(overview.alive))
        wanted = overview.target.version
        if wanted is not None and runs:
            at = sum(one.is_at(overview.target.release) for one in known if overview.target.release is not None)
            progress.add_metric(of, at / len(runs))
        paused.add_metric(of, overview.target.paused)
        if wanted is not None:
            blocked.add_metric((*of, wanted), overview.block is not None)
        states = Tally(turn.state for scope in overview.scopes for turn in scope.of_the_group)
        for state in ("free", "held", "dirty"):
            turns.add_metric((*of, state), states[state])
        drains = [each for each in overview.alive.values() if each.drain_since is not None]
        draining.add_metric(of, len(drains))
        overdue.add_metric(of, sum(_is_overdue(each, now) for each in drains))
        waiting.add_metric(of, sum(name in scope.members for scope in overview.scopes for name in scope.queue))
    snapshots = [overview.snapshot for overview in groups if overview.snapshot is not None]
    return [
        by_version,
        by_status,
        alive,
        progress,
        paused,
        blocked,
        turns,
        waiting,
        draining,
        overdue,
        *_rollouts(snapshots),
    ]


def _rollouts(snapshots: list[GroupSnapshot]) -> list[GaugeMetricFamily]:
    """Judges the deferred instances again, which reads blocks and packages: raises when etcd does not answer."""

    def family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"outrider_{name}", what, labels=("app", "group", *labels))

    deferred = family("deferred", "Instances that are deferred, by the rule that defers them now.", "by")
    under_way = family("updates_under_way", "Living grants without a result.")
    failed = family("rollout_failed", "Instances that failed in the rollout since an operator last resumed it.")
    state = family("rollout_state", "1 for the present state of the rollout.", "state")
    age = family("rollout_age_seconds", "Seconds from the start of the rollout to its end, or until now while it runs.")
    for snapshot in snapshots:
        of = (snapshot.group.app, snapshot.group.id)
        try:
            verdicts = [judge(snapshot, one.checking) for one in snapshot.waiting]
        except (Conflict, ConfigError) as error:  # of this group alone
            logger.bind(app=of[0], group=of[1], error_kind=error.kind, cause=str(error)).warning("group not judged")
            continue
        # "nothing": it may update and is about to check in.
        for by, count in sorted(Tally("nothing" if isinstance(one, Grant) else one.by for one in verdicts).items()):
            deferred.add_metric((*of, by), count)
        under_way.add_metric(of, len(snapshot.living))
        if snapshot.wanted is None or not snapshot.has_begun:
            continue
        now, _, _, _ = effective(snapshot)
        for each in get_args(State):
            state.add_metric((*of, each), each == now)
        failed.add_metric(of, len(snapshot.progress.failures))
        age.add_metric(of, ((snapshot.progress.finished or snapshot.now) - snapshot.progress.started).total_seconds())
    return [deferred, under_way, failed, state, age]


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Show metrics in Prometheus' text format."""
    ours: Metrics = request.app.state.metrics
    return Response(ours.text(), media_type=CONTENT_TYPE)


class MeasureRequests:
    """ASGI middleware: measures the duration of each request, by its route."""

    def __init__(self, application: ASGIApp, metrics: Metrics) -> None:
        self._application, self._metrics = application, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._application(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # never the raw path: clients choose it
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).observe(time.monotonic() - began)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
