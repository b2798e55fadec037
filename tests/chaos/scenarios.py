"""What brings a sidekick to a failpoint: what is prepared, what is released, and how it must end."""

import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from outrider.core.errors import Conflict
from outrider.demo.fleet import APP_ID, GROUP, SERVICE, workloads
from outrider.etcd.seam import Delete
from outrider.model.documents import decode
from outrider.model.history import LocalSteps
from outrider.model.keys import group_scope
from outrider.model.tasks import Task
from outrider.runtimes import RunnableRelease, WorkloadSpec
from outrider.turns.turns import free_turn, read_scope
from tests.chaos.fixture import TTL_S, ChaosFixture
from tests.support.waiting import eventually

Deed = Callable[["CaseRun"], None]


def nothing(case_run: "CaseRun") -> None:
    """Nothing besides."""


@dataclass(slots=True)
class CaseRun:
    """One case as it goes.

    Attributes:
        armed: The instance whose sidekick is armed.
        wanted: The version that all shall run in the end.
        bad: Versions that must be blocked in the end.
    """

    fixture: ChaosFixture
    armed: str
    wanted: str
    bad: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A way to a failpoint.

    Attributes:
        prepare: Before the armed sidekick is started; the ordinary one has been stopped.
        first: EFFECT/FAILPOINT:WHEN where the armed sidekick's first life ends by SIGKILL; empty for one life.
        between: After that first life, before the second.
        release: Once the fleet is at rest again with the armed sidekick in it.
        barrier: EFFECT/FAILPOINT before which ``at_barrier`` happens.
        repair_when: What must be true before that; dead sidekicks are restarted meanwhile.
        ends_when: What must be true besides at its end.
        repair: After the fault: what belongs to the scenario, not to the repair of the fault.
        slots, racks: Turns at once, and whether at most one of each rack may be out; see ``auditor.Rules``.
        spoils: What it leaves behind is in the way of other scenarios: the fixture is made anew.
        freed, apps_die, leaves: See ``auditor.Rules``; the armed instance leaves.
        options: Of the armed sidekick, besides.
        settles: Whether the armed sidekick comes to rest before the release: not when its start is the case.
        goes_first: The other sidekicks stand still until the armed one has the turn: only one meets a bad release.
    """

    prepare: Deed = nothing
    first: str = ""
    between: Deed = nothing
    release: Deed = nothing
    barrier: str = ""
    at_barrier: Deed = nothing
    repair_when: Callable[[CaseRun], bool] = lambda case_run: True
    ends_when: Callable[[CaseRun], bool] = lambda case_run: True
    repair: Deed = nothing
    freed: bool = False
    apps_die: bool = False
    leaves: bool = False
    options: tuple[str, ...] = ()
    settles: bool = True
    goes_first: bool = False
    slots: int = 1
    racks: bool = False
    spoils: bool = False


def _good(case_run: CaseRun) -> None:
    case_run.wanted = case_run.fixture.release("good")


def _good_in_racks(case_run: CaseRun) -> None:
    """Two turns for three instances, two of which share a rack: one of these waits for the other."""
    where = (f"--app-id={APP_ID}", f"--group-id={GROUP}")
    case_run.fixture.outrider("group", "update", *where, "--slots=2")
    case_run.fixture.outrider("group", "policy", *where, "--budget=at most 1 per rack")
    case_run.wanted = case_run.fixture.release("good")


def _change_the_environment(case_run: CaseRun) -> None:
    """The same version with another variable: a release like any other."""
    case_run.fixture.outrider("env", "set", f"{APP_ID}/{GROUP}", "COLOUR=blue")


def _has_the_environment(case_run: CaseRun) -> bool:
    wanted = f"{case_run.wanted} with environment 1"
    return all(one.release == wanted for one in case_run.fixture.presences().values())


def _bad(kind: str) -> Deed:
    def release(case_run: CaseRun) -> None:
        case_run.bad.add(case_run.fixture.release(kind))

    return release


def _rob(case_run: CaseRun) -> None:
    """An operator takes the armed sidekick's turn away."""
    fixture, scope = case_run.fixture, group_scope(APP_ID, GROUP)
    seen = read_scope(fixture.cluster, fixture.keys, scope)
    slot = seen.slot_of(case_run.armed)
    assert slot is not None, f"{case_run.armed} has no turn to be robbed of"
    free_turn(fixture.cluster, fixture.keys, scope, seen, slot.number, who="chaos", at=datetime.now(UTC))


