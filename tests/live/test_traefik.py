"""The real Traefik and the real etcd under load: what is never lost, and proof that a loss would be seen."""

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from outrider.balancers.drain import Drain, Drained, DrainVerdict, Unmoved
from outrider.balancers.entry import EtcdEntry, ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikObserver, TraefikSettings
from outrider.config.sections import DrainSettings
from outrider.demo.example import build_package
from outrider.demo.load import LoadFigures, LoadGenerator
from outrider.demo.programs import Program, TraefikProgram, free_ports, start_etcd, start_traefik
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster, CreatedAt, EtcdAddress, Put
from outrider.http import ask
from outrider.payloads.archive import unpack
from tests.support.waiting import eventually

RATE_PER_S = 125.0
_numbers = itertools.count(1)


class App:
    """One running copy of the example app."""

    def __init__(self, folder: Path, version: str) -> None:
        here = folder / f"app-{next(_numbers)}"
        unpack(build_package(folder / "packages", version), here)
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.program = Program(
            "app",
            [sys.executable, "-I", "-S", "server.py"],
            here,
            ready=lambda: (answer := ask(f"{self.url}/health", timeout_s=1)) is not None and answer.status == 200,
            env={"PORT": str(port)},
        )


class Farm:
    """An etcd, a Traefik that throttles by 100 ms and one that throttles by Traefik's default of 2 s."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.etcd = start_etcd(folder)
        stack.callback(self.etcd.stop)
        self.etcd.wait_ready()
        self.cluster: Cluster = connect(EtcdAddress(endpoints=(self.etcd.endpoint,)))
        stack.callback(self.cluster.close)
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule="Host(`first.test`)"), service="first"))
        self.quick = start_traefik(folder, self.etcd.endpoint, name="quick", throttle="100ms")
        stack.callback(self.quick.stop)
        self.slow = start_traefik(folder, self.etcd.endpoint, name="slow", throttle="2s")
        stack.callback(self.slow.stop)
        self.quick.wait_ready()
        self.slow.wait_ready()

    def app(self, version: str) -> App:
        app = App(self.folder, version)
        self._stack.callback(app.program.stop)
        app.program.wait_ready()
        return app

    def service(self, traefik: TraefikProgram, *, api: bool = True, throttle_s: float = 0.1) -> "Service":
        return Service(self, traefik, f"hello-{next(_numbers)}", api, throttle_s)


class Service:
    """A service of its own in the farm's Traefiks, with the turn of a sidekick that swaps it."""

    def __init__(self, farm: Farm, traefik: TraefikProgram, name: str, api: bool, throttle_s: float) -> None:
        self.name, self.web_url = name, traefik.web_url
        self._cluster = farm.cluster
        settings = TraefikSettings(
            rule=f"Host(`{name}.test`)", api_urls=(traefik.api_url,) if api else (), throttle_s=throttle_s
        )
        self.observer = TraefikObserver(settings, service=name)
        self._traefik = traefik
        self.entry = EtcdEntry(self._cluster, TraefikKeys(settings, service=name), service=name, server_id="web-1")
        self.entry.ensure_static()
        slot = f"/outrider/v1/turns/{name}/g/slots/0/web-1"
        self._cluster.txn((), (Put(key=slot, value=b"mine"),))
        entry = self._cluster.get(slot)
        assert entry is not None
        self.fence = (CreatedAt(key=slot, revision=entry.create_revision),)

    def begin(self, app: App) -> None:
        """Put the first server in, and wait until it is served."""
        self.entry.join(app.url)
        eventually(lambda: self.get().status_code == 200)

    def get(self, path: str = "/") -> requests.Response:
        return requests.get(self.web_url + path, headers={"Host": f"{self.name}.test"}, timeout=60)

    def drain(self, old: App, new: App, settings: DrainSettings | None = None) -> DrainVerdict:
        return Drain(self.observer, settings or DrainSettings()).wait(
            frozenset({new.url}),
            frozenset({old.url}),
            inflight_url=f"{old.url}/inflight" if (settings or DrainSettings()).inflight_path else None,
            stop=threading.Event(),
        )

    @contextmanager
    def load(self) -> Iterator[LoadGenerator]:
        """A load on this service: some requests before what happens in the block, some after."""
        load = LoadGenerator(self.web_url, f"{self.name}.test", RATE_PER_S, timeout_s=5.0).start()
        try:
            more(load)
            yield load
            more(load)
        finally:
            self.figures = load.stop()

    figures: LoadFigures = LoadFigures()


