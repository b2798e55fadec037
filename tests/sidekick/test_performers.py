"""Every effect is performed by somebody: one worker for each noun, with a case for each of the noun's effects."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from outrider.config.load import load_settings
from outrider.core.sidekick.effects import NOUNS, AcquireLock, Effect
from outrider.core.sidekick.memory import Memory
from outrider.journal.journal import Journal
from outrider.sd_notify import Notifier
from outrider.sidekick.assemble import Assembly, _alarm
from outrider.sidekick.loop import Sidekick
from outrider.sidekick.workers.analysis import AnalysisWork
from outrider.sidekick.workers.balancer import BalancerWork
from outrider.sidekick.workers.lock import LockWork
from outrider.sidekick.workers.probe import ProbeWork
from outrider.sidekick.workers.release import ReleaseWork
from outrider.sidekick.workers.report import ReportWork, reports
from outrider.sidekick.workers.task import TaskWork
from outrider.sidekick.workers.workload import WorkloadWork
from tests.sim.fake_etcd import FakeEtcd
from tests.sim.loop import CHART, RULES

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

PERFORMERS: Mapping[str, tuple[Callable[..., object], ...]] = {
    "lock": (LockWork.perform,),
    "workload": (WorkloadWork.perform,),
    "balancer": (BalancerWork.perform,),
    "release": (ReleaseWork.perform,),
    "probe": (ProbeWork.perform,),
    "task": (TaskWork.perform,),
    "analysis": (AnalysisWork.perform,),
    "report": (ReportWork.perform, reports),
    "sidekick": (_alarm,),
}
"""Noun -> what takes its effects; the last one decides between them."""


def unperformed(kinds: frozenset[type[Effect]], performer: Callable[..., object]) -> set[str]:
    """Names of the effects that ``performer`` has no case for; of one effect alone it needs none."""
    if len(kinds) == 1:
        return set()
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(performer)))
    cases = {
        node.cls.id for node in ast.walk(tree) if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name)
    }
    return {kind.__name__ for kind in kinds} - cases


@pytest.mark.parametrize("noun", NOUNS)
def test_each_noun_has_a_performer_with_a_case_for_each_of_its_effects(noun: str) -> None:
    for performer in PERFORMERS[noun]:
        taken = get_type_hints(performer)["effect"]
        assert NOUNS[noun] == frozenset(get_args(taken) or (taken,)), f"{noun}: mypy wouldn't see a missing case"
    decides = PERFORMERS[noun][-1]
    assert set() == unperformed(NOUNS[noun], decides)
    assert len(NOUNS[noun]) == 1 or "assert_never(effect)" in inspect.getsource(decides)


def test_an_effect_without_a_performer_is_reported() -> None:
    class JumpLock(AcquireLock):
        """As if somebody had added it to the union, and nowhere else."""

    assert {"JumpLock"} == unperformed(NOUNS["lock"] | {JumpLock}, LockWork.perform)
    with pytest.raises(AssertionError, match="JumpProbe"):
        ProbeWork(prober=None, post=print).perform(JumpProbe(), 1)  # type: ignore[arg-type]


class JumpProbe:
    """No effect that the probe's worker knows."""


def settings_of(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(
        f'instance = {{id = "a", app = "shop", group = "web", state_dir = "{tmp_path}/state", balancer = "none"}}\n'
        'process = {command = ["./server"]}\n'
    )
    return path


def test_an_assembled_sidekick_performs_every_noun(tmp_path: Path) -> None:
    settings = load_settings((settings_of(tmp_path),), {}).settings

    assembly = Assembly(settings, cluster=FakeEtcd().client())

    try:
        assert NOUNS.keys() == assembly._sidekick._nouns.keys()
        for noun, worker in assembly._workers.items():
            assert type(worker._noun).perform in PERFORMERS[noun]
    finally:
        assembly._close()


@pytest.mark.parametrize("missing", NOUNS)
def test_a_sidekick_that_could_not_perform_a_noun_does_not_begin(tmp_path: Path, missing: str) -> None:
    journal = Journal(tmp_path)
    nouns = {noun: print for noun in NOUNS if noun != missing}
    memory = Memory(instance="a", app="x", group="g", scope="turns/x/g", strategy="start-first", at=NOON)

    with pytest.raises(ValueError, match=re.escape(f"nobody performs the effects of {missing}")):
        Sidekick(
            CHART, RULES, memory, journal,
            nouns=nouns, show=print, consumed=print, notifier=Notifier(),
        )  # fmt: skip
    journal.close()
