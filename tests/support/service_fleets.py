"""A group of Omaha clients over an etcd in memory, with a clock of the test's own: what a policy does to them."""

from dataclasses import dataclass, field, replace
from typing import Any

from outrider.core.omaha import AppAnswer, AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest
from outrider.core.rollout.rollout import Progress
from outrider.model.documents import Instance
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.rollouts.overdue import OverdueGrants
from outrider.service.rollouts.wakeups import ROLLOUT_CONTROLLER
from outrider.service.store.changes import Change, apply
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service_examples import APP
from tests.support.wall_clock import WallClock

CALLER = Caller(address="10.0.0.7", base_url="http://updates.example:8000")


@dataclass
class Fleet:
    """Clients of one group, all running 1.0.0 until told otherwise."""

    store: Store
    etcd: FakeEtcd
    clock: WallClock
    checkins: Checkins = field(init=False)
    overdue: OverdueGrants = field(init=False)

    def __post_init__(self) -> None:
        self.checkins = Checkins(context=self.store.context)
        self.overdue = OverdueGrants(self.etcd.clock)

    def set(self, **policy: Any) -> None:
        """Change the group's policy."""
        now = self.store.rollouts.policy(APP, "beta")
        self.store.rollouts.set_policy(APP, "beta", replace(now, **policy))

    def passes(self, seconds: float) -> None:
        """Time passes, for the service and for the leases; a rollout controller ends what is overdue."""
        self.overdue.of(self.snapshot)
        self.clock.advance(seconds)
        self.etcd.clock.advance(seconds)
        if self.overdue.of(self.snapshot)[0]:
            apply(self.store.context.cluster, self._end_overdue, ROLLOUT_CONTROLLER)

    def _end_overdue(self, change: Change) -> None:
        snapshot = read_snapshot(self.store.context, change, APP, "beta")
        assert snapshot is not None
        snapshot.settle(self.overdue.of(snapshot)[0])
        snapshot.write()

    def sends(self, instance: str, version: str, *codes: str, check: bool = False, **app: Any) -> AppAnswer:
        """One request; ``codes`` are events such as ``13:1`` or ``3:0:44``."""
        events = []
        for code in codes:
            numbers = [int(number) for number in code.split(":")]
            error = numbers[2] if numbers[2:] else 0
            events.append(
                OmahaEvent(
                    type=numbers[0], result=numbers[1], error_code=error, next_version=app.pop("next_version", "")
                )
            )
        arch = app.pop("arch", "")
        facts = {"app_id": APP, "track": "beta", "machine_id": instance} | app
        asked = AppRequest(version=version, update_check=check, events=tuple(events), **facts)
        (answer,) = self.checkins.answer(OmahaRequest(apps=(asked,), arch=arch), CALLER).apps
        return answer

    def checks(self, instance: str, version: str = "1.0.0", **app: Any) -> Offer | NoUpdate:
        """One update check; every answer has app status ok."""
        answer = self.sends(instance, version, check=True, **app)
        assert "ok" == answer.status
        assert isinstance(answer.update_check, Offer | NoUpdate)
        return answer.update_check

    def granted(self, instance: str, version: str = "1.0.0", **app: Any) -> str | None:
        """The version that a check is granted, if any."""
        answer = self.checks(instance, version, **app)
        return answer.version if isinstance(answer, Offer) else None

    def why_deferred(self, instance: str, version: str = "1.0.0", **app: Any) -> str:
        """The reason why a check is deferred."""
        answer = self.checks(instance, version, **app)
        assert isinstance(answer, NoUpdate), answer
        return answer.reason

    def succeeds(self, instance: str, version: str = "2.0.0") -> None:
        """It reports that it came to ``version``."""
        self.sends(instance, version, "3:2")

    def fails(self, instance: str, error_code: int = 44) -> None:
        """It reports that its update failed."""
        self.sends(instance, "1.0.0", f"3:0:{error_code}")

    def row(self, instance: str) -> Instance:
        return self.store.fleet.instance(APP, instance)

    @property
    def snapshot(self) -> GroupSnapshot:
        """The group, as it is now."""
        found = read_snapshot(self.store.context, Change(self.store.context.cluster), APP, "beta")
        assert found is not None
        return found

    @property
    def progress(self) -> Progress:
        return self.snapshot.progress

    @property
    def under_way(self) -> list[str]:
        """Who has a grant that lives."""
        return sorted(self.snapshot.living)

    @property
    def line(self) -> list[str]:
        """Who is deferred, in order."""
        return [one.instance for one in self.snapshot.waiting]
