"""Two update services on one etcd, and crowds that check in at both."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Generic, Protocol, TypeVar

import requests

from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaRequest, parse_response, render_request
from outrider.core.rollout.policy_settings import Policy, Rate
from outrider.core.rollout.wave_settings import Wave
from outrider.service.store.changes import Change
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot
from outrider.service.store.store import Store
from tests.support.service_examples import APP

LIMITS = (
    Policy(max_in_progress=1),
    Policy(max_per_interval=Rate(count=1, interval_s=3600)),
    Policy(canary=1),
    Policy(waves=(Wave(count=1),)),
)
"""Policies that let one of many begin."""


class Serving(Protocol):
    """A service that runs."""

    @property
    def url(self) -> str: ...


S = TypeVar("S", bound=Serving)


@dataclass
class Pair(Generic[S]):
    """Two services, and the keys they share. ``new``: starts another one."""

    store: Store
    servers: Sequence[S]
    new: Callable[[], S]

    def set(self, group: str, policy: Policy) -> None:
        """A fresh group of its own with a policy."""
        self.store.groups.create(APP, group, channel="beta")
        self.store.rollouts.set_policy(APP, group, policy)

    def checks(self, server: Serving, group: str, instance: str) -> Offer | NoUpdate:
        """One first check by HTTP; who is told that the service is busy comes again, as often as it takes."""
        app = AppRequest(app_id=APP, version="1.0.0", track=group, machine_id=instance, update_check=True)
        body = render_request(OmahaRequest(apps=(app,)))
        deadline_s = time.monotonic() + 60.0
        while True:
            answer = requests.post(f"{server.url}/v1/update", data=body, timeout=60)
            # It has waited for seconds already. Nothing was done for it, or it is told again what was.
            is_late = "too busy" in answer.text or "booked all the same" in answer.text
            if answer.status_code != 503 or not is_late or time.monotonic() > deadline_s:
                break
        answer.raise_for_status()
        (told,) = parse_response(answer.content).apps
        assert "ok" == told.status
        assert isinstance(told.update_check, Offer | NoUpdate), told
        return told.update_check

    def burst(self, group: str, number: int) -> dict[str, Offer | NoUpdate]:
        """So many check at the same moment, every second one at the other service."""
        start = Barrier(number)

        def one(which: int) -> tuple[str, Offer | NoUpdate]:
            start.wait(60)
            return f"web-{which}", self.checks(self.servers[which % 2], group, f"web-{which}")

        with ThreadPoolExecutor(number) as pool:
            return dict(pool.map(one, range(number)))

    def snapshot(self, group: str) -> GroupSnapshot:
        found = read_snapshot(self.store.context, Change(self.store.context.cluster), APP, group)
        assert found is not None
        return found

    def expect_one(self, group: str, answers: dict[str, Offer | NoUpdate]) -> None:
        """One of a burst was granted, the store says so too, and all others wait and were told why."""
        offered = [name for name, answer in answers.items() if isinstance(answer, Offer)]
        snapshot = self.snapshot(group)
        assert 1 == len(offered), group
        assert offered == list(snapshot.living) == [one.instance for one in snapshot.progress.opened]
        assert 1 == snapshot.progress.made_lately
        assert set(answers) - set(offered) == {one.instance for one in snapshot.waiting}
        assert all(answer.reason for answer in answers.values() if isinstance(answer, NoUpdate))
