"""The verbs of policies and rollouts against the running service."""

import json
import re

import pytest

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest
from outrider.core.rollout.calendar import Freeze
from outrider.core.rollout.policy_settings import Policy, Rate
from outrider.core.rollout.windows import Window
from outrider.service.rollouts.checkins import Caller, Checkins
from tests.support.service import Service
from tests.support.service_examples import APP, make_app
from tests.support.typing_verbs import Run, lines, typist

WORDS = f"--app-id={APP} --group-id=beta"


@pytest.fixture
def run(service: Service) -> Run:
    make_app(service.store, version="2.0.0")
    return typist(service)


def checks(service: Service, *instances: str, events: tuple[OmahaEvent, ...] = ()) -> None:
    for instance in instances:
        app = AppRequest(
            app_id=APP, version="1.0.0", track="beta", machine_id=instance, update_check=not events, events=events
        )  # fmt: skip
        Checkins(context=service.store.context).answer(
            OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x")
        )


def policy_of(service: Service) -> Policy:
    return service.store.rollouts.policy(APP, "beta")


def test_every_setting_is_set_by_its_option_and_shown(run: Run, service: Service) -> None:
    shown = run(
        f"group policy {WORDS} --disabled --max-per-interval=1/5m --max-in-progress=2 --percent=12.5 --canary=1 "
        "--window='fri,sat 22:00-04:00' --window=01:00-02:00 --time-zone=Europe/Berlin --update-timeout=30m "
        "--max-failures=2 --count-new --ignore-timeouts --min-healthy=3 --pin=1.2 --downgrade=asked "
        "--deny-window='fri 12:00-24:00' --freeze='2026-12-20..2027-01-03 the holidays' --freeze=2026-11-27 "
        "--approval --approve-after=4h"
    )

    assert policy_of(service) == Policy(
        enabled=False,
        max_per_interval=Rate(count=1, interval_s=300),
        max_in_progress=2,
        percent=12.5,
        canary=1,
        windows=(Window(days=("fri", "sat"), opens="22:00", closes="04:00"), Window(opens="01:00", closes="02:00")),
        time_zone="Europe/Berlin",
        update_timeout_s=1800,
        max_failures=2,
        count_new=True,
        count_timeouts=False,
        min_healthy=3,
        pin="1.2",
        deny_windows=(Window(days=("fri",), opens="12:00", closes="24:00"),),
        freezes=(
            Freeze(begins="2026-12-20", ends="2027-01-03", why="the holidays"),
            Freeze(begins="2026-11-27", ends="2026-11-27"),
        ),
        approval=True,
        approve_after_s=14_400,
        downgrade="asked",
    )
    assert ["pin", "1.2"] in lines(shown.stdout)


def test_options_take_back_what_options_set_and_leave_the_rest(run: Run, service: Service) -> None:
    limits = ("max-per-interval=1/5m", "max-in-progress=2", "window=01:00-02:00", "pin=1", "max-failures=1")

    run(f"group policy {WORDS} " + " ".join(f"--{limit}" for limit in limits))
    run(f"group policy {WORDS} --canary=1")
    run(f"group policy {WORDS} " + " ".join(f"--{limit.partition('=')[0]}=none" for limit in limits))
    run(f"group policy {WORDS} --set canary=2")

    assert Policy(canary=2) == policy_of(service)


def test_what_cannot_work_is_a_note_and_what_cannot_be_is_an_error(run: Run, service: Service) -> None:
    noted = run(f"group policy {WORDS} --update-timeout=5s")
    refused = run(f"group policy {WORDS} --time-zone=Mars/Olympus", code=1)
    not_a_day = run(f"group policy {WORDS} --window='noday 01:00-02:00'", code=1)

    assert "note: update_timeout_s 5: shorter than drain" in noted.stderr
    assert "time zone 'Mars/Olympus': unknown" in refused.stderr
    assert "days" in not_a_day.stderr
    assert Policy(update_timeout_s=5) == policy_of(service)


