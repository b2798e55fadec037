"""No driver without a contract: the tables of drivers and the kits name the same."""

import subprocess
import sys

import pytest

from outrider.balancers.drivers import BALANCERS, BalancerDriver
from outrider.config.drivers import DriverTable
from outrider.runtimes.drivers import RUNTIMES, RuntimeDriver
from tests.contracts.kits import without_a_kit
from tests.contracts.kits.balancers import BALANCER_KITS
from tests.contracts.kits.runtimes import RUNTIME_KITS


def test_every_runtime_has_a_contract_kit() -> None:
    assert [] == without_a_kit(RUNTIMES, RUNTIME_KITS)
    assert set(RUNTIME_KITS) <= set(RUNTIMES), "a kit for nothing"


def test_every_balancer_has_a_contract_kit() -> None:
    assert [] == without_a_kit(BALANCERS, BALANCER_KITS)
    assert set(BALANCER_KITS) <= set(BALANCERS), "a kit for nothing"


def test_a_runtime_without_a_contract_kit_is_reported() -> None:
    table: DriverTable[RuntimeDriver] = DriverTable(
        chosen_by="instance.runtime", modules={"process": "outrider.runtimes.process", "jail": "outrider.runtimes.jail"}
    )

    (line,) = without_a_kit(table, RUNTIME_KITS)

    assert line.startswith("runtime 'jail' has no contract kit: write one in tests/contracts/kits/runtimes.py")


def test_a_balancer_without_a_contract_kit_is_reported() -> None:
    table: DriverTable[BalancerDriver] = DriverTable(
        chosen_by="instance.balancer", modules={"pound": "outrider.balancers.pound"}
    )

    (line,) = without_a_kit(table, BALANCER_KITS)

    assert line.startswith("balancer 'pound' has no contract kit: write one in tests/contracts/kits/balancers.py")


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_a_runtimes_module_has_what_the_table_promises(name: str) -> None:
    driver = RUNTIMES.load(name)

    assert (driver.SETTINGS or type(None)) is type(RUNTIME_KITS[name].settings)
    assert callable(driver.problems)
    assert callable(driver.make)


@pytest.mark.parametrize("name", list(BALANCERS))
def test_a_balancers_module_has_what_the_table_promises(name: str) -> None:
    driver = BALANCERS.load(name)

    assert (driver.SETTINGS or type(None)) is type(BALANCER_KITS[name].settings)
    assert driver.USES <= {"service", "server_id"}
    assert callable(driver.problems)
    assert callable(driver.make)


def test_the_modules_are_drivers_by_their_types() -> None:
    """For mypy: a module whose ``make`` takes or gives something else doesn't fit."""
    from outrider.balancers import none, traefik
    from outrider.runtimes import process

    runtime: RuntimeDriver = process
    balancers: tuple[BalancerDriver, ...] = (traefik, none)

    assert RUNTIMES.load("process") is runtime
    assert balancers == (BALANCERS.load("traefik"), BALANCERS.load("none"))


def test_reading_the_settings_imports_no_drivers_own_library() -> None:
    """What only one driver needs is imported where that driver is made or used: the others do without it."""
    code = (
        "import sys, outrider.config.load; print([one for one in ('requests', 'docker', 'grpc') if one in sys.modules])"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert "[]" == told.stdout.strip()
