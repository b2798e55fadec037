"""The service asks at the end of a wave, and goes on, halts or waits by the answers. Over an etcd in memory."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from outrider.core.analysis.results import Finding
from outrider.core.rollout import wave_analysis
from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.wave_analysis import Question
from outrider.core.rollout.wave_settings import Wave
from outrider.service.destinations import ANALYSES, parse_allowed
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.wakeups import look
from outrider.service.rollouts.wave_analyst import asked, book
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import application_over, ask
from tests.support.service_examples import APP, be_alive, make_app, open_store
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually

LABELS = {"web-1": {"site": "a"}, "web-2": {"site": "b"}}
LOOPBACK = parse_allowed(("127.0.0.1",), ANALYSES)


class Prometheus:
    """Answers instant queries as Prometheus does, with the value that the test sets; at /moved it redirects."""

    def __init__(self) -> None:
        self.value: str | None = "0.001"
        self.queries: list[str] = []
        prometheus = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                prometheus.queries.append(parse_qs(parts.query).get("query", [parts.path])[0])
                series = [] if prometheus.value is None else [{"metric": {}, "value": [1.0, prometheus.value]}]
                data = {"resultType": "vector", "result": series}
                self.send_response(302 if parts.path == "/moved" else 200)
                self.send_header("Location", f"http://127.0.0.2:{prometheus.port}/inner")
                self.end_headers()
                self.wfile.write(json.dumps({"status": "success", "data": data}).encode())

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Answer)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    one = Prometheus()
    yield one
    one.close()


def errors(prometheus: Prometheus, **changed: Any) -> WaveAnalysis:
    facts: dict[str, Any] = {
        "name": "errors", "url": f"http://127.0.0.1:{prometheus.port}", "condition": "< 0.01", "interval_s": 1,
        "query": 'rate(errors{app="{app}",group="{group}",version="{version}"}[1m])',
    }  # fmt: skip
    return WaveAnalysis(**facts | changed)


@pytest.fixture
def sites(fake_etcd: FakeEtcd) -> Fleet:
    """Two instances at two sites, on the real clock; the target is 2.0.0."""
    store = open_store(fake_etcd.client("sites"), now=lambda: datetime.now(UTC))
    fleet = Fleet(store=store, etcd=fake_etcd, clock=lambda: datetime.now(UTC))  # type: ignore[arg-type]
    make_app(store, version="2.0.0")
    fleet.set(enabled=False)
    for name, labels in LABELS.items():
        be_alive(store, name, datetime.now(UTC), labels=labels)
        fleet.checks(name, takes_turns=True)
    return fleet


def first_wave_comes(fleet: Fleet, analysis: WaveAnalysis, *, soak_s: int = 0) -> None:
    """The first wave has 2.0.0, and its analysis is due."""
    waves = (Wave(selector="site=a", soak_s=soak_s, analyses=(analysis.name,)),)
    fleet.set(enabled=True, waves=waves, analyses=(analysis,))
    assert "2.0.0" == fleet.granted("web-1", takes_turns=True)
    be_alive(fleet.store, "web-1", datetime.now(UTC), labels=LABELS["web-1"], version="2.0.0")
    fleet.succeeds("web-1")
    fleet.checks("web-1", "2.0.0", takes_turns=True)
    assert fleet.granted("web-2", takes_turns=True) is None


def questions(fleet: Fleet) -> tuple[Question, ...]:
    return look(fleet.store.context, GroupLock(), APP, "beta").questions


def is_woken(fleet: Fleet) -> bool:
    context = fleet.store.context
    return context.cluster.get(context.keys.wakeup(APP, "web-2")) is not None


def test_the_next_wave_begins_when_prometheus_says_that_it_may(
    sites: Fleet, prometheus: Prometheus, no_thread_left: None
) -> None:
    first_wave_comes(sites, errors(prometheus), soak_s=2)
    with rollout_controller(sites.store.context, destinations=LOOPBACK):
        eventually(lambda: is_woken(sites))

    assert f'rate(errors{{app="{APP}",group="beta",version="2.0.0"}}[1m])' == prometheus.queries[0]
    assert len(prometheus.queries) >= 2, "once in the soak time, and once after it"
    assert "2.0.0" == sites.granted("web-2", takes_turns=True)


def test_a_failing_answer_halts_the_rollout_and_its_brake_is_written(
    sites: Fleet, prometheus: Prometheus, no_thread_left: None
) -> None:
    prometheus.value = "0.2"
    first_wave_comes(sites, errors(prometheus, failures=2), soak_s=3600)
    context = sites.store.context
    before = context.cluster.get(context.keys.brake(APP, "beta"))
    with rollout_controller(context, destinations=LOOPBACK):
        eventually(lambda: sites.store.rollouts.get(APP, "beta").state == "halted")

    now = sites.store.rollouts.get(APP, "beta")
    assert "the analysis after wave 1 of 1 (site=a) failed: errors: 0.2, and must be < 0.01" == now.why
    assert before != context.cluster.get(context.keys.brake(APP, "beta"))
    assert any(now.why in line for line in explain(context, APP, "web-2"))
    assert not is_woken(sites)


@pytest.mark.parametrize("value", [None, "NaN"])
def test_without_data_the_rollout_is_paused_and_why_says_so(
    sites: Fleet, prometheus: Prometheus, value: str | None, no_thread_left: None
) -> None:
    prometheus.value = value
    first_wave_comes(sites, errors(prometheus, deadline_s=3, timeout_s=1))
    with rollout_controller(sites.store.context, destinations=LOOPBACK):
        eventually(lambda: sites.store.rollouts.get(APP, "beta").state == "paused")
        assert not is_woken(sites)
        assert any("is undecided: errors: no data: " in line for line in explain(sites.store.context, APP, "web-2"))
        prometheus.value = "0.5"
        sites.store.rollouts.resume(APP, "beta", by="ann")

        eventually(lambda: is_woken(sites))


def test_a_prometheus_that_is_away_is_no_data(sites: Fleet, prometheus: Prometheus) -> None:
    prometheus.close()
    first_wave_comes(sites, errors(prometheus))
    (question,) = questions(sites)

    finding = asked(question, APP, "beta", LOOPBACK)

    assert ("no data", "no data: connection refused") == (finding.result, finding.words)


def test_of_two_processes_that_ask_the_first_answer_counts(
    sites: Fleet, prometheus: Prometheus, fake_etcd: FakeEtcd
) -> None:
    """Both have asked the same question; a second failing answer would halt the rollout."""
    first_wave_comes(sites, errors(prometheus, failures=2))
    (question,) = questions(sites)
    failing = Finding(check="errors", result="fail", words="0.2, and must be < 0.01")
    other = open_store(fake_etcd.client("other"), now=lambda: datetime.now(UTC))
    counted: list[bool] = []

    def write(store: Store) -> None:
        now = datetime.now(UTC)
        counted.append(book(store.context, GroupLock(), APP, "beta", question, failing, now))

    threads = [threading.Thread(target=write, args=(store,)) for store in (sites.store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [False, True] == sorted(counted)
    assert "running" == sites.store.rollouts.get(APP, "beta").state
    (later,) = questions(sites)
    assert 1 == later.number


def test_another_process_goes_on_where_the_first_one_ended(
    sites: Fleet, prometheus: Prometheus, fake_etcd: FakeEtcd, no_thread_left: None
) -> None:
    """The first one has booked a failing answer of two; the second one ends the row."""
    prometheus.value = "0.2"
    first_wave_comes(sites, errors(prometheus, failures=2))
    (question,) = questions(sites)
    finding = asked(question, APP, "beta", LOOPBACK)
    assert book(sites.store.context, GroupLock(), APP, "beta", question, finding, datetime.now(UTC))
    other = open_store(fake_etcd.client("other"), now=lambda: datetime.now(UTC))
    with rollout_controller(other.context, destinations=LOOPBACK):
        eventually(lambda: other.rollouts.get(APP, "beta").state == "halted")

    assert 2 == len(prometheus.queries)


def test_an_answer_to_a_rollout_that_is_over_counts_for_nothing(sites: Fleet, prometheus: Prometheus) -> None:
    first_wave_comes(sites, errors(prometheus))
    (question,) = questions(sites)
    sites.store.rollouts.halt(APP, "beta", by="ann")
    failing = Finding(check="errors", result="fail", words="0.2")

    assert not book(sites.store.context, GroupLock(), APP, "beta", question, failing, datetime.now(UTC))
    assert wave_analysis.questions(sites.progress, sites.snapshot.policy) == ()


def test_private_addresses_are_not_asked_unless_the_operator_allows_them(sites: Fleet, prometheus: Prometheus) -> None:
    """
    1. not allowed: no data, and nobody was asked
    2. another address is allowed: the same
    3. this one is, and it redirects to another: that one isn't asked
    """
    first_wave_comes(sites, errors(prometheus))
    (question,) = questions(sites)
    for destinations in (ANALYSES, parse_allowed(("10.0.0.0/8",), ANALYSES)):
        finding = asked(question, APP, "beta", destinations)
        words = "no data: 127.0.0.1 is no public address; `outrider serve --allow-analyses-to` allows it"
        assert ("no data", words) == (finding.result, finding.words)
    assert [] == prometheus.queries
    moved = errors(prometheus, kind="http", url=f"http://127.0.0.1:{prometheus.port}/moved", query="", condition="")
    sites.set(waves=(Wave(selector="site=a", analyses=("errors",)),), analyses=(moved,))
    (question,) = questions(sites)

    finding = asked(question, APP, "beta", LOOPBACK)

    assert ("no data", "no data: it answers 302") == (finding.result, finding.words)
    assert ["/moved"] == prometheus.queries


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "localhost", "0x7f000001"])
@pytest.mark.parametrize("path", ["policy", "groups"])
def test_a_policy_that_leads_to_a_private_address_is_refused(
    client: FakeCluster, store: Store, tmp_path: Path, host: str, path: str
) -> None:
    make_app(store, version="2.0.0")
    application = application_over(client, tmp_path / "payloads")
    analysis = {"name": "errors", "url": f"http://{host}:9090", "query": "x", "condition": "< 1"}
    policy = {"waves": [{"analyses": ["errors"]}], "analyses": [analysis]}
    if path == "policy":
        answer = ask(
            application,
            "PUT",
            f"/api/v1/apps/{APP}/groups/beta/policy",
            json.dumps(policy).encode(),
            content_type="application/json",
        )
    else:
        body = {"id": "other", "channel": "beta", "policy": policy}
        answer = ask(
            application,
            "POST",
            f"/api/v1/apps/{APP}/groups",
            json.dumps(body).encode(),
            content_type="application/json",
        )

    assert 400 == answer.status, answer.body
    assert b"which is no public address; if analyses shall reach it" in answer.body
    assert b"--allow-analyses-to=" in answer.body