def test_updatectls_own_verbs_set_the_policy(run: Run, service: Service) -> None:
    said = run(f"group percent {WORDS} --update-percent=25")
    run(f"group update {WORDS} --update-count=1 --update-interval=300")

    assert "update percent set to 25.000000\n" == said.stdout
    assert Policy(percent=25, max_per_interval=Rate(count=1, interval_s=300)) == policy_of(service)


def test_a_linear_rollout_spreads_the_instances_that_checked_in(run: Run, service: Service) -> None:
    checks(service, *(f"web-{number}" for number in range(20)))

    said = run(f"rollout create linear {WORDS} --frame-size=60 --duration=600")

    assert "rollout set: 2 of 20 instances every 60 seconds\n" == said.stdout
    assert Rate(count=2, interval_s=60) == policy_of(service).max_per_interval


def test_a_roll_out_is_shown_and_listed(run: Run, service: Service) -> None:
    run(f"group policy {WORDS} --max-in-progress=1")
    checks(service, "web-1", "web-2")

    shown = lines(run(f"rollout {WORDS}").stdout)
    header, row = lines(run(f"rollout list --app-id={APP}").stdout)
    (facts,) = json.loads(run(f"rollout list --app-id={APP} --json").stdout)

    assert ["state", "running"] in shown
    assert ["Group", "Version", "State", "Done", "UnderWay", "Deferred", "Failed", "Why"] == header
    assert ["beta", "2.0.0", "running", "0", "1", "1", "0"] == row
    assert (["web-1"], ["web-2"]) == ([one["instance"] for one in facts["opened"]], facts["waiting"])


@pytest.mark.parametrize(
    ("stop", "state", "go"),
    [("pause", "paused", "resume"), ("halt", "halted", "resume"), ("deactivate", "paused", "activate")],
)
def test_a_roll_out_is_stopped_with_a_reason_that_instances_are_told(
    run: Run, service: Service, stop: str, state: str, go: str
) -> None:
    run(f"rollout {stop} {WORDS} --why='it burns'")
    stopped = service.store.rollouts.get(APP, "beta")
    checks(service, "web-1")
    held = service.store.fleet.instance(APP, "web-1")
    run(f"rollout {go} {WORDS}")
    checks(service, "web-1")

    assert (state, "it burns") == (stopped.state, stopped.why)
    assert stopped.by
    assert ("on-hold", f"rollout of 2.0.0 is {state} by {stopped.by}: it burns") == (held.status, held.why)
    assert "update-granted" == service.store.fleet.instance(APP, "web-1").status


def test_a_roll_out_that_the_policy_halted_goes_on_when_a_person_says_so(run: Run, service: Service) -> None:
    run(f"group policy {WORDS} --max-failures=1")
    checks(service, "web-1")
    checks(service, "web-1", events=(OmahaEvent(type=3, result=0, error_code=44),))
    (halted,) = json.loads(run(f"rollout list --app-id={APP} --json").stdout)
    run(f"rollout resume {WORDS}")
    (resumed,) = json.loads(run(f"rollout list --app-id={APP} --json").stdout)

    assert ("halted", "1 failed (max_failures 1): web-1: rolled back (error code 44)", "") == (
        halted["state"], halted["why"], halted["by"],
    )  # fmt: skip
    assert ("running", []) == (resumed["state"], resumed["failures"])


