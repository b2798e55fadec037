"""Labels, waves and disruption budgets with a real etcd, a real service and real sidekicks."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP
from outrider.etcd.seam import KeyChanged, WatchEvent
from outrider.model.documents import Slot, decode
from outrider.model.keys import group_scope
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
SCOPE = group_scope(APP_ID, GROUP)
RACKS = {"web-a": "1", "web-b": "1", "web-c": "2", "web-d": "2"}


class Racks(LiveFixture):
    """Its instances stand in racks, and ``web-a`` is the canary."""

    def _config(self, instance: str) -> str:
        labels = f'rack = "{RACKS[instance]}"' + (', canary = "yes"' if instance == "web-a" else "")
        return super()._config(instance).replace("[instance]\n", f"[instance]\nlabels = {{ {labels} }}\n", 1)


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Racks]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = Racks(tmp_path, list(RACKS), environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def out_at_once(seen: list[WatchEvent], prefix: str) -> tuple[Counter[str], int]:
    """The most turns of each rack at any revision, and how many turns were taken."""
    turns: dict[str, Slot] = {}
    most: Counter[str] = Counter()
    taken = 0
    for event in seen:
        assert isinstance(event, KeyChanged)
        if event.entry is None:
            turns.pop(event.key, None)
            continue
        taken += event.key not in turns
        turns[event.key] = decode(Slot, event.key, event.entry.value)
        most |= Counter(slot.labels["rack"] for slot in turns.values())
    assert not turns, f"left behind below {prefix}"
    return most, taken


def test_waves_and_budgets_hold_while_sidekicks_are_killed(fixture: Racks) -> None:
    """
    1. four instances in two racks, three turns; the canary goes first, then a person approves; one may be out per rack
    2. the canary updates, and the others say which wave they wait for
    3. the approval lets them go; a sidekick is killed in its turn, and starts again
    4. all are on the release, and at no revision were two of one rack out
    """
    fixture.start()
    fixture.create(slots=3)
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    where = (f"--app-id={APP_ID}", f"--group-id={GROUP}")
    fixture.outrider("group", "policy", *where, "--wave=canary=yes; approval", "--budget=at most 1 per rack")
    seen: list[WatchEvent] = []
    slots = fixture.keys.slots(SCOPE)
    watch = fixture.cluster.watch(slots, fixture.cluster.list(slots).revision + 1, seen.append)

    fixture.publish("2.0.0")
    reason = "succeeded; the others wait for an approval"
    eventually(lambda: reason in fixture.outrider("why", APP_ID, "web-b"), within_s=60, every_s=0.2)
    assert ["2.0.0", "1.0.0", "1.0.0", "1.0.0"] == [fixture.presences()[name].version for name in RACKS]
    shown = json.loads(fixture.outrider("status", APP_ID, "--selector=rack=1", "--json"))
    assert ["web-a", "web-b"] == [one["instance"] for one in shown[0]["instances"]]

    fixture.outrider("rollout", "approve", *where, "--yes", "--why=seen")
    holders = eventually(lambda: [decode(Slot, one.key, one.value) for one in fixture.cluster.list(slots).entries])
    victim = holders[0].instance
    fixture.sidekicks[victim].kill()
    fixture.start_sidekick(victim)
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=90, every_s=0.2)
    eventually(lambda: not fixture.cluster.list(fixture.keys.turns(SCOPE)).entries, within_s=30)

    watch.close()
    most, taken = out_at_once(seen, slots)
    assert {"1": 1, "2": 1} == dict(most)
    assert 4 <= taken
