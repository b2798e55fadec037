"""What can happen to a sidekick that it didn't ask for, and the answers to its questions."""

from typing import Any

from outrider.core import effects as do
from outrider.core import events as ev
from outrider.verify.performing import half_done, late, may_be_late, performed
from outrider.verify.steps import EPOCH, NEW, NOW, SHA, answer, version_of
from outrider.verify.world import QUEUE_LIMIT, Edge, Local, World


def edges(world: World, s: Local) -> list[Edge]:
    """Everything that can happen in ``s``. What changes nothing is left out."""
    found: list[Edge] = []
    performed(world, s, found)
    _lapses(world, s, found)
    late(world, s, found)
    if not s.poison and world.setting.badness != "none":
        found.append(Edge(f"another instance marks {NEW} bad", True, s._replace(poison=True), elsewhere=True))
    if max(len(s.works), len(s.writes), len(s.locks)) > QUEUE_LIMIT:
        world.capped += 1
    else:
        _lease(world, s, found)
        _asked(world, s, found)
        _timers(world, s, found)
        _news(world, s, found)
    return [edge for edge in found if edge.after != s or edge.problem]


def _timers(world: World, s: Local, found: list[Edge]) -> None:
    brain = world.steps.brains[s.brain]
    hopeful = s.wish is not None and s.wish[1] > 0
    hopeful = hopeful or any(task[1] for tasks in (s.works, s.writes, s.locks, s.asks) for task in tasks)
    watched = any(
        world.is_bad(version_of(effect.url))
        for effect in (world.steps.effects[task[0]] for task in s.asks)
        if isinstance(effect, do.WatchProbe)
    )
    for timer in brain.snapshot.timers:
        if timer.event.endswith(".expired"):
            # minutes: it runs out only when the answer can't come any more
            if hopeful:
                continue
        elif watched:
            continue  # a version that dies does so while it is watched, not later
        event = (timer.event, timer.generation)
        what = f"timer {timer.event}"

        def make(name: str = timer.event, generation: int = timer.generation) -> Any:
            return ev.TimerExpired(name=name, at=EPOCH, generation=generation)

        found.append(world.tell(s, (event, make), what, False))


def _news(world: World, s: Local, found: list[Edge]) -> None:
    memory = world.steps.brains[s.brain].memory
    if s.poison and NEW not in memory.poisoned:
        found.append(
            world.tell(
                s, ("poison", lambda: ev.PoisonChanged(at=EPOCH, versions={NEW: ""})), f"hears that {NEW} is bad", False
            )
        )
    _operator(world, s, found)
    if world.setting.badness == "dies":
        _dying(world, s, found)
    _crash(world, s, found)


def _operator(world: World, s: Local, found: list[Edge]) -> None:
    memory = world.steps.brains[s.brain].memory
    if _minds_pauses(world, world.steps.brains[s.brain].leaf):
        if memory.paused:
            found.append(world.tell(s, answer(ev.OperatorResumed, 0), "an operator resumes it", True))
        elif s.words:
            fewer = s._replace(words=s.words - 1)
            found.append(world.tell(fewer, answer(ev.OperatorPaused, 0), "an operator pauses it", True))
    under_way = memory.candidate is not None and memory.declined != memory.candidate.release.version
    if s.words and (under_way or (not memory.update and memory.previous is not None)):
        event = answer(ev.OperatorRolledBack, 0, update=NOW)
        fewer = s._replace(words=s.words - 1)
        found.append(world.tell(fewer, event, "an operator rolls it back", True))


def _minds_pauses(world: World, leaf: str) -> bool:
    """Whether a pause could make a difference in ``leaf``. Elsewhere it is only remembered until such a state."""
    minds = world.minding.get(leaf)
    if minds is None:
        heard = [one for state in world.steps.chart.chain(leaf) for one in state.transitions]
        minds = world.minding[leaf] = any(
            {ev.OperatorPaused.name, ev.OperatorResumed.name}.intersection(one.events)
            or any(condition.guard in _READ_PAUSED for condition in one.conditions)
            for one in heard
        )
    return minds


def _dying(world: World, s: Local, found: list[Edge]) -> None:
    for effect, _ in s.asks:
        watch = world.steps.effects[effect]
        if not isinstance(watch, do.WatchProbe) or not world.is_bad(version_of(watch.url)):
            continue
        ended = watch.url.removeprefix("http://")
        if ended not in s.alive:
            continue
        t = s._replace(
            alive=tuple(one for one in s.alive if one != ended),
            deserted=tuple(sorted({*s.deserted, watch.url})),
        )
        event = answer(ev.WorkloadExited, 0, workload_id=ended, status="1")
        found.append(world.tell(t, event, f"{version_of(ended)} ends by itself", False))
        found.append(Edge(f"{version_of(ended)} ends by itself, and nobody tells", True, t))