def test_a_release_is_approved_and_rejected_with_a_question_first(run: Run, service: Service) -> None:
    run(f"group policy {WORDS} --approval")
    checks(service, "web-1")
    waiting = lines(run(f"rollout {WORDS}").stdout)
    unsure = run(f"rollout approve {WORDS}", code=1, typing="n\n")
    unjudged = service.store.rollouts.get(APP, "beta").approval
    approved = run(f"rollout approve {WORDS} --why='seen on staging'", typing="y\n")
    other = run(f"rollout reject {WORDS} --version=9.9.9", code=1)
    rejected = run(f"rollout reject {WORDS} --version=2.0.0 --why='not yet'")
    shown = dict(lines(run(f"rollout {WORDS}").stdout)[-2:-1])

    assert ["waits_for_approval", "yes"] in waiting
    assert "Approve 2.0.0 for group beta? 1 instances wait for it" in unsure.stderr
    assert unjudged is not None
    assert unjudged.verdict is None
    assert approved.stdout == "2.0.0 is approved\n"
    assert "the target of group 'beta' is 2.0.0 by now, not 9.9.9" in other.stderr
    assert rejected.stdout == "2.0.0 is rejected\n"
    assert re.fullmatch(r"rejected by \S+: not yet", shown["approval"])
    assert "rejected: not yet" == service.store.rollouts.get(APP, "beta").why


def test_an_emergency_has_a_reason_and_an_end(run: Run, service: Service) -> None:
    run(f"group policy {WORDS} --deny-window=00:00-24:00")
    reasonless = run(f"rollout override {WORDS}", code=2)
    declared = run(f"rollout override {WORDS} --why='CVE-2026-1234' --for=30m")
    override = service.store.rollouts.get(APP, "beta").override
    checks(service, "web-1")
    granted = service.store.fleet.instance(APP, "web-1").status
    ended = run(f"rollout override {WORDS} --end")

    assert "an emergency needs a reason" in reasonless.stderr
    assert declared.stdout.startswith("group beta goes on until 2")
    assert override is not None
    assert ("CVE-2026-1234", 1800) == (override.why, (override.until - override.at).total_seconds())
    assert "update-granted" == granted
    assert ended.stdout == "group beta heeds its windows and freezes again\n"
    assert service.store.rollouts.get(APP, "beta").override is None


def test_floors_and_exclusions_are_set_listed_and_taken_back(run: Run, service: Service) -> None:
    of = f"--app-id={APP} --channel=beta"
    set_ = run(f"channel floor set {of} --version=1.0.0 --reason='migrates the schema'")
    listed = run(f"channel floor list {of} --json")
    removed = run(f"channel floor remove {of} --version=1.0.0")
    run(f"channel exclude add {of} --version=1.0.0")
    refused = run(f"channel update {of} --version=1.0.0", code=1)
    excluded = run(f"channel exclude list {of}")
    again = run(f"channel exclude remove {of} --version=1.0.0")

    assert [["Version", "Reason"], ["1.0.0", "migrates the schema"]] == lines(set_.stdout)
    assert [{"version": "1.0.0", "reason": "migrates the schema"}] == json.loads(listed.stdout)
    assert [["Version", "Reason"]] == lines(removed.stdout) == lines(again.stdout)
    assert [["Version", "Reason"], ["1.0.0"]] == lines(excluded.stdout)
    assert "excludes" in refused.stderr


def test_product_ids_and_architectures_are_set(run: Run, service: Service) -> None:
    run(f"app update --app-id={APP} --product-id=io.example.web")
    run("app create --app-id=other --product-id=io.example.other")
    taken = run("app update --app-id=other --product-id=io.example.web", code=1)
    run(
        f"package create --app-id={APP} --version=2.1.0 --url=http://files.example/web.tar --size=6 "
        f"--sha256={'ab' * 32} --arch=arm64 --optional"
    )

    package = service.store.packages.get(APP, "2.1.0")
    assert "io.example.web" == service.store.apps.get(APP).product_id
    assert f"product id 'io.example.web' already belongs to app {APP}" in taken.stderr
    assert ("aarch64", False) == (package.arch, package.required)


def test_a_group_without_an_offer_has_no_roll_out_to_stop(run: Run, service: Service) -> None:
    service.store.groups.create(APP, "empty", channel="nothing-yet")

    refused = run(f"rollout pause --app-id={APP} --group-id=empty", code=1)

    assert "group 'empty' has no target, so there is no rollout to pause" in refused.stderr
