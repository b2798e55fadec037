"""What is told of a rollout: activity, metrics, and the list of instances. Over a real etcd."""

import json

import pytest
import requests

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest, render_request
from outrider.core.rollout.policy_settings import Policy
from outrider.etcd.seam import Cluster
from outrider.model.activity import Activity
from outrider.model.keys import Keys
from outrider.service.history.activity_log import read_activity
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.rollouts.wakeups import look
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.store import utc_now
from tests.service.operations.test_metrics import of, scrape
from tests.support.service import Service
from tests.support.service_examples import APP, make_app
from tests.support.typing_verbs import lines, typist
from tests.support.waiting import eventually


@pytest.fixture
def api(service: Service) -> Service:
    make_app(service.store, version="2.0.0")
    return service


def sends(service: Service, instance: str, version: str, *events: OmahaEvent, check: bool = False) -> bytes:
    app = AppRequest(
        app_id=APP, version=version, track="beta", machine_id=instance, update_check=check, events=events
    )  # fmt: skip
    answer = requests.post(f"{service.url}/v1/update", data=render_request(OmahaRequest(apps=(app,))), timeout=30)
    assert 200 == answer.status_code
    return answer.content


def told(service: Service) -> list[Activity]:
    """What was told of policies and rollouts, oldest first."""
    records = [record for _, record in reversed(read_activity(service.store.context))]
    return [one for one in records if one.kind.startswith(("rollout-", "group-policy"))]


def test_a_roll_out_is_told_from_its_begin_over_a_halt_to_its_end(api: Service, cluster: Cluster) -> None:
    """
    1. a canary is granted and fails: the rollout begins and is halted
    2. a person resumes it; the same instance is granted again and comes to the version
    3. all that are known run it: the rollout is finished, and that is said once
    """
    activity_recorder = ActivityRecorder(cluster, Keys(api.prefix), utc_now)
    activity_recorder.start()
    eventually(lambda: activity_recorder._watch is not None)
    rollouts = api.store.rollouts

    rollouts.set_policy(APP, "beta", Policy(canary=1))
    sends(api, "web-1", "1.0.0", check=True)
    sends(api, "web-1", "1.0.0", OmahaEvent(type=3, result=0, error_code=44))
    rollouts.resume(APP, "beta", by="kim")
    sends(api, "web-1", "1.0.0", check=True)
    unfinished = look(api.store.context, GroupLock(), APP, "beta") and rollouts.get(APP, "beta").finished
    sends(api, "web-1", "2.0.0", OmahaEvent(type=3, result=2))
    for _ in range(2):
        look(api.store.context, GroupLock(), APP, "beta")

    eventually(lambda: "rollout-finished" in [one.kind for one in told(api)])
    activity_recorder.close()
    assert [
        ("group-policy", "info", "group beta has a new policy: canary 1"),
        ("rollout-started", "info", "the rollout of 2.0.0 to group beta began"),
        ("rollout-halted", "error",
         "the rollout of 2.0.0 to group beta was halted: a canary failed: web-1: rolled back (error code 44)"),
        ("rollout-resumed", "info", "the rollout of 2.0.0 to group beta was resumed by kim"),
        ("rollout-finished", "success", "the rollout of 2.0.0 to group beta is finished: 1 updated"),
    ] == [(one.kind, one.severity, one.text) for one in told(api)]  # fmt: skip
    assert unfinished is None


def test_one_that_lags_behind_keeps_a_roll_out_from_being_finished(api: Service) -> None:
    api.store.rollouts.set_policy(APP, "beta", Policy(percent=100, max_in_progress=1))
    sends(api, "web-1", "1.0.0", check=True)
    sends(api, "web-2", "1.0.0", OmahaEvent(type=3, result=2))
    sends(api, "web-1", "2.0.0", OmahaEvent(type=3, result=2))
    look(api.store.context, GroupLock(), APP, "beta")
    lagging = api.store.rollouts.get(APP, "beta").finished
    sends(api, "web-2", "2.0.0", check=True)
    look(api.store.context, GroupLock(), APP, "beta")

    assert lagging is None
    assert api.store.rollouts.get(APP, "beta").finished is not None


def test_grants_holds_and_the_roll_out_are_counted(api: Service) -> None:
    api.store.rollouts.set_policy(APP, "beta", Policy(max_in_progress=1))
    before = scrape(api.url)
    for name in ("web-1", "web-1", "web-2", "web-3"):
        sends(api, name, "1.0.0", check=True)
    eventually(lambda: of(scrape(api.url), "outrider_deferred", by="max-in-progress"))
    fresh = scrape(api.url)

    assert of(before, "outrider_rollout_age_seconds") is None
    assert 1 == of(fresh, "outrider_grants_total")
    assert 2 == of(fresh, "outrider_deferrals_total", by="max-in-progress")
    assert 2 == of(fresh, "outrider_deferred", by="max-in-progress")
    assert 1 == of(fresh, "outrider_updates_under_way")
    assert (1, 0) == tuple(of(fresh, "outrider_rollout_state", state=state) for state in ("running", "halted"))
    assert 0 == of(fresh, "outrider_rollout_failed")
    assert 0 <= (of(fresh, "outrider_rollout_age_seconds") or -1) < 60


def test_a_held_instance_is_listed_with_its_reason_and_one_that_goes_on_without(api: Service) -> None:
    api.store.rollouts.set_policy(APP, "beta", Policy(max_in_progress=1))
    sends(api, "web-1", "1.0.0", check=True)
    answer = sends(api, "web-2", "1.0.0", check=True)
    run = typist(api)
    header, granted, deferred = lines(run(f"instance list-updates --app-id={APP}").stdout)
    why = run(f"why {APP} web-2").stdout
    status, facts = run(f"status {APP}").stdout, json.loads(run(f"status {APP} --json").stdout)
    sends(api, "web-1", "2.0.0", OmahaEvent(type=3, result=2))
    sends(api, "web-2", "1.0.0", check=True)
    _, _, then = lines(run(f"instance list-updates --app-id={APP}").stdout)

    assert b'status="noupdate"' in answer
    assert b"1 of 1 in progress: web-1" in answer
    assert "1 of 1 in progress: web-1; first in line" in why
    assert "target: 2.0.0; rollout of 2.0.0: running; 0 done, 1 under way, 1 deferred;" in status
    assert ["web-2"] == facts[0]["deferred"]
    assert "Why" == header[-1]
    assert ["update-granted", "2.0.0"] == granted[5:]
    assert "on-hold 1 of 1 in progress: web-1" == " ".join(deferred[5:])
    assert ["update-granted", "2.0.0"] == then[5:]
