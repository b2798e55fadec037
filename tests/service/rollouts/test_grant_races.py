"""Grants under a burst, with two service processes over one real etcd, one of which may be killed (P6).

``OUTRIDER_TEST_RACES`` says how often the race is run; twice by default.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaRequest, render_request
from outrider.core.rollout.policy_settings import Policy
from outrider.etcd.seam import Cluster
from tests.service.test_serve import Process, serving
from tests.support.pairs import LIMITS, Pair
from tests.support.servers import EtcdServer
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, make_app, open_store
from tests.support.waiting import eventually

RACES = int(os.environ.get("OUTRIDER_TEST_RACES", "2"))
BURST = 200


@pytest.fixture
def pair(cluster: Cluster, etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Pair[Process]]:
    store = open_store(cluster, prefix.rstrip("/"))
    make_app(store, version="2.0.0")
    with ExitStack() as stack:

        def new() -> Process:
            folder = tmp_path / os.urandom(4).hex()
            folder.mkdir()
            options = ("--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/"))
            return stack.enter_context(serving(folder, *options))

        yield Pair(store=store, servers=[new(), new()], new=new)


@pytest.mark.timeout(600 + 60 * RACES)
def test_200_first_checks_at_once_on_a_limit_of_one_grant_exactly_one(pair: Pair[Process]) -> None:
    for number in range(RACES):
        group = f"race-{number}"
        pair.set(group, LIMITS[number % len(LIMITS)])

        answers = pair.burst(group, BURST)

        pair.expect_one(group, answers)


def test_without_limits_a_burst_is_granted_whole(pair: Pair[Process]) -> None:
    pair.set("open", Policy())

    answers = pair.burst("open", BURST)

    assert {Offer} == {type(answer) for answer in answers.values()}
    assert BURST == len(pair.snapshot("open").living) == len(pair.snapshot("open").progress.opened)


def test_a_process_that_is_killed_in_a_burst_loses_nothing_and_the_other_goes_on(pair: Pair[Process]) -> None:
    """
    1. 40 check at once, half of them at a process that is killed meanwhile
    2. what that one granted is known: an answer that nobody got takes a place, and is given again to who asks again
    3. the other process answers all, and no limit was passed
    """
    pair.set("killed", Policy(max_in_progress=5))
    doomed, other = pair.servers
    answered = threading.Event()

    def one(number: int) -> Offer | NoUpdate | None:
        try:
            answer = pair.checks((doomed, other)[number % 2], "killed", f"web-{number}")
        except requests.RequestException:
            return None
        finally:
            answered.set()
        return answer

    with ThreadPoolExecutor(40) as pool:
        first = list(pool.map(one, range(20)))
        rest = [pool.submit(one, number) for number in range(20, 40)]
        answered.wait(30)
        doomed.process.send_signal(signal.SIGKILL)
        first += [future.result() for future in rest]
    again = [pair.checks(other, "killed", f"web-{number}") for number in range(40)]

    offered = {number for number, answer in enumerate(again) if isinstance(answer, Offer)}
    assert 5 == len(offered) == len(pair.snapshot("killed").living)
    assert {number for number, answer in enumerate(first) if isinstance(answer, Offer)} <= offered


def test_the_deferred_are_woken_by_whichever_process_is_left(pair: Pair[Process]) -> None:
    """
    1. web-0 is granted, two others are deferred
    2. the process that granted is killed
    3. web-0 reports to the other: the first of the deferred is woken, and no sooner
    """
    pair.set("line", Policy(max_in_progress=1))
    doomed, other = pair.servers
    store, keys = pair.store, pair.store.context.keys
    pair.checks(doomed, "line", "web-0")
    for name in ("web-2", "web-1"):
        be_alive(store, name, NOON, group="line")
        pair.checks(doomed, "line", name)
    doomed.process.kill()
    doomed.process.wait()
    too_early = [store.context.cluster.get(keys.wakeup(APP, name)) for name in ("web-1", "web-2")]
    done = AppRequest(app_id=APP, version="2.0.0", track="line", machine_id="web-0", update_check=True)
    requests.post(f"{other.url}/v1/update", data=render_request(OmahaRequest(apps=(done,))), timeout=60)

    eventually(lambda: store.context.cluster.get(keys.wakeup(APP, "web-2")))
    assert [None, None] == too_early
    assert store.context.cluster.get(keys.wakeup(APP, "web-1")) is None


def test_a_vanished_instance_makes_room_on_the_real_clock_when_no_process_ran_meanwhile(pair: Pair[Process]) -> None:
    """
    1. web-0 is granted for two seconds, web-1 is deferred
    2. both processes are killed, and the time is over while nobody watches: the grant still counts
    3. a new process gives it its time again, then books the silence of web-0 and wakes web-1
    """
    pair.set("vanished", replace(Policy(), max_in_progress=1, update_timeout_s=2))
    store, keys = pair.store, pair.store.context.keys
    pair.checks(pair.servers[0], "vanished", "web-0")
    be_alive(store, "web-1", NOON, group="vanished")
    pair.checks(pair.servers[0], "vanished", "web-1")
    for process in pair.servers:
        process.process.kill()
        process.process.wait()
    open_before = pair.snapshot("vanished").progress.open.total
    before = store.context.cluster.get(keys.wakeup(APP, "web-1"))
    fresh = pair.new()

    eventually(lambda: store.context.cluster.get(keys.wakeup(APP, "web-1")))
    assert (1, None) == (open_before, before)
    assert ["web-0"] == [one.instance for one in pair.snapshot("vanished").progress.failures]
    assert isinstance(pair.checks(fresh, "vanished", "web-1"), Offer)
