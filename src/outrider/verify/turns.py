"""Carrying out what a sidekick asked of the lock: ``turns/lock.py`` seen from one instance, in time or late.

The others are not here: a turn may be granted at any moment, and ``fleet.py`` says which of these moments are real.
"""

from typing import Any

from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.memory import Turn
from outrider.core.sidekick.remember import LOST_LEASE
from outrider.verify import contracts, tasks
from outrider.verify.steps import NEW, NOW, TURN, answer
from outrider.verify.world import KEY, SLOT, Edge, Local, World

ENDS = (do.ReleaseLock, do.BlockLock, do.ResignLock)
TAKES = (do.AcquireLock, do.RetakeLock)


def performed(world: World, s: Local, found: list[Edge]) -> None:
    """What becomes of the first effect that waits for the lock."""
    if not s.locks:
        return
    (number, request), rest = s.locks[0], s.locks[1:]
    s = s._replace(locks=rest)
    effect: Any = world.steps.effects[number]
    if isinstance(effect, do.SuspendLock):
        _suspended(world, s._replace(request=None), effect, number, request, found)
        return
    if isinstance(effect, do.ProveLock):
        t = _proved(s, effect)
        if effect.committed is not None:
            t = contracts.noted(world, t, effect.committed.version) or t
        found.append(Edge(f"{effect.name} is done", False, t))
        found.append(Edge(f"{effect.name}: etcd doesn't answer", True, s))
        return
    if not isinstance(effect, ENDS):
        found.append(Edge(f"{effect.name} waits", False, s._replace(request=(number, request))))
        return
    t, ends = _ended(world, s._replace(request=None), effect)
    problem = _wrongly_blocked(world, s, t) or _removed_again(s, t)
    failures = [("etcd doesn't answer, nothing is done", s)]
    if isinstance(effect, do.ReleaseLock) and (half := contracts.settled(world, _proved(s, effect), effect)) != s:
        failures.append(("etcd doesn't answer, but what may run is written", half))
    if len(s.late) < world.setting.late_limit:
        failures.append(("etcd doesn't answer, it may still arrive", s._replace(late=(*s.late, number))))
    if not request:
        found.append(Edge(f"{effect.name} is done, nobody waits", False, t, problem, ends=ends))
        found.extend(Edge(f"{effect.name}: {words}", True, after) for words, after in failures)
        return
    proved_by = "web-9" if isinstance(effect, do.BlockLock) and _is_unblockable(world, s, effect) else ""
    released = answer(ev.LockReleased, request, proved_by=proved_by)
    if isinstance(effect, do.ResignLock) and t.gone != 1:
        released = answer(ev.IdentityAdmitted, request) if s.gone == 2 else answer(ev.LockRefused, request, cause="")
    failed = answer(ev.LockFailed, request, cause="")
    found.extend(world.tell(t, released, f"{effect.name} is done, {_name_of(released)}", False, problem, ends=ends))
    found.append(Edge(f"{effect.name} is done, but the answer is lost", True, t, problem, ends=ends))
    for words, after in failures:
        found.extend(world.tell(after, failed, f"{effect.name}: {words}", True))


def _suspended(world: World, s: Local, effect: do.SuspendLock, number: int, request: int, found: list[Edge]) -> None:
    """The place in the queue goes, and the turn stays ours, but dirty; or it isn't ours any more."""
    if not (s.slot and _owns(s, None, effect.update)):
        event = answer(ev.LockReleased, request)
        if request:
            found.extend(world.tell(s, event, f"{effect.name}: the turn is no longer ours, lock.released", False))
        else:
            found.append(Edge(f"{effect.name}: the turn is no longer ours", False, s))
    else:
        t = s._replace(key=0)
        found.append(Edge(f"{effect.name} is done, the turn is dirty", False, t, ends=KEY if s.key else 0))
    if request:
        failed = answer(ev.LockFailed, request, cause="")
        found.extend(world.tell(s, failed, f"{effect.name}: etcd doesn't answer, nothing is done", True))
    found.append(Edge(f"{effect.name}: etcd doesn't answer, nothing is done", True, s))
    if s.key and len(s.late) < world.setting.late_limit:
        found.append(
            Edge(f"{effect.name}: etcd doesn't answer, it may still arrive", True, s._replace(late=(*s.late, number)))
        )


