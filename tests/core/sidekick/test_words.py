"""What a person is told fits what the guards decide."""

from dataclasses import replace
from itertools import product

import pytest

from outrider.core.sidekick.guards import may_take
from outrider.core.sidekick.memory import Installed, Memory, Release
from outrider.core.sidekick.words import refusal
from tests.core.sidekick.test_sidekick import NOON


def of(version: str) -> Installed:
    release = Release(version=version, urls=("http://x/p",), sha256="0" * 64, size_bytes=1)
    return Installed(release=release, workload_id=f"a-{version}", url="http://127.0.0.1:1")


RUNS_2 = Memory(
    instance="a", app="shop", group="web", scope="shop/web", strategy="start-first", at=NOON, running=of("2.0.0")
)


def test_whatever_is_offered_and_not_taken_has_a_reason() -> None:
    told = set()
    for paused, group_paused, allow_downgrade, blocked, undone, version, running in product(
        (False, True),
        (False, True),
        (False, True),
        ({}, {"3.0.0": "b: bad"}),
        (None, "3.0.0"),
        ("1.0.0", "2.0.0", "3.0.0"),
        (None, of("2.0.0")),
    ):
        memory = replace(
            RUNS_2, paused=paused, group_paused=group_paused, allow_downgrade=allow_downgrade, blocked=blocked,
            undone=undone, running=running,
        )  # fmt: skip

        reason = refusal(memory, version)

        assert may_take(replace(memory, candidate=of(version))) == (not reason), (memory, version)
        told.add(reason)
    assert len(told) > 10


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("1.0.0", "1.0.0 refused: older than 2.0.0; this machine forbids going back (instance.allow_downgrade)"),
        ("2.0.0", "2.0.0 was offered, and runs already"),
        ("3.0.0", ""),
    ],
)
def test_going_back_is_refused_with_what_allows_it(version: str, reason: str) -> None:
    assert reason == refusal(replace(RUNS_2, allow_downgrade=False), version)
