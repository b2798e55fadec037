"""Each kind of check against a small real server or program. Away, slow, damaged or empty is no data, never a pass."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from outrider.analysis.checks import ask
from outrider.analysis.sources import source_of
from outrider.config.analysis import AnalysisCheck, AnalysisSettings
from outrider.core.analysis.answers import NoData
from outrider.core.analysis.sequential import Counts
from tests.support.rest_stub import Asked, RestStub, Say

FACTS = {"url": "http://h:8001", "host": "h", "port": "8001", "instance": "web-1", "version": "2.0.0"}
SERIES = {"metric": {}, "value": [1_435_781_451.781, "0.002"]}


class Prometheus:
    """Answers as prometheus.io/docs/prometheus/latest/querying/api documents it."""

    def __init__(self) -> None:
        self.result: list[object] = [SERIES]
        self.status = 200
        self.body: object = None
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Say:
        self.asked.append(asked)
        data = {"resultType": "vector", "result": self.result}
        return Say(status=self.status, body=self.body or {"status": "success", "data": data, "infos": ["i"]})


@pytest.fixture
def prometheus() -> Prometheus:
    return Prometheus()


@pytest.fixture
def server(prometheus: Prometheus) -> Iterator[RestStub]:
    with RestStub(prometheus.answer) as running:
        yield running


def promql(url: str, timeout_s: float = 5.0, token_file: Path | None = None) -> AnalysisCheck:
    query = 'sum(rate(errors{instance="{host}:{port}", version="{version}"}[1m])) by (job)'
    return AnalysisCheck(
        name="errors", kind="prometheus", url=url, query=query, condition="< 0.01", timeout_s=timeout_s,
        token_file=token_file,
    )  # fmt: skip


def test_a_query_is_asked_for_the_candidate_and_keeps_its_own_braces(
    server: RestStub, prometheus: Prometheus, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("geheim\n")

    found = ask(promql(server.url + "/", token_file=token), FACTS)

    asked = prometheus.asked[0]
    parts = urlsplit(asked.target)
    assert ("pass", "errors: 0.002 is < 0.01") == (found.result, str(found))
    assert "/api/v1/query" == parts.path
    assert ['sum(rate(errors{instance="h:8001", version="2.0.0"}[1m])) by (job)'] == parse_qs(parts.query)["query"]
    assert "Bearer geheim" == asked.headers["authorization"]


@pytest.mark.parametrize(
    ("result", "status", "body", "words"),
    [
        ([], 200, None, "no series"),
        ([{"metric": {}, "value": [1, "NaN"]}], 200, None, "nan is no number"),
        ([SERIES], 503, None, "answers 503"),
        ([], 422, {"status": "error", "errorType": "execution", "error": "too many"}, "execution: too many"),
        ([], 400, {"status": "error", "errorType": "bad_data", "error": "parse"}, "bad_data: parse"),
        ([], 502, b"<html>", "not an answer of Prometheus"),
        ([], 200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, "gives a matrix"),
    ],
)
def test_prometheus_that_has_nothing_to_say_is_no_data(
    server: RestStub, prometheus: Prometheus, result: list[object], status: int, body: object, words: str
) -> None:
    prometheus.result, prometheus.status, prometheus.body = result, status, body

    found = ask(promql(server.url), FACTS)

    assert "no data" == found.result
    assert words in found.words


def test_prometheus_that_is_away_or_slow_is_no_data(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()

        slow = ask(promql(f"http://127.0.0.1:{port}", timeout_s=0.2), FACTS)

        assert time.monotonic() - started < 5
    away = ask(promql(f"http://127.0.0.1:{port}"), FACTS)
    locked = ask(promql(f"http://127.0.0.1:{port}", token_file=tmp_path / "none"), FACTS)
    assert ["no data"] * 3 == [slow.result, away.result, locked.result]
    assert "no answer in 0.2 s" in slow.words
    assert "connection refused" in away.words
    assert "No such file" in locked.words


@pytest.mark.parametrize(
    ("say", "condition", "field", "result"),
    [
        (Say(body=b"pass"), "", "", "pass"),
        (Say(body={"result": "fail", "reason": "3 lost"}), "", "", "fail"),
        (Say(body=b"good"), "", "", "no data"),
        (Say(status=500, body=b"pass"), "", "", "no data"),
        (Say(status=404, body=b"pass"), "", "", "no data"),
        (Say(body={"stats": {"rate": 0.5}}), "< 0.6", "stats.rate", "pass"),
        (Say(body={"stats": {"rate": 0.7}}), "< 0.6", "stats.rate", "fail"),
        (Say(body={"stats": {}}), "< 0.6", "stats.rate", "no data"),
    ],
)
def test_an_endpoint_says_its_result_or_a_number(say: Say, condition: str, field: str, result: str) -> None:
    with RestStub(lambda _: say) as endpoint:
        check = AnalysisCheck(
            name="shop", kind="http", url=endpoint.url + "/ready?of={version}", condition=condition, field=field
        )

        found = ask(check, FACTS)

        assert "/ready?of=2.0.0" == endpoint.asked[0].target
    assert result == found.result, str(found)


@pytest.mark.parametrize(
    ("script", "result", "words"),
    [
        ("print('fine')", "pass", "fine"),
        ("import os; raise SystemExit(os.environ['VERSION'] == '2.0.0')", "fail", "exit 1"),
        ("print('which?'); raise SystemExit(2)", "no data", "no data: exit 2: which?"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "no data", "no data: signal 9"),
        ("import time; time.sleep(60)", "no data", "no data: no answer in 0.4 s"),
    ],
)
def test_a_command_passes_with_0_fails_with_1_and_else_is_no_data(script: str, result: str, words: str) -> None:
    slow = "sleep" in script
    check = AnalysisCheck(
        name="script", kind="command", command=(sys.executable, "-c", script), timeout_s=0.4 if slow else 20
    )

    found = ask(check, FACTS)

    assert (result, words) == (found.result, found.words)


def test_a_command_that_is_not_there_is_no_data() -> None:
    found = ask(AnalysisCheck(name="x", kind="command", command=("/no/such",)), FACTS)

    assert ("no data", "no data: /no/such: No such file or directory") == (found.result, found.words)


def test_apps_are_asked_one_by_one_and_one_that_is_away_is_left_out() -> None:
    with RestStub(lambda _: Say(body={"requests": 7, "errors": 1})) as app:
        source = source_of(AnalysisSettings(compare="app", counts_timeout_s=2), "")
        assert source is not None

        counts = source({app.url: "web-1", "http://127.0.0.1:1": "web-2"})

        assert {app.url: Counts(requests=7, errors=1)} == counts
        with pytest.raises(NoData, match="web-2: connection refused"):
            source({"http://127.0.0.1:1": "web-2"})


def test_one_page_of_metrics_is_asked_once_for_all_servers() -> None:
    page = b'hits{server="web-1",code="200"} 3\nhits{server="web-1",code="502"} 1\nhits{server="web-2",code="200"} 8\n'
    with RestStub(lambda _: Say(body=page)) as balancer:
        settings = AnalysisSettings(
            compare="metrics", counts_urls=(balancer.url + "/metrics",), metric="hits", labels={"server": "{instance}"}
        )
        source = source_of(settings, "")
        assert source is not None

        counts = source({"http://a:1": "web-1", "http://b:1": "web-2"})

        assert 1 == len(balancer.asked)
    assert {"http://a:1": Counts(requests=4, errors=1), "http://b:1": Counts(requests=8)} == counts


def test_counts_of_several_haproxys_are_added_up_and_one_that_is_away_leaves_none() -> None:
    head = b"# pxname,svname,econ,eresp,type,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,addr,\n"
    line = b"shop,s1,0,0,2,0,9,0,0,1,0,10.0.0.1:80,\n"
    with RestStub(lambda _: Say(body=head + line)) as one, RestStub(lambda _: Say(body=head + line)) as other:
        pages = (one.url + "/stats;csv", other.url + "/stats;csv")
        source = source_of(AnalysisSettings(compare="haproxy", counts_urls=pages), "shop")
        assert source is not None

        assert {"http://10.0.0.1:80": Counts(requests=20, errors=2)} == source({"http://10.0.0.1:80": "web-1"})
    with pytest.raises(NoData):
        source({"http://10.0.0.1:80": "web-1"})
