"""New versus old over an etcd in memory: whose counts are on which side, and that no interval counts twice."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from outrider.analysis.comparison import Comparison, Subject, sides_of
from outrider.core.analysis.answers import NoData
from outrider.core.analysis.sequential import Counts, Plan
from outrider.etcd.seam import Put
from outrider.model.analysis import PooledAnalysis
from outrider.model.documents import Presence, decode, encode
from outrider.model.keys import Keys
from tests.sim.fake_etcd import FakeEtcd

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEYS, PLAN = Keys(), Plan()
KEY = KEYS.analysis("app", "g")


class World:
    """Instances, what they serve, and what is counted of them."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd(threaded=False)
        self.cluster = self.etcd.client()
        self.counts: dict[str, Counts] = {}
        self.away = False

    def serve(self, instance: str, release: str, *, port: int = 1) -> str:
        url = f"http://{instance}:{port}" if release else ""
        presence = Presence(
            instance=instance, app="app", group="g", state="x", version="1.0.0", since=NOON, serves_release=release,
            serves_url=url,
        )  # fmt: skip
        put = Put(key=KEYS.presence("app", "g", instance), value=encode(presence))
        self.cluster.txn((), (put,))
        return url

    def count(self, url: str, requests: int, errors: int = 0) -> None:
        self.counts[url] = self.counts.get(url, Counts()) + Counts(requests=requests, errors=errors)

    def source(self, servers: Mapping[str, str]) -> Mapping[str, Counts]:
        if self.away:
            raise NoData("connection refused")
        return {url: self.counts.get(url, Counts()) for url in servers}

    def comparison(self, instance: str, url: str, release: str = "2.0.0", wave: str = "") -> Comparison:
        subject = Subject(app="app", group="g", instance=instance, url=url, release=release, wave=wave)
        return Comparison(self.cluster, KEYS, subject, self.source, PLAN, at_most=None, clock=lambda: NOON)

    @property
    def pool(self) -> PooledAnalysis:
        entry = self.cluster.get(KEY)
        assert entry is not None
        return decode(PooledAnalysis, entry.key, entry.value)


@pytest.fixture
def world() -> World:
    return World()


def test_sides_are_told_by_what_each_sidekick_says_that_it_serves() -> None:
    subject = Subject(app="app", group="g", instance="a", url="http://a:2", release="2.0.0")
    facts = {"app": "app", "group": "g", "state": "x", "version": "1.0.0", "since": NOON}
    several = [
        Presence(instance="a", serves_release="1.0.0", serves_url="http://a:1", **facts),  # type: ignore[arg-type]
        Presence(instance="b", serves_release="2.0.0", serves_url="http://b:1", **facts),  # type: ignore[arg-type]
        Presence(instance="c", serves_release="1.0.0", serves_url="http://c:1", **facts),  # type: ignore[arg-type]
        Presence(instance="d", **facts),  # type: ignore[arg-type]
    ]

    servers = sides_of(subject, several)

    assert {"http://a:2", "http://b:1"} == servers.sides.candidate
    assert {"http://c:1"} == servers.sides.old


def test_a_candidate_that_answers_errors_fails_and_one_that_does_not_passes(world: World) -> None:
    new, old = world.serve("a", ""), world.serve("b", "1.0.0")
    new = "http://a:2"
    comparison = world.comparison("a", new)
    assert "no data" == comparison.look().result
    world.count(new, 40, 1)
    world.count(old, 400, 4)
    assert "40 of about" in (found := comparison.look()).words
    assert "no data" == found.result

    world.count(new, 100, 30)
    world.count(old, 1000, 10)
    found = comparison.look()

    assert ("fail", 140, 31) == (found.result, world.pool.candidate_requests, world.pool.candidate_errors)
    assert "31 errors; old version: 14 errors in 1400 requests" in world.pool.failed
    good = world.comparison("a", "http://a:3", release="3.0.0")
    good.look()
    world.count("http://a:3", 300)
    world.count(old, 3000, 30)
    assert "pass" == good.look().result


def test_two_sidekicks_count_no_interval_twice(world: World) -> None:
    """
    1. both have begun to count, and both servers answer
    2. the first adds what it saw of all; the second, whose interval overlaps, adds nothing and begins anew
    3. what comes after that is added once, by whoever comes first
    """
    old, one, two = world.serve("c", "1.0.0"), "http://a:2", "http://b:2"
    world.serve("a", "2.0.0", port=2)
    world.serve("b", "2.0.0", port=2)
    first, second = world.comparison("a", one), world.comparison("b", two)
    first.look()
    second.look()
    for url in (one, two, old):
        world.count(url, 50)

    first.look()
    second.look()

    assert (100, 50) == (world.pool.candidate_requests, world.pool.old_requests)
    for url in (one, two, old):
        world.count(url, 10)
    second.look()  # began anew at its last look, so that this interval is its own
    first.look()
    assert (120, 60) == (world.pool.candidate_requests, world.pool.old_requests)
    assert "b" == world.pool.instance


def test_counts_of_instances_that_came_before_are_pooled(world: World) -> None:
    old = world.serve("c", "1.0.0")
    first = world.comparison("a", "http://a:2")
    first.look()
    world.count("http://a:2", 100)
    world.count(old, 300, 3)
    first.look()
    world.serve("a", "2.0.0", port=2)

    second = world.comparison("b", "http://b:2")

    assert "100 of about" in second.look().words


def test_with_nobody_left_on_the_old_version_the_result_so_far_stands(world: World) -> None:
    comparison = world.comparison("a", "http://a:2")
    comparison.look()
    world.count("http://a:2", 5_000)

    found = comparison.look()

    assert "no data" == found.result
    assert "0 of about 410 requests" in found.words
    assert "no instance is left on the old version" in found.words


def test_a_failure_that_an_operator_has_lifted_is_tested_anew(world: World) -> None:
    old = world.serve("c", "1.0.0")
    bad = world.comparison("a", "http://a:2")
    bad.look()
    world.count("http://a:2", 100, 50)
    world.count(old, 1000, 10)
    assert "fail" == bad.look().result

    again = world.comparison("a", "http://a:3")

    assert ["no data", "no data"] == [again.look().result for _ in range(2)]
    world.count("http://a:3", 100)
    world.count(old, 1000, 10)
    assert "no data" == again.look().result
    assert (2, "") == (world.pool.number, world.pool.failed)


def test_whoever_analyses_while_another_finds_a_failure_fails_too(world: World) -> None:
    old = world.serve("c", "1.0.0")
    first, second = world.comparison("a", "http://a:2"), world.comparison("b", "http://b:2")
    first.look()
    second.look()
    world.count("http://a:2", 100, 50)
    world.count(old, 1000, 10)

    assert "fail" == first.look().result
    assert "fail" == second.look().result


def test_what_can_not_be_counted_is_no_data(world: World) -> None:
    comparison = world.comparison("a", "http://a:2")
    world.away = True
    assert "no data: connection refused" == comparison.look().words
    world.away = False
    world.cluster.cut_off()

    found = comparison.look()

    assert "no data" == found.result
