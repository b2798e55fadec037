"""Tells a counterexample to a person: who, what happened, where the chart went, what it asked for, the world after."""

from collections.abc import Iterator
from itertools import pairwise

from outrider.core.sidekick.effects import Effect
from outrider.verify.explore import AGAIN, BLOCKED, ENV, FAULT, TAU, Breach, Explored
from outrider.verify.fleet import Looks, Move
from outrider.verify.steps import version_of
from outrider.verify.world import Edge, Local


def tell(explored: Explored, breach: Breach) -> tuple[str, ...]:
    """The numbered lines that lead to ``breach``, and what broke in the last one."""
    edges = [explored.edge(source, target) for source, target in pairwise(breach.path)]
    steps = [(explored.local(source), edge) for source, edge in zip(breach.path, edges, strict=False)]
    if breach.last is not None:
        steps.append((explored.local(breach.path[-1]), breach.last))
    lines = [f"{count:3}. {_line(explored, before, edge)}" for count, (before, edge) in enumerate(steps, 1)]
    return (*lines, f"     {breach.promise}")


def tell_fleet(looks: Looks, moves: tuple[Move, ...], promise: str) -> tuple[str, ...]:
    """The same for several sidekicks: for each a run that looks from outside as ``moves`` say."""
    explored = looks.explored
    names = sorted({name for name, _ in moves})
    runs = {name: _run(explored, _labels(looks, name, moves)) for name in names}
    lines: list[str] = []
    for name, _ in moves:
        for before, edge in next(runs[name]):
            lines.append(f"{len(lines) + 1:3}. {name}: {_line(explored, before, edge)}")
        blocks = explored.world.settled(edge).blocked and not before.blocked
        if blocks:
            for other in names:
                if other != name:
                    next(runs[other], ())
    return (*lines, f"     {promise}")


def _labels(looks: Looks, name: str, moves: tuple[Move, ...]) -> list[int]:
    """What one sidekick did, and that it heard of a block."""
    state, labels, blocked = looks.start(), list[int](), False
    for who, label in moves:
        heard: int | None = None
        if who == name:
            heard = label
            blocked = blocked or bool(looks.look(looks.moves(state)[label]) & BLOCKED)
        elif not blocked and _blocks(label):
            heard = next((one for one in looks.moves(state) if one & ENV and one < AGAIN), None)
            blocked = True
        if heard is not None:
            labels.append(heard)
            state = looks.moves(state)[heard]
    return labels


def _blocks(label: int) -> bool:
    return label < ENV and bool((label - 1) & BLOCKED)


def _run(explored: Explored, labels: list[int]) -> Iterator[list[tuple[Local, Edge]]]:
    """For each label the edges that lead to and through it, along one run that has them all."""
    layers: list[dict[int, tuple[int, int] | None]] = []
    layer: dict[int, tuple[int, int] | None] = {0: None}
    for label in labels:
        # within a layer: state -> (layer, state) that it was reached from
        todo, following = list(layer), dict[int, tuple[int, int] | None]()
        for state in todo:
            for place in range(explored.first[state], explored.first[state + 1]):
                target = explored.targets[place]
                mark = explored.marks[place] & ~FAULT
                if mark == TAU and target not in layer:
                    layer[target] = (len(layers), state)
                    todo.append(target)
                elif mark == label:
                    following.setdefault(target, (len(layers), state))
        layers.append(layer)
        layer = following
    layers.append(layer)
    at: tuple[int, int] = (len(layers) - 1, next(iter(layer)))
    way = [at]
    while (before := layers[at[0]][at[1]]) is not None:
        at = before
        way.append(at)
    way.reverse()
    part: list[tuple[Local, Edge]] = []
    for (depth, source), (deeper, target) in pairwise(way):
        part.append((explored.local(source), explored.edge(source, target)))
        if deeper != depth:
            yield part
            part = []


def _line(explored: Explored, before: Local, edge: Edge) -> str:
    steps, after = explored.world.steps, explored.world.settled(edge)
    source, target = steps.brains[before.brain].leaf, steps.brains[after.brain].leaf
    moved = f"{source} -> {target}" if source != target else f"stays in {source}"
    asked = [steps.effects[effect] for effect, _ in edge.taken.performs] if edge.taken is not None else []
    asks = f"; asks for {', '.join(_effect(one) for one in asked)}" if asked else ""
    return f"{edge.what}: {moved}{asks} [{_world(after)}]"


def _effect(effect: Effect) -> str:
    url = getattr(effect, "url", None)
    return f"{effect.name} {version_of(url)}" if url else effect.name


def _world(s: Local) -> str:
    runs = ", ".join(version_of(one) for one in s.alive) or "nothing"
    sends = version_of(s.entry) if s.entry is not None else "nobody"
    if s.entry is not None and s.entry not in s.alive:
        sends += " in vain"
    turn = ("no turn", "turn", "a forgotten turn")[s.slot]
    if s.slot and not s.key:
        turn = f"dirty {turn}"
    if s.key and not s.slot:
        turn = "in line"
    lease = " under an old lease" if s.key == 2 else ""
    return f"balancer to {sends}, runs {runs}, {turn}{lease}"
