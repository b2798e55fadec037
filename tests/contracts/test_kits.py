"""No driver without a contract: the tables of drivers and the kits name the same."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

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
    from outrider.balancers import agent, apisix, none, templates, traefik, vulcand
    from outrider.runtimes import command, docker, dpkg, fleet, process, systemd

    runtimes: tuple[RuntimeDriver, ...] = (process, docker, command, systemd, fleet, dpkg)
    balancers: tuple[BalancerDriver, ...] = (traefik, agent, vulcand, apisix, templates, none)

    assert runtimes == tuple(map(RUNTIMES.load, RUNTIMES))
    assert balancers == tuple(map(BALANCERS.load, BALANCERS))


EVERYWHERE = {"loguru", "msgspec"}
"""Libraries that every sidekick imports, whatever its drivers."""


def libraries_of(path: Path) -> set[str]:
    """The packages that importing the module at ``path`` imports, other than Python's own and ours."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [each.name for node in body if isinstance(node, ast.Import) for each in node.names]
    names += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"outrider"}


@pytest.mark.parametrize("module", [*RUNTIMES.modules.values(), *BALANCERS.modules.values()])
def test_a_drivers_module_imports_no_library_at_its_top(module: str) -> None:
    """What only one driver needs is imported in its ``make``: a machine without that library can do without it."""
    path = Path(importlib.import_module(module).__file__ or "")
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]

    assert {} == {file.name: found for file in files if (found := libraries_of(file) - EVERYWHERE)}


def test_a_library_at_the_top_of_a_driver_is_found(tmp_path: Path) -> None:
    (tmp_path / "jail.py").write_text("import os\nimport docker.errors\n\n\ndef make():\n    import jailer\n")

    assert {"docker"} == libraries_of(tmp_path / "jail.py")


def test_reading_the_settings_imports_no_drivers_own_library() -> None:
    """What only one driver needs is imported where that driver is made or used: the others do without it."""
    code = (
        "import sys, outrider.config.load; print([one for one in ('requests', 'docker', 'grpc') if one in sys.modules])"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert "[]" == told.stdout.strip()
