"""All balancers keep the same promises, with each driver's kit; and Traefik's confirms nothing that isn't so."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.balancers.entry import Fenced
from outrider.balancers.keys import KeyLayout
from outrider.balancers.none import NoObserver
from outrider.balancers.templates import KeysSettings, TemplateKeys
from outrider.balancers.traefik import TraefikKeys, TraefikObserver, TraefikSettings
from outrider.balancers.vulcand import VulcandKeys, VulcandSettings
from outrider.core.errors import ConfigError, Refused
from outrider.etcd.seam import Cluster, CreatedAt, Delete, Put
from outrider.model.keys import Keys
from tests.contracts.kits.balancers import BALANCER_KITS, BalancerKit
from tests.contracts.kits.settings import settings_with
from tests.sim.fake_etcd import FakeEtcd

OLD, NEW, FOREIGN = "http://127.0.0.1:8085", "http://127.0.0.1:8086", "http://10.0.0.9:80"
URL_KEY = "traefik/http/services/hello/loadbalancer/servers/web-1/url"
SLOT = "/outrider/v1/turns/hello/g/slots/0/web-1"
LAYOUTS = {name: found for name, kit in BALANCER_KITS.items() if (found := kit.layout()) is not None}


def traefik(rule: str = "Host(`hello.test`)") -> TraefikKeys:
    return TraefikKeys(TraefikSettings(rule=rule), service="hello")


def observer(api_urls: tuple[str, ...] = (), throttle_s: float = 2.0) -> TraefikObserver:
    return TraefikObserver(TraefikSettings(api_urls=api_urls, throttle_s=throttle_s), service="hello")


@pytest.fixture(params=BALANCER_KITS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def kit(name: str) -> BalancerKit:
    return BALANCER_KITS[name]


@pytest.fixture
def cluster() -> Cluster:
    return FakeEtcd().client()


@pytest.fixture
def balancer(name: str, kit: BalancerKit, cluster: Cluster) -> Balancer:
    context = BalancerContext(cluster=cluster, keys=Keys())
    return BALANCERS.load(name).make(settings_with(name, kit.settings), context)


def take_turn(cluster: Cluster) -> tuple[CreatedAt, ...]:
    """A fence that holds until the slot's key is deleted."""
    cluster.txn((), (Put(key=SLOT, value=b"mine"),))
    entry = cluster.get(SLOT)
    assert entry is not None
    return (CreatedAt(key=SLOT, revision=entry.create_revision),)


class TestEveryBalancer:
    def test_it_is_called_as_in_the_configuration(self, balancer: Balancer, name: str) -> None:
        assert name == balancer.observer.name
        assert balancer.observer.propagation_s >= 0

    def test_the_entry_holds_what_it_was_told_last(
        self, balancer: Balancer, kit: BalancerKit, cluster: Cluster
    ) -> None:
        keeps = kit.keeps
        entry = balancer.entry
        entry.join(OLD)
        joined = kit.listed(cluster)
        fence = take_turn(cluster) if keeps else ()
        entry.switch(NEW, fence=fence)
        switched = kit.listed(cluster)
        entry.restore(OLD, fence=fence)
        restored = kit.listed(cluster)
        entry.leave(fence=fence)

        assert ([OLD, NEW, OLD] if keeps else [None] * 3) == [joined, switched, restored]
        assert kit.listed(cluster) is None

    def test_without_a_turn_no_traffic_is_taken_away(
        self, balancer: Balancer, kit: BalancerKit, cluster: Cluster
    ) -> None:
        if not kit.keeps:
            balancer.entry.leave(fence=())
            assert kit.listed(cluster) is None
            return
        balancer.entry.join(OLD)
        ended = take_turn(cluster)
        cluster.txn((), (Delete(key=SLOT),))

        with pytest.raises(Fenced):
            balancer.entry.switch(NEW, fence=ended)
        with pytest.raises(Fenced):
            balancer.entry.leave(fence=ended)

        assert OLD == kit.listed(cluster)

    def test_a_balancer_that_is_not_heard_confirms_nothing_and_holds_nobody_up(
        self, balancer: Balancer, kit: BalancerKit
    ) -> None:
        began = time.monotonic()

        confirmed = balancer.observer.confirm(present=frozenset({NEW}), absent=frozenset({OLD}))

        assert kit.unheard is confirmed
        assert time.monotonic() - began < 30


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> KeyLayout:
    return LAYOUTS[request.param]


