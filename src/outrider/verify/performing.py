"""Carrying out what a sidekick asked for: on workloads, on the balancer's entry, on the lock; in time or late."""

from collections.abc import Callable
from typing import Any

from outrider.core import effects as do
from outrider.core import events as ev
from outrider.core.memory import Turn
from outrider.verify.steps import NEW, NOW, TURN, answer, url_of, version_of
from outrider.verify.world import Edge, Local, Task, World


def performed(world: World, s: Local, found: list[Edge]) -> None:
    if s.works:
        (effect, request), rest = s.works[0], s.works[1:]
        _work(world, s._replace(works=rest), world.steps.effects[effect], request, found)
    if s.writes:
        _write(world, s, found)
    if s.locks:
        _lock(world, s, found)
    if s.wish is not None and s.lease == "held":
        _wished(world, s, s.wish, found)


def _run(world: World, s: Local, workload_id: str) -> tuple[Local, str]:
    """Start or find a workload. Returns what is wrong, too."""
    problem = ""
    if world.is_bad(version_of(workload_id)):
        if s.touched == 2:
            problem = f"P5: {NEW} was condemned from here, and is started here again"
        s = s._replace(touched=s.touched or 1)
        if world.setting.badness == "refused":
            return s, problem
    s = s._replace(
        alive=tuple(sorted({*s.alive, workload_id})),
        deserted=tuple(one for one in s.deserted if one != url_of(workload_id)),
    )
    return s, problem


def _gone(s: Local, workload_id: str) -> Local:
    url = url_of(workload_id)
    return s._replace(
        alive=tuple(one for one in s.alive if one != workload_id),
        deserted=tuple(one for one in s.deserted if one != url),
    )


def half_done(s: Local, effect: do.ReplaceWorkload | do.RevertWorkload) -> Local:
    first = effect.old if isinstance(effect, do.ReplaceWorkload) else effect.new
    return s if first is None else _gone(s, first.workload_id)


def _work(world: World, s: Local, effect: Any, request: int, found: list[Edge]) -> None:
    name, event, problem, t = effect.name, None, "", s
    start: Any = None
    match effect:
        case do.EnsureWorkload(installed=start) | do.StartWorkload(installed=start):
            pass
        case do.ReplaceWorkload(new=start) | do.RevertWorkload(old=start):
            t = half_done(s, effect)
        case do.RetireWorkload(installed=installed) | do.RemoveWorkload(installed=installed):
            t = s if installed is None else _gone(s, installed.workload_id)
            kind = ev.WorkloadRetired if isinstance(effect, do.RetireWorkload) else ev.WorkloadRemoved
            event = answer(kind, request)
        case do.TidyWorkload(keep=keep):
            for stray in [one for one in s.alive if one not in keep]:
                t = _gone(t, stray)
        case do.ReviveWorkload(installed=several):
            for one in several:
                t, problem = _run(world, t, one.workload_id)
        case _:
            raise AssertionError(effect)
    if isinstance(effect, do.EnsureWorkload | do.StartWorkload | do.ReplaceWorkload | do.RevertWorkload):
        if start is None:
            event = answer(ev.WorkloadAbsent, request)
        else:
            half = t
            t, problem = _run(world, t, start.workload_id)
            if world.is_bad(start.release.version) and world.setting.badness == "refused":
                event = answer(ev.WorkloadFailed, request, blame="release", cause="")
            else:
                event = answer(
                    ev.WorkloadStarted, request, workload_id=start.workload_id, url=url_of(start.workload_id)
                )
            if request:
                failed = answer(ev.WorkloadFailed, request, blame="world", cause="")
                found.append(world.tell(s, failed, f"{name}: the runtime fails", True))
                if half != s:
                    found.append(world.tell(half, failed, f"{name}: the runtime fails half way", True))
    if event is None or not request:
        found.append(Edge(f"{name} is done", False, t, problem))
        return
    found.append(world.tell(t, event, f"{name} is done, {_name(event)}", False, problem))
    found.append(Edge(f"{name} is done, but the answer takes too long", True, t, problem))


def _valid(s: Local, turn: Turn | None) -> bool:
    return turn is not None and turn.waiter_revision == 1 and turn.slot_revision == 1 and s.key > 0 and s.slot > 0


