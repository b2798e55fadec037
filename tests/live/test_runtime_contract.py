"""The contract of all runtimes, for those whose kit needs a program that the first ring does without."""

import pytest

from tests.contracts import test_endings as endings
from tests.contracts import test_runtimes as contract
from tests.contracts.kits.runtimes import RUNTIME_KITS

LIVE = [name for name, kit in RUNTIME_KITS.items() if kit.is_live]
FIXTURES = ("kit", "old", "runtime", "spec", "state_dir")

# The tests themselves and their fixtures; which runtime they are for is said here.
globals().update(
    {
        name: found
        for part in (contract, endings)
        for name, found in vars(part).items()
        if name.startswith("test_") or name in FIXTURES
    }
)


@pytest.fixture(params=LIVE)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_docker_is_among_them() -> None:
    assert "docker" in LIVE