def _move_on(case_run: CaseRun) -> None:
    """The target moves on while the armed sidekick is about to take its turn."""
    case_run.wanted = case_run.fixture.release("good")


def _pause(case_run: CaseRun) -> None:
    """An operator pauses the armed sidekick while it is about to take its turn; it has heard of that."""
    case_run.fixture.say(case_run.armed, "pause")

    def heard() -> bool:
        return case_run.fixture.records(case_run.armed)[-1].target == "swapping.withdrawing"

    eventually(heard)


def _resume(case_run: CaseRun) -> None:
    case_run.fixture.say(case_run.armed, "resume")


def _pause_and_resume(case_run: CaseRun) -> None:
    case_run.fixture.say(case_run.armed, "pause")
    case_run.wanted = case_run.fixture.release("good")


def _decommission(case_run: CaseRun) -> None:
    """The armed instance leaves for good, and can be seen to: until then the fleet looks as it shall in the end."""
    fixture, armed = case_run.fixture, case_run.armed
    fixture.say(armed, "decommission")

    def leaves() -> bool:
        presence = fixture.presences().get(armed)
        return presence is None or presence.state != "idle.waiting"

    eventually(leaves, within_s=60.0)


def _has_gone(case_run: CaseRun) -> bool:
    return case_run.fixture.cluster.get(case_run.fixture.keys.gone(APP_ID, case_run.armed)) is not None


def _admit(case_run: CaseRun) -> None:
    """It is let back, and installs what the group runs."""
    case_run.fixture.client.post("apps", APP_ID, "instances", case_run.armed, "admit", body={})


def _end_apps(case_run: CaseRun) -> None:
    case_run.fixture.end_apps(case_run.armed)


def _leave_a_stray(case_run: CaseRun) -> None:
    """A workload that nobody knows, as an earlier bug or a hand may leave."""
    state_dir = case_run.fixture.state_dir(case_run.armed)
    payload = next(iter(sorted((state_dir / "payloads").glob("*.payload"))))
    from outrider.config.sections import WorkloadSettings
    from outrider.runtimes.process import ProcessSettings
    from outrider.runtimes.process.runtime import ProcessRuntime

    command = ("python3", "server.py")
    runtime = ProcessRuntime(
        ProcessSettings(command=command), WorkloadSettings(), state_dir=state_dir, instance=case_run.armed
    )
    release = RunnableRelease(version="0.0.1", sha256=payload.stem, payload=payload)
    try:
        runtime.start(WorkloadSpec(workload_id=f"{case_run.armed}-stray", release=release))
    finally:
        runtime.close()
    with workloads(state_dir) as seen:
        assert any("stray" in one.workload_id for one in seen.running())


def _remove_a_static_key(case_run: CaseRun) -> None:
    """One without which Traefik goes on, as long as there are servers."""
    key = f"traefik/http/services/{SERVICE}/loadbalancer/passhostheader"
    case_run.fixture.cluster.txn((), (Delete(key=key),))


def _wrong(case_run: CaseRun) -> None:
    """A payload that isn't what was promised; the next release is."""
    fixture, version = case_run.fixture, case_run.fixture.next_version()
    content = fixture.folder / f"wrong-{version}.tar"
    content.write_bytes(b"x" * 4000)
    with content.open("rb") as file:
        stored = fixture.client.upload(file)
    content.unlink()
    path = f"{fixture.service_url}/packages/{APP_ID}/{version}-as-stored/{content.name}"
    fixture.client.post(
        *("apps", APP_ID, "packages"),
        body={"version": f"{version}-as-stored", "stored": stored["sha256"], "name": content.name},
    )
    fixture.client.post(
        *("apps", APP_ID, "packages"),
        body={"version": version, "url": path, "size_bytes": 4000, "sha256": hashlib.sha256(b"y").hexdigest()},
    )
    fixture.point_at(version)


def _lapse(case_run: CaseRun) -> None:
    """The armed sidekick loses its lease, and etcd comes back."""
    proxy = case_run.fixture.proxies[case_run.armed]
    proxy.cut("refuse")
    until = time.monotonic() + TTL_S + 1.0
    eventually(lambda: time.monotonic() > until, within_s=TTL_S + 5.0)
    proxy.heal()


