"""A seeded sample of the kill matrix, a minute for each strategy, and a fault that is no single sidekick's."""

import os
import shutil
import time
from pathlib import Path

import pytest

from outrider.core.sidekick.memory import Strategy
from tests.chaos.__main__ import keep_results, run
from tests.chaos.also import ALSO, run_also
from tests.chaos.cases import Outcome
from tests.chaos.fixture import FAKETIME
from tests.chaos.matrix import FAULTS, container_cases, sample
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail

SEED = int(os.environ.get("OUTRIDER_TEST_CHAOS_SEED", "1"))
SECONDS = 25.0
AFTER_A_KILL = ("after", "kill")
LEAST = len(FAULTS)
"""Cases, whatever the machine's speed: one with each fault."""


@pytest.fixture(autouse=True)
def needs() -> None:
    if not FAKETIME:
        skip_or_fail("libfaketime isn't installed: apt-get install faketime")
    if os.geteuid():
        skip_or_fail("the kill matrix mounts small disks: it needs root")


def described(outcome: Outcome) -> str:
    return f"{outcome.case} (seed {outcome.seed}): " + "; ".join(outcome.problems)


@pytest.mark.parametrize("secured", [False, pytest.param(True, marks=pytest.mark.long)], ids=["plain", "secured"])
@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_a_sample_of_the_kill_matrix_holds(strategy: Strategy, secured: bool) -> None:
    until = time.monotonic() + SECONDS
    outcomes: list[Outcome] = []
    for outcome in run(sample(SEED, strategy), strategy, SEED, secured=secured):
        outcomes.append(outcome)
        if len(outcomes) >= LEAST and time.monotonic() > until:
            break

    assert [] == [described(one) for one in outcomes if one.problems]
    assert LEAST <= len(outcomes)
    assert sum(one.requests for one in outcomes) > 30 * len(outcomes), "the load was under way"


def test_a_sample_with_containers_holds() -> None:
    """Killed between the creation of a container and its start, after its start, and after its stop."""
    docker_client().close()
    rows = ("workload.start/workload.record", "workload.start/workload.spawn", "workload.retire/workload.signal")
    chosen = [case for case in container_cases() if case.row.name in rows and (case.when, case.fault) == AFTER_A_KILL]

    outcomes = list(run(chosen, "start-first", SEED))

    assert len(rows) == len(outcomes)
    assert [] == [described(one) for one in outcomes if one.problems]
    assert sum(one.requests for one in outcomes) > 30


@pytest.mark.parametrize("name", ALSO if os.environ.get("OUTRIDER_TEST_CHAOS") == "all" else ["leader-killed"])
def test_a_fault_that_is_no_single_sidekicks_is_survived(name: str, tmp_path: Path) -> None:
    try:
        outcome = run_also(name, SEED, tmp_path)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)

    assert [] == outcome.problems
    assert outcome.requests > 30
    keep_results([outcome])
