"""Carrying out what a sidekick asked of its balancer: the writes of ``balancers/entry.py``, in time or late.

Every write compares and writes the write guard, so whatever was sent before it is refused from then on; and a call that
finds the entry as it shall be is such a write, too.
"""

from typing import Any

from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.memory import Turn
from outrider.verify.steps import answer, id_of, version_of
from outrider.verify.world import LOST, Edge, Local, World

WRITES = (do.SwitchBalancer, do.LeaveBalancer, do.RestoreBalancer, do.JoinBalancer, do.ReturnBalancer)


def performed(world: World, s: Local, found: list[Edge]) -> None:
    """What becomes of the first effect that waits for the balancer."""
    if not s.writes:
        return
    (number, request), rest = s.writes[0], s.writes[1:]
    s = s._replace(writes=rest)
    effect: Any = world.steps.effects[number]
    if isinstance(effect, do.DrainBalancer | do.UndrainBalancer):
        found.extend(world.tell(s, answer(ev.BalancerDrained, request, how=""), f"{effect.name}: drained", False))
        found.extend(world.tell(s, answer(ev.BalancerUnmoved, request, cause=""), f"{effect.name}: unmoved", True))
        return
    t, accepted, problem = written(world, s, effect)
    name = _worded(effect)
    if not request:
        found.append(Edge(f"{name} is {'done' if accepted else 'refused'}, nobody waits", False, t, problem))
        found.append(Edge(f"{name}: etcd doesn't answer, nothing is done", True, s))
        if len(s.late) < world.setting.late_limit:
            found.append(Edge(f"{name}: etcd doesn't answer, it may still arrive", True, _late(s, number)))
        return
    if accepted:
        event = answer(_ANSWERS[effect.name], request, **_facts(world, effect))
        found.extend(world.tell(t, event, f"{name} is done, {_ANSWERS[effect.name].name}", False, problem))
        found.append(Edge(f"{name} is done, but the answer is lost", True, t, problem))
    else:
        event = answer(ev.BalancerRefused, request, cause="")
        found.extend(world.tell(t, event, f"{name} is refused", False))
    failed = answer(ev.BalancerFailed, request, cause="")
    found.extend(world.tell(s, failed, f"{name}: etcd doesn't answer, nothing is done", True))
    found.extend(world.tell(t, failed, f"{name}: etcd doesn't answer, but it is done", True, problem))
    if len(s.late) < world.setting.late_limit:
        found.extend(world.tell(_late(s, number), failed, f"{name}: etcd doesn't answer, it may still arrive", True))


def late(world: World, s: Local, found: list[Edge]) -> None:
    """A write that was given up is carried out."""
    for place, number in enumerate(s.late):
        effect: Any = world.steps.effects[number]
        if isinstance(effect, WRITES):
            rest = s._replace(late=s.late[:place] + s.late[place + 1 :])
            t, accepted, problem = written(world, rest, effect)
            words = "done" if accepted else "refused"
            found.append(Edge(f"{_worded(effect)} arrives late and is {words}", True, t, problem))


def written(world: World, s: Local, effect: Any) -> tuple[Local, bool, str]:
    """The world after a write; whether it was accepted; the promise that this breaks."""
    match effect:
        case do.ReturnBalancer(url=None):
            return s, True, ""
        case do.JoinBalancer(url=str(url)) | do.ReturnBalancer(url=str(url)):
            if s.entry not in (None, LOST, url, *effect.replacing):
                return s, False, ""
            return _guarded(world, s, url), True, _unfenced(s, url)
        case do.SwitchBalancer() | do.RestoreBalancer() | do.LeaveBalancer():
            shall = None if isinstance(effect, do.LeaveBalancer) else effect.url
            if s.entry == shall or _valid(s, effect.turn):
                return _guarded(world, s, shall), True, ""
            if world.setting.fenced:
                return s, False, ""
            problem = f"P2: {effect.name} is accepted, although its turn has ended or its lease has lapsed"
            return _guarded(world, s, shall), True, problem
        case _:
            raise AssertionError(effect)


def _facts(world: World, effect: Any) -> dict[str, Any]:
    """What an answer tells besides: only where somebody else writes the entry, too, it is of use."""
    if "entry" not in world.setting.says:
        return {}
    return {"revision": 1} if isinstance(effect, do.LeaveBalancer) else {"revision": 1, "url": effect.url}


def taken_away(world: World, s: Local, found: list[Edge]) -> None:
    """A person removes the server's entry."""
    if s.words and "entry" in world.setting.says and s.entry not in (None, LOST):
        found.append(Edge("a person removes the entry", True, s._replace(words=s.words - 1, entry=LOST)))


def watched(world: World, s: Local, found: list[Edge]) -> None:
    """The sidekick sees what stands in its entry, if it isn't what it knows."""
    if "entry" not in world.setting.says:
        return
    known, url = world.steps.brains[s.brain].memory.entry, None if s.entry == LOST else s.entry
    if known is None or known.url != url:
        event = answer(ev.BalancerChanged, 0, url=url, revision=1)
        words = f"sees {version_of(url)} in the entry" if url is not None else "sees that the entry is missing"
        found.extend(world.tell(s, event, words, False))


def _valid(s: Local, turn: Turn | None) -> bool:
    return turn is not None and turn.waiter_revision == 1 and turn.slot_revision == 1 and s.key > 0 and s.slot > 0


def _guarded(world: World, s: Local, url: str | None) -> Local:
    """The entry is written: other writes on their way compare the write guard before it, and will be refused."""
    effects = world.steps.effects
    return s._replace(entry=url, late=tuple(one for one in s.late if not isinstance(effects[one], WRITES)))


def _unfenced(s: Local, url: str) -> str:
    """Coming back needs no turn; but it brings back, and takes nothing away."""
    if s.entry == url:
        return ""
    if url not in s.alive and url not in s.deserted:
        return f"P3: an unfenced write of {version_of(url)}, where nothing serves"
    taken = s.entry is not None and s.entry in s.alive and id_of(s.entry) != id_of(url)
    if taken and not (s.slot and s.key):
        return f"P2: an unfenced write takes the traffic from {version_of(s.entry or '')}, which serves"
    return ""


def _late(s: Local, number: int) -> Local:
    return s._replace(late=(*s.late, number))


def _worded(effect: Any) -> str:
    url = getattr(effect, "url", None)
    return f"{effect.name} {version_of(url)}" if url else str(effect.name)


_ANSWERS: dict[str, type[ev.Event]] = {
    "balancer.switch": ev.BalancerSwitched,
    "balancer.leave": ev.BalancerLeft,
    "balancer.join": ev.BalancerJoined,
    "balancer.return": ev.BalancerJoined,
    "balancer.restore": ev.BalancerRestored,
}
