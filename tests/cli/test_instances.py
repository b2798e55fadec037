"""Instances by the verbs: lists, counts over time, histories, and simulated ones against the real service."""

import json
import signal
from datetime import timedelta

import pytest

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest
from outrider.model.documents import Instance, encode
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.store.context import StoreContext
from tests.support.service import NOON, Service, WallClock
from tests.support.service_examples import APP, make_app, put
from tests.support.typing_verbs import Run, lines, typist

OTHER = "io.example.web"


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


def check_in(
    service: Service, instance: str, version: str, *events: str, after_s: float = 0, group: str = "beta"
) -> None:
    """One request of an instance, some time after noon."""
    clock = WallClock()
    clock.advance(after_s)
    known = service.store.context
    context = StoreContext(cluster=known.cluster, keys=known.keys, now=clock)
    happened = tuple(OmahaEvent(type=int(kind), result=int(result)) for kind, result in (e.split(":") for e in events))
    app = AppRequest(app_id=APP, version=version, track=group, machine_id=instance, ping=True, events=happened)
    Checkins(context=context).answer(OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x"))


@pytest.fixture
def fleet(service: Service) -> Service:
    make_app(service.store)
    service.store.groups.create(APP, "canary", channel="beta")
    service.store.apps.create(app=OTHER, label="")
    check_in(service, "web-1", "1.0.0", "3:2")
    check_in(service, "web-2", "1.0.0", "3:2", after_s=30)
    check_in(service, "web-1", "1.0.0", "13:1", after_s=90)
    check_in(service, "web-1", "2.0.0", "3:2", after_s=3700)
    check_in(service, "web-3", "1.0.0", "3:0", after_s=4000, group="canary")
    return service


def test_without_an_app_the_instances_of_all_are_listed(run: Run, fleet: Service) -> None:
    rows = lines(run("instance list-updates").stdout)[1:]

    assert [[APP, "web-1"], [APP, "web-2"], [APP, "web-3"]] == [row[:2] for row in rows]


def test_more_instances_than_a_page_holds_are_all_listed(run: Run, service: Service) -> None:
    make_app(service.store)
    context = service.store.context
    for number in range(230):
        row = Instance(app=APP, id=f"web-{number:03}", group="beta", version="1.0.0", first_seen=NOON, last_seen=NOON)
        put(context.cluster, context.keys.instance(APP, row.id), encode(row))

    rows = json.loads(run(f"instance list-updates --app-id={APP} --json").stdout)
    counted = json.loads(run("instance list-app-versions --json").stdout)

    assert [f"web-{number:03}" for number in range(230)] == [row["id"] for row in rows]
    assert [230] == [one["clients"] for one in counted]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--group-id=canary", ["web-3"]),
        (f"--start={int(NOON.timestamp()) + 3600}", ["web-1", "web-3"]),
        ("--end=2026-11-23T13:00:00Z", ["web-2"]),
        ("--end=2026-11-23T14:00:00+01:00", ["web-2"]),
        ("--start=0 --end=0", ["web-1", "web-2", "web-3"]),
        (f"--app-id={OTHER}", []),
    ],
)
def test_instances_are_chosen_by_group_and_by_when_they_were_seen(
    run: Run, fleet: Service, options: str, names: list[str]
) -> None:
    rows = json.loads(run(f"instance list-updates --json {options}").stdout)

    assert names == [row["id"] for row in rows]


def test_a_time_that_is_none_is_wrong_usage(run: Run, fleet: Service) -> None:
    assert "write seconds since 1970" in run("instance list-updates --start=noon", code=2).stderr


def test_versions_are_counted_by_app_and_group(run: Run, fleet: Service) -> None:
    table = lines(run("instance list-app-versions").stdout)
    canary = json.loads(run(f"instance list-app-versions --app-id={APP} --group-id=canary --json").stdout)

    assert ["AppID", "GroupID", "Version", "Clients"] == table[0]
    assert [[APP, "beta", "1.0.0", "1"], [APP, "beta", "2.0.0", "1"], [APP, "canary", "1.0.0", "1"]] == table[1:]
    assert [{"app": APP, "group": "canary", "version": "1.0.0", "clients": 1}] == canary


def test_an_instances_history_says_what_each_event_means(run: Run, fleet: Service) -> None:
    table = lines(run(f"instance history {APP} web-1").stdout)
    facts = json.loads(run(f"instance history {APP} web-1 --json").stdout)

    assert ["Time", "Version", "Event", "Meaning", "ErrorCode"] == table[0]
    assert [["1.0.0", "3:2", "running"], ["1.0.0", "13:1", "downloading"], ["2.0.0", "3:2", "running"]] == [
        row[1:] for row in table[1:]
    ]
    assert ["3:2", "13:1", "3:2"] == [line["event"] for line in facts]
    assert "no instance 'web-9'" in run(f"instance history {APP} web-9", code=1).stderr


