"""Over HTTP and a real etcd: what the read model answers is byte for byte what the endpoint answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.core.omaha import AppRequest, OmahaRequest, render_request
from outrider.etcd.seam import Cluster
from outrider.service.context import Context
from tests.support.service import RunningServer
from tests.support.service_examples import APP, make_app, open_store
from tests.support.waiting import eventually


@pytest.fixture
def running(cluster: Cluster, prefix: str, tmp_path: Path) -> Iterator[RunningServer]:
    below = prefix.rstrip("/")
    make_app(open_store(cluster, below))
    with RunningServer(cluster, tmp_path / "payloads", below) as running:
        model = running.context.read_model
        assert model is not None
        with model.running():
            eventually(lambda: model.is_confirmed)
            yield running


def ask(running: RunningServer, **facts: int) -> requests.Response:
    app = AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="web-1", update_check=True)
    body = render_request(OmahaRequest(apps=(app,), **facts))  # type: ignore[arg-type]
    return requests.post(f"{running.url}/v1/update", data=body, timeout=10)


def threads_used(context: Context) -> int:
    """More than before after a check-in that needed a thread."""
    return context.admission.runs


def test_a_check_in_that_changes_nothing_takes_no_thread_and_gets_the_same_answer(running: RunningServer) -> None:
    first = ask(running)
    used = threads_used(running.context)
    second = ask(running)

    assert 200 == first.status_code
    assert used == threads_used(running.context)
    assert first.content == second.content
    assert first.headers["Content-Type"] == second.headers["Content-Type"]


def test_what_was_written_through_this_service_counts_for_the_next_check_in(running: RunningServer) -> None:
    ask(running)
    for version, offered in (("2.0.0", True), ("1.0.0", False)) * 3:
        url = f"{running.url}/api/v1/apps/{APP}/channels/beta"
        requests.put(url, json={"version": version}, timeout=10).raise_for_status()

        assert offered == (b"<manifest" in ask(running).content)


def test_a_number_that_etcd_never_had_is_answered_all_the_same(running: RunningServer) -> None:
    ask(running)

    assert b"noupdate" in ask(running, seen_revision=2**58).content
