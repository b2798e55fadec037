"""What stands where on the picture of a path, before anything has a place: the path, the rest, and what links them."""

from collections.abc import Iterator

from outrider.core.chart.draw_sheet import Marks
from outrider.core.chart.model import Chart, Transition


def lands(chart: Chart, target: str) -> str:
    """The box at which an arrow ends: a state with an inside is entered at a leaf."""
    return target if target in chart.histories else chart.entry_leaf(target)


class Plan:
    """What leads where, before anything has a place."""

    def __init__(self, chart: Chart, path: tuple[str, ...], steps: tuple[Transition, ...], marks: Marks) -> None:
        self.chart, self.path, self.marks = chart, path, marks
        self.others = tuple(name for name in in_order(chart) if name not in path)
        self.bundles: dict[tuple[str, str], list[Transition]] = {}
        self.inside: dict[str, list[Transition]] = {}
        for way in chart.transitions:
            if way.target is None or lands(chart, way.target) == way.source:
                self.inside.setdefault(way.source, []).append(way)
            else:
                self.bundles.setdefault((way.source, lands(chart, way.target)), []).append(way)
        # From one box straight down to the next: the path, and what comes next in the other column.
        self.links = {
            (one, other): (step.source, other) for one, other, step in zip(path, path[1:], steps, strict=False)
        }
        for one, other in zip(self.others, self.others[1:], strict=False):
            if (one, other) in self.bundles and parent(one) == parent(other):
                self.links[one, other] = (one, other)
        straight = set(self.links.values())
        self.rows = {ends: ways for ends, ways in self.bundles.items() if ends not in straight}
        entered = {target for _, target in self.rows}
        self.entered = tuple(name for name in (*path, *self.others) if name in entered)

    def rows_of(self, source: str) -> list[tuple[str, list[Transition]]]:
        """What leads away from ``source`` through the channel, by target."""
        return [(target, ways) for (start, target), ways in self.rows.items() if start == source]

    def is_taken(self, way: Transition) -> bool:
        """Whether it is marked as taken."""
        return any(line == way.line and self.chart.within(leaf, way.source) for leaf, line in self.marks.taken)

    def short(self, name: str) -> str:
        """The last part of an id, where that says which one is meant."""
        own = name.rpartition(".")[2]
        same = [other for other in (*self.path, *self.others) if other.rpartition(".")[2] == own]
        return own if len(same) == 1 and name not in self.chart.histories else name


def in_order(chart: Chart) -> Iterator[str]:
    """Leaves in document order, histories after the leaves beside them."""

    def inside(name: str) -> Iterator[str]:
        children = chart.states[name].children if name else tuple(top.id for top in chart.tops)
        for child in children:
            yield from inside(child) if chart.states[child].children else (child,)
        yield from (history.id for history in chart.histories.values() if history.parent == name and name)

    return inside("")


def parent(name: str) -> str:
    return name.rpartition(".")[0]


def around(name: str) -> list[str]:
    """The states around ``name``, from the outside in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
