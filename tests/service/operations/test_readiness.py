"""``/readyz`` and the warnings of ``outrider status``: a process that would refuse what it is for is not ready."""

import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi import FastAPI

from outrider.cli import main
from outrider.cli.commands import status
from outrider.core.errors import ConfigError, Refused
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.windows import zone_of
from outrider.etcd.errors import checked
from outrider.etcd.seam import ReadOnly
from outrider.model.documents import Group, encode
from outrider.service.operations import readiness
from outrider.service.operations.readiness import Readiness, unready
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.in_process import Answer, application_over, ask
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, make_app, put

P = "/outrider/v1"


@pytest.fixture
def application(client: FakeCluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    make_app(store)
    be_alive(store, "web-1", NOON)
    return application_over(client, tmp_path)


def readyz(application: FastAPI) -> Answer:
    return ask(application, "GET", "/readyz")


def shown(client: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``outrider status`` says on stderr."""
    monkeypatch.setattr(status, "open_cluster", lambda etcd: client.store.client("operator"))
    result = CliRunner().invoke(main, ["status", APP])
    assert 0 == result.exit_code, result.output
    assert "web-1" in result.stdout
    return result.stderr


@pytest.fixture
def no_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A slim machine: neither the system's database nor the package."""
    before = zoneinfo.TZPATH
    monkeypatch.setitem(sys.modules, "tzdata", None)
    monkeypatch.setitem(sys.modules, "tzdata.zoneinfo", None)
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()
    yield
    zoneinfo.reset_tzpath(before)
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()


def test_a_service_that_can_do_its_work_is_ready(
    application: FastAPI, client: FakeCluster, fake_etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = fake_etcd.revision

    assert (200, b"ready\n") == (readyz(application).status, readyz(application).body)
    assert "" == shown(client, monkeypatch)
    assert revision == fake_etcd.revision, "asking writes nothing"


def test_an_etcd_that_takes_no_writes_is_told_until_it_does(
    application: FastAPI, client: FakeCluster, fake_etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_etcd.full = True

    answer = readyz(application)
    refused = ask(application, "POST", "/api/v1/apps", b'{"id": "new"}', content_type="application/json")

    assert 503 == answer.status
    assert b"etcd takes no writes: mvcc: database space exceeded; make room" in answer.body
    assert 1 == len(answer.body.splitlines())
    assert "retry-after" in answer.headers
    assert 503 == refused.status
    assert "warning: etcd takes no writes: mvcc: database space exceeded" in shown(client, monkeypatch)
    assert "what is shown may be old" in shown(client, monkeypatch)

    fake_etcd.full = False

    assert 200 == readyz(application).status


@pytest.mark.parametrize(
    "text", ["etcdserver: mvcc: database space exceeded", "etcdserver: corrupt cluster", "etcdserver: no space"]
)
def test_what_etcd_says_is_told_apart_from_other_refusals(text: str) -> None:
    import grpc

    class Said(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.RESOURCE_EXHAUSTED

        def details(self) -> str:
            return text

    def refuse() -> None:
        raise Said

    with pytest.raises(Refused) as caught:
        checked(refuse)

    assert isinstance(caught.value, ReadOnly) is ("no space" not in text)


def test_without_time_zone_data_nothing_is_ready(
    application: FastAPI, client: FakeCluster, no_zones: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (503, True) == (readyz(application).status, b"no time zone data; install" in readyz(application).body)
    assert "no time zone data; install the Python package tzdata" in shown(client, monkeypatch)
    # one that nobody else asks for: a service of another test may be ending, and had read its zones before
    with pytest.raises(ConfigError, match="this machine has no time zone data"):
        zone_of("Antarctica/Troll")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Argentina/Ushuaia", "Asia/Kolkata", "Pacific/Chatham"])
def test_zones_work_without_the_systems_database(zone: str) -> None:
    """As with PYTHONTZPATH= on a slim machine: the package tzdata is a dependency."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()
    try:
        assert zone == str(zone_of(zone))
    finally:
        zoneinfo.reset_tzpath(before)


def with_zone(store: Store, zone: str) -> None:
    key = store.context.keys.group(APP, "odd")
    odd = Group(app=APP, id="odd", label="", channel="beta", policy=Policy(time_zone=zone), created=NOON)
    put(store.context.cluster, key, encode(odd))


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "Mars/Olympus", ""])
def test_a_stored_zone_that_is_unknown_here_is_named(
    application: FastAPI, store: Store, client: FakeCluster, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_zone(store, zone)

    assert 503 == readyz(application).status
    assert f"{APP} odd ({zone})" in readyz(application).body.decode()
    assert f"{APP} odd ({zone})" in shown(client, monkeypatch)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("users/ann", "users that can't be read: ann"),
        (f"apps/{APP}/groups/odd", f"groups whose policy can't be read: {APP} odd"),
    ],
)
@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"schema": 2}'])
def test_users_and_policies_that_can_not_be_read_are_named(
    application: FastAPI, client: FakeCluster, key: str, words: str, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, f"{P}/{key}", value)

    assert (503, True) == (readyz(application).status, words.encode() in readyz(application).body)
    assert words in shown(client, monkeypatch)


@pytest.mark.parametrize(
    "key", [f"apps/{APP}/packages/9.9.9", f"instances/{APP}/x", "webhooks/x", f"blocks/{APP}/9.9.9"]
)
def test_other_damage_makes_nothing_unready(application: FastAPI, client: FakeCluster, key: str) -> None:
    put(client, f"{P}/{key}", b"garbage")

    assert 200 == readyz(application).status


def test_the_slower_checks_are_made_now_and_then(store: Store, fake_etcd: FakeEtcd) -> None:
    now = [0.0]
    ours = Readiness(store.context, clock=lambda: now[0])
    assert () == ours.problems()

    fake_etcd.full = True
    now[0] = 4.9
    assert () == ours.problems()
    now[0] = 5.0
    assert "etcd takes no writes" in ours.problems()[0]


def test_an_operator_who_may_only_look_at_etcd_gets_no_false_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Refused("etcd refused the request: permission denied")

    monkeypatch.setattr(type(store.context.cluster), "txn", refuse)
    monkeypatch.setattr(type(store.context.cluster), "list", refuse)

    assert () == unready(store.context)
