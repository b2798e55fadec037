"""Real HAProxy, nginx, Caddy, Envoy, Traefik, agents and etcd: what is never lost, and what a freeze can't do."""

import csv
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import requests

from outrider.balancers.agent.haproxy import FINER
from outrider.balancers.agent.nginx import addresses_in
from outrider.balancers.drain import Drained, Expired, Unmoved
from outrider.config.sections import DrainSettings
from outrider.demo.balancers import (
    CLOSES_IDLE,
    DROPS_POSTS,
    SLOTS,
    START,
    Haproxy,
    Nginx,
    agent_words,
    start_agent,
    start_envoy,
    start_haproxy,
    start_nginx,
)
from outrider.demo.programs import Program, ProgramMissing
from outrider.etcd.seam import Put
from outrider.model.balancer_agents import Agent, ServerEntry
from outrider.model.documents import encode
from tests.contracts.kits.settings import SERVICE
from tests.live.balancer_stand import HOST, KEYS, SLOT, Stand
from tests.support.closed_load import POSTING, ClosedLoad, closed_load
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
PRODUCTS = (*START, "traefik")
SHORT = DrainSettings(confirm_timeout_s=3.0, max_s=6.0)


@pytest.fixture(params=PRODUCTS)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(request.param, tmp_path, stack)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand("haproxy", tmp_path, stack)


def test_five_swaps_under_load_lose_none_of_10000_requests(stand: Stand) -> None:
    """Kept connections, slow answers, POSTs; the old version is killed as soon as it is drained, whatever it has open.

    nginx and Caddy close idle connections when they reload, and a POST that is on its way then can't be sent again: see
    docs/use/balancers.md. So there each POST has a connection of its own. Even so Caddy drops one now and then, in any
    reload: at most those that were on their way in that moment.
    """
    swap_five_times(
        stand,
        fresh_posts=stand.product in CLOSES_IDLE,
        dropped=POSTING * 5 if stand.product in DROPS_POSTS else 0,
    )


