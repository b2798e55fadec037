"""Rollouts as traces, taken by a receiver that speaks OTLP: the collector's own protocol, decoded by its schema."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from outrider.core.errors import ConfigError
from outrider.model.history import Step
from outrider.model.keys import Keys
from outrider.service.history.background import background_tasks
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.history.trace_exporter import MAX_WAITING, TraceExporter, otlp_sender
from outrider.service.history.traces import Span
from outrider.service.store.context import StoreContext
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.histories import APP, GROUP, Instances
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON, WallClock

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
ERROR = 2
"""``STATUS_CODE_ERROR``."""


class Receiver:
    """An OTLP receiver: it refuses what is no request of the protocol, and keeps the spans.

    Attributes:
        refuses: So many requests are answered with 503 before one is taken.
    """

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.refuses = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = outer.take(self.path, self.headers["content-type"], body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *about: object) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, media: str, body: bytes) -> int:
        if (path, media) != ("/v1/traces", "application/x-protobuf"):
            return 404
        if self.refuses:
            self.refuses -= 1
            return 503
        for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({one.key: one.value.string_value for one in resource.resource.attributes})
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return 200

    def named(self, name: str) -> Any:
        """The one span of that name."""
        found = [span for span in self.spans if span.name == name]
        assert 1 == len(found), f"{len(found)} spans {name!r} of {[span.name for span in self.spans]}"
        return found[0]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def web(fake_etcd: FakeEtcd, client: FakeCluster, clock: WallClock, receiver: Receiver) -> Iterator[Instances]:
    """A group whose history is recorded, and sent; the machine's clock is an hour ahead."""
    keys, recording = Keys(), fake_etcd.client("recorder")
    exporter = TraceExporter(
        StoreContext(cluster=client, keys=keys, now=clock), otlp_sender(receiver.url), retry_min_s=0.01
    )
    recorder = HistoryRecorder(recording, keys, clock, flush_s=0.01, on_written=exporter.wrote)
    exporter.start()
    recorder.start()
    eventually(lambda: recorder._watch is not None)
    yield Instances(client, keys, lambda name: clock() + timedelta(hours=1))
    recorder.close()
    exporter.close()
    recording.close()


def passes(web: Instances, clock: WallClock, revision: int, seconds: float) -> None:
    """Once the history has that, time passes."""
    eventually(lambda: [step[0] for step in web.told()][-1:] == [revision])
    clock.advance(seconds)


def seconds(span: Any) -> tuple[float, float]:
    """After noon: when it began and ended."""
    noon = NOON.timestamp()
    return span.start_time_unix_nano / 1e9 - noon, span.end_time_unix_nano / 1e9 - noon