def _entry(world: World, s: Local, effect: Any) -> tuple[Local, bool, str]:
    """The balancer's entry after ``effect``; whether it was accepted; the promise that this breaks."""
    match effect:
        case do.JoinBalancer(url=url) | do.ReturnBalancer(url=url):
            if url is None or s.entry == url:
                return s, True, ""
            if s.entry is not None and s.entry not in effect.replacing:
                return s, False, ""
            serves = url.removeprefix("http://") in s.alive or url in s.deserted
            problem = "" if serves else f"P2: an unfenced write of {url}, where nothing serves"
            return s._replace(entry=url), True, problem
        case do.SwitchBalancer() | do.RestoreBalancer() | do.LeaveBalancer():
            url = None if isinstance(effect, do.LeaveBalancer) else effect.url
            if s.entry == url:
                return s, True, ""
            if _valid(s, effect.turn):
                return s._replace(entry=url), True, ""
            if world.setting.fenced:
                return s, False, ""
            problem = f"P2: {effect.name} is accepted, although its turn has ended or its lease has lapsed"
            return s._replace(entry=url), True, problem
        case _:
            raise AssertionError(effect)


def _write(world: World, s: Local, found: list[Edge]) -> None:
    (number, request), rest = s.writes[0], s.writes[1:]
    s = s._replace(writes=rest)
    effect: Any = world.steps.effects[number]
    if isinstance(effect, do.DrainBalancer | do.UndrainBalancer):
        found.append(world.tell(s, answer(ev.BalancerDrained, request, how=""), f"{effect.name}: drained", False))
        found.append(world.tell(s, answer(ev.BalancerUnmoved, request, cause=""), f"{effect.name}: unmoved", True))
        return
    t, accepted, problem = _entry(world, s, effect)
    if t.entry != s.entry or not world.setting.reordered:
        t = _overtaken(world, t)
    elif accepted and s.entry is not None:
        t = _overtaken(world, t, doubtful=True)  # it writes what is there already, to be sure
    if not request:
        found.append(Edge(f"{effect.name} is {'done' if accepted else 'refused'}, nobody waits", False, t, problem))
        return
    if accepted:
        event = answer(_WRITTEN[effect.name], request)
        found.append(world.tell(t, event, f"{effect.name} is done, {_name(event)}", False, problem))
        found.append(Edge(f"{effect.name} is done, but the answer is lost", True, t, problem))
    else:
        event = answer(ev.BalancerRefused, request, cause="")
        found.append(world.tell(t, event, f"{effect.name} is refused", False))
    failed = answer(ev.BalancerFailed, request, cause="")
    found.append(world.tell(s, failed, f"{effect.name}: etcd doesn't answer, nothing is done", True))
    found.append(world.tell(t, failed, f"{effect.name}: etcd doesn't answer, but it is done", True, problem))
    found.append(Edge(f"{effect.name} is lost", True, s))
    if len(s.late) < world.setting.late_limit:
        late = s._replace(late=(*s.late, (number, True)))
        found.append(world.tell(late, failed, f"{effect.name}: etcd doesn't answer, it may still arrive", True))


def _overtaken(world: World, s: Local, *, doubtful: bool = False) -> Local:
    """The entry was written: other writes that are on their way compare what stood there, and will be refused."""
    effects = world.steps.effects
    late = [one for one in s.late if isinstance(effects[one[0]], _ON_LOCK) or (doubtful and not one[1])]
    return s._replace(late=tuple(late))


def _lock(world: World, s: Local, found: list[Edge]) -> None:
    (number, request), rest = s.locks[0], s.locks[1:]
    s = s._replace(locks=rest)
    effect: Any = world.steps.effects[number]
    if not isinstance(effect, do.ReleaseLock | do.CondemnLock):
        found.append(Edge(f"{effect.name} waits", False, s._replace(wish=(number, request))))
        return
    t = _given_back(world, s._replace(wish=None), effect)
    if not request:
        found.append(Edge(f"{effect.name} is done, nobody waits", False, t))
        return
    found.append(world.tell(t, answer(ev.LockReleased, request), f"{effect.name} is done, lock.released", False))
    found.append(Edge(f"{effect.name} is done, but the answer is lost", True, t))
    found.append(Edge(f"{effect.name} is lost", True, s))
    if len(s.late) < world.setting.late_limit:
        found.append(Edge(f"{effect.name} may still arrive", True, s._replace(late=(*s.late, (number, True)))))


def _given_back(world: World, s: Local, effect: do.ReleaseLock | do.CondemnLock) -> Local:
    if s.slot and _owns(s, effect.turn, effect.update):
        s = _excused(world, s, effect)
        s = world.drop_slot(s)
    if s.key and not s.slot:
        s = world.drop_key(s)
    return _condemned(s) if isinstance(effect, do.CondemnLock) else s


