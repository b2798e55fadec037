"""The machine under one instance: what runs on it, its payloads, and how what runs there behaves."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

from outrider.analysis.analyst import Verdict as AnalysisVerdict
from outrider.core.analysis.sequential import Decision
from outrider.core.blame import Evidence
from outrider.core.errors import DriverError, Refused
from outrider.core.images import PayloadKind
from outrider.core.sidekick.memory import Installed, Release
from outrider.payloads.transfer import Progress, TransferFailed
from outrider.runtimes import Exited, Given, RunnableRelease, Workload, WorkloadSpec
from outrider.sidekick.prober import Failed, Kind, Passed, Verdict
from tests.sim.agenda import Agenda
from tests.sim.store import At, FaultProfile

Badness = Literal["none", "refused", "unhealthy", "dies", "sours", "errs", "unasked"]
"""``dies``: ends by itself while it is watched. ``sours``: proves healthy, and then answers badly. ``errs``: stays
healthy, and answers requests with errors, which only an analysis sees. ``unasked``: nobody sends it enough requests."""

INTERVAL_S, ANSWERS, DEADLINE_S = 0.5, 3, 10.0
"""Of the probes: so many good answers in a row prove, so many bad ones block."""
SWEET_ANSWERS = 4
"""What sours answers so many times well."""
FIRST_PORT = 8000
KEPT_PAYLOADS = 3


class Killed(BaseException):
    """The process ends in the middle of what it does."""


RELEASE = "RELEASE"
"""Variable that the simulated environments give: the label of the release."""


class SimEnvironments:
    """What releases are started with: nothing but their own names; never away, never gone."""

    def fetch(self, release: Release) -> None:
        """It is here."""

    def check(self, release: Release) -> None:
        """It is whole."""

    def prune(self, needed: Collection[Release]) -> None:
        """It takes no room."""

    def note_start(self, installed: Installed, given: Given) -> None:
        """It refers to nothing."""

    def given(self, release: Release) -> Given:
        return Given() if release.id.is_plain else Given(variables={RELEASE: release.label})


def sha_of(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()


@dataclass(slots=True)
class Lookout:
    """A wish to hear of a workload's end."""

    deliver: Callable[[Exited], None]
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass(slots=True)
class Host:
    """One machine. Its addresses are used again, as ports are.

    Attributes:
        workloads: Address -> version of all that runs.
        ids: Workload id -> address.
        recorded: The same, of what doesn't run at the moment, too.
        deserted: Addresses where something has ended by itself: nobody could have known beforehand.
        payloads: SHA-256 of what is on the disk, oldest first.
        prepared: The same of what was prepared and not started yet.
        answers: Address -> how often what runs there was asked for its health.
        cannot: Version -> what of this machine keeps it from running there.
    """

    name: str
    agenda: Agenda
    random: Random
    faults: FaultProfile
    bad: Mapping[str, Badness]
    ports: int
    changed: Callable[["Host"], None]
    started: Callable[["Host", str], None]
    workloads: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, str] = field(default_factory=dict)
    deserted: dict[str, None] = field(default_factory=dict)
    payloads: dict[str, None] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)
    answers: dict[str, int] = field(default_factory=dict)
    lookouts: dict[str, list[Lookout]] = field(default_factory=dict)
    cannot: dict[str, Evidence] = field(default_factory=dict)

    def run(self, workload_id: str, version: str) -> None:
        """Start a workload."""
        url = self._address(workload_id)
        self.recorded[workload_id] = url
        self.workloads[url], self.ids[workload_id], self.answers[url] = version, url, 0
        self.deserted.pop(url, None)
        self.started(self, version)
        self.changed(self)

    def _address(self, workload_id: str) -> str:
        """As ``ProcessRuntime`` chooses it: the one that it had, else one that nobody had, else any that is free."""
        free = [f"http://{self.name}:{port}" for port in range(FIRST_PORT, FIRST_PORT + self.ports)]
        free = [url for url in free if url not in self.workloads]
        if not free:
            raise DriverError("no free port")
        before = self.recorded.get(workload_id)
        if before in free and self.random.random() < 0.9:  # else another program has taken it meanwhile
            return before
        known = set(self.recorded.values())
        return self.random.choice([url for url in free if url not in known] or free)

    def remove(self, workload_id: str) -> None:
        """Remove what is kept of a workload."""
        self.recorded.pop(workload_id, None)

    def end(self, workload_id: str) -> None:
        """Stop a workload, if it runs."""
        url = self.ids.pop(workload_id, None)
        if url is not None:
            del self.workloads[url]
            self._tell(workload_id, "exit 0")
            self.changed(self)

    def die(self, workload_id: str) -> None:
        """Let a workload end by itself."""
        url = self.ids.pop(workload_id, None)
        if url is not None:
            self._desert(url)
            self._tell(workload_id, "exit 1")
            self.changed(self)

    def power_off(self) -> None:
        """All that ran here is gone."""
        for url in list(self.workloads):
            self._desert(url)
        self.ids.clear()
        self.lookouts.clear()
        self.changed(self)

    def at_address(self, url: str) -> str | None:
        """Id of what runs at ``url``."""
        return next((workload_id for workload_id, where in self.ids.items() if where == url), None)

    def is_healthy(self, url: str) -> bool:
        """Ask once."""
        version = self.workloads.get(url)
        if version is None:
            return False
        self.answers[url] += 1
        match self.bad.get(version, "none"):
            case "unhealthy":
                return False
            case "sours":
                return self.answers[url] <= SWEET_ANSWERS
            case _:
                return True

    def _desert(self, url: str) -> None:
        del self.workloads[url]
        self.deserted[url] = None

    def _tell(self, workload_id: str, status: str) -> None:
        for lookout in self.lookouts.pop(workload_id, []):
            if not lookout.closed:
                lookout.deliver(Exited(workload_id=workload_id, status=status))