def attributes(span: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def test_an_update_is_sent_when_its_sidekick_has_told_of_it(
    web: Instances, clock: WallClock, receiver: Receiver
) -> None:
    """
    1. web-a waits 3 s for its turn and starts for 20 s; it tells a local step, and how it ended
    2. the receiver has a span for the update, one for each state, to the second, and one for the local step
    3. when another release becomes the target, the rollout's own span comes, and all are in it
    """
    target = web.target("2.0.0")
    passes(web, clock, target, 1)
    passes(web, clock, web.is_in("web-a", "swapping.queueing"), 3)
    passes(web, clock, web.is_in("web-a", "swapping.starting"), 20)
    revision = web.is_in("web-a", "idle.waiting", version="2.0.0")
    passes(web, clock, revision, 1)
    stay = web.stay(1, "verifying", "web-a", after_s=-24.5, took_s=0.25, seen=target, event="release.verified")
    web.tells("web-a", [stay])

    eventually(lambda: len(receiver.spans) >= 4)
    update = receiver.named("update of web-a")
    assert (3, 20) == tuple(
        round(ended - began)
        for began, ended in (seconds(receiver.named(f"swapping.{name}")) for name in ("queueing", "starting"))
    )
    assert 0.25 == pytest.approx(seconds(receiver.named("verifying"))[1] - seconds(receiver.named("verifying"))[0])
    assert "committed" == attributes(update)["outrider.outcome"]
    assert "release.verified" == attributes(receiver.named("verifying"))["outrider.event"]
    assert {"service.name": "outrider"}.items() <= receiver.resources[0].items()
    assert update.status.code != ERROR

    web.target("3.0.0")
    eventually(lambda: len(receiver.spans) >= 5)
    rollout = receiver.named("rollout of 2.0.0")
    assert rollout.parent_span_id == b""
    assert update.parent_span_id == rollout.span_id
    assert {update.span_id} == {span.parent_span_id for span in receiver.spans if span not in (rollout, update)}
    assert 1 == len({span.trace_id for span in receiver.spans})
    assert len(receiver.spans) == len({span.span_id for span in receiver.spans})
    assert rollout.status.code == ERROR
    begins, ends = seconds(rollout)
    assert all(begins <= seconds(span)[0] and seconds(span)[1] <= ends for span in receiver.spans)


def test_a_finished_rollout_is_no_error_and_is_sent_once(web: Instances, clock: WallClock, receiver: Receiver) -> None:
    revision = web.target("2.0.0")
    passes(web, clock, revision, 60)
    web.event("rollout-finished", "2.0.0 runs everywhere", revision + 1, group=GROUP)
    eventually(lambda: receiver.spans)
    assert receiver.named("rollout of 2.0.0").status.code != ERROR
    assert (0, 60) == seconds(receiver.named("rollout of 2.0.0"))

    last = web.target("3.0.0")
    passes(web, clock, last, 1)
    web.event("rollout-finished", "3.0.0 runs everywhere", last + 1, group=GROUP)

    eventually(lambda: [span.name for span in receiver.spans] == ["rollout of 2.0.0", "rollout of 3.0.0"])


def test_an_update_that_nobody_told_of_is_sent_as_an_error_with_the_next_target(
    web: Instances, clock: WallClock, receiver: Receiver
) -> None:
    passes(web, clock, web.target("2.0.0"), 1)
    passes(web, clock, web.is_in("web-b", "rollback.removing"), 5)
    passes(web, clock, web.leaves("web-b"), 1)
    web.target("3.0.0")

    eventually(lambda: len(receiver.spans) == 4)
    update = receiver.named("update of web-b")
    assert "unfinished" == attributes(update)["outrider.outcome"]
    assert ERROR == update.status.code == receiver.named("rollback.removing").status.code
    assert ERROR == receiver.named("sidekick away").status.code


def test_a_collector_that_is_away_for_a_moment_loses_nothing(
    web: Instances, clock: WallClock, receiver: Receiver
) -> None:
    receiver.refuses = 2
    passes(web, clock, web.target("2.0.0"), 1)
    web.target("3.0.0")

    eventually(lambda: [span.name for span in receiver.spans] == ["rollout of 2.0.0"])
    assert 0 == receiver.refuses


def test_the_history_does_not_wait_for_a_collector() -> None:
    """More steps than may wait, while nothing is sent: the oldest are given up, the newest stay."""
    exporter = TraceExporter(None, lambda spans: False)  # type: ignore[arg-type] # it isn't started

    exporter.wrote((APP, GROUP), [Step(revision=at, kind="target") for at in range(MAX_WAITING + 5)])
    exporter.wrote((APP, GROUP), [Step(revision=1, kind="state")])

    assert [5, MAX_WAITING + 4] == [exporter._waiting[at].step.revision for at in (0, -1)]


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://"])
def test_what_is_no_address_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="--otlp-endpoint"):
        otlp_sender(endpoint)


def test_the_services_background_tasks_send_what_the_recorder_has_written(client: FakeCluster) -> None:
    sent: list[str] = []

    def send(spans: Sequence[Span]) -> bool:
        sent.extend(span.name for span in spans)
        return True

    with background_tasks(client, Keys().prefix, send_traces=send):
        web = Instances(client, Keys())
        eventually(lambda: client.get(Keys().history_seen()) is not None)
        for version in ("2.0.0", "3.0.0"):
            web.target(version)

        eventually(lambda: sent == ["rollout of 2.0.0"])
