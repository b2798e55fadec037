"""The metrics of sidekicks and agents: the format, the endpoint, the file; read by Prometheus' own library."""

import http.client
import socket
import stat
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outrider.balancers.agent import gauges as agent_gauges
from outrider.core.errors import ConfigError
from outrider.metrics import CONTENT_TYPE, Sample, exposed, listen_problem, text_of
from outrider.model.balancer_agents import Applied
from outrider.model.documents import Presence
from outrider.sidekick import gauges as sidekick_gauges
from tests.support.waiting import eventually

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HELPS = {"outrider_example": "What it is.", "outrider_steps_total": "Steps."}
ODD = 'a "b"\\c\nd'


def read(text: str) -> dict[tuple[str, ...], float]:
    """Name and values of the labels -> value, of what Prometheus' parser reads."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def example() -> list[Sample]:
    return [
        Sample(name="outrider_example", value=1.5, labels={"app": ODD, "group": "ß"}),
        Sample(name="outrider_steps_total", value=3.0, labels={}),
    ]


def test_what_is_written_is_read_by_prometheus_whatever_the_names_are() -> None:
    text = text_of(example(), HELPS)

    assert {("outrider_example", ODD, "ß"): 1.5, ("outrider_steps_total",): 3.0} == read(text)
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {"outrider_example": "gauge", "outrider_steps": "counter"} == kinds


def test_a_metric_without_a_meaning_is_a_bug() -> None:
    with pytest.raises(KeyError):
        text_of([Sample(name="outrider_other", value=1.0, labels={})], HELPS)


def presence(**fields: object) -> Presence:
    base = {"instance": "a", "app": "web", "group": "g", "state": "idle.waiting", "version": "1.0.0", "since": NOON}
    return Presence(**{**base, **fields})  # type: ignore[arg-type]


def gauges(**fields: object) -> sidekick_gauges.Gauges:
    base = {
        "app": "web", "group": "g", "instance": "a", "machine": "m", "presence": presence(), "has_turn": False,
        "is_blocked": False, "failures": 0, "check_in_s": 4.0, "watch_s": 5.0, "is_connected": True, "reports": 2,
        "steps": 17, "is_writable": True,
    }  # fmt: skip
    return sidekick_gauges.Gauges(**{**base, **fields})  # type: ignore[arg-type]


def of_sidekick(found: sidekick_gauges.Gauges) -> dict[str, float]:
    text = text_of(sidekick_gauges.samples(found, NOON + timedelta(seconds=90)), sidekick_gauges.HELPS)
    return {
        sample.name.removeprefix("outrider_sidekick_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_of_a_sidekick_is_told_with_its_value() -> None:
    found = of_sidekick(gauges())

    assert {f"outrider_sidekick_{name}" for name in found} == set(sidekick_gauges.HELPS)
    assert (90.0, 1.0, 0.0, 4.0, 5.0, 2.0, 17.0, 1.0) == tuple(
        found[name]
        for name in (
            "state_seconds", "serving", "turn_held", "check_in_seconds", "watch_seconds", "outbox_reports",
            "journal_steps_total", "journal_writable",
        )
    )  # fmt: skip


def test_each_trouble_of_a_sidekick_is_a_number() -> None:
    bad = gauges(
        presence=presence(serving=False, why="waits", cannot_take="2.0.0"),
        has_turn=True,
        is_blocked=True,
        failures=3,
        is_connected=False,
        is_writable=False,
        check_in_s=None,
        watch_s=None,
    )

    found = of_sidekick(bad)

    assert {
        "serving": 0.0, "waiting": 1.0, "setback": 1.0, "turn_held": 1.0, "blocked": 1.0, "failures": 3.0,
        "etcd_connected": 0.0, "journal_writable": 0.0,
    }.items() <= found.items()  # fmt: skip
    assert {"check_in_seconds", "watch_seconds"}.isdisjoint(found), "never: absent, and no number that means it"


def test_a_sidekick_before_its_first_step_tells_what_it_knows() -> None:
    assert 1.0 == of_sidekick(gauges(presence=None))["info"]


def test_an_agent_tells_what_its_balancer_does() -> None:
    told = Applied(
        service="lb",
        name="x",
        process="p",
        revision=7,
        serving=("u1", "u2"),
        draining={"u3": 4},
        version="2.6",
        at=NOON,
    )
    base = {"service": "lb", "name": "x", "balancer": "haproxy", "machine": "m", "is_held": True, "is_connected": True}

    def of(told: Applied | None) -> dict[str, float]:
        samples = agent_gauges.samples(agent_gauges.AgentGauges(**base, told=told, looked_s=1.0))  # type: ignore[arg-type]
        return {
            name.removeprefix("outrider_agent_"): value
            for (name, *_), value in read(text_of(samples, agent_gauges.HELPS)).items()
        }

    found = of(told)
    assert {f"outrider_agent_{name}" for name in found} == set(agent_gauges.HELPS)
    assert (2.0, 1.0, 4.0, 7.0, 1.0) == tuple(
        found[name] for name in ("serving", "draining", "open_requests", "applied_revision", "balancer_up")
    )
    uncounted = Applied(service="lb", name="x", process="p", revision=7, draining={"u3": None}, problem="no", at=NOON)
    assert 0.0 == of(uncounted)["balancer_up"]
    assert "open_requests" not in of(uncounted)
    assert "balancer_up" not in of(None)


def test_the_endpoint_answers_on_tcp() -> None:
    with exposed(example, HELPS, listen="127.0.0.1:0") as address:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            assert CONTENT_TYPE == answer.headers["Content-Type"]
            assert 1.5 == read(answer.read().decode())["outrider_example", ODD, "ß"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address}/", timeout=60)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=60)


def ask(path: Path) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_the_endpoint_answers_on_a_unix_socket_and_replaces_one_that_a_kill_has_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with exposed(example, HELPS, listen=f"unix:{path}"):
        assert 3.0 == read(ask(path))[("outrider_steps_total",)]
        assert 0o660 == stat.S_IMODE(path.stat().st_mode)
        with pytest.raises(ConfigError, match=r"metrics\.listen"), exposed(example, HELPS, listen=f"unix:{path}"):
            pytest.fail("somebody listens there")
    assert not path.exists()


def test_the_file_is_whole_at_each_moment_written_again_and_gone_at_the_end(tmp_path: Path) -> None:
    path, count = tmp_path / "outrider.prom", iter(range(10**9))

    def counted() -> list[Sample]:
        return [Sample(name="outrider_steps_total", value=float(next(count)), labels={})]

    with exposed(counted, HELPS, textfile=path, every_s=0.01):
        eventually(lambda: path.exists() and read(path.read_text())[("outrider_steps_total",)] > 2)
        assert 0o644 == stat.S_IMODE(path.stat().st_mode)
    assert not path.exists()


@pytest.mark.parametrize("listen", ["127.0.0.1:9641", "127.8.9.1:1", "[::1]:9641", "localhost:0", "unix:/run/x"])
def test_an_address_of_this_machine_alone_is_taken(listen: str) -> None:
    assert "" == listen_problem(listen)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9641", ":9641", "[::]:1", "10.0.0.1:9641", "example.org:1", "9641", "127.0.0.1:x", "unix:x"]
)
def test_any_other_is_refused(listen: str) -> None:
    assert listen_problem(listen)
    with pytest.raises(ConfigError, match=r"metrics\.listen"), exposed(example, HELPS, listen=listen):
        pytest.fail("nobody may listen there")
