"""What a runtime may do besides: fetch what a payload only names, and say how its workloads are."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from outrider.config.contradictions import contradictions
from outrider.config.sections import InstanceSettings, ProbeSettings, Settings
from outrider.core.blame import judge
from outrider.core.errors import DriverError
from outrider.core.images import PayloadKind
from outrider.core.sidekick.effects import AbandonRelease, DownloadRelease, StartProbe
from outrider.core.sidekick.events import AnyEvent, ProbeFailed, ReleaseDownloaded, ReleaseProgressed
from outrider.core.sidekick.memory import Release
from outrider.payloads.transfer import Cancelled
from outrider.runtimes import Fetcher, HealthReporter, RunnableRelease
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.docker.runtime import DockerRuntime
from outrider.sidekick.prober import Prober
from outrider.sidekick.probes import THIS_MACHINE, ask, name_of
from outrider.sidekick.workers.probe import ProbeWork
from outrider.sidekick.workers.release import ReleaseWork
from tests.support.waiting import eventually

HEALTHCHECK = ProbeSettings(kind="healthcheck", interval_s=0.01, timeout_s=1, successes=2, failures=2, deadline_s=0.2)


class Store:
    """A payload store that has everything."""

    def download(
        self, version: str, urls: Sequence[str], size_bytes: int, sha256: str, on_progress: Any = None
    ) -> Path:
        if on_progress is not None:
            on_progress(9, 9)
        return Path("/payload")

    def cancel(self) -> None:
        pass


class Fetching:
    """A runtime that fetches until it is cancelled, or at once."""

    name, kinds = "docker", frozenset[PayloadKind]({"image"})

    def __init__(self) -> None:
        self.fetched: list[RunnableRelease] = []
        self.hold = False
        self._cancelled = threading.Event()

    def fetch(self, release: RunnableRelease, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.fetched.append(release)
        assert on_progress is not None
        on_progress(500, 1000)
        if self.hold and self._cancelled.wait(30):
            raise Cancelled("called off")

    def cancel_fetch(self) -> None:
        self._cancelled.set()


def release(kind: PayloadKind) -> Release:
    return Release(version="2.0.0", urls=(), sha256="ab" * 32, size_bytes=9, kind=kind)


def worker(runtime: object, events: list[AnyEvent]) -> ReleaseWork:
    return ReleaseWork(cast(Any, None), cast(Any, Store()), cast(Any, runtime), events.append)


def download(work: ReleaseWork, kind: PayloadKind) -> None:
    effect = DownloadRelease(release=release(kind))
    work.interrupt(effect)
    work.perform(effect, 7)


def test_an_image_is_downloaded_once_the_runtime_has_fetched_it_and_its_progress_is_the_images() -> None:
    events: list[AnyEvent] = []
    runtime = Fetching()

    download(worker(runtime, events), "image")

    assert [RunnableRelease(version="2.0.0", sha256="ab" * 32, payload=Path("/payload"))] == runtime.fetched
    (progress, done) = events
    assert isinstance(progress, ReleaseProgressed)
    assert (500, 1000) == (progress.done_bytes, progress.size_bytes)
    assert isinstance(done, ReleaseDownloaded)


def test_what_is_whole_already_is_not_fetched() -> None:
    events: list[AnyEvent] = []
    runtime = Fetching()

    download(worker(runtime, events), "image-tar")
    download(worker(object(), events), "image")

    assert [] == runtime.fetched
    assert [9, 9] == [one.done_bytes for one in events if isinstance(one, ReleaseProgressed)]


def test_a_fetch_that_is_called_off_ends_at_once() -> None:
    runtime, raised = Fetching(), list[BaseException]()
    runtime.hold = True
    work = worker(runtime, [])

    def run() -> None:
        try:
            download(work, "image")
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: runtime.fetched)
    work.interrupt(AbandonRelease())
    thread.join(30)

    assert ["called off"] == [str(one) for one in raised]


def test_docker_fetches_and_reports_health(tmp_path: Path) -> None:
    settings = Settings(instance=InstanceSettings(app="a", group="g", state_dir=tmp_path))
    runtime = DockerRuntime(settings, DockerSettings(), environment={})

    assert isinstance(runtime, Fetcher)
    assert isinstance(runtime, HealthReporter)


def test_the_runtimes_own_word_is_a_probe() -> None:
    def silent(url: str) -> str:
        raise DriverError("the image has no HEALTHCHECK")

    assert "" == ask("http://a:1", HEALTHCHECK, lambda url: "")
    assert "unhealthy: full" == ask("http://a:1", HEALTHCHECK, lambda url: "unhealthy: full")
    assert f"{THIS_MACHINE}the image has no HEALTHCHECK" == ask("http://a:1", HEALTHCHECK, silent)
    assert "HEALTHCHECK" == name_of(HEALTHCHECK)


@pytest.mark.parametrize(("trouble", "blame"), [("", "release"), ("Docker does not answer", "world")])
def test_bad_health_is_no_verdict_while_the_runtime_itself_ails(trouble: str, blame: str) -> None:
    events: list[AnyEvent] = []
    prober = Prober(HEALTHCHECK, health=lambda url: "unhealthy")
    work = ProbeWork(prober, events.append, trouble=lambda: trouble)

    work.perform(StartProbe(url="http://a:1"), 7)

    failed = eventually(lambda: events[0] if events else None)
    assert isinstance(failed, ProbeFailed)
    assert blame == judge(failed.evidence)
    assert failed.cause.endswith(f"; {trouble}" if trouble else "answers)")


def test_healthcheck_needs_a_runtime_that_reports_it() -> None:
    settings = Settings(instance=InstanceSettings(id="i", app="a", group="g"), probe=ProbeSettings(kind="healthcheck"))

    assert (
        "healthcheck needs a runtime that reports it (docker, dpkg), and instance.runtime is process"
        in (dict(contradictions(settings))["probe.kind"])
    )
