"""What can happen to a sidekick: in parts, each with all that it looks at, so that it needs no second look."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from outrider.core.sidekick import effects as do
from outrider.core.sidekick import events as ev
from outrider.verify import contracts, entry, tasks, turns, workloads
from outrider.verify.answers import answers
from outrider.verify.steps import DRAIN, EPOCH, NEW, NOW, OLD, Brain, answer, id_of, version_of
from outrider.verify.world import Edge, Local, Word, World


@dataclass(frozen=True, slots=True)
class Part:
    """Some of what can happen.

    Attributes:
        look: Adds the edges.
        reads: The fields of ``Local`` that it may look at.
        news: It asks more of the sidekick, so it waits while too much is asked already.
        early: It is trouble while an answer may come yet, and simply the next thing to happen otherwise.
    """

    look: Callable[[World, Local, list[Edge]], None]
    reads: tuple[str, ...]
    news: bool = False
    early: bool = False


def edges(world: World, s: Local) -> list[Edge]:
    """Everything that can happen in ``s``. What changes nothing is left out."""
    found: list[Edge] = []
    for part in PARTS:
        if part.news and is_full(world, s):
            continue
        count = len(found)
        part.look(world, s, found)
        if part.early and is_answered(s):
            found[count:] = [one._replace(fault=True, what=f"{one.what} before the answer") for one in found[count:]]
    return [edge for edge in found if edge.problem or world.settled(edge) != s]


def is_full(world: World, s: Local) -> bool:
    """Whether too much is asked already."""
    return max(len(s.works), len(s.writes), len(s.locks)) > world.setting.waiting


def is_answered(s: Local) -> bool:
    """Whether an answer may come that somebody waits for."""
    waits = s.request is not None and s.request[1] > 0
    return waits or any(task[1] for tasks in (s.works, s.writes, s.locks, s.asks) for task in tasks)


def _watches(world: World, brain: Brain) -> str:
    """The address of a bad version that is watched; empty when none is."""
    candidate = brain.memory.candidate
    if candidate is None or not world.is_bad(world.steps.name_of(candidate.release)):
        return ""
    return candidate.url if any(one.effect_name == do.WatchProbe.name for one in brain.snapshot.outstanding) else ""


def _deadlines(world: World, s: Local, found: list[Edge]) -> None:
    _timers(world, s, found, deadlines=True)


def _due(world: World, s: Local, found: list[Edge]) -> None:
    # a version that is bad shows it while it is watched, not later
    if not _watches(world, world.steps.brains[s.brain]):
        _timers(world, s, found, deadlines=False)


def _timers(world: World, s: Local, found: list[Edge], *, deadlines: bool) -> None:
    for timer in world.steps.brains[s.brain].snapshot.timers:
        if timer.event.endswith(".expired") != deadlines:
            continue

        def make(name: str = timer.event, generation: int = timer.generation) -> Any:
            return ev.TimerExpired(name=name, at=EPOCH, generation=generation)

        found.extend(world.tell(s, ((timer.event, timer.generation), make), f"timer {timer.event}", False))


def _blocked(world: World, s: Local, found: list[Edge]) -> None:
    label = world.steps.new.label
    known = label in world.steps.brains[s.brain].memory.blocked
    if s.blocked and not known:
        event = ("blocked", lambda: ev.BlockChanged(at=EPOCH, versions={label: ""}))
        found.extend(world.tell(s, event, f"hears that {NEW} is bad", False))
    elif known and not s.blocked:
        event = ("no block", lambda: ev.BlockChanged(at=EPOCH, versions={}))
        found.extend(world.tell(s, event, f"hears of no bad version yet, {NEW} included", True))


def _others(world: World, s: Local, found: list[Edge]) -> None:
    if not s.blocked:
        found.append(Edge(f"another instance blocks {NEW}", True, s._replace(blocked=True), elsewhere=True))
    if not s.proved and world.setting.badness in ("none", "local"):
        found.append(Edge(f"another instance commits {NEW}", True, s._replace(proved=True)))


def _recalled(world: World, s: Local, found: list[Edge]) -> None:
    memory = world.steps.brains[s.brain].memory
    if not s.permitted and memory.candidate is not None and not memory.recalled:
        found.extend(world.tell(s, answer(ev.GrantEnded, 0), "hears that its grant has ended", False))


def _brake(world: World, s: Local, found: list[Edge]) -> None:
    """The service ends all grants in the transaction that pauses the rollout; after the pause it gives new ones."""
    if s.braked:
        found.append(Edge("an operator resumes the rollout", True, s._replace(braked=False)))
    elif s.words and "brake" in world.setting.says:
        t = s._replace(braked=True, permitted=False, words=s.words - 1)
        found.append(Edge("an operator pauses the rollout", True, t))


def _operator(world: World, s: Local, found: list[Edge]) -> None:
    memory = world.steps.brains[s.brain].memory

    def say(word: Word, event: Any, what: str) -> None:
        if s.words and word in world.setting.says:
            found.extend(world.tell(s._replace(words=s.words - 1), event, what, True))

    def take_back(event: Any, what: str) -> None:
        found.extend(world.tell(s, event, what, True))

    def target(version: str | None, paused: bool) -> Any:
        key = ("target", version, paused)
        return key, lambda: world.steps.target(version, paused=paused)

    if memory.paused:
        take_back(answer(ev.OperatorResumed, 0), "an operator resumes it")
    else:
        say("pause", answer(ev.OperatorPaused, 0), "an operator pauses it")
    if memory.refused and s.gone != 1:
        take_back(answer(ev.IdentityAccepted, 0), "nothing keeps it from being the instance any more")
    elif not memory.refused:
        say("twin", answer(ev.IdentityRefused, 0, cause="twin"), "another sidekick is the instance, too")
    if memory.drain is None:
        say("drain", answer(ev.OperatorDrained, 0, update=DRAIN), "an operator drains it")
        leave = answer(ev.OperatorDecommissioned, 0, update=DRAIN)
        if s.words and "decommission" in world.setting.says:
            what = "an operator removes it for good"
            found.extend(world.tell(s._replace(words=s.words - 1, gone=0), leave, what, True))
    else:
        take_back(answer(ev.OperatorUndrained, 0), "an operator lets it back")
    wanted = NEW if memory.wanted == world.steps.new.label else memory.wanted
    if memory.group_paused:
        take_back(target(wanted, False), "an operator resumes the group")
    else:
        say("target", target(wanted, True), "an operator pauses the group")
    if wanted == NEW:
        say("undo", target(OLD, memory.group_paused), f"an operator takes the group back to {OLD}")
        say("target", target(OLD, memory.group_paused), f"the target is turned back to {OLD}")
    else:
        take_back(target(NEW, memory.group_paused), f"the target is turned to {NEW} again")
    if memory.undone is not None:
        say("rollback", answer(ev.OperatorRetried, 0), "an operator lets it try again")
    take_back(answer(ev.WakeupReceived, 0, why=""), "the service wakes it")
    back = answer(ev.OperatorRolledBack, 0, update=NOW)
    if memory.candidate is not None and memory.undone != memory.candidate.release.label:
        say("rollback", back, "an operator rolls it back")
    elif not memory.update and memory.previous is not None:
        say("return", back, f"an operator takes it back to {world.steps.name_of(memory.previous.release)}")


def _gone(world: World, s: Local, found: list[Edge]) -> None:
    """It hears from its presence that it has gone; and an operator may let it back before it does."""
    if s.gone != 1:
        return
    if not world.steps.brains[s.brain].memory.refused:
        found.extend(world.tell(s, answer(ev.IdentityRefused, 0, cause="gone"), "hears that it has gone", False))
    found.append(Edge("an operator lets it back after it has gone", True, s._replace(gone=2)))


def _falls(world: World, s: Local, found: list[Edge]) -> None:
    """Whose end nobody looks out for ends unheard; else that takes a sidekick that dies at the same time."""
    if not s.falls:
        return
    for url in s.alive:
        t = _down(s._replace(falls=s.falls - 1), url)
        if url in s.heard:
            _restarted(world, _killed(t), f"; {version_of(url)} had ended by itself", found)
        else:
            found.append(Edge(f"{version_of(url)} ends by itself, and nobody tells", True, t))


def _told_falls(world: World, s: Local, found: list[Edge]) -> None:
    if not s.falls:
        return
    for url in (one for one in s.heard if one in s.alive):
        event = answer(ev.WorkloadExited, 0, workload_id=id_of(url), status="1")
        t = _down(s._replace(falls=s.falls - 1), url)
        found.extend(world.tell(t, event, f"{version_of(url)} ends by itself", True))


def _dies(world: World, s: Local, found: list[Edge]) -> None:
    url = _watches(world, world.steps.brains[s.brain])
    if world.setting.badness == "dies" and url in s.alive:
        t = _down(s, url)
        found.append(Edge(f"{version_of(url)} ends by itself, and nobody tells", True, t))
        event = answer(ev.WorkloadExited, 0, workload_id=id_of(url), status="1")
        found.extend(world.tell(t, event, f"{version_of(url)} ends by itself", False))


def _down(s: Local, url: str) -> Local:
    return s._replace(
        alive=tuple(one for one in s.alive if one != url),
        deserted=tuple(sorted({*s.deserted, url})),
        heard=tuple(one for one in s.heard if one != url),
    )


def _killed(s: Local) -> Local:
    key, task = 2 if s.key else 0, tasks.killed(s)
    return s._replace(asks=(), request=None, works=(), writes=(), locks=(), heard=(), key=key, task=task)


def _restarted(world: World, s: Local, words: str, found: list[Edge]) -> None:
    found.extend(world.tell(s, answer(ev.SidekickRestarted, 0), f"killed and restarted{words}", True))


def _crash(world: World, s: Local, found: list[Edge]) -> None:
    """A kill, and what the runtime still makes of what was under way; then a restart."""
    _restarted(world, _killed(s), "", found)
    if s.works:
        number = s.works[0][0]
        words = f"; {world.steps.effects[number].name} is carried out all the same"
        _restarted(world, _killed(s)._replace(works=((number, 0),)), words, found)


def _crash_half_way(world: World, s: Local, found: list[Edge]) -> None:
    effect = world.steps.effects[s.works[0][0]] if s.works else None
    if isinstance(effect, do.ReplaceWorkload | do.RevertWorkload):
        t = workloads.half_done(_killed(s), effect)
        _restarted(world, t, f"; only the first half of {effect.name} is done", found)


def _crash_of_all(world: World, s: Local, found: list[Edge]) -> None:
    if s.falls:
        gone = tuple(sorted({*s.deserted, *s.alive}))
        t = _killed(s)._replace(falls=s.falls - 1, alive=(), deserted=gone)
        _restarted(world, t, ", the whole machine", found)


def _crash_under_way(world: World, s: Local, found: list[Edge]) -> None:
    """A kill while etcd has got something that it will carry out later."""
    if len(s.late) >= world.setting.late_limit:
        return
    effects = world.steps.effects
    heads = [tasks[0][0] for tasks in (s.writes, s.locks) if tasks]
    sent = [number for number in heads if isinstance(effects[number], (*entry.WRITES, *turns.ENDS))]
    if s.request is not None and s.key == 1 and not s.slot and isinstance(effects[s.request[0]], turns.TAKES):
        sent.append(s.request[0])
    for number in sent:
        t = _killed(s)._replace(late=(*s.late, number))
        words = f"; {effects[number].name} is on its way"
        _restarted(world, t, words, found)
        if s.works:
            words = f"; {world.steps.effects[s.works[0][0]].name} is carried out all the same{words}"
            _restarted(world, t._replace(works=((s.works[0][0], 0),)), words, found)


PARTS: tuple[Part, ...] = (
    Part(
        workloads.performed,
        ("brain", "works", "alive", "deserted", "heard", "barred", "touched", "forgiven", "noted", "contracted"),
    ),
    Part(entry.performed, ("brain", "writes", "late", "alive", "entry", "deserted", "key", "slot")),
    Part(
        turns.performed,
        (
            "brain",
            "locks",
            "late",
            "key",
            "slot",
            "blocked",
            "proved",
            "barred",
            "touched",
            "gone",
            "noted",
            "contracted",
        ),
    ),
    Part(
        turns.requested,
        (
            "brain",
            "request",
            "key",
            "slot",
            "blocked",
            "barred",
            "forgiven",
            "permitted",
            "braked",
            "gone",
            "task",
            "contracted",
        ),
    ),
    Part(entry.taken_away, ("entry", "words")),
    Part(entry.watched, ("brain", "entry"), news=True),
    Part(entry.late, ("late", "alive", "entry", "deserted", "key", "slot")),
    Part(
        turns.late,
        (
            "brain",
            "late",
            "key",
            "slot",
            "blocked",
            "proved",
            "barred",
            "touched",
            "forgiven",
            "permitted",
            "braked",
            "gone",
            "task",
            "contracted",
        ),
    ),
    Part(turns.ended_by_operator, ("slot", "entry", "words")),
    Part(turns.lapses, ("brain", "key")),
    Part(turns.lost, ("brain", "key"), news=True),
    Part(answers, ("brain", "asks", "alive", "blocked", "permitted", "braked"), news=True),
    Part(tasks.asked, ("brain", "asks", "blocked", "permitted", "task"), news=True),
    Part(tasks.runs, ("blocked", "proved", "task", "ran")),
    Part(contracts.claimed, ("alive", "slot", "noted", "contracted")),
    Part(_deadlines, ("brain",), news=True, early=True),
    Part(_due, ("brain",), news=True),
    Part(_blocked, ("brain", "blocked"), news=True),
    Part(_others, ("blocked", "proved")),
    Part(_recalled, ("brain", "permitted"), news=True),
    Part(_brake, ("permitted", "braked", "words")),
    Part(_operator, ("brain", "words", "gone"), news=True),
    Part(_gone, ("brain", "gone"), news=True),
    Part(_falls, ("brain", "works", "alive", "deserted", "heard", "key", "falls", "task")),
    Part(_told_falls, ("brain", "alive", "deserted", "heard", "falls"), news=True),
    Part(_dies, ("brain", "alive", "deserted", "heard"), news=True),
    Part(_crash, ("brain", "works", "key", "task")),
    Part(_crash_half_way, ("brain", "works", "key", "alive", "deserted", "heard", "task")),
    Part(_crash_of_all, ("brain", "key", "alive", "deserted", "falls", "task")),
    Part(_crash_under_way, ("brain", "works", "writes", "locks", "request", "late", "key", "slot", "task")),
)