def requested(world: World, s: Local, found: list[Edge]) -> None:
    """What becomes of the turn that is waited for."""
    if s.request is None:
        return
    (number, request) = s.request
    effect: Any = world.steps.effects[number]
    t = s._replace(request=None)
    ours = s.slot and _owns(s, getattr(effect, "turn", None), effect.update)
    if s.gone == 1 and not ours:
        event = answer(ev.IdentityRefused, 0, cause="gone")
        found.extend(world.tell(t, event, f"{effect.name}: it has gone", False))
        return
    if s.gone == 2 and world.setting.admits and getattr(effect, "removal_revision", None) is not None:
        _let_back(world, s, effect, request, found)
        return
    if not ours and (s.slot or isinstance(effect, do.ReclaimLock)):
        _refused(world, t, effect, request, found)
        return
    # the lease may end at this very moment; a turn of our own is still ours then
    if not ours:
        gone = t._replace(key=0) if t.key == 1 else t
        _refused(world, gone, effect, request, found, fault=True, ends=KEY if t.key == 1 else 0)
    elif request:
        failed = answer(ev.LockFailed, request, cause="")
        found.extend(world.tell(t, failed, f"{effect.name}: the lease has ended", True))
    if ours:
        _granted(world, t._replace(key=1), effect, request, found, ends=KEY if s.key == 2 else 0)
    elif s.key != 1:
        again = s._replace(key=1)
        found.append(Edge(f"{effect.name}: stands in line", False, again, ends=KEY if s.key else 0))
        if s.key == 2 and not _is_refused(world, s, effect) and _is_permitted(world, s, effect):
            # a wait under a lease that was given up goes on until another replaces it, and its news come in vain
            what, problem = f"{effect.name}: has a turn under its old lease", _breach(world, s, effect)
            found.append(Edge(what, True, took(s, effect), problem))
    elif _is_refused(world, s, effect) or not _is_permitted(world, s, effect):
        _refused(world, t._replace(key=0), effect, request, found, ends=KEY, recalled=True)
    else:
        _granted(world, took(t, effect), effect, request, found, problem=_breach(world, s, effect))


def _let_back(world: World, s: Local, effect: Any, request: int, found: list[Edge]) -> None:
    """It was admitted after it was said that it leaves: what is left of its turn goes, and it doesn't leave."""
    ends = (SLOT if s.slot else 0) | (KEY if s.key else 0)
    t, what = s._replace(request=None, slot=0, key=0), f"{effect.name}: it was let back"
    if request:
        found.extend(world.tell(t, answer(ev.IdentityAdmitted, request), what, False, ends=ends))
    else:
        found.append(Edge(what, False, t, ends=ends))


def took(s: Local, effect: do.AcquireLock | do.RetakeLock) -> Local:
    """A slot key is created. What is taken again to roll back doesn't try the release, whatever it began before."""
    slot = 1 if effect.update == NOW else 2
    if not isinstance(effect, do.AcquireLock):
        return s._replace(slot=slot)
    return s._replace(slot=slot, barred=s.barred or s.blocked, forgiven=False)


