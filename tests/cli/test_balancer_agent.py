"""``outrider balancer-agent``: what it lists, what it removes, and which options it refuses."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.documents import encode
from outrider.model.keys import Keys
from tests.support.servers import EtcdServer

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
OLD, NEW = "http://127.0.0.1:8085", "http://127.0.0.1:8086"


class Cli:
    """The command, with an etcd and a part of its keys."""

    def __init__(self, server: EtcdServer, cluster: Cluster, prefix: str) -> None:
        self._options = [f"--etcd=127.0.0.1:{server.port}", f"--prefix={prefix.rstrip('/')}"]
        self.cluster, self.keys = cluster, Keys(prefix.rstrip("/"))

    def run(self, *words: str, answer: str = "") -> Result:
        return CliRunner().invoke(main, ["balancer-agent", *words, *self._options], input=answer)

    def register(self, name: str, applied: Applied | None = None) -> None:
        agent = Agent(service="hello", name=name, balancer="haproxy", machine="lb", since=NOON)
        self.cluster.txn((), (Put(key=self.keys.agent("hello", name), value=encode(agent)),))
        if applied is not None:
            self.cluster.txn((), (Put(key=self.keys.applied("hello", name), value=encode(applied)),))


@pytest.fixture
def cli(etcd_server: EtcdServer, cluster: Cluster, prefix: str) -> Cli:
    return Cli(etcd_server, cluster, prefix)


def applied(name: str, **changed: object) -> Applied:
    fields: dict[str, object] = {"serving": (NEW,), "draining": {OLD: 2}, "version": "2.6.12"} | changed
    return Applied(service="hello", name=name, process="p", revision=1, at=NOON, **fields)  # type: ignore[arg-type]


def test_every_registered_agent_is_listed_with_what_its_balancer_does(cli: Cli) -> None:
    cli.register("lb-1", applied("lb-1"))
    cli.register("lb-2", applied("lb-2", problem="all slots are taken"))
    cli.register("lb-3")

    told = cli.run("list")
    rows = json.loads(cli.run("list", "hello", "--json").stdout)

    _, first, second, third = told.stdout.splitlines()
    assert first.split() == ["hello", "lb-1", "haproxy", "2.6.12", "lb", "applied", NEW, OLD, "(2)"]
    assert "all slots are taken" in second
    assert third.split() == ["hello", "lb-3", "haproxy", "lb", "not", "running"]
    assert ["applied", "all slots are taken", "not running"] == [row["state"] for row in rows]
    assert {OLD: 2} == rows[0]["draining"]


def test_an_agent_that_is_gone_is_removed_after_a_question(cli: Cli) -> None:
    cli.register("lb-1")
    key = cli.keys.agent("hello", "lb-1")

    refused = cli.run("remove", "hello", "lb-1", answer="n\n")
    still_there = cli.cluster.get(key)
    removed = cli.run("remove", "hello", "lb-1", answer="y\n")

    assert (1, True) == (refused.exit_code, still_there is not None)
    assert (0, None) == (removed.exit_code, cli.cluster.get(key))
    assert "removed balancer agent lb-1 of service hello" in removed.stdout


def test_an_agent_that_runs_is_not_removed(cli: Cli) -> None:
    cli.register("lb-1", applied("lb-1"))

    refused = cli.run("remove", "hello", "lb-1", "--yes")
    cli.cluster.txn((), (Delete(key=cli.keys.applied("hello", "lb-1")),))
    removed = cli.run("remove", "hello", "lb-1", "--yes")

    assert 1 == refused.exit_code
    assert "Error: balancer agent 'lb-1' of service 'hello' is running; stop it first\n" == refused.stderr
    assert 0 == removed.exit_code


def test_an_agent_that_nobody_knows_is_no_agent(cli: Cli) -> None:
    told = cli.run("remove", "hello", "lb-9", "--yes")

    assert 1 == told.exit_code
    assert "no balancer agent 'lb-9' of service 'hello'" in told.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["haproxy", "--service=a/b"], "--service 'a/b'"),
        (["haproxy", "--service=a", "--name=x y"], "--name 'x y'"),
        (["haproxy", "--service=a", "--service=a"], "--service: the same service is named twice"),
        (["haproxy", "--service=a", "--service=b", "--backend=web"], "--backend web: there are several services"),
        (["nginx", "--service=a", "--reload-command="], "--reload-command: is empty"),
        (["nginx", "--service=a", "--test-command='"], "--test-command"),
        (["caddy", "--service=a", "--admin-url=localhost:2019"], "--admin-url 'localhost:2019'"),
        (["caddy", "--service=a", "--admin-url=https://a:1"], "--admin-url 'https://a:1': write http://HOST:PORT"),
        (["envoy", "--service=a", "--admin-url=ftp://x"], "--admin-url 'ftp://x'"),
    ],
)
def test_options_that_can_not_work_are_refused_in_one_line(cli: Cli, words: list[str], line: str) -> None:
    told = cli.run(*words)

    assert 1 == told.exit_code
    (said,) = told.stderr.splitlines()
    assert said.startswith(f"Error: {line}")


def test_an_agent_needs_a_service(cli: Cli) -> None:
    assert 2 == cli.run("haproxy").exit_code
