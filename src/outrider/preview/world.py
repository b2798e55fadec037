"""What surrounds one sidekick in simulated time: its workloads, its balancer entry, and the answers to what it asks."""

from typing import Any, Literal, Protocol, assert_never

from outrider.core.omaha import failure_text
from outrider.core.rollout.policy import Grant, Verdict
from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.effects import AnyEffect
from outrider.core.sidekick.memory import Installed
from outrider.preview.agenda import Agenda
from outrider.preview.lock import Lock

SUPPOSED = "as it was supposed"
"""The cause of a failure that a run was asked to show."""

Failing = Literal["", "probing", "soaking"]
"""Whether the candidate of an instance never proves healthy, or is found bad while it is watched."""


class Surroundings(Protocol):
    """What an instance needs of the rest of the run."""

    agenda: Agenda
    lock: Lock
    version: str

    def check(self, instance: str) -> Verdict:
        """Judge an update check."""
        ...

    def ended(self, instance: str, error: str) -> None:
        """An update has ended; ``error`` is empty when it went well."""
        ...

    def may_swap(self, instance: str) -> bool:
        """Whether an instance may take a turn now."""
        ...

    def block(self, instance: str, why: str) -> str:
        """Block the release; the instance that had committed it before, when that forbids it."""
        ...

    def away_s(self) -> float:
        """How long etcd will still be away; 0: it answers."""
        ...

    def changed(self) -> None:
        """Something that serves has changed."""
        ...

    def took_turn(self, instance: str) -> None:
        """An instance has got a turn."""
        ...


def sha_of(version: str) -> str:
    """Some digest that belongs to a version."""
    return version.encode().hex()[:64].rjust(64, "0")


