"""What is stored below ``servers/{service}/``, read as servers."""

from outrider.balancers.agent.driver import AgentServer
from outrider.balancers.agent.entries import wanted_in
from outrider.etcd.seam import Entry
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import WriteGuard, encode

PREFIX = "/outrider/v1/servers/hello/"
OLD, NEW = "http://127.0.0.1:8085", "http://127.0.0.1:8086"


def entry(name: str, value: bytes) -> Entry:
    return Entry(key=PREFIX + name, value=value, create_revision=1, mod_revision=1)


def test_entries_are_servers_and_guards_are_not() -> None:
    found = wanted_in(
        (
            entry("web-1", encode(WriteGuard(url=OLD))),
            entry("web-1/entry", encode(ServerEntry(url=OLD, weight=3))),
            entry("web-2", encode(WriteGuard(url=None))),
        ),
        PREFIX,
        {},
    )

    assert (AgentServer(id="web-1", url=OLD, weight=3),) == found.servers
    assert () == found.strange


def test_an_entry_that_can_not_be_read_takes_no_server_away() -> None:
    strange = (entry("web-1", encode(WriteGuard(url=OLD))), entry("web-1/entry", b"{broken"))
    before = {"web-1": AgentServer(id="web-1", url=NEW, weight=2)}

    assert (before["web-1"],) == wanted_in(strange, PREFIX, before).servers
    assert (AgentServer(id="web-1", url=OLD),) == wanted_in(strange, PREFIX, {}).servers
    assert (PREFIX + "web-1/entry",) == wanted_in(strange, PREFIX, {}).strange


def test_an_address_that_no_balancer_takes_is_strange() -> None:
    found = wanted_in((entry("web-1/entry", encode(ServerEntry(url="http://x"))),), PREFIX, {})

    assert ((), (PREFIX + "web-1/entry",)) == (found.servers, found.strange)


def test_one_address_is_one_server() -> None:
    found = wanted_in(
        tuple(entry(f"{name}/entry", encode(ServerEntry(url=OLD))) for name in ("web-1", "web-2")), PREFIX, {}
    )

    assert ("web-1",) == tuple(server.id for server in found.servers)