class TestEveryKeyLayout:
    def test_all_keys_of_a_server_lie_below_the_prefix_it_owns(self, layout: KeyLayout) -> None:
        keys = layout.server_keys(Server(service="hello", id="web-1", url=OLD))

        assert keys
        assert all(key.startswith(layout.owned_prefix("web-1")) for key in keys)

    def test_no_server_owns_a_key_of_another(self, layout: KeyLayout) -> None:
        owned = layout.owned_prefix("web-1")
        for other in ("web-10", "web-1.a", "web"):
            keys = layout.server_keys(Server(service="hello", id=other, url=OLD))

            assert not [key for key in keys if (key.startswith(owned) if owned.endswith("/") else key == owned)]

    def test_the_address_is_read_back_from_the_keys(self, layout: KeyLayout) -> None:
        keys = layout.server_keys(Server(service="hello", id="web-1", url=OLD))

        assert OLD == layout.url_of("web-1", keys)
        assert layout.url_of("web-1", {}) is None

    def test_only_a_balancer_with_a_configuration_of_its_own_has_no_static_keys(self) -> None:
        assert {"agent", "keys"} == {name for name, layout in LAYOUTS.items() if not layout.static_keys()}

    def test_static_keys_are_no_servers_keys(self, layout: KeyLayout) -> None:
        owned = layout.owned_prefix("web-1")

        assert not [key for key in layout.static_keys() if key.startswith(owned)]


class TestVulcandKeys:
    KEY = "/vulcand/backends/hello/servers/web-1"

    def test_the_backend_is_always_there_and_comes_before_the_frontend(self) -> None:
        keys = VulcandKeys(VulcandSettings(route="Host(`h`)"), service="hello").static_keys()

        assert ["/vulcand/backends/hello/backend", "/vulcand/frontends/hello/frontend"] == list(keys)
        assert {"Type": "http", "BackendId": "hello", "Route": "Host(`h`)"} == json.loads(
            keys["/vulcand/frontends/hello/frontend"]
        )
        assert ["/vulcand/backends/hello/backend"] == list(
            VulcandKeys(VulcandSettings(), service="hello").static_keys()
        )

    def test_a_server_is_one_key_of_json(self) -> None:
        keys = VulcandKeys(VulcandSettings(), service="hello")

        assert {self.KEY: f'{{"URL":"{OLD}"}}'} == keys.server_keys(Server(service="hello", id="web-1", url=OLD))
        for value in ("", "{", "[]", '{"Url":"x"}', "null"):
            assert keys.url_of("web-1", {self.KEY: value}) is None

    @pytest.mark.parametrize(("other", "refused"), [("hello2", True), ("hell", True), ("h-ello", False), ("hi", False)])
    def test_a_backend_whose_name_would_be_mixed_up_is_refused(
        self, cluster: Cluster, other: str, refused: bool
    ) -> None:
        cluster.txn((), (Put(key=f"/vulcand/backends/{other}/backend", value=b"{}"),))
        context = BalancerContext(cluster=cluster, keys=Keys())
        entry = BALANCERS.load("vulcand").make(settings_with("vulcand", VulcandSettings()), context).entry
        if refused:
            with pytest.raises(Refused, match=f"backend '{other}', and of two names"):
                entry.ensure_static()
        else:
            entry.ensure_static()

        assert refused is (cluster.get("/vulcand/backends/hello/backend") is None)

    def test_a_neighbour_whose_name_goes_on_is_left_alone(self, cluster: Cluster) -> None:
        context = BalancerContext(cluster=cluster, keys=Keys())
        entry = BALANCERS.load("vulcand").make(settings_with("vulcand", VulcandSettings()), context).entry
        cluster.txn((), (Put(key=self.KEY + "0", value=b"{}"),))
        entry.join(OLD)
        entry.leave(fence=take_turn(cluster))

        assert cluster.get(self.KEY) is None
        assert cluster.get(self.KEY + "0") is not None