class SimRuntime:
    """The runtime of one process on a host; implements ``Runtime``."""

    name = "simulated"
    kinds: frozenset[PayloadKind] = frozenset({"archive"})

    def __init__(self, host: Host, spend: Callable[[float], None], at: At) -> None:
        self._host, self._spend, self._at = host, spend, at
        self.dies_at_start = False
        self._has_ended = False
        self._lookouts: list[Lookout] = []

    def close(self) -> None:
        """The process has ended: it looks out for nothing any more."""
        self._has_ended = True
        for lookout in self._lookouts:
            lookout.close()

    def prepare(self, release: RunnableRelease) -> None:
        host = self._host
        if release.sha256 in host.prepared:
            return
        if host.faults.runtime and host.random.random() < host.faults.runtime:
            self._spend(1.0)
            raise DriverError("no room")
        if host.bad.get(release.version) == "refused" and host.random.random() < 0.5:
            raise Refused("not an archive")
        self._spend(host.random.uniform(0.01, 2.0))
        host.prepared.add(release.sha256)

    def prune(self, needed: Collection[str]) -> None:
        self._host.prepared &= set(needed)

    def start(self, spec: WorkloadSpec) -> Workload:
        if self.dies_at_start:
            raise Killed
        found = self.find(spec.workload_id)
        if found is not None:
            return found
        # what a release is started with tells it from others of its version
        host, version = self._host, spec.given.variables.get(RELEASE, spec.release.version)
        if host.faults.runtime and host.random.random() < host.faults.runtime:
            self._spend(1.0)
            raise DriverError("no memory")
        if version in host.cannot:
            raise DriverError(f"it can't run here: {host.cannot[version]}", evidence=host.cannot[version])
        host.prepared.discard(spec.release.sha256)
        if host.bad.get(version) == "refused":
            host.started(host, version)
            raise Refused("no such command")
        host.run(spec.workload_id, version)
        self._spend(host.random.uniform(0.01, 0.3))
        return self._workload(spec.workload_id)

    def find(self, workload_id: str) -> Workload | None:
        return self._workload(workload_id) if workload_id in self._host.ids else None

    def running(self) -> tuple[Workload, ...]:
        return tuple(self._workload(workload_id) for workload_id in sorted(self._host.ids))

    def stop(self, workload_id: str, grace_s: float) -> None:
        if workload_id in self._host.ids:
            self._spend(self._host.random.uniform(0.01, grace_s))
            self._host.end(workload_id)

    def remove(self, workload_id: str) -> None:
        self.stop(workload_id, 1.0)
        self._host.remove(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> Lookout:
        lookout = Lookout(lambda exited: self._deliver(lookout, exited, deliver))
        if self._has_ended:  # in the middle of a call: it doesn't look out any more
            lookout.close()
        elif workload_id in self._host.ids:
            kept = [one for one in self._host.lookouts.get(workload_id, []) if not one.closed]
            self._host.lookouts[workload_id] = [*kept, lookout]
            self._lookouts = [*(one for one in self._lookouts if not one.closed), lookout]
        else:
            lookout.deliver(Exited(workload_id=workload_id, status="gone"))
        return lookout

    def _deliver(self, lookout: Lookout, exited: Exited, deliver: Callable[[Exited], None]) -> None:
        def tell() -> None:
            if not lookout.closed:
                deliver(exited)

        self._at(self._host.random.uniform(0.001, 0.1), tell)

    def _workload(self, workload_id: str) -> Workload:
        url = self._host.ids[workload_id]
        return Workload(
            workload_id=workload_id, version=self._host.workloads[url], url=url, handle=f"simulated {workload_id}"
        )


class SimPayloads:
    """The payloads on a host, as ``PayloadStore`` keeps them."""

    def __init__(self, host: Host, spend: Callable[[float], None], cut: Callable[[], None]) -> None:
        self._host, self._spend, self.cancel = host, spend, cut

    def download(
        self, version: str, urls: Sequence[str], size_bytes: int, sha256: str, on_progress: Progress | None = None
    ) -> Path:
        random = self._host.random
        if sha256 not in self._host.payloads:
            self._spend(random.uniform(0.05, 1.5))
            if self._host.faults.downloads and random.random() < self._host.faults.downloads:
                raise TransferFailed(f"{version}: connection reset")
        return Path(sha256)

    def verify(self, path: Path, size_bytes: int, sha256: str) -> Path:
        self._host.payloads[sha256] = None
        return path

    def find(self, sha256: str) -> Path | None:
        return Path(sha256) if sha256 in self._host.payloads else None

    def prune(self, needed: Collection[str]) -> None:
        spare = max(0, KEPT_PAYLOADS - len(set(needed)))
        others = [sha256 for sha256 in self._host.payloads if sha256 not in needed]
        for sha256 in others[: len(others) - spare]:
            del self._host.payloads[sha256]


class SimProbe:
    """One probe of one address; implements what ``ProbeWork`` needs of ``Probe``."""

    def __init__(
        self, host: Host, url: str, kind: Kind, deliver: Callable[[Verdict], None], at: At, clock: Callable[[], float]
    ) -> None:
        self._host, self._url, self._kind, self._deliver, self._at = host, url, kind, deliver, at
        self._clock = clock
        self._good = self._bad = 0
        self._since_s = clock()
        self._stopped = False
        self._at(INTERVAL_S / 2, self._ask)
        if kind == "watch" and host.bad.get(host.workloads.get(url, "")) == "dies":
            workload_id = host.at_address(url)
            assert workload_id is not None
            host.agenda.at(1.0, partial(host.die, workload_id))

    def stop(self) -> None:
        self._stopped = True

    def _ask(self) -> None:
        if self._stopped:
            return
        if self._host.is_healthy(self._url):
            self._good, self._bad = self._good + 1, 0
        else:
            self._good, self._bad = 0, self._bad + 1
        if self._kind == "watch":
            verdict: Verdict | None = Failed(reason="503") if self._bad >= ANSWERS else None
        elif self._good >= ANSWERS:
            verdict = Passed(took_s=1.0)
        else:
            verdict = Failed(reason="503") if self._clock() - self._since_s >= DEADLINE_S else None
        if verdict is None:
            self._at(INTERVAL_S, self._ask)
        else:
            self._stopped = True
            self._deliver(verdict)


class SimAnalysis:
    """One analysis of one candidate; what it finds is what is wrong with the version."""

    def __init__(
        self, host: Host, url: str, deliver: Callable[[AnalysisVerdict], None], tell: Callable[[str], None], at: At
    ) -> None:
        self._host, self._url, self._deliver, self._tell = host, url, deliver, tell
        self._stopped = False
        at(INTERVAL_S, self._sample)
        at(host.random.uniform(1.0, 20.0), self._decide)

    def stop(self) -> None:
        self._stopped = True

    def _sample(self) -> None:
        if not self._stopped:
            self._tell("12 of about 400 requests")

    def _decide(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        decisions: dict[Badness, Decision] = {"errs": "fail", "unasked": "undecided"}
        badness = self._host.bad.get(self._host.workloads.get(self._url, ""), "none")
        self._deliver(AnalysisVerdict(decision=decisions.get(badness, "pass"), words="40 of about 400 requests"))


class SimProber:
    """Starts probes; implements what ``ProbeWork`` needs of ``Prober``."""

    def __init__(self, host: Host, at: At, clock: Callable[[], float]) -> None:
        self._host, self._at, self._clock = host, at, clock

    def start(
        self,
        url: str,
        *,
        kind: Kind,
        deliver: Callable[[Verdict], None],
        tell: Callable[[str], None] = lambda text: None,
    ) -> SimProbe:
        return SimProbe(self._host, url, kind, deliver, self._at, self._clock)
