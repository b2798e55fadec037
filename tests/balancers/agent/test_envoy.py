"""Envoy's driver: the file by its documented format, and a stand-in for the admin interface by its own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow
from outrider.balancers.agent.envoy import (
    TYPE,
    Endpoint,
    EnvoyDriver,
    EnvoyState,
    Host,
    endpoints_in,
    hosts_in,
    plan,
    render,
    report,
)

OLD = AgentServer(id="web-1", url="http://127.0.0.1:8085")
NEW = AgentServer(id="web-1", url="http://[::1]:8086", weight=3)
OLD_ADDRESS, NEW_ADDRESS = "127.0.0.1:8085", "[::1]:8086"
PATH = Path("/var/lib/envoy/hello.json")


def clusters(*endpoints: Endpoint, active: int = 0) -> dict[str, Any]:
    """By admin/v3/clusters.proto: numbers are strings in JSON, and a value of 0 is left out."""
    return {
        "cluster_statuses": [
            {"name": "other", "host_statuses": []},
            {
                "name": "hello",
                "host_statuses": [
                    {
                        "address": {
                            "socket_address": {
                                "address": one.address.rpartition(":")[0].strip("[]"),
                                "port_value": int(one.address.rpartition(":")[2]),
                            }
                        },
                        "stats": [
                            {"name": "cx_total", "value": "9"},
                            {"type": "GAUGE", "name": "rq_active"}
                            | ({"value": str(active)} if one.draining and active else {}),
                        ],
                        "health_status": {"eds_health_status": "DRAINING" if one.draining else "HEALTHY"},
                    }
                    for one in endpoints
                ],
            },
        ]
    }


def state(*endpoints: Endpoint, hosts: dict[str, Host] | None = None) -> EnvoyState:
    return EnvoyState(cluster="hello", endpoints=endpoints, hosts=hosts)


def test_the_file_is_a_discovery_response_with_one_assignment() -> None:
    endpoints = (Endpoint(address=OLD_ADDRESS, draining=True), Endpoint(address=NEW_ADDRESS, weight=3))
    told = json.loads(render("hello", endpoints))

    (assignment,) = told["resources"]
    assert (TYPE, "hello") == (assignment["@type"], assignment["cluster_name"])
    assert [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 8085}}},
            "health_status": "DRAINING",
            "load_balancing_weight": 1,
        },
        {
            "endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 8086}}},
            "health_status": "HEALTHY",
            "load_balancing_weight": 3,
        },
    ] == assignment["endpoints"][0]["lb_endpoints"]


def test_another_content_has_another_version() -> None:
    one, other = (json.loads(render("hello", (Endpoint(address=each),))) for each in (OLD_ADDRESS, NEW_ADDRESS))

    assert one["version_info"] != other["version_info"]


def test_a_file_reads_back_and_a_strangers_file_is_not_overwritten() -> None:
    endpoints = (Endpoint(address=OLD_ADDRESS, draining=True), Endpoint(address=NEW_ADDRESS, weight=3))

    assert endpoints == endpoints_in(render("hello", endpoints), PATH)
    assert () == endpoints_in("", PATH)
    for strange in ("{}", "[]", "clusters: []", '{"resources": [1, 2]}'):
        with pytest.raises(CannotFollow, match="not a file of endpoints"):
            endpoints_in(strange, PATH)


def test_a_swap_is_one_new_file_in_which_the_old_one_drains() -> None:
    (command,) = plan((NEW,), state(Endpoint(address=OLD_ADDRESS)))

    assert (Endpoint(address=NEW_ADDRESS, weight=3), Endpoint(address=OLD_ADDRESS, draining=True)) == command.endpoints


def test_what_drains_stays_while_it_has_requests_or_envoy_has_not_taken_the_file_over() -> None:
    swapped = (Endpoint(address=NEW_ADDRESS, weight=3), Endpoint(address=OLD_ADDRESS, draining=True))
    for host in (Host(draining=True, open=1), Host(draining=False)):
        assert () == plan((NEW,), state(*swapped, hosts={OLD_ADDRESS: host, NEW_ADDRESS: Host()}))
    (command,) = plan((NEW,), state(*swapped, hosts={OLD_ADDRESS: Host(draining=True), NEW_ADDRESS: Host()}))

    assert (Endpoint(address=NEW_ADDRESS, weight=3),) == command.endpoints


def test_without_an_admin_address_the_file_counts_and_requests_are_unknown() -> None:
    swapped = (Endpoint(address=NEW_ADDRESS, weight=3), Endpoint(address=OLD_ADDRESS, draining=True))

    assert () == plan((NEW,), state(*swapped))
    told = report((NEW,), state(*swapped))
    assert {NEW.url} == told.serving
    assert {OLD.url: None} == told.draining


def test_without_an_admin_address_only_those_drain_that_were_taken_out_last() -> None:
    third = AgentServer(id="web-1", url="http://127.0.0.1:8087")
    swapped = (Endpoint(address=NEW_ADDRESS), Endpoint(address=OLD_ADDRESS, draining=True))

    (command,) = plan((third,), state(*swapped))

    assert (Endpoint(address="127.0.0.1:8087"), Endpoint(address=NEW_ADDRESS, draining=True)) == command.endpoints


def test_envoys_own_word_counts_more_than_the_file() -> None:
    told = report((NEW,), state(Endpoint(address=NEW_ADDRESS, weight=3), hosts={OLD_ADDRESS: Host(open=2)}))

    assert {OLD.url} == told.serving


def test_the_admin_interface_tells_hosts_and_their_requests() -> None:
    told = clusters(Endpoint(address=OLD_ADDRESS, draining=True), Endpoint(address=NEW_ADDRESS), active=2)

    assert {OLD_ADDRESS: Host(draining=True, open=2), NEW_ADDRESS: Host()} == hosts_in(told, "hello")
    assert hosts_in(told, "nobody") is None


class StandIn:
    """An Envoy by its documentation: it takes the file over when it is told to, and counts what it is told."""

    def __init__(self, path: Path) -> None:
        self._path, self.active = path, 0
        self.endpoints: tuple[Endpoint, ...] = ()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told: object = {"version": "8d2f/1.31.0/Clean/RELEASE/BoringSSL"}
                if self.path == "/clusters?format=json":
                    told = clusters(*stand_in.endpoints, active=stand_in.active)
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take_over(self) -> None:
        self.endpoints = endpoints_in(self._path.read_text(), self._path)


class TestDriver:
    @pytest.fixture
    def envoy(self, tmp_path: Path) -> Iterator[StandIn]:
        stand_in = StandIn(tmp_path / "hello.json")
        thread = threading.Thread(target=stand_in.server.serve_forever, args=(0.01,))
        thread.start()
        yield stand_in
        stand_in.server.shutdown()
        stand_in.server.server_close()
        thread.join()

    def test_a_whole_swap(self, envoy: StandIn, tmp_path: Path) -> None:
        driver = EnvoyDriver(eds_file=tmp_path / "hello.json", cluster="hello", admin_url=envoy.url)

        def follow(server: AgentServer) -> None:
            while commands := driver.plan((server,), driver.look()):
                for command in commands:
                    driver.perform(command)
                envoy.take_over()

        follow(OLD)
        assert {OLD.url} == driver.report((OLD,), driver.look()).serving
        envoy.active = 1
        follow(NEW)
        told = driver.report((NEW,), driver.look())
        assert ({NEW.url}, {OLD.url: 1}) == (set(told.serving), dict(told.draining))
        envoy.active = 0
        follow(NEW)
        told = driver.report((NEW,), driver.look())
        assert ({NEW.url}, {}) == (set(told.serving), dict(told.draining))
        assert "1.31.0" in told.version
        assert 0o644 == (tmp_path / "hello.json").stat().st_mode & 0o777

    def test_an_envoy_that_is_not_there_is_away_and_a_cluster_that_it_has_not_is_named(
        self, envoy: StandIn, tmp_path: Path
    ) -> None:
        with pytest.raises(Away, match="doesn't answer"):
            EnvoyDriver(eds_file=tmp_path / "a.json", cluster="hello", admin_url="http://127.0.0.1:1").look()
        with pytest.raises(CannotFollow, match="no cluster nobody"):
            EnvoyDriver(eds_file=tmp_path / "a.json", cluster="nobody", admin_url=envoy.url).look()
