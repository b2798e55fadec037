"""A contract task: it takes away what the old version needs, so nothing older may run, or start, once it has begun.

``Local.noted`` is what etcd says may run here: the keys below ``running/`` of this instance, written with each commit
(``turns/running.py``). The task's claim compares them, and that nobody has a turn (``turns/oldest.py``); it is made by
anybody in the group, at any moment at which that holds. From then on a turn for the old version is refused.
"""

from typing import Any

from outrider.core.sidekick import effects as do
from outrider.verify.steps import NEW, OLD, version_of
from outrider.verify.world import Edge, Local, World

RUNS_OLD, RUNS_NEW = 1, 2


def claimed(world: World, s: Local, found: list[Edge]) -> None:
    """The task is claimed, and begins."""
    if not world.setting.contracts or s.contracted:
        return
    if world.setting.counted and (s.noted & RUNS_OLD or s.slot):
        return
    runs = any(version_of(url) == OLD for url in s.alive)
    problem = f"the contract task of {NEW} begins while {OLD} still runs" if runs else ""
    found.append(Edge(f"the contract task of {NEW} begins", True, s._replace(contracted=True), problem))


def is_too_old(world: World, s: Local, effect: Any) -> bool:
    """Whether etcd refuses a turn because of it."""
    return s.contracted and world.setting.barred and isinstance(effect, do.AcquireLock) and effect.version == OLD


def settled(world: World, s: Local, effect: do.ReleaseLock) -> Local:
    """What may run here, once the turn of a commit is given back; what couldn't be stopped may still."""
    if not world.setting.contracts or effect.committed is None:
        return s
    several = (effect.committed, effect.left)
    return s._replace(noted=sum({_bit(one.version) for one in several if one is not None}))


def noted(world: World, s: Local, version: str) -> Local | None:
    """What was committed here earlier may run here; None: it may not, and nothing is written."""
    if not world.setting.contracts or s.noted & _bit(version):
        return s
    if s.contracted and version == OLD:
        return None
    return s._replace(noted=s.noted | _bit(version))


def breach(s: Local, version: str) -> str:
    """What the start of a version breaks; empty: nothing."""
    return f"{OLD} is started although the contract task of {NEW} has begun" if s.contracted and version == OLD else ""


def _bit(version: str) -> int:
    return RUNS_OLD if version == OLD else RUNS_NEW
