"""`outrider story APP/GROUP` and `outrider status --at`: from etcd or from the service, in the same words."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.service.history.history_recorder import HistoryRecorder
from outrider.service.store.store import utc_now
from tests.support.histories import APP, GROUP, Instances
from tests.support.service import Service
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Told:
    """A small rollout that is recorded, and the revisions of its steps."""

    service: Service
    target: int
    queueing: int
    turn: int
    done: int

    def run(self, command: str, *, etcd: bool = True, code: int = 0) -> Result:
        service = self.service
        environment = {
            "OUTRIDER_SERVER": service.url,
            "OUTRIDER_PREFIX": service.prefix,
            "OUTRIDER_ETCD": service.etcd if etcd else None,
        }
        done = CliRunner().invoke(main, shlex.split(command), env=environment)
        assert code == done.exit_code, done.output
        return done


@pytest.fixture
def told(service: Service, cluster: Cluster) -> Iterator[Told]:
    keys = Keys(service.prefix)
    recorder = HistoryRecorder(cluster, keys, utc_now, flush_s=0.01)
    recorder.start()
    eventually(lambda: recorder._watch is not None)
    web = Instances(cluster, keys)
    target = web.target("2.0.0")
    queueing = web.is_in("web-a", "swapping.queueing", since=web.machine("web-a"))
    turn = web.takes_turn("web-a")
    steps = [
        web.stay(7, "swapping.queueing", "web-a", took_s=1.5, seen=target, event="lock.acquired", text="turn acquired"),
        web.stay(8, "swapping.starting", "web-a", after_s=1.5, took_s=0.4, seen=turn, text="2.0.0 runs: on port 9003"),
    ]
    done = web.is_in("web-a", "idle.waiting", "2.0.0")
    web.tells("web-a", steps)
    eventually(lambda: len(web.told()) == 7)
    yield Told(service=service, target=target, queueing=queueing, turn=turn, done=done)
    recorder.close()


def test_a_rollout_is_told_in_the_order_of_revisions(told: Told) -> None:
    text = told.run(f"story {APP}/{GROUP}").stdout

    head, *lines = text.splitlines()
    assert re.fullmatch(rf"rollout of 2.0.0 to shop/beta \({told.target}\), \d{{4}}-\d\d-\d\d UTC", head)
    assert [
        f"{told.target} target: 2.0.0",
        f"{told.queueing} web-a swapping.queueing +1.5 s turn acquired (lock.acquired)",
        f"{told.turn} web-a turn taken, slot 0",
        f"{told.turn}..{told.done} web-a swapping.starting +0.4 s 2.0.0 runs: on port 9003 [no write in etcd]",
        f"{told.done} web-a idle.waiting runs 2.0.0",
    ] == [re.sub(r"\d\d:\d\d:\d\d\.\d ", "", " ".join(line.split())) for line in lines[:5]]
    assert "update 1.0.0 -> 2.0.0: committed" in lines[5]


@pytest.mark.parametrize(
    "command",
    [
        f"story {APP}/{GROUP}",
        f"story {APP}/{GROUP} --json",
        f"story {APP}/{GROUP}/web-a --rollout 2.0.0",
        f"story {APP}/{GROUP} --format mermaid",
        f"story {APP}/{GROUP} --format gantt",
        f"status {APP}/{GROUP} --at 0s",
        f"status {APP} --at 0s --json",
        f"status {APP} --at 1",
    ],
)
def test_the_service_says_the_same_as_etcd(told: Told, command: str) -> None:
    assert told.run(command).stdout == told.run(command, etcd=False).stdout != ""


def test_json_says_of_each_line_where_it_stands(told: Told) -> None:
    found = json.loads(told.run(f"story {APP}/{GROUP} --json").stdout)

    local = next(line for line in found["lines"] if line["kind"] == "local")
    assert (None, told.turn, told.done, 0.4) == tuple(local[name] for name in ("revision", "after", "before", "took_s"))
    assert [{"revision": told.target, "version": "2.0.0"}] == [
        {name: mark[name] for name in ("revision", "version")} for mark in found["rollouts"]
    ]


def test_the_diagrams_are_mermaids(told: Told) -> None:
    sequence = told.run(f"story {APP}/{GROUP} --format mermaid").stdout.splitlines()
    gantt = told.run(f"story {APP}/{GROUP} --format gantt").stdout.splitlines()

    assert ["sequenceDiagram", "    participant etcd", "    participant p0 as web-a"] == [sequence[0], *sequence[2:4]]
    assert f"    p0->>etcd: {told.turn} turn taken, slot 0" in sequence
    assert any(line.startswith(f"    Note over p0: {told.turn}..{told.done} swapping.starting") for line in sequence)
    assert ["gantt", "    section web-a"] == [gantt[0], gantt[4]]
    assert re.fullmatch(r"    swapping\.queueing :\d{13}, \d{13}", gantt[5])
    assert re.fullmatch(r"    swapping\.starting :done, \d{13}, \d{13}", gantt[6])


def test_status_at_a_revision_shows_who_held_a_turn(told: Told) -> None:
    before, after = (told.run(f"status {APP} --at {revision}").stdout for revision in (told.queueing, told.done))

    assert ["beta", "web-a", "swapping.queueing", "1.0.0", "2.0.0"] == before.splitlines()[1].split()[:5]
    assert "slot" not in before
    assert "slot 0" in after
    assert f"group beta: target: 2.0.0; last step at revision {told.done}, " in after


def test_what_is_asked_wrongly_is_one_line(told: Told) -> None:
    for command, said in (
        ("story nothing", "no such file, and no address: write APP/GROUP or APP/GROUP/INSTANCE"),
        ("story", "story of what? Write APP/GROUP, APP/GROUP/INSTANCE, or a journal"),
        (f"story {APP}/{GROUP} --check", ""),
        ("story --all", "--update, --all and --check are of a journal: name it, or its folder"),
        ("story journal.jsonl --rollout 3", "--rollout and diagrams are of a group: write APP/GROUP"),
        ("status --at 3", "--at needs an app"),
        (f"status {APP} --at 3 --watch", "--at goes neither with --watch nor with --selector"),
    ):
        done = told.run(command, code=1 if "--check" in command else 2)
        assert said in done.stderr
    for command, said in (
        (f"story {APP}/nothing", "Error: app shop has no group 'nothing'"),
        (f"story {APP}/{GROUP} --rollout 9.9.9", "no rollout '9.9.9' in the history of group beta; it has 2.0.0"),
        (f"status {APP} --at yesterday", "Error: 'yesterday': write a revision of etcd"),
    ):
        assert said in told.run(command, code=1).stderr
        assert said in told.run(command, code=1, etcd=False).stderr


def test_a_long_story_comes_page_by_page(told: Told) -> None:
    asked = f"{told.service.url}/api/v1/apps/{APP}/groups/{GROUP}/story"
    first = requests.get(asked, params={"limit": 3}, timeout=10).json()
    rest = requests.get(asked, params={"limit": 100, "after": first["next"]}, timeout=10).json()
    whole = requests.get(asked, timeout=10).json()

    assert (3, None) == (len(first["items"]), rest["next"])
    assert whole["items"] == first["items"] + rest["items"]
    assert 400 == requests.get(asked, params={"after": "!"}, timeout=10).status_code