def _excused(world: World, s: Local, effect: do.ReleaseLock | do.CondemnLock) -> Local:
    """A turn may be given up for a reason that isn't the release's: then it counts as not reached (decision 0008)."""
    fault = world.steps.brains[s.brain].memory.fault
    given_up = isinstance(effect, do.ReleaseLock) and fault is not None and fault.blame != "release"
    return s._replace(touched=0) if given_up and s.touched == 1 else s


def _condemned(s: Local) -> Local:
    return s._replace(poison=True, touched=2 if s.touched else 0)


def _owns(s: Local, turn: Turn | None, update: str) -> bool:
    return (turn is not None and turn.slot_revision == 1) or s.slot == (1 if update == NOW else 2)


def _wished(world: World, s: Local, wish: Task, found: list[Edge]) -> None:
    effect: Any = world.steps.effects[wish[0]]
    granted = s._replace(wish=None)
    if s.slot:
        ours = _owns(s, getattr(effect, "turn", None), effect.update)
        if not ours:
            _refused(world, granted, effect, wish[1], found)
            return
        if s.key != 1:
            granted = (world.drop_key(granted) if s.key else granted)._replace(key=1)
    elif isinstance(effect, do.ReclaimLock):
        _refused(world, granted, effect, wish[1], found)
        return
    elif s.key != 1:
        t = world.drop_key(s) if s.key else s
        found.append(Edge(f"{effect.name}: stands in line", False, t._replace(key=1)))
        return
    elif s.poison and isinstance(effect, do.AcquireLock) and effect.version == NEW:
        _refused(world, world.drop_key(granted), effect, wish[1], found)
        return
    else:
        granted = granted._replace(slot=1)
    turn = (
        TURN
        if effect.update == NOW
        else Turn(scope="app.g", number=0, slot_revision=1, waiter_revision=1, update=effect.update)
    )
    event = answer(ev.LockAcquired, wish[1], turn=turn)
    if wish[1]:
        found.append(world.tell(granted, event, f"{effect.name}: has a turn, lock.acquired", False))
        found.append(Edge(f"{effect.name}: has a turn, but the answer is lost", True, granted))
    else:
        found.append(Edge(f"{effect.name}: has a turn, nobody waits for it", False, granted))


def _refused(world: World, s: Local, effect: Any, request: int, found: list[Edge]) -> None:
    if request:
        found.append(world.tell(s, answer(ev.LockRefused, request, cause=""), f"{effect.name} is refused", False))
    else:
        found.append(Edge(f"{effect.name} is refused", False, s))


def late(world: World, s: Local, found: list[Edge]) -> None:
    for place, (number, _) in enumerate(s.late):
        effect: Any = world.steps.effects[number]
        rest = s._replace(late=s.late[:place] + s.late[place + 1 :])
        if isinstance(effect, do.ReleaseLock | do.CondemnLock):
            turn = effect.turn
            alive = turn is not None and turn.slot_revision == 1 and (turn.waiter_revision == 1 or not s.key)
            if not alive or not s.slot:
                found.append(Edge(f"{effect.name} arrives late and is refused", True, rest))
                continue
            t = world.drop_slot(_excused(world, rest, effect))
            t = world.drop_key(t) if t.key else t
            t = _condemned(t) if isinstance(effect, do.CondemnLock) else t
            found.append(Edge(f"{effect.name} arrives late and is done", True, t))
            continue
        t, accepted, problem = _entry(world, rest, effect)
        if t.entry != rest.entry:
            t = _overtaken(world, t)
        words = "done" if accepted else "refused"
        found.append(Edge(f"{effect.name} arrives late and is {words}", True, t, problem))


def may_be_late(world: World, effect: int) -> bool:
    return isinstance(
        world.steps.effects[effect],
        do.SwitchBalancer | do.LeaveBalancer | do.RestoreBalancer | do.JoinBalancer | do.ReturnBalancer
        | do.ReleaseLock | do.CondemnLock,
    )  # fmt: skip


def _name(event: tuple[object, Callable[[], Any]]) -> str:
    key = event[0]
    assert isinstance(key, tuple)
    return str(key[0].name)


_ON_LOCK = (do.ReleaseLock, do.CondemnLock)

_WRITTEN: dict[str, type[ev.Event]] = {
    "balancer.switch": ev.BalancerSwitched,
    "balancer.leave": ev.BalancerLeft,
    "balancer.join": ev.BalancerJoined,
    "balancer.return": ev.BalancerJoined,
    "balancer.restore": ev.BalancerRestored,
}
