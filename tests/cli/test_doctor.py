"""``outrider doctor``: each finding from the facts, and a whole run against a real etcd."""

import json
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.cli.commands import doctor
from outrider.etcd.health import NodeHealth
from outrider.etcd.seam import Cluster, Endpoint, EtcdAddress, Put
from outrider.model.balancer_agents import Agent
from outrider.model.documents import Crash, Presence, encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from tests.support.servers import EtcdServer
from tests.support.service import NOON

LOCAL = EtcdAddress(endpoints=(Endpoint(host="127.0.0.1", port=2379),))
AWAY = EtcdAddress(endpoints=(Endpoint(host="10.0.0.1", port=2379),))
NODE = NodeHealth(name="n", version=(3, 5, 16), size_bytes=1000)
PRESENCE = Presence(instance="a", app="shop", group="g", state="idle.waiting", version="1", since=NOON)


def severities(found: object) -> list[str]:
    return [one.severity for one in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "asks", "expected"),
    [
        (LOCAL, True, []),
        (LOCAL, False, ["warning"]),
        (AWAY, True, ["error"]),
        (AWAY, False, ["error", "error"]),
        (replace(AWAY, tls=True), True, []),
    ],
)
def test_etcd_beyond_this_machine_wants_tls_and_users(address: EtcdAddress, asks: bool, expected: list[str]) -> None:
    assert expected == severities(doctor.of_way(address, asks))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (replace(NODE, version=(3, 5, 1)), "is 3.5.1: this etcd version can lose"),
        (replace(NODE, version=(3, 4, 20)), "is 3.4.20: this etcd version can lose"),
        (replace(NODE, alarms=("NOSPACE",)), "has the alarm NOSPACE"),
        (replace(NODE, size_bytes=2**31), "its database has 2048 MiB"),
        (replace(NODE, problem="no answer"), "etcd n: no answer"),
    ],
)
def test_what_is_wrong_with_a_node_is_named(node: NodeHealth, words: str) -> None:
    (found,) = doctor.of_nodes([node])
    assert words in found.line


def test_a_sound_node_and_a_pair() -> None:
    assert ([], ["warning"]) == (severities(doctor.of_nodes([NODE])), severities(doctor.of_nodes([NODE, NODE])))


def test_no_users_and_lost_users_differ() -> None:
    assert ([], ["warning"], ["error"]) == tuple(
        severities(doctor.of_users(*each)) for each in ((1, True), (0, False), (0, True))
    )


@pytest.mark.parametrize(("off_s", "expected"), [(0, []), (-100, []), (-400, ["error"]), (60, ["error"])])
def test_the_services_clock_is_read_off_the_epoch(off_s: int, expected: list[str]) -> None:
    epoch = Epoch(token="t", at=NOON + timedelta(seconds=off_s))
    assert expected == severities(doctor.of_clocks(epoch, [], NOON))


def test_a_machine_that_cannot_begin_is_an_error_and_a_crash_is_not() -> None:
    died = Crash(app="shop", group="g", instance="a", state="idle.waiting", what="x", count=1, first=NOON, at=NOON)
    unbegun = msgspec.structs.replace(died, state="", what="Docker does not answer", cannot_begin=True)

    (found,) = doctor.of_beginnings([died, unbegun])

    assert "error: shop/a: machine cannot begin: Docker does not answer" in found.line


def test_a_machine_whose_clock_is_ahead_is_named() -> None:
    ahead = msgspec.structs.replace(PRESENCE, since=NOON + timedelta(seconds=90))
    (found,) = doctor.of_clocks(Epoch(token="t", at=NOON), [ahead, PRESENCE], NOON)
    assert "shop/a: the clock of its machine is 90 s ahead" in found.text


@pytest.mark.parametrize(
    "notice", ["payloads are not verified: http://x is plain http", "etcd permits user a no write"]
)
def test_what_a_sidekick_says_of_itself_is_repeated(notice: str) -> None:
    notice += ": permission denied"
    (found,) = doctor.of_sidekicks([PRESENCE, msgspec.structs.replace(PRESENCE, notice=notice)])
    assert ("error", True) == (found.severity, notice in found.text)


def test_versions_with_known_bugs_are_named_once_with_who_runs_them() -> None:
    def of(*programs: str) -> list[doctor.Finding]:
        each = [
            msgspec.structs.replace(PRESENCE, instance=f"web-{number}", outrider=program)
            for number, program in enumerate(programs)
        ]
        return list(doctor.of_programs(each, "0.3.0"))

    assert [] == of("0.3.0", "0.3.0", "0.4.0")
    (unknown,) = of("", "")
    assert ("error", True) == (unknown.severity, "web-0" in unknown.text and "web-1" in unknown.text)
    assert ["error"] == [one.severity for one in of("0.0.9")]
    (older,) = of("0.2.0", "0.3.0")
    assert ("info", True) == (older.severity, "0.2.0 is older than this command (0.3.0)" in older.text)
    assert ["error"] == [one.severity for one in of("latest")]
    assert " and others" in of(*[""] * 9)[0].text


def test_an_agent_without_a_living_word_is_named_with_what_to_type() -> None:
    agents = [Agent(service="web", name=name, balancer="haproxy", since=NOON) for name in ("one", "two")]
    (found,) = doctor.of_agents(agents, frozenset({("web", "one")}))
    assert found.line.endswith("`outrider balancer-agent remove web two`")


def test_an_unsigned_release_matters_where_others_are_signed() -> None:
    assert (["info"], ["warning"]) == tuple(severities(doctor.of_signatures(["shop 1"], each)) for each in (0, 3))


def test_a_whole_run_prints_what_it_found(etcd_server: EtcdServer, cluster: Cluster, prefix: str) -> None:
    keys = Keys(prefix.rstrip("/"))
    cluster.txn(
        (),
        (
            Put(
                key=keys.agent("web", "lost"), value=encode(Agent(service="web", name="lost", balancer="x", since=NOON))
            ),
        ),
    )
    endpoint = f"{etcd_server.endpoint.host}:{etcd_server.endpoint.port}"

    done = CliRunner().invoke(main, ["doctor", "--etcd", endpoint, "--prefix", keys.prefix, "--json"])

    texts = [one["text"] for one in json.loads(done.stdout)]
    assert 0 == done.exit_code, done.output
    assert any("asks for no users" in text for text in texts)
    assert any("balancer agent lost of web is away" in text for text in texts)
    assert any("there are no users" in text for text in texts)


def test_an_etcd_that_is_away_is_an_error() -> None:
    done = CliRunner().invoke(main, ["doctor", "--etcd", "127.0.0.1:9"])
    assert (1, True) == (done.exit_code, "etcd doesn't answer" in done.stderr)
