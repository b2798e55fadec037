"""A sample of the soak: a minute of real rollouts under load with faults at random; ``make soak`` takes ten."""

import os
import shutil
from pathlib import Path

import pytest

from tests.soak.run import Soak
from tests.support.servers import etcd_binary

SEED = int(os.environ.get("OUTRIDER_TEST_SOAK_SEED", "1"))
MINUTES = 1.0
"""The rollout that is under way then is carried to its end."""


@pytest.mark.parametrize("secured", [False, pytest.param(True, marks=pytest.mark.long)], ids=["plain", "secured"])
def test_a_minute_of_rollouts_and_faults_breaks_no_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    told: list[str] = []
    soak = Soak(tmp_path, SEED, MINUTES, told.append, secured=secured)
    try:
        tally = soak.run()
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)

    assert [] == tally.breaches, "\n".join(told)
    assert tally.rollouts >= 1
    assert tally.figures.requests > 30 * 40, "the load was under way"
