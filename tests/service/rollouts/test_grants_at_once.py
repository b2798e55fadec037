"""Grants under a small burst, with two services in this process over one real etcd (P6).

The short form of ``test_grant_races.py``, where two processes get 200 at once, and one of them is killed.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.omaha import Offer
from outrider.core.rollout.policy_settings import Policy
from outrider.etcd.seam import Cluster
from tests.support.pairs import LIMITS, Pair
from tests.support.service import RunningServer
from tests.support.service_examples import make_app, open_store

BURST = 24


@pytest.fixture
def pair(cluster: Cluster, prefix: str, tmp_path: Path) -> Iterator[Pair[RunningServer]]:
    below = prefix.rstrip("/")
    store = open_store(cluster, below)
    make_app(store, version="2.0.0")

    def new() -> RunningServer:
        return RunningServer(cluster, tmp_path / "payloads", below)

    with new() as one, new() as other:
        yield Pair(store=store, servers=[one, other], new=new)


@pytest.mark.parametrize("limit", LIMITS, ids=["in-progress", "per-interval", "canary", "wave"])
def test_many_first_checks_at_once_on_a_limit_of_one_grant_exactly_one(
    pair: Pair[RunningServer], limit: Policy
) -> None:
    pair.set("race", limit)

    answers = pair.burst("race", BURST)

    assert BURST == len(answers)
    pair.expect_one("race", answers)


def test_without_limits_a_burst_is_granted_whole(pair: Pair[RunningServer]) -> None:
    pair.set("open", Policy())

    answers = pair.burst("open", BURST)

    assert {Offer} == {type(answer) for answer in answers.values()}
    assert BURST == len(pair.snapshot("open").living) == len(pair.snapshot("open").progress.opened)
