"""Runs cases: armed sidekicks meet their faults in one rollout. The faults end, the dead are restarted, no more."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from outrider.core.errors import Unknown
from outrider.demo.fleet import APP_ID, GROUP
from outrider.journal.journal import Record
from outrider.model.keys import group_scope
from outrider.statechart import load_sidekick_chart
from outrider.story import StoryError, lines_of, replay
from tests.chaos.arms import Arm
from tests.chaos.auditor import Rules, audit
from tests.chaos.disk import FaultFailed
from tests.chaos.fixture import CASE_LIMIT_S, RACKS, ChaosFixture, History
from tests.chaos.matrix import Case
from tests.chaos.scenarios import CaseRun
from tests.support.waiting import eventually

POLL_S = 0.08
STARTS = {"workload.start": "installed", "workload.replace": "new", "workload.revert": "old"}
"""Effect that starts a version -> its field that says which."""
CHART = load_sidekick_chart()


@dataclass(slots=True)
class Outcome:
    """What came of a case.

    Attributes:
        together: How many cases met in the same rollout; requests and time are those of all of them.
        failed: Requests of the load that failed; excused when apps were ended by the harness.
        problems: Empty when everything held.
    """

    case: str
    seed: int
    together: int = 1
    took_s: float = 0.0
    requests: int = 0
    failed: int = 0
    restarts: int = 0
    excused: bool = False
    problems: list[str] = field(default_factory=list)


class CaseFailed(Exception):
    """The case didn't come to its end."""