class TestTemplateKeys:
    @pytest.mark.parametrize(
        "value",
        [
            "{url}",
            "{host}:{port}",
            '{"host":"{host}","port":{port}}',
            "server {server} {host}:{port} {service}",
            "{url} {url}",
        ],
    )
    @pytest.mark.parametrize("url", [OLD, "http://[::1]:80", "http://web-1.example:8443"])
    def test_the_address_is_read_back_from_the_value(self, value: str, url: str) -> None:
        keys = TemplateKeys(KeysSettings(entries={"/s/{service}/{server}": value}), service="hello")

        assert url == keys.url_of("web-1", keys.server_keys(Server(service="hello", id="web-1", url=url)))
        assert keys.url_of("web-1", {"/s/hello/web-1": "somebody else's"}) is None

    def test_the_scheme_is_read_back_where_it_is_told(self) -> None:
        keys = TemplateKeys(KeysSettings(entries={"/s/{server}": "{scheme} {host} {port}"}), service="hello")

        made = keys.server_keys(Server(service="hello", id="web-1", url="https://a:1"))
        assert {"/s/web-1": "https a 1"} == made
        assert "https://a:1" == keys.url_of("web-1", made)

    @pytest.mark.parametrize(
        ("entries", "problem"),
        [
            ({}, "missing; for example"),
            ({"/s/{service}": "{url}"}, "without {server} all servers would have the same key"),
            ({"/s/{server}/{port}": "{url}"}, "a key may hold {service} and {server}"),
            ({"/s/{server}/{what}": "{url}"}, "a key may hold {service} and {server}"),
            ({"/s/{server}/": "{url}"}, "without a slash"),
            ({"/s/{server}": "{host}"}, "no value tells the address"),
            ({"/s/{server}/a": "{url}", "/t/{server}/b": "{url}"}, "must all begin alike"),
            ({"/s/{server}": "{url}", "/t/{server}": "{url}"}, "must all begin alike"),
        ],
    )
    def test_templates_that_can_not_work_are_refused(self, entries: dict[str, str], problem: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            TemplateKeys(KeysSettings(entries=entries), service="hello")


class TestTraefikKeys:
    def test_a_server_is_one_key_and_never_has_a_weight(self) -> None:
        assert {URL_KEY: OLD} == traefik().server_keys(Server(service="hello", id="web-1", url=OLD))

    def test_static_keys_route_and_keep_the_service_when_its_last_server_leaves(self) -> None:
        settings = TraefikSettings(root="edge/lb", rule="Host(`h`)", entrypoints=("web", "webSecure"))

        assert {
            "edge/lb/http/services/hello/loadbalancer/passhostheader": "true",
            "edge/lb/http/routers/hello/rule": "Host(`h`)",
            "edge/lb/http/routers/hello/service": "hello",
            "edge/lb/http/routers/hello/entrypoints/0": "web",
            "edge/lb/http/routers/hello/entrypoints/1": "webSecure",
        } == TraefikKeys(settings, service="hello").static_keys()

    def test_without_a_rule_nothing_static_is_written(self) -> None:
        assert {} == traefik(rule="").static_keys()

    def test_propagation_is_the_throttle_and_the_time_to_apply(self) -> None:
        assert pytest.approx(2.5) == observer().propagation_s
        assert pytest.approx(0.6) == observer(throttle_s=0.1).propagation_s

    @pytest.mark.parametrize("id", ["Web-1", "web@1", "web/1", "", ".web", "-web", "web 1", "wéb", "w" * 128])
    def test_a_server_id_that_traefik_would_mix_up_is_refused(self, id: str) -> None:
        with pytest.raises(ConfigError, match="server id"):
            traefik().owned_prefix(id)

    @pytest.mark.parametrize("id", ["0", "web-a", "i-0f3a_v2", "host1.example", "w" * 127])
    def test_a_plain_server_id_is_taken(self, id: str) -> None:
        assert traefik().owned_prefix(id).endswith(f"/servers/{id}/")

    @pytest.mark.parametrize(
        "url",
        [
            "127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:70000", "http://:80",
            "http://a:80/", "http://a:80/x", "http://a:80?x", "http://u:p@a:80", "http://a b:80", "ftp://a:80",
            "http://a:80\n", " http://a:80", "http://[::1:80", "http://a%zz:80", "http://a:080", "", "HTTP://a:80",
        ],
    )  # fmt: skip
    def test_an_address_that_would_freeze_all_services_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigError, match="write http://HOST:PORT"):
            traefik().server_keys(Server(service="hello", id="web-1", url=url))

    @pytest.mark.parametrize("url", [OLD, "https://web-1.example:8443", "http://[::1]:80", "http://my_host:1"])
    def test_a_plain_address_is_taken(self, url: str) -> None:
        assert {URL_KEY: url} == traefik().server_keys(Server(service="hello", id="web-1", url=url))

    def test_another_services_server_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="service"):
            traefik().server_keys(Server(service="other", id="web-1", url=OLD))

    @pytest.mark.parametrize(
        ("service", "settings", "key"),
        [
            ("Hello", TraefikSettings(), "balancer.service"),
            ("", TraefikSettings(), "balancer.service"),
            ("a@b", TraefikSettings(), "balancer.service"),
            ("a", TraefikSettings(root="traefik/"), "traefik.root"),
            ("a", TraefikSettings(root="/traefik"), "traefik.root"),
            ("a", TraefikSettings(root=""), "traefik.root"),
            ("a", TraefikSettings(entrypoints=("we/b",)), "traefik.entrypoints"),
        ],
    )
    def test_a_bad_setting_is_named(self, service: str, settings: TraefikSettings, key: str) -> None:
        with pytest.raises(ConfigError, match=f"^{key}: "):
            TraefikKeys(settings, service=service)


