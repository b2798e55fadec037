"""What a process imports, and which packages only the update service needs."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"
SERVICE_EXTRAS = ("server", "oidc", "otlp", "notify")
"""What is installed beside a service, and never beside a sidekick."""
SERVICE_PARTS = ("outrider.service", "outrider.verify", "outrider.preview", "outrider.demo", "outrider.oidc")
"""Parts of outrider itself that a sidekick never uses."""

SIDEKICK = """
import outrider.__main__, outrider.cli.commands.sidekick
import outrider.config.load, outrider.log, outrider.metrics, outrider.sidekick.assemble, outrider.sidekick.host
from outrider.balancers.drivers import BALANCERS
from outrider.runtimes.drivers import RUNTIMES
RUNTIMES.load("process"); BALANCERS.load("traefik")
"""
"""What ``outrider sidekick run`` imports, with the drivers of the guide."""


def imported_by(code: str) -> list[str]:
    """Every module that a process has after it ran ``code``."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    modules: list[str] = json.loads(done.stdout)
    return modules


def needless(modules: Iterable[str]) -> list[str]:
    """Those that only the update service needs."""
    tops = service_only()
    parts = tuple(f"{part}." for part in SERVICE_PARTS)
    return sorted(
        name for name in modules if name.partition(".")[0] in tops or name in SERVICE_PARTS or name.startswith(parts)
    )


def service_only() -> frozenset[str]:
    """Top packages of all distributions that the service's extras bring and outrider's own dependencies don't."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    base = _closure(project["dependencies"])
    more = _closure(one for extra in SERVICE_EXTRAS for one in project["optional-dependencies"][extra])
    only = more - base
    return frozenset(
        top
        for top, distributions in metadata.packages_distributions().items()
        if distributions and {_name(each) for each in distributions} <= only
    )


def _closure(requirements: Iterable[str]) -> frozenset[str]:
    """The distributions that these requirements bring with them here, by normalized name."""
    found: set[str] = set()
    waiting = [_name(each) for each in requirements if "extra ==" not in each]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        found.add(name)
        waiting += [_name(each) for each in requires if "extra ==" not in each]
    return frozenset(found)


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()