def more(load: LoadGenerator, requests: int = 60) -> None:
    """Wait until the load has done this many more."""
    seen = load.snapshot().requests
    eventually(lambda: load.snapshot().requests >= seen + requests, every_s=0.05)


@contextmanager
def busy_tree(cluster: Cluster) -> Iterator[None]:
    """Somebody rewrites a key of another service all the time: each time it arms the throttle of every Traefik."""
    key = "traefik/http/services/busy/loadbalancer/servers/0/url"
    stop = threading.Event()

    def rewrite() -> None:
        for number in itertools.count():
            cluster.txn((), (Put(key=key, value=f"http://127.0.0.1:{10000 + number % 1000}".encode()),))
            if stop.wait(0.3):
                return

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with ExitStack() as stack:
        yield Farm(tmp_path_factory.mktemp("farm"), stack)


ASKING = DrainSettings(inflight_path="/inflight")


def test_swaps_under_load_lose_nothing_when_traefik_is_asked(farm: Farm) -> None:
    service, old = farm.service(farm.quick), farm.app("1.0.0")
    service.begin(old)
    with service.load() as load:
        for version in ("2.0.0", "3.0.0", "4.0.0"):
            new = farm.app(version)
            service.entry.switch(new.url, fence=service.fence)
            verdict = service.drain(old, new, ASKING)
            old.program.stop()
            assert isinstance(verdict, Drained)
            assert "confirmed" in verdict.how
            more(load)
            old = new

    assert (0, {}) == (service.figures.failed, service.figures.failures)
    assert {"1.0.0", "2.0.0", "3.0.0", "4.0.0"} == set(service.figures.versions)
    assert service.figures.requests >= 300


def test_a_swap_under_load_loses_nothing_by_time_alone(farm: Farm) -> None:
    """No API, no count of open requests: the defaults wait for the throttle and five seconds more."""
    service, old, new = farm.service(farm.quick, api=False), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    with service.load():
        service.entry.switch(new.url, fence=service.fence)
        verdict = service.drain(old, new)
        old.program.stop()

    assert isinstance(verdict, Drained)
    assert "not confirmed" in verdict.how
    assert (0, {}) == (service.figures.failed, service.figures.failures)
    assert {"1.0.0", "2.0.0"} == set(service.figures.versions)


def test_a_swap_under_load_on_a_busy_tree_loses_nothing(farm: Farm) -> None:
    """At Traefik's default throttle, which others arm again and again: the confirmation comes up to 2 s late."""
    service, old, new = farm.service(farm.slow, throttle_s=2.0), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    with busy_tree(farm.cluster), service.load():
        service.entry.switch(new.url, fence=service.fence)
        verdict = service.drain(old, new, ASKING)
        old.program.stop()

    assert isinstance(verdict, Drained)
    assert "confirmed" in verdict.how
    assert (0, {}) == (service.figures.failed, service.figures.failures)
    assert {"1.0.0", "2.0.0"} == set(service.figures.versions)


def test_negative_control_stopping_before_the_switch_is_seen_as_failures(farm: Farm) -> None:
    """If this load could not see the loss of a wrong order, its zeros would prove nothing."""
    service, old, new = farm.service(farm.quick), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    with service.load():
        old.program.stop()
        service.entry.switch(new.url, fence=service.fence)
        eventually(lambda: service.get().status_code == 200)

    assert service.figures.failed > 0
    assert service.figures.failures["status 502"] > 0


def test_negative_control_not_draining_is_seen_as_failures(farm: Farm) -> None:
    """The right order, but no wait: at Traefik's default throttle on a busy tree the old one is still being sent to."""
    service, old, new = farm.service(farm.slow, throttle_s=2.0), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    with busy_tree(farm.cluster), service.load():
        service.entry.switch(new.url, fence=service.fence)
        old.program.stop()
        eventually(lambda: service.get().status_code == 200)

    assert service.figures.failed > 0


def test_confirmation_comes_only_after_the_switch_took_effect(farm: Farm) -> None:
    """
    1. the throttle of the slow Traefik is armed by a change of another service
    2. right after the switch, Traefik says no, and does send to the old one
    3. as soon as it says yes, no request that begins reaches the old one
    """
    service, old, new = farm.service(farm.slow, throttle_s=2.0), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    present, absent = frozenset({new.url}), frozenset({old.url})
    with busy_tree(farm.cluster):
        service.entry.switch(new.url, fence=service.fence)
        told = [service.observer.confirm(present=present, absent=absent)]
        served_meanwhile = service.get().headers["X-Version"]
        began = time.monotonic()
        while told[-1] is not True:
            assert time.monotonic() < began + 10, told
            told.append(service.observer.confirm(present=present, absent=absent))
        served_after = {service.get().headers["X-Version"] for _ in range(50)}

    assert told[0] is False
    assert "1.0.0" == served_meanwhile
    assert {"2.0.0"} == served_after
    assert {False, True} == set(told)


