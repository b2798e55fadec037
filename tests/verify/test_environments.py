"""A new environment is a release like any other: the checker finds the same states as with a new version."""

from dataclasses import replace

import pytest

from outrider.core.sidekick import builders
from outrider.core.sidekick import effects as do
from outrider.core.sidekick.memory import Memory
from outrider.verify.check import Configuration, Result, check
from outrider.verify.steps import NEW, NEW_ENVIRONMENT, Steps
from outrider.verify.world import Badness
from tests.verify.faults import CALM, SHIPPED, loaded

pytestmark = pytest.mark.timeout(1800)


def explored(badness: Badness, *, environment: bool) -> Result:
    setting = replace(CALM, badness=badness, environment=environment, waiting=0)
    plan = Configuration(strategy="stop-first", setting=setting, sizes=((2, 1),))
    return list(check(loaded(SHIPPED), [plan]))[-1]


def test_it_is_the_old_payload_with_another_label() -> None:
    steps = Steps(loaded(SHIPPED), "stop-first", environment=True)

    assert "1.0.0 with environment 2" == steps.new.label == NEW_ENVIRONMENT.label
    assert NEW == steps.name_of(steps.new)
    assert "1.0.0" == steps.name_of(replace(steps.new, environment=0, environment_digest=""))


@pytest.mark.long
@pytest.mark.parametrize("badness", ["refused", "unhealthy"])
def test_a_bad_environment_is_blocked_as_a_bad_version_is(badness: Badness) -> None:
    version, environment = explored(badness, environment=False), explored(badness, environment=True)

    assert "" == environment.promise
    assert (version.states, version.edges) == (environment.states, environment.edges)
    assert "rollback.blocking" in environment.leaves


@pytest.mark.long
def test_a_turn_that_looks_for_the_block_of_the_bare_version_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is of 1.0.0 with environment 2, and 1.0.0 is fine."""
    build = builders.EFFECTS[do.AcquireLock.name]

    def by_version(memory: Memory) -> do.Effect:
        effect = build(memory)
        assert isinstance(effect, do.AcquireLock)
        assert memory.candidate is not None
        return replace(effect, version=memory.candidate.release.version)

    monkeypatch.setitem(builders.EFFECTS, do.AcquireLock.name, by_version)

    result = explored("refused", environment=True)

    assert "P5: 2.0.0 was blocked before, and is tried again" == result.promise
    assert any("another instance blocks 2.0.0" in line for line in result.story)