def test_a_groups_events_are_counted_by_minute_hour_or_day(run: Run, fleet: Service) -> None:
    noon = int(NOON.timestamp())
    by_minute = lines(run(f"group events --app-id={APP} --group-id=beta").stdout)
    by_day = json.loads(run(f"group events --app-id={APP} --group-id=beta --resolution=86400 --json").stdout)
    early = lines(run(f"group events --app-id={APP} --group-id=beta --end={noon + 60}").stdout)

    assert ["Version", "Type", "Result", "Timestamp", "Count"] == by_minute[0]
    assert [
        ["1.0.0", "13", "1", str(noon + 60), "1"],
        ["1.0.0", "3", "2", str(noon), "2"],
        ["2.0.0", "3", "2", str(noon + 3660), "1"],
    ] == by_minute[1:]
    midnight = noon - 12 * 3600
    assert [("1.0.0", "13", 1), ("1.0.0", "3", 2), ("2.0.0", "3", 1)] == [
        (one["version"], one["type"], one["count"]) for one in by_day
    ]
    assert {midnight} == {one["timestamp"] for one in by_day}
    assert [["1.0.0", "3", "2", str(noon), "2"]] == early[1:]


def test_a_groups_versions_count_instances_not_requests(run: Run, fleet: Service) -> None:
    noon = int(NOON.timestamp())

    table = lines(run(f"group versions --app-id={APP} --group-id=beta --resolution=3600").stdout)

    assert ["Version", "Timestamp", "Count"] == table[0]
    assert [["1.0.0", str(noon), "2"], ["2.0.0", str(noon + 3600), "1"]] == table[1:]


@pytest.mark.parametrize("verb", ["versions", "events"])
def test_counts_of_a_group_that_is_not_there_are_an_error(run: Run, fleet: Service, verb: str) -> None:
    assert "has no group 'absent'" in run(f"group {verb} --app-id={APP} --group-id=absent", code=1).stderr


def test_json_of_commands_and_deletions(run: Run, fleet: Service) -> None:
    left = json.loads(run(f"instance pause {APP} web-1 --json").stdout)
    gone = json.loads(run(f"instance delete {APP} web-1 --json").stdout)
    channel = json.loads(run(f"channel create --app-id={APP} --channel=spare --json").stdout)
    deleted = json.loads(run(f"channel delete --app-id={APP} --channel=spare --json").stdout)

    assert ["pause"] == [one["verb"] for one in left]
    assert ["web-1"] == [one["id"] for one in gone]
    assert ["spare"] == [one["name"] for one in deleted] == [one["name"] for one in channel]


def test_simulated_instances_update_and_are_listed(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")

    before = signal.getsignal(signal.SIGINT)
    result = run(
        f"instance fake --app-id={APP} --group-id=beta --clients-per-app=5 --version=1.0.0 "
        "--min-sleep=0 --max-sleep=0.1 --errorrate=0 --updates=1 --oem=lab"
    )
    rows = lines(run(f"instance list-updates --app-id={APP}").stdout)[1:]

    assert before == signal.getsignal(signal.SIGINT)
    assert "5 clients: 5 checks, 5 updates, 0 failures" == result.stdout.splitlines()[-1]
    assert 5 == sum("updated from 1.0.0 to 2.0.0" in line for line in result.stdout.splitlines())
    assert [("2.0.0", "beta", "lab", "complete")] * 5 == [(row[2], *row[4:7]) for row in rows]
    assert all(row[1].startswith("deadbeef") for row in rows)
    history = [line["event"] for line in json.loads(run(f"instance history {APP} {rows[0][1]} --json").stdout)]
    assert ["3:2", "13:1", "14:1", "3:1", "3:2"] == history


def test_simulated_instances_show_their_words_when_asked(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    words = f"--app-id={APP} --group-id=beta --clients-per-app=1 --min-sleep=0 --max-sleep=0 --errorrate=0 --updates=1"

    result = run(f"instance fake {words} --verbose --force-update")

    assert '<request protocol="3.0" installsource="ondemandupdate">' in result.stdout
    assert '<updatecheck status="ok">' in result.stdout


def test_a_fake_that_sleeps_backwards_is_wrong_usage(run: Run) -> None:
    assert "longer than" in run("instance fake --app-id=x --group-id=y --min-sleep=5 --max-sleep=1", code=2).stderr


def test_a_bench_counts_what_the_service_answered(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")

    words = f"--app-id={APP} --group-id=beta --seconds=1 --clients-per-app=4 --version=1.0.0"
    facts = json.loads(run(f"instance bench {words} --json").stdout)
    rows = service.store.fleet.instances(APP)

    assert facts["answers"] == facts["offers"] == len(rows) > 0
    assert 0 == facts["errors"]
    assert facts["per_second"] == pytest.approx(facts["answers"] / facts["seconds"], rel=0.01)
    assert {"deadbeefdeadbeef"} == {row.id[:16] for row in rows}
    assert all(timedelta(0) <= row.last_seen - row.first_seen for row in rows)


def test_a_bench_of_nothing_is_an_error(run: Run) -> None:
    result = run("instance bench --app-id=x --group-id=y --seconds=0.3 --server=http://127.0.0.1:1", code=1)

    assert "gave no answer; check --server" in result.stderr
