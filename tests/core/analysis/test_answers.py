"""What other programs answer is read strictly: what says nothing is no data, and never a pass."""

import pytest

from outrider.core.analysis.answers import (
    NoData,
    haproxy_counts,
    judged,
    metric_counts,
    parse_condition,
    prometheus_values,
    told_counts,
    told_number,
    told_result,
)
from outrider.core.analysis.counts import Look, Sides, between
from outrider.core.analysis.results import Finding, Result, worst
from outrider.core.analysis.sequential import Counts

BELOW = parse_condition("< 0.01")
SERIES = '{"metric":{"job":"web"},"value":[1435781451.781,"%s"]}'


def vector(*values: str) -> bytes:
    series = ",".join(SERIES % value for value in values)
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{series}]}},"warnings":["w"]}}'.encode()


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (vector("0.002"), "pass"),
        (vector("0.002", "0.02"), "fail"),
        (b'{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"0.5"]}}', "fail"),
    ],
)
def test_each_series_of_a_query_must_keep_the_threshold(body: bytes, result: str) -> None:
    assert result == judged(prometheus_values(body), BELOW)[0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (vector(), "no series"),
        (vector("NaN"), "nan is no number"),
        (vector("0.001", "NaN"), "nan is no number"),
        (vector("-Inf"), "-inf is no number"),
        (b'{"status":"error","errorType":"bad_data","error":"parse error"}', "bad_data: parse error"),
        (b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "gives a matrix"),
        (b'{"status":"success","data":{"resultType":"string","result":[1,"0.001"]}}', "gives a string"),
        (b'{"status":"success"}', "not an answer of Prometheus"),
        (b'{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}', "not an answer"),
        (b"<html>Bad Gateway</html>", "not an answer of Prometheus"),
        (b"", "not an answer of Prometheus"),
    ],
)
def test_an_answer_that_says_nothing_is_no_data(body: bytes, why: str) -> None:
    with pytest.raises(NoData, match=why):
        judged(prometheus_values(body), BELOW)


@pytest.mark.parametrize("text", ["", "0.01", "< x", "< nan", "=< 1", "< 1 or more", "< inf"])
def test_a_threshold_that_is_none_says_what_is_wanted(text: str) -> None:
    with pytest.raises(ValueError, match=r'wanted: one of < <= > >= == != and a number, such as "< 0.01"'):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [("<1", 0.9, 1), ("<= 1", 1, 1.1), ("> 1", 1.1, 1), (">=1", 1, 0.9), ("== 1", 1, 2), ("!= 1", 2, 1)],
)
def test_thresholds(text: str, good: float, bad: float) -> None:
    assert ("pass", "fail") == (judged((good,), parse_condition(text))[0], judged((bad,), parse_condition(text))[0])


def test_an_endpoint_says_its_result_as_a_word_or_in_json() -> None:
    assert ("pass", "it says pass") == told_result(b"pass\n")
    assert ("fail", "3 of 10 orders lost") == told_result(b"fail: 3 of 10 orders lost")
    assert ("fail", "lost") == told_result(b'{"result": "fail", "reason": "lost"}')


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"passed", b"no data", b'{"result": "yes"}', b'{"result": 1}', b"{", b"\xff"]
)
def test_an_endpoint_that_says_neither_gives_no_data(body: bytes) -> None:
    with pytest.raises(NoData):
        told_result(body)


def test_an_endpoint_answers_a_number() -> None:
    assert 0.5 == told_number(b"0.5\n", "")
    assert 3 == told_number(b'{"stats": {"bad": 3}}', "stats.bad")
    for body, field in ((b"many", ""), (b"{}", "stats.bad"), (b'{"stats": true}', "stats"), (b"NaN", "")):
        with pytest.raises(NoData):
            told_number(body, field)


def test_an_app_tells_its_own_counts() -> None:
    assert Counts(requests=10, errors=1) == told_counts(b'{"requests": 10, "errors": 1}')
    for body in (b"10", b'{"requests": 1, "errors": 2}', b'{"requests": -1, "errors": 0}', b'{"requests": 1.5}'):
        with pytest.raises(NoData):
            told_counts(body)