def test_every_traefik_must_have_followed(farm: Farm) -> None:
    service, old, new = farm.service(farm.slow, throttle_s=2.0), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    settings = TraefikSettings(api_urls=(farm.quick.api_url, farm.slow.api_url))
    both = TraefikObserver(settings, service=service.name)
    with busy_tree(farm.cluster):
        service.entry.switch(new.url, fence=service.fence)
        verdict = Drain(both, DrainSettings(wait_s=0)).wait(
            frozenset({new.url}), frozenset({old.url}), inflight_url=None, stop=threading.Event()
        )

        assert isinstance(verdict, Drained)
        assert "2.0.0" == service.get().headers["X-Version"]


def test_a_value_that_traefik_chokes_on_makes_the_swap_unmoved(farm: Farm) -> None:
    """One bad value of somebody else's freezes all updates: the old one must not stop, and is told to stay."""
    service, old, new = farm.service(farm.quick), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    bad = "traefik/http/services/busy/loadbalancer/servers/bad/weight"
    farm.cluster.txn((), (Put(key=bad, value=b"much"),))
    try:
        service.entry.switch(new.url, fence=service.fence)
        verdict = service.drain(old, new, DrainSettings(confirm_timeout_s=1.0))

        assert isinstance(verdict, Unmoved)
        assert "1.0.0" == service.get().headers["X-Version"]
        service.entry.restore(old.url, fence=service.fence)
    finally:
        farm.cluster.txn((), (Put(key=bad, value=b"1"),))
    assert old.url == service.entry.current()
    eventually(lambda: service.observer.confirm(present=frozenset({old.url}), absent=frozenset({new.url})))


def test_a_request_under_way_is_waited_for(farm: Farm) -> None:
    service, old, new = farm.service(farm.quick), farm.app("1.0.0"), farm.app("2.0.0")
    service.begin(old)
    answers: list[requests.Response] = []
    slow = threading.Thread(target=lambda: answers.append(service.get("/slow/1.5")))
    slow.start()
    eventually(lambda: requests.get(f"{old.url}/inflight", timeout=60).text.strip() == "1")

    service.entry.switch(new.url, fence=service.fence)
    verdict = service.drain(old, new, ASKING)
    old.program.kill()  # the worst app: it cuts what is open
    slow.join()

    assert isinstance(verdict, Drained)
    assert [(200, "1.0.0")] == [(each.status_code, each.headers["X-Version"]) for each in answers]


def test_the_last_server_leaves_a_service_that_says_unavailable_not_unknown(farm: Farm) -> None:
    service, app = farm.service(farm.quick), farm.app("1.0.0")
    service.begin(app)

    service.entry.leave(fence=service.fence)

    eventually(lambda: service.observer.confirm(present=frozenset(), absent=frozenset({app.url})))
    assert 503 == service.get().status_code


def test_a_service_that_traefik_never_heard_of_sends_to_nobody(farm: Farm) -> None:
    unknown = TraefikObserver(TraefikSettings(api_urls=(farm.quick.api_url,)), service="never")

    assert unknown.confirm(present=frozenset(), absent=frozenset({"http://127.0.0.1:1"})) is True
    assert unknown.confirm(present=frozenset({"http://127.0.0.1:1"}), absent=frozenset()) is False


def test_an_entry_point_in_place_of_the_api_confirms_nothing(farm: Farm) -> None:
    mistaken = TraefikObserver(TraefikSettings(api_urls=(farm.quick.web_url,)), service="never")

    assert mistaken.confirm(present=frozenset(), absent=frozenset({"http://127.0.0.1:1"})) is None


def test_traffic_goes_on_and_confirmation_answers_while_etcd_is_dead(tmp_path: Path) -> None:
    with ExitStack() as stack:
        farm = Farm(tmp_path, stack)
        service, app = farm.service(farm.quick), farm.app("1.0.0")
        service.begin(app)
        with service.load() as load:
            farm.etcd.kill()
            more(load, 250)
            confirmed = service.observer.confirm(present=frozenset({app.url}), absent=frozenset())

    assert confirmed is True
    assert (0, {}) == (service.figures.failed, service.figures.failures)
    assert service.figures.requests >= 300
