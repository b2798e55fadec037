"""What a sidekick is told when it asks its prober, the update service or the outbox. Asking changes nothing there."""

from outrider.core.omaha import FailureCode
from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.verify.steps import NEW, NOW, OLD, SHA, answer, version_of
from outrider.verify.tasks import TASK
from outrider.verify.world import Edge, Local, World


def answers(world: World, s: Local, found: list[Edge]) -> None:
    """All answers to the questions that are open."""
    for effect, request in s.asks:
        match world.steps.effects[effect]:
            case do.StartProbe(url=url) | do.ConfirmProbe(url=url):
                _probed(world, s, url, request, found)
            case do.WatchProbe(url=url):
                _watched(world, s, url, request, found)
            case do.StartAnalysis(url=url):
                _analysed(world, s, url, request, found)
            case do.CheckRelease(version=version):
                _checked(world, s, version, request, found)
            case do.DownloadRelease():
                found.extend(world.tell(s, answer(ev.ReleaseDownloaded, request), "downloaded", False))
                event = answer(ev.ReleaseFailed, request, cause="", error_code=FailureCode.TRANSFER)
                found.extend(world.tell(s, event, "the download fails", True))
            case do.VerifyRelease(release=release):
                tasks = (TASK,) if world.setting.tasked and release.version == NEW else ()
                event = answer(ev.ReleaseVerified, request, tasks=tasks)
                found.extend(world.tell(s, event, "the payload is as promised", False))
                event = answer(ev.ReleaseFailed, request, cause="", error_code=FailureCode.PAYLOAD_VERIFICATION)
                found.extend(world.tell(s, event, "the payload isn't as promised", True))
            case do.ReportResult():
                found.extend(world.tell(s, answer(ev.ReportQueued, request), "the result is in the outbox", False))
            case _:
                pass


def _probed(world: World, s: Local, url: str, request: int, found: list[Edge]) -> None:
    """Good versions pass and may fail; a bad one that starts fails, or shows only later that it is bad."""
    version, serves = version_of(url), url in s.alive
    healthy = serves and not (world.is_bad(version) and world.setting.badness == "unhealthy")
    if serves:
        event = answer(ev.ProbePassed, request, url=url)
        found.extend(world.tell(s, event, f"{version} proves healthy", not healthy))
    found.extend(world.tell(s, answer(ev.ProbeFailed, request, cause=""), f"{version} isn't healthy", healthy))


def _watched(world: World, s: Local, url: str, request: int, found: list[Edge]) -> None:
    version = version_of(url)
    healthy = url in s.alive and not (world.is_bad(version) and world.setting.badness == "unhealthy")
    event = answer(ev.ProbeFailed, request, cause="")
    found.extend(world.tell(s, event, f"{version} is watched, and isn't healthy", healthy))


def _analysed(world: World, s: Local, url: str, request: int, found: list[Edge]) -> None:
    """A bad version fails; a good one passes, and may fail, or stay undecided, all the same."""
    version = version_of(url)
    bad = world.is_bad(version)
    if url in s.alive and not bad:
        found.extend(
            world.tell(s, answer(ev.AnalysisPassed, request, sample=""), f"the analysis of {version} passes", False)
        )
    event = answer(ev.AnalysisFailed, request, cause="")
    found.extend(world.tell(s, event, f"the analysis of {version} fails", not bad))
    event = answer(ev.AnalysisUndecided, request, cause="")
    found.extend(world.tell(s, event, f"the analysis of {version} stays undecided", True))


def _checked(world: World, s: Local, version: str, request: int, found: list[Edge]) -> None:
    """The service answers by what it knew as it was asked; one of another make doesn't know what is blocked."""
    memory = world.steps.brains[s.brain].memory
    new = world.steps.new
    due = version != NEW and not s.blocked and memory.wanted == new.label and not memory.group_paused and not s.braked
    if version != NEW and not s.braked:
        event = answer(
            ev.ReleaseFound, request, version=new.version, urls=new.urls, sha256=new.sha256, size_bytes=1, update=NOW,
            environment=new.environment, environment_digest=new.environment_digest,
            kind="image" if world.setting.badness == "unfit" else "archive",
        )  # fmt: skip
        found.extend(world.tell(s._replace(permitted=True), event, f"the service offers {NEW}", not due))
    back = "undo" in world.setting.says and version == NEW and memory.wanted == OLD and not memory.group_paused
    if back and not s.braked:
        event = answer(
            ev.ReleaseFound, request, version=OLD, urls=("http://x/p",), sha256=SHA[OLD], size_bytes=1, update=NOW
        )
        found.extend(world.tell(s._replace(permitted=True), event, f"the service sends it back to {OLD}", False))
    missing = answer(ev.ReleaseMissing, request)
    found.extend(world.tell(s, missing, "the service has nothing for it", due or back))
    event = answer(ev.ReleaseFailed, request, cause="", error_code=FailureCode.ERROR)
    found.extend(world.tell(s, event, "the service doesn't answer", True))