@contextmanager
def api(status: int, answer: object) -> Iterator[str]:
    """Something that answers every GET with ``answer`` (as JSON unless it is text), as Traefik's API would."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert set(asked) <= {"/api/http/services/hello@etcd"}


def listing(*urls: str, status: str = "enabled") -> dict[str, object]:
    return {"loadBalancer": {"servers": [{"url": url} for url in urls]}, "status": status}


NOWHERE = "http://127.0.0.1:1"


class TestTraefikConfirms:
    @pytest.mark.parametrize(
        ("status", "answer", "confirmed"),
        [
            (200, listing(NEW), True),
            (200, listing(NEW + "/", FOREIGN), True),
            (200, listing(OLD), False),
            (200, listing(OLD, NEW), False),
            (200, listing(), False),
            (200, {"loadBalancer": {}, "status": "enabled"}, False),
            (200, listing(NEW, status="disabled"), False),
            (404, {"message": "service not found: hello@etcd"}, False),
            (404, "404 page not found", None),
            (200, "<html>", None),
            (200, ["no", "object"], None),
            (200, {"weighted": {}}, None),
            (500, listing(NEW), None),
            (302, listing(NEW), None),
        ],
    )
    def test_a_swap_is_confirmed_by_what_is_listed_and_by_nothing_else(
        self, status: int, answer: object, confirmed: bool | None
    ) -> None:
        with api(status, answer) as url:
            told = observer(api_urls=(url,)).confirm(present=frozenset({NEW}), absent=frozenset({OLD}))

        assert confirmed is told

    def test_a_missing_service_lists_nothing_so_leaving_is_confirmed(self) -> None:
        with api(404, {"message": "service not found: hello@etcd"}) as url:
            assert observer(api_urls=(url,)).confirm(present=frozenset(), absent=frozenset({OLD})) is True

    def test_an_entry_point_taken_for_the_api_confirms_nothing(self) -> None:
        with api(404, "404 page not found\n") as url:
            assert observer(api_urls=(url,)).confirm(present=frozenset(), absent=frozenset({OLD})) is None

    def test_every_traefik_is_asked_and_one_no_is_a_no(self) -> None:
        with api(200, listing(NEW)) as done, api(200, listing(OLD)) as late:
            for urls in ((done, late), (late, done), (NOWHERE, late)):
                assert observer(api_urls=urls).confirm(present=frozenset({NEW}), absent=frozenset({OLD})) is False

    def test_one_that_does_not_answer_leaves_it_open(self) -> None:
        with api(200, listing(NEW)) as done:
            for urls in ((done, NOWHERE), (NOWHERE, done), (NOWHERE,), ()):
                assert observer(api_urls=urls).confirm(present=frozenset({NEW}), absent=frozenset({OLD})) is None


def test_no_balancer_confirms_everything() -> None:
    assert NoObserver().confirm(present=frozenset({NEW}), absent=frozenset({OLD})) is True