class Runner:
    """One rollout in which the arms meet their faults; several only when their scenarios can go together."""

    def __init__(self, fixture: ChaosFixture, arms: Sequence[Arm], seed: int) -> None:
        self.fixture, self.arms, self.seed = fixture, tuple(arms), seed
        first = self.arms[0]
        self.case_run = CaseRun(
            fixture=fixture, armed=first.instance, wanted=fixture.presences()[first.instance].version
        )
        self.outcome = Outcome(
            case=first.case.name,
            seed=seed,
            together=len(self.arms),
            excused=any(arm.scenario.apps_die for arm in self.arms),
        )
        self._of = {arm.instance: arm for arm in self.arms}

    def run(self) -> list[Outcome]:
        """Run it to its end, and judge; one outcome for each arm."""
        began = time.monotonic()
        load = self.fixture.load.snapshot()
        history = History(self.fixture.cluster)
        numbers = {one: self.fixture.records(one)[-1].number for one in self.fixture.instances}
        try:
            self._play()
        except (AssertionError, CaseFailed, FaultFailed) as error:
            self.outcome.problems.append(f"{type(error).__name__}: {error}")
        changes = history.end()
        rules = Rules(
            slots=max(arm.scenario.slots for arm in self.arms),
            starts_first=self.fixture.strategy == "start-first",
            instances=self.fixture.instances,
            freed=any(arm.scenario.freed for arm in self.arms),
            apps_die=self.outcome.excused,
            leaves=frozenset(arm.instance for arm in self.arms if arm.scenario.leaves),
            racks=RACKS if any(arm.scenario.racks for arm in self.arms) else {},
        )
        if history.lost:
            self.outcome.problems.append("the audit's own watch lost changes")
        self.outcome.problems += audit(history.before, changes, rules)
        self._judge_instances(numbers, freed=rules.freed)
        after = self.fixture.load.snapshot()
        self.outcome.requests, self.outcome.failed = after.requests - load.requests, after.failed - load.failed
        if self.outcome.failed and not self.outcome.excused:
            kinds = {kind: count - load.failures.get(kind, 0) for kind, count in after.failures.items()}
            self.outcome.problems.append(f"P4: {self.outcome.failed} requests failed: {kinds}")
        self.outcome.took_s = round(time.monotonic() - began, 1)
        return [self._share(arm) for arm in self.arms]

    def _share(self, arm: Arm) -> Outcome:
        whole = self.outcome
        problems = list(whole.problems)
        if len(self.arms) > 1 and problems:
            problems.append(f"together with {', '.join(one.case.name for one in self.arms if one is not arm)}")
        return Outcome(
            case=arm.case.name,
            seed=whole.seed,
            together=whole.together,
            took_s=whole.took_s,
            requests=whole.requests,
            failed=whole.failed,
            restarts=whole.restarts,
            excused=whole.excused,
            problems=problems,
        )

    def _play(self) -> None:
        for arm in self.arms:
            self.fixture.sidekicks[arm.instance].stop()
        for arm in self.arms:
            arm.scenario.prepare(self.case_run)
            arm.start()
        at_start = [arm for arm in self.arms if not arm.scenario.settles]
        self._until(
            lambda: all(arm.faulted for arm in at_start),
            f"reached at the start: {', '.join(arm.case.row.name for arm in at_start)}",
        )
        self._until(self._at_rest, "the armed sidekicks came to rest")
        self._release()
        self._until(lambda: self._all_faulted() or self._ended(), "reached, or ended without")
        missed = [arm.case.row.name for arm in self.arms if not arm.faulted]
        if missed:
            raise CaseFailed(f"never reached: {', '.join(missed)}")
        for arm in self.arms:
            self._until(partial(arm.scenario.repair_when, self.case_run), "what its scenario repairs")
            arm.scenario.repair(self.case_run)
        self._until(self._ended, f"all ended on {self.case_run.wanted}")
        disarmed = [arm.disarm() for arm in self.arms]
        if any(disarmed):
            self._until(self._ended, "the sidekicks with the right time came to rest")

    def _all_faulted(self) -> bool:
        return all(arm.faulted for arm in self.arms)

    def _release(self) -> None:
        first = self.arms[0]
        if not first.scenario.goes_first:
            first.scenario.release(self.case_run)
            return
        others = [self.fixture.sidekicks[one].pid for one in self.fixture.instances if one != first.instance]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            first.scenario.release(self.case_run)
            self._until(self._has_turn, "the armed sidekick has its turn")
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def _has_turn(self) -> bool:
        prefix = self.fixture.keys.slots(group_scope(APP_ID, GROUP))
        return self._all_faulted() or bool(self.fixture.cluster.list(prefix).entries)

    def _until(self, fact: Callable[[], bool], words: str) -> None:
        """Let the case go on until ``fact`` holds, doing what a service manager and a fault's end do meanwhile."""

        def moved() -> bool:
            self._attend()
            try:
                return fact()
            except Unknown:  # etcd's nodes are away
                return False

        try:
            eventually(moved, within_s=CASE_LIMIT_S, every_s=POLL_S)
        except AssertionError as error:
            states = {name: f"{version} {state}" for name, (version, state) in sorted(self.fixture.versions().items())}
            raise CaseFailed(f"not within {CASE_LIMIT_S:g} s: {words}; {states}; {error}") from error

    def _attend(self) -> None:
        for arm in self.arms:
            arm.attend(self.case_run)
        for instance in self.fixture.instances:
            status = self.fixture.sidekicks[instance].ended
            if status is not None:
                self._restart(instance, status)

    def _restart(self, instance: str, status: int) -> None:
        if status != -9 or not self._may_die(instance):
            log = self.fixture.sidekicks[instance].log.read_text(errors="replace")[-1500:]
            self.outcome.problems.append(f"{instance} ended by itself with {status}: {log}")
        self.outcome.restarts += 1
        if self.outcome.restarts > 20:
            raise CaseFailed(f"{instance} ends again and again")
        if instance in self._of:
            self._of[instance].restart(self.case_run)
        else:
            self.fixture.start_sidekick(instance)

    def _may_die(self, instance: str) -> bool:
        return instance in self._of and self._of[instance].may_die

    def _at_rest(self) -> bool:
        seen = self.fixture.versions()
        return len(seen) == len(self.fixture.instances) and all(state == "idle.waiting" for _, state in seen.values())

    def _ended(self) -> bool:
        """At rest on what all shall run, nothing left of turns, the verdicts known."""
        return (
            self.fixture.all_on(self.case_run.wanted)
            and self.case_run.bad <= set(self.fixture.blocked())
            and not self.fixture.cluster.list(self.fixture.keys.turns(group_scope(APP_ID, GROUP))).entries
            and all(arm.scenario.ends_when(self.case_run) for arm in self.arms)
        )

    def _judge_instances(self, numbers: dict[str, int], *, freed: bool) -> None:
        """One workload each, journals that the chart can have written, and P5 by what was ever started."""
        touched: dict[str, set[str]] = {version: set() for version in self.case_run.bad}
        problems = self.outcome.problems
        for instance in self.fixture.instances:
            running = self.fixture.running(instance)
            if len(running) != 1:
                problems.append(f"{instance} runs {running or 'nothing'}")
            if left := self.fixture.leftovers(instance):
                problems.append(f"{instance} has left {left}")
            records = [one for one in self.fixture.records(instance) if one.number >= numbers[instance]]
            try:
                replay(lines_of(records), CHART)
            except StoryError as error:
                problems.append(f"{instance}: {error}")
            for record in records:
                for version in started_in(record):
                    if version in touched:
                        touched[version].add(instance)
                        if version in record.memory["blocked"]:
                            problems.append(f"P5: {instance} starts {version} in record {record.number}, blocked")
        for version, instances in touched.items():
            if len(instances) > 1 and not freed:
                problems.append(f"P5: {version} reached {sorted(instances)}")
        if self.case_run.wanted in self.fixture.blocked():
            problems.append(f"a good release was blocked: {self.case_run.wanted}")


def started_in(record: Record) -> list[str]:
    """Versions that a record's effects start."""
    found: list[str] = []
    for effect in record.effects:
        if (part := STARTS.get(effect["name"])) is not None and effect[part]:
            found.append(effect[part]["release"]["version"])
    return found


def arms_for(fixture: ChaosFixture, cases: Sequence[Case], seed: int, folder: Path) -> list[Arm]:
    """An arm for each of ``cases``, on instances that the seed decides; ``folder`` is theirs alone."""
    instances = random.Random(f"{seed} {cases[0].name}").sample(fixture.instances, len(cases))
    return [
        Arm(fixture, instance, case, seed, folder / str(number))
        for number, (instance, case) in enumerate(zip(instances, cases, strict=True))
    ]