def late(world: World, s: Local, found: list[Edge]) -> None:
    """What was given up is carried out."""
    for place, number in enumerate(s.late):
        effect: Any = world.steps.effects[number]
        t = s._replace(late=s.late[:place] + s.late[place + 1 :])
        if isinstance(effect, ENDS):
            turn = effect.turn
            is_void = isinstance(effect, do.ResignLock) and s.gone == 2 and world.setting.admits
            valid = (
                not is_void
                and turn is not None
                and turn.slot_revision == 1
                and (turn.waiter_revision == 1 or not s.key)
            )
            refused = isinstance(effect, do.BlockLock) and _is_unblockable(world, s, effect)
            if valid and s.slot and not refused and not is_void:
                t = _excused(world, t, effect)._replace(slot=0, key=0)
                t = _blocked(world, t, effect) if isinstance(effect, do.BlockLock) else t
                t = t._replace(gone=1) if isinstance(effect, do.ResignLock) else t
                problem = _wrongly_blocked(world, s, t) or _removed_again(s, t)
                found.append(Edge(f"{effect.name} arrives late and is done", True, t, problem, ends=KEY | SLOT))
            else:
                found.append(Edge(f"{effect.name} arrives late and is refused", True, t))
        elif isinstance(effect, do.SuspendLock):
            # it compares the place in the queue as it was seen
            if s.key and s.slot == (1 if effect.update == NOW else 2):
                t = t._replace(key=0)
                found.append(Edge(f"{effect.name} arrives late, the turn is dirty", True, t, ends=KEY))
            else:
                found.append(Edge(f"{effect.name} arrives late and is refused", True, t))
        elif isinstance(effect, TAKES):
            free = s.key == 2 and not s.slot and s.gone != 1
            if free and not _is_refused(world, s, effect) and _is_permitted(world, s, effect):
                what, problem = f"{effect.name} arrives late and takes a turn", _breach(world, s, effect)
                found.append(Edge(what, True, took(t, effect), problem))
            else:
                found.append(Edge(f"{effect.name} arrives late and is refused", True, t))


def ended_by_operator(world: World, s: Local, found: list[Edge]) -> None:
    """``outrider lock release``: both keys go. Whoever is out of the balancer is the operator's to look after then."""
    if s.words and "release" in world.setting.says and s.slot and (s.entry is not None or world.setting.fresh):
        t = s._replace(words=s.words - 1, touched=False, forgiven=True, slot=0, key=0)
        found.append(Edge("an operator ends its turn", True, t, ends=KEY | SLOT))


def lapses(world: World, s: Local, found: list[Edge]) -> None:
    """A lease ends in etcd."""
    if s.key == 1:
        found.append(Edge("its lease ends in etcd, and it hasn't noticed", True, s._replace(key=0), ends=KEY))
    elif s.key == 2:
        found.append(Edge("the lease of its earlier life ends", False, s._replace(key=0), ends=KEY))


def lost(world: World, s: Local, found: list[Edge]) -> None:
    """The sidekick gives its lease up in time, or learns that it has ended. The next one it has at once."""
    kept = s._replace(key=2 if s.key else 0)
    what = "can't reach etcd, and gives its lease up before it ends" if s.key else "its lease is lost"
    found.extend(world.tell(kept, answer(ev.LockLost, 0), what, True))


def _ended(world: World, s: Local, effect: do.ReleaseLock | do.BlockLock | do.ResignLock) -> tuple[Local, int]:
    ends = 0
    if s.slot and _owns(s, effect.turn, effect.update):
        s = _excused(world, s, effect)._replace(slot=0)
        ends |= SLOT
        if isinstance(effect, do.ResignLock) and not (s.gone == 2 and world.setting.admits):
            s = s._replace(gone=1)
    if s.key and not s.slot:
        s = s._replace(key=0)
        ends |= KEY
    if isinstance(effect, do.BlockLock):
        s = _blocked(world, s, effect)
    elif isinstance(effect, do.ReleaseLock):
        s = contracts.settled(world, _proved(s, effect), effect)
    return s, ends


def _excused(world: World, s: Local, effect: do.ReleaseLock | do.BlockLock | do.ResignLock) -> Local:
    """Decision 0008: a turn may be given up for a reason that isn't the release's, and counts as not reached then.

    A lost lease is no such reason.
    """
    memory = world.steps.brains[s.brain].memory
    if not isinstance(effect, do.ReleaseLock) or memory.fault is None or memory.fault.blame == "release":
        return s
    candidate = memory.candidate
    undone = candidate is not None and candidate.release.label == memory.undone
    return s if memory.fault.cause == LOST_LEASE and not undone else s._replace(touched=False)


