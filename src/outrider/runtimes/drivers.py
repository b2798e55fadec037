"""The runtimes that ``instance.runtime`` can name. A new one is a line here and a kit in ``tests/contracts/kits``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from outrider.config.drivers import Driver, DriverTable
from outrider.config.sections import Settings
from outrider.runtimes import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What a runtime is made of besides its settings.

    Attributes:
        environment: What this process was started with; apps may inherit from it.
        owns_process: This process does nothing but run one sidekick, so all its descendants belong to its workloads.
        shares_process: It does nothing but run several: its descendants belong to the workloads of one of them.
    """

    environment: Mapping[str, str]
    owns_process: bool = False
    shares_process: bool = False


class RuntimeDriver(Driver, Protocol):
    """A module that makes a runtime."""

    def make(self, settings: Settings, context: RuntimeContext) -> Runtime:
        """The runtime of ``settings.instance``. Nothing is started, and nothing contacted that may be away."""


RUNTIMES: DriverTable[RuntimeDriver] = DriverTable(
    chosen_by="instance.runtime",
    modules={
        "process": "outrider.runtimes.process",
        "docker": "outrider.runtimes.docker",
        "command": "outrider.runtimes.command",
        "systemd": "outrider.runtimes.systemd",
        "fleet": "outrider.runtimes.fleet",
        "dpkg": "outrider.runtimes.dpkg",
    },
    products={"podman": "docker", "container": "docker", "unit": "systemd"},
)
