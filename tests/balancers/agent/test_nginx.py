"""nginx's driver: when it reloads, what it writes, and what drains."""

import os
from pathlib import Path

import pytest

from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow
from outrider.balancers.agent.nginx import (
    HEADER,
    Forget,
    Leave,
    Load,
    NginxDriver,
    NginxState,
    Note,
    addresses_in,
    digest,
    plan,
    reason_in,
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
    with pytest.raises(Away, match=r"doesn't run: .* \(--pid-file\)"):
        report((OLD,), down)


def test_what_was_left_for_an_nginx_that_did_not_seem_to_run_is_loaded_when_it_does(tmp_path: Path) -> None:
    """
    1. nginx is starting: it has read its configuration, and its pid file isn't there yet
    2. the agent takes it for one that doesn't run, and leaves the servers in the file
    3. now it runs, with what it had read: it has to be reloaded, and serves nothing for sure until then
    """
    driver = NginxDriver(upstream_file=tmp_path / "servers", pid_file=tmp_path / "pid")
    (command,) = driver.plan((OLD,), driver.look())
    assert isinstance(command, Leave)

    driver.perform(command)

    seen = driver.look()
    assert () == driver.plan((OLD,), seen), "nothing is left to do until it runs"
    runs = NginxState(content=seen.content, note=seen.note)
    assert (Load(content=render((OLD,)), draining=()),) == plan((OLD,), runs)
    assert frozenset() == report((OLD,), runs).serving


def test_a_pid_file_that_names_another_process_is_no_nginx(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    driver = NginxDriver(upstream_file=tmp_path / "servers", pid_file=tmp_path / "pid")

    assert not driver.look().is_running


WARNING = '2026/11/30 14:16:17 [warn] 7#7: the "user" directive makes sense only if the master process runs as root'


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            f'{WARNING}\n2026/11/30 14:16:18 [emerg] 7#7: unknown directive "x" in /n.conf:2\nnginx: test failed\n',
            '[emerg] unknown directive "x" in /n.conf:2',
        ),
        ('\nnginx: [error] open() "/run/nginx.pid" failed\n', 'nginx: [error] open() "/run/nginx.pid" failed'),
        ("sudo: a password is required\n", "sudo: a password is required"),
        ("", ""),
    ],
    ids=["after a warning, without its time", "of the program", "of another program", "silent"],
)
def test_why_nginx_refuses_is_told_in_the_same_words_each_time(said: str, reason: str) -> None:
    assert reason == reason_in(said)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (("nginxx", "-t"), "nginxx: can't be run: No such file or directory"),
        (("false", "-t"), r"nginx refuses the configuration with \S+: it left with 1"),
        (
            ("sh", "-c", "echo '# configuration file /nginx.conf:'", "-t"),
            r"doesn't include \S+: write .* --upstream-file",
        ),
    ],
    ids=["no such program", "refused", "not included"],
)
def test_what_can_not_be_loaded_is_taken_back_with_a_reason(tmp_path: Path, test: tuple[str, ...], said: str) -> None:
    file = tmp_path / "servers"
    file.write_text(render((OLD,)))
    driver = NginxDriver(upstream_file=file, pid_file=tmp_path / "pid", test_command=test)

    with pytest.raises(CannotFollow, match=said):
        driver.perform(Load(content=render((NEW,)), draining=()))

    assert render((OLD,)) == file.read_text()
    assert frozenset() == report((NEW,), NginxState(content=file.read_text(), note=driver.look().note)).serving