HEAD = "# pxname,svname,econ,eresp,type,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,addr,\n"


def test_haproxy_counts_each_server_of_a_backend() -> None:
    body = HEAD + (
        "web,FRONTEND,,,0,0,9,0,0,9,0,,\n"
        "web,s1,1,2,2,0,100,3,4,5,0,10.0.0.1:8000,\nweb,s2,0,0,2,0,7,0,0,0,0,10.0.0.2:8000,\n"
        "web,s3,0,0,2,0,1,0,0,0,0,10.0.0.2:8000,\nweb,BACKEND,0,0,1,0,9,0,0,9,0,,\nother,s1,0,0,2,0,9,0,0,0,0,h:1,\n"
    )

    counts = haproxy_counts(body.encode(), "web")

    assert {"10.0.0.1:8000": Counts(requests=115, errors=8), "10.0.0.2:8000": Counts(requests=8)} == counts


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "not HAProxy's statistics"),
        (HEAD, "not HAProxy's statistics"),
        (HEAD + "other,s1,0,0,2,0,7,0,0,0,0,h:1,\n", "no server of a backend web"),
        (HEAD + "web,s1,0,0,2,0,7,0,0,0,0,,\n", "stats show-legends"),
    ],
)
def test_statistics_that_say_nothing_are_no_data(body: str, why: str) -> None:
    with pytest.raises(NoData, match=why):
        haproxy_counts(body.encode(), "web")


PAGE = b"""# TYPE traefik_service_requests_total counter
traefik_service_requests_total{code="200",method="GET",protocol="http",service="web-a@etcd"} 1.5e+03
traefik_service_requests_total{code="502",method="GET",protocol="http",service="web-a@etcd"} 4 1435781451781
traefik_service_requests_total{code="500",method="GET",protocol="http",service="web-b@etcd"} 9
this is none
quoted_total{path="a\\"b,c=\\"d"} 1
bad_total NaN
"""


def test_a_page_of_metrics_counts_what_has_the_labels() -> None:
    counts = metric_counts(
        PAGE, metric="traefik_service_requests_total", labels={"service": "web-a@etcd"}, error_label="code",
        error_pattern="5..",
    )  # fmt: skip

    assert Counts(requests=1_504, errors=4) == counts
    quoted = metric_counts(
        PAGE, metric="quoted_total", labels={"path": 'a"b,c="d'}, error_label="code", error_pattern="5.."
    )
    assert Counts(requests=1) == quoted


@pytest.mark.parametrize(("metric", "labels"), [("bad_total", {}), ("gone_total", {}), ("quoted_total", {"path": "a"})])
def test_a_page_without_the_metric_is_no_data(metric: str, labels: dict[str, str]) -> None:
    with pytest.raises(NoData):
        metric_counts(PAGE, metric=metric, labels=labels, error_label="code", error_pattern="5..")


def test_only_servers_on_one_side_all_the_while_count_and_none_whose_counters_went_back() -> None:
    first = Look(
        sides=Sides(candidate=frozenset({"c"}), old=frozenset({"a", "b", "d", "e"})),
        counts={name: Counts(requests=100, errors=1) for name in "abcde"},
    )
    second = Look(
        sides=Sides(candidate=frozenset({"c", "d"}), old=frozenset({"a", "b", "e", "f"})),
        counts={
            "a": Counts(requests=150, errors=3),
            "b": Counts(requests=10),  # began anew
            "c": Counts(requests=107, errors=4),
            "d": Counts(requests=120, errors=9),  # has changed sides
            "f": Counts(requests=50),  # is new
        },
    )

    assert (Counts(requests=7, errors=3), Counts(requests=50, errors=2)) == between(first, second)


@pytest.mark.parametrize(
    ("results", "whole"),
    [
        ((), "no data"),
        (("pass", "pass"), "pass"),
        (("pass", "no data"), "no data"),
        (("no data", "fail", "pass"), "fail"),
    ],
)
def test_one_check_without_data_keeps_the_others_from_passing(results: tuple[Result, ...], whole: Result) -> None:
    findings = [Finding(check=str(place), result=result, words="") for place, result in enumerate(results)]

    assert whole == worst(findings)
