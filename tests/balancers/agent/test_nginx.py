"""nginx's driver: when it reloads, what it writes, and what drains."""

import pytest

from outrider.balancers.agent.driver import AgentServer, Away
from outrider.balancers.agent.nginx import (
    HEADER,
    Forget,
    Leave,
    Load,
    NginxState,
    Note,
    addresses_in,
    digest,
    plan,
    render,
    report,
)

OLD = AgentServer(id="web-1", url="http://127.0.0.1:8085")
NEW = AgentServer(id="web-1", url="http://[::1]:8086", weight=3)


def state(content: str, *draining: str, workers: int = 0, loaded: str | None = None, runs: bool = True) -> NginxState:
    note = Note(loaded=digest(content) if loaded is None else loaded, draining=draining)
    return NginxState(content=content, note=note, former_workers=workers, version="1.22.1", is_running=runs)


def test_the_file_has_a_line_for_each_server_and_reads_back() -> None:
    content = render((OLD, NEW))

    assert HEADER + "server 127.0.0.1:8085 weight=1;\nserver [::1]:8086 weight=3;\n" == content
    assert ("127.0.0.1:8085", "[::1]:8086") == addresses_in(content)


def test_without_servers_nginx_still_gets_a_line() -> None:
    assert HEADER + "server 0.0.0.0:1 down;\n" == render(())
    assert () == addresses_in(render(()))


def test_a_swap_is_one_reload_after_which_the_old_one_drains() -> None:
    assert (Load(content=render((NEW,)), draining=("127.0.0.1:8085",)),) == plan((NEW,), state(render((OLD,))))


def test_what_still_drains_goes_on_draining_through_the_next_reload() -> None:
    (command,) = plan((NEW,), state(render((OLD,)), "127.0.0.1:8084", workers=1))

    assert isinstance(command, Load)
    assert ("127.0.0.1:8084", "127.0.0.1:8085") == command.draining


def test_what_is_loaded_needs_nothing_and_what_was_only_written_is_loaded() -> None:
    assert () == plan((OLD,), state(render((OLD,))))
    assert (Load(content=render((OLD,)), draining=()),) == plan((OLD,), state(render((OLD,)), loaded=""))


def test_draining_ends_when_the_last_worker_from_before_has_exited() -> None:
    content = render((NEW,))
    drains = state(content, "127.0.0.1:8085", workers=2)

    assert () == plan((NEW,), drains)
    assert {"http://127.0.0.1:8085": 2} == report((NEW,), drains).draining
    ended = state(content, "127.0.0.1:8085")
    assert (Forget(note=Note(loaded=digest(content))),) == plan((NEW,), ended)
    assert {} == report((NEW,), ended).draining


def test_what_was_written_and_not_loaded_serves_nobody_for_sure() -> None:
    assert frozenset() == report((OLD,), state(render((OLD,)), loaded="")).serving
    assert {OLD.url} == report((OLD,), state(render((OLD,)))).serving


def test_an_nginx_that_does_not_run_finds_the_servers_at_its_start_and_nobody_says_that_it_serves() -> None:
    down = state(render((OLD,)), runs=False)

    assert (Leave(content=render((NEW,))),) == plan((NEW,), down)
    assert () == plan((OLD,), down)
    with pytest.raises(Away, match="doesn't run"):
        report((OLD,), down)