def _old_program(case_run: CaseRun) -> Path:
    """The program of the version that a rollback of the armed sidekick brings back."""
    workload: str = case_run.fixture.records(case_run.armed)[-1].memory["running"]["workload_id"]
    return case_run.fixture.state_dir(case_run.armed) / "workloads" / workload / "root/server.py"


def _hide_the_old_program(case_run: CaseRun) -> None:
    """The old version can't start, until it is mended: its rollback is stuck."""
    program = _old_program(case_run)
    program.rename(program.with_suffix(".hidden"))


def _give_the_old_program_back(case_run: CaseRun) -> None:
    program = _old_program(case_run)
    program.with_suffix(".hidden").rename(program)


def _release_with_a_task(case_run: CaseRun) -> None:
    """The task leaves a line each time that it is begun."""
    fixture, version = case_run.fixture, case_run.fixture.next_version()
    command = ["/bin/sh", "-c", f"echo begun >> {_begun(fixture, version)}; sleep 0.5"]
    fixture.upload(version, "good", [{"name": "migrate", "kind": "pre", "command": command}])
    fixture.point_at(version)
    case_run.wanted = version


def _begun(fixture: ChaosFixture, version: str) -> Path:
    return fixture.folder / f"begun-{version}"


def _look_after_the_task(case_run: CaseRun) -> None:
    """It is begun once, whatever befell its runner, and never lost: done, or unknown until an operator has looked."""
    fixture, retries = case_run.fixture, 0
    place = ("apps", APP_ID, "groups", GROUP, "tasks", case_run.wanted, "migrate")

    def is_over() -> bool:
        nonlocal retries
        path = _begun(fixture, case_run.wanted)
        begun = len(path.read_text().splitlines()) if path.exists() else 0
        assert begun <= 1 + retries, f"the task was begun {begun} times, and retried {retries} times"
        state = fixture.client.get(*place)["state"]
        if state == "unknown":
            try:
                fixture.client.post(*place, "retry", body={"by": "chaos", "why": "nobody knows how far it came"})
                retries += 1
            except Conflict:  # its runner came back and has told
                return False
        return bool(state == "done")

    eventually(is_over, within_s=120.0, every_s=0.2)


def _is_told(case_run: CaseRun) -> bool:
    """Each instance has told the steps of its update: once, and once after a start."""
    fixture = case_run.fixture
    for instance in fixture.instances:
        key = fixture.keys.steps(APP_ID, GROUP, instance)
        entry = fixture.cluster.get(key)
        if entry is None or decode(LocalSteps, key, entry.value).version != case_run.wanted:
            return False
    return True


_FOLLOWING = tuple(f"after-{number}" for number in range(12))
"""So many that each of three instances has one of them to run, all but surely."""


def _release_that_is_followed(case_run: CaseRun) -> None:
    """Tasks that run once the group has the release; each leaves a line with its name when it is begun."""
    fixture, version = case_run.fixture, case_run.fixture.next_version()
    command = ["/bin/sh", "-c", f"echo $OUTRIDER_TASK >> {_begun(fixture, version)}"]
    fixture.upload(version, "good", [{"name": name, "kind": "post", "command": command} for name in _FOLLOWING])
    fixture.point_at(version)
    case_run.wanted = version


def _is_followed(case_run: CaseRun) -> bool:
    """All that follows is done. Asked of etcd's own, for the service may be away for a moment."""
    fixture, done = case_run.fixture, set[str]()
    for entry in fixture.cluster.list(fixture.keys.all_tasks()).entries:
        task = decode(Task, entry.key, entry.value)
        if (task.version, task.state) == (case_run.wanted, "done"):
            done.add(task.name)
    return done == set(_FOLLOWING)