def _blocked(world: World, s: Local, effect: do.BlockLock) -> Local:
    if effect.version != NEW:
        return s
    return s if _is_unblockable(world, s, effect) else s._replace(blocked=True, barred=True)


def _is_unblockable(world: World, s: Local, effect: do.BlockLock) -> bool:
    """Whether etcd refuses to block the release: an instance has committed it."""
    return world.setting.heeded and effect.version == NEW and s.proved and not s.blocked


def _proved(s: Local, effect: do.ReleaseLock | do.ProveLock) -> Local:
    return s._replace(proved=True) if effect.committed is not None and effect.committed.version == NEW else s


def _wrongly_blocked(world: World, before: Local, after: Local) -> str:
    """P11: which half of it is broken; empty when none is."""
    if before.blocked or not after.blocked:
        return ""
    if before.proved:
        return f"P11: {NEW} is blocked although an instance has committed it"
    if world.setting.badness == "local":
        memory = world.steps.brains[before.brain].memory
        if memory.fault is None or memory.fault.blame != "release":
            return f"P11: this machine's trouble blocks {NEW} for everybody"
    return ""


def _removed_again(before: Local, after: Local) -> str:
    """An operator's last word counts (P12); empty when it does."""
    again = before.gone == 2 and after.gone == 1
    return "P12: it removes itself once more although an operator has let it back" if again else ""


def _name_of(event: tuple[object, Any]) -> str:
    name: str = event[1]().name
    return name


def _is_marked(s: Local, effect: Any) -> bool:
    """Whether etcd refuses a turn because the release is blocked."""
    return s.blocked and isinstance(effect, do.AcquireLock) and effect.version == NEW


def _is_refused(world: World, s: Local, effect: Any) -> bool:
    """Whether etcd refuses a turn because of what is known of the release."""
    return _is_marked(s, effect) or contracts.is_too_old(world, s, effect)


def _is_update(effect: Any) -> bool:
    """Whether the turn is for an update: not to roll back, and not an operator's way back."""
    return isinstance(effect, do.AcquireLock) and effect.version == NEW


def _is_permitted(world: World, s: Local, effect: Any) -> bool:
    """What etcd compares: an effect that names no target is compared with nothing."""
    asked = isinstance(effect, do.AcquireLock) and effect.target_revision >= 0
    return s.permitted or not asked or not world.setting.permits


def _brake_breach(s: Local, effect: Any) -> str:
    return f"P16: an update to {NEW} begins while the rollout is paused" if s.braked and _is_update(effect) else ""


def _breach(world: World, s: Local, effect: Any) -> str:
    return _brake_breach(s, effect) or tasks.breach(world, s, effect)


def _owns(s: Local, turn: Turn | None, update: str) -> bool:
    return (turn is not None and turn.slot_revision == 1) or s.slot == (1 if update == NOW else 2)


def _granted(
    world: World, s: Local, effect: Any, request: int, found: list[Edge], *, ends: int = 0, problem: str = ""
) -> None:
    if not request:
        found.append(Edge(f"{effect.name}: has a turn, nobody waits for it", False, s, problem, ends=ends))
        return
    turn = TURN if effect.update == NOW else Turn(
        scope="turns/app/g", number=0, slot_revision=1, waiter_revision=1, update=effect.update
    )  # fmt: skip
    event = answer(ev.LockAcquired, request, turn=turn)
    what = f"{effect.name}: has a turn, lock.acquired"
    found.extend(world.tell(s, event, what, False, problem, ends=ends))
    found.append(Edge(f"{effect.name}: has a turn, but the answer is lost", True, s, problem, ends=ends))


def _refused(
    world: World, s: Local, effect: Any, request: int, found: list[Edge], *, fault: bool = False, ends: int = 0,
    recalled: bool = False,
) -> None:  # fmt: skip
    if request:
        event = answer(ev.LockRefused, request, cause="", recalled=recalled)
        found.extend(world.tell(s, event, f"{effect.name} is refused", fault, ends=ends))
    else:
        found.append(Edge(f"{effect.name} is refused", fault, s, ends=ends))
