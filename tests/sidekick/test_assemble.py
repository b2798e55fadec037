"""A sidekick is put together from what its settings name, whatever that is; this module is a made-up driver of each."""

from pathlib import Path

import pytest

from outrider.balancers import Balancer
from outrider.balancers.drivers import BalancerContext, BalancerDriver
from outrider.balancers.none import NoEntry, NoObserver
from outrider.config.drivers import DriverTable, Problem
from outrider.config.sections import InstanceSettings, Settings
from outrider.core.images import PayloadKind
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext, RuntimeDriver
from outrider.runtimes.process import ProcessSettings
from outrider.runtimes.process.runtime import ProcessRuntime
from outrider.sidekick import assemble
from outrider.sidekick.assemble import Assembly
from tests.sim.fake_etcd import FakeEtcd

SETTINGS = None
USES: frozenset[str] = frozenset()


class MadeUp(ProcessRuntime):
    """A runtime of another name, for images."""

    name = "made-up"
    kinds: frozenset[PayloadKind] = frozenset({"image"})


made: list[Settings] = []


def problems(settings: Settings) -> tuple[Problem, ...]:
    return ()


def make(settings: Settings, context: RuntimeContext | BalancerContext) -> Runtime | Balancer:
    made.append(settings)
    if isinstance(context, BalancerContext):
        return Balancer(entry=NoEntry(), observer=NoObserver())
    instance = settings.instance
    return MadeUp(ProcessSettings(), settings.workload, state_dir=instance.state_dir, instance=instance.id)


def test_runtime_and_balancer_are_those_that_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes: DriverTable[RuntimeDriver] = DriverTable(chosen_by="instance.runtime", modules={"made-up": __name__})
    balancers: DriverTable[BalancerDriver] = DriverTable(chosen_by="instance.balancer", modules={"other": __name__})
    monkeypatch.setattr(assemble, "RUNTIMES", runtimes)
    monkeypatch.setattr(assemble, "BALANCERS", balancers)
    instance = InstanceSettings(
        id="a", app="shop", group="web", state_dir=tmp_path / "state", runtime="made-up", balancer="other"
    )
    made.clear()

    sidekick = Assembly(Settings(instance=instance), cluster=FakeEtcd().client())

    memory = sidekick._sidekick.memory
    assert ("made-up", ("image",)) == (memory.runtime, memory.kinds)
    assert 2 == len(made)
    sidekick._close()