def _look_after_what_follows(case_run: CaseRun) -> None:
    """Each is begun once, whatever befell its runner, and none is lost."""
    fixture, retries = case_run.fixture, Counter[str]()
    place = ("apps", APP_ID, "groups", GROUP, "tasks")

    def are_over() -> bool:
        path = _begun(fixture, case_run.wanted)
        begun = Counter(path.read_text().split() if path.exists() else ())
        for name, times in begun.items():
            assert times <= 1 + retries[name], f"task {name} was begun {times} times, and retried {retries[name]} times"
        found = [one for one in fixture.client.get_all(*place) if one["version"] == case_run.wanted]
        for one in found:
            if one["state"] == "unknown":
                with contextlib.suppress(Conflict):  # its runner came back and has told
                    said = {"by": "chaos", "why": "nobody knows how far it came"}
                    fixture.client.post(*place, case_run.wanted, one["name"], "retry", body=said)
                    retries[one["name"]] += 1
        return {one["name"] for one in found if one["state"] == "done"} == set(_FOLLOWING)

    eventually(are_over, within_s=180.0, every_s=0.2)


_SOURING = _bad("souring")
_RELOCK = "lock.retake/turn.read"

SCENARIOS: Mapping[str, Scenario] = {
    "good": Scenario(release=_good),
    "good-2": Scenario(release=_good),
    "told": Scenario(release=_good, ends_when=_is_told),
    "tasked": Scenario(goes_first=True, release=_release_with_a_task, repair=_look_after_the_task),
    "followed": Scenario(release=_release_that_is_followed, ends_when=_is_followed, repair=_look_after_what_follows),
    "unhealthy": Scenario(goes_first=True, release=_bad("unhealthy")),
    "unhealthy-2": Scenario(goes_first=True, release=_bad("unhealthy")),
    "stuck-2": Scenario(
        goes_first=True,
        release=_bad("unhealthy"),
        barrier="workload.revert/workload.spawn",
        at_barrier=_hide_the_old_program,
        repair=_give_the_old_program_back,
    ),
    "souring": Scenario(goes_first=True, release=_SOURING),
    "started": Scenario(settles=False, release=_good),
    "stray": Scenario(prepare=_leave_a_stray, settles=False, release=_good),
    "down": Scenario(prepare=_end_apps, settles=False, release=_good, apps_die=True),
    "bare": Scenario(release=_good, barrier="probe.start/probe.ask", at_barrier=_remove_a_static_key),
    "bare-2": Scenario(release=_good, barrier="probe.start/probe.ask", at_barrier=_remove_a_static_key),
    "bare-started": Scenario(prepare=_remove_a_static_key, settles=False, release=_good),
    "restarted": Scenario(release=_good, first="balancer.drain/balancer.ask:before"),
    "rebooted": Scenario(release=_good, first="balancer.drain/balancer.ask:before", between=_end_apps, apps_die=True),
    "souring-restarted": Scenario(goes_first=True, release=_SOURING, first="balancer.restore/entry.write:before"),
    "adopted": Scenario(release=_good, first="workload.start/workload.record:before", options=("--first-skip", "1")),
    "robbed": Scenario(goes_first=True, release=_SOURING, barrier=_RELOCK, at_barrier=_rob, freed=True),
    "robbed-late": Scenario(
        goes_first=True, release=_bad("unhealthy"), barrier="lock.block/turn.release", at_barrier=_rob, freed=True
    ),
    "moved": Scenario(release=_good, barrier="lock.acquire/turn.take", at_barrier=_move_on),
    "withdrawn": Scenario(release=_good, barrier="lock.acquire/turn.take", at_barrier=_pause, repair=_resume),
    "wrong": Scenario(release=_wrong, repair=_good),
    "commanded": Scenario(release=_pause_and_resume, repair=_resume),
    "decommissioned": Scenario(release=_decommission, repair_when=_has_gone, repair=_admit, leaves=True),
    "decommissioned-robbed": Scenario(
        release=_decommission,
        barrier="lock.resign/turn.release",
        at_barrier=_rob,
        repair_when=_has_gone,
        repair=_admit,
        freed=True,
        leaves=True,
    ),
    "decommissioned-admitted": Scenario(
        release=_decommission, first="lock.resign/turn.release:after", between=_admit, leaves=True
    ),
    "racks": Scenario(release=_good_in_racks, slots=2, racks=True, spoils=True),
    "environment": Scenario(release=_change_the_environment, ends_when=_has_the_environment, spoils=True),
    "analysed": Scenario(goes_first=True, release=_good, options=("--analysis",)),
    "lapsed": Scenario(release=_lapse, repair=_good),
    "rotating": Scenario(release=_good, options=("--rotate-bytes", "1000")),
}