class World:
    """The surroundings of one instance.

    Attributes:
        alive: Addresses of what runs.
        sick: Of these, the ones whose app doesn't serve well.
        entry: Where the balancer sends; None: nowhere.
        started: The release was started here at least once.
        failing: What becomes of what is started of the release.
        is_announced: The group's target is known; before that there is nothing to be had.
    """

    def __init__(self, name: str, around: Surroundings, url: str, failing: Failing) -> None:
        self.name, self._around = name, around
        self.alive, self.sick = {url}, set[str]()
        self.entry: str | None = url
        self.failing, self.started, self.is_announced = failing, False, False
        self._installs = 1

    @property
    def serves(self) -> bool:
        """The balancer sends to an app that serves."""
        return self.entry is not None and self.entry in self.alive and self.entry not in self.sick

    def answer(self, effect: AnyEffect, request: int | None) -> Any:
        """Change the world, and say what the sidekick hears; None: nothing."""
        at, around = self._around.agenda.now, self._around
        match effect:
            # --- the lock
            case do.AcquireLock():
                raise AssertionError("a turn is waited for elsewhere")
            case do.ReclaimLock() | do.RetakeLock():
                turn = around.lock.reclaim(self.name)
                if turn is not None:
                    return ev.LockAcquired(at=at, request=request, turn=turn)
                return ev.LockRefused(at=at, request=request, cause="it has no turn")
            case do.ReleaseLock(committed=committed):
                if committed is not None:
                    around.lock.proved.setdefault(committed.label, self.name)
                around.lock.leave(self.name)
                return ev.LockReleased(at=at, request=request)
            case do.SuspendLock() | do.ResignLock():
                return ev.LockReleased(at=at, request=request)
            case do.ProveLock(committed=committed):
                if committed is not None:
                    around.lock.proved.setdefault(committed.label, self.name)
                return None
            case do.BlockLock(cause=cause):
                return ev.LockReleased(at=at, request=request, proved_by=around.block(self.name, cause))
            # --- workloads
            case do.EnsureWorkload(installed=installed):
                if installed is None or installed.url not in self.alive:
                    return ev.WorkloadAbsent(at=at, request=request)
                return ev.WorkloadStarted(at=at, request=request, workload_id=installed.workload_id, url=installed.url)
            case do.StartWorkload(installed=installed):
                return self._started(installed, request)
            case do.ReplaceWorkload(old=old, new=new):
                self._stop(old)
                return self._started(new, request)
            case do.RevertWorkload(old=back, new=gone):
                return self._reverted(back, gone, request)
            case do.RetireWorkload(installed=installed):
                self._stop(installed)
                return ev.WorkloadRetired(at=at, request=request)
            case do.RemoveWorkload(installed=installed):
                self._stop(installed)
                return ev.WorkloadRemoved(at=at, request=request)
            case do.TidyWorkload() | do.RestartWorkload():
                return None
            # --- probes
            case do.StartProbe(url=asked) | do.ConfirmProbe(url=asked):
                if asked not in self.alive or (asked in self.sick and self.failing == "probing"):
                    return ev.ProbeFailed(at=at, request=request, cause=SUPPOSED)
                return ev.ProbePassed(at=at, request=request, url=asked)
            case do.WatchProbe() | do.StopProbe() | do.StopAnalysis():
                return None
            case do.StartAnalysis():
                return ev.AnalysisPassed(at=at, request=request, sample="")
            # --- the balancer
            case do.SwitchBalancer(url=new_url):
                self.entry = new_url
                return ev.BalancerSwitched(at=at, request=request, url=new_url, revision=1)
            case do.LeaveBalancer():
                self.entry = None
                return ev.BalancerLeft(at=at, request=request, revision=1)
            case do.JoinBalancer() | do.ReturnBalancer():
                self.entry = effect.url or self.entry
                return ev.BalancerJoined(at=at, request=request, url=effect.url, revision=1)
            case do.RestoreBalancer():
                self.entry = effect.url
                return ev.BalancerRestored(at=at, request=request, url=effect.url, revision=1)
            case do.DrainBalancer() | do.UndrainBalancer():
                return ev.BalancerDrained(at=at, request=request, how="asked")
            # --- the release
            case do.CheckRelease():
                return self._checked(request)
            case do.DownloadRelease():
                return ev.ReleaseDownloaded(at=at, request=request)
            case do.VerifyRelease():
                return ev.ReleaseVerified(at=at, request=request)
            case do.AbandonRelease() | do.LeaveTask() | do.RaiseAlarm():
                return None
            case do.RunTask():
                return ev.TaskFinished(at=at, request=request, done=())
            case do.ReportDownloading() | do.ReportDownloaded() | do.ReportQueueing():
                return None
            case do.ReportResult(fault=fault):
                around.ended(self.name, "" if fault is None else failure_text(fault.error_code))
                return ev.ReportQueued(at=at, request=request)
            case _:
                assert_never(effect)

    def _checked(self, request: int | None) -> Any:
        at, version = self._around.agenda.now, self._around.version
        if not self.is_announced:  # nothing is announced yet
            return ev.ReleaseMissing(at=at, request=request)
        verdict = self._around.check(self.name)
        if not isinstance(verdict, Grant):
            return ev.ReleaseMissing(at=at, request=request, reason=verdict.reason)
        return ev.ReleaseFound(
            at=at, request=request, version=version, urls=("http://preview/p",), sha256=sha_of(version), size_bytes=1,
            update=f"{self.name}-{self._around.agenda.now_s:.3f}",
        )  # fmt: skip

    def _started(self, installed: Installed, request: int | None) -> Any:
        self._installs += 1
        url = f"http://{self.name}:{self._installs}"
        self.alive.add(url)
        if installed.release.version == self._around.version:
            self.started = True
            if self.failing:
                self.sick.add(url)
        return ev.WorkloadStarted(
            at=self._around.agenda.now, request=request, workload_id=installed.workload_id, url=url
        )

    def _reverted(self, old: Installed | None, new: Installed | None, request: int | None) -> Any:
        self._stop(new)
        if old is None:
            return ev.WorkloadAbsent(at=self._around.agenda.now, request=request)
        if old.url in self.alive:
            return ev.WorkloadStarted(
                at=self._around.agenda.now, request=request, workload_id=old.workload_id, url=old.url
            )
        return self._started(old, request)

    def _stop(self, installed: Installed | None) -> None:
        if installed is not None:
            self.alive.discard(installed.url)
            self.sick.discard(installed.url)
