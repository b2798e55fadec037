"""Which ring a test belongs to. The first ring is what no other one takes; a path decides, and nothing in the tests.

Rings are markers, set by ``tests/conftest.py``; the Makefile chooses by them. ``long`` is written on the tests
themselves: it marks the long form of something whose short form is in another ring.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

FLEET = (
    "tests/chaos/test_sample.py",
    "tests/partitions/test_fixture.py",
    "tests/partitions/test_partitions.py",
    "tests/soak/",
    "tests/live/test_demo.py",
)
"""Whole fleets with their load: each takes the machine for itself."""

LIVE = (
    "tests/live/",
    # these start `outrider serve`, `outrider watch` or a shell, and end or kill it
    "tests/cli/test_terminal.py",
    "tests/cli/test_watch.py",
    "tests/docs/test_api_page.py",
    "tests/docs/test_first_steps.py",
    "tests/docs/test_guide.py",
    "tests/docs/test_guide_page.py",
    "tests/docs/test_quickstart.py",
    "tests/docs/test_quickstart_docker.py",
    "tests/docs/test_quickstart_systemd.py",
    # these wait for the time limits of a service
    "tests/security/test_limits.py",
    "tests/service/rollouts/test_grant_races.py",
    "tests/service/test_serve.py",
)
"""Real programs: Traefik, Docker, the service, sidekicks and commands as processes."""

PACKAGES = ("tests/packaging/",)
"""Wheels in environments of their own; the tests carry their marker themselves."""

FIRST_RING = "not (live or fleet or long or packages)"
FLEET_RING = "fleet and not long"
"""What ``make test`` gives to -m."""

OUTER_TIMEOUT_S = 600
"""How long a test of an outer ring may take: a machine that others use makes it slow, and that is no failure."""

ROOT = Path(__file__).parents[2]


def mostly_long(values: Iterable[T], *, short: Callable[[T], bool]) -> list[Any]:
    """Parameters of a test: those that are ``short`` stay in the ring of their path, the others are its long form."""
    return [value if short(value) else pytest.param(value, marks=pytest.mark.long) for value in values]


def ring_of(path: str) -> str:
    """The marker of the ring that ``path`` is in, from the checkout's root; empty in the first ring.

    A path of its own counts more than the folder that it is in.
    """
    if path.startswith(FLEET):
        return "fleet"
    if path.startswith(LIVE):
        return "live"
    return "packages" if path.startswith(PACKAGES) else ""


def sample_of(given: str) -> tuple[int, int]:
    """What ``OUTRIDER_TEST_SAMPLE`` says: "2/5" is the second of five parts of a ring.

    Returns:
        The part, from 0, and the number of parts.

    Raises:
        pytest.UsageError: it is written in another way.
    """
    part, _, parts = given.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise pytest.UsageError(f"OUTRIDER_TEST_SAMPLE={given}: not a part like 2/5 (sample=2/5)")
    return int(part) - 1, int(parts)