def test_an_nginx_that_keeps_no_connection_of_clients_loses_no_post_of_clients_that_would_keep_theirs(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        stand = Stand("nginx", tmp_path, stack, start=partial(start_nginx, keeps_clients=False))

        swap_five_times(stand, fresh_posts=False, dropped=0)


def swap_five_times(stand: Stand, *, fresh_posts: bool, dropped: int) -> None:
    """Five swaps during 10,000 requests, none of which fails, but for ``dropped`` POSTs at most."""

    def lost(load: ClosedLoad) -> dict[str, int]:
        """Failures but for POSTs that Caddy may drop: they got no byte of an answer, or not even a connection."""
        unanswered = {kind: load.failures[kind] for kind in ("POST: broken", "POST: connect") if kind in load.failures}
        spared = unanswered if sum(unanswered.values()) <= dropped else {}
        return {kind: count for kind, count in load.failures.items() if kind not in spared}

    old = stand.begin()
    verdicts = []
    with closed_load(stand.web_url, HOST, requests=10_000, fresh_posts=fresh_posts) as load:
        for number in range(2, 7):
            new = stand.app(f"{number}.0.0")
            stand.switch(new)
            verdicts.append(stand.drain(old, new))
            old.program.kill()
            enough = load.versions[f"{number}.0.0"] + 50
            while load.versions[f"{number}.0.0"] < enough:
                eventually(lambda: lost(load) or load.versions[f"{number}.0.0"] >= enough)  # noqa: B023
                assert {} == lost(load)
            old = new

    assert {} == lost(load)
    assert load.sent >= 10_000
    assert {f"{number}.0.0" for number in range(1, 7)} == set(load.versions)
    assert load.slow > 10
    assert load.posts > 1000
    assert [Drained] * 5 == [type(verdict) for verdict in verdicts], verdicts
    assert all("confirmed by" in str(one) and "no request open" in str(one) for one in verdicts), verdicts


def test_negative_control_not_waiting_is_seen_as_failures(stand: Stand) -> None:
    """The same load, the same order, but the old version is killed without waiting for anybody's word."""
    old, new = stand.begin(), stand.app("2.0.0")
    with closed_load(stand.web_url, HOST, requests=500) as load:
        eventually(lambda: load.versions["1.0.0"] > 100)
        stand.switch(new)
        old.program.kill()
        eventually(lambda: load.versions["2.0.0"] > 50)

    assert load.failures.total() > 0


def test_a_sidekick_frozen_past_its_lease_changes_nothing_in_the_balancer(stand: Stand) -> None:
    """
    1. a sidekick has its turn and stands still right before its transaction
    2. its lease ends; another turn is taken, and the entry is switched in it
    3. the first one goes on: it is refused, and the balancer's own state has only what the second one wrote
    """
    stand.begin()
    late, right = stand.app("2.0.0"), stand.app("3.0.0")
    endpoint = f"{stand.etcd.endpoint.host}:{stand.etcd.endpoint.port}"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.live.switch_child", stand.kind, endpoint, late.url],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: process_state(child.pid) == "T", every_s=0.05)
        eventually(lambda: stand.cluster.get(SLOT) is None, every_s=0.1)
        stand.fence = stand.take_turn()
        stand.switch(right)
        eventually(lambda: {right.url} == stand.own_state(), every_s=0.05)
        child.send_signal(signal.SIGCONT)
        said, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    # whatever was written before this one is applied before it
    after = stand.app("4.0.0")
    with closed_load(stand.web_url, HOST, requests=200) as load:
        stand.switch(after)
        eventually(lambda: {after.url} == stand.own_state(), every_s=0.05)
        eventually(lambda: stand.version() == "4.0.0", every_s=0.05)

    assert "fence" == said.strip()
    assert "2.0.0" not in load.versions
    assert load.versions["3.0.0"] + load.versions["4.0.0"] == load.versions.total()


@pytest.mark.parametrize("product", START)
def test_a_servers_weight_is_its_share_of_the_requests(product: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = Stand(product, tmp_path, stack)
        one, three = stand.begin(), stand.app("3.0.0")
        entry = ServerEntry(url=three.url, weight=3)
        stand.cluster.txn((), (Put(key=KEYS.server_entry(SERVICE, "web-2"), value=encode(entry)),))
        eventually(lambda: {one.url, three.url} == set(stand.applied().serving), every_s=0.05)

        with closed_load(stand.web_url, HOST, requests=800) as load:
            pass

    assert {} == load.failures
    share = load.versions["3.0.0"] / load.versions.total()
    assert 0.65 < share < 0.85, load.versions


def test_a_server_that_joins_a_haproxy_with_slow_start_gets_its_share_by_and_by(tmp_path: Path) -> None:
    """
    1. the first server has its full weight, 20 s after it came
    2. a second one comes: by HAProxy's own word it has less at first, and as much in the end
    """

    def weights() -> list[int]:
        """What HAProxy gives to each of the servers now."""
        assert isinstance(stand.program, Haproxy)
        lines = requests.get(stand.program.stats_url, timeout=60).text.splitlines()
        rows = list(csv.DictReader(lines))
        return sorted(int(row["weight"]) for row in rows if row["# pxname"] == SERVICE and row["status"] == "no check")

    with ExitStack() as stack:
        stand = Stand("haproxy", tmp_path, stack, start=partial(start_haproxy, slow_start_s=20))
        stand.begin()
        new = stand.app("3.0.0")
        eventually(lambda: weights() == [FINER], within_s=120)
        entry = encode(ServerEntry(url=new.url))
        stand.cluster.txn((), (Put(key=KEYS.server_entry(SERVICE, "web-2"), value=entry),))

        first = eventually(lambda: found if len(found := weights()) == 2 else [], every_s=0.05)
        eventually(lambda: weights() == [FINER, FINER], within_s=120)

    assert first[0] < FINER / 2
    assert first[1] == FINER


def test_an_envoy_with_slow_start_swaps_as_one_without(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = Stand("envoy", tmp_path, stack, start=partial(start_envoy, slow_start_s=20))
        old, new = stand.begin(), stand.app("2.0.0")

        stand.switch(new)
        verdict = stand.drain(old, new)

        assert isinstance(verdict, Drained), verdict
        assert "2.0.0" == stand.version()
        assert {new.url} == stand.own_state()


def test_a_swap_waits_for_every_balancer_of_its_service(haproxy: Stand) -> None:
    """
    1. HAProxy and nginx serve one service, each with its agent: a swap is confirmed by both
    2. nginx can't be reloaded any more: the next swap is not confirmed, and it is said by whom and why
    """
    folder = haproxy.folder / "second"
    try:
        second = haproxy.keep(start_nginx(folder, SERVICE))
    except ProgramMissing as missing:
        skip_or_fail(str(missing))
    assert isinstance(second, Nginx)
    second.wait_ready()
    haproxy.keep(start_agent(folder, second, haproxy.etcd.endpoint, SERVICE, name="lb-2"))
    old, new, late = haproxy.begin(), haproxy.app("2.0.0"), haproxy.app("3.0.0")
    eventually(lambda: old.url.removeprefix("http://") in addresses_in(second.upstream_file.read_text()))

    haproxy.switch(new)
    verdict = haproxy.drain(old, new)

    assert isinstance(verdict, Drained), verdict
    answer = requests.get(second.web_url, headers={"Host": HOST}, timeout=60)
    assert ("2.0.0", "2.0.0") == (haproxy.version(), answer.headers.get("X-Version"))

    config = folder / "nginx.conf"
    config.write_text(config.read_text() + "bogus on;\n")
    haproxy.switch(late)
    verdict = haproxy.drain(new, late, SHORT)

    assert isinstance(verdict, Unmoved), verdict
    assert "balancer agent lb-2 (nginx on" in verdict.why
    assert 'unknown directive "bogus"' in verdict.why


def test_a_draining_server_keeps_its_sessions_and_gets_no_new_one(stand: Stand) -> None:
    old, new = stand.begin(), stand.app("2.0.0")
    answers: list[requests.Response] = []
    slow = threading.Thread(target=lambda: answers.append(stand.get("/slow/2.5")))
    slow.start()
    eventually(lambda: requests.get(f"{old.url}/inflight", timeout=60).text.strip() == "1")

    stand.switch(new)
    eventually(lambda: {new.url} == stand.own_state(), every_s=0.05)
    eventually(lambda: stand.version() == "2.0.0", every_s=0.05)
    served = {stand.version() for _ in range(20)}
    if stand.kind == "agent":
        eventually(lambda: stand.applied().draining.get(old.url), every_s=0.05)
    verdict = stand.drain(old, new)
    old.program.kill()
    slow.join()

    assert {"2.0.0"} == served
    assert isinstance(verdict, Drained)
    assert [(200, "1.0.0")] == [(each.status_code, each.headers["X-Version"]) for each in answers]
    if stand.kind == "agent":
        eventually(lambda: not stand.applied().draining.get(old.url), every_s=0.1)


def process_state(pid: int) -> str:
    """One letter, as in /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stopped_agent(stand: Stand, signal_name: str, point: str, when: str) -> tuple[Program, Path]:
    """An agent that gets the signal at a failpoint, and the file that says that it did."""
    done = stand.folder / f"{point}-{when}"
    words = agent_words(stand.balancer_program, stand.etcd.endpoint, SERVICE, name="lb-1")
    command = [sys.executable, "-m", "tests.live.stopped_agent", signal_name, point, when, str(done), *words]
    return stand.keep(Program("agent-stopped", command, stand.folder, env={"PYTHONPATH": str(CHECKOUT)})), done


class TestHaproxy:
    def test_a_reload_under_load_keeps_the_servers_and_loses_nothing(self, haproxy: Stand) -> None:
        program = haproxy.program
        assert isinstance(program, Haproxy)
        old, new = haproxy.begin(), haproxy.app("2.0.0")
        # the process before closes idle connections, and a POST on its way is lost: each has a connection of its own
        with closed_load(haproxy.web_url, HOST, requests=3000, fresh_posts=True) as load:
            for _ in range(2):
                before = requests_of(load.versions)
                program.reload()
                eventually(lambda before=before: requests_of(load.versions) > before + 300)  # type: ignore[misc]
            haproxy.switch(new)
            assert isinstance(haproxy.drain(old, new), Drained)
            program.reload()
            old.program.kill()

        assert {} == load.failures
        assert {new.url} == haproxy.own_state()

    def test_a_reload_without_a_state_file_is_put_right_and_said(self, haproxy: Stand) -> None:
        program = haproxy.program
        assert isinstance(program, Haproxy)
        app = haproxy.begin()
        config = haproxy.folder / "haproxy.cfg"
        lines = [line for line in config.read_text().splitlines() if "server-state" not in line]
        config.write_text("\n".join(lines) + "\n")

        program.reload()

        log = haproxy.folder / "agent-lb-1.log"
        eventually(lambda: "began without its servers: it needs server-state-file" in log.read_text())
        eventually(lambda: {app.url} == haproxy.own_state())
        assert 1 == log.read_text().count("began without its servers")

    def test_sessions_of_the_process_before_a_reload_are_waited_for(self, haproxy: Stand) -> None:
        program = haproxy.program
        assert isinstance(program, Haproxy)
        old, new = haproxy.begin(), haproxy.app("2.0.0")
        answers: list[requests.Response] = []
        slow = threading.Thread(target=lambda: answers.append(haproxy.get("/slow/4")))
        slow.start()
        eventually(lambda: requests.get(f"{old.url}/inflight", timeout=60).text.strip() == "1")
        haproxy.switch(new)
        eventually(lambda: haproxy.applied().draining.get(old.url) == 1, every_s=0.05)
        program.reload()
        verdict = haproxy.drain(old, new)
        old.program.kill()
        slow.join()

        assert isinstance(verdict, Drained)
        assert [200] == [each.status_code for each in answers]

    def test_more_servers_than_slots_are_a_reason_and_never_a_stop(self, haproxy: Stand) -> None:
        old, new = haproxy.begin(), haproxy.app("2.0.0")
        for number in range(SLOTS):
            entry = ServerEntry(url=f"http://127.0.0.9:{1000 + number}")
            haproxy.cluster.txn((), (Put(key=KEYS.server_entry(SERVICE, f"a-{number}"), value=encode(entry)),))
        eventually(lambda: "all are taken" in haproxy.applied().problem, every_s=0.1)
        haproxy.switch(new)

        verdict = haproxy.drain(old, new, SHORT)

        assert isinstance(verdict, Unmoved)
        assert "has 20 slots, and all are taken: raise the number" in verdict.why

    def test_a_second_process_with_the_same_name_is_refused(self, haproxy: Stand) -> None:
        app = haproxy.begin()
        second = haproxy.start_agent()
        eventually(lambda: second.ended is not None, every_s=0.1)

        assert 1 == second.ended
        (line,) = [line for line in second.log.read_text().splitlines() if line.startswith("Error:")]
        assert "another process is balancer agent lb-1 of hello, on" in line
        assert {app.url} == haproxy.own_state()

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("point", ["agent.claim", "agent.register", "agent.read", "agent.apply", "agent.tell"])
    def test_an_agent_killed_at_any_of_its_points_goes_on_where_its_balancer_stands(
        self, haproxy: Stand, point: str, when: str
    ) -> None:
        app = haproxy.app("1.0.0")
        haproxy.balancer.entry.join(app.url)
        killed, done = stopped_agent(haproxy, "SIGKILL", point, when)
        eventually(lambda: killed.ended is not None, every_s=0.05)
        assert (-signal.SIGKILL, True) == (killed.ended, done.exists())

        haproxy.start_agent()

        eventually(lambda: {app.url} == haproxy.own_state(), every_s=0.05)
        eventually(lambda: (app.url,) == haproxy.applied().serving and not haproxy.applied().problem, every_s=0.05)
        assert "1.0.0" == haproxy.version()

    def test_a_frozen_agent_is_unknown_and_applies_nothing_that_was_taken_back_meanwhile(self, haproxy: Stand) -> None:
        """
        1. the agent stands still right before its command, with 1.0.0 in its hands
        2. its lease ends; a sidekick that waits for it hears its name at the deadline, and nothing is confirmed
        3. 2.0.0 takes the entry; the agent goes on, renews its lease, reads again, and brings in 2.0.0 alone
        """
        first, second = haproxy.app("1.0.0"), haproxy.app("2.0.0")
        haproxy.balancer.entry.join(first.url)
        frozen, done = stopped_agent(haproxy, "SIGSTOP", "agent.apply", "before")
        eventually(lambda: done.exists() and process_state(frozen.pid) == "T", every_s=0.05)
        eventually(lambda: haproxy.cluster.get(KEYS.applied(SERVICE, "lb-1")) is None, every_s=0.2)
        haproxy.switch(second)
        heard = haproxy.balancer.observer.confirm(present=frozenset({second.url}), absent=frozenset())
        doubt = haproxy.balancer.observer.doubt()
        os.kill(frozen.pid, signal.SIGCONT)
        eventually(lambda: {second.url} == haproxy.own_state(), every_s=0.05)
        eventually(lambda: (second.url,) == haproxy.applied().serving, every_s=0.05)

        assert heard is None
        assert "balancer agent lb-1 (haproxy on" in doubt
        assert "isn't running" in doubt
        assert isinstance(haproxy.drain(first, second), Drained)

    def test_an_agent_that_is_gone_is_waited_for_until_the_deadline_and_named(self, haproxy: Stand) -> None:
        old, new = haproxy.begin(), haproxy.app("2.0.0")
        gone = register_dead(haproxy)
        haproxy.switch(new)
        verdict = haproxy.drain(old, new, SHORT)

        assert isinstance(verdict, Expired)
        assert f"balancer agent {gone} (caddy on elsewhere) isn't running" in verdict.why


def requests_of(versions: "dict[str, int]") -> int:
    return sum(versions.values())


def register_dead(stand: Stand) -> str:
    """Register an agent that doesn't live; its name."""
    agent = Agent(service=SERVICE, name="lb-2", balancer="caddy", machine="elsewhere", since=datetime.now(UTC))
    stand.cluster.txn((), (Put(key=KEYS.agent(SERVICE, "lb-2"), value=encode(agent)),))
    return agent.name
