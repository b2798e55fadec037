"""``/metrics``: read as Prometheus reads it, over the real service."""

from datetime import timedelta
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import Presence, encode
from outrider.service.store.store import utc_now
from tests.support.servers import EtcdServer
from tests.support.service import RunningServer, Service
from tests.support.service_examples import APP, block, make_app

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str) -> Samples:
    answer = requests.get(f"{url}/metrics", timeout=60)
    assert 200 == answer.status_code
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted({"app": APP, "group": "beta", **labels}.items()))))


def test_a_group_is_counted_by_version_and_by_what_it_waits_for(service: Service, cluster: Cluster) -> None:
    store = service.store
    make_app(store, version="2.0.0")
    for name, version in (("web-1", "2.0.0"), ("web-2", "1.0.0"), ("web-3", "1.0.0"), ("web-4", "1.0.0")):
        seen = Presence(instance=name, app=APP, group="beta", state="idle.waiting", version=version, since=utc_now())
        cluster.txn((), (Put(key=store.context.keys.presence(APP, "beta", name), value=encode(seen)),))
    block(store, "2.0.0", "it crashed", utc_now())

    samples = scrape(service.url)

    assert (1, 3) == (
        of(samples, "outrider_instances", version="2.0.0"),
        of(samples, "outrider_instances", version="1.0.0"),
    )
    assert 4 == of(samples, "outrider_sidekicks_alive")
    assert 0.25 == of(samples, "outrider_rollout_progress")
    assert 1 == of(samples, "outrider_release_blocked", version="2.0.0")
    assert 1 == of(samples, "outrider_turns", state="free")
    assert 1 == samples[("outrider_etcd_up", ())]


def test_drains_are_counted_and_those_that_take_longer_than_was_said(service: Service, cluster: Cluster) -> None:
    store = service.store
    make_app(store, version="2.0.0")
    since = utc_now() - timedelta(minutes=31)
    drains = (("web-1", since, 1800.0), ("web-2", since, 7200.0), ("web-3", since, 0.0), ("web-4", None, 0.0))
    for name, drain_since, for_s in drains:
        seen = Presence(
            instance=name, app=APP, group="beta", state="idle.waiting", version="1.0.0", since=utc_now(),
            drain_since=drain_since, drain_for_s=for_s,
        )  # fmt: skip
        cluster.txn((), (Put(key=store.context.keys.presence(APP, "beta", name), value=encode(seen)),))

    samples = scrape(service.url)

    assert (3, 1) == (of(samples, "outrider_draining"), of(samples, "outrider_drains_overdue"))


def test_requests_are_measured_by_route_and_not_by_what_clients_type(service: Service) -> None:
    requests.get(f"{service.url}/api/v1/apps", timeout=60)
    requests.get(f"{service.url}/nonsense/{'x' * 50}", timeout=60)
    requests.request("PROPFIND", f"{service.url}/api/v1/apps", timeout=60)

    samples = scrape(service.url)

    name = "outrider_http_request_seconds_count"
    counted = [dict(labels) for (each, labels), count in samples.items() if each == name and count]
    routes = {(labels["route"], labels["status"]) for labels in counted}
    assert ("/api/v1/apps", "200") in routes
    assert not any("nonsense" in route for route, _ in routes)
    assert {"GET", "other"} == {labels["method"] for labels in counted}


def test_without_etcd_the_page_still_says_so(tmp_path: Path) -> None:
    own = EtcdServer(tmp_path / "etcd").start().wait_ready()
    connection = connect(own.address(timeout_s=1.0))
    try:
        with RunningServer(connection, tmp_path / "payloads", "/outrider/v1") as running:
            own.kill()

            samples = scrape(running.url)

            assert 0 == samples[("outrider_etcd_up", ())]
    finally:
        connection.close()
        own.stop()