def _crash(world: World, s: Local, found: list[Edge]) -> None:
    memory = world.steps.brains[s.brain].memory
    base = s._replace(
        asks=(), wish=None, works=(), writes=(), locks=(), lease="none", key=2 if s.key else 0,
        late=tuple((late, False) for late, _ in s.late),
    )  # fmt: skip
    variants = [("", base)]
    if s.works:
        head = s.works[0][0]
        variants.append(
            (f"; {world.steps.effects[head].name} is carried out all the same", base._replace(works=((head, 0),)))
        )
        effect: Any = world.steps.effects[head]
        if isinstance(effect, do.ReplaceWorkload | do.RevertWorkload):
            variants.append((f"; only the first half of {effect.name} is done", half_done(base, effect)))
    for tasks in (s.writes, s.locks):
        if tasks and len(s.late) < world.setting.late_limit and may_be_late(world, tasks[0][0]):
            head = tasks[0][0]
            name = world.steps.effects[head].name
            variants += [
                (f"{words}; {name} is on its way", t._replace(late=(*t.late, (head, False))))
                for words, t in variants
                if len(t.late) < world.setting.late_limit
            ]
    for words, t in variants:
        for patch in ("", "restarts") if memory.update else ("",):
            often = " (once too often)" if patch else ""
            event = answer(ev.SidekickRestarted, 0)
            found.append(world.tell(t, event, f"killed and restarted{often}{words}", True, patch=patch))


def _asked(world: World, s: Local, found: list[Edge]) -> None:
    for effect, request in s.asks:
        match world.steps.effects[effect]:
            case do.StartProbe(url=url) | do.ConfirmProbe(url=url):
                found.append(_probed(world, s, url, request))
            case do.WatchProbe(url=url):
                if url.removeprefix("http://") not in s.alive:
                    found.append(_probed(world, s, url, request))
            case do.CheckRelease(version=version):
                _checked(world, s, version, request, found)
            case do.DownloadRelease():
                found.append(world.tell(s, answer(ev.ReleaseDownloaded, request), "downloaded", False))
                for patch in ("", "attempts"):
                    event = answer(ev.ReleaseFailed, request, cause="", error_code=9)
                    often = " (once too often)" if patch else ""
                    found.append(world.tell(s, event, f"the download fails{often}", True, patch=patch))
            case do.VerifyRelease():
                found.append(world.tell(s, answer(ev.ReleaseVerified, request), "the payload is as promised", False))
                event = answer(ev.ReleaseFailed, request, cause="", error_code=12)
                found.append(world.tell(s, event, "the payload isn't as promised", True))
            case do.ReportResult():
                found.append(world.tell(s, answer(ev.ReportQueued, request), "the result is in the outbox", False))
            case _:
                pass


def _probed(world: World, s: Local, url: str, request: int) -> Edge:
    version = version_of(url)
    healthy = url.removeprefix("http://") in s.alive
    if healthy and not (world.is_bad(version) and world.setting.badness == "unhealthy"):
        return world.tell(s, answer(ev.ProbePassed, request, url=url), f"{version} proves healthy", False)
    return world.tell(s, answer(ev.ProbeFailed, request, cause=""), f"{version} isn't healthy", False)


def _checked(world: World, s: Local, version: str, request: int, found: list[Edge]) -> None:
    missing = world.tell(s, answer(ev.ReleaseMissing, request), "the service has nothing for it", False)
    if version == NEW or s.poison:
        found.append(missing)
    else:
        event = answer(
            ev.ReleaseFound, request, version=NEW, urls=("http://x/p",), sha256=SHA[NEW], size_bytes=1, update=NOW
        )
        found.append(world.tell(s, event, f"the service offers {NEW}", False))
        found.append(missing._replace(fault=True))
    event = answer(ev.ReleaseFailed, request, cause="", error_code=1)
    found.append(world.tell(s, event, "the service doesn't answer", True))


def _lapses(world: World, s: Local, found: list[Edge]) -> None:
    if s.lease == "held":
        gone = world.drop_key(s) if s.key == 1 else s
        found.append(Edge("its lease ends in etcd, and it hasn't noticed", True, gone._replace(lease="ended")))
    if s.key == 2:
        found.append(Edge("the lease of its earlier life ends", False, world.drop_key(s)))


def _lease(world: World, s: Local, found: list[Edge]) -> None:
    lost = answer(ev.LockLost, 0)
    if s.lease == "held":
        kept = s._replace(lease="none", key=2 if s.key == 1 else s.key)
        found.append(world.tell(kept, lost, "can't reach etcd: gives its lease up before it ends", True))
    elif s.lease == "ended":
        found.append(world.tell(s._replace(lease="none"), lost, "notices that its lease has ended", False))
    else:
        found.append(Edge("has a new lease", False, s._replace(lease="held")))


_READ_PAUSED = frozenset({"is_paused", "wants_check", "may_take"})
"""Guards that ask whether an operator paused it."""
