"""Applications of tests share their routes and nothing else."""

from pathlib import Path

from tests.sim.fake_etcd import FakeEtcd
from tests.support.in_process import application_over, ask
from tests.support.service_examples import make_app, open_store


def test_each_application_answers_from_its_own_store_and_counts_its_own_requests(tmp_path: Path) -> None:
    filled, empty = FakeEtcd().client("filled"), FakeEtcd().client("empty")
    make_app(open_store(filled))
    one, other = application_over(filled, tmp_path / "one"), application_over(empty, tmp_path / "other")

    answers = [ask(one, "GET", "/api/v1/apps") for _ in range(3)], [ask(other, "GET", "/api/v1/apps")]

    assert one.router.routes == other.router.routes
    assert [True] * 3 == [b"Example" in answer.body for answer in answers[0]]
    assert [200, False] == [answers[1][0].status, b"Example" in answers[1][0].body]
    counted = [ask(each, "GET", "/metrics").body.decode() for each in (one, other)]
    assert [3.0, 1.0] == [apps_asked(text) for text in counted]


def apps_asked(metrics: str) -> float:
    """How many requests to the list of apps were counted."""
    lines = [line for line in metrics.splitlines() if "_request_seconds_count{" in line and '/api/v1/apps"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
