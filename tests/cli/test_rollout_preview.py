"""``rollout preview``, ``rollout replay`` and ``policy verify`` against the running service."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outrider.model.activity import Activity, activity_key
from outrider.model.documents import Happening, Instance, encode
from tests.support.service import Service
from tests.support.service_examples import APP, make_app, put
from tests.support.typing_verbs import Run, typist

NOW = datetime.now(UTC).replace(microsecond=0)
TURN_S = 12.0
GROUP = f"{APP}/beta"


def row(number: int, *, ran_before: bool) -> Instance:
    """An instance that took 1.0.0 an hour ago, one after the other, if ``ran_before``."""
    waited, ended = NOW - timedelta(hours=1), NOW - timedelta(hours=1) + timedelta(seconds=TURN_S * (number + 1))
    events = [(waited - timedelta(seconds=2), "13:1"), (waited, "800:1"), (ended, "3:1")] if ran_before else []
    return Instance(
        app=APP,
        id=f"web-{number}",
        group="beta",
        version="1.0.0",
        first_seen=NOW - timedelta(days=1),
        last_seen=NOW,
        history=tuple(Happening(at=at, version="1.0.0", event=event) for at, event in events),
        labels={"rack": str(number % 2)},
    )


@pytest.fixture
def run(service: Service) -> Run:
    """Four instances in two racks run 1.0.0, and 2.0.0 is the target."""
    make_app(service.store, version="2.0.0")
    add_instances(service, 4, ran_before=True)
    return typist(service)


def add_instances(service: Service, count: int, *, ran_before: bool) -> None:
    context = service.store.context
    for number in range(count):
        put(
            context.cluster,
            context.keys.instance(APP, f"web-{number}"),
            encode(row(number, ran_before=ran_before)),
        )


def record(service: Service, events: list[Activity]) -> None:
    context = service.store.context
    for number, event in enumerate(events, 1):
        put(context.cluster, activity_key(context.keys, event, number), encode(event))


def test_a_rollout_is_foreseen_with_the_durations_of_the_last_one(run: Run) -> None:
    found = json.loads(run(f"rollout preview {GROUP} --strategy stop-first --fail 1 --json").output)

    assert "2.0.0" == found["version"]
    assert 4 * TURN_S == pytest.approx(found["p50_s"], rel=0.15)
    assert 4 == found["updated"]
    assert 3 == found["lowest_serving"]
    assert 1 == found["if"]["number 1 fails"]["reached"]
    assert any("the median of 4 updates" in line for line in found["assumed"])


def test_the_table_has_scenarios_turns_and_what_was_assumed(run: Run) -> None:
    shown = run(f"rollout preview {GROUP} 3.0.0 --etcd-away 1m --runs 3").output

    assert f"{APP}/beta to 3.0.0: 4 instances, 1 turn at once, 3 runs" in shown
    for words in ("nothing goes wrong", "etcd is away for 1m", "all updated", "web-3", "assumed: a turn takes 12.0 s"):
        assert words in shown


def test_another_policy_comes_from_a_file(run: Run, tmp_path: Path) -> None:
    careful = tmp_path / "careful.toml"
    careful.write_text('slots = 2\nwaves = ["any; 1; soak 10m"]\n')

    found = json.loads(run(f"rollout preview {GROUP} --policy {careful} --runs 2 --json").output)

    assert 2 == found["slots"]
    assert 600.0 < found["p50_s"] < 700.0


def test_a_wrong_file_is_refused_with_its_line(run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("canary = 1\nslots = 0\nmax_falures = 2\n")

    refused = run(f"policy verify {GROUP} --policy {wrong}", code=1).output

    assert "wrong.toml:2: slots: 0: write 1 to" in refused
    assert "wrong.toml:3: max_falures: unknown" in refused


def test_what_can_not_be_foreseen_is_said_in_a_line(run: Run, service: Service) -> None:
    service.store.groups.create(APP, "empty", channel="beta")

    assert "has no instance that ever checked in" in run(f"rollout preview {APP}/empty", code=1).output
    assert "all 4 instances of group beta run 1.0.0 already" in run(f"rollout preview {GROUP} 1.0.0", code=1).output
    assert "--fail 9: the group has 4 instances" in run(f"rollout preview {GROUP} --fail 9", code=1).output


def test_a_recorded_rollout_happens_once_more_under_another_policy(run: Run, service: Service, tmp_path: Path) -> None:
    def event(at_s: float, kind: str, instance: str = "", text: str = "", by: str = "") -> Activity:
        at = NOW - timedelta(hours=1) + timedelta(seconds=at_s)
        return Activity(
            at=at, severity="info", kind=kind, app=APP, group="beta", instance=instance, version="1.0.0",
            text=text or kind, by=by,
        )  # fmt: skip

    names = [f"web-{number}" for number in range(4)]
    record(
        service,
        [
            event(0, "rollout-started"),
            *(event(0.5, "update-granted", name) for name in names),
            *(
                event(12.0 * number, "instance-updated", name, f"{name} runs 1.0.0 instead of 0.9.0")
                for number, name in enumerate(names, 1)
            ),
            event(50, "rollout-halted", text="the rollout was halted by ann", by="ann"),
        ],
    )
    careful = tmp_path / "careful.toml"
    careful.write_text('waves = ["any; 1; soak 60s"]\n')

    shown = run(f"rollout replay {GROUP} --policy {careful}").output

    assert "1.0.0 reached 4 machines" in shown
    assert "under this policy 1.0.0 would have reached 1 machine instead of 4, fewer" in shown
    assert "the rollout was halted by ann" in shown
    assert "no recorded rollout of 7.7.7" in run(f"rollout replay {GROUP} 7.7.7 --slots 2", code=1).output
    assert "Missing option '--policy' or '--slots'" in run(f"rollout replay {GROUP}", code=2).output


def test_the_default_policy_is_proved(run: Run) -> None:
    shown = run(f"policy verify {GROUP}").output

    assert "never fewer than 3 of 4 serve; with lost machines never fewer than 1" in shown
    assert "a bad release, a lost machine" in shown
    assert "left out: time and order" in shown


def test_a_bad_policy_leaves_with_1_and_the_steps(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("min_healthy = 3\nslots = 3\n")

    shown = run(f"policy verify {GROUP} --policy {bad} --strategy stop-first", code=1)
    found = json.loads(run(f"policy verify {GROUP} --policy {bad} --at-least 100% --json", code=1).output)

    assert "BROKEN 2 of 4 instances serve, and 3 must; stop-first, with a sidekick that stays away:" in shown.output
    assert "more can never swap at once" in shown.stderr
    assert "takes a turn, 1 of 3" in shown.output
    assert not found["holds"]
    assert 4 == found["required"]
    assert found["story"]
    assert "--at-least 5: the group has 4 instances" in run(f"policy verify {GROUP} --at-least 5", code=1).output
