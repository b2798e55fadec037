"""Carrying out what a sidekick asked of its runtime: start, stop, replace, remove."""

from typing import Any

from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.verify import contracts
from outrider.verify.steps import NEW, address, answer, id_of, version_of
from outrider.verify.world import Edge, Local, World


def performed(world: World, s: Local, found: list[Edge]) -> None:
    """What becomes of the first effect that waits for the runtime."""
    if not s.works:
        return
    (number, request), rest = s.works[0], s.works[1:]
    s = s._replace(works=rest)
    effect: Any = world.steps.effects[number]
    match effect:
        case do.EnsureWorkload(installed=None) | do.RevertWorkload(old=None):
            stopped = half_done(s, effect) if isinstance(effect, do.RevertWorkload) else s
            _done(world, s, stopped, effect.name, answer(ev.WorkloadAbsent, request), request, found)
        case do.EnsureWorkload(installed=start) if start is not None and world.setting.contracts:
            _ensured(world, s, effect, start, request, found)
        case do.EnsureWorkload(installed=start) | do.StartWorkload(installed=start):
            _started(world, s, s, effect, start, request, found)
        case do.ReplaceWorkload(new=start) | do.RevertWorkload(old=start):
            _started(world, s, half_done(s, effect), effect, start, request, found)
        case do.RetireWorkload(installed=installed) | do.RemoveWorkload(installed=installed):
            kind = ev.WorkloadRetired if isinstance(effect, do.RetireWorkload) else ev.WorkloadRemoved
            gone = s if installed is None else _gone(s, installed.workload_id)
            _done(world, s, gone, effect.name, answer(kind, request), request, found)
        case do.TidyWorkload(keep=keep):
            t = s
            for stray in [id_of(url) for url in s.alive if id_of(url) not in keep]:
                t = _gone(t, stray)
            _done(world, s, t, effect.name, None, 0, found)
        case do.RestartWorkload(installed=several):
            t = s
            for one in several:
                t, url, _ = _run(world, t, one)
                t = _heard(world, t, url)
            _done(world, s, t, effect.name, None, 0, found)
        case _:
            raise AssertionError(effect)


def half_done(s: Local, effect: do.ReplaceWorkload | do.RevertWorkload) -> Local:
    """After its first half: what was in the place is stopped."""
    first = effect.old if isinstance(effect, do.ReplaceWorkload) else effect.new
    return s if first is None else _gone(s, first.workload_id)


def _run(world: World, s: Local, installed: Any) -> tuple[Local, str, str]:
    """Start or find a workload. Returns its address (empty: it doesn't start), and what is wrong, too."""
    workload_id, problem = installed.workload_id, ""
    if world.is_bad(installed.release.version):
        if s.barred:
            problem = f"P5: {NEW} was blocked before, and is tried again"
        s = s._replace(touched=s.touched or not s.forgiven)
        if world.setting.badness == "refused":
            return s, "", problem
    if world.setting.badness == "local" and installed.release.version == NEW:
        return s, "", problem
    for url in s.alive:
        if id_of(url) == workload_id:
            return s, url, problem
    problem = problem or contracts.breach(s, installed.release.version)
    url = address(workload_id, installed.url if world.setting.falls else "")
    s = s._replace(alive=tuple(sorted({*s.alive, url})), deserted=tuple(one for one in s.deserted if one != url))
    return s, url, problem


def _ensured(world: World, s: Local, effect: do.Effect, start: Any, request: int, found: list[Edge]) -> None:
    """It asks first whether what was committed here may run yet; what may not is stopped."""
    t = contracts.noted(world, s, start.release.version)
    if t is not None:
        _started(world, t, t, effect, start, request, found)
        return
    event = answer(ev.WorkloadFailed, request, evidence="wrong-setting", cause="")
    _done(world, s, _gone(s, start.workload_id), f"{effect.name}: too old", event, request, found)


def _heard(world: World, s: Local, url: str) -> Local:
    """Whoever starts or finds a workload looks out for its end."""
    return s._replace(heard=tuple(sorted({*s.heard, url}))) if url and world.setting.falls else s


def _gone(s: Local, workload_id: str) -> Local:
    return s._replace(
        heard=tuple(url for url in s.heard if id_of(url) != workload_id),
        alive=tuple(url for url in s.alive if id_of(url) != workload_id),
        deserted=tuple(url for url in s.deserted if id_of(url) != workload_id),
    )


def _started(
    world: World, s: Local, half: Local, effect: do.Effect, start: Any, request: int, found: list[Edge]
) -> None:
    name, version = effect.name, version_of(start.workload_id)
    t, url, problem = _run(world, half, start)
    if not url:
        evidence = "noexec" if world.setting.badness == "local" else "bad-payload"
        event = answer(ev.WorkloadFailed, request, evidence=evidence, cause="")
        _done(world, s, t, f"{name} of {version}", event, request, found, problem, half)
        return
    if request:
        t = _heard(world, t, url)
    event = answer(ev.WorkloadStarted, request, workload_id=start.workload_id, url=url)
    _done(world, s, t, f"{name} of {version}", event, request, found, problem, half)


def _done(
    world: World, s: Local, t: Local, name: str, event: Any, request: int, found: list[Edge], problem: str = "",
    half: Local | None = None,
) -> None:  # fmt: skip
    """It works, and the answer comes or doesn't; or the runtime fails, perhaps half way."""
    if not request:
        found.append(Edge(f"{name} is done", False, t, problem))
        found.append(Edge(f"{name} fails", True, s))
    else:
        found.extend(world.tell(t, event, f"{name} is done, {event[0][0].name}", False, problem))
        found.append(Edge(f"{name} is done, but the answer takes too long", True, t, problem))
        failed = answer(ev.WorkloadFailed, request, cause="", evidence="unknown")
        found.extend(world.tell(s, failed, f"{name}: the runtime fails", True))
        if half is not None and half is not s:
            found.extend(world.tell(half, failed, f"{name}: the runtime fails half way", True))
    if half is not None and half is not s and not request:
        found.append(Edge(f"{name} fails half way", True, half))
